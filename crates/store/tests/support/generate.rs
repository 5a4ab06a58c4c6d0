//! Random requests over few keys, so that they meet.

use bytes::Bytes;
use quorate_store::command::{
    Blob, Body, Compare, DeleteRange, Op, Operand, Put, Range, Relation, Sort, SortTarget, Txn,
};
use quorate_store::{KeyRange, Life, MemberChange, Role, tree};

use super::Chance;

/// Keys of v3 alone, then files of v2 too, none below another.
const KEYS: [&[u8]; 7] = [b"a", b"b", b"ba", b"\xff", b"/x", b"/y", b"/z"];
const FILES: [&[u8]; 3] = [b"/x", b"/y", b"/z"];
const LEASES: [i64; 4] = [1, 2, 3, -4];

/// Draws requests that fit a store at `revision`.
pub(crate) struct Generator<'a> {
    pub(crate) chance: &'a mut Chance,
    pub(crate) revision: i64,
}

impl Generator<'_> {
    /// A command of any kind.
    pub(crate) fn body(&mut self) -> Body {
        match self.chance.below(100) {
            0..40 => Body::Put(self.put()),
            40..50 => Body::DeleteRange(self.delete()),
            50..72 => Body::Txn(Box::new(self.txn(2))),
            72..76 => Body::Compact {
                revision: self.revision(),
            },
            76..82 => Body::LeaseGrant {
                id: self.chance.pick(&LEASES),
                ttl_s: self.chance.below(100) as i64,
            },
            82..86 => Body::LeaseRevoke {
                id: self.chance.pick(&LEASES),
            },
            86..94 => Body::Tree(self.set()),
            94..97 => Body::Expire,
            97..99 => Body::Tick,
            _ => self.member(),
        }
    }

    pub(crate) fn key(&mut self) -> Bytes {
        Bytes::from_static(self.chance.pick(&KEYS))
    }

    /// Empty, small, or large enough to live in the log.
    fn value(&mut self) -> Bytes {
        let letter = b'a' + self.chance.below(3) as u8;
        let len = self.chance.pick(&[0, 1, 2, 22, 23, 100]);
        vec![letter; len].into()
    }

    fn key_range(&mut self) -> KeyRange {
        let end = match self.chance.below(4) {
            0 | 1 => Bytes::new(),
            2 => self.key(),
            _ => Bytes::from_static(b"\0"),
        };
        KeyRange::from_parts(self.key(), end)
    }

    /// Mostly one that happened, sometimes none.
    fn revision(&mut self) -> i64 {
        if self.chance.one_in(20) {
            return -1 - self.chance.below(2) as i64;
        }
        self.revision + 2 - self.chance.below(self.revision.clamp(4, 40) as u64) as i64
    }

    fn lease(&mut self) -> i64 {
        if self.chance.one_in(3) {
            self.chance.pick(&LEASES)
        } else {
            0
        }
    }

    pub(crate) fn put(&mut self) -> Put {
        let ignore_value = self.chance.one_in(6);
        let ignore_lease = self.chance.one_in(6);
        let value = if ignore_value {
            Bytes::new()
        } else {
            self.value()
        };
        Put {
            key: self.key(),
            value: Blob::new(value),
            lease: if ignore_lease { 0 } else { self.lease() },
            prev_kv: self.chance.one_in(2),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete(&mut self) -> DeleteRange {
        DeleteRange {
            range: self.key_range(),
            prev_kv: self.chance.one_in(2),
        }
    }

    pub(crate) fn range(&mut self) -> Range {
        use SortTarget::{Create, Key, Mod, Value, Version};
        let [mut min_mod, mut max_mod, mut min_create, mut max_create] = [0; 4];
        for bound in [&mut min_mod, &mut max_mod, &mut min_create, &mut max_create] {
            if self.chance.one_in(6) {
                *bound = self.revision();
            }
        }
        Range {
            range: self.key_range(),
            limit: self.chance.below(5) as i64 - 1,
            revision: if self.chance.one_in(2) {
                0
            } else {
                self.revision()
            },
            sort: Sort {
                target: self.chance.pick(&[Key, Key, Version, Create, Mod, Value]),
                descending: self.chance.one_in(2),
            },
            keys_only: self.chance.one_in(4),
            count_only: self.chance.one_in(6),
            min_mod,
            max_mod,
            min_create,
            max_create,
        }
    }

    fn txn(&mut self, depth: u32) -> Txn {
        let mut txn = Txn::default();
        for _ in 0..self.chance.below(3) {
            txn.compare.push(self.compare());
        }
        for _ in 0..self.chance.below(4) {
            txn.success.push(self.op(depth));
        }
        for _ in 0..self.chance.below(3) {
            txn.failure.push(self.op(depth));
        }
        txn
    }

    fn op(&mut self, depth: u32) -> Op {
        match self.chance.below(8) {
            0 | 1 => Op::Range(self.range()),
            2..=4 => Op::Put(self.put()),
            5 => Op::DeleteRange(self.delete()),
            _ if depth > 0 => Op::Txn(Box::new(self.txn(depth - 1))),
            _ => Op::Put(self.put()),
        }
    }

    fn compare(&mut self) -> Compare {
        use Relation::{Equal, Greater, Less, NotEqual};
        let small = self.chance.below(3) as i64;
        let near = self.revision();
        Compare {
            range: self.key_range(),
            relation: self.chance.pick(&[Equal, Greater, Less, NotEqual]),
            operand: match self.chance.below(5) {
                0 => Operand::Version(small),
                1 => Operand::Create(near),
                2 => Operand::Mod(near),
                3 => Operand::Lease(self.lease()),
                _ => Operand::Value(self.value()),
            },
        }
    }

    /// A v2 file with or without a ttl.
    fn set(&mut self) -> tree::Request {
        let path = Bytes::from_static(self.chance.pick(&FILES));
        let ttl_s = self.chance.below(4);
        let write = tree::Write {
            value: Blob::new(self.value()),
            ttl_s: (ttl_s > 0).then_some(ttl_s),
            refresh: self.chance.one_in(4),
        };
        tree::Request {
            path: tree::Path::parse(path).expect("a clean path"),
            op: tree::Op::Set { dir: false, write },
        }
    }

    fn member(&mut self) -> Body {
        let id = 1 + self.chance.below(5);
        let peer_urls = vec![format!("http://127.0.0.1:{}", self.chance.below(9))];
        let change = match self.chance.below(6) {
            0 | 1 => MemberChange::Add {
                peer_urls,
                role: self.chance.pick(&[Role::Learner, Role::Joining]),
                max_learners: 1,
            },
            2 => MemberChange::Update { peer_urls },
            3 => MemberChange::Promote,
            4 if self.chance.one_in(4) => MemberChange::Remove,
            _ => MemberChange::Publish {
                name: format!("member {id}"),
                client_urls: Vec::new(),
                life: Life {
                    directory: u128::from(self.chance.below(8).min(1)),
                    incarnation: self.chance.below(3),
                },
            },
        };
        Body::Member { id, change }
    }
}
