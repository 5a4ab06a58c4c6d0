//! The state, and the primitives that change it.
//!
//! Every write of either dialect ends in [`Store::put_file`], [`Store::put_dir`] or their deletes:
//! they keep chains, history, leases, deadlines and the count of live bytes in step.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bytes::Bytes;

use crate::chain::{Chain, Versioned};
use crate::command::Blob;
use crate::history::History;
use crate::map::KeyMap;
use crate::{
    Alarm, AlarmBy, Change, Class, ClusterTime, Deadline, DirVersion, Ends, FileVersion, Key,
    Lease, Limit, Mark, Member, Place, Revision, Short, UnixMs, Value, ValueAt, ValueError, Values,
};

/// What one version costs of the quota, beside its key and value.
pub(crate) const VERSION_BYTES: u64 = 256;

/// A key with its newest or some older version, values included.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyValue {
    /// The key.
    pub key: Key,
    /// When this life of the key began.
    pub create: Revision,
    /// When it was last written.
    pub modified: Revision,
    /// Writes in this life, from 1; 0 in a delete's event.
    pub version: u64,
    /// The lease, 0 for none.
    pub lease: i64,
    /// The value.
    pub value: Bytes,
}

/// The key space with its history.
#[derive(Debug)]
pub struct Store {
    pub(crate) files: KeyMap<Chain<FileVersion>>,
    pub(crate) dirs: KeyMap<Chain<DirVersion>>,
    pub(crate) history: History,
    pub(crate) revision: Revision,
    /// The revision of the last compaction, as on the wire: -1 before the first.
    pub(crate) compacted: i64,
    /// Up to where [`Store::purge`] has cleared up.
    pub(crate) purged: Revision,
    pub(crate) leases: BTreeMap<i64, Lease>,
    /// v2 deadlines of what is alive, in the order in which they end.
    pub(crate) deadlines: BTreeSet<(ClusterTime, Key, Class)>,
    pub(crate) members: BTreeMap<u64, Member>,
    /// Ids of members that left.
    pub(crate) removed: BTreeSet<u64>,
    pub(crate) alarms: BTreeMap<Alarm, AlarmBy>,
    pub(crate) live_bytes: u64,
    /// The sum of the digests of all keys that are alive.
    pub(crate) digest: u64,
    /// Versions of keys, those included that [`Store::purge`] has still to drop.
    versions: u64,
    /// Bytes of values that are not compacted, by the segment of this member's log they lie in.
    segment_bytes: BTreeMap<u32, u64>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            files: KeyMap::default(),
            dirs: KeyMap::default(),
            history: History::default(),
            revision: Revision::FIRST,
            compacted: -1,
            purged: Revision::ZERO,
            leases: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            members: BTreeMap::new(),
            removed: BTreeSet::new(),
            alarms: BTreeMap::new(),
            live_bytes: 0,
            digest: 0,
            versions: 0,
            segment_bytes: BTreeMap::new(),
        }
    }
}

/// One command's writes: all at one revision, told apart by `sub`.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) revision: Revision,
    pub(crate) wall: UnixMs,
    pub(crate) time: ClusterTime,
    pub(crate) place: Place,
    next_sub: u32,
    /// The command takes its revision even if no entry changed.
    pub(crate) took_revision: bool,
}

impl Writing {
    pub(crate) fn has_written(&self) -> bool {
        self.next_sub > 0 || self.took_revision
    }

    fn take_sub(&mut self) -> u32 {
        let sub = self.next_sub;
        self.next_sub += 1;
        sub
    }

    /// How the index will hold a value of this command.
    pub(crate) fn value(&self, blob: &Blob) -> Value {
        if let Some(short) = Short::new(&blob.bytes) {
            return Value::Inline(short);
        }
        Value::Logged(ValueAt {
            segment: self.place.segment,
            offset: self.place.offset + blob.at,
            len: blob.bytes.len() as u32,
            crc: blob.crc,
        })
    }
}

/// A file about to be written.
#[derive(Debug)]
pub(crate) struct NewFile {
    pub(crate) value: Value,
    pub(crate) limit: Limit,
    pub(crate) mark: Mark,
    /// Begin a new life even if the key is alive: v2's set (one-store.md M5).
    pub(crate) new_life: bool,
}

impl Store {
    /// A fresh cluster's state, with its first members.
    pub fn with_members(members: impl IntoIterator<Item = Member>) -> Self {
        let members = members.into_iter().map(|member| (member.id, member));
        Self {
            members: members.collect(),
            ..Self::default()
        }
    }

