//! From a data directory to what a replica starts from.
//!
//! Owns the order: the newest checkpoint, then the journal behind it, then what is known to be
//! committed is applied. What is logged behind that waits for the election.

use std::collections::VecDeque;

use quorate_log::{
    CheckpointReader, CheckpointWriter, Config, Corrupt, DirectoryId, Disk, Entry, EntryAt,
    HardState, Journal, LogError, Position, Recovered, newest_checkpoint,
};
use quorate_store::{Body, Command, Loader, Member, Values};

use crate::Halt;
use crate::clocks::Now;
use crate::machine::Machine;
use crate::replica::{Boot, Committed};
use crate::schedule::{CheckpointSchedule, log_bytes};
use crate::tail::KEPT_BYTES;

/// Why a data directory cannot be opened.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OpenError {
    /// What is on disk cannot be trusted.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What is on disk makes no member.
    #[error(transparent)]
    Halt(#[from] Halt),
    /// Entries are missing between the state and the log.
    #[error(
        "the log goes on at entry {first}, but no checkpoint that verifies leads up to it{why}: \
         restore this member from a backup"
    )]
    Gap {
        /// The first entry in the log behind the state.
        first: u64,
        /// What is wrong with the newest checkpoint, if there is one.
        why: String,
    },
}

/// A member's durable state, read back.
#[derive(Debug)]
pub struct Opened<D> {
    /// Goes on where the last batch ended.
    pub journal: Journal<D>,
    /// Holds everything that is known to be committed.
    pub machine: Machine,
    /// What the journal says behind the checkpoint.
    pub recovered: Recovered,
    /// Newer checkpoints that do not verify. Tell the operator.
    pub rejected: Vec<Corrupt>,
    /// The last entries that are applied: other members may need them.
    recent: Recent,
    /// The index of the checkpoint.
    checkpoint: u64,
    /// What the log has grown by since, in bytes.
    replayed_bytes: u64,
    /// Where the journal goes on from the checkpoint; `None` if there is none.
    position: Option<Position>,
}

/// How a member is started, beside what it remembers.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Its id.
    pub member: u64,
    /// Counts its starts.
    pub incarnation: u64,
    /// Whether changes that could cost the quorum are refused.
    pub strict_reconfig: bool,
    /// How many ticks without a leader make an election.
    pub election_ticks: usize,
    /// Milliseconds between ticks.
    pub tick_ms: u64,
    /// For the election timeout.
    pub seed: u64,
    /// The clocks at start.
    pub now: Now,
}

/// Whether a directory never held a state, not even one that rotted.
///
/// # Errors
/// Those of the disk.
pub fn has_no_state<D: Disk>(disk: &D) -> Result<bool, LogError> {
    let names = disk.list()?;
    Ok(!names.iter().any(|name| name.contains(".checkpoint")))
}

/// Writes the state of a fresh cluster, as if a snapshot had been taken at its first entry. All first
/// members write the same; one that joins later is sent the state instead.
///
/// # Errors
/// Those of the disk.
pub fn write_genesis<D: Disk>(
    disk: D,
    directory: DirectoryId,
    members: impl IntoIterator<Item = Member>,
) -> Result<(), LogError> {
    let machine = Machine::genesis(members);
    let (index, term) = machine.applied();
    let hard = HardState {
        term,
        vote: 0,
        commit: index,
    };
    let (position, meta) = (Position::behind(index, hard), Machine::meta(machine.time()));
    let mut writer = CheckpointWriter::begin(disk, directory, index, term, &position, &meta)?;
    let mut written = Ok(());
    let mut cursor = machine.store().begin_walk();
    let mut row = |row: &[u8]| {
        if written.is_ok() {
            written = writer.row(row);
        }
    };
    while machine.store().walk(&mut cursor, usize::MAX, &mut row) {}
    written?;
    writer.finish()
}

