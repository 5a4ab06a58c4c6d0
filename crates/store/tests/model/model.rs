//! A store as simple as it can be: the whole key space for each revision.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_store::command::{
    Body, Compare, DeleteRange, Limits, Op, Operand, Put, Range, Relation, SortTarget, Txn,
};
use quorate_store::{
    KeyEnd, KeyRange, KeyValue, Member, MemberChange, Outcome, RangeReply, Refusal, Reply,
    Revision, Role, TxnReply, tree,
};

/// A key's value and numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kv {
    pub(crate) value: Bytes,
    /// The segment of the log that holds the value, if it is too large for the index.
    pub(crate) segment: Option<u32>,
    pub(crate) create: i64,
    pub(crate) modified: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
    /// When it ends, in milliseconds.
    pub(crate) deadline: Option<u64>,
}

pub(crate) type Map = BTreeMap<Bytes, Kv>;

/// What happened to a key: `None` is its delete.
pub(crate) type Changed = (Bytes, Option<Kv>);

#[derive(Clone)]
pub(crate) struct Model {
    /// By revision.
    pub(crate) maps: Vec<Map>,
    /// By revision, in order.
    pub(crate) changes: Vec<Vec<Changed>>,
    /// Seconds by id.
    pub(crate) leases: BTreeMap<i64, i64>,
    pub(crate) members: BTreeMap<u64, Member>,
    pub(crate) removed: BTreeSet<u64>,
    pub(crate) compacted: i64,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            maps: vec![Map::new(); 2],
            changes: vec![Vec::new(); 2],
            leases: BTreeMap::new(),
            members: BTreeMap::new(),
            removed: BTreeSet::new(),
            compacted: -1,
        }
    }
}

/// A command under way.
struct Work<'a> {
    before: &'a Model,
    map: Map,
    changes: Vec<Changed>,
    segment: u32,
}

impl Model {
    pub(crate) fn revision(&self) -> i64 {
        self.maps.len() as i64 - 1
    }

    pub(crate) fn latest(&self) -> &Map {
        self.maps.last().expect("there is a first")
    }

    fn oldest(&self) -> Revision {
        Revision::new(self.compacted.max(0) as u64)
    }

    /// What `body` does and answers, with its values in `segment`.
    pub(crate) fn apply(&mut self, body: &Body, now_ms: u64, segment: u32) -> Outcome {
        let mut work = Work {
            before: self,
            map: self.latest().clone(),
            changes: Vec::new(),
            segment,
        };
        let result = match body {
            Body::Put(put) => work.put(put),
            Body::DeleteRange(delete) => Ok(work.delete(delete)),
            Body::Txn(txn) => work.txn(txn).map(Reply::Txn),
            Body::Tree(request) => work.set(request, now_ms),
            Body::LeaseRevoke { id } => work.revoke(*id),
            Body::Compact { .. } | Body::LeaseGrant { .. } | Body::Expire => Ok(Reply::Done),
            Body::Tick => Ok(Reply::Done),
            Body::Member { id, change } => work.before.change(*id, change).map(|_| Reply::Done),
            // The generator raises none: scripts do.
            Body::Alarm { alarm, .. } => Ok(Reply::Alarm(Some(*alarm))),
        };
        let Work { map, changes, .. } = work;
        if result.is_ok() && !changes.is_empty() {
            self.maps.push(map);
            self.changes.push(changes);
        }
        let result = match (result, body) {
            (Ok(_), Body::Compact { revision }) => self.compact(*revision),
            (Ok(_), Body::LeaseGrant { id, ttl_s }) => self.grant(*id, *ttl_s),
            (Ok(_), Body::Expire) => {
                self.expire(now_ms);
                Ok(Reply::Done)
            }
            (Ok(reply), Body::LeaseRevoke { id }) => {
                self.leases.remove(id);
                Ok(reply)
            }
            (Ok(reply), Body::Member { id, change }) => {
                match self.change(*id, change).expect("it was let through") {
                    Some(member) => {
                        self.members.insert(*id, member);
                    }
                    None => {
                        self.members.remove(id);
                        self.removed.insert(*id);
                    }
                }
                Ok(reply)
            }
            (result, _) => result,
        };
        Outcome {
            revision: Revision::new(self.revision() as u64),
            result,
        }
    }

