//! What the state machine refuses.

use crate::{Revision, tree};

/// Why the store refused a command or a read. Every member refuses alike.
///
/// No variant may depend on this member's disk, clock or network. The server maps each variant,
/// with no wildcard arm, to the code and text that etcd sends.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// A request names no key.
    #[error("key is not provided")]
    EmptyKey,
    /// `ignore_value` or `ignore_lease` on a key that does not exist, or an empty op in a txn.
    #[error("key not found")]
    KeyNotFound,
    /// `ignore_value` together with a value.
    #[error("value is provided")]
    ValueProvided,
    /// `ignore_lease` together with a lease.
    #[error("lease is provided")]
    LeaseProvided,
    /// A txn has more operations than `max-txn-ops`.
    #[error("too many operations in txn request")]
    TooManyOps,
    /// Two writes of one txn touch one key.
    #[error("duplicate key given in txn request")]
    DuplicateKey,
    /// A sort order or target that does not exist.
    #[error("invalid sort option")]
    InvalidSort,
    /// The request's encoding is larger than `max-request-bytes`.
    #[error("request is too large")]
    TooLarge,
    /// History at `asked` is gone. Read again at `oldest` or later.
    #[error("revision {asked} is compacted; the oldest kept is {oldest}")]
    Compacted {
        /// What was asked for, as on the wire.
        asked: i64,
        /// The oldest revision that can be read.
        oldest: Revision,
    },
    /// `asked` has not happened yet.
    #[error("revision {asked} is in the future; the latest is {latest}")]
    Future {
        /// What was asked for, as on the wire.
        asked: i64,
        /// The latest revision.
        latest: Revision,
    },
    /// No lease has this id.
    #[error("lease {id:x} not found")]
    LeaseNotFound {
        /// The id asked for.
        id: i64,
    },
    /// A lease has this id already.
    #[error("lease {id:x} already exists")]
    LeaseExists {
        /// The id asked for.
        id: i64,
    },
    /// A time to live over 9,000,000,000 s.
    #[error("too large lease TTL: {ttl_s} s")]
    LeaseTtlTooLarge {
        /// What was asked for, in seconds.
        ttl_s: i64,
    },
    /// The quota on live bytes is used up, or the NOSPACE alarm is raised. Deletes and compaction still work.
    #[error("database space exceeded")]
    NoSpace,
    /// The CORRUPT alarm is raised. Only reads work.
    #[error("corrupt cluster")]
    Corrupt,
    /// No member has this id.
    #[error("member {id:x} not found")]
    MemberNotFound {
        /// The id asked for.
        id: u64,
    },
    /// A member of this id was there, and left for good.
    #[error("member {id:x} was removed")]
    MemberRemoved {
        /// The id asked for.
        id: u64,
    },
    /// A member has this id already.
    #[error("member id exists")]
    MemberExists,
    /// A member has one of these peer URLs already.
    #[error("peer URL exists")]
    PeerUrlExists,
    /// There may not be more members without a vote.
    #[error("too many learners")]
    TooManyLearners,
    /// The member votes already.
    #[error("can only promote a learner")]
    NotLearner,
    /// Without this member nobody could decide anything.
    #[error("the last member that votes cannot be removed")]
    LastVoter,
    /// The member has started with another data directory before.
    #[error("member is known by another data directory")]
    MemberOtherDirectory,
    /// The member's data directory has been started more often than it knows.
    #[error("member's data directory is older than what is known of it")]
    MemberOutdated,
    /// The v2 tree's own.
    #[error(transparent)]
    Tree(#[from] tree::Refusal),
}
