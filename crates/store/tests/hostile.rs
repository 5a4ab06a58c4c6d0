//! Bytes that nobody wrote: decoded into something valid or refused, without a panic and without
//! taking more memory than they are worth. What a loader accepts is a store that goes on working.

mod support;

use std::alloc::System;
use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use cap::Cap;
use quorate_store::command::{
    Blob, Body, Compare, DecodeError, DeleteRange, Draft, Limits, Op, Operand, Put, Range,
    Relation, RequestId, SortTarget, Txn,
};
use quorate_store::{
    ClusterTime, Command, KeyRange, Loader, ReadError, Refusal, Store, UnixMs, ValueAt, ValueError,
    Values, tree,
};
use support::generate::Generator;
use support::{Chance, FakeLog, World, load, rows};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);
/// One test at a time, or they would count each other's memory.
static ALONE: Mutex<()> = Mutex::new(());

const CASES: u64 = 100_000;
/// What a byte may take when decoded, and what anything may.
const BYTES_A_BYTE: usize = 64;
const BYTES_ANYWAY: usize = 64 << 10;

fn alone() -> MutexGuard<'static, ()> {
    ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs `decode`; the process ends if it allocates more than `len` bytes of input are worth.
fn within_bounds<T>(len: usize, decode: impl FnOnce() -> T) -> T {
    let bound = MEMORY.allocated() + len * BYTES_A_BYTE + BYTES_ANYWAY;
    MEMORY.set_limit(bound).expect("the limit lies above");
    let decoded = decode();
    MEMORY.set_limit(usize::MAX).expect("no limit");
    decoded
}

/// A world with a past, and its entries.
fn lived(seed: u64, commands: usize) -> (World, Vec<Bytes>) {
    let mut chance = Chance(seed);
    let mut world = World::default();
    let mut entries = Vec::new();
    for _ in 0..commands {
        let chance = &mut chance;
        let revision = world.store.revision().to_wire();
        let body = Generator { chance, revision }.body();
        if body.check(Limits { max_txn_ops: 128 }).is_ok() {
            let entry = world.append(&body);
            support::apply(&mut world.store, &entry, &world.log);
            entries.push(entry.1);
        }
    }
    for path in ["/d/e", "/d/f", "/g"] {
        let path = tree::Path::parse(Bytes::from_static(path.as_bytes())).expect("a path");
        let write = tree::Write {
            value: Blob::new(Bytes::new()),
            ttl_s: Some(5),
            refresh: false,
        };
        let op = tree::Op::Set { dir: true, write };
        let entry = world.append(&Body::Tree(tree::Request { path, op }));
        support::apply(&mut world.store, &entry, &world.log);
        entries.push(entry.1);
    }
    (world, entries)
}

/// Flips bits, cuts, lengthens, or writes a large number somewhere.
fn damage(chance: &mut Chance, bytes: &[u8]) -> Bytes {
    let mut bytes = bytes.to_vec();
    for _ in 0..=chance.below(3) {
        let at = chance.below(bytes.len().max(1) as u64) as usize;
        match chance.below(8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, chance.next() as u8),
            2 => bytes.push(chance.next() as u8),
            3 => {
                let large = chance.pick(&[0, 1, 33, 0x7fff_ffff, u32::MAX]);
                let there = bytes.iter_mut().skip(at);
                there
                    .zip(large.to_le_bytes())
                    .for_each(|(old, new)| *old = new);
            }
            4 => {
                bytes.get_mut(at).into_iter().for_each(|byte| *byte = 0);
            }
            _ => {
                let bit = 1 << chance.below(8);
                bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= bit);
            }
        }
    }
    bytes.into()
}

fn noise(chance: &mut Chance) -> Bytes {
    let len = chance.below(120);
    (0..len).map(|_| chance.next() as u8).collect()
}

