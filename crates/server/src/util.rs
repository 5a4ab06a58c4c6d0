//! `quorate util`: commands on a data directory that no server runs on.

use std::path::Path;
use std::process::ExitCode;

use crate::disk::FsDisk;

/// Reads every record of a data directory and says what was found.
pub fn verify(data_dir: &Path) -> ExitCode {
    match report(data_dir) {
        Ok(sound) if sound => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("quorate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(data_dir: &Path) -> Result<bool, Box<dyn std::error::Error>> {
    let disk = FsDisk::open(data_dir)?;
    let report = quorate_log::verify(&disk)?;
    println!("{report}");
    Ok(report.is_sound())
}
