//! A snapshot on disk: a bbolt file, and mostly its SHA-256 behind it.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::bolt::{Database, ReadError};

const HASH_BYTES: u64 = 32;
/// What a file's length is a multiple of, as etcd judges whether there is a hash.
const ALIGNMENT: u64 = 512;

/// What to ask of the SHA-256 behind a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HashCheck {
    /// There must be one, and it must be right.
    Needed,
    /// One that is there must be right.
    IfThere,
    /// Nothing.
    Skipped,
}

/// Why a file is no snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// It cannot be read as a bbolt file.
    #[error("{}: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        error: ReadError,
    },
    /// It has no hash.
    #[error(
        "{}: no SHA-256 is behind it, as in etcd's own member/snap/db: use --skip-hash-check, \
         or `quorate util import`", .0.display()
    )]
    NoHash(PathBuf),
    /// It has the wrong one.
    #[error("{}: its SHA-256 is {found}, and not {wanted} as the file says itself", path.display())]
    Hash {
        /// Which file.
        path: PathBuf,
        /// What the bytes hash to.
        found: String,
        /// What stands behind them.
        wanted: String,
    },
}

/// Opens a snapshot.
///
/// # Errors
/// [`FileError`].
pub(crate) fn open(path: &Path, check: HashCheck) -> Result<Database<File>, FileError> {
    let io = |error| FileError::Io {
        path: path.to_owned(),
        error,
    };
    let mut file = File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    let has_hash = bytes % ALIGNMENT == HASH_BYTES;
    match (check, has_hash) {
        (HashCheck::Needed, false) => return Err(FileError::NoHash(path.to_owned())),
        (HashCheck::Needed | HashCheck::IfThere, true) => {
            let (found, wanted) = hashes(&mut file, bytes - HASH_BYTES).map_err(io)?;
            if found != wanted {
                let (path, found, wanted) = (path.to_owned(), hex(&found), hex(&wanted));
                return Err(FileError::Hash {
                    path,
                    found,
                    wanted,
                });
            }
        }
        (HashCheck::IfThere, false) | (HashCheck::Skipped, _) => {}
    }
    Database::open(file).map_err(|error| FileError::Read {
        path: path.to_owned(),
        error,
    })
}

/// The hash of the first `bytes` bytes, and the one behind them.
fn hashes(file: &mut File, bytes: u64) -> io::Result<(Vec<u8>, Vec<u8>)> {
    file.rewind()?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut hash = Hashed(Sha256::new());
    io::copy(&mut reader.by_ref().take(bytes), &mut hash)?;
    let mut wanted = Vec::new();
    reader.take(HASH_BYTES).read_to_end(&mut wanted)?;
    Ok((hash.0.finalize().to_vec(), wanted))
}

struct Hashed(Sha256);

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Takes a file's bytes and puts their hash behind them.
pub(crate) struct HashingFile {
    file: BufWriter<File>,
    hash: Sha256,
}

impl HashingFile {
    /// A new file that only its owner can read.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Self {
            file: BufWriter::with_capacity(1 << 20, file),
            hash: Sha256::new(),
        })
    }

    /// Writes the hash and makes all of it durable.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.file.write_all(&self.hash.finalize())?;
        self.file.into_inner()?.sync_all()
    }
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
