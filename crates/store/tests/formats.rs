//! The bytes of commands and rows stay what docs/formats/command.md and state.md say.
//!
//! `testdata/golden_v1` holds bytes of format 1, one named line each. A member of any later version
//! must read them, so a line there is never changed; `UPDATE=1` adds those that are missing.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use quorate_store::command::{
    Blob, Body, Compare, DeleteRange, Draft, Op, Operand, Put, Range, Relation, RequestId, Sort,
    SortTarget, Txn,
};
use quorate_store::{
    Alarm, AlarmBy, AlarmKind, ClusterTime, Command, KeyRange, Life, MemberChange, Role, UnixMs,
    tree,
};
use support::{World, everything, load, rows};

const ID: RequestId = RequestId {
    member: 1,
    incarnation: 2,
    counter: 3,
};
const WALL: UnixMs = UnixMs(1_800_000_000_000);
const TIME: ClusterTime = ClusterTime(60_000);

#[test]
fn commands_have_their_bytes() {
    let mut golden = Golden::open("commands");
    for (name, mut body) in bodies() {
        let entry = Draft::new(ID, WALL, &body).stamp(TIME);
        let stored = golden.line(name, &entry);
        let mut command = Command::decode(&stored).expect("bytes of format 1");
        assert_eq!((command.id, command.wall, command.time), (ID, WALL, TIME));
        for_each_blob(&mut command.body, &mut |blob| {
            let start = blob.at as usize;
            let there = &stored[start..start + blob.bytes.len()];
            assert_eq!(there, blob.bytes, "W2: {name}");
            assert_eq!(crc_of(there), blob.crc, "W2: {name}");
        });
        for body in [&mut body, &mut command.body] {
            for_each_blob(body, &mut |blob| blob.at = 0);
        }
        assert_eq!(command.body, body, "{name} is read back as it was");
        assert_eq!(entry, stored, "{name} is written as it was");
    }
    golden.close();
}

#[test]
fn rows_have_their_bytes() {
    let mut golden = Golden::open("state");
    let world = lived();
    let written = rows(&world.store, 100);
    let stored = written.iter().zip(1..).map(|(row, number): (_, u32)| {
        let stored = golden.line(&format!("row {number}"), row);
        assert_eq!(*row, stored, "row {number} is written as it was");
        stored
    });
    let loaded = load(&stored.collect::<Vec<_>>()).expect("rows of format 1");
    let [old, new] = [&world.store, &loaded].map(|store| everything(store, &world.log));
    assert_eq!(old, new);
    golden.close();
}

/// CRC32C, bit by bit.
fn crc_of(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// A file of named lines of hex.
struct Golden {
    path: String,
    lines: BTreeMap<String, String>,
    added: String,
    unseen: usize,
}

impl Golden {
    fn open(name: &str) -> Self {
        let path = format!("{}/testdata/golden_v1/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines = text.lines().map(|line| {
            let (name, hex) = line.split_once(": ").expect("a name and hex");
            (name.to_owned(), hex.to_owned())
        });
        let lines: BTreeMap<_, _> = lines.collect();
        Self {
            path,
            unseen: lines.len(),
            lines,
            added: String::new(),
        }
    }

    /// The stored bytes of that name.
    fn line(&mut self, name: &str, now: &Bytes) -> Bytes {
        match self.lines.get(name) {
            Some(hex) => {
                self.unseen -= 1;
                let digits = hex.as_bytes().chunks(2);
                let byte = |pair: &[u8]| u8::from_str_radix(&String::from_utf8_lossy(pair), 16);
                digits.map(|pair| byte(pair).expect("hex")).collect()
            }
            None => {
                assert!(std::env::var_os("UPDATE").is_some(), "no bytes of {name}");
                let hex: String = now.iter().map(|byte| format!("{byte:02x}")).collect();
                let _ = writeln!(self.added, "{name}: {hex}");
                now.clone()
            }
        }
    }

    fn close(self) {
        assert_eq!(self.unseen, 0, "every line of {} is compared", self.path);
        if !self.added.is_empty() {
            let old = std::fs::read_to_string(&self.path).unwrap_or_default();
            std::fs::write(&self.path, old + &self.added).expect("a file that can be written");
        }
    }
}

fn for_each_blob(body: &mut Body, act: &mut dyn FnMut(&mut Blob)) {
    use tree::Op::{CompareAndDelete, CompareAndSwap, Create, Delete, Set, Update};
    match body {
        Body::Put(put) => act(&mut put.value),
        Body::Txn(txn) => for_each_blob_of_txn(txn, act),
        Body::Tree(request) => match &mut request.op {
            Set { write, .. }
            | Create { write, .. }
            | Update { write }
            | CompareAndSwap { write, .. } => act(&mut write.value),
            Delete { .. } | CompareAndDelete { .. } => {}
        },
        _ => {}
    }
}

