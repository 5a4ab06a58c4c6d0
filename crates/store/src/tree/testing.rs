//! Tests of the tree as a whole, and what its tests share.

use std::borrow::Cow;
use std::format;
use std::string::String;
use std::vec::Vec;

use bytes::Bytes;

use super::*;
use crate::codec::Read;
use crate::command::{Blob, Body, Command, DeleteRange, Draft, Op as TxnOp, Put, RequestId, Txn};
use crate::{
    ClusterTime, KeyRange, Outcome, Place, Revision, Store, UnixMs, ValueAt, ValueError, Values,
};

/// For values that all live in the index.
pub(super) struct NoLog;

impl Values for NoLog {
    fn read<'a>(&'a self, at: &ValueAt) -> Result<Cow<'a, [u8]>, ValueError> {
        Err(ValueError::Rotten(*at))
    }
}

/// A generator of chances, the same in every run.
pub(super) struct Draw(pub(super) u64);

impl Draw {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % bound
    }

    pub(super) fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

pub(super) fn apply_at(store: &mut Store, time_ms: u64, body: Body) -> Outcome {
    let id = RequestId::default();
    let (time, wall) = (ClusterTime(time_ms), UnixMs(1_000_000 + time_ms));
    store
        .apply(
            Command {
                id,
                time,
                wall,
                body,
            },
            Place::default(),
            &NoLog,
        )
        .unwrap()
}

fn put_of(key: &str, value: &str) -> Put {
    Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Blob::new(Bytes::copy_from_slice(value.as_bytes())),
        lease: 0,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    }
}

/// A v3 put.
pub(super) fn put(store: &mut Store, key: &str) {
    apply_at(store, 0, Body::Put(put_of(key, "")))
        .result
        .unwrap();
}

/// Makes a directory, if that is allowed.
pub(super) fn mkdir(store: &mut Store, path: &str) -> bool {
    let op = Op::Set {
        dir: true,
        write: write("", None),
    };
    apply_at(store, 0, request(path, op)).result.is_ok()
}

fn write(value: &str, ttl_s: Option<u64>) -> Write {
    Write {
        value: Blob::new(Bytes::copy_from_slice(value.as_bytes())),
        ttl_s,
        refresh: false,
    }
}

fn request(path: &str, op: Op) -> Body {
    let path = Path::parse(Bytes::copy_from_slice(path.as_bytes())).unwrap();
    Body::Tree(Request { path, op })
}

fn set_with_ttl(store: &mut Store, path: &str, dir: bool, ttl_s: u64) {
    let op = Op::Set {
        dir,
        write: write("v", Some(ttl_s)),
    };
    apply_at(store, 0, request(path, op)).result.unwrap();
}

fn ended_since(store: &Store, from: Revision) -> Vec<String> {
    let changes = store.changes(from.next());
    let events = changes.filter_map(|change| Event::of(store, change, &NoLog).unwrap());
    let text = |path: &[u8]| String::from_utf8(path.to_vec()).unwrap();
    events
        .map(|event| format!("{} {}", event.revision, text(&event.node.path)))
        .collect()
}

#[test]
fn what_is_due_ends_in_order_of_deadline_and_path() {
    let mut store = Store::default();
    for (path, dir, ttl_s) in [
        ("/late", false, 2),
        ("/b", false, 1),
        ("/a", true, 1),
        ("/a/inside", false, 1),
        ("/a-first", false, 1),
        ("/for_ever", false, u64::MAX),
    ] {
        set_with_ttl(&mut store, path, dir, ttl_s);
    }
    let before = store.revision();
    apply_at(&mut store, 999, Body::Expire);
    assert_eq!(store.revision(), before, "nothing ends early");
    apply_at(&mut store, 1000, Body::Expire);
    assert_eq!(ended_since(&store, before), ["8 /a", "9 /a-first", "10 /b"]);
    assert_eq!(store.next_deadline(), Some(ClusterTime(2000)));
    apply_at(&mut store, 5000, Body::Expire);
    assert_eq!(ended_since(&store, before).last().unwrap(), "11 /late");
    assert_eq!(store.next_deadline(), None);
}

