//! What is known from outside: every entry that was ever seen committed, what clients asked and
//! were told, and the checks of a member against it.
//!
//! Lives on when the member dies, and is copied for each of the ways in which a disk may survive.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use quorate_log::EntryAt;
use quorate_replica::{Committed, Machine, Wanted};
use quorate_store::command::{Body, Draft, Range, RequestId};
use quorate_store::tree::View;
use quorate_store::{
    ClusterTime, Command, KeyRange, KeyValue, Outcome, ReadError, Refusal, Reply, Revision, Store,
    ValueAt, ValueError, Values,
};

use crate::chance::Chance;
use crate::member::{ALONE, Found, SimMember, SimValues, first_member};
use crate::model::{Answer, Dir, File, Lease, Model, Moment, is_below};
use crate::watchers::{TreeWatcher, Watcher};
use crate::workload::{DIRS, PAIR};

/// The first entry's index: a fresh member is at index 1.
const FIRST: u64 = 2;

#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) model: Model,
    /// Every committed entry, from index [`FIRST`] on.
    ledger: Vec<Arc<Committed>>,
    asked: BTreeMap<RequestId, Asked>,
    /// The highest stamp in the log.
    pub(crate) time: ClusterTime,
    watchers: Vec<Watcher>,
    tree_watchers: Vec<TreeWatcher>,
}

#[derive(Clone, Debug)]
struct Asked {
    /// The command, stamped with 0.
    entry: Bytes,
    at_ms: u64,
    applied: bool,
}

/// What the model says to a command.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) body: Body,
    /// None for what is refused.
    pub(crate) answer: Option<Answer>,
    pub(crate) revision: u64,
}

impl Verdict {
    /// Checks what a client is answered.
    pub(crate) fn check(&self, outcome: &Outcome) {
        let body = &self.body;
        let found = (outcome.result.is_ok(), outcome.revision.get());
        let expected = (self.answer.is_some(), self.revision);
        assert_eq!(found, expected, "{body:?}: {:?}", outcome.result);
        let (Some(answer), Ok(reply)) = (&self.answer, &outcome.result) else {
            return;
        };
        match (body, reply) {
            (Body::Put(put), Reply::Put { prev }) => {
                let wanted = answer.prev.iter().filter(|_| put.prev_kv);
                check_prev(prev.iter(), wanted, body);
            }
            (Body::DeleteRange(delete), Reply::Deleted { count, prev }) => {
                assert_eq!(*count, answer.prev.len() as u64, "{body:?}");
                let wanted = answer.prev.iter().filter(|_| delete.prev_kv);
                check_prev(prev.iter(), wanted, body);
            }
            (Body::Txn(_), Reply::Txn(txn)) => {
                assert_eq!(txn.succeeded, answer.succeeded, "{body:?}");
            }
            (Body::Tree(_), Reply::Tree(event)) => {
                let found = Some((event.action, event.node.path.to_vec()));
                assert_eq!(found, answer.event, "{body:?}");
                assert_eq!(event.revision.get(), self.revision, "{body:?}");
            }
            _ => {}
        }
    }
}

fn check_prev<'a>(
    found: impl Iterator<Item = &'a KeyValue>,
    wanted: impl Iterator<Item = &'a (Vec<u8>, File)>,
    body: &Body,
) {
    let found = found.map(|kv| {
        let lives = (kv.create.get(), kv.modified.get(), kv.version);
        (&kv.key[..], &kv.value, lives, kv.lease)
    });
    let wanted = wanted.map(|(key, file)| {
        let lives = (file.create, file.modified, file.version);
        (&key[..], &file.value, lives, file.lease)
    });
    assert!(
        found.eq(wanted),
        "P3: {body:?} is told something else was there"
    );
}

impl Default for Known {
    fn default() -> Self {
        let model = Model::default();
        let all = || KeyRange::from_parts(Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
        let one = KeyRange::point(Bytes::from_static(PAIR[0].as_bytes()));
        Self {
            watchers: vec![Watcher::new(all(), 1), Watcher::new(one, 1)],
            tree_watchers: ["/t", "/t/d", "/t/d/in"]
                .map(|path| TreeWatcher::new(path, 1, &model))
                .into(),
            model,
            ledger: Vec::new(),
            asked: BTreeMap::new(),
            time: ClusterTime(0),
        }
    }
}

impl Known {
    /// The last index that was seen committed.
    pub(crate) fn last_index(&self) -> u64 {
        FIRST - 1 + self.ledger.len() as u64
    }

