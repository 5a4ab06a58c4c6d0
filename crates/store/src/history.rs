//! The ordered list of what happened, kept until compaction.
//!
//! H1. Ordered by (revision, sub), without a gap among the subs of a revision.
//! H2. Holds every change at or after the compacted revision, until [`crate::Store::purge`] catches
//!     up perhaps some before it.

use crate::{Key, Revision, UnixMs};

/// The two kinds of entries in the key space.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// A directory entry: only v2 sees it.
    Dir,
    /// A key.
    File,
}

/// One change: which entry got a new version, and when.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The revision that made it.
    pub revision: Revision,
    /// Its order among the changes of that revision, from 0.
    pub sub: u32,
    /// What kind of entry.
    pub class: Class,
    /// The entry's key or path.
    pub key: Key,
    /// The proposing member's wall clock, for shown TTLs.
    pub wall: UnixMs,
}
