//! One member as functions: no clock, no disk, no socket, no thread.
//!
//! [`Replica`] is Raft with its timers, its reads and the leader's duties towards time; it is
//! stepped with an [`Input`] and answers with [`Effect`]s, in the order in which its owner must
//! perform them. [`Machine`] is the store behind the log. Time, chance and what the disk answered
//! are inputs, so `sim` runs the same code as the server.
//!
//! R1. A request is answered only after its entry is durable, committed and applied here (P1).
//! R2. Nothing is proposed to the log but stamped with a cluster time that never steps back (P5).
//! R3. A linearizable read is told an index that was committed after it was asked for (P2).

mod agreement;
mod clocks;
mod conf;
mod core;
mod frame;
mod machine;
mod open;
mod planted;
mod reclaim;
mod replica;
mod schedule;
mod tail;
pub mod transfer;

pub use clocks::{ClusterClock, Monotonic, Now};
pub use conf::Seat;
pub use core::PeerProgress;
pub use machine::{Applied, LeaseEvent, Machine, Notice};
pub use open::{OpenError, Opened, Settings, has_no_state, write_genesis};
#[doc(hidden)]
pub use planted::Planted;
pub use reclaim::{Reclaim, Wanted};
pub use replica::{Boot, Committed, Effect, Input, LeaseAnswer, NotDone, ReadId, Replica, Status};
pub use schedule::CheckpointSchedule;

/// Why this member must stop.
///
/// It has lost, or may lose, what it promised; going on could answer wrongly.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Halt {
    /// An entry of the log is not a command.
    #[error("entry {index} of the log is no command: {why}")]
    Entry {
        /// Which.
        index: u64,
        /// Why not.
        why: quorate_store::codec::DecodeError,
    },
    /// A value that a command needs does not verify.
    #[error("entry {index} of the log needs a value that cannot be read: {why}")]
    Value {
        /// Which entry.
        index: u64,
        /// Which value.
        why: quorate_store::ValueError,
    },
    /// The state read from a checkpoint is no state.
    #[error("the checkpoint's state cannot be read: {0}")]
    State(quorate_store::codec::DecodeError),
    /// The leader counts on entries that this member does not have.
    #[error(
        "the leader has committed up to entry {commit}, which this member has acknowledged, but its \
         log ends at {last}: its data directory is older than what it promised, or has lost writes; \
         remove the member and add it again with an empty directory"
    )]
    LostEntries {
        /// The leader's commit index.
        commit: u64,
        /// The last entry here.
        last: u64,
    },
    /// The leader has another entry where this member has a committed one.
    #[error(
        "the leader's entry {index} is of term {term}, which is not what is committed here: the data \
         directory is of another cluster or was changed; remove the member and add it again with an \
         empty directory"
    )]
    Contradiction {
        /// Which.
        index: u64,
        /// The term of the leader's.
        term: u64,
    },
    /// Most members' states are the same, and this one's is another.
    #[error(
        "this member's state differs at entry {index} from what most members have: its memory or its \
         disk has changed it; remove the member and add it again with an empty directory"
    )]
    Diverged {
        /// The index at which they were compared.
        index: u64,
    },
    /// The Raft library refused what it must accept.
    #[error("raft: {0}")]
    Raft(String),
}
