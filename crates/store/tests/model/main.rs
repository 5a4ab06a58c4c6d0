//! Random commands against a store and against a model that keeps a whole map for each revision.
//!
//! Every answer is compared; at times also all that can be read, history, leases, live bytes and
//! needed segments. Purges come at random moments, and so do walks, between whose chunks commands
//! are applied: what is loaded must be the state at the walk's begin, and reach the present state
//! by the commands since. Replay one seed: `SEED=n cargo nextest run -p quorate-store model`.

mod check;
mod model;
#[path = "../support/mod.rs"]
mod support;

use bytes::Bytes;
use model::Model;
use quorate_store::command::{Body, Limits};
use quorate_store::{ClusterTime, Cursor, Outcome, Reply};
use support::generate::Generator;
use support::{Chance, Entry, World, apply, load};

const SEEDS: u64 = 200;
const COMMANDS: usize = 300;
/// Few, so that some txns have too many.
const LIMITS: Limits = Limits { max_txn_ops: 6 };

#[test]
fn store_does_what_the_model_does() {
    let replayed = std::env::var("SEED").map(|seed| seed.parse().expect("SEED is a number"));
    let seeds = replayed.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    let mut seen = Seen::default();
    for seed in seeds.clone() {
        let _guard = Failing(seed);
        Run::new(seed).go(&mut seen);
    }
    if seeds.end - seeds.start == SEEDS {
        seen.check();
    }
}

/// Says which seed failed.
struct Failing(u64);

impl Drop for Failing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay it with SEED={}", self.0);
        }
    }
}

/// How often each kind of thing happened, so that the test notices when it tests nothing.
#[derive(Debug, Default)]
struct Seen {
    applied: u64,
    refused_before: u64,
    refused: u64,
    expired: u64,
    compacted: u64,
    purged: u64,
    loaded: u64,
    freed: u64,
}

impl Seen {
    fn check(&self) {
        let Self {
            applied,
            refused_before,
            refused,
            expired,
            compacted,
            purged,
            loaded,
            freed,
        } = self;
        let counts = [
            applied,
            refused_before,
            refused,
            expired,
            compacted,
            purged,
            loaded,
            freed,
        ];
        assert!(counts.iter().all(|&&count| count > 100), "{self:?}");
    }
}

struct Run {
    chance: Chance,
    world: World,
    model: Model,
    /// Up to which compaction the store was purged.
    purged_to: i64,
    walk: Option<Walk>,
}

/// A walk under way.
struct Walk {
    cursor: Cursor,
    rows: Vec<Bytes>,
    /// The state that it is of.
    model: Model,
    /// What was applied since, and what came of it.
    since: Vec<(Entry, Outcome)>,
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            chance: Chance(seed),
            world: World::default(),
            model: Model::default(),
            purged_to: -1,
            walk: None,
        }
    }

    fn go(mut self, seen: &mut Seen) {
        for count in 1..=COMMANDS {
            self.command(seen);
            match self.walk.take() {
                Some(walk) => self.go_on(walk, seen),
                None => self.rest(seen),
            }
            check::latest(&self.world, &self.model);
            if count % 50 == 0 {
                check::everything(&self.world, &self.model, self.purged_to);
                check::reads(&self.world, &self.model, &mut self.chance);
            }
        }
    }

    fn command(&mut self, seen: &mut Seen) {
        self.world.time = ClusterTime(self.world.time.0 + self.chance.below(500));
        let revision = self.world.store.revision().to_wire();
        let chance = &mut self.chance;
        let body = Generator { chance, revision }.body();
        let checked = body.check(LIMITS);
        assert_eq!(checked, model::check(&body, LIMITS), "{body:?}");
        if checked.is_err() {
            seen.refused_before += 1;
            return;
        }
        let entry = self.world.append(&body);
        let mut outcome = apply(&mut self.world.store, &entry, &self.world.log);
        let answer = outcome.clone();
        if matches!(outcome.result, Ok(Reply::Tree(_))) {
            // What v2 is told has tests of its own.
            outcome.result = Ok(Reply::Done);
        }
        let revision = self.model.revision();
        let expected = self.model.apply(&body, self.world.time.0, entry.0.segment);
        assert_eq!(outcome, expected, "{body:?}");
        seen.applied += 1;
        seen.refused += u64::from(expected.result.is_err());
        seen.expired += match body {
            Body::Expire => (self.model.revision() - revision) as u64,
            _ => 0,
        };
        seen.compacted += u64::from(expected.result == Ok(Reply::Compacted));
        if let Some(walk) = &mut self.walk {
            walk.since.push((entry, answer));
        }
    }

    /// What may happen while no walk is under way.
    fn rest(&mut self, seen: &mut Seen) {
        match self.chance.below(40) {
            0..8 => {
                let max = self.chance.pick(&[1, 3, 1000]);
                let more = self.world.store.purge(max);
                if !more && self.purged_to != self.model.compacted {
                    self.purged_to = self.model.compacted;
                    check::everything(&self.world, &self.model, self.purged_to);
                    seen.purged += 1;
                }
            }
            8 | 9 => {
                self.world.log.free(&self.world.store);
                seen.freed += 1;
            }
            10 => {
                self.walk = Some(Walk {
                    cursor: self.world.store.begin_walk(),
                    rows: Vec::new(),
                    model: self.model.clone(),
                    since: Vec::new(),
                });
            }
            _ => {}
        }
    }

    fn go_on(&mut self, mut walk: Walk, seen: &mut Seen) {
        let chunk = 1 + self.chance.below(3) as usize;
        let rows = &mut walk.rows;
        let mut take = |row: &[u8]| rows.push(Bytes::copy_from_slice(row));
        if self.world.store.walk(&mut walk.cursor, chunk, &mut take) {
            self.walk = Some(walk);
            return;
        }
        let loaded = load(&walk.rows).expect("a walk's rows");
        let present = std::mem::replace(&mut self.world.store, loaded);
        let loaded_to = walk.model.compacted;
        check::everything(&self.world, &walk.model, loaded_to);
        for (entry, answer) in &walk.since {
            let again = apply(&mut self.world.store, entry, &self.world.log);
            assert_eq!(again, *answer, "S1");
        }
        check::everything(&self.world, &self.model, loaded_to);
        seen.loaded += 1;
        if self.chance.one_in(2) {
            self.world.store = present;
        } else {
            self.purged_to = loaded_to;
        }
    }
}