#[test]
fn one_entry_ends_a_bounded_number_but_a_directory_whole() {
    let mut store = Store::default();
    for number in 0..1500 {
        set_with_ttl(&mut store, &format!("/f{number:04}"), false, 1);
    }
    let before = store.revision().get();
    apply_at(&mut store, 1000, Body::Expire);
    assert_eq!(store.revision().get(), before + 1000);
    apply_at(&mut store, 1000, Body::Expire);
    assert_eq!(store.revision().get(), before + 1500);

    set_with_ttl(&mut store, "/d", true, 2);
    for number in 0..1500 {
        put(&mut store, &format!("/d/{number}"));
    }
    let before = store.revision().get();
    apply_at(&mut store, 5000, Body::Expire);
    assert_eq!(store.revision().get(), before + 1);
    assert!(View::new(&store, store.revision()).found(b"/d").is_none());
}

#[test]
fn requests_are_read_back_as_written_and_never_from_a_part() {
    let refresh = Write {
        refresh: true,
        ..write("", Some(5))
    };
    let condition = Condition {
        value: Some(Bytes::from("old")),
        index: 7,
    };
    for op in [
        Op::Set {
            dir: true,
            write: refresh.clone(),
        },
        Op::Create {
            dir: false,
            in_order: true,
            write: write("v", None),
        },
        Op::Update { write: refresh },
        Op::CompareAndSwap {
            condition: condition.clone(),
            write: write("v", Some(0)),
        },
        Op::Delete {
            dir: false,
            recursive: true,
        },
        Op::CompareAndDelete {
            condition: Condition {
                value: None,
                ..condition
            },
        },
    ] {
        let request = Request {
            path: Path::parse(Bytes::from("/a/b")).unwrap(),
            op,
        };
        let body = Body::Tree(request.clone());
        let entry = Draft::new(RequestId::default(), UnixMs(1), &body).stamp(ClusterTime(2));
        let Body::Tree(mut decoded) = Command::decode(&entry).unwrap().body else {
            panic!()
        };
        forget_places(&mut decoded);
        assert_eq!(decoded, request);

        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        for len in 0..bytes.len() {
            let mut read = Read::new(Bytes::copy_from_slice(&bytes[..len]));
            assert!(
                Request::decode(&mut read).is_err(),
                "{len} of {}",
                bytes.len()
            );
        }
    }
}

fn forget_places(request: &mut Request) {
    if let Op::Set { write, .. }
    | Op::Create { write, .. }
    | Op::Update { write }
    | Op::CompareAndSwap { write, .. } = &mut request.op
    {
        write.value.at = 0;
    }
}

/// The whole tree at a revision, as text.
fn image(store: &Store, at: Revision) -> Vec<String> {
    let mut lister = Lister::new(b"", at, true);
    let mut walk = lister.resume(store);
    let mut lines = Vec::new();
    loop {
        match walk.step() {
            Step::Open { path, found } => {
                let path = path.escape_ascii();
                lines.push(match found {
                    Found::File(file) => {
                        let value = file.value.read(&NoLog).unwrap();
                        let value = value.escape_ascii();
                        format!("{path} = {value} {} {}", file.revision, file.create)
                    }
                    Found::Dir(dir) => format!("{path}/ {} {}", dir.modified, dir.created),
                });
            }
            Step::Close => {}
            Step::End => return lines,
        }
    }
}

