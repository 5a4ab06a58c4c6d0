//! An etcd's file, read into what makes a state.
//!
//! Foreign bytes: what makes no valid state is refused, with a sentence that names the place.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;

use bytes::Bytes;
use prost::Message;
use quorate_proto::mvccpb::KeyValue;
use quorate_store::{Alarm, FileVersion, Limit, Mark, Revision, Value};

use super::rows::{self, LeaseRow, Marked, OursHead};
use crate::bolt::{Bucket, Database, ReadError};

/// Why a file makes no state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// Its pages are damaged.
    #[error("{0}")]
    Read(#[from] ReadError),
    /// Something in it is not as etcd writes it.
    #[error("bucket {bucket}: {what}")]
    Bad {
        /// Where it lies.
        bucket: &'static str,
        /// What is wrong.
        what: String,
    },
    /// Its users would be lost.
    #[error(
        "authentication is enabled in this file, and Quorate has no users yet: whoever reaches the \
         server could read and change everything. To import it all the same, say --without-auth"
    )]
    Auth,
}

fn bad(bucket: &'static str, what: impl Into<String>) -> StateError {
    let what = what.into();
    StateError::Bad { bucket, what }
}

/// All of a file but its keys and directories.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// -1 before the first compaction.
    pub(crate) compacted: i64,
    /// Lengths in seconds by id.
    pub(crate) leases: BTreeMap<i64, i64>,
    pub(crate) alarms: Vec<Alarm>,
    /// Of our own bucket, if the file has one.
    pub(super) ours: Option<OursHead>,
    marks: HashMap<(u64, u32), Marked>,
    /// What a person should know.
    pub(crate) notes: Vec<String>,
}

/// A version of a key with its value still in hand.
pub(super) struct Row {
    pub(super) key: Bytes,
    /// Without its value.
    pub(super) version: FileVersion,
    pub(super) value: Bytes,
}

impl Found {
    /// Reads all but keys and directories. `without_auth`: users may be left behind.
    pub(crate) fn read(database: &Database<File>, without_auth: bool) -> Result<Self, StateError> {
        let mut found = Self {
            compacted: -1,
            ..Self::default()
        };
        found.auth(database, without_auth)?;
        for_each(database, rows::META, |key, value| {
            if key == rows::FINISHED_COMPACTION || key == rows::SCHEDULED_COMPACTION {
                let read = rows::read_revision_key(value);
                let revision = read.and_then(|(revision, _, _)| i64::try_from(revision).ok());
                let revision = revision.ok_or_else(|| bad("meta", "a compaction's revision"))?;
                // One that was scheduled and not finished was answered all the same.
                found.compacted = found.compacted.max(revision);
            }
            Ok(())
        })?;
        for_each(database, rows::LEASE, |key, value| {
            let row = LeaseRow::decode(value).map_err(|error| bad("lease", error.to_string()))?;
            if row.id == 0 || key != row.id.to_be_bytes() {
                return Err(bad("lease", format!("the id of lease {:x}", row.id)));
            }
            found.leases.insert(row.id, row.ttl_s.max(1));
            Ok(())
        })?;
        for_each(database, rows::ALARM, |key, _| {
            let alarm = rows::read_alarm_key(key);
            found
                .alarms
                .push(alarm.ok_or_else(|| bad("alarm", "an alarm of unknown kind"))?);
            Ok(())
        })?;
        for_each(database, rows::OURS, |key, value| {
            found.our_item(key, value)
        })?;
        Ok(found)
    }

    fn auth(&mut self, database: &Database<File>, without_auth: bool) -> Result<(), StateError> {
        let mut is_enabled = false;
        for_each(database, rows::AUTH, |key, value| {
            is_enabled |= key == rows::AUTH_ENABLED && value == [1];
            Ok(())
        })?;
        let (mut users, mut roles) = (0, 0);
        for_each(database, rows::AUTH_USERS, |_, _| {
            users += 1;
            Ok(())
        })?;
        for_each(database, rows::AUTH_ROLES, |_, _| {
            roles += 1;
            Ok(())
        })?;
        if is_enabled && !without_auth {
            return Err(StateError::Auth);
        }
        if is_enabled || users + roles > 0 {
            self.notes.push(format!(
                "left out: {users} users and {roles} roles, for Quorate has none yet; \
                 authentication was {}",
                if is_enabled { "enabled" } else { "disabled" }
            ));
        }
        Ok(())
    }

    fn our_item(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        let bad = |error: quorate_store::codec::DecodeError| bad("quorate", error.to_string());
        if key == rows::OURS_HEAD {
            self.ours = Some(OursHead::decode(value).map_err(bad)?);
        } else if let Some(version) = rows::read_mark_key(key) {
            self.marks
                .insert(version, Marked::decode(value).map_err(bad)?);
        }
        Ok(())
    }