    /// The latest revision.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The revision of the last compaction; -1 before the first, as HashKV shows it.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// The oldest revision that can be read.
    pub fn oldest(&self) -> Revision {
        Revision::new(u64::try_from(self.compacted).unwrap_or(0))
    }

    /// Bytes that count against the quota: Σ(256 + key + value) over all versions not compacted.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// What the live keys come to: alike on all members that have applied the same, whatever was
    /// compacted. A digest against accidents, not against forgers.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Whether a value that is not compacted lies in `segment` of this member's log.
    pub fn needs_segment(&self, segment: u32) -> bool {
        self.segment_bytes.contains_key(&segment)
    }

    /// Bytes of values in `segment` that are not compacted.
    pub fn bytes_in_segment(&self, segment: u32) -> u64 {
        self.segment_bytes.get(&segment).copied().unwrap_or(0)
    }

    /// Gives a value its new place in this member's log, where its bytes have been copied.
    ///
    /// Not part of the replicated state. A version that has gone meanwhile is passed over, and so
    /// is a place whose length or checksum are not the value's.
    pub fn moved(&mut self, key: &[u8], revision: Revision, to: ValueAt) {
        let Some(version) = self
            .files
            .get_mut(key)
            .and_then(|c| c.written_at_mut(revision))
        else {
            return;
        };
        if let Value::Logged(at) = &mut version.value
            && (at.len, at.crc) == (to.len, to.crc)
        {
            let from = core::mem::replace(at, to);
            *self.segment_bytes.entry(to.segment).or_default() += u64::from(to.len);
            self.forget_bytes(&from);
        }
    }

    /// The members, by id.
    pub fn members(&self) -> &BTreeMap<u64, Member> {
        &self.members
    }

    /// Ids of the members that were removed.
    pub fn removed(&self) -> &BTreeSet<u64> {
        &self.removed
    }

    /// The leases, by id.
    pub fn leases(&self) -> &BTreeMap<i64, Lease> {
        &self.leases
    }

    /// When the next v2 deadline ends.
    pub fn next_deadline(&self) -> Option<ClusterTime> {
        self.deadlines.first().map(|(at, ..)| *at)
    }

    /// Keys that are alive or in history.
    pub fn key_count(&self) -> usize {
        self.files.len()
    }

    /// Changes from `from` on, in order.
    pub fn changes(&self, from: Revision) -> impl Iterator<Item = &Change> {
        let start = self
            .history
            .partition_point(|change| change.revision < from);
        self.history.range(start)
    }

    /// What history takes of memory, about, in bytes: its changes, and all versions but the newest
    /// of each key. Values of more than a few bytes are not in memory.
    pub fn history_bytes(&self) -> u64 {
        let older = self.versions - self.files.len() as u64;
        self.history.len() as u64 * size_of::<Change>() as u64
            + older * size_of::<FileVersion>() as u64
    }

    /// The revision of the change at `place` in history, counted from the oldest.
    pub fn revision_at(&self, place: usize) -> Option<Revision> {
        self.history
            .range(place)
            .next()
            .map(|change| change.revision)
    }

    /// How many changes history holds.
    pub fn history_len(&self) -> usize {
        self.history.len()
    }

    /// The version of `key` that was written at exactly `revision`, a tombstone included.
    pub fn file_written_at(&self, key: &[u8], revision: Revision) -> Option<&FileVersion> {
        self.files.get(key)?.written_at(revision)
    }

    /// The version of `key` that stood at `revision`, if it was alive.
    pub fn file_at(&self, key: &[u8], revision: Revision) -> Option<&FileVersion> {
        self.files.get(key)?.live_at(revision)
    }

    /// The newest version of `key`, if it is alive.
    pub fn file(&self, key: &[u8]) -> Option<&FileVersion> {
        self.files.get(key)?.live()
    }

    /// A version with its value read.
    ///
    /// # Errors
    /// As [`Value::read`].
    pub fn key_value(
        key: &Key,
        version: &FileVersion,
        values: &dyn Values,
    ) -> Result<KeyValue, ValueError> {
        let value = Bytes::from(version.value.read(values)?.into_owned());
        Ok(KeyValue {
            value,
            ..Self::without_value(key, version)
        })
    }

    /// A version without its value.
    pub fn without_value(key: &Key, version: &FileVersion) -> KeyValue {
        KeyValue {
            key: key.clone(),
            create: version.create,
            modified: version.revision,
            version: version.count,
            lease: version.limit.lease(),
            value: Bytes::new(),
        }
    }

    pub(crate) fn begin(&self, wall: UnixMs, time: ClusterTime, place: Place) -> Writing {
        let revision = self.revision.next();
        Writing {
            revision,
            wall,
            time,
            place,
            next_sub: 0,
            took_revision: false,
        }
    }

