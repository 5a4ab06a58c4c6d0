//! Time as the replica knows it.

use std::collections::{BTreeMap, BTreeSet};

use quorate_store::{ClusterTime, UnixMs};

/// Milliseconds of this process's monotonic clock, from an arbitrary start.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Monotonic(pub u64);

/// What the clocks say at a step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// For timers and cluster time.
    pub monotonic: Monotonic,
    /// For display only.
    pub wall: UnixMs,
}

/// Cluster time on one member: what the leader last said, or the highest stamp in its log, plus its
/// own monotonic time since (one-store.md M7). It is never ahead of the leader that stamps, so nothing
/// ends early.
#[derive(Clone, Copy, Debug)]
pub struct ClusterClock {
    stamp: ClusterTime,
    heard: Monotonic,
}

impl ClusterClock {
    /// From the highest stamp in the log.
    pub fn new(stamp: ClusterTime, heard: Monotonic) -> Self {
        Self { stamp, heard }
    }

    /// The log has a stamp that says that it is this late at least.
    pub fn raise(&mut self, time: ClusterTime, now: Monotonic) {
        if time > self.at(now) {
            *self = Self::new(time, now);
        }
    }

    /// The cluster time now.
    pub fn at(&self, now: Monotonic) -> ClusterTime {
        ClusterTime(self.stamp.0 + now.0.saturating_sub(self.heard.0))
    }
}

/// How much is left of each lease: kept by the leader, outside the log.
#[derive(Debug, Default)]
pub(crate) struct LeaseClocks {
    leases: BTreeMap<i64, LeaseClock>,
    /// Leases that entries up to an index will end: it may be that they are not even granted yet.
    going: BTreeMap<i64, u64>,
    due: BTreeSet<(ClusterTime, i64)>,
}

#[derive(Clone, Copy, Debug)]
struct LeaseClock {
    ttl_s: i64,
    ends: ClusterTime,
    /// Its end is proposed: it cannot be renewed any more.
    ending: bool,
}

impl LeaseClocks {
    /// Starts counting a lease.
    pub(crate) fn grant(&mut self, id: i64, ttl_s: i64, now: ClusterTime) {
        let ends = end_of(ttl_s, now);
        let ending = self.going.contains_key(&id);
        self.leases.insert(
            id,
            LeaseClock {
                ttl_s,
                ends,
                ending,
            },
        );
        if !ending {
            self.due.insert((ends, id));
        }
    }

    /// Everything up to `index` is applied, and what comes of it is said next.
    pub(crate) fn applied(&mut self, index: u64) {
        self.going.retain(|_, ends| *ends > index);
    }

    /// Gives every lease its full time again, and `grace_ms` more: a new leader does not know when
    /// they were renewed, and the one before may go on renewing them until it notices.
    pub(crate) fn renew_all(&mut self, now: ClusterTime, grace_ms: u64) {
        let now = ClusterTime(now.0 + grace_ms);
        self.due.clear();
        self.going.clear();
        for (id, lease) in &mut self.leases {
            (lease.ends, lease.ending) = (end_of(lease.ttl_s, now), false);
            self.due.insert((lease.ends, *id));
        }
    }

    /// Stops counting a lease.
    pub(crate) fn end(&mut self, id: i64) {
        if let Some(lease) = self.leases.remove(&id) {
            self.due.remove(&(lease.ends, id));
        }
    }

    /// Gives a lease its full time again; its length in seconds, or `None` if it is gone or going.
    pub(crate) fn renew(&mut self, id: i64, now: ClusterTime) -> Option<i64> {
        let lease = self
            .leases
            .get_mut(&id)
            .filter(|lease| !lease.ending && lease.ends > now)?;
        self.due.remove(&(lease.ends, id));
        lease.ends = end_of(lease.ttl_s, now);
        self.due.insert((lease.ends, id));
        Some(lease.ttl_s)
    }

    /// Milliseconds left of a lease and its length in seconds.
    pub(crate) fn left(&self, id: i64, now: ClusterTime) -> Option<(u64, i64)> {
        let lease = self.leases.get(&id)?;
        let most = end_of(lease.ttl_s, ClusterTime(0)).0;
        Some((lease.ends.0.saturating_sub(now.0).min(most), lease.ttl_s))
    }

    /// Up to `max` leases that ran out and whose end is not proposed yet; they are ending now.
    pub(crate) fn take_due(&mut self, now: ClusterTime, max: usize) -> Vec<i64> {
        let mut taken = Vec::new();
        while let Some(&(ends, id)) = self.due.first()
            && ends <= now
            && taken.len() < max
        {
            self.due.pop_first();
            self.leases
                .get_mut(&id)
                .expect("what is due is a lease")
                .ending = true;
            taken.push(id);
        }
        taken
    }

    /// The end of a lease is on its way through the log, as entry `index`: it is not renewed, and does
    /// not end twice.
    pub(crate) fn going(&mut self, id: i64, index: u64) {
        self.going.insert(id, index);
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.ending = true;
            self.due.remove(&(lease.ends, id));
        }
    }

    /// Ids, soonest to end first.
    pub(crate) fn by_end(&self) -> Vec<i64> {
        let mut leases: Vec<_> = self.leases.iter().map(|(id, l)| (l.ends, *id)).collect();
        leases.sort_unstable();
        leases.into_iter().map(|(_, id)| id).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }
}

fn end_of(ttl_s: i64, now: ClusterTime) -> ClusterTime {
    let ttl_ms = u64::try_from(ttl_s).unwrap_or(0).saturating_mul(1000);
    ClusterTime(now.0.saturating_add(ttl_ms))
}
