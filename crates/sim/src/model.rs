//! What the commands of a log mean, told a second time and naively.
//!
//! Keeps every version of everything in plain lists and finds by looking through them. Knows v3's
//! keys, leases and compaction, and of v2's tree what scripts use: directories and files have
//! names apart, and nothing is hidden (`workload`).
//!
//! Shares no code with the store but the types of commands. Also keeps, for each limit, the true
//! time before which it must not end (P5).

mod apply;

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_store::{Action, Alarm, AlarmBy, Command};

use apply::Apply;

/// A key or path.
pub(crate) type Name = Vec<u8>;

/// A file as it stands after a write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct File {
    pub(crate) value: Bytes,
    pub(crate) create: u64,
    pub(crate) modified: u64,
    pub(crate) version: u64,
    pub(crate) lease: i64,
    pub(crate) due: Option<Due>,
}

/// A directory entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Dir {
    pub(crate) created: u64,
    pub(crate) modified: u64,
    pub(crate) due: Option<Due>,
}

/// When a v2 node ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Due {
    /// By cluster time, in milliseconds.
    pub(crate) at: u64,
    /// The wall time shown.
    pub(crate) shown: u64,
    /// By true time: when the request was made, plus its ttl.
    pub(crate) not_before: u64,
}

/// A lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Lease {
    pub(crate) ttl_s: i64,
    /// True time, in milliseconds, from which its time runs.
    pub(crate) since: u64,
}

/// What v2 is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct TreeEvent {
    pub(crate) revision: u64,
    pub(crate) action: Action,
    pub(crate) path: Name,
    pub(crate) value: Option<Bytes>,
    /// The wall clock of the request, in milliseconds.
    pub(crate) wall: u64,
}

/// What a client is answered, as far as it does not show in the state.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Answer {
    /// The files that were there before and are replaced or gone, in order.
    pub(crate) prev: Vec<(Name, File)>,
    /// The comparisons of a txn held.
    pub(crate) succeeded: bool,
    /// What v2 is told, be it by a refresh that watchers are not told.
    pub(crate) event: Option<(Action, Name)>,
}

/// True times that belong to a command, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// When the request was made.
    pub(crate) asked: u64,
    /// Now, that it is applied.
    pub(crate) now: u64,
    /// By how much clocks may differ that all count the same time.
    pub(crate) skew: u64,
}

/// All that ever happened.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) revision: u64,
    pub(crate) compacted: i64,
    pub(crate) leases: BTreeMap<i64, Lease>,
    pub(crate) alarms: BTreeMap<Alarm, AlarmBy>,
    /// What stands now.
    pub(crate) files: BTreeMap<Name, File>,
    pub(crate) dirs: BTreeMap<Name, Dir>,
    /// Every change there ever was: revision, name, what stood there then.
    pub(crate) file_log: Vec<(u64, Name, Option<File>)>,
    pub(crate) dir_log: Vec<(u64, Name, Option<Dir>)>,
    pub(crate) tree_log: Vec<TreeEvent>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            revision: 1,
            compacted: -1,
            leases: BTreeMap::new(),
            alarms: BTreeMap::new(),
            files: BTreeMap::new(),
            dirs: BTreeMap::new(),
            file_log: Vec::new(),
            dir_log: Vec::new(),
            tree_log: Vec::new(),
        }
    }
}

impl Model {
    /// Applies a command; its answer, unless it was refused.
    pub(crate) fn apply(&mut self, command: &Command, moment: Moment) -> Option<Answer> {
        let before = (self.file_log.len(), self.dir_log.len());
        let mut apply = Apply {
            revision: self.revision + 1,
            command,
            moment,
            answer: Answer::default(),
            model: self,
        };
        let done = apply.body(&command.body).is_ok();
        let answer = apply.answer;
        if (self.file_log.len(), self.dir_log.len()) != before {
            assert!(done, "the model writes nothing when it refuses");
            let files = self.file_log[before.0..].iter().map(|change| change.0);
            let dirs = self.dir_log[before.1..].iter().map(|change| change.0);
            self.revision = files.chain(dirs).max().expect("something changed");
        }
        done.then_some(answer)
    }

    /// The oldest revision that can be read.
    pub(crate) fn oldest(&self) -> u64 {
        u64::try_from(self.compacted).unwrap_or(0)
    }

    /// What stood at `revision`.
    pub(crate) fn files_at(&self, revision: u64) -> BTreeMap<&[u8], &File> {
        stood_at(&self.file_log, revision)
    }

    /// The directory entries at `revision`.
    pub(crate) fn dirs_at(&self, revision: u64) -> BTreeMap<&[u8], &Dir> {
        stood_at(&self.dir_log, revision)
    }

    /// Whether v2 found something at a path at `revision`.
    pub(crate) fn stood(&self, path: &[u8], revision: u64) -> bool {
        let files = self.files_at(revision);
        let at_or_below = |key: &&[u8]| *key == path || is_below(key, path);
        self.dirs_at(revision).contains_key(path) || files.into_keys().any(|key| at_or_below(&key))
    }

    /// v2 deadlines, in the order in which they end: directories before files.
    pub(crate) fn dues(&self) -> BTreeMap<(u64, &[u8], bool), Due> {
        let dirs = self
            .dirs
            .iter()
            .filter_map(|(path, dir)| Some((path, false, dir.due?)));
        let files = self
            .files
            .iter()
            .filter_map(|(path, file)| Some((path, true, file.due?)));
        dirs.chain(files)
            .map(|(path, is_file, due)| ((due.at, &path[..], is_file), due))
            .collect()
    }

    /// A directory as v2 shows it, be it implied by what is below: (created, modified).
    pub(crate) fn dir_image(&self, path: &[u8]) -> Option<(u64, u64)> {
        let entry = self.dirs.get(path).map(|dir| (dir.created, dir.modified));
        entry.or_else(|| {
            let (_, first) = self.files.iter().find(|(key, _)| is_below(key, path))?;
            Some((first.create, first.create))
        })
    }
}

/// Folds a list of changes up to a revision.
fn stood_at<T>(log: &[(u64, Name, Option<T>)], revision: u64) -> BTreeMap<&[u8], &T> {
    let mut stood = BTreeMap::new();
    for (_, name, value) in log.iter().filter(|(at, ..)| *at <= revision) {
        match value {
            Some(value) => stood.insert(&name[..], value),
            None => stood.remove(&name[..]),
        };
    }
    stood
}

pub(crate) fn is_below(key: &[u8], path: &[u8]) -> bool {
    key.strip_prefix(path)
        .is_some_and(|rest| rest.first() == Some(&b'/'))
}
