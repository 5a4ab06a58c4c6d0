//! Holds a store against the model.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_store::command::Range;
use quorate_store::{ClusterTime, KeyRange, ReadError, Revision, Store};

use crate::model::{Model, key_value};
use crate::support::generate::Generator;
use crate::support::{Chance, World};

/// What is cheap to compare after every command.
pub(crate) fn latest(world: &World, model: &Model) {
    let store = &world.store;
    assert_eq!(store.revision().to_wire(), model.revision());
    assert_eq!(store.compacted(), model.compacted);
    at(world, model, 0);
    let mut attached: BTreeMap<i64, BTreeSet<Bytes>> = BTreeMap::new();
    attached.extend(model.leases.keys().map(|id| (*id, BTreeSet::new())));
    for (key, kv) in model.latest().iter().filter(|(_, kv)| kv.lease != 0) {
        let keys = attached
            .get_mut(&kv.lease)
            .expect("a key's lease was granted");
        keys.insert(key.clone());
    }
    let leases = store.leases().iter().map(|(id, lease)| {
        assert_eq!(lease.ttl_s, model.leases[id]);
        let keys = lease.keys.iter().map(|key| Bytes::copy_from_slice(key));
        (*id, keys.collect())
    });
    assert_eq!(leases.collect::<BTreeMap<_, _>>(), attached);
    let deadline = model.next_deadline().map(|(at, _)| ClusterTime(at));
    assert_eq!(store.next_deadline(), deadline);
    assert_eq!(*store.members(), model.members);
    assert_eq!(*store.removed(), model.removed);
}

/// All kept revisions, history, and what is counted.
pub(crate) fn everything(world: &World, model: &Model, purged_to: i64) {
    latest(world, model);
    for revision in model.compacted.max(1)..=model.revision() {
        at(world, model, revision);
    }
    history(world, model);
    // Between what must be kept and what may still be there; the same when all is purged.
    let least = kept(model, model.compacted);
    let most = kept(model, purged_to);
    let store = &world.store;
    assert!((least.bytes..=most.bytes).contains(&store.live_bytes()));
    assert!((least.keys..=most.keys).contains(&store.key_count()));
    for segment in world.log.numbers() {
        let needed = store.needs_segment(segment);
        assert!(needed || !least.segments.contains(&segment));
        assert!(!needed || most.segments.contains(&segment));
    }
}

fn at(world: &World, model: &Model, revision: i64) {
    let all = KeyRange::from_parts(Bytes::new(), Bytes::from_static(b"\0"));
    let asked = Range {
        revision,
        ..Range::all(all)
    };
    let found = world
        .store
        .range_reply(&asked, &world.log)
        .expect("it is kept");
    let expected = model.range(&asked, model.latest()).expect("it is kept");
    assert_eq!(found, expected, "at {revision}");
}

/// Ranges of all kinds at all revisions.
pub(crate) fn reads(world: &World, model: &Model, chance: &mut Chance) {
    for _ in 0..50 {
        let revision = model.revision();
        let asked = Generator { chance, revision }.range();
        let found = world.store.range_reply(&asked, &world.log);
        let expected = model.range(&asked, model.latest());
        assert_eq!(found, expected.map_err(ReadError::Refused), "{asked:?}");
    }
}

fn history(world: &World, model: &Model) {
    let World { store, log, .. } = world;
    let oldest = model.compacted.max(0);
    let mut changes = store.changes(Revision::new(oldest as u64));
    for revision in oldest..=model.revision() {
        for (sub, (key, kv)) in model.changes[revision as usize].iter().enumerate() {
            let change = changes.next().expect("a change for each of the model");
            assert_eq!(
                (change.revision.to_wire(), change.sub),
                (revision, sub as u32)
            );
            assert_eq!(change.key[..], key[..]);
            let version = store
                .file_written_at(key, change.revision)
                .expect("its version");
            match kv {
                None => assert_eq!(version.count, 0),
                Some(kv) => {
                    let found = Store::key_value(&change.key, version, log);
                    assert_eq!(found, Ok(key_value(key, kv)));
                }
            }
        }
    }
    assert_eq!(changes.next(), None);
}

/// What a store holds that was purged up to a compaction.
#[derive(Default)]
struct Kept {
    bytes: u64,
    keys: usize,
    segments: BTreeSet<u32>,
}

fn kept(model: &Model, compacted: i64) -> Kept {
    let mut versions: BTreeMap<&Bytes, Vec<(i64, Option<&crate::model::Kv>)>> = BTreeMap::new();
    for (revision, changes) in (0..).zip(&model.changes) {
        for (key, kv) in changes {
            versions
                .entry(key)
                .or_default()
                .push((revision, kv.as_ref()));
        }
    }
    let mut kept = Kept::default();
    for (key, versions) in versions {
        let newest = versions
            .iter()
            .rposition(|(revision, _)| *revision <= compacted);
        let mut versions = versions.split_at(newest.unwrap_or(0)).1;
        if let [(revision, None), later @ ..] = versions
            && *revision < compacted
        {
            versions = later;
        }
        kept.keys += usize::from(!versions.is_empty());
        for (_, kv) in versions {
            kept.bytes += 256 + key.len() as u64 + kv.map_or(0, |kv| kv.value.len() as u64);
            kept.segments.extend(kv.and_then(|kv| kv.segment));
        }
    }
    kept
}