    /// A client asks.
    pub(crate) fn ask(&mut self, id: RequestId, entry: Bytes, at_ms: u64) {
        let applied = false;
        let asked = Asked {
            entry,
            at_ms,
            applied,
        };
        self.asked.insert(id, asked);
    }

    /// Takes note of a committed entry: a new one, or one that must be what it was.
    pub(crate) fn committed(&mut self, entry: &Committed, now_ms: u64) -> Option<Verdict> {
        if let Some(known) = entry.index.checked_sub(FIRST).and_then(|at| {
            let at = usize::try_from(at).expect("a ledger fits memory");
            self.ledger.get(at)
        }) {
            assert_same(known, entry);
            return None;
        }
        assert_eq!(entry.index, self.last_index() + 1, "P1: a gap in the log");
        self.ledger.push(Arc::new(entry.clone()));
        if entry.data.is_empty() {
            return None;
        }
        let command = Command::decode(&entry.data).expect("a committed entry is a command");
        assert!(command.time >= self.time, "P5: cluster time steps back");
        self.time = command.time;
        let moment = Moment {
            asked: self.take_asked(&command, now_ms),
            now: now_ms,
            skew: 0,
        };
        let answer = self.model.apply(&command, moment);
        Some(Verdict {
            body: command.body,
            answer,
            revision: self.model.revision,
        })
    }

    /// A request is in the log once, as it was asked. Returns when it was.
    fn take_asked(&mut self, command: &Command, now_ms: u64) -> u64 {
        if command.id.counter == 0 {
            return now_ms;
        }
        let asked = self.asked.get_mut(&command.id);
        let asked = asked.expect("nothing is in the log that nobody asked for");
        assert!(!asked.applied, "a request is applied once");
        asked.applied = true;
        let entry = Draft::new(command.id, command.wall, &command.body).stamp(ClusterTime(0));
        assert_eq!(entry, asked.entry, "a request is applied as it was asked");
        asked.at_ms
    }

    /// Checks what a member found on its disk, and learns what was committed unseen.
    pub(crate) fn reopened(&mut self, found: &Found, now_ms: u64) {
        let last = found
            .entries
            .last()
            .map_or(found.start, |(entry, _)| entry.index);
        let seen = self.last_index();
        assert!(
            last >= seen,
            "P1: entries up to {seen} were applied, the log ends at {last}"
        );
        for (entry, place) in &found.entries {
            let committed = Committed {
                index: entry.index,
                term: entry.term,
                data: entry.data.clone(),
                place: *place,
            };
            if entry.index <= found.applied.max(seen) {
                self.committed(&committed, now_ms);
            }
        }
        // A restart gives leases their full time again, but for those whose end is logged already.
        let tail = found
            .entries
            .iter()
            .filter(|(entry, _)| entry.index > self.last_index());
        let commands = tail.filter_map(|(entry, _)| Command::decode(&entry.data).ok());
        let ending: BTreeSet<i64> = commands
            .filter_map(|command| match command.body {
                Body::LeaseRevoke { id } => Some(id),
                _ => None,
            })
            .collect();
        for (id, lease) in &mut self.model.leases {
            if !ending.contains(id) {
                lease.since = now_ms;
            }
        }
    }

    /// A grant is applied anew after a restart: the lease's time runs from now.
    pub(crate) fn granted_again(&mut self, id: i64, now_ms: u64) {
        if let Some(lease) = self.model.leases.get_mut(&id) {
            lease.since = now_ms;
        }
    }

    /// Whether a member has applied everything that was ever seen committed.
    pub(crate) fn is_caught_up(&self, member: &SimMember) -> bool {
        member.machine.applied().0 >= self.last_index()
    }

    pub(crate) fn renewed(&mut self, id: i64, now_ms: u64) {
        let lease = self.model.leases.get_mut(&id);
        lease.expect("only what exists is renewed").since = now_ms;
    }

    pub(crate) fn lease(&self, id: i64) -> Option<Lease> {
        self.model.leases.get(&id).copied()
    }

    /// The watchers come back after a restart; with `skip` they leave out that many revisions.
    pub(crate) fn resume_watchers(&mut self, skip: u64) {
        for watcher in &mut self.watchers {
            watcher.next += skip;
        }
        for watcher in &mut self.tree_watchers {
            watcher.resume(&self.model, skip);
        }
    }