/// The newest entries that are applied, up to what a replica keeps in memory.
#[derive(Debug)]
struct Recent {
    /// Index and term of what stands before the first.
    start: (u64, u64),
    entries: VecDeque<(Entry, EntryAt)>,
    bytes: usize,
}

impl Recent {
    fn behind(start: (u64, u64)) -> Self {
        Self {
            start,
            entries: VecDeque::new(),
            bytes: 0,
        }
    }

    /// None are kept for a member alone.
    fn extend(&mut self, entries: Vec<(Entry, EntryAt)>, has_others: bool) {
        let most = if has_others { KEPT_BYTES } else { 0 };
        for (entry, at) in entries {
            self.bytes += entry.data.len();
            self.entries.push_back((entry, at));
            while self.bytes > most || most == 0 {
                let Some((gone, _)) = self.entries.pop_front() else {
                    break;
                };
                self.bytes -= gone.data.len();
                self.start = (gone.index, gone.term);
            }
        }
    }
}

impl<D: Disk + Clone> Opened<D> {
    /// Reads the member of `directory` back. All that is returned is durable.
    ///
    /// `values` reads the journal's segments; `seen` is told each entry that was applied.
    ///
    /// # Errors
    /// [`OpenError`]: what is on disk cannot be trusted, or makes no member.
    pub fn read(
        disk: D,
        directory: DirectoryId,
        config: Config,
        values: &dyn Values,
        seen: &mut dyn FnMut(&[Committed]),
    ) -> Result<Self, OpenError> {
        let newest = newest_checkpoint(&disk, directory)?;
        let head = newest.reader.as_ref().map(|reader| reader.head().clone());
        // Without a checkpoint it is nobody's member yet: the first state comes from the others.
        let mut machine = newest.reader.map_or(Ok(Machine::default()), load)?;
        let checkpoint = machine.applied().0;
        let mut recent = Recent::behind(machine.applied());
        let mut replayed_bytes = 0;
        let mut applied = Ok(());
        let rejected = &newest.rejected;
        let mut take = |entries: Vec<(Entry, EntryAt)>| {
            replayed_bytes += entries
                .iter()
                .map(|(entry, _)| log_bytes(entry))
                .sum::<u64>();
            if applied.is_ok() {
                applied = follows(&machine, &entries, rejected)
                    .and_then(|()| Ok(apply(&mut machine, &entries, values, seen)?));
                recent.extend(entries, machine.store().members().len() > 1);
            }
        };
        let opened = Journal::open_with(disk, directory, config, head.as_ref(), &mut take);
        let (journal, mut recovered) = opened?;
        // What is known to be committed, and is not yet said to be by a later batch.
        let commit = recovered.hard.commit;
        let count = recovered
            .entries
            .partition_point(|(entry, _)| entry.index <= commit);
        take(recovered.entries.drain(..count).collect());
        applied?;
        follows(&machine, &recovered.entries, rejected)?;
        // A value is copied after its entry was applied.
        machine.replay_moved(&recovered.moved);
        while machine.purge(100_000) {}
        let behind = recovered.entries.iter().map(|(entry, _)| log_bytes(entry));
        Ok(Self {
            replayed_bytes: replayed_bytes + behind.sum::<u64>(),
            recent,
            journal,
            machine,
            recovered,
            position: head.map(|head| head.position),
            rejected: newest.rejected,
            checkpoint,
        })
    }
}

impl<D> Opened<D> {
    /// When checkpoints are to be taken: `least_growth` bytes of log apart, or more. Before
    /// [`Self::boot`].
    pub fn schedule(&self, least_growth: u64) -> CheckpointSchedule {
        // What was replayed counts: else a member that is restarted often never takes one.
        let (newest, replayed) = (self.checkpoint, self.replayed_bytes);
        CheckpointSchedule::new(least_growth, newest, self.position.clone(), replayed)
    }

