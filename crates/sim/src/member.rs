//! One member as the server wires it, on one thread: production replica, machine, store, journal
//! and checkpoints over a simulated disk.
//!
//! Owns the order of calls, as `server::node::driver` does; never decides when one is made.
//!
//! D1. Effects are performed in the order in which the replica gave them.

mod transfer;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quorate_log::{
    Config, Disk, Entry, EntryAt, EntryKind, Identity, LogError, Reserve, segment_name,
};
use quorate_replica::{
    Committed, Effect, Halt, Input, LeaseAnswer, Machine, Now, OpenError, Opened, ReadId, Replica,
    Settings, Status, has_no_state, write_genesis,
};
use quorate_store::command::{Draft, RequestId};
use quorate_store::{Member, Outcome, Revision, ValueAt, ValueError, Values};

use quorate_replica::transfer::Sending;

use crate::checkpoints::Checkpoints;
use crate::disk::SimDisk;
use crate::disk_thread::{DiskThread, Persist};
use crate::plan::{Fault, Plan};
use crate::reclaims::Reclaims;
use crate::transfers::Incoming;

/// Milliseconds between ticks.
pub(crate) const TICK_MS: u64 = 100;
const ELECTION_TICKS: usize = 10;
/// The id of a member that is alone.
pub(crate) const ALONE: u64 = 7;
const CLUSTER: u64 = 9;

/// Values read from the segments of a simulated disk.
#[derive(Clone, Debug)]
pub(crate) struct SimValues(pub(crate) SimDisk);

impl Values for SimValues {
    fn read<'a>(&'a self, at: &ValueAt) -> Result<Cow<'a, [u8]>, ValueError> {
        let mut bytes = vec![0; at.len as usize];
        let read = self
            .0
            .read_at(&segment_name(at.segment), u64::from(at.offset), &mut bytes);
        match read {
            Ok(count) if count == bytes.len() => Ok(Cow::Owned(bytes)),
            Ok(_) | Err(_) => Err(ValueError::Rotten(*at)),
        }
    }
}

/// Who a member is when its directory is fresh.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    pub(crate) id: u64,
    /// The first members of its cluster; none for one that joins later.
    pub(crate) first: Vec<Member>,
}

impl Who {
    pub(crate) fn alone() -> Self {
        Self {
            id: ALONE,
            first: vec![first_member(ALONE)],
        }
    }
}

/// A member that a cluster begins with.
pub(crate) fn first_member(id: u64) -> Member {
    Member {
        id,
        name: format!("m{id}"),
        peer_urls: vec![format!("http://m{id}:2380")],
        ..Member::default()
    }
}

/// Why a member is down.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Down {
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("{0}")]
    Halt(#[from] Halt),
    #[error("{0}")]
    Open(#[from] OpenError),
}

/// What a member did that its clients may see.
#[derive(Debug)]
pub(crate) enum Happened {
    Applied {
        entries: Vec<Committed>,
        outcomes: Vec<(RequestId, Outcome)>,
    },
    /// The read holds: everything up to this index is applied.
    ReadHolds(ReadId, u64),
    /// Of the state at this index.
    CheckpointTaken(u64),
    /// For another member.
    Sends(u64, Bytes),
    /// It is to be sent the state.
    SendsState(u64),
    /// Requests of these counters did not happen and never will.
    NotDone { first: u64, last: u64 },
    /// A received state has taken the place of its own: what it was asked for may be in there, and
    /// reads that waited are to be asked again.
    Installed(u64),
}

/// What a member found when it started.
#[derive(Debug)]
pub(crate) struct Found {
    /// Index at which the kept log begins.
    pub(crate) start: u64,
    /// The log behind it.
    pub(crate) entries: Vec<(Entry, EntryAt)>,
    /// Up to where it is applied already.
    pub(crate) applied: u64,
    pub(crate) torn: bool,
}

#[derive(Debug)]
pub(crate) struct SimMember {
    pub(crate) id: u64,
    pub(crate) machine: Machine,
    pub(crate) values: SimValues,
    replica: ReplicaBox,
    thread: DiskThread,
    checkpoints: Checkpoints,
    reclaims: Reclaims,
    /// A segment's length, and what reclaiming must free at least, in bytes.
    reclaim_sizes: (u32, u64),
    incarnation: u64,
    drafts: Vec<Draft>,
    inputs: VecDeque<Input>,
    reads: VecDeque<ReadId>,
    settings: Settings,
    /// States on their way to other members.
    sending: BTreeMap<u64, Sending>,
    incoming: Incoming,
    /// Readies at the disk.
    persisting: u64,
    /// Confirmed at an index that is not applied yet.
    confirmed: Vec<(u64, ReadId)>,
    purge_chunk: usize,
    chunk_keys: usize,
    /// A fault: see [`Fault::InstallsInPlace`].
    installs_in_place: bool,
    compacted: Revision,
    tidy: bool,
    was_short: bool,
}

/// The library behind a replica cannot be printed.
struct ReplicaBox(Replica);

impl std::fmt::Debug for ReplicaBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0.status())
    }
}

