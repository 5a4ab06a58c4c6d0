//! v2's tree over the one key space: paths, directories, and what v2 is told that happened.
//!
//! Owns what a v2 command does ([`Request`]), the names it works on ([`Path`]), and what every
//! v2 answer and event is made of. All of the past is derived from versions and their marks
//! (one-store.md M4), so that a live watch, a past one and the answer to a write agree.
//! Never knows HTTP, error codes or JSON (that is `server::v2`).
//!
//! T1. A path with a directory entry has entries for all its ancestors (one-store.md M1).
//! T2. A revision has at most one record of a class for a path.
//! T3. A write that was not refused has one record that is not covered: its event.
//!
//! Source: spec v2-api.md §1, one-store.md.

mod apply;
mod event;
mod list;
mod path;
mod request;
#[cfg(test)]
mod testing;
mod view;

pub use apply::Reply;
pub(crate) use apply::{apply, expire};
pub use event::{Event, Node, Position, Scan, Watch, events_at, removes_directory};
pub use list::{Lister, Step, Walk};
pub use path::{MAX_BYTES, MAX_ELEMENTS, Path, PathError, ancestors, below, has_hidden, is_path};
pub use request::{Condition, Op, Refusal, Request, Write};
pub use view::{DirImage, Found, View};