fn for_each_blob_of_txn(txn: &mut Txn, act: &mut dyn FnMut(&mut Blob)) {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match op {
            Op::Put(put) => act(&mut put.value),
            Op::Txn(inner) => for_each_blob_of_txn(inner, act),
            Op::Range(_) | Op::DeleteRange(_) => {}
        }
    }
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> Put {
    Put {
        key: text(key),
        value: Blob::new(text(value)),
        lease: 0,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    }
}

fn request(path: &str, op: tree::Op) -> Body {
    let path = tree::Path::parse(text(path)).expect("a path");
    Body::Tree(tree::Request { path, op })
}

fn write(value: &str, ttl_s: Option<u64>, refresh: bool) -> tree::Write {
    tree::Write {
        value: Blob::new(text(value)),
        ttl_s,
        refresh,
    }
}

fn condition(value: Option<&str>, index: u64) -> tree::Condition {
    tree::Condition {
        value: value.map(text),
        index,
    }
}

fn delete(start: &str, end: &str) -> DeleteRange {
    DeleteRange {
        range: KeyRange::from_parts(text(start), text(end)),
        prev_kv: true,
    }
}

fn alarm(kind: AlarmKind, raise: bool, by: AlarmBy) -> Body {
    let member = 0x8e9e_05c5_2164_694d;
    let alarm = Alarm { member, kind };
    Body::Alarm { alarm, raise, by }
}

#[test]
fn an_alarm_has_its_row() {
    let mut world = World::default();
    world.apply(&alarm(AlarmKind::Corrupt, true, AlarmBy::Member));
    let rows = rows(&world.store, 1);
    let row: &[u8] = &[6, 0x4d, 0x69, 0x64, 0x21, 0xc5, 0x05, 0x9e, 0x8e, 2, 1];
    assert_eq!(&rows[1][..], row);
    assert_eq!(load(&rows).expect("rows").alarms(), world.store.alarms());
}

/// Every kind of command, with every kind of part.
fn bodies() -> Vec<(&'static str, Body)> {
    let mut all = vec![
        ("put", Body::Put(put("key", "value"))),
        (
            "put with lease",
            Body::Put(Put {
                lease: -2,
                prev_kv: true,
                ..put("key", "value of more bytes than the index takes")
            }),
        ),
        (
            "put that keeps",
            Body::Put(Put {
                ignore_value: true,
                ignore_lease: true,
                ..put("key", "")
            }),
        ),
        ("delete of a key", Body::DeleteRange(delete("key", ""))),
        ("delete of a range", Body::DeleteRange(delete("a", "b"))),
        ("delete from a key on", Body::DeleteRange(delete("a", "\0"))),
        ("empty txn", Body::Txn(Box::default())),
        ("txn", Body::Txn(Box::new(txn()))),
        ("compact", Body::Compact { revision: 77 }),
        ("grant", Body::LeaseGrant { id: 7, ttl_s: 60 }),
        ("revoke", Body::LeaseRevoke { id: -7 }),
        ("expire", Body::Expire),
        ("tick", Body::Tick),
        (
            "raise an alarm",
            alarm(AlarmKind::NoSpace, true, AlarmBy::Member),
        ),
        (
            "clear an alarm",
            alarm(AlarmKind::Corrupt, false, AlarmBy::Client),
        ),
    ];
    all.extend(member_changes().map(|(name, change)| {
        let id = 0x8e9e_05c5_2164_694d;
        (name, Body::Member { id, change })
    }));
    all.extend(tree_bodies());
    all
}