impl SimMember {
    /// Starts as the server does, from whatever the disk holds.
    pub(crate) fn open(
        disk: &SimDisk,
        plan: &Plan,
        now: Now,
        who: &Who,
    ) -> Result<(Self, Found), Down> {
        let config = Config {
            segment_bytes: plan.segment_bytes,
        };
        let identity = match Identity::load(disk)? {
            Some(mut identity) => {
                identity.raise(disk)?;
                identity
            }
            None => {
                let mut random = *b"directory is one";
                random[15] = who.id as u8;
                Identity::create(disk, config, random, CLUSTER, who.id)?
            }
        };
        if !who.first.is_empty() && has_no_state(disk)? {
            write_genesis(disk.clone(), identity.directory, who.first.iter().cloned())?;
        }
        let values = SimValues(disk.clone());
        let mut entries = Vec::new();
        let mut seen = |applied: &[Committed]| {
            entries.extend(applied.iter().map(|committed| {
                let entry = Entry {
                    index: committed.index,
                    term: committed.term,
                    kind: EntryKind::Normal,
                    data: committed.data.clone(),
                };
                (entry, committed.place)
            }));
        };
        let directory = identity.directory;
        let mut opened = Opened::read(disk.clone(), directory, config, &values, &mut seen)?;
        entries.extend(opened.recovered.entries.iter().cloned());
        let start = entries
            .first()
            .map_or(opened.machine.applied().0, |(entry, _)| entry.index - 1);
        let found = Found {
            start,
            entries,
            applied: opened.machine.applied().0,
            torn: opened.recovered.torn.is_some(),
        };
        let schedule = opened.schedule(plan.checkpoint_growth);
        let settings = Settings {
            member: identity.member,
            incarnation: identity.incarnation,
            strict_reconfig: true,
            election_ticks: ELECTION_TICKS,
            tick_ms: TICK_MS,
            seed: plan.seed,
            now,
        };
        let mut replica = Replica::new(opened.boot(settings))?;
        if let Some(Fault::Replica(planted)) = plan.fault {
            replica.plant(Some(planted));
        }
        let directory = identity.directory;
        let reserve = Reserve::new(
            disk.clone(),
            directory,
            plan.segment_bytes,
            plan.checkpoint_growth,
            false,
        );
        let member = Self {
            id: identity.member,
            values,
            replica: ReplicaBox(replica),
            machine: opened.machine,
            thread: DiskThread::start(
                opened.journal,
                reserve,
                plan.fault == Some(Fault::EarlyReport),
            ),
            checkpoints: Checkpoints::new(disk.clone(), directory, plan, schedule),
            reclaims: Reclaims::new(disk.clone(), plan),
            // Segments are so short here that the entries for checkpoints fill them: a round must
            // free more than it brings about.
            reclaim_sizes: (
                plan.segment_bytes,
                plan.checkpoint_growth
                    .max(4 * u64::from(plan.segment_bytes)),
            ),
            incarnation: identity.incarnation,
            drafts: Vec::new(),
            inputs: VecDeque::new(),
            settings,
            sending: BTreeMap::new(),
            incoming: Incoming::default(),
            persisting: 0,
            reads: VecDeque::new(),
            confirmed: Vec::new(),
            purge_chunk: plan.purge_chunk,
            chunk_keys: plan.chunk_keys,
            installs_in_place: plan.fault == Some(Fault::InstallsInPlace),
            compacted: Revision::ZERO,
            tidy: false,
            was_short: false,
        };
        Ok((member, found))
    }

    /// The id of request number `counter` of this start.
    pub(crate) fn request_id(&self, counter: u64) -> RequestId {
        RequestId {
            member: self.id,
            incarnation: self.incarnation,
            counter,
        }
    }

    pub(crate) fn leads(&self) -> bool {
        self.replica.0.leads()
    }

    pub(crate) fn leads_at(&self, now: Now) -> bool {
        self.replica.0.leads_at(now)
    }

    /// Nothing is under way but perhaps a checkpoint.
    pub(crate) fn is_quiet(&self) -> bool {
        self.thread.is_quiet() && self.drafts.is_empty() && self.reads.is_empty()
    }

    pub(crate) fn is_walking(&self) -> bool {
        self.checkpoints.is_walking() || !self.reclaims.is_idle()
    }

    /// The disk has refused room, and has not had enough since.
    pub(crate) fn is_short(&self) -> bool {
        self.thread.is_short()
    }

    /// Something must be logged for a checkpoint that is to free room.
    pub(crate) fn wants_entry(&self) -> bool {
        self.checkpoints.wants_entry() && self.drafts.is_empty()
    }

    pub(crate) fn propose(&mut self, draft: Draft) {
        self.drafts.push(draft);
    }

    pub(crate) fn read(&mut self, id: ReadId) {
        self.reads.push_back(id);
    }

    pub(crate) fn renew(&mut self, now: Now, lease: i64) -> Option<i64> {
        self.replica.0.renew(now, lease)
    }

