//! A data directory from an etcd's file.
//!
//! Values go into the journal as moved ones, all else into a checkpoint that names their places. The
//! directory is made beside its place and renamed when a start has been tried on it, so there is never
//! half of one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorate_log::{
    CheckpointWriter, Config as JournalConfig, Entry, EntryAt, EntryKind, HardState, Identity,
    Journal, LogError, Moved,
};
use quorate_replica::{Machine, Opened};
use quorate_store::{
    AlarmBy, FileVersion, Head, Key, Limit, Member, Revision, Short, Value, ValueAt, file_row,
};

use super::read::{Found, ImportStop, Row, StateError};
use crate::bolt::Database;
use crate::bootstrap::{self, BootError};
use crate::config::Config;
use crate::disk::{FsDisk, Segments};

/// Index and term at which an imported log begins. The index is one that no fresh member replays from,
/// so that a directory which has lost its checkpoint is told from an empty one.
const BEGINNING: (u64, u64) = (1_000, 1);
/// Bytes of values gathered before they go to the journal.
const GATHERED_BYTES: usize = 4 << 20;
/// Versions in one row of a checkpoint.
const ROW_VERSIONS: usize = 256;

/// How an import is done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Leave users behind even if they were asked for passwords.
    pub(crate) without_auth: bool,
    /// Added to the last revision.
    pub(crate) bump_revision: u64,
    /// Make the last revision that of a compaction.
    pub(crate) mark_compacted: bool,
}

