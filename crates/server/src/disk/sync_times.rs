//! How long the disk takes to make things durable, for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The number of buckets, the last of them without a bound.
pub const SYNC_BUCKETS: usize = 15;

/// A histogram of sync durations; its buckets are those of etcd's
/// `etcd_disk_wal_fsync_duration_seconds`.
#[derive(Debug, Default)]
pub struct SyncTimes {
    buckets: [AtomicU64; SYNC_BUCKETS],
    total_ns: AtomicU64,
}

impl SyncTimes {
    /// The upper bound of a bucket in milliseconds: 1, 2, 4 up to 8,192; `None` for the last.
    #[must_use]
    pub fn bound_ms(bucket: usize) -> Option<u64> {
        (bucket + 1 < SYNC_BUCKETS).then(|| 1 << bucket)
    }

    /// Counts one sync.
    pub fn record(&self, took: Duration) {
        let within = |bucket: &usize| match Self::bound_ms(*bucket) {
            Some(bound) => took <= Duration::from_millis(bound),
            None => true,
        };
        let bucket = (0..SYNC_BUCKETS).find(within).unwrap_or(SYNC_BUCKETS - 1);
        self.buckets[bucket].fetch_add(1, Relaxed);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.total_ns.fetch_add(ns, Relaxed);
    }

    /// How many syncs fell into each bucket, not cumulated.
    #[must_use]
    pub fn counts(&self) -> [u64; SYNC_BUCKETS] {
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
    fn a_duration_falls_into_the_first_bucket_that_bounds_it() {
        let times = SyncTimes::default();
        for ms in [0, 1, 2, 3, 8192, 8193, 100_000] {
            times.record(Duration::from_millis(ms));
        }
        let mut expected = [0; SYNC_BUCKETS];
        (expected[0], expected[1], expected[2]) = (2, 1, 1);
        (expected[13], expected[14]) = (1, 2);
        assert_eq!(times.counts(), expected);
        assert_eq!(
            times.total(),
            Duration::from_millis(6 + 8192 + 8193 + 100_000)
        );
    }
}
