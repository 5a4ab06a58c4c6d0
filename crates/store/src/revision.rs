//! Points in history and in time.

/// A point in the history of the whole key space.
///
/// Unit: transactions. A txn that writes three keys advances it by one; `sub` tells its writes
/// apart. A fresh store is at 1; 0 stands before everything. Range: 0 to `i64::MAX`, the wire's
/// `int64`.
///
/// Source: etcd API v3, `ResponseHeader.revision`; v2's `X-Etcd-Index` is the same number.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Revision(u64);

impl Revision {
    /// Before everything.
    pub const ZERO: Self = Self(0);
    /// Where a fresh store stands.
    pub const FIRST: Self = Self(1);

    /// The revision with this number.
    pub const fn new(number: u64) -> Self {
        assert!(
            number <= i64::MAX as u64,
            "a revision fits the wire's int64"
        );
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// As the wire's `int64`.
    pub const fn to_wire(self) -> i64 {
        self.0 as i64
    }

    /// Reads a request's revision. `None` is "latest": 0 and, as in etcd, any negative.
    pub fn from_wire(wire: i64) -> Option<Self> {
        u64::try_from(wire)
            .ok()
            .filter(|&number| number > 0)
            .map(Self)
    }

    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::new(self.0 + 1)
    }

    /// The one before it; zero stays zero.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl core::fmt::Display for Revision {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

/// The cluster's own time, by which leases and v2 deadlines are judged (one-store.md M7).
///
/// Unit: milliseconds since an arbitrary start. Stamped by the leader, never decreasing along
/// the log, unrelated to the wall clock.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClusterTime(pub u64);

/// Wall-clock time, for display only.
///
/// Unit: milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UnixMs(pub u64);