    /// What a member is after a change; nothing when it leaves.
    fn change(&self, id: u64, change: &MemberChange) -> Result<Option<Member>, Refusal> {
        let taken = |urls: &Vec<String>| {
            let others = self.members.values().filter(|other| other.id != id);
            let mut theirs = others.flat_map(|other| &other.peer_urls);
            theirs.any(|url| urls.contains(url))
        };
        let known = self.members.get(&id).cloned();
        let with = |role| {
            self.members
                .values()
                .filter(move |m| m.role == role)
                .count()
        };
        Ok(match (change, known) {
            _ if self.removed.contains(&id) => return Err(Refusal::MemberRemoved { id }),
            (MemberChange::Add { .. }, Some(_)) => return Err(Refusal::MemberExists),
            (
                MemberChange::Add {
                    peer_urls, role, ..
                },
                None,
            ) => {
                if taken(peer_urls) {
                    return Err(Refusal::PeerUrlExists);
                }
                if *role == Role::Learner && with(Role::Learner) > 0 {
                    return Err(Refusal::TooManyLearners);
                }
                Some(Member {
                    id,
                    peer_urls: peer_urls.clone(),
                    role: *role,
                    ..Member::default()
                })
            }
            (_, None) => return Err(Refusal::MemberNotFound { id }),
            (MemberChange::Remove, Some(member)) => {
                if member.role == Role::Voter && with(Role::Voter) == 1 {
                    return Err(Refusal::LastVoter);
                }
                None
            }
            (MemberChange::Update { peer_urls }, Some(_)) if taken(peer_urls) => {
                return Err(Refusal::PeerUrlExists);
            }
            (MemberChange::Update { peer_urls }, Some(member)) => Some(Member {
                peer_urls: peer_urls.clone(),
                ..member
            }),
            (MemberChange::Promote, Some(member)) if member.role == Role::Voter => {
                return Err(Refusal::NotLearner);
            }
            // The generator leaves nobody alone: scripts do.
            (MemberChange::Promote | MemberChange::Alone, Some(member)) => Some(Member {
                role: Role::Voter,
                ..member
            }),
            (
                MemberChange::Publish {
                    name,
                    client_urls,
                    life,
                },
                Some(member),
            ) => {
                if member.life.directory != 0 && member.life.directory != life.directory {
                    return Err(Refusal::MemberOtherDirectory);
                }
                if life.incarnation < member.life.incarnation {
                    return Err(Refusal::MemberOutdated);
                }
                let (name, client_urls, life) = (name.clone(), client_urls.clone(), *life);
                Some(Member {
                    name,
                    client_urls,
                    life,
                    ..member
                })
            }
        })
    }

    fn compact(&mut self, asked: i64) -> Result<Reply, Refusal> {
        if asked <= self.compacted {
            let oldest = self.oldest();
            return Err(Refusal::Compacted { asked, oldest });
        }
        if asked > self.revision() {
            let latest = Revision::new(self.revision() as u64);
            return Err(Refusal::Future { asked, latest });
        }
        self.compacted = asked;
        Ok(Reply::Compacted)
    }