    /// Makes the command's revision the latest, if it took one (S2).
    pub(crate) fn finish(&mut self, writing: &Writing) {
        if writing.has_written() {
            self.revision = writing.revision;
        }
    }

    /// Writes a key.
    pub(crate) fn put_file(&mut self, writing: &mut Writing, key: &Key, new: NewFile) {
        let sub = self.record(writing, Class::File, key);
        let revision = writing.revision;
        let previous = self.files.get(key).and_then(Chain::live);
        let continues = previous.filter(|_| !new.new_life);
        let version = FileVersion {
            revision,
            create: continues.map_or(revision, |previous| previous.create),
            count: continues.map_or(1, |previous| previous.count + 1),
            sub,
            mark: new.mark,
            value: new.value,
            limit: new.limit,
        };
        if let Some(previous) = previous {
            let (limit, digest) = (previous.limit.clone(), digest_of(key, previous));
            self.digest = self.digest.wrapping_sub(digest);
            self.unlimit(key, &limit);
        }
        self.digest = self.digest.wrapping_add(digest_of(key, &version));
        self.limit(key, &version.limit);
        self.push_file(key, version);
    }

    /// Deletes a key that is alive.
    pub(crate) fn delete_file(&mut self, writing: &mut Writing, key: &Key, mark: Mark) {
        let sub = self.record(writing, Class::File, key);
        let previous = self.files.get(key).and_then(Chain::live);
        let previous = previous.expect("only what is alive is deleted");
        let (create, limit) = (previous.create, previous.limit.clone());
        self.digest = self.digest.wrapping_sub(digest_of(key, previous));
        self.unlimit(key, &limit);
        let version = FileVersion {
            revision: writing.revision,
            create,
            count: 0,
            sub,
            mark,
            value: Value::empty(),
            limit: Limit::NONE,
        };
        self.push_file(key, version);
    }

    /// Writes a directory entry.
    pub(crate) fn put_dir(
        &mut self,
        writing: &mut Writing,
        path: &Key,
        mark: Mark,
        (created, modified): (Revision, Revision),
        deadline: Option<Deadline>,
    ) {
        let sub = self.record(writing, Class::Dir, path);
        self.forget_dir_deadline(path);
        if let Some(deadline) = &deadline {
            self.deadlines
                .insert((deadline.at, path.clone(), Class::Dir));
        }
        let version = DirVersion {
            revision: writing.revision,
            sub,
            mark,
            tombstone: false,
            created,
            modified,
            deadline: deadline.map(Box::new),
        };
        self.push_dir(path, version);
    }

    /// Writes a directory's tombstone, also for one that had no entry.
    pub(crate) fn delete_dir(
        &mut self,
        writing: &mut Writing,
        path: &Key,
        mark: Mark,
        (created, modified): (Revision, Revision),
    ) {
        let sub = self.record(writing, Class::Dir, path);
        self.forget_dir_deadline(path);
        let version = DirVersion {
            revision: writing.revision,
            sub,
            mark,
            tombstone: true,
            created,
            modified,
            deadline: None,
        };
        self.push_dir(path, version);
    }

    /// Drops up to `max` changes that compaction left behind, and what versions only they kept.
    ///
    /// Not part of the replicated state: no read sees the difference. Returns whether more is left.
    pub fn purge(&mut self, max: usize) -> bool {
        let oldest = self.oldest();
        for _ in 0..max {
            let Some(change) = self.history.pop_before(oldest) else {
                self.purge_at(oldest);
                return false;
            };
            // What stood before this change goes; the change's own version goes with the next one
            // of its key. So a key with very many versions is cleared up step by step.
            let below = change.revision.next();
            self.compact_chain(change.class, &change.key, below);
        }
        true
    }

    /// A watch may still start at `oldest`: its changes stay, only their chains shrink.
    fn purge_at(&mut self, oldest: Revision) {
        if self.purged == oldest {
            return;
        }
        self.purged = oldest;
        let at = self
            .history
            .range(0)
            .take_while(|change| change.revision == oldest);
        let at: Vec<(Class, Key)> = at
            .map(|change| (change.class, change.key.clone()))
            .collect();
        for (class, key) in at {
            self.compact_chain(class, &key, oldest);
        }
    }

    fn compact_chain(&mut self, class: Class, key: &Key, oldest: Revision) {
        match class {
            Class::File => {
                let Some(chain) = self.files.get_mut(key) else {
                    return;
                };
                let mut gone = Vec::new();
                let removed = chain.compact(oldest, |version| gone.push(version.clone()));
                if removed {
                    self.files.remove(key);
                }
                gone.iter().for_each(|version| self.uncount(key, version));
            }
            Class::Dir => {
                let Some(chain) = self.dirs.get_mut(key) else {
                    return;
                };
                if chain.compact(oldest, |_| {}) {
                    self.dirs.remove(key);
                }
            }
        }
    }

