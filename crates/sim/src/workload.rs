//! What scripted clients ask for.
//!
//! Files, directories and v3 keys have names apart, few enough to meet each other; v3 also writes
//! v2's files, and some keys always get one value together, so that a half-done txn shows.

use bytes::Bytes;
use quorate_store::command::{
    Blob, Body, Compare, DeleteRange, Op, Operand, Put, Range, Relation, Txn,
};
use quorate_store::{Alarm, AlarmBy, AlarmKind, KeyRange, tree};

use crate::chance::Chance;
use crate::model::Model;

/// v2's directories; no file ever has these names.
pub(crate) const DIRS: [&str; 4] = ["/t", "/t/d", "/t/d/in", "/t/e"];
const FILES: [&str; 6] = ["/t/a", "/t/b", "/t/d/x", "/t/d/y", "/t/d/in/z", "/t/e/z"];
const KEYS: [&str; 7] = ["k0", "k1", "k2", "k3", "m0", "m1", "m2"];
/// Always written by one txn, with one value.
pub(crate) const PAIR: [&str; 2] = ["pair/a", "pair/b"];
const LEASES: i64 = 5;

/// Draws the next request, with the model at hand so that conditions may hold.
pub(crate) fn request(chance: &mut Chance, model: &Model, longest_value: u64) -> Body {
    let mut draw = Draw {
        chance,
        model,
        longest_value,
    };
    if (!model.alarms.is_empty() && draw.chance.one_in(3)) || draw.chance.one_in(64) {
        return draw.alarm();
    }
    match draw.chance.below(32) {
        0..=7 => draw.put(),
        8..=9 => draw.delete(),
        10..=12 => draw.pair(),
        13..=14 => draw.txn(),
        15..=16 => Body::LeaseGrant {
            id: draw.lease(),
            ttl_s: 1 + draw.chance.below(6) as i64,
        },
        17 => Body::LeaseRevoke { id: draw.lease() },
        18..=19 => draw.compact(),
        _ => draw.tree(),
    }
}

/// A put that is refused only under an alarm.
pub(crate) fn plain_put() -> Put {
    Put {
        key: Bytes::from_static(b"k0"),
        value: Blob::new(Bytes::from_static(b"a value of more than thirty-two bytes")),
        lease: 0,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    }
}

struct Draw<'a> {
    chance: &'a mut Chance,
    model: &'a Model,
    longest_value: u64,
}