    /// Delivers to all watchers what up to `max` changes bring.
    pub(crate) fn poll_watchers(&mut self, member: &SimMember, max: usize) -> usize {
        let (store, values, model) = (member.machine.store(), &member.values, &self.model);
        let watchers = self.watchers.iter_mut();
        let told: usize = watchers.map(|w| w.poll(store, values, model, max)).sum();
        let watchers = self.tree_watchers.iter_mut();
        told + watchers
            .map(|w| w.poll(store, values, model, max))
            .sum::<usize>()
    }

    /// Compares what reads show, now and at some revisions of the past.
    pub(crate) fn check_reads(&self, member: &SimMember, chance: &mut Chance) {
        check_state(&self.model, member.machine.store(), &member.values, chance);
    }

    /// Compares all of history that is kept, and the whole state with one that applied every
    /// entry from the first on, without a disk.
    pub(crate) fn check_all(&self, member: &mut SimMember) {
        let (model, values) = (&self.model, &member.values);
        let store = member.machine.store();
        let from = model.oldest().max(1);
        let all = KeyRange::from_parts(Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
        Watcher::new(all, from).poll(store, values, model, usize::MAX);
        TreeWatcher::new("/t", from, model).poll(store, values, model, usize::MAX);
        let mut reference = Machine::genesis([first_member(ALONE)]);
        let batch: Vec<Committed> = self.ledger.iter().map(|entry| (**entry).clone()).collect();
        let archive = Archive::of(&self.ledger);
        let applied = reference.apply(&batch, &archive);
        applied.expect("what was applied once can be applied again");
        while reference.purge(usize::MAX) {}
        while member.machine.purge(usize::MAX) {}
        // Where a value was copied to is the member's own affair: history above has read it there.
        let mut copied = Vec::new();
        let found = member.machine.store();
        found.logged_versions(&mut None, usize::MAX, &mut |key, revision, at| {
            let (key, to) = (
                key.clone(),
                EntryAt {
                    segment: at.segment,
                    offset: at.offset,
                },
            );
            copied.push((Wanted { key, revision, at }, to));
            true
        });
        reference.moved(copied);
        assert_eq!(member.machine.applied(), reference.applied());
        assert_eq!(member.machine.time(), reference.time());
        let (found, expected) = (member.machine.store(), reference.store());
        assert_eq!(found.live_bytes(), expected.live_bytes(), "live bytes");
        assert_eq!(found.key_count(), expected.key_count(), "keys kept");
        let segments = 0..=self.ledger.last().map_or(0, |entry| entry.place.segment);
        for segment in segments {
            let needed = found.needs_segment(segment);
            assert_eq!(needed, expected.needs_segment(segment), "segment {segment}");
        }
        assert_eq!(rows(found), rows(expected), "the whole state");
    }
}

/// Compares what reads show, now and at some revisions of the past.
pub(crate) fn check_state(model: &Model, store: &Store, values: &SimValues, chance: &mut Chance) {
    assert_eq!(store.revision().get(), model.revision, "the revision");
    assert_eq!(store.compacted(), model.compacted, "the last compaction");
    let oldest = model.oldest().max(1);
    let span = model.revision - oldest + 1;
    let past = [0; 3].map(|_| oldest + chance.below(span));
    for revision in [oldest, model.revision].into_iter().chain(past) {
        check_revision(model, store, values, revision);
    }
    if oldest > 1 {
        let reply = range(store, values, oldest - 1);
        let compacted = matches!(reply, Err(ReadError::Refused(Refusal::Compacted { .. })));
        assert!(compacted, "P3: a compacted revision is refused: {reply:?}");
    }
    assert_eq!(*store.alarms(), model.alarms, "alarms");
    let leases = store.leases().iter();
    let leases: BTreeMap<i64, i64> = leases.map(|(id, lease)| (*id, lease.ttl_s)).collect();
    let expected = model.leases.iter().map(|(id, lease)| (*id, lease.ttl_s));
    assert_eq!(leases, expected.collect(), "leases");
    for (id, lease) in store.leases() {
        let keys: Vec<&[u8]> = lease.keys.iter().map(|key| &key[..]).collect();
        let files = model.files.iter().filter(|(_, file)| file.lease == *id);
        let expected: Vec<&[u8]> = files.map(|(key, _)| &key[..]).collect();
        assert_eq!(keys, expected, "keys of lease {id}");
    }
    let next = model
        .dues()
        .into_keys()
        .next()
        .map(|(at, ..)| ClusterTime(at));
    assert_eq!(store.next_deadline(), next, "the next deadline");
}

fn assert_same(known: &Committed, entry: &Committed) {
    let of = |entry: &Committed| (entry.index, entry.term, entry.place);
    assert_eq!(of(known), of(entry), "P1: a committed entry has changed");
    assert_eq!(
        known.data, entry.data,
        "P1: entry {} has changed",
        entry.index
    );
}

pub(crate) fn rows(store: &Store) -> Vec<Vec<u8>> {
    let mut rows = Vec::new();
    let mut cursor = store.begin_walk();
    while store.walk(&mut cursor, usize::MAX, &mut |row| rows.push(row.to_vec())) {}
    rows
}

fn range(
    store: &Store,
    values: &dyn Values,
    revision: u64,
) -> Result<quorate_store::RangeReply, ReadError> {
    let all = KeyRange::from_parts(Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
    let mut asked = Range::all(all);
    asked.revision = i64::try_from(revision).expect("small");
    store.range_reply(&asked, values)
}

pub(crate) fn check_revision(model: &Model, store: &Store, values: &dyn Values, revision: u64) {
    let reply = range(store, values, revision)
        .unwrap_or_else(|error| panic!("P3: a read at revision {revision}: {error}"));
    let (files, dirs) = (model.files_at(revision), model.dirs_at(revision));
    assert_eq!(reply.kvs.len(), files.len(), "keys at revision {revision}");
    for (found, (key, file)) in reply.kvs.iter().zip(&files) {
        let version = store.file_at(key, Revision::new(revision));
        let version = version.expect("what a range shows can be got");
        let due = version.limit.deadline();
        let found = (
            &found.key[..],
            &found.value,
            (found.create.get(), found.modified.get(), found.version),
            found.lease,
            due.map(|due| (due.at.0, due.shown.0)),
        );
        let File {
            value,
            create,
            modified,
            version,
            lease,
            due,
        } = *file;
        let expected = (
            *key,
            value,
            (*create, *modified, *version),
            *lease,
            due.map(|due| (due.at, due.shown)),
        );
        assert_eq!(found, expected, "P3: at revision {revision}");
    }
    let pair = PAIR.map(|key| files.get(key.as_bytes()).map(|file| &file.value));
    assert_eq!(pair[0], pair[1], "a txn is whole at revision {revision}");
    let view = View::new(store, Revision::new(revision));
    for path in DIRS {
        let found = view.dir(path.as_bytes()).map(|image| {
            let due = image.deadline.map(|due| (due.at.0, due.shown.0));
            (image.created.get(), image.modified.get(), due)
        });
        let expected = image(&files, &dirs, path.as_bytes());
        assert_eq!(found, expected, "{path} at revision {revision}");
    }
}

/// A directory as v2 shows it: created, modified, deadline (by cluster time, and shown).
type Image = (u64, u64, Option<(u64, u64)>);

fn image(
    files: &BTreeMap<&[u8], &File>,
    dirs: &BTreeMap<&[u8], &Dir>,
    path: &[u8],
) -> Option<Image> {
    if let Some(dir) = dirs.get(path) {
        let due = dir.due.map(|due| (due.at, due.shown));
        return Some((dir.created, dir.modified, due));
    }
    let (_, first) = files.iter().find(|(key, _)| is_below(key, path))?;
    Some((first.create, first.create, None))
}

/// The values of all entries there ever were, also of those whose segments are gone.
struct Archive(BTreeMap<EntryAt, Bytes>);

impl Archive {
    fn of(ledger: &[Arc<Committed>]) -> Self {
        Self(
            ledger
                .iter()
                .map(|entry| (entry.place, entry.data.clone()))
                .collect(),
        )
    }
}

impl Values for Archive {
    fn read<'a>(&'a self, at: &ValueAt) -> Result<Cow<'a, [u8]>, ValueError> {
        let place = EntryAt {
            segment: at.segment,
            offset: at.offset,
        };
        let entry = self.0.range(..=place).next_back();
        let value = entry.and_then(|(start, data)| {
            let from = (at.offset - start.offset) as usize;
            data.get(from..from + at.len as usize)
        });
        value.map(Cow::Borrowed).ok_or(ValueError::Rotten(*at))
    }
}
