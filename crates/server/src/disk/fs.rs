//! [`Disk`] by system calls.
//!
//! One descriptor a file, opened at first use and shared by all clones, so that the journal, the
//! preparing thread and a checkpoint can write at the same time. Interrupted calls are repeated,
//! failed ones never: whether to trust the disk after that is the journal's to say.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use quorate_log::{Disk, DiskError, DiskErrorKind};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::SyncTimes;

/// A data directory. Clones share its descriptors.
#[derive(Clone, Debug)]
pub struct FsDisk {
    shared: Arc<Shared>,
    times: Option<Arc<SyncTimes>>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    directory: File,
    files: Mutex<HashMap<String, Arc<File>>>,
}

impl FsDisk {
    /// Opens a directory that exists. Whoever writes must hold its [`super::DirLock`].
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let directory = File::open(path)
            .map_err(|error| refused("open", &path.display().to_string(), &error))?;
        let shared = Shared {
            path: path.to_owned(),
            directory,
            files: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            times: None,
        })
    }

    /// The same directory through a handle that measures its syncs.
    #[must_use]
    pub fn timed(&self) -> (Self, Arc<SyncTimes>) {
        let times = Arc::new(SyncTimes::default());
        (
            Self {
                shared: Arc::clone(&self.shared),
                times: Some(Arc::clone(&times)),
            },
            times,
        )
    }

    /// The same directory through a handle that measures nothing.
    #[must_use]
    pub fn untimed(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            times: None,
        }
    }

    /// Where the directory is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    fn files(&self) -> MutexGuard<'_, HashMap<String, Arc<File>>> {
        // The map is whole at every moment, whoever panicked.
        self.shared
            .files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, name: &str) -> io::Result<Arc<File>> {
        let mut files = self.files();
        if let Some(file) = files.get(name) {
            return Ok(Arc::clone(file));
        }
        let path = self.shared.path.join(name);
        // A directory that is only looked at may not be writable.
        let opened = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => File::open(&path),
            other => other,
        };
        let file = Arc::new(opened?);
        files.insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }
}

impl Disk for FsDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        let read = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(&self.shared.path)? {
                // A name that is not UTF-8 is none of ours.
                names.extend(entry?.file_name().into_string().ok());
            }
            Ok(names)
        };
        read().map_err(|error| refused("list", ".", &error))
    }

    fn len(&self, name: &str) -> Result<u64, DiskError> {
        let read = || self.file(name)?.metadata().map(|metadata| metadata.len());
        read().map_err(|error| refused("look at", name, &error))
    }

    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        let file = self
            .file(name)
            .map_err(|error| refused("open", name, &error))?;
        let mut done = 0;
        while done < into.len() {
            match file.read_at(&mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(refused("read", name, &error)),
            }
        }
        Ok(done)
    }

    fn create(&self, name: &str) -> Result<(), DiskError> {
        let mut files = self.files();
        let path = self.shared.path.join(name);
        let create = || -> io::Result<File> {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
        };
        let file = create().map_err(|error| refused("create", name, &error))?;
        files.insert(name.to_owned(), Arc::new(file));
        Ok(())
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let write = || self.file(name)?.write_all_at(bytes, offset);
        write().map_err(|error| refused("write", name, &error))
    }

    fn allocate(&self, name: &str, bytes: u64) -> Result<(), DiskError> {
        let allocate = || -> io::Result<()> {
            let file = self.file(name)?;
            let len = file.metadata()?.len();
            match rustix::fs::fallocate(&*file, FallocateFlags::empty(), 0, bytes) {
                // Then by hand.
                Err(Errno::OPNOTSUPP) => write_zeros(&file, len, bytes),
                other => Ok(other?),
            }
        };
        allocate().map_err(|error| refused("allocate", name, &error))
    }

    fn sync(&self, name: &str) -> Result<(), DiskError> {
        let file = self
            .file(name)
            .map_err(|error| refused("open", name, &error))?;
        let start = Instant::now();
        file.sync_data()
            .map_err(|error| refused("sync", name, &error))?;
        if let Some(times) = &self.times {
            times.record(start.elapsed());
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut files = self.files();
        std::fs::rename(self.shared.path.join(from), self.shared.path.join(to))
            .map_err(|error| refused("rename", from, &error))?;
        files.remove(to);
        if let Some(file) = files.remove(from) {
            files.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        let mut files = self.files();
        std::fs::remove_file(self.shared.path.join(name))
            .map_err(|error| refused("remove", name, &error))?;
        files.remove(name);
        Ok(())
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        self.shared
            .directory
            .sync_all()
            .map_err(|error| refused("sync", ".", &error))
    }
}

fn write_zeros(file: &File, from: u64, to: u64) -> io::Result<()> {
    let zeros = [0; 1 << 16];
    let mut offset = from;
    while offset < to {
        let count = (to - offset).min(zeros.len() as u64);
        file.write_all_at(&zeros[..count as usize], offset)?;
        offset += count;
    }
    Ok(())
}

fn refused(operation: &'static str, name: &str, error: &io::Error) -> DiskError {
    let kind = match error.kind() {
        ErrorKind::NotFound => DiskErrorKind::NotFound,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => DiskErrorKind::Full,
        _ => DiskErrorKind::Other,
    };
    DiskError {
        kind,
        operation,
        file: name.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_file_keeps_its_descriptor_and_a_created_one_is_new() {
        let parent = tempfile::tempdir().unwrap();
        let disk = FsDisk::open(parent.path()).unwrap();
        disk.create("a").unwrap();
        disk.write_at("a", 2, b"xyz").unwrap();
        disk.rename("a", "b").unwrap();
        assert_eq!(disk.len("a").unwrap_err().kind, DiskErrorKind::NotFound);
        let mut bytes = [1; 8];
        assert_eq!(disk.read_at("b", 0, &mut bytes).unwrap(), 5);
        assert_eq!(&bytes[..5], b"\0\0xyz");
        disk.create("b").unwrap();
        assert_eq!(disk.len("b").unwrap(), 0);
        disk.remove("b").unwrap();
        assert_eq!(disk.sync("b").unwrap_err().kind, DiskErrorKind::NotFound);
    }
}
