//! `quorate util`: commands on a data directory that no server runs on, and on snapshots.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use crate::config::{Restore, SnapshotCommand, UtilCommand, WriteOut};
use crate::disk::FsDisk;
use crate::snapshot::{self, HashCheck, ImportError, Imported, Options};

/// Does what was asked for, and prints what came of it.
pub fn run(command: &UtilCommand) -> ExitCode {
    let done = match command {
        UtilCommand::Verify { data_dir } => verify(data_dir),
        UtilCommand::Snapshot(SnapshotCommand::Status { file, write_out }) => {
            status(file, *write_out)
        }
        UtilCommand::Snapshot(SnapshotCommand::Restore {
            restore: asked,
            skip_hash_check,
        }) => {
            let check = match skip_hash_check {
                true => HashCheck::Skipped,
                false => HashCheck::Needed,
            };
            restore(asked, check)
        }
        UtilCommand::Import(asked) => restore(asked, HashCheck::IfThere),
        UtilCommand::Export { data_dir, file } => export(data_dir, file),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("quorate: {error}");
            ExitCode::FAILURE
        }
    }
}

type Done = Result<bool, Box<dyn Error>>;

/// Reads every record of a data directory and says what was found.
fn verify(data_dir: &Path) -> Done {
    let disk = FsDisk::open(data_dir)?;
    let report = quorate_log::verify(&disk)?;
    println!("{report}");
    Ok(report.is_sound())
}

fn status(file: &Path, write_out: WriteOut) -> Done {
    let database = snapshot::open(file, HashCheck::Skipped)?;
    let found = snapshot::status(&database).map_err(|error| named(file, &error))?;
    println!(
        "{}",
        match write_out {
            WriteOut::Simple => found.simple(),
            WriteOut::Json => found.json(),
            WriteOut::Table => found.table(),
        }
    );
    Ok(true)
}

fn restore(asked: &Restore, check: HashCheck) -> Done {
    let config = asked.config().map_err(|error| error.to_string())?;
    let database = snapshot::open(&asked.file, check)?;
    let options = Options {
        without_auth: asked.without_auth,
        bump_revision: asked.bump_revision,
        mark_compacted: asked.mark_compacted,
    };
    let imported = snapshot::import(&database, &config, options);
    let imported = imported.map_err(|error| match error {
        ImportError::Stop(stop) => named(&asked.file, &stop),
        other => other.to_string(),
    })?;
    let Imported {
        keys,
        versions,
        leases,
        revision,
        compacted,
        notes,
    } = imported;
    for note in notes {
        eprintln!("quorate: {note}");
    }
    let compacted = match compacted {
        -1 => "never compacted".to_owned(),
        compacted => format!("compacted at {compacted}"),
    };
    println!(
        "{} holds {keys} keys in {versions} versions and {leases} leases, at revision {revision}, \
         {compacted}; start it with --name={} and the same peer URLs",
        config.data_dir.display(),
        config.name
    );
    Ok(true)
}

fn export(data_dir: &Path, file: &Path) -> Done {
    let exported = snapshot::export(data_dir, file)?;
    println!(
        "{} holds revision {} in {} bytes",
        file.display(),
        exported.revision,
        exported.bytes
    );
    Ok(true)
}

fn named(file: &Path, error: &dyn Error) -> String {
    format!("{}: {error}", file.display())
}