impl Draw<'_> {
    fn lease(&mut self) -> i64 {
        1 + self.chance.below(LEASES as u64) as i64
    }

    fn name(&mut self, names: &[&str]) -> Bytes {
        Bytes::copy_from_slice(self.chance.pick(names).as_bytes())
    }

    fn key(&mut self) -> Bytes {
        if self.chance.one_in(4) {
            self.name(&FILES)
        } else {
            self.name(&KEYS)
        }
    }

    /// Short ones live in the index, long ones in the log.
    fn value(&mut self) -> Blob {
        let length = match self.chance.below(4) {
            0 => self.chance.below(10),
            1 => 30 + self.chance.below(6),
            2 => self.chance.below(200),
            _ => self.chance.below(self.longest_value.max(1)),
        };
        let tag = self.chance.next().to_le_bytes();
        let bytes: Vec<u8> = tag.into_iter().cycle().take(length as usize).collect();
        Blob::new(Bytes::from(bytes))
    }

    fn put_of(&mut self, key: Bytes, value: Blob) -> Put {
        let lease = if self.chance.one_in(4) {
            self.lease()
        } else {
            0
        };
        Put {
            key,
            value,
            lease,
            prev_kv: self.chance.one_in(4),
            ignore_value: false,
            ignore_lease: false,
        }
    }

    fn put(&mut self) -> Body {
        let (key, value) = (self.key(), self.value());
        let mut put = self.put_of(key, value);
        match self.chance.below(10) {
            0 => {
                put.value = Blob::new(Bytes::new());
                put.ignore_value = true;
            }
            1 => {
                put.lease = 0;
                put.ignore_lease = true;
            }
            _ => {}
        }
        Body::Put(put)
    }

    fn delete_of(&mut self) -> DeleteRange {
        let range = match self.chance.below(4) {
            0 => KeyRange::from_parts(Bytes::from_static(b"k"), Bytes::from_static(b"l")),
            1 => KeyRange::from_parts(Bytes::from_static(b"/t/d/"), Bytes::from_static(b"/t/d0")),
            _ => KeyRange::point(self.key()),
        };
        let prev_kv = self.chance.one_in(3);
        DeleteRange { range, prev_kv }
    }

    fn delete(&mut self) -> Body {
        Body::DeleteRange(self.delete_of())
    }

    /// One value for two keys.
    fn pair(&mut self) -> Body {
        let value = self.value();
        let success = PAIR.map(|key| {
            Op::Put(Put {
                key: Bytes::from_static(key.as_bytes()),
                value: value.clone(),
                lease: 0,
                prev_kv: false,
                ignore_value: false,
                ignore_lease: false,
            })
        });
        Body::Txn(Box::new(Txn {
            success: success.into(),
            ..Txn::default()
        }))
    }

    fn txn(&mut self) -> Body {
        let key = self.key();
        let file = self.model.files.get(&key[..]);
        let operand = match (self.chance.below(4), file) {
            (0, Some(file)) => Operand::Value(file.value.clone()),
            (1, Some(file)) => Operand::Mod(file.modified as i64),
            (2, Some(file)) => Operand::Version(file.version as i64),
            (3, Some(file)) => Operand::Lease(file.lease),
            _ => Operand::Create(0),
        };
        let relation = *self.chance.pick(&[
            Relation::Equal,
            Relation::Equal,
            Relation::NotEqual,
            Relation::Less,
            Relation::Greater,
        ]);
        let value = self.value();
        let put = self.put_of(key.clone(), value);
        let other = self.value();
        let also = Put {
            key: Bytes::from_static(b"n/also"),
            ..self.put_of(key.clone(), other)
        };
        let delete = DeleteRange {
            range: KeyRange::from_parts(Bytes::from_static(b"m"), Bytes::from_static(b"m1")),
            prev_kv: true,
        };
        let deletes_it = delete.range.contains(&key);
        let mut success = vec![
            Op::Range(Range::all(KeyRange::point(key.clone()))),
            Op::Put(put),
            Op::Put(also.clone()),
        ];
        if !deletes_it && self.chance.one_in(2) {
            success.insert(0, Op::DeleteRange(delete));
        }
        let range = KeyRange::point(key);
        Body::Txn(Box::new(Txn {
            compare: vec![Compare {
                range,
                relation,
                operand,
            }],
            success,
            failure: vec![Op::Put(also)],
        }))
    }

    /// Clears one that is raised; else raises one, or clears none.
    fn alarm(&mut self) -> Body {
        let by = *self.chance.pick(&[AlarmBy::Client, AlarmBy::Member]);
        if let Some(alarm) = self.model.alarms.keys().next() {
            let (alarm, raise) = (*alarm, false);
            return Body::Alarm { alarm, raise, by };
        }
        let kind = *self.chance.pick(&[AlarmKind::NoSpace, AlarmKind::Corrupt]);
        let alarm = Alarm {
            member: self.chance.below(3),
            kind,
        };
        let raise = !self.chance.one_in(4);
        Body::Alarm { alarm, raise, by }
    }

    fn compact(&mut self) -> Body {
        let latest = self.model.revision;
        let most = if self.chance.one_in(3) {
            latest + 2
        } else {
            12
        };
        let kept = self.chance.below(most).min(latest);
        Body::Compact {
            revision: latest as i64 + 1 - kept as i64,
        }
    }

    fn write(&mut self) -> tree::Write {
        let ttl = self.chance.one_in(3);
        tree::Write {
            value: self.value(),
            ttl_s: ttl.then(|| 1 + self.chance.below(6)),
            refresh: false,
        }
    }

    fn tree(&mut self) -> Body {
        let (path, op) = match self.chance.below(16) {
            0..=4 => {
                let write = self.write();
                (self.name(&FILES), tree::Op::Set { dir: false, write })
            }
            5 => {
                let (dir, in_order, write) = (false, false, self.write());
                let op = tree::Op::Create {
                    dir,
                    in_order,
                    write,
                };
                (self.name(&FILES), op)
            }
            6 => {
                let (dir, in_order, write) = (false, true, self.write());
                let op = tree::Op::Create {
                    dir,
                    in_order,
                    write,
                };
                (self.name(&DIRS[1..]), op)
            }
            7..=8 => {
                let mut write = self.write();
                write.refresh = self.chance.one_in(2);
                (self.name(&FILES), tree::Op::Update { write })
            }
            9 => {
                let mut write = self.write();
                write.value = Blob::new(Bytes::new());
                (self.name(&DIRS[1..]), tree::Op::Update { write })
            }
            10..=11 => {
                let path = self.name(&FILES);
                let condition = self.condition(&path);
                let write = self.write();
                (path, tree::Op::CompareAndSwap { condition, write })
            }
            12 => {
                let path = self.name(&FILES);
                let condition = self.condition(&path);
                (path, tree::Op::CompareAndDelete { condition })
            }
            13 => {
                let mut write = self.write();
                write.value = Blob::new(Bytes::new());
                let path = self.name(&DIRS[1..]);
                let op = if self.chance.one_in(2) {
                    tree::Op::Set { dir: true, write }
                } else {
                    let (dir, in_order) = (true, false);
                    tree::Op::Create {
                        dir,
                        in_order,
                        write,
                    }
                };
                (path, op)
            }
            14 => {
                let (dir, recursive) = (false, false);
                (self.name(&FILES), tree::Op::Delete { dir, recursive })
            }
            _ => {
                let (dir, recursive) = (true, self.chance.one_in(2));
                let path = if self.chance.one_in(6) {
                    self.name(&DIRS)
                } else {
                    self.name(&DIRS[1..])
                };
                (path, tree::Op::Delete { dir, recursive })
            }
        };
        let path = tree::Path::parse(path).expect("scripts use clean paths");
        Body::Tree(tree::Request { path, op })
    }

    fn condition(&mut self, path: &[u8]) -> tree::Condition {
        let file = self.model.files.get(path);
        let value = file.map_or_else(|| Bytes::from_static(b"other"), |file| file.value.clone());
        let index = file.map_or(3, |file| file.modified);
        match self.chance.below(4) {
            0 => tree::Condition { value: None, index },
            1 => tree::Condition {
                value: Some(Bytes::from_static(b"wrong")),
                index: 0,
            },
            _ => tree::Condition {
                value: Some(value).filter(|value| !value.is_empty()),
                index: 0,
            },
        }
    }
}