    /// Hands out every version of every key, in the order of revisions. Returns the last revision.
    pub(super) fn versions(
        &mut self,
        database: &Database<File>,
        out: &mut dyn FnMut(Row) -> Result<(), ImportStop>,
    ) -> Result<u64, ImportStop> {
        let mut last = (0, 0);
        let Some(bucket) = database.bucket(rows::KEY).map_err(StateError::Read)? else {
            return Err(bad("key", "there is none: this is no file of an etcd 3").into());
        };
        let mut items = database.items(&bucket).map_err(StateError::Read)?;
        while let Some(item) = items.next().map_err(StateError::Read)? {
            let (revision, sub, is_tombstone) = rows::read_revision_key(item.key)
                .filter(|(revision, ..)| *revision < i64::MAX as u64)
                .ok_or_else(|| bad("key", format!("a key that is no revision: {:?}", item.key)))?;
            let wrong = |what: &str| bad("key", format!("revision {revision}.{sub}: {what}"));
            if (revision, sub) <= last {
                return Err(wrong("it stands twice").into());
            }
            last = (revision, sub);
            let sub = u32::try_from(sub).map_err(|_| wrong("too many changes"))?;
            let message = KeyValue::decode(item.value).map_err(|e| wrong(&e.to_string()))?;
            // No key: it only moves the revision, as `--bump-revision` does.
            if !message.key.is_empty() {
                let row = self.row((revision, sub), is_tombstone, message);
                out(row.map_err(wrong)?)?;
            }
        }
        Ok(last.0)
    }

    fn row(
        &mut self,
        (revision, sub): (u64, u32),
        is_tombstone: bool,
        message: KeyValue,
    ) -> Result<Row, &'static str> {
        let number = |number: i64| u64::try_from(number).map_err(|_| "a number below zero");
        let (create, modified) = (
            number(message.create_revision)?,
            number(message.mod_revision)?,
        );
        let count = number(message.version)?;
        if !is_tombstone && (create == 0 || create > revision || modified != revision) {
            return Err("the key's revisions do not fit");
        }
        if !is_tombstone && (count == 0 || count > revision) {
            return Err("the key's version does not fit");
        }
        let count = if is_tombstone { 0 } else { count };
        let lease = match message.lease {
            _ if is_tombstone => Limit::NONE,
            id => Limit::from_lease(id),
        };
        let (mark, limit) = match self.marks.remove(&(revision, sub)) {
            None => (rows::plain_mark(count), lease),
            Some(Marked { mark, deadline }) if deadline.is_some() => {
                (mark, Limit::from_deadline(deadline))
            }
            Some(marked) => (marked.mark, lease),
        };
        Ok(Row {
            key: message.key,
            version: version((revision, sub), (create, count), mark, limit),
            value: if is_tombstone {
                Bytes::new()
            } else {
                message.value
            },
        })
    }

    /// Hands out the rows of clock times and directories, as a checkpoint holds them.
    pub(super) fn state_rows(
        &self,
        database: &Database<File>,
        out: &mut dyn FnMut(&[u8]) -> Result<(), ImportStop>,
    ) -> Result<(), ImportStop> {
        let Some(bucket) = database.bucket(rows::OURS).map_err(StateError::Read)? else {
            return Ok(());
        };
        let mut items = database.items(&bucket).map_err(StateError::Read)?;
        while let Some(item) = items.next().map_err(StateError::Read)? {
            if rows::is_row_key(item.key) {
                out(item.value)?;
            }
        }
        Ok(())
    }

    /// Names the buckets that nobody here knows.
    pub(crate) fn note_unknown(&mut self, database: &Database<File>) -> Result<(), StateError> {
        let mut unknown = BTreeSet::new();
        let mut roots = database.items(&database.root())?;
        while let Some(root) = roots.next()? {
            if !rows::KNOWN.contains(&root.key) {
                unknown.insert(String::from_utf8_lossy(root.key).into_owned());
            }
        }
        for name in unknown {
            self.notes
                .push(format!("left out: bucket {name:?}, which is unknown here"));
        }
        Ok(())
    }
}

fn version(
    (revision, sub): (u64, u32),
    (create, count): (u64, u64),
    mark: Mark,
    limit: Limit,
) -> FileVersion {
    FileVersion {
        revision: Revision::new(revision),
        // A tombstone's is that of the life it ends: whoever has that life knows.
        create: Revision::new(if count == 0 { revision } else { create }),
        count,
        sub,
        mark,
        value: Value::empty(),
        limit,
    }
}

/// Hands out the items of a bucket, if it is there.
fn for_each(
    database: &Database<File>,
    name: &[u8],
    mut out: impl FnMut(&[u8], &[u8]) -> Result<(), StateError>,
) -> Result<(), StateError> {
    let bucket: Option<Bucket> = database.bucket(name)?;
    let Some(bucket) = bucket else {
        return Ok(());
    };
    let mut items = database.items(&bucket)?;
    while let Some(item) = items.next()? {
        out(item.key, item.value)?;
    }
    Ok(())
}

/// What ends an import: the file, or the directory that is made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportStop {
    /// The file.
    #[error("{0}")]
    State(#[from] StateError),
    /// The directory.
    #[error("{0}")]
    Log(#[from] quorate_log::LogError),
}

/// Reads all of a file, and keeps none of it.
#[cfg(fuzzing)]
pub(crate) fn fuzz(file: File) {
    let Ok(database) = Database::open(file) else {
        return;
    };
    let Ok(mut found) = Found::read(&database, true) else {
        return;
    };
    let _ = found.note_unknown(&database);
    let _ = found.versions(&database, &mut |_| Ok(()));
    let mut loader = quorate_store::Loader::default();
    let _ = found.state_rows(&database, &mut |row| {
        let _ = loader.row(Bytes::copy_from_slice(row));
        Ok(())
    });
}
