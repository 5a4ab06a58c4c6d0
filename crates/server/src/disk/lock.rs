//! One process works in a data directory at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The right to work in a data directory, until it is dropped or the process ends.
#[derive(Debug)]
pub struct DirLock {
    /// Being open is its use.
    _file: File,
}

/// Why a data directory was not locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process works in it.
    #[error(
        "data directory {} is in use by another process: stop that one first, \
         or name another directory by --data-dir", .0.display()
    )]
    InUse(PathBuf),
    /// The system refused.
    #[error("cannot lock data directory {}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DirLock {
    /// Locks a directory that exists.
    ///
    /// # Errors
    /// [`LockError::InUse`] while another process holds the lock.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io {
            path: path.to_owned(),
            source,
        };
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let file = options.open(path.join("lock")).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_with_a_sentence_until_the_first_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let first = DirLock::take(directory.path()).unwrap();
        let error = DirLock::take(directory.path()).unwrap_err();
        assert!(
            error.to_string().contains("is in use by another process"),
            "{error}"
        );
        drop(first);
        DirLock::take(directory.path()).unwrap();
    }
}
