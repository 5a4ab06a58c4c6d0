//! Whole runs: a swarm for one seed, and every effect of a short script as a crash point.

use crate::chance::Chance;
use crate::disk::Crash;
use crate::plan::Plan;
use crate::trace::Trace;
use crate::world::{Seen, World};

/// Runs a member through several starts; each ends in a way drawn from the seed.
///
/// # Panics
/// If a promise is broken; the message says which.
#[must_use]
pub fn swarm(plan: Plan, trace: Trace) -> (Trace, Seen) {
    let (steps, starts) = (plan.steps, plan.starts);
    let mut world = World::new(plan, trace);
    for start in 0..starts {
        if start > 0 {
            world.draw_fault();
        }
        let mut up = world.start() && world.run(steps);
        if up && start % 3 < 2 {
            up = world.settle();
        }
        if up && start % 2 == 0 {
            world.stop();
        }
        let crash = world.draw_crash();
        world.kill(crash);
    }
    assert!(world.start() && world.settle() && world.put_something());
    (world.take_trace(), world.seen)
}

/// Fills a member's disk, kills and starts it while it is full, and then makes the disk larger: it
/// must start as long as its reserve is not used up, forget nothing, and go on by itself.
///
/// # Panics
/// If a promise is broken; the message says which.
#[must_use]
pub fn full_disk(plan: Plan) -> Seen {
    let mut chance = Chance::new(!plan.seed);
    let mut world = World::new(plan, Trace::Silent);
    fill(&mut world, &mut chance);
    for _ in 0..3 {
        let mut up = true;
        while up && !world.is_short() && chance.below(30) > 0 {
            up = world.run(20);
        }
        if up && world.run(chance.below(25)) && chance.one_in(2) {
            world.settle();
        }
        let was_short = world.is_short();
        let crash = world.draw_crash();
        world.kill(crash);
        let has_reserve = world.has_reserve();
        let started = world.start();
        assert!(
            started || !has_reserve,
            "a full disk keeps it from starting"
        );
        if !started {
            break;
        }
        world.seen.started_short += u64::from(was_short);
    }
    go_on_with_room(&mut world);
    world.seen
}

/// Takes every byte of a member's disk beyond its reserve, again and again while it runs: it must
/// end only with the reserve used up, say so, say it again when it is started, and forget nothing.
///
/// # Panics
/// If a promise is broken; the message says which.
#[must_use]
pub fn reserve_used_up(plan: Plan) -> Seen {
    let mut chance = Chance::new(!plan.seed);
    let mut world = World::new(plan, Trace::Silent);
    fill(&mut world, &mut chance);
    let lasts = (0..100_000).all(|_| {
        world.disk.set_capacity(world.disk.used_bytes());
        world.run(1)
    });
    assert!(!lasts, "what is logged takes no room");
    world.kill(Crash::Clean);
    let started = world.start();
    assert!(!started, "it starts without a byte of room");
    go_on_with_room(&mut world);
    world.seen
}

/// Runs a while, and leaves little room on the disk.
fn fill(world: &mut World, chance: &mut Chance) {
    let (steps, segment_bytes) = (world.plan.steps, u64::from(world.plan.segment_bytes));
    assert!(world.start() && world.run(steps / 4) && world.settle());
    let left = chance.below(4 * segment_bytes);
    world.disk.set_capacity(world.disk.used_bytes() + left);
}

fn go_on_with_room(world: &mut World) {
    world.disk.set_capacity(u64::MAX);
    world.kill(Crash::Clean);
    assert!(world.start() && world.settle() && world.put_something());
    assert!(
        !world.is_short(),
        "there is room again, and nobody was told"
    );
}

/// How much of a short script is tried.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// One in so many effects of the script is a crash point.
    pub every: u64,
    /// Of each recovery, one in so many of its effects is one too; 0 for none.
    pub every_of_recovery: u64,
}

/// What [`crash_points`] tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    /// Effects of the script.
    pub effects: u64,
    /// Recoveries that were checked.
    pub recoveries: u64,
    /// Recoveries that were themselves cut short.
    pub cut_short: u64,
    /// What the script met.
    pub seen: Seen,
}

/// Cuts the power at every effect of a script (as far as the budget allows), lets the unsynced
/// survive, vanish or tear, starts again, cuts the power at the effects of that start too, and
/// checks everything after each.
///
/// # Panics
/// If a promise is broken; the message says which.
#[must_use]
pub fn crash_points(plan: &Plan, budget: Budget) -> Tried {
    let mut chance = Chance::new(!plan.seed);
    let mut tried = Tried::default();
    let mut whole = World::new(plan.clone(), Trace::Silent);
    assert!(whole.start() && whole.run(plan.steps) && whole.settle() && whole.stop());
    (tried.effects, tried.seen) = (whole.disk.effects(), whole.seen);
    for effect in 0..tried.effects {
        if !chance.one_in(budget.every) {
            continue;
        }
        let mut world = World::new(plan.clone(), Trace::Silent);
        world.disk.crash_at(effect);
        let up = world.start() && world.run(plan.steps) && world.settle() && world.stop();
        assert!(
            !up && world.disk.is_without_power(),
            "effect {effect} did not come"
        );
        for crash in crashes(plan, &mut chance) {
            tried.add(&world, crash, budget, &mut chance);
        }
    }
    tried
}

impl Tried {
    fn add(&mut self, world: &World, crash: Crash, budget: Budget, chance: &mut Chance) {
        let mut again = world.after_crash(world.survivors(crash));
        assert!(again.start() && again.settle(), "the power did not fail");
        let effects = again.disk.effects();
        assert!(again.put_something(), "the power did not fail");
        self.recoveries += 1;
        if budget.every_of_recovery == 0 {
            return;
        }
        for effect in 0..effects {
            if !chance.one_in(budget.every_of_recovery) {
                continue;
            }
            let disk = world.survivors(crash);
            disk.crash_at(effect);
            let mut short = world.after_crash(disk);
            assert!(
                !(short.start() && short.settle()),
                "effect {effect} did not come"
            );
            self.cut_short += 1;
            for crash in crashes(&world.plan, chance) {
                let mut again = short.after_crash(short.survivors(crash));
                assert!(again.start() && again.settle(), "the power did not fail");
                self.recoveries += 1;
            }
        }
    }
}

fn crashes(plan: &Plan, chance: &mut Chance) -> [Crash; 3] {
    let torn = Crash::Torn {
        seed: chance.next(),
        sector_bytes: plan.sector_bytes,
    };
    [Crash::Clean, Crash::Lost, torn]
}