    pub(crate) fn lease_left(&self, now: Now, lease: i64) -> Option<LeaseAnswer> {
        self.replica.0.lease_left(now, lease)
    }

    /// A turn of the driver.
    pub(crate) fn turn(
        &mut self,
        now: Now,
        ticked: bool,
        out: &mut Vec<Happened>,
    ) -> Result<(), Down> {
        for done in self.thread.take_done() {
            let (ready, at) = (done.ready, done.at);
            self.persisting -= 1;
            self.step(now, Input::Persisted { ready, at }, out)?;
        }
        while let Some(input) = self.inputs.pop_front() {
            self.step(now, input, out)?;
        }
        if !self.drafts.is_empty() {
            let drafts = std::mem::take(&mut self.drafts);
            self.step(now, Input::Propose(drafts), out)?;
        }
        while let Some(id) = self.reads.pop_front() {
            self.step(now, Input::Read(id), out)?;
        }
        if ticked {
            self.step(now, Input::Tick, out)?;
        }
        self.look_for_install(now, out)?;
        let is_short = self.is_short();
        let mut frees = is_short && !self.was_short;
        self.was_short = is_short;
        if !self.tidy && !self.checkpoints.is_walking() {
            self.tidy = !self.machine.purge(self.purge_chunk);
            frees |= self.tidy && is_short;
        }
        if frees {
            self.checkpoints.free_early();
        }
        let is_receiving = !self.incoming.is_idle();
        if self.tidy && !self.checkpoints.is_busy() && !is_receiving {
            let held = self.checkpoints.held();
            self.reclaims.look(&self.machine, held, self.reclaim_sizes);
        }
        let taken = self
            .checkpoints
            .look(&mut self.machine, &mut self.thread, is_receiving);
        out.extend(taken.map(Happened::CheckpointTaken));
        Ok(())
    }

    /// What happened to the replica, for the next turn.
    pub(crate) fn input(&mut self, input: Input) {
        self.inputs.push_back(input);
    }

    pub(crate) fn status(&self) -> Status {
        self.replica.0.status()
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Nothing waits for the disk thread.
    pub(crate) fn disk_is_idle(&self) -> bool {
        self.thread.is_idle()
    }

    /// A round of the disk thread.
    pub(crate) fn run_disk(&mut self) -> Result<(), Down> {
        Ok(self.thread.run()?)
    }

    /// The thread that prepares segments does what it was asked.
    pub(crate) fn prepare_segment(&mut self) -> Result<(), Down> {
        // Where it cannot, the journal does so itself when it needs the segment, or says why not.
        let _ = self.thread.prepare();
        Ok(())
    }

    /// A step of the reclaiming thread's work. Returns whether segments have been emptied.
    pub(crate) fn work_on_reclaim(&mut self) -> bool {
        let has_emptied = self.reclaims.work(&mut self.machine, &mut self.thread);
        if has_emptied {
            self.checkpoints.free_early();
        }
        has_emptied
    }

    /// A chunk of the checkpoint thread's work.
    pub(crate) fn work_on_checkpoint(&mut self) {
        let is_copying = self.reclaims.is_copying();
        self.checkpoints
            .work(&self.machine, &mut self.thread, is_copying);
    }

    /// Ends as on SIGTERM.
    pub(crate) fn stop(mut self) -> Result<(), Down> {
        Ok(self.thread.stop()?)
    }

    fn step(&mut self, now: Now, input: Input, out: &mut Vec<Happened>) -> Result<(), Down> {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            self.replica.0.step(now, input, &mut effects)?;
            // D1.
            for effect in effects {
                match effect {
                    Effect::Persist {
                        ready,
                        hard,
                        entries,
                        commit,
                    } => {
                        self.checkpoints.grew(&entries);
                        self.persisting += 1;
                        self.thread.persist(Persist {
                            ready,
                            hard,
                            entries,
                            commit,
                        });
                    }
                    Effect::Apply(batch) => {
                        let applied = self.machine.apply(&batch, &self.values)?;
                        inputs.push_back(Input::Applied(applied.notice));
                        if self.machine.store().oldest() > self.compacted {
                            self.compacted = self.machine.store().oldest();
                            self.tidy = false;
                        }
                        out.push(Happened::Applied {
                            entries: batch,
                            outcomes: applied.outcomes,
                        });
                    }
                    Effect::Send { member, frame } => out.push(Happened::Sends(member, frame)),
                    Effect::Diverged { members, index } => {
                        panic!("{members:?} differ from the others at {index}")
                    }
                    Effect::SendState { member } => out.push(Happened::SendsState(member)),
                    Effect::NotDone { first, last, .. } => {
                        out.push(Happened::NotDone { first, last });
                    }
                    Effect::ReadReady { ids, index } => {
                        self.confirmed.extend(ids.into_iter().map(|id| (index, id)));
                    }
                }
            }
        }
        let applied = self.machine.applied().0;
        let holds = self
            .confirmed
            .extract_if(.., |(index, _)| *index <= applied);
        out.extend(holds.map(|(index, id)| Happened::ReadHolds(id, index)));
        Ok(())
    }
}
