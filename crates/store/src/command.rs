//! What a log entry asks of the store.
//!
//! To be a [`Command`] in the log is to be valid: [`Body::check`] is called where requests enter.
//! The envelope (format, request id, cluster time, wall clock) is fixed; see docs/formats/command.md.

mod check;
mod growth;
mod wire;
mod writes;

pub use check::Limits;
pub use wire::{DecodeError, Draft};

use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;

use crate::{Alarm, AlarmBy, ClusterTime, KeyRange, MemberChange, UnixMs, tree};

/// Names a request for as long as anyone may ask what became of it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RequestId {
    /// The member that took the request.
    pub member: u64,
    /// Which start of that member.
    pub incarnation: u64,
    /// Counts the requests of one incarnation.
    pub counter: u64,
}

/// A command as the log holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Who asked.
    pub id: RequestId,
    /// Cluster time, stamped by the leader when it appended the entry.
    pub time: ClusterTime,
    /// The proposing member's wall clock.
    pub wall: UnixMs,
    /// What is asked.
    pub body: Body,
}

/// What is asked of the store.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// v3 Put.
    Put(Put),
    /// v3 DeleteRange.
    DeleteRange(DeleteRange),
    /// v3 Txn.
    Txn(Box<Txn>),
    /// v3 Compact: discard history before `revision`, as on the wire.
    Compact {
        /// The oldest revision to keep.
        revision: i64,
    },
    /// v3 LeaseGrant, with the id chosen and the ttl raised to the minimum already.
    LeaseGrant {
        /// Not zero.
        id: i64,
        /// In seconds.
        ttl_s: i64,
    },
    /// v3 LeaseRevoke, or the end of a lease that ran out.
    LeaseRevoke {
        /// The lease.
        id: i64,
    },
    /// v3 Alarm: raises or clears one.
    Alarm {
        /// Which.
        alarm: Alarm,
        /// Or else cleared.
        raise: bool,
        /// On whose behalf.
        by: AlarmBy,
    },
    /// A write of v2's tree.
    Tree(tree::Request),
    /// End what v2 deadlines are due at this entry's cluster time.
    Expire,
    /// Nothing but this entry's cluster time, logged while a deadline or lease exists.
    Tick,
    /// Changes who is in the cluster.
    Member {
        /// Whom it concerns.
        id: u64,
        /// How.
        change: MemberChange,
    },
}

/// A value on its way into the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Blob {
    /// The bytes.
    pub bytes: Bytes,
    /// CRC32C of them.
    pub crc: u32,
    /// In a decoded command: where they begin, in bytes from its start.
    pub at: u32,
}

impl Blob {
    /// A value to be encoded.
    pub fn new(bytes: Bytes) -> Self {
        Self {
            crc: crc_fast::crc32_iscsi(&bytes),
            bytes,
            at: 0,
        }
    }
}

/// Writes one key.
///
/// Source: etcd API v3, `PutRequest`.
#[derive(Clone, Debug, PartialEq)]
pub struct Put {
    /// Not empty.
    pub key: Bytes,
    /// Empty with `ignore_value`.
    pub value: Blob,
    /// The lease to attach, 0 for none.
    pub lease: i64,
    /// Answer with what stood there before.
    pub prev_kv: bool,
    /// Keep the current value.
    pub ignore_value: bool,
    /// Keep the current lease or deadline.
    pub ignore_lease: bool,
}

/// Deletes a range of keys.
///
/// Source: etcd API v3, `DeleteRangeRequest`.
#[derive(Clone, Debug, PartialEq)]
pub struct DeleteRange {
    /// Which.
    pub range: KeyRange,
    /// Answer with what stood there before.
    pub prev_kv: bool,
}

/// Compares, then one of two lists of operations, all at one revision.
///
/// Source: etcd API v3, `TxnRequest`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Txn {
    /// All must hold for `success`.
    pub compare: Vec<Compare>,
    /// Done when they do.
    pub success: Vec<Op>,
    /// Done when they do not.
    pub failure: Vec<Op>,
}

/// One operation of a txn.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A read.
    Range(Range),
    /// A write.
    Put(Put),
    /// A delete.
    DeleteRange(DeleteRange),
    /// A txn inside the txn.
    Txn(Box<Txn>),
}

/// One comparison of a txn.
///
/// Source: etcd API v3, `Compare`.
#[derive(Clone, Debug, PartialEq)]
pub struct Compare {
    /// Must hold for every key in it.
    pub range: KeyRange,
    /// How.
    pub relation: Relation,
    /// With what.
    pub operand: Operand,
}

/// How the key's value stands to the operand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Relation {
    /// =
    Equal,
    /// >
    Greater,
    /// <
    Less,
    /// !=
    NotEqual,
}

/// What is compared, and with what.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Operand {
    /// The version counter.
    Version(i64),
    /// The create revision.
    Create(i64),
    /// The mod revision.
    Mod(i64),
    /// The value.
    Value(Bytes),
    /// The lease.
    Lease(i64),
}

/// Reads a range of keys.
///
/// Source: etcd API v3, `RangeRequest`.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    /// Which.
    pub range: KeyRange,
    /// At most this many keys; 0 and less is all.
    pub limit: i64,
    /// As of when; 0 and less is now.
    pub revision: i64,
    /// In which order.
    pub sort: Sort,
    /// Leave the values out.
    pub keys_only: bool,
    /// Leave the keys out too.
    pub count_only: bool,
    /// Bounds on the mod revision, inclusive; 0 is none.
    pub min_mod: i64,
    /// See `min_mod`.
    pub max_mod: i64,
    /// Bounds on the create revision, inclusive; 0 is none.
    pub min_create: i64,
    /// See `min_create`.
    pub max_create: i64,
}

impl Range {
    /// Everything about `range`, now, by key.
    pub fn all(range: KeyRange) -> Self {
        Self {
            range,
            limit: 0,
            revision: 0,
            sort: Sort {
                target: SortTarget::Key,
                descending: false,
            },
            keys_only: false,
            count_only: false,
            min_mod: 0,
            max_mod: 0,
            min_create: 0,
            max_create: 0,
        }
    }
}

/// The order of a range's answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sort {
    /// By what. Ties are in key order.
    pub target: SortTarget,
    /// Largest first.
    pub descending: bool,
}

impl Sort {
    /// Reads the wire's enums; no order with another target than the key is ascending.
    ///
    /// # Errors
    /// [`crate::Refusal::InvalidSort`] for numbers that name nothing.
    pub fn from_wire(order: i32, target: i32) -> Result<Self, crate::Refusal> {
        let descending = match order {
            0 | 1 => false,
            2 => true,
            _ => return Err(crate::Refusal::InvalidSort),
        };
        let target = match target {
            0 => SortTarget::Key,
            1 => SortTarget::Version,
            2 => SortTarget::Create,
            3 => SortTarget::Mod,
            4 => SortTarget::Value,
            _ => return Err(crate::Refusal::InvalidSort),
        };
        Ok(Self { target, descending })
    }
}

/// What a range's answer is sorted by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SortTarget {
    /// The key.
    Key,
    /// The version counter.
    Version,
    /// The create revision.
    Create,
    /// The mod revision.
    Mod,
    /// The value's bytes.
    Value,
}
