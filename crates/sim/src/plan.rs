//! What a run is drawn from: sizes and habits, all from one seed.

use crate::chance::Chance;

/// The shape of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything follows from it.
    pub seed: u64,
    /// Steps between two starts of the member.
    pub steps: u64,
    /// Starts of the member.
    pub starts: u64,
    /// Length of a segment, in bytes.
    pub segment_bytes: u32,
    /// The log grows by at least this between two checkpoints, in bytes.
    pub checkpoint_growth: u64,
    /// Keys walked in one chunk of a checkpoint.
    pub chunk_keys: usize,
    /// Changes cleared up after a compaction in one turn.
    pub purge_chunk: usize,
    /// The longest value that is written, in bytes.
    pub longest_value: u64,
    /// What a torn write is made of, in bytes.
    pub sector_bytes: usize,
    /// Something broken on purpose, which the checks must notice.
    pub fault: Option<Fault>,
}

/// What a run may have broken on purpose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Once the member runs, the disk says that it has synced, and has not.
    LyingDisk,
    /// A checkpoint does not say which segments hold its values, so they are freed.
    ForgetsValues,
    /// The member's monotonic clock runs twice as fast as time.
    FastClock,
    /// A watcher that comes back starts one revision late.
    SkipsRevision,
    /// The disk thread reports what it has not synced yet.
    EarlyReport,
    /// A received state is put in place, and the log is not told that it goes on behind it.
    InstallsInPlace,
    /// What a replica guards itself.
    Replica(quorate_replica::Planted),
    /// A keep-alive is answered by a member that led before it fell asleep.
    RenewsAsleep,
}

impl Plan {
    /// Sizes drawn from `seed`.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let segment_bytes = *chance.pick(&[4 << 10, 4 << 10, 8 << 10, 16 << 10]);
        Self {
            seed,
            steps: 60 + chance.below(300),
            starts: 3 + chance.below(5),
            segment_bytes,
            checkpoint_growth: *chance.pick(&[1 << 10, 2 << 10, 8 << 10, 32 << 10]),
            chunk_keys: 1 + chance.below(12) as usize,
            purge_chunk: 1 + chance.below(8) as usize,
            longest_value: u64::from(segment_bytes) / *chance.pick(&[5, 5, 8, 40]),
            sector_bytes: *chance.pick(&[512, 4096]),
            fault: None,
        }
    }

    /// A run of few but large values: more is under way than Raft hands out at once (4 MiB), and
    /// more passes than is kept in memory behind what is applied (16 MiB).
    #[must_use]
    pub fn large(seed: u64) -> Self {
        Self {
            steps: 120,
            starts: 3,
            segment_bytes: 8 << 20,
            checkpoint_growth: 8 << 20,
            longest_value: 1 << 20,
            ..Self::draw(seed)
        }
    }

    /// A short run, whose every effect can be a crash point.
    #[must_use]
    pub fn short(seed: u64, steps: u64) -> Self {
        Self {
            steps,
            starts: 1,
            segment_bytes: 4 << 10,
            checkpoint_growth: 2 << 10,
            longest_value: 800,
            ..Self::draw(seed)
        }
    }

    /// The same with something broken.
    #[must_use]
    pub fn with(self, fault: Fault) -> Self {
        Self {
            fault: Some(fault),
            ..self
        }
    }
}
