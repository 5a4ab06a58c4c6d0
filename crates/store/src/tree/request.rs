//! What a v2 client asks for, what it may be refused, and the request's bytes in the log.

use alloc::vec::Vec;
use bytes::Bytes;

use crate::codec::{DecodeError, Read, Write as _};
use crate::command::Blob;
use crate::{Key, Revision};

use super::Path;

/// A write to the tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Where.
    pub path: Path,
    /// What.
    pub op: Op,
}

/// What a write does.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Makes or replaces.
    Set {
        /// A directory instead of a file.
        dir: bool,
        /// What to write.
        write: Write,
    },
    /// Makes what is not there yet.
    Create {
        /// A directory instead of a file.
        dir: bool,
        /// Below the path, under the name of the new revision (POST).
        in_order: bool,
        /// What to write; a refresh is none here.
        write: Write,
    },
    /// Changes what is there, be it a directory's ttl.
    Update {
        /// What to write.
        write: Write,
    },
    /// Changes a file that is as expected.
    CompareAndSwap {
        /// How it must be.
        condition: Condition,
        /// What to write.
        write: Write,
    },
    /// Removes a file or directory.
    Delete {
        /// An empty directory too.
        dir: bool,
        /// With all below it.
        recursive: bool,
    },
    /// Removes a file that is as expected.
    CompareAndDelete {
        /// How it must be.
        condition: Condition,
    },
}

/// The new content of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The value; ignored for directories.
    pub value: Blob,
    /// Time to live in seconds; `None` is for ever, and so is one that ends after the year 2262,
    /// where nanoseconds since 1970 overflow.
    pub ttl_s: Option<u64>,
    /// Keep the value and tell no watcher.
    pub refresh: bool,
}

/// How a file must be for a compare-and-swap or -delete. At least one of the two is given.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Condition {
    /// Its value. Not empty.
    pub value: Option<Bytes>,
    /// Its modified index; 0 is no condition.
    pub index: u64,
}

/// Why a request on the tree was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Nothing is there; names the first path element that is missing.
    #[error("key not found")]
    NotFound(Key),
    /// The file is not as expected: what was wanted and what is there, of what differs.
    #[error("compare failed")]
    CompareFailed {
        /// The value.
        value: Option<(Bytes, Vec<u8>)>,
        /// The modified index.
        index: Option<(u64, Revision)>,
    },
    /// A directory is there; the root's path is empty.
    #[error("not a file")]
    NotFile(Key),
    /// A file stands in the way.
    #[error("not a directory")]
    NotDirectory(Key),
    /// It exists already.
    #[error("key already exists")]
    Exists(Key),
    /// The root cannot be written.
    #[error("root is read only")]
    RootReadOnly,
    /// The directory has content.
    #[error("directory not empty")]
    NotEmpty(Key),
    /// The name of an in-order key does not fit the limits of a path.
    #[error("path too long")]
    TooLong,
    /// What was asked for is compacted away.
    #[error("the requested history has been cleared [{oldest}/{wanted}]")]
    Outdated {
        /// The oldest index that can be asked for.
        oldest: Revision,
        /// What was asked for.
        wanted: u64,
    },
}

const SET: u8 = 1;
const CREATE: u8 = 2;
const UPDATE: u8 = 3;
const COMPARE_AND_SWAP: u8 = 4;
const DELETE: u8 = 5;
const COMPARE_AND_DELETE: u8 = 6;

impl Request {
    /// Bytes that the client sent, for the limit on requests.
    pub fn size_bytes(&self) -> usize {
        let condition = |condition: &Condition| condition.value.as_ref().map_or(0, Bytes::len);
        self.path.as_bytes().len()
            + match &self.op {
                Op::Set { write, .. } | Op::Create { write, .. } | Op::Update { write } => {
                    write.value.bytes.len()
                }
                Op::CompareAndSwap {
                    condition: expected,
                    write,
                } => condition(expected) + write.value.bytes.len(),
                Op::CompareAndDelete {
                    condition: expected,
                } => condition(expected),
                Op::Delete { .. } => 0,
            }
    }

    /// Writes it: a tag, the path, then the fields in the order of their declaration.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.u8(match &self.op {
            Op::Set { .. } => SET,
            Op::Create { .. } => CREATE,
            Op::Update { .. } => UPDATE,
            Op::CompareAndSwap { .. } => COMPARE_AND_SWAP,
            Op::Delete { .. } => DELETE,
            Op::CompareAndDelete { .. } => COMPARE_AND_DELETE,
        });
        out.bytes(self.path.as_bytes());
        match &self.op {
            Op::Set { dir, write } => {
                out.bool(*dir);
                write.encode(out);
            }
            Op::Create {
                dir,
                in_order,
                write,
            } => {
                out.bool(*dir);
                out.bool(*in_order);
                write.encode(out);
            }
            Op::Update { write } => write.encode(out),
            Op::CompareAndSwap { condition, write } => {
                condition.encode(out);
                write.encode(out);
            }
            Op::Delete { dir, recursive } => {
                out.bool(*dir);
                out.bool(*recursive);
            }
            Op::CompareAndDelete { condition } => condition.encode(out),
        }
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(read: &mut Read) -> Result<Self, DecodeError> {
        let tag = read.u8()?;
        let path = Path::parse(read.bytes()?).map_err(|_| DecodeError::Bad("path"))?;
        let op = match tag {
            SET => Op::Set {
                dir: read.bool()?,
                write: Write::decode(read)?,
            },
            CREATE => Op::Create {
                dir: read.bool()?,
                in_order: read.bool()?,
                write: Write::decode(read)?,
            },
            UPDATE => Op::Update {
                write: Write::decode(read)?,
            },
            COMPARE_AND_SWAP => Op::CompareAndSwap {
                condition: Condition::decode(read)?,
                write: Write::decode(read)?,
            },
            DELETE => Op::Delete {
                dir: read.bool()?,
                recursive: read.bool()?,
            },
            COMPARE_AND_DELETE => Op::CompareAndDelete {
                condition: Condition::decode(read)?,
            },
            _ => return Err(DecodeError::Bad("tree operation")),
        };
        Ok(Self { path, op })
    }
}

impl Write {
    fn encode(&self, out: &mut Vec<u8>) {
        self.value.encode(out);
        out.optional(self.ttl_s);
        out.bool(self.refresh);
    }

    fn decode(read: &mut Read) -> Result<Self, DecodeError> {
        Ok(Self {
            value: Blob::decode(read)?,
            ttl_s: read.optional()?,
            refresh: read.bool()?,
        })
    }
}

impl Condition {
    fn encode(&self, out: &mut Vec<u8>) {
        out.bytes(self.value.as_deref().unwrap_or_default());
        out.u64(self.index);
    }

    fn decode(read: &mut Read) -> Result<Self, DecodeError> {
        let value = Some(read.bytes()?).filter(|value| !value.is_empty());
        Ok(Self {
            value,
            index: read.u64()?,
        })
    }
}
