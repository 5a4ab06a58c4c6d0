//! Leases: which keys go together when one ends.
//!
//! The store knows a lease's length and its keys; how much of it is left is counted by the leader
//! (`replica`), by cluster time.

use alloc::collections::BTreeSet;

use crate::Key;

/// The longest time to live, in seconds.
///
/// Source: etcd, `MaxLeaseTTL`.
pub(crate) const MAX_TTL_S: i64 = 9_000_000_000;

/// A granted lease.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// Granted time to live, in seconds.
    pub ttl_s: i64,
    /// The keys attached to it.
    pub keys: BTreeSet<Key>,
}
