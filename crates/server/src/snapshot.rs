//! etcd's own snapshot file, made from a state and read into one.
//!
//! The file is a bbolt file as an etcd keeps it (`key` by revision, `lease`, `meta` and so on), its
//! SHA-256 behind it. What etcd does not have (directories, v2 deadlines, how v2 sees a version) goes
//! into a bucket of ours, `quorate`, which etcd carries along and never looks at.
//!
//! Owns what each bucket holds, in both directions. Never knows how a page is laid out
//! ([`crate::bolt`]), nor who asked for the file.
//!
//! F1. A file is of one revision: everything at or below it that compaction has left, nothing above.
//! F2. What is read is checked: a file that makes no valid state is refused before a directory is made.
//!
//! The bytes are in docs/formats/snapshot.md.

mod contents;
mod export;
mod file;
mod import;
mod moment;
mod read;
mod rows;
mod status;

pub(crate) use contents::{Contents, WriteError};
pub(crate) use export::export;
pub(crate) use file::{HashCheck, open};
pub(crate) use import::{ImportError, Imported, Options, import};
pub(crate) use moment::{Moment, State};
#[cfg(fuzzing)]
pub(crate) use read::fuzz;
pub(crate) use status::status;

#[cfg(test)]
mod tests;
