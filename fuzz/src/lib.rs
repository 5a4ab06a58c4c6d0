//! A data directory in memory, for decoders that read files; and edits of a whole file.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use quorate_log::{Disk, DiskError, DiskErrorKind};

/// Names and bytes; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Files(Rc<RefCell<BTreeMap<String, Vec<u8>>>>);

impl Files {
    /// Writes `bytes` over what a file has at `at`, as far as the file goes; lengthens none.
    pub fn overwrite(&self, name: &str, at: usize, bytes: &[u8]) {
        let mut files = self.0.borrow_mut();
        let file = files.get_mut(name).expect("the file was made");
        let at = at.min(file.len());
        let len = bytes.len().min(file.len() - at);
        file[at..at + len].copy_from_slice(&bytes[..len]);
    }

    /// Makes a file.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        self.0.borrow_mut().insert(name.to_owned(), bytes.to_vec());
    }

    fn with<T>(&self, name: &str, work: impl FnOnce(&mut Vec<u8>) -> T) -> Result<T, DiskError> {
        let mut files = self.0.borrow_mut();
        let missing = || DiskError {
            kind: DiskErrorKind::NotFound,
            operation: "open",
            file: name.to_owned(),
            reason: "no such file".to_owned(),
        };
        files.get_mut(name).map(work).ok_or_else(missing)
    }
}

impl Disk for Files {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        Ok(self.0.borrow().keys().cloned().collect())
    }

    fn len(&self, name: &str) -> Result<u64, DiskError> {
        self.with(name, |file| file.len() as u64)
    }

    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        self.with(name, |file| {
            let from = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(file.len());
            let len = into.len().min(file.len() - from);
            into[..len].copy_from_slice(&file[from..from + len]);
            len
        })
    }

    fn create(&self, name: &str) -> Result<(), DiskError> {
        self.put(name, b"");
        Ok(())
    }

    fn allocate(&self, name: &str, bytes: u64) -> Result<(), DiskError> {
        self.with(name, |file| {
            let len = usize::try_from(bytes).expect("a small file");
            file.resize(len.max(file.len()), 0);
        })
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.with(name, |file| {
            let from = usize::try_from(offset).expect("a small file");
            let len = file.len().max(from + bytes.len());
            file.resize(len, 0);
            file[from..from + bytes.len()].copy_from_slice(bytes);
        })
    }

    fn sync(&self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let bytes = self.with(from, std::mem::take)?;
        self.put(to, &bytes);
        self.remove(from)
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.0.borrow_mut().remove(name);
        Ok(())
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// Changes bytes where `edits` says: a place of three bytes, a length, then as many bytes.
pub fn edit(file: &mut [u8], mut edits: &[u8]) {
    while let Some((&[low, middle, high, len], rest)) = edits.split_first_chunk::<4>() {
        let (new, rest) = rest.split_at(usize::from(len % 64).min(rest.len()));
        let at = u32::from_le_bytes([low, middle, high, 0]) as usize % file.len().max(1);
        let len = new.len().min(file.len() - at);
        file[at..at + len].copy_from_slice(&new[..len]);
        edits = rest;
    }
}

/// A file without a name, for what reads no other.
///
/// # Errors
/// Those of the system.
pub fn scratch() -> std::io::Result<std::fs::File> {
    let path = std::env::temp_dir().join(format!("quorate-fuzz-{}", std::process::id()));
    let mut open = std::fs::File::options();
    let file = open.read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
