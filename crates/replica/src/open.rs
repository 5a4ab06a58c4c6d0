//! From a data directory to what a replica starts from.
//!
//! Owns the order: the newest checkpoint, then the journal behind it, then what is known to be
//! committed is applied. What is logged behind that waits for the election.

use quorate_log::{
    CheckpointReader, Config, Corrupt, DirectoryId, Disk, HardState, Journal, LogError, Position,
    Recovered, newest_checkpoint,
};
use quorate_store::{Loader, Values};

use crate::Halt;
use crate::clocks::Now;
use crate::machine::Machine;
use crate::replica::{Boot, Committed};
use crate::schedule::CheckpointSchedule;

/// Entries applied at once.
const REPLAY_CHUNK: usize = 4096;

/// Why a data directory cannot be opened.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OpenError {
    /// What is on disk cannot be trusted.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What is on disk makes no member.
    #[error(transparent)]
    Halt(#[from] Halt),
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
    /// Index and term where the kept log begins.
    start: (u64, u64),
    /// Where the journal goes on from the checkpoint; `None` if there is none.
    position: Option<Position>,
}

/// How a member is started, beside what it remembers.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Its id. Alone it votes.
    pub member: u64,
    /// How many ticks without a leader make an election.
    pub election_ticks: usize,
    /// Milliseconds between ticks.
    pub tick_ms: u64,
    /// For the election timeout.
    pub seed: u64,
    /// The clocks at start.
    pub now: Now,
}

impl<D: Disk + Clone> Opened<D> {
    /// Reads the member of `directory` back. All that is returned is durable.
    ///
    /// `values` reads the journal's segments.
    ///
    /// # Errors
    /// [`OpenError`]: what is on disk cannot be trusted, or makes no member.
    pub fn read(
        disk: D,
        directory: DirectoryId,
        config: Config,
        values: &dyn Values,
    ) -> Result<Self, OpenError> {
        let newest = newest_checkpoint(&disk, directory)?;
        let head = newest.reader.as_ref().map(|reader| reader.head().clone());
        let mut machine = newest.reader.map_or(Ok(Machine::genesis()), load)?;
        let (journal, recovered) = Journal::open(disk, directory, config, head.as_ref())?;
        let start = machine.applied();
        let commit = recovered.hard.commit;
        replay(&mut machine, &recovered, commit, values)?;
        Ok(Self {
            journal,
            machine,
            recovered,
            position: head.map(|head| head.position),
            rejected: newest.rejected,
            start,
        })
    }
}

impl<D> Opened<D> {
    /// When checkpoints are to be taken: `least_growth` bytes of log apart, or more. Before
    /// [`Self::boot`].
    pub fn schedule(&self, least_growth: u64) -> CheckpointSchedule {
        // What was replayed counts: else a member that is restarted often never takes one.
        let replayed = self.recovered.entries.iter().map(|(entry, _)| entry);
        CheckpointSchedule::new(least_growth, self.start.0, self.position.clone(), replayed)
    }

    /// What [`crate::Replica::new`] starts from. Takes the recovered entries.
    pub fn boot(&mut self, settings: Settings) -> Boot {
        let genesis = HardState {
            term: 1,
            vote: 0,
            commit: 1,
        };
        let store = self.machine.store();
        Boot {
            member: settings.member,
            voters: vec![settings.member],
            election_ticks: settings.election_ticks,
            tick_ms: settings.tick_ms,
            seed: settings.seed,
            hard: if self.recovered.hard.term == 0 {
                genesis
            } else {
                self.recovered.hard
            },
            start: self.start,
            entries: std::mem::take(&mut self.recovered.entries),
            applied: self.machine.applied().0,
            time: self.machine.time(),
            now: settings.now,
            leases: store
                .leases()
                .iter()
                .map(|(id, l)| (*id, l.ttl_s))
                .collect(),
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

/// Applies what is known to be committed, and clears up what it compacted.
fn replay(
    machine: &mut Machine,
    recovered: &Recovered,
    commit: u64,
    values: &dyn Values,
) -> Result<(), Halt> {
    let entries = &recovered.entries;
    let count = entries.partition_point(|(entry, _)| entry.index <= commit);
    for chunk in entries[..count].chunks(REPLAY_CHUNK) {
        let committed = chunk.iter().map(|(entry, place)| Committed {
            index: entry.index,
            term: entry.term,
            data: entry.data.clone(),
            place: *place,
        });
        machine.apply(&committed.collect::<Vec<_>>(), values)?;
    }
    // A value is copied after its entry was applied.
    machine.replay_moved(&recovered.moved);
    while machine.purge(100_000) {}
    Ok(())
}
