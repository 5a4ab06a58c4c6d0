//! What a run of a cluster is drawn from.

use crate::chance::Chance;
use crate::plan::{Fault, Plan};

/// The shape of a run.
#[derive(Clone, Debug)]
pub struct ClusterPlan {
    /// Everything follows from it.
    pub seed: u64,
    /// Members at first.
    pub members: u64,
    /// How many more may join, one after another.
    pub newcomers: u64,
    /// Milliseconds of trouble before all is mended.
    pub trouble_ms: u64,
    /// The longest that a frame is under way, in milliseconds.
    pub longest_delay_ms: u64,
    /// Sizes of each member.
    pub sizes: Plan,
    /// One in so many chances something goes wrong; 0 for never.
    pub calm: u64,
    /// One in so many chances somebody joins, gets a vote, or leaves.
    pub change_every: u64,
    /// Whether whoever joins never gets a vote, and nobody leaves.
    pub learners_only: bool,
    /// Whether trouble is the leader's: it stops, or is cut off.
    pub hunts_leader: bool,
    /// How many times slower the disks of the first members are than usual.
    pub disk_pace: u64,
    /// Whether clocks stop and run slowly.
    pub odd_clocks: bool,
}

impl ClusterPlan {
    /// Drawn from `seed`.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x5eed);
        let members = *chance.pick(&[3, 3, 3, 3, 5, 1, 2]);
        let mut sizes = Plan::draw(seed);
        sizes.segment_bytes = *chance.pick(&[8 << 10, 16 << 10]);
        sizes.longest_value = u64::from(sizes.segment_bytes) / *chance.pick(&[8, 20, 40]);
        Self {
            seed,
            members,
            newcomers: if members < 3 { 2 } else { chance.below(4) },
            trouble_ms: 5_000 + chance.below(25_000),
            longest_delay_ms: *chance.pick(&[2, 20, 100, 300]),
            sizes,
            calm: *chance.pick(&[40, 80, 200, 0]),
            change_every: 30,
            learners_only: false,
            hunts_leader: false,
            disk_pace: 1,
            odd_clocks: chance.one_in(2),
        }
    }

    /// One voter with a learner, whose processes have short lives.
    #[must_use]
    pub fn lone_voter(seed: u64) -> Self {
        Self {
            members: 1,
            newcomers: 1,
            calm: 12,
            change_every: 2,
            learners_only: true,
            disk_pace: 12,
            longest_delay_ms: 2,
            trouble_ms: 20_000,
            ..Self::draw(seed)
        }
    }

    /// The leader is stopped for long, and cut off, again and again.
    #[must_use]
    pub fn hunted(seed: u64) -> Self {
        Self {
            members: 3,
            newcomers: 0,
            calm: 700,
            hunts_leader: true,
            trouble_ms: 40_000,
            longest_delay_ms: 2,
            ..Self::draw(seed)
        }
    }

    /// Members come and go all the time.
    #[must_use]
    pub fn restless(seed: u64) -> Self {
        Self {
            newcomers: 12,
            change_every: 3,
            ..Self::draw(seed)
        }
    }

    /// The same with something broken.
    #[must_use]
    pub fn with(mut self, fault: Fault) -> Self {
        self.sizes.fault = Some(fault);
        self
    }
}