#[test]
fn commands_are_decoded_or_refused() {
    let _alone = alone();
    let mut chance = Chance(1);
    let (_, entries) = lived(1, 2000);
    let mut decoded = 0;
    for case in 0..CASES {
        let valid = &entries[chance.below(entries.len() as u64) as usize];
        let bytes = match case % 4 {
            0 => noise(&mut chance),
            // A right envelope around anything.
            1 => [&valid[..56], &noise(&mut chance)].concat().into(),
            _ => damage(&mut chance, valid),
        };
        let Ok(command) = within_bounds(bytes.len(), || Command::decode(&bytes)) else {
            continue;
        };
        decoded += 1;
        let encode = |command: &Command| {
            Draft::new(command.id, command.wall, &command.body).stamp(command.time)
        };
        let written = encode(&command);
        let again = Command::decode(&written).expect("what was decoded can be written");
        assert_eq!(encode(&again), written);
    }
    assert!((1000..CASES).contains(&decoded), "{decoded} were decoded");
}

#[test]
fn rows_are_loaded_or_refused() {
    let _alone = alone();
    let mut chance = Chance(2);
    let (world, _) = lived(2, 300);
    let rows = rows(&world.store, 10);
    let mut loaded = 0;
    for case in 0..CASES {
        let valid = &rows[chance.below(rows.len() as u64) as usize];
        let bytes = match case % 4 {
            0 => noise(&mut chance),
            1 => [&[1 + case as u8 % 5], &noise(&mut chance)[..]]
                .concat()
                .into(),
            _ => damage(&mut chance, valid),
        };
        let mut loader = Loader::default();
        loader.row(rows[0].clone()).expect("the head");
        loaded += u64::from(within_bounds(bytes.len(), || loader.row(bytes)).is_ok());
    }
    assert!((1000..CASES).contains(&loaded), "{loaded} were loaded");
}

#[test]
fn what_was_loaded_goes_on_working() {
    let _alone = alone();
    let mut chance = Chance(3);
    let mut loaded = 0;
    for case in 0..3000 {
        let (mut world, _) = lived(case % 50, 10 + case as usize % 60);
        let mut rows = rows(&world.store, 10);
        for _ in 0..=chance.below(2) {
            let at = chance.below(rows.len() as u64) as usize;
            let other = chance.below(rows.len() as u64) as usize;
            match chance.below(8) {
                0 => rows.swap(at, other),
                1 => rows.insert(at, rows[other].clone()),
                2 if rows.len() > 1 => drop(rows.remove(at)),
                _ => rows[at] = damage(&mut chance, &rows[at]),
            }
        }
        if let Ok(store) = load(&rows) {
            loaded += 1;
            world.store = store;
            use_up(world);
        }
    }
    assert!((100..3000).contains(&loaded), "{loaded} were loaded");
}

/// Does to a store all that touches what its rows said.
fn use_up(mut world: World) {
    let leases: Vec<i64> = world.store.leases().keys().copied().collect();
    let all = || KeyRange::from_parts(Bytes::new(), Bytes::from_static(b"\0"));
    world.time = ClusterTime(u64::MAX);
    let mut bodies = vec![
        Body::Put(put("/d/e/k")),
        Body::Put(put("a")),
        Body::Tree(tree::Request {
            path: tree::Path::parse(Bytes::from_static(b"/d")).expect("a path"),
            op: tree::Op::Delete {
                dir: true,
                recursive: true,
            },
        }),
    ];
    bodies.extend(leases.into_iter().map(|id| Body::LeaseRevoke { id }));
    bodies.push(Body::Expire);
    bodies.push(Body::DeleteRange(DeleteRange {
        range: all(),
        prev_kv: false,
    }));
    for body in &bodies {
        let (place, entry) = world.append(body);
        let command = Command::decode(&entry).expect("a command");
        // A reference may be bad: that is told, not read.
        let _ = world.store.apply(command, place, &world.log);
    }
    let again = load(&rows(&world.store, 3)).expect("a walk's rows");
    assert_eq!(again.live_bytes() > 0, again.key_count() > 0);
    compact(&mut world);
    while world.store.purge(1) {}
    assert_eq!(
        world.store.changes(world.store.revision().next()).count(),
        0
    );
}

fn compact(world: &mut World) {
    let revision = world.store.revision().to_wire();
    world.apply(&Body::Compact { revision });
}

fn put(key: &'static str) -> Put {
    Put {
        key: Bytes::from_static(key.as_bytes()),
        value: Blob::new(Bytes::from_static(b"value")),
        lease: 0,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    }
}