fn member_changes() -> [(&'static str, MemberChange); 6] {
    let urls = |text: &str| vec![text.to_owned()];
    [
        (
            "add a member",
            MemberChange::Add {
                peer_urls: urls("http://localhost:2380"),
                role: Role::Joining,
                max_learners: 1,
            },
        ),
        ("remove a member", MemberChange::Remove),
        (
            "update a member",
            MemberChange::Update {
                peer_urls: urls("http://localhost:2380"),
            },
        ),
        ("promote a member", MemberChange::Promote),
        ("go on alone", MemberChange::Alone),
        (
            "publish",
            MemberChange::Publish {
                name: "default".to_owned(),
                client_urls: vec!["http://a:2379".to_owned(), "http://b:2379".to_owned()],
                life: Life {
                    directory: 0x1234_5678_9abc_def0_0fed_cba9_8765_4321,
                    incarnation: 3,
                },
            },
        ),
    ]
}

fn tree_bodies() -> Vec<(&'static str, Body)> {
    use tree::Op::{CompareAndDelete, CompareAndSwap, Create, Delete, Set, Update};
    let write_once = write("value", Some(5), false);
    vec![
        (
            "v2 set",
            request(
                "/a/b",
                Set {
                    dir: false,
                    write: write_once.clone(),
                },
            ),
        ),
        (
            "v2 create in order",
            request(
                "",
                Create {
                    dir: true,
                    in_order: true,
                    write: write("", None, false),
                },
            ),
        ),
        (
            "v2 refresh",
            request(
                "/a",
                Update {
                    write: write("", Some(u64::MAX), true),
                },
            ),
        ),
        (
            "v2 compare and swap",
            request(
                "/a",
                CompareAndSwap {
                    condition: condition(Some("old"), 9),
                    write: write_once,
                },
            ),
        ),
        (
            "v2 delete",
            request(
                "/a",
                Delete {
                    dir: true,
                    recursive: false,
                },
            ),
        ),
        (
            "v2 compare and delete",
            request(
                "/a",
                CompareAndDelete {
                    condition: condition(None, 9),
                },
            ),
        ),
    ]
}

fn txn() -> Txn {
    let key = || KeyRange::point(text("key"));
    let compare = |relation, operand| Compare {
        range: key(),
        relation,
        operand,
    };
    let range = |target, descending| {
        Op::Range(Range {
            sort: Sort { target, descending },
            limit: 10,
            revision: 4,
            keys_only: true,
            min_mod: 1,
            max_mod: 2,
            min_create: 3,
            max_create: -4,
            ..Range::all(key())
        })
    };
    let count = Op::Range(Range {
        count_only: true,
        ..Range::all(KeyRange::from_parts(text("a"), text("b")))
    });
    let inner = Txn {
        failure: vec![Op::Put(put("nested", "value in a txn in a txn"))],
        ..Txn::default()
    };
    Txn {
        compare: vec![
            compare(Relation::Equal, Operand::Version(1)),
            compare(Relation::Greater, Operand::Create(2)),
            compare(Relation::Less, Operand::Mod(3)),
            compare(Relation::NotEqual, Operand::Value(text("value"))),
            compare(Relation::Equal, Operand::Lease(-4)),
        ],
        success: vec![
            range(SortTarget::Key, false),
            range(SortTarget::Version, true),
            range(SortTarget::Create, false),
            range(SortTarget::Mod, true),
            range(SortTarget::Value, false),
            count,
            Op::Put(put("key", "value in a txn")),
        ],
        failure: vec![Op::DeleteRange(delete("a", "b")), Op::Txn(Box::new(inner))],
    }
}

/// A state with every kind of row and of part.
fn lived() -> World {
    let mut world = World::default();
    world.time = TIME;
    let set = |value, ttl_s| tree::Op::Set {
        dir: false,
        write: write(value, ttl_s, false),
    };
    let mkdir = |ttl_s| tree::Op::Set {
        dir: true,
        write: write("", ttl_s, false),
    };
    let mut done: Vec<Body> = bodies()
        .into_iter()
        .filter(|(name, _)| matches!(*name, "add a member" | "publish" | "grant"))
        .map(|(_, body)| body)
        .collect();
    let leaver = |change| Body::Member { id: 5, change };
    let add = MemberChange::Add {
        peer_urls: vec!["http://b:2380".to_owned()],
        role: Role::Learner,
        max_learners: 1,
    };
    done.extend([leaver(add), leaver(MemberChange::Remove)]);
    done.extend([
        Body::Put(put("gone", "before the compaction")),
        Body::Put(put("a", "1")),
        Body::DeleteRange(delete("gone", "")),
        Body::Put(put("a", "value of more bytes than the index takes")),
        Body::Compact { revision: 5 },
        Body::Put(Put {
            lease: 7,
            ..put("leased", "")
        }),
        Body::Put(put("gone", "again")),
        Body::DeleteRange(delete("gone", "")),
        request("/d/f", set("v", Some(5))),
        request(
            "/d/f",
            tree::Op::Update {
                write: write("", Some(6), true),
            },
        ),
        request(
            "/d/f",
            tree::Op::CompareAndSwap {
                condition: condition(Some("v"), 0),
                write: write("w", None, false),
            },
        ),
        request(
            "/d/f",
            tree::Op::CompareAndDelete {
                condition: condition(Some("w"), 0),
            },
        ),
        request("/d/ttl", mkdir(Some(5))),
        request("/e", mkdir(None)),
        request(
            "/e",
            tree::Op::Delete {
                dir: true,
                recursive: true,
            },
        ),
        request("/short", set("v", Some(1))),
        request("/long", set("v", Some(1000))),
    ]);
    for body in &done {
        let outcome = world.apply(body);
        assert!(outcome.result.is_ok(), "{body:?}: {outcome:?}");
    }
    world.time.0 += 2000;
    world.apply(&Body::Expire);
    world
}
