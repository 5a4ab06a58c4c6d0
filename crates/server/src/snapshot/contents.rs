//! A file's contents: first measured, then written, while commands go on.
//!
//! Memory: 32 bytes for each version of a key, whatever its value weighs.

use std::io::{self, Write};

use quorate_store::{Cursor, Key, Revision, ValueError};

use super::moment::{Moment, State};
use super::rows::{self, LeaseRow, Marked, OursHead};
use crate::bolt::{FileShape, Shape, Writer};

/// Versions looked at while the state is held.
const STEP: usize = 512;
/// Versions whose values are read while the state is held: each that is not in memory makes a step
/// begin again.
const VALUES_STEP: usize = 64;
/// Bytes of values read while the state is held, about.
const STEP_BYTES: usize = 64 << 10;

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// Where it goes takes no more.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A value cannot be read.
    #[error("{0}")]
    Value(#[from] ValueError),
}

/// A version that goes into the file.
#[derive(Debug)]
struct Kept {
    revision: Revision,
    sub: u32,
    value_bytes: u32,
    key: Key,
    is_tombstone: bool,
    is_marked: bool,
}

/// The items of a bucket that is held in memory whole.
type Small = Vec<(Vec<u8>, Vec<u8>)>;

/// What a bucket is made of.
enum Bucket {
    Small(Small),
    Keys,
    Ours,
}

/// What a file will hold, measured.
pub(crate) struct Contents<S> {
    state: S,
    moment: Moment,
    versions: Vec<Kept>,
    buckets: Vec<Bucket>,
    shape: FileShape,
}

impl<S: State> Contents<S> {
    /// Measures `state` as it was at `moment`; from then on, nothing may have been purged from it.
    pub(crate) fn measure(state: S, moment: Moment) -> Self {
        let versions = kept(&state, &moment);
        let mut shapes = Vec::new();
        let mut buckets = Vec::new();
        for (name, bucket) in buckets_of(&moment) {
            let shape = match &bucket {
                Bucket::Small(items) => small_shape(items),
                Bucket::Keys => keys_shape(&moment, &versions),
                Bucket::Ours => ours_shape(&state, &moment, &versions),
            };
            shapes.push((name.to_vec(), shape));
            buckets.push(bucket);
        }
        Self {
            shape: FileShape::new(shapes),
            state,
            moment,
            versions,
            buckets,
        }
    }

    /// The file's length.
    pub(crate) fn bytes(&self) -> u64 {
        self.shape.bytes()
    }

    /// Writes the file, without its SHA-256.
    ///
    /// # Errors
    /// [`WriteError`]; what was written is no file then.
    pub(crate) fn write<W: Write>(&self, out: W) -> Result<W, WriteError> {
        let mut writer = Writer::begin(&self.shape, out)?;
        for (number, bucket) in self.buckets.iter().enumerate() {
            let mut bucket_writer = writer.bucket(&self.shape, number);
            let mut item = |key: &[u8], value: &[u8]| bucket_writer.item(key, value);
            match bucket {
                Bucket::Small(items) => {
                    items.iter().try_for_each(|(key, value)| item(key, value))?
                }
                Bucket::Keys => self.write_keys(&mut item)?,
                Bucket::Ours => self.write_ours(&mut item)?,
            }
            bucket_writer.finish()?;
        }
        Ok(writer.finish(&self.shape)?)
    }

    fn write_keys(&self, item: &mut Item<'_>) -> Result<(), WriteError> {
        let mut rest = &self.versions[..];
        while !rest.is_empty() {
            let step = self.state.read(|store, values| {
                let (mut step, mut bytes) = (Vec::new(), 0);
                for kept in rest.iter().take(VALUES_STEP) {
                    let version = store.file_written_at(&kept.key, kept.revision);
                    let version = version.expect("nothing is purged meanwhile");
                    let value = rows::key_value(&kept.key, version, values)?;
                    bytes += value.len();
                    step.push(value);
                    if bytes >= STEP_BYTES {
                        break;
                    }
                }
                Ok::<_, ValueError>(step)
            })?;
            let (now, later) = rest.split_at(step.len());
            for (kept, value) in now.iter().zip(step) {
                let key = rows::revision_key(kept.revision, kept.sub, kept.is_tombstone);
                item(&key, &value)?;
            }
            rest = later;
        }
        if let Some(key) = last_revision_key(&self.moment, &self.versions) {
            item(&key, &[])?;
        }
        Ok(())
    }

    fn write_ours(&self, item: &mut Item<'_>) -> Result<(), WriteError> {
        item(rows::OURS_HEAD, &ours_head(&self.moment))?;
        let marked: Vec<&Kept> = self.versions.iter().filter(|kept| kept.is_marked).collect();
        for step in marked.chunks(STEP) {
            let marks = self.state.look(|store| {
                let mark = |kept: &&Kept| {
                    let version = store.file_written_at(&kept.key, kept.revision);
                    Marked::of(version.expect("nothing is purged meanwhile")).encode()
                };
                step.iter().map(mark).collect::<Vec<_>>()
            });
            for (kept, mark) in step.iter().zip(marks) {
                item(&rows::mark_key(kept.revision, kept.sub), &mark)?;
            }
        }
        let mut number = 0;
        state_rows(&self.state, &self.moment, &mut |row| {
            let key = rows::row_key(number);
            number += 1;
            item(&key, row)
        })?;
        Ok(())
    }
}

/// Takes a key and a value.
type Item<'a> = dyn FnMut(&[u8], &[u8]) -> io::Result<()> + 'a;