    fn grant(&mut self, id: i64, ttl_s: i64) -> Result<Reply, Refusal> {
        if self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExists { id });
        }
        self.leases.insert(id, ttl_s);
        Ok(Reply::LeaseGranted { id, ttl_s })
    }

    /// One revision for each key that is due.
    fn expire(&mut self, now_ms: u64) {
        while let Some((at, key)) = self.next_deadline().filter(|(at, _)| *at <= now_ms) {
            let mut map = self.latest().clone();
            let ended = map.remove(&key);
            assert_eq!(ended.and_then(|kv| kv.deadline), Some(at));
            self.maps.push(map);
            self.changes.push(vec![(key, None)]);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<(u64, Bytes)> {
        let map = self.latest().iter();
        map.filter_map(|(key, kv)| Some((kv.deadline?, key.clone())))
            .min()
    }

    /// What a range means by a revision: the map there, `now` for the latest.
    fn map_at<'a>(&'a self, asked: i64, now: &'a Map) -> Result<&'a Map, Refusal> {
        if asked <= 0 {
            return Ok(now);
        }
        if asked > self.revision() {
            let latest = Revision::new(self.revision() as u64);
            return Err(Refusal::Future { asked, latest });
        }
        if asked < self.compacted {
            let oldest = self.oldest();
            return Err(Refusal::Compacted { asked, oldest });
        }
        Ok(&self.maps[asked as usize])
    }

    pub(crate) fn range(&self, asked: &Range, now: &Map) -> Result<RangeReply, Refusal> {
        let map = self.map_at(asked.revision, now)?;
        let in_range = map.iter().filter(|(key, _)| contains(&asked.range, key));
        let mut found: Vec<(&Bytes, &Kv)> = in_range.collect();
        let count = found.len() as u64;
        let within = |number: i64, min: i64, max: i64| {
            (min == 0 || min <= number) && (max == 0 || number <= max)
        };
        found.retain(|(_, kv)| within(kv.modified, asked.min_mod, asked.max_mod));
        found.retain(|(_, kv)| within(kv.create, asked.min_create, asked.max_create));
        found.sort_by(|(left_key, left), (right_key, right)| {
            let ordering = match asked.sort.target {
                SortTarget::Key => left_key.cmp(right_key),
                SortTarget::Version => left.version.cmp(&right.version),
                SortTarget::Create => left.create.cmp(&right.create),
                SortTarget::Mod => left.modified.cmp(&right.modified),
                SortTarget::Value => left.value.cmp(&right.value),
            };
            if asked.sort.descending {
                ordering.reverse()
            } else {
                ordering
            }
        });
        if asked.count_only {
            found.clear();
        }
        let limit = if asked.limit > 0 {
            asked.limit as usize
        } else {
            usize::MAX
        };
        let more = found.len() > limit;
        found.truncate(limit);
        let mut kvs: Vec<KeyValue> = found.iter().map(|(key, kv)| key_value(key, kv)).collect();
        if asked.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        Ok(RangeReply { kvs, more, count })
    }
}

impl Work<'_> {
    /// The revision that this command makes.
    fn next(&self) -> i64 {
        self.before.revision() + 1
    }

    /// What a header inside a txn shows.
    fn shown(&self) -> Revision {
        let written = i64::from(!self.changes.is_empty());
        Revision::new((self.before.revision() + written) as u64)
    }

    fn write(&mut self, key: &Bytes, kv: Kv) {
        self.map.insert(key.clone(), kv.clone());
        self.changes.push((key.clone(), Some(kv)));
    }

    /// The value's own segment, if it does not fit the index.
    fn home(&self, value: &Bytes) -> Option<u32> {
        (value.len() > 22).then_some(self.segment)
    }

    /// In a txn a negative revision is one that is gone.
    fn range(&self, asked: &Range) -> Result<RangeReply, Refusal> {
        if asked.revision < 0 && asked.revision < self.before.compacted {
            return Err(Refusal::Compacted {
                asked: asked.revision,
                oldest: self.before.oldest(),
            });
        }
        self.before.range(asked, &self.map)
    }

    fn put(&mut self, put: &Put) -> Result<Reply, Refusal> {
        let stood = self.before.latest().get(&put.key);
        if put.lease != 0 && !self.before.leases.contains_key(&put.lease) {
            return Err(Refusal::LeaseNotFound { id: put.lease });
        }
        if (put.ignore_value || put.ignore_lease) && stood.is_none() {
            return Err(Refusal::KeyNotFound);
        }
        let old = self.map.get(&put.key).cloned();
        let mut kv = Kv {
            value: put.value.bytes.clone(),
            segment: self.home(&put.value.bytes),
            create: old.as_ref().map_or(self.next(), |old| old.create),
            modified: self.next(),
            version: old.as_ref().map_or(1, |old| old.version + 1),
            lease: put.lease,
            deadline: None,
        };
        if let Some(old) = &old {
            if put.ignore_value {
                (kv.value, kv.segment) = (old.value.clone(), old.segment);
            }
            if put.ignore_lease {
                (kv.lease, kv.deadline) = (old.lease, old.deadline);
            }
        }
        self.write(&put.key, kv);
        let prev = old
            .filter(|_| put.prev_kv)
            .map(|old| key_value(&put.key, &old));
        Ok(Reply::Put { prev })
    }

    fn delete(&mut self, delete: &DeleteRange) -> Reply {
        let gone = |key: &Bytes| contains(&delete.range, key);
        let gone: Vec<Bytes> = self.map.keys().filter(|key| gone(key)).cloned().collect();
        let mut prev = Vec::new();
        for key in &gone {
            let old = self.map.remove(key).expect("it was found there");
            prev.push(key_value(key, &old));
            self.changes.push((key.clone(), None));
        }
        if !delete.prev_kv {
            prev.clear();
        }
        let count = gone.len() as u64;
        Reply::Deleted { count, prev }
    }

    fn revoke(&mut self, id: i64) -> Result<Reply, Refusal> {
        if !self.before.leases.contains_key(&id) {
            return Err(Refusal::LeaseNotFound { id });
        }
        let attached = self.before.latest().iter().filter(|(_, kv)| kv.lease == id);
        for (key, _) in attached {
            self.map.remove(key);
            self.changes.push((key.clone(), None));
        }
        Ok(Reply::LeaseRevoked)
    }

    /// v2's set of a file.
    fn set(&mut self, request: &tree::Request, now_ms: u64) -> Result<Reply, Refusal> {
        let tree::Op::Set { dir: false, write } = &request.op else {
            unreachable!("only files are set");
        };
        let key = Bytes::copy_from_slice(request.path.as_bytes());
        let old = self.map.get(&key).cloned();
        if write.refresh && old.is_none() {
            let refusal = tree::Refusal::NotFound(key[..].into());
            return Err(Refusal::Tree(refusal));
        }
        let mut kv = Kv {
            value: write.value.bytes.clone(),
            segment: self.home(&write.value.bytes),
            create: self.next(),
            modified: self.next(),
            version: 1,
            lease: 0,
            deadline: write.ttl_s.map(|ttl_s| now_ms + ttl_s * 1000),
        };
        if let Some(old) = old.filter(|_| write.refresh) {
            (kv.value, kv.segment) = (old.value, old.segment);
        }
        self.write(&key, kv);
        Ok(Reply::Done)
    }

    fn txn(&mut self, txn: &Txn) -> Result<TxnReply, Refusal> {
        let before = self.before.latest();
        let succeeded = txn.compare.iter().all(|compare| holds(compare, before));
        let branch = if succeeded {
            &txn.success
        } else {
            &txn.failure
        };
        let mut responses = Vec::new();
        for op in branch {
            let reply = match op {
                Op::Range(range) => Reply::Range(self.range(range)?),
                Op::Put(put) => self.put(put)?,
                Op::DeleteRange(delete) => self.delete(delete),
                Op::Txn(inner) => Reply::Txn(self.txn(inner)?),
            };
            responses.push((self.shown(), reply));
        }
        Ok(TxnReply {
            succeeded,
            responses,
        })
    }
}