fn random_body(draw: &mut Draw) -> Body {
    let mut path = String::new();
    for _ in 0..=draw.below(3) {
        path += *draw.of(&["/a", "/b", "/a-", "/c"]);
    }
    let value = *draw.of(&["", "x", "y"]);
    let ttl_s = *draw.of(&[None, None, None, Some(1), Some(3)]);
    let refresh = draw.below(6) == 0;
    let write = Write {
        refresh,
        ..write(if refresh { "" } else { value }, ttl_s)
    };
    let condition = Condition {
        value: Some(Bytes::from(*draw.of(&["x", "y"]))),
        index: 0,
    };
    let dir = draw.below(3) == 0;
    let end = format!("{path}0");
    let range = KeyRange::from_parts(path.clone().into(), end.into());
    match draw.below(13) {
        0..=2 => request(&path, Op::Set { dir, write }),
        3 => request(
            &path,
            Op::Create {
                dir,
                in_order: draw.below(3) == 0,
                write,
            },
        ),
        4 => request(&path, Op::Update { write }),
        5 => request(&path, Op::CompareAndSwap { condition, write }),
        6 => request(
            &path,
            Op::Delete {
                dir,
                recursive: draw.below(2) == 0,
            },
        ),
        7 => request(&path, Op::CompareAndDelete { condition }),
        8 | 9 => Body::Put(put_of(&path, value)),
        10 => Body::DeleteRange(DeleteRange {
            range,
            prev_kv: false,
        }),
        11 => Body::Txn(alloc::boxed::Box::new(Txn {
            success: Vec::from([
                TxnOp::Put(put_of("/t/x", value)),
                TxnOp::Put(put_of("/t/y", value)),
            ]),
            ..Txn::default()
        })),
        _ => Body::Expire,
    }
}

/// P3 and M4: the past, replayed, is what it was when it was the present.
#[test]
fn every_revision_keeps_its_meaning() {
    for seed in 0..40 {
        let mut draw = Draw(seed);
        let mut store = Store::default();
        let mut seen: Vec<(Revision, Vec<String>)> = Vec::new();
        let mut told = Vec::new();
        for step in 0..150 {
            let before = store.revision();
            let body = random_body(&mut draw);
            let is_tree = matches!(body, Body::Tree(_));
            let outcome = apply_at(&mut store, step * 100, body);
            let new = store.changes(before.next());
            let events: Vec<Event> = new
                .filter_map(|change| Event::of(&store, change, &NoLog).unwrap())
                .collect();
            if let (true, Ok(crate::Reply::Tree(reply))) = (is_tree, &outcome.result) {
                assert_eq!(
                    events,
                    [(**reply).clone()],
                    "a v2 write has one event, its answer"
                );
            }
            told.extend(events);
            assert_entries_have_parents(&store);
            seen.push((store.revision(), image(&store, store.revision())));
        }
        for (revision, expected) in &seen {
            assert_eq!(
                image(&store, *revision),
                *expected,
                "seed {seed} revision {revision}"
            );
        }
        let replayed = store.changes(Revision::FIRST);
        let replayed: Vec<Event> = replayed
            .filter_map(|change| Event::of(&store, change, &NoLog).unwrap())
            .collect();
        assert_eq!(replayed, told, "seed {seed}");

        let compacted = Revision::new(store.revision().get() / 2);
        apply_at(
            &mut store,
            20_000,
            Body::Compact {
                revision: compacted.to_wire(),
            },
        );
        while store.purge(7) {}
        for (revision, expected) in seen.iter().filter(|(revision, _)| *revision >= compacted) {
            assert_eq!(
                image(&store, *revision),
                *expected,
                "seed {seed} revision {revision}"
            );
        }
        let replayed = store.changes(compacted.next());
        let replayed: Vec<Event> = replayed
            .filter_map(|change| Event::of(&store, change, &NoLog).unwrap())
            .collect();
        told.retain(|event| event.revision > compacted);
        assert_eq!(replayed, told, "seed {seed} after compaction");
    }
}

/// T1.
fn assert_entries_have_parents(store: &Store) {
    let view = View::new(store, store.revision());
    for (path, _) in view.entries_below(b"") {
        for ancestor in ancestors(path) {
            assert!(view.entry(ancestor).is_some(), "{}", path.escape_ascii());
        }
    }
}