    /// The same for a member that is to go on alone, whatever its state says. What is not known to be
    /// committed may have been, and is kept, up to a change of the members: that could bring the others
    /// back. [`MemberChange::Alone`] must be the first thing that it proposes.
    ///
    /// [`MemberChange::Alone`]: quorate_store::MemberChange::Alone
    pub fn boot_alone(&mut self, settings: Settings) -> Boot {
        let is_kept = |(entry, _): &(Entry, EntryAt)| {
            let command = Command::decode(&entry.data);
            !command.is_ok_and(|command| matches!(command.body, Body::Member { .. }))
        };
        let entries = &mut self.recovered.entries;
        let kept = entries.iter().take_while(|entry| is_kept(entry)).count();
        entries.truncate(kept);
        let mut boot = self.boot(settings);
        (boot.voters, boot.learners) = (vec![settings.member], Vec::new());
        boot
    }

    /// What [`crate::Replica::new`] starts from. Takes the recovered entries.
    pub fn boot(&mut self, settings: Settings) -> Boot {
        let mut boot = Boot::behind(&self.machine, self.recovered.hard, settings);
        let mut entries = std::mem::take(&mut self.recent.entries);
        entries.extend(std::mem::take(&mut self.recovered.entries));
        (boot.start, boot.entries) = (self.recent.start, entries.into());
        boot
    }
}

impl Boot {
    /// Behind a state, with no entries: as a member starts that has just received it.
    pub fn behind(machine: &Machine, mut hard: HardState, settings: Settings) -> Self {
        let (applied, term) = machine.applied();
        if hard.term < term {
            hard = HardState {
                term,
                vote: 0,
                commit: applied,
            };
        }
        // A state that was received is ahead of the log.
        hard.commit = hard.commit.max(applied);
        let store = machine.store();
        let leases = store.leases().iter();
        Self {
            member: settings.member,
            incarnation: settings.incarnation,
            voters: store.voters().collect(),
            learners: store.learners().collect(),
            seats: machine.seats(),
            strict_reconfig: settings.strict_reconfig,
            election_ticks: settings.election_ticks,
            tick_ms: settings.tick_ms,
            seed: settings.seed,
            hard,
            start: (applied, term),
            entries: Vec::new(),
            applied,
            time: machine.time(),
            now: settings.now,
            leases: leases.map(|(id, lease)| (*id, lease.ttl_s)).collect(),
            next_deadline: store.next_deadline(),
        }
    }
}

fn load<D: Disk>(mut reader: CheckpointReader<D>) -> Result<Machine, OpenError> {
    let head = reader.head().clone();
    let mut loader = Loader::default();
    while let Some(row) = reader.row()? {
        loader.row(row).map_err(Halt::State)?;
    }
    Ok(Machine::load((head.index, head.term), &head.meta, loader)?)
}

/// Refuses entries that do not begin where the state ends: an imported log begins late, and without
/// its checkpoint it is not an empty one.
fn follows(
    machine: &Machine,
    entries: &[(Entry, EntryAt)],
    rejected: &[Corrupt],
) -> Result<(), OpenError> {
    let first = entries.first().map(|(entry, _)| entry.index);
    let Some(first) = first.filter(|first| *first > machine.applied().0 + 1) else {
        return Ok(());
    };
    let why = rejected.first();
    let why = why.map_or(String::new(), |corrupt| format!(" ({corrupt})"));
    Err(OpenError::Gap { first, why })
}

fn apply(
    machine: &mut Machine,
    entries: &[(Entry, EntryAt)],
    values: &dyn Values,
    seen: &mut dyn FnMut(&[Committed]),
) -> Result<(), Halt> {
    let committed = entries.iter().map(|(entry, place)| Committed {
        index: entry.index,
        term: entry.term,
        data: entry.data.clone(),
        place: *place,
    });
    let committed: Vec<Committed> = committed.collect();
    machine.apply(&committed, values)?;
    seen(&committed);
    Ok(())
}