    fn record(&mut self, writing: &mut Writing, class: Class, key: &Key) -> u32 {
        let (revision, wall) = (writing.revision, writing.wall);
        let sub = writing.take_sub();
        self.history.push(Change {
            revision,
            sub,
            class,
            key: key.clone(),
            wall,
        });
        sub
    }

    pub(crate) fn push_file(&mut self, key: &Key, version: FileVersion) {
        self.count(key, &version);
        push(&mut self.files, key, version);
    }

    pub(crate) fn count(&mut self, key: &Key, version: &FileVersion) {
        self.live_bytes += file_bytes(key, version);
        self.versions += 1;
        if let Value::Logged(at) = &version.value {
            *self.segment_bytes.entry(at.segment).or_default() += u64::from(at.len);
        }
    }

    fn uncount(&mut self, key: &Key, version: &FileVersion) {
        self.live_bytes -= file_bytes(key, version);
        self.versions -= 1;
        if let Value::Logged(at) = &version.value {
            self.forget_bytes(at);
        }
    }

    fn forget_bytes(&mut self, at: &ValueAt) {
        let bytes = self.segment_bytes.get_mut(&at.segment);
        let bytes = bytes.expect("counted when written");
        *bytes -= u64::from(at.len);
        if *bytes == 0 {
            self.segment_bytes.remove(&at.segment);
        }
    }

    pub(crate) fn push_dir(&mut self, path: &Key, version: DirVersion) {
        push(&mut self.dirs, path, version);
    }

    pub(crate) fn limit(&mut self, key: &Key, limit: &Limit) {
        match limit.ends() {
            None => {}
            Some(Ends::Lease(id)) => {
                // S4.
                let lease = self.leases.get_mut(id).expect("a put's lease was checked");
                lease.keys.insert(key.clone());
            }
            Some(Ends::Deadline(deadline)) => {
                self.deadlines
                    .insert((deadline.at, key.clone(), Class::File));
            }
        }
    }

    fn unlimit(&mut self, key: &Key, limit: &Limit) {
        match limit.ends() {
            None => {}
            Some(Ends::Lease(id)) => {
                // S4. The lease itself may be gone already: it is what ends the key now.
                let named = self
                    .leases
                    .get_mut(id)
                    .is_none_or(|lease| lease.keys.remove(key));
                assert!(named, "a lease names back each of its keys");
            }
            Some(Ends::Deadline(deadline)) => {
                let due = (deadline.at, key.clone(), Class::File);
                assert!(
                    self.deadlines.remove(&due),
                    "every deadline of a live key is queued"
                );
            }
        }
    }

    fn forget_dir_deadline(&mut self, path: &Key) {
        let previous = self.dirs.get(path).and_then(Chain::live);
        if let Some(at) = previous
            .and_then(|dir| dir.deadline.as_ref())
            .map(|due| due.at)
        {
            self.deadlines.remove(&(at, path.clone(), Class::Dir));
        }
    }
}

fn file_bytes(key: &Key, version: &FileVersion) -> u64 {
    VERSION_BYTES + key.len() as u64 + version.value.len() as u64
}

fn push<V: Versioned>(map: &mut KeyMap<Chain<V>>, key: &Key, version: V) {
    match map.get_mut(key) {
        Some(chain) => chain.push(version),
        None => {
            map.insert(key.clone(), Chain::new(version));
        }
    }
}

/// A key's part in [`Store::digest`].
pub(crate) fn digest_of(key: &Key, version: &FileVersion) -> u64 {
    let crc = |bytes: &[u8]| u64::from(crc_fast::crc32_iscsi(bytes));
    let (len, value) = match &version.value {
        Value::Inline(bytes) => (bytes.len() as u64, crc(bytes)),
        Value::Logged(at) => (at.len.into(), at.crc.into()),
    };
    let (kind, limit) = match version.limit.ends() {
        None => (0, 0),
        Some(Ends::Lease(id)) => (1, *id as u64),
        Some(Ends::Deadline(deadline)) => (2, deadline.at.0),
    };
    let parts = [
        crc(key) << 32 | key.len() as u64,
        version.revision.get(),
        version.create.get(),
        version.count,
        len << 32 | value,
        limit << 2 | kind,
    ];
    parts.into_iter().fold(0, |digest, part| mix(digest ^ part))
}

/// The finisher of SplitMix64: every bit of the input moves about half of the output's.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