/// What was imported.
#[derive(Clone, Debug)]
pub(crate) struct Imported {
    /// Keys, those that are only in history among them.
    pub(crate) keys: usize,
    /// Their versions.
    pub(crate) versions: usize,
    pub(crate) leases: usize,
    pub(crate) revision: u64,
    pub(crate) compacted: i64,
    /// What a person should know.
    pub(crate) notes: Vec<String>,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// The directory is not to be had.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is something already.
    #[error("data-dir {:?} exists", .0.display().to_string())]
    Exists(PathBuf),
    /// The file makes no state, or the disk takes none.
    #[error("{0}")]
    Stop(#[from] ImportStop),
    /// The settings make no cluster.
    #[error("{0}")]
    Boot(#[from] BootError),
    /// A revision that cannot be.
    #[error("--bump-revision={0} leads beyond the last revision that there can be")]
    Revision(u64),
    /// What was written does not open.
    #[error("the directory that was made does not open: {0}")]
    Open(#[from] quorate_replica::OpenError),
}

impl From<LogError> for ImportError {
    fn from(error: LogError) -> Self {
        Self::Stop(error.into())
    }
}

impl From<StateError> for ImportError {
    fn from(error: StateError) -> Self {
        Self::Stop(error.into())
    }
}

/// Makes `config`'s data directory from `database`.
///
/// # Errors
/// [`ImportError`]; there is no directory then.
pub(crate) fn import(
    database: &Database<File>,
    config: &Config,
    options: Options,
) -> Result<Imported, ImportError> {
    let wanted = &config.data_dir;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| ImportError::Io { path, error }
    };
    match std::fs::read_dir(wanted).map(|mut entries| entries.next().is_some()) {
        Ok(false) => {}
        Ok(true) => return Err(ImportError::Exists(wanted.clone())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(wanted)(error)),
    }
    let found = Found::read(database, options.without_auth)?;

    let mut making = wanted.clone().into_os_string();
    making.push(".importing");
    let making = PathBuf::from(making);
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o700);
    builder.create(&making).map_err(failed(&making))?;
    let made = make(database, config, options, found, &making).and_then(|imported| {
        std::fs::rename(&making, wanted).map_err(failed(wanted))?;
        let parent = wanted
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let synced = File::open(parent).and_then(|parent| parent.sync_all());
        synced.map_err(failed(parent))?;
        Ok(imported)
    });
    if made.is_err() {
        // What cannot be removed is for the operator, who hears of the first trouble.
        let _ = std::fs::remove_dir_all(&making);
    }
    made
}

fn make(
    database: &Database<File>,
    config: &Config,
    options: Options,
    mut found: Found,
    making: &Path,
) -> Result<Imported, ImportError> {
    found.note_unknown(database)?;
    let disk = FsDisk::open(making).map_err(LogError::from)?;
    let random = crate::node::random().map_err(|error| ImportError::Io {
        path: "/dev/urandom".into(),
        error,
    })?;
    let plan = bootstrap::plan_alone(config)?;
    let (cluster, member) = (plan.cluster_id, plan.member_id);
    let journal_config = JournalConfig::default();
    let identity = Identity::create(&disk, journal_config, random, cluster, member)?;
    let (journal, _) = Journal::open(disk.clone(), identity.directory, journal_config, None)?;

    let mut keys = Keys::new(journal);
    let last = found.versions(database, &mut |row| Ok(keys.take(row)?))?;
    keys.flush()?;
    let head = head(
        &mut found,
        &mut keys,
        last,
        options,
        plan.first_members().collect(),
    )?;
    let mut imported = Imported {
        keys: keys.chains.len(),
        versions: keys.chains.values().map(Vec::len).sum(),
        leases: head.leases.len(),
        revision: head.revision.get(),
        compacted: head.compacted,
        notes: Vec::new(),
    };
    write(database, &disk, &identity, &found, &head, keys)?;
    imported.notes = found.notes;

    let segments = Segments::open(&disk, 0).map_err(LogError::from)?;
    let values = segments.reader();
    let opened = Opened::read(
        disk,
        identity.directory,
        journal_config,
        &values,
        &mut |_| {},
    )?;
    let revision = opened.machine.store().revision();
    assert_eq!(revision, head.revision, "what was written is what is read");
    Ok(imported)
}

/// What stands before the keys; their leases are settled here.
fn head(
    found: &mut Found,
    keys: &mut Keys,
    last: u64,
    options: Options,
    members: Vec<Member>,
) -> Result<Head, ImportError> {
    let ours = found.ours.map_or(0, |ours| ours.revision.get());
    let compacted = u64::try_from(found.compacted).unwrap_or(0);
    let revision = last.max(ours).max(compacted).max(Revision::FIRST.get());
    let bumped = revision.checked_add(options.bump_revision);
    let bumped = bumped.filter(|revision| *revision < i64::MAX as u64);
    let revision = bumped.ok_or(ImportError::Revision(options.bump_revision))?;
    let revision = Revision::new(revision);
    let freed = keys.free_of_leases(|id| !found.leases.contains_key(&id));
    if freed > 0 {
        let note = format!("{freed} keys name leases that are not there: they have none now");
        found.notes.push(note);
    }
    let compacted = if options.mark_compacted {
        revision.to_wire()
    } else {
        found.compacted
    };
    Ok(Head {
        revision,
        compacted,
        leases: found
            .leases
            .iter()
            .map(|(id, ttl_s)| (*id, *ttl_s))
            .collect(),
        members,
        removed: Vec::new(),
        // A client's to clear, for the members that they are about are gone.
        alarms: found
            .alarms
            .iter()
            .map(|alarm| (*alarm, AlarmBy::Client))
            .collect(),
    })
}

/// Ends the journal and writes the checkpoint.
fn write(
    database: &Database<File>,
    disk: &FsDisk,
    identity: &Identity,
    found: &Found,
    head: &Head,
    mut keys: Keys,
) -> Result<(), ImportError> {
    let (index, term) = BEGINNING;
    let entry = Entry {
        index,
        term,
        kind: EntryKind::Normal,
        data: Bytes::new(),
    };
    let hard = HardState {
        term,
        vote: 0,
        commit: index,
    };
    keys.journal
        .append(Some(hard), &[entry], index, &mut Vec::new())?;
    keys.journal.idle_mark()?;
    let position = keys.journal.position_for(index);
    let time = found.ours.map(|ours| ours.time).unwrap_or_default();
    let meta = Machine::meta(time);
    let (disk, directory) = (disk.clone(), identity.directory);
    let mut writer = CheckpointWriter::begin(disk, directory, index, term, &position, &meta)?;
    let mut rows = Vec::new();
    head.rows(&mut |row| rows.push(row.to_vec()));
    rows.iter().try_for_each(|row| writer.row(row))?;
    let mut row = Vec::new();
    for (key, chain) in &keys.chains {
        for versions in chain.chunks(ROW_VERSIONS) {
            let versions: Vec<&FileVersion> = versions.iter().collect();
            file_row(key, &versions, &mut row);
            writer.row(&row)?;
        }
    }
    found.state_rows(database, &mut |row| Ok(writer.row(row)?))?;
    Ok(writer.finish()?)
}

/// The versions of all keys: their values on disk, all else in memory, as a member holds it.
struct Keys {
    journal: Journal<FsDisk>,
    chains: BTreeMap<Key, Vec<FileVersion>>,
    /// Rows whose values are not in the journal yet, and the bytes of those.
    gathered: Vec<Row>,
    gathered_bytes: usize,
}

impl Keys {
    fn new(journal: Journal<FsDisk>) -> Self {
        Self {
            journal,
            chains: BTreeMap::new(),
            gathered: Vec::new(),
            gathered_bytes: 0,
        }
    }

