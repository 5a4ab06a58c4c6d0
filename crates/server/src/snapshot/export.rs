//! An etcd's file from a data directory that no server runs on: the same writer as for a running one.

use std::io;
use std::path::{Path, PathBuf};

use quorate_log::{Config as JournalConfig, Identity, LogError};
use quorate_replica::{Committed, Machine, Opened};
use quorate_store::Values;

use super::contents::{Contents, WriteError};
use super::file::HashingFile;
use super::moment::Moment;
use crate::disk::{DirLock, FsDisk, LockError, Segments};

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    /// Another process works in the directory, or it is none.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// It holds no member.
    #[error("{} is no data directory of Quorate: it has no identity", .0.display())]
    NoMember(PathBuf),
    /// What is on disk cannot be trusted.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What is on disk could not be read back.
    #[error(transparent)]
    Open(#[from] quorate_replica::OpenError),
    /// The file could not be written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: WriteError,
    },
}

/// What was exported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exported {
    pub(crate) revision: u64,
    pub(crate) bytes: u64,
}

/// Writes the state of `data_dir` to `path`, which must not exist.
///
/// # Errors
/// [`ExportError`]; there is no file then.
pub(crate) fn export(data_dir: &Path, path: &Path) -> Result<Exported, ExportError> {
    if !data_dir.join("identity").exists() {
        return Err(ExportError::NoMember(data_dir.to_owned()));
    }
    let _lock = DirLock::take(data_dir)?;
    let disk = FsDisk::open(data_dir).map_err(LogError::from)?;
    let identity = Identity::load(&disk)?;
    let identity = identity.ok_or_else(|| ExportError::NoMember(data_dir.to_owned()))?;
    let segments = Segments::open(&disk, 0).map_err(LogError::from)?;
    let values = segments.reader();
    let config = JournalConfig::default();
    let mut opened = Opened::read(disk, identity.directory, config, &values, &mut |_| {})?;
    apply_rest(&mut opened, &values)?;

    let machine: &mut Machine = &mut opened.machine;
    let (_, cursor) = machine.begin_walk();
    let moment = Moment {
        applied: machine.applied(),
        time: machine.time(),
        head: cursor.head().clone(),
    };
    let revision = moment.head.revision.get();
    let contents = Contents::measure((machine.store(), &values), moment);
    let written = write(&contents, path);
    written.map_err(|error| ExportError::File {
        path: path.to_owned(),
        error,
    })?;
    Ok(Exported {
        revision,
        bytes: contents.bytes(),
    })
}

/// What a lone voter has in its log is committed as soon as it is elected; some of it was answered.
fn apply_rest(opened: &mut Opened<FsDisk>, values: &dyn Values) -> Result<(), ExportError> {
    let applied = opened.machine.applied().0;
    let entries = std::mem::take(&mut opened.recovered.entries);
    let rest = entries
        .into_iter()
        .filter(|(entry, _)| entry.index > applied);
    for (entry, place) in rest {
        let committed = Committed {
            index: entry.index,
            term: entry.term,
            data: entry.data,
            place,
        };
        let done = opened.machine.apply(&[committed], values);
        done.map_err(quorate_replica::OpenError::from)?;
    }
    Ok(())
}

fn write<S: super::State>(contents: &Contents<S>, path: &Path) -> Result<(), WriteError> {
    let mut unfinished = path.to_owned().into_os_string();
    unfinished.push(".part");
    let unfinished = PathBuf::from(unfinished);
    if path.exists() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
    }
    let written = HashingFile::create(&unfinished)
        .map_err(WriteError::from)
        .and_then(|file| Ok(contents.write(file)?.finish()?))
        .and_then(|()| Ok(std::fs::rename(&unfinished, path)?));
    if written.is_err() {
        // What cannot be removed is for the operator, who hears of the first trouble.
        let _ = std::fs::remove_file(&unfinished);
    }
    written
}