/// F1: the versions at the moment, in the order of their revisions.
fn kept(state: &impl State, moment: &Moment) -> Vec<Kept> {
    let oldest = Revision::new(u64::try_from(moment.head.compacted).unwrap_or(0));
    let bounds = (oldest, moment.head.revision);
    let mut versions: Vec<Kept> = Vec::new();
    let mut after = None;
    while state.look(|store| {
        store.kept_versions(&mut after, bounds, STEP, &mut |key, version, _| {
            let value_bytes = rows::key_value_bytes(key, version);
            versions.push(Kept {
                revision: version.revision,
                sub: version.sub,
                value_bytes: u32::try_from(value_bytes).expect("a request is below 4 GiB"),
                key: key.clone(),
                is_tombstone: version.count == 0,
                is_marked: rows::is_marked(version),
            });
        })
    }) {}
    versions.sort_unstable_by_key(|kept| (kept.revision, kept.sub));
    versions
}

/// Every bucket with its name, in order.
fn buckets_of(moment: &Moment) -> [(&'static [u8], Bucket); 11] {
    let head = &moment.head;
    let none = || Bucket::Small(Vec::new());
    let alarms = head
        .alarms
        .iter()
        .map(|(alarm, _)| (rows::alarm_key(alarm), Vec::new()));
    let leases = head.leases.iter().map(|(id, ttl_s)| {
        let row = LeaseRow {
            id: *id,
            ttl_s: *ttl_s,
            remaining_s: 0,
        };
        let row = prost::Message::encode_to_vec(&row);
        (id.to_be_bytes().to_vec(), row)
    });
    let members = head.members.iter().map(rows::member);
    [
        (rows::ALARM, Bucket::Small(sorted(alarms))),
        (rows::AUTH, none()),
        (rows::AUTH_ROLES, none()),
        (rows::AUTH_USERS, none()),
        // Without a cluster version, an etcd of any version takes it and sets its own.
        (rows::CLUSTER, none()),
        (rows::KEY, Bucket::Keys),
        (rows::LEASE, Bucket::Small(sorted(leases))),
        (rows::MEMBERS, Bucket::Small(sorted(members))),
        (rows::MEMBERS_REMOVED, none()),
        (rows::META, Bucket::Small(meta(moment))),
        (rows::OURS, Bucket::Ours),
    ]
}

fn sorted(items: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Small {
    let mut items: Small = items.collect();
    items.sort_unstable();
    items
}

fn meta(moment: &Moment) -> Small {
    let (index, term) = moment.applied;
    let mut items = vec![
        (rows::CONF_STATE, rows::conf_state(&moment.head.members)),
        (rows::CONSISTENT_INDEX, index.to_be_bytes().to_vec()),
    ];
    if let Ok(compacted) = u64::try_from(moment.head.compacted) {
        let key = rows::revision_key(Revision::new(compacted), 0, false);
        items.push((rows::FINISHED_COMPACTION, key.clone()));
        items.push((rows::SCHEDULED_COMPACTION, key));
    }
    items.push((rows::TERM, term.to_be_bytes().to_vec()));
    sorted(items.into_iter().map(|(key, value)| (key.to_vec(), value)))
}

fn ours_head(moment: &Moment) -> Vec<u8> {
    let head = OursHead {
        revision: moment.head.revision,
        time: moment.time,
    };
    head.encode()
}

/// etcd takes the revision of the last item of `key` for the latest. Where that is lower, for only v2
/// saw the last changes, a tombstone of no key stands for it.
fn last_revision_key(moment: &Moment, versions: &[Kept]) -> Option<Vec<u8>> {
    let revision = moment.head.revision;
    let last = versions
        .last()
        .map_or(Revision::FIRST, |kept| kept.revision);
    let is_told = last >= revision || moment.head.compacted >= revision.to_wire();
    (!is_told).then(|| rows::revision_key(revision, 0, true))
}

fn small_shape(items: &Small) -> Shape {
    let mut shape = Shape::default();
    for (key, value) in items {
        shape.add(key.len(), value.len());
    }
    shape
}

fn keys_shape(moment: &Moment, versions: &[Kept]) -> Shape {
    let mut shape = Shape::default();
    for kept in versions {
        let key_bytes = rows::REVISION_BYTES + usize::from(kept.is_tombstone);
        shape.add(key_bytes, kept.value_bytes as usize);
    }
    if let Some(key) = last_revision_key(moment, versions) {
        shape.add(key.len(), 0);
    }
    shape
}

fn ours_shape(state: &impl State, moment: &Moment, versions: &[Kept]) -> Shape {
    let mut shape = Shape::default();
    shape.add(rows::OURS_HEAD.len(), ours_head(moment).len());
    for _ in versions.iter().filter(|kept| kept.is_marked) {
        shape.add(rows::MARK_KEY_BYTES, rows::MARK_BYTES);
    }
    let measured = state_rows(state, moment, &mut |row| {
        shape.add(rows::ROW_KEY_BYTES, row.len());
        Ok(())
    });
    measured.expect("measuring cannot fail");
    shape
}

/// Hands out the rows of clock times and of directories: the same at each walk, whatever was written
/// in between.
fn state_rows(
    state: &impl State,
    moment: &Moment,
    out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let revision = moment.head.revision;
    // What is newer takes part in a step of directories, so a row has but one version of one.
    for (mut cursor, max, repeat) in [
        (Cursor::of_clock_times(revision), STEP, 1),
        (Cursor::of_directories(revision), 1, STEP),
    ] {
        let mut step: Vec<Vec<u8>> = Vec::new();
        let mut more = true;
        while more {
            state.look(|store| {
                for _ in 0..repeat {
                    more = store.walk(&mut cursor, max, &mut |row| step.push(row.to_vec()));
                    if !more {
                        break;
                    }
                }
            });
            step.drain(..).try_for_each(|row| out(&row))?;
        }
    }
    Ok(())
}