    fn take(&mut self, row: Row) -> Result<(), LogError> {
        let limit = self.journal.config().longest_entry();
        if row.value.len() + row.key.len() + GATHERED_HEAD > limit {
            let (bytes, limit) = (row.value.len() as u64, limit as u64);
            return Err(LogError::TooLarge { bytes, limit });
        }
        self.gathered_bytes += row.key.len() + row.value.len();
        self.gathered.push(row);
        if self.gathered_bytes >= GATHERED_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes the values that were gathered, and lines their versions up.
    fn flush(&mut self) -> Result<(), LogError> {
        let rows = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        let large = rows.iter().filter(|row| Short::new(&row.value).is_none());
        let moved: Vec<Moved> = large
            .map(|row| Moved {
                key: row.key.clone(),
                revision: row.version.revision.get(),
                data: row.value.clone(),
            })
            .collect();
        let mut places = Vec::with_capacity(moved.len());
        self.journal.append_moved(&moved, &mut places)?;
        let mut places = places.into_iter();
        for row in rows {
            let value = match Short::new(&row.value) {
                Some(short) => Value::Inline(short),
                None => logged(places.next().expect("one for each value"), &row.value),
            };
            self.line_up(
                &row.key,
                FileVersion {
                    value,
                    ..row.version
                },
            );
        }
        Ok(())
    }

    fn line_up(&mut self, key: &[u8], mut version: FileVersion) {
        let chain = self.chains.entry(Key::from(key)).or_default();
        if let Some(last) = chain.last().filter(|last| last.count > 0)
            && version.count == 0
        {
            version.create = last.create;
        }
        // Very old etcds could write a key twice in one txn; the last counts.
        chain.pop_if(|last| last.revision == version.revision);
        chain.push(version);
    }

    /// Takes the leases from living keys whose lease is gone. Returns from how many.
    fn free_of_leases(&mut self, is_gone: impl Fn(i64) -> bool) -> usize {
        let mut freed = 0;
        for chain in self.chains.values_mut() {
            if let Some(last) = chain.last_mut()
                && last.limit.lease() != 0
                && is_gone(last.limit.lease())
            {
                last.limit = Limit::NONE;
                freed += 1;
            }
        }
        freed
    }
}

/// A value in the journal.
fn logged(at: EntryAt, value: &[u8]) -> Value {
    Value::Logged(ValueAt {
        segment: at.segment,
        offset: at.offset,
        len: u32::try_from(value.len()).expect("it fits a segment"),
        crc: crc_fast::crc32_iscsi(value),
    })
}

/// More than a record takes beside key and value.
const GATHERED_HEAD: usize = 64;