fn contains(range: &KeyRange, key: &Bytes) -> bool {
    match &range.end {
        KeyEnd::Point => *key == range.start,
        KeyEnd::Before(end) => range.start <= *key && key < end,
        KeyEnd::Open => range.start <= *key,
    }
}

fn holds(compare: &Compare, map: &Map) -> bool {
    let found = map.iter().filter(|(key, _)| contains(&compare.range, key));
    let found: Vec<Option<&Kv>> = found.map(|(_, kv)| Some(kv)).collect();
    if found.is_empty() {
        return holds_for(compare, None);
    }
    found.iter().all(|kv| holds_for(compare, *kv))
}

fn holds_for(compare: &Compare, kv: Option<&Kv>) -> bool {
    let number = |of: fn(&Kv) -> i64, wanted: i64| {
        let have = kv.map_or(0, of);
        (have == wanted, have < wanted)
    };
    let (equal, less) = match &compare.operand {
        Operand::Version(wanted) => number(|kv| kv.version, *wanted),
        Operand::Create(wanted) => number(|kv| kv.create, *wanted),
        Operand::Mod(wanted) => number(|kv| kv.modified, *wanted),
        Operand::Lease(wanted) => number(|kv| kv.lease, *wanted),
        Operand::Value(wanted) => match kv {
            Some(kv) => (kv.value == *wanted, kv.value < *wanted),
            None => return false,
        },
    };
    match compare.relation {
        Relation::Equal => equal,
        Relation::NotEqual => !equal,
        Relation::Less => less,
        Relation::Greater => !less && !equal,
    }
}

