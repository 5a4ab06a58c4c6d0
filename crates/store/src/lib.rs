//! The replicated state machine: keys and their history, directories, transactions, leases.
//!
//! A pure function of the commands applied to it: no clock, no file, no thread, no chance.
//! Time and the place of each entry in the log come in with the entry ([`Stamp`]); older and
//! larger values are read back from the log through [`Values`].
//!
//! Owns what a command means ([`Store::apply`]), what a read at a revision returns
//! ([`Store::range`], [`tree`]), and history, from which every watch of either dialect is replayed.
//! Never decides when something happens: expiry, compaction and checkpoints are asked for from
//! outside.
//!
//! S1. Two stores that applied the same stamped commands answer every read alike (P3).
//! S2. A revision is taken by a command that changes something, and by no other.
//! S3. A version, once written, is never changed; compaction only removes.
//! S4. A key names at most one lease, and that lease names it back.
//! S5. A refused command changed nothing.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod alarm;
mod apply;
mod chain;
pub mod codec;
pub mod command;
mod history;
mod key;
mod lease;
mod load;
mod map;
mod member;
mod range;
mod read;
mod refusal;
mod revision;
mod store;
mod txn;
mod value;
mod walk;

pub mod tree;

pub use alarm::{Alarm, AlarmBy, AlarmKind};
pub use apply::{Outcome, RangeReply, Reply, Stamp, TxnReply};
pub use chain::{Action, Deadline, DirVersion, Ends, FileVersion, Limit, Mark};
pub use command::{Body, Command};
pub use history::{Change, Class};
pub use key::Key;
pub use lease::Lease;
pub use load::{Loader, file_versions};
pub use member::{Life, Member, MemberChange, Role};
pub use range::{KeyEnd, KeyRange};
pub use read::{RangeAnswer, ReadError, Row};
pub use refusal::Refusal;
pub use revision::{ClusterTime, Revision, UnixMs};
pub use store::{KeyValue, Store};
pub use value::{Place, Short, Value, ValueAt, ValueError, Values};
pub use walk::{Cursor, Head, file_row};
