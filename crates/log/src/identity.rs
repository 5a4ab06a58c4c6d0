//! Who a data directory is: a random name, the member it belongs to, and how often it was opened.
//!
//! I1. The file exists only if the first segment was prepared durably before; so a journal
//!     without an identity, or an identity without a journal, was tampered with.
//! I2. The incarnation is raised durably before anything else is done with the directory.

use alloc::vec::Vec;
use core::fmt;

use crate::bytes::{Fields, crc32c};
use crate::checkpoint::list_checkpoints;
use crate::checkpoint::remove_unfinished;
use crate::disk::{Disk, DiskErrorKind, read_whole, replace_file};
use crate::error::{Corrupt, LogError};
use crate::journal::Config;
use crate::reserve::{prepare_segment, with_reserve};
use crate::segment::{FORMAT_VERSION, SEGMENT_HEAD, list_segments, segment_name};
use crate::window::Window;

const NAME: &str = "identity";
const MAGIC: [u8; 8] = *b"QRTIDNT\0";
const FILE_BYTES: usize = 56;
const CRC_AT: usize = 52;

/// The random name of a data directory. All its files bear it, so that a file of another
/// directory is never taken for one of this. Not for the eyes of clients.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct DirectoryId(pub [u8; 16]);

impl fmt::Debug for DirectoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The identity file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The directory's random name.
    pub directory: DirectoryId,
    /// The cluster's id.
    pub cluster: u64,
    /// The member's id.
    pub member: u64,
    /// How often the directory was opened, this time included. From 1.
    pub incarnation: u64,
}

impl Identity {
    /// Reads the identity; `None` in a fresh directory.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if it does not verify, or is missing beside a journal in use.
    pub fn load<D: Disk>(disk: &D) -> Result<Option<Self>, LogError> {
        match disk.len(NAME) {
            Ok(length) if length == FILE_BYTES as u64 => {}
            Ok(length) => {
                let what = alloc::format!("the file has {length} bytes instead of {FILE_BYTES}");
                return Err(Corrupt::new(NAME, length.min(FILE_BYTES as u64), what).into());
            }
            Err(error) if error.kind == DiskErrorKind::NotFound => {
                check_unused(disk)?;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
        Self::decode(&read_whole(disk, NAME)?).map(Some)
    }

    /// Makes a fresh directory a member's: its first segment, then its identity, of incarnation 1.
    ///
    /// `random` must never be used for another directory.
    ///
    /// # Errors
    /// Those of the disk; what is left then is no member, and `create` can be called again.
    pub fn create<D: Disk>(
        disk: &D,
        config: Config,
        random: [u8; 16],
        cluster: u64,
        member: u64,
    ) -> Result<Self, LogError> {
        let identity = Self {
            directory: DirectoryId(random),
            cluster,
            member,
            incarnation: 1,
        };
        prepare_segment(disk, identity.directory, 1, config.segment_bytes)?;
        replace_file(disk, NAME, &identity.encode())?;
        Ok(identity)
    }

    /// Counts one more opening, durably; on a full disk with room from the reserve.
    ///
    /// # Errors
    /// Those of the disk; the incarnation on disk is then the old or the new one.
    /// [`LogError::Full`] if the reserve is used up.
    pub fn raise<D: Disk>(&mut self, disk: &D) -> Result<(), LogError> {
        let raised = Self {
            incarnation: self.incarnation + 1,
            ..self.clone()
        };
        let bytes = raised.encode();
        // A member starts on a full disk too, though it was killed while a checkpoint had the reserve.
        remove_unfinished(disk)?;
        let replaced = with_reserve(disk, 0, || replace_file(disk, NAME, &bytes));
        replaced.map_err(LogError::of_reserve)?;
        *self = raised;
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FILE_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.directory.0);
        for number in [self.cluster, self.member, self.incarnation] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, LogError> {
        let corrupt = |what: &str| LogError::Corrupt(Corrupt::new(NAME, 0, what));
        let mut fields = Fields(bytes);
        if fields.array() != Some(MAGIC) || bytes.len() != FILE_BYTES {
            return Err(corrupt("the file is not an identity"));
        }
        if crc32c(&bytes[..CRC_AT]).to_le_bytes() != bytes[CRC_AT..] {
            return Err(corrupt("the checksum is wrong"));
        }
        let found = fields.u32().unwrap_or_default();
        if found > FORMAT_VERSION {
            let (file, known) = (NAME.into(), FORMAT_VERSION);
            return Err(LogError::Newer { file, found, known });
        }
        Self::decode_fields(&mut fields).ok_or_else(|| corrupt("the file is too short"))
    }

    fn decode_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let directory = DirectoryId(fields.array()?);
        let (cluster, member) = (fields.u64()?, fields.u64()?);
        Some(Self {
            directory,
            cluster,
            member,
            incarnation: fields.u64()?,
        })
    }
}

/// Refuses a directory that was used and has lost its identity. Only the first segment may be
/// there, unused, from a creation that was cut short.
fn check_unused<D: Disk>(disk: &D) -> Result<(), LogError> {
    let gone = |what: &str| Err(LogError::Corrupt(Corrupt::new(NAME, 0, what)));
    if !list_checkpoints(disk)?.is_empty() {
        return gone("the file is missing beside a checkpoint");
    }
    for segment in list_segments(disk)? {
        if segment > 1 || !is_unused(disk, &segment_name(segment))? {
            return gone("the file is missing beside a journal");
        }
    }
    Ok(())
}

fn is_unused<D: Disk>(disk: &D, name: &str) -> Result<bool, LogError> {
    let mut window = Window::new(disk, name, disk.len(name)?);
    let mut offset = u64::from(SEGMENT_HEAD);
    loop {
        let bytes = window.get(offset, 4096)?;
        if bytes.is_empty() {
            return Ok(true);
        }
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        offset += bytes.len() as u64;
    }
}
