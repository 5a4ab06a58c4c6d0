//! Latencies, counted in buckets whose width grows with them.

/// Each doubling is divided into so many buckets: a quantile is off by less than 1.6 %.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();
const BUCKETS: usize = ((64 - STEP_BITS + 1) as usize) * STEPS as usize;

/// How often which duration was seen, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
            max: 0,
        }
    }
}

impl Histogram {
    /// Counts a duration.
    pub fn record(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    /// Adds what another has counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The longest duration.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The duration that a share of all, 0 to 1, did not exceed, to the bucket; 0 if there are none.
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return last_of(at).min(self.max);
            }
        }
        self.max
    }
}

fn bucket(nanos: u64) -> usize {
    let doublings = nanos.max(STEPS).ilog2() - STEP_BITS;
    let step = nanos >> doublings;
    // Below STEPS a bucket is one nanosecond wide; from there on `step` has its top bit set.
    (u64::from(doublings) * STEPS + step) as usize
}

/// The longest duration of a bucket.
fn last_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let doublings = (bucket / STEPS).saturating_sub(1);
    let step = bucket - doublings * STEPS;
    (step << doublings) + ((1 << doublings) - 1)
}

#[cfg(test)]
mod tests {
    use super::{Histogram, bucket, last_of};

    #[test]
    fn every_duration_lies_in_its_bucket() {
        let mut before = 0;
        for shift in 0..64_u32 {
            for near in [0_u64, 1, 63] {
                let nanos =
                    (1_u64 << shift) + (near << shift.saturating_sub(6)).min(1 << shift) / 2;
                let at = bucket(nanos);
                assert!(at >= before && last_of(at) >= nanos, "{nanos}");
                assert!(at == 0 || last_of(at - 1) < nanos, "{nanos}");
                assert!(last_of(at) - nanos <= nanos / 64, "{nanos}");
                before = at;
            }
        }
        assert_eq!(last_of(bucket(u64::MAX)), u64::MAX);
    }

    #[test]
    fn a_quantile_is_what_the_share_did_not_exceed() {
        let mut low = Histogram::default();
        let mut high = Histogram::default();
        for nanos in 1..=50 {
            low.record(nanos);
            high.record(nanos + 50);
        }
        low.add(&high);
        assert_eq!((low.count(), low.max()), (100, 100));
        assert_eq!(low.quantile(0.5), 50);
        // 99 shares its bucket with 98.
        assert!(
            (98..=99).contains(&low.quantile(0.98)),
            "{}",
            low.quantile(0.98)
        );
        assert_eq!(low.quantile(1.0), 100);
        assert_eq!(Histogram::default().quantile(0.99), 0);
    }
}
