//! How long the disk takes to make things durable, and a snapshot to be sent, for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Sync durations; the buckets are those of etcd's `etcd_disk_wal_fsync_duration_seconds`, 1 ms to 8 s.
pub type SyncTimes = Times<1, 15>;

/// What snapshots took; the buckets are those of etcd's
/// `etcd_disk_backend_snapshot_duration_seconds`, 10 ms to 11 min.
pub type SnapshotTimes = Times<10, 18>;

/// A histogram of durations: so many buckets, the first up to so many milliseconds, each next one up
/// to twice as many, the last without a bound.
#[derive(Debug)]
pub struct Times<const FIRST_MS: u64, const BUCKETS: usize> {
    buckets: [AtomicU64; BUCKETS],
    total_ns: AtomicU64,
}

impl<const FIRST_MS: u64, const BUCKETS: usize> Default for Times<FIRST_MS, BUCKETS> {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            total_ns: AtomicU64::new(0),
        }
    }
}

impl<const FIRST_MS: u64, const BUCKETS: usize> Times<FIRST_MS, BUCKETS> {
    /// The upper bound of a bucket in milliseconds; `None` for the last.
    #[must_use]
    pub fn bound_ms(bucket: usize) -> Option<u64> {
        (bucket + 1 < BUCKETS).then(|| FIRST_MS << bucket)
    }

    /// Counts one.
    pub fn record(&self, took: Duration) {
        let within = |bucket: &usize| match Self::bound_ms(*bucket) {
            Some(bound) => took <= Duration::from_millis(bound),
            None => true,
        };
        let bucket = (0..BUCKETS).find(within).unwrap_or(BUCKETS - 1);
        self.buckets[bucket].fetch_add(1, Relaxed);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.total_ns.fetch_add(ns, Relaxed);
    }

    /// How many fell into each bucket, not cumulated.
    #[must_use]
    pub fn counts(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|bucket| self.buckets[bucket].load(Relaxed))
    }

    /// The sum of all durations.
    #[must_use]
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.total_ns.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_have_etcds_bounds() {
        let bounds: Vec<_> = (0..18).map(SnapshotTimes::bound_ms).collect();
        assert_eq!(
            (bounds[0], bounds[16], bounds[17]),
            (Some(10), Some(655_360), None)
        );
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_bounds_it() {
        let times = SyncTimes::default();
        for ms in [0, 1, 2, 3, 8192, 8193, 100_000] {
            times.record(Duration::from_millis(ms));
        }
        let mut expected = [0; 15];
        (expected[0], expected[1], expected[2]) = (2, 1, 1);
        (expected[13], expected[14]) = (1, 2);
        assert_eq!(times.counts(), expected);
        assert_eq!(
            times.total(),
            Duration::from_millis(6 + 8192 + 8193 + 100_000)
        );
    }
}