/// `depth` txns within the outermost.
fn nested(depth: usize) -> Body {
    let compare = Compare {
        range: KeyRange::point(Bytes::from_static(b"k")),
        relation: Relation::Equal,
        operand: Operand::Mod(0),
    };
    let mut txn = Txn {
        compare: vec![compare.clone()],
        success: vec![Op::Put(put("k"))],
        failure: Vec::new(),
    };
    for _ in 0..depth {
        txn = Txn {
            compare: vec![compare.clone()],
            success: vec![Op::Txn(Box::new(txn))],
            failure: Vec::new(),
        };
    }
    Body::Txn(Box::new(txn))
}

/// A log whose values came back with a bit flipped, or too short.
struct Rotten<'a> {
    log: &'a FakeLog,
    short: bool,
}

impl Values for Rotten<'_> {
    fn read<'a>(&'a self, at: &ValueAt) -> Result<Cow<'a, [u8]>, ValueError> {
        let mut bytes = self.log.read(at)?.into_owned();
        if self.short {
            bytes.pop();
        } else {
            bytes[7] ^= 0x10;
        }
        Ok(bytes.into())
    }
}

#[test]
fn rotten_values_are_never_an_answer() {
    let _alone = alone();
    let value = Bytes::from(vec![b'v'; 100]);
    let mut large = put("k");
    large.value = Blob::new(value.clone());
    let mut world = World::default();
    world.apply(&Body::Put(large));
    let all = || KeyRange::from_parts(Bytes::new(), Bytes::from_static(b"\0"));
    let mut sorted = Range::all(all());
    sorted.sort.target = SortTarget::Value;
    let needs_it = [
        Body::Put(Put {
            prev_kv: true,
            ..put("k")
        }),
        Body::DeleteRange(DeleteRange {
            range: all(),
            prev_kv: true,
        }),
        Body::Txn(Box::new(Txn {
            compare: vec![Compare {
                range: all(),
                relation: Relation::Equal,
                operand: Operand::Value(value),
            }],
            ..Txn::default()
        })),
        Body::Txn(Box::new(Txn {
            success: vec![Op::Range(Range::all(all()))],
            ..Txn::default()
        })),
    ];
    for body in &needs_it {
        let (place, entry) = world.append(body);
        for short in [false, true] {
            let log = &world.log;
            let rotten = Rotten { log, short };
            let command = Command::decode(&entry).expect("a command");
            let mut store = world.reloaded(1);
            let refused = store.apply(command, place, &rotten);
            assert!(matches!(refused, Err(ValueError::Rotten(_))), "{body:?}");
            let refused = world.store.range(&sorted, &rotten).map(drop);
            assert!(matches!(refused, Err(ReadError::Value(_))), "{refused:?}");
        }
    }
}

#[test]
fn deepest_txn_fits_a_thread_and_deeper_ones_are_refused() {
    let _alone = alone();
    let mut world = World::default();
    let deepest = nested(128);
    let limits = Limits { max_txn_ops: 2000 };
    assert_eq!(deepest.check(limits), Ok(()));
    let outcome = world.apply(&deepest);
    assert_eq!(outcome.revision.get(), 2);
    outcome.result.expect("it was done");
    let deeper = nested(129);
    assert_eq!(deeper.check(limits), Err(Refusal::TooManyOps));
    let deeper = Draft::new(RequestId::default(), UnixMs(0), &deeper);
    let refused = Command::decode(&deeper.stamp(ClusterTime(0)));
    assert_eq!(refused, Err(DecodeError::Bad("depth of nested txns")));
}

#[test]
fn newer_formats_ask_for_an_upgrade() {
    let _alone = alone();
    let entry = Draft::new(RequestId::default(), UnixMs(0), &Body::Tick).stamp(ClusterTime(0));
    for (at, newer) in [(0, 2), (2, 1), (3, 1)] {
        let mut bytes = entry.to_vec();
        bytes[at] = newer;
        let refused = Command::decode(&bytes.into());
        assert!(matches!(refused, Err(DecodeError::Newer(_))), "{refused:?}");
    }
    let empty: Result<Store, DecodeError> = load(&[]);
    assert!(empty.is_err());
}