pub(crate) fn key_value(key: &Bytes, kv: &Kv) -> KeyValue {
    KeyValue {
        key: key[..].into(),
        create: Revision::new(kv.create as u64),
        modified: Revision::new(kv.modified as u64),
        version: kv.version as u64,
        lease: kv.lease,
        value: kv.value.clone(),
    }
}

/// What [`Body::check`] says of requests that are right in themselves: only the shape of txns
/// can be wrong.
pub(crate) fn check(body: &Body, limits: Limits) -> Result<(), Refusal> {
    let Body::Txn(txn) = body else { return Ok(()) };
    if cost(txn) > limits.max_txn_ops {
        return Err(Refusal::TooManyOps);
    }
    let mut writes = Vec::new();
    collect(txn, &mut Vec::new(), &mut writes);
    let mut pairs = writes.iter().enumerate().flat_map(|(at, left)| {
        let later = writes[at + 1..].iter();
        later.map(move |right| (left, right))
    });
    if pairs.any(|(left, right)| left.collides(right)) {
        Err(Refusal::DuplicateKey)
    } else {
        Ok(())
    }
}

/// The operations that the longest way down a txn uses up.
fn cost(txn: &Txn) -> usize {
    let own = txn
        .compare
        .len()
        .max(txn.success.len())
        .max(txn.failure.len());
    let ops = txn.success.iter().chain(&txn.failure);
    let nested = ops.filter_map(|op| match op {
        Op::Txn(inner) => Some(cost(inner)),
        _ => None,
    });
    own + nested.max().unwrap_or(0)
}

/// A write with the way down to it: a txn's address and the branch, for each level.
struct Write<'a> {
    way: Vec<(*const Txn, bool)>,
    op: &'a Op,
}

impl Write<'_> {
    /// Whether both may be done, and touch one key.
    fn collides(&self, other: &Self) -> bool {
        let mut way = self.way.iter();
        let apart = way.any(|(txn, branch)| other.way.contains(&(*txn, !branch)));
        !apart
            && match (self.op, other.op) {
                (Op::Put(left), Op::Put(right)) => left.key == right.key,
                (Op::Put(put), Op::DeleteRange(delete))
                | (Op::DeleteRange(delete), Op::Put(put)) => contains(&delete.range, &put.key),
                _ => false,
            }
    }
}

fn collect<'a>(txn: &'a Txn, way: &mut Vec<(*const Txn, bool)>, writes: &mut Vec<Write<'a>>) {
    for (branch, ops) in [(true, &txn.success), (false, &txn.failure)] {
        way.push((txn, branch));
        for op in ops {
            match op {
                Op::Txn(inner) => collect(inner, way, writes),
                Op::Put(_) | Op::DeleteRange(_) => writes.push(Write {
                    way: way.clone(),
                    op,
                }),
                Op::Range(_) => {}
            }
        }
        way.pop();
    }
}
