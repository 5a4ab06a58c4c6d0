//! One member's Raft, timers, reads, and the leader's duties towards time.
//!
//! Input in, effects out. The owner performs the effects in order, and feeds back what came of
//! them. Between two steps nothing happens.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_log::EntryAt;
use quorate_store::command::{Body, Draft, RequestId};
use quorate_store::{ClusterTime, Command};

use crate::Halt;
use crate::clocks::{ClusterClock, LeaseClocks, Now};
use crate::core::{Core, Dropped};
use crate::machine::{LeaseEvent, Notice};

/// Bytes proposed at once; below half of what may be uncommitted.
const BATCH_BYTES: usize = 16 << 20;
/// Leases whose end is proposed at one step.
const LEASE_ENDS: usize = 500;
/// While a lease or deadline exists, a cluster time is logged at least this often.
const STAMP_EVERY_MS: u64 = 60_000;

/// Names a read; the owner's choice.
pub type ReadId = u64;

/// What a replica starts from.
#[derive(Debug)]
pub struct Boot {
    /// This member's id.
    pub member: u64,
    /// The members that vote.
    pub voters: Vec<u64>,
    /// How many ticks without a leader make an election.
    pub election_ticks: usize,
    /// Milliseconds between ticks.
    pub tick_ms: u64,
    /// For the election timeout.
    pub seed: u64,
    /// What the log holds of Raft's own.
    pub hard: quorate_log::HardState,
    /// Index and term where the kept log begins: the checkpoint's.
    pub start: (u64, u64),
    /// The log behind it, with places.
    pub entries: Vec<(quorate_log::Entry, EntryAt)>,
    /// Up to where the machine has applied.
    pub applied: u64,
    /// The highest stamp applied.
    pub time: ClusterTime,
    /// The clocks at start.
    pub now: Now,
    /// The leases that exist, with their lengths in seconds.
    pub leases: Vec<(i64, i64)>,
    /// When the next v2 deadline ends.
    pub next_deadline: Option<ClusterTime>,
}

/// What happens to a replica.
#[derive(Debug)]
pub enum Input {
    /// Time passes; at least once each tick.
    Tick,
    /// Commands from this member's clients.
    Propose(Vec<Draft>),
    /// A linearizable read waits.
    Read(ReadId),
    /// From the disk, in the order of the effects.
    Persisted {
        /// The Ready that is durable now.
        ready: u64,
        /// Where its entries stand.
        at: Vec<(u64, EntryAt)>,
    },
    /// The machine has applied entries.
    Applied(Notice),
}

/// What the owner must do.
#[derive(Debug)]
pub enum Effect {
    /// Make durable, then answer [`Input::Persisted`]; in order.
    Persist {
        /// Names it in the answer.
        ready: u64,
        /// Raft's own, when it changed.
        hard: Option<quorate_log::HardState>,
        /// New entries; they cancel what stood at their indexes and after.
        entries: Vec<quorate_log::Entry>,
        /// The commit index known now.
        commit: u64,
    },
    /// Apply to the machine, then answer [`Input::Applied`].
    Apply(Vec<Committed>),
    /// These reads hold once `index` is applied.
    ReadReady {
        /// Which.
        ids: Vec<ReadId>,
        /// From where on.
        index: u64,
    },
}

/// A committed entry.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The command, empty for a leader's first entry of a term.
    pub data: Bytes,
    /// Where it stands in this member's log.
    pub place: EntryAt,
}

/// What a replica knows of the cluster.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Status {
    /// The leader's id, if one is known.
    pub leader: Option<u64>,
    /// The current term.
    pub term: u64,
    /// The commit index.
    pub committed: u64,
}

/// What a lease's clock says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeaseAnswer {
    /// Milliseconds left.
    pub left_ms: u64,
    /// Its length in seconds.
    pub ttl_s: i64,
}

/// One member.
pub struct Replica {
    core: Core,
    member: u64,
    clock: ClusterClock,
    last_stamp: ClusterTime,
    tick_ms: u64,
    next_tick: u64,
    /// Commands that wait for a leader or for room.
    held: VecDeque<Bytes>,
    reads_waiting: Vec<ReadId>,
    read_round: Option<(u64, Vec<ReadId>)>,
    read_rounds: u64,
    leases: LeaseClocks,
    next_deadline: Option<ClusterTime>,
    /// An `Expire` is on its way through the log.
    expiring: bool,
}

impl Replica {
    /// A member as its log says it was.
    ///
    /// # Errors
    /// [`Halt::Raft`] when the log and the configuration do not fit together.
    pub fn new(boot: Boot) -> Result<Self, Halt> {
        // Stamps of entries not applied yet count too (R2).
        let stamps = boot
            .entries
            .iter()
            .filter_map(|(entry, _)| Command::stamp_of(&entry.data));
        let time = stamps.fold(boot.time, ClusterTime::max);
        let clock = ClusterClock::new(time, boot.now.monotonic);
        let mut leases = LeaseClocks::default();
        for (id, ttl_s) in &boot.leases {
            leases.grant(*id, *ttl_s, time);
        }
        let mut replica = Self {
            member: boot.member,
            clock,
            last_stamp: time,
            tick_ms: boot.tick_ms,
            next_tick: boot.now.monotonic.0 + boot.tick_ms,
            held: VecDeque::new(),
            reads_waiting: Vec::new(),
            read_round: None,
            read_rounds: 0,
            leases,
            next_deadline: boot.next_deadline,
            expiring: false,
            core: Core::new(boot)?,
        };
        if replica.core.is_lone_voter() {
            replica.core.campaign()?;
        }
        Ok(replica)
    }

    /// What is known of the cluster.
    pub fn status(&self) -> Status {
        Status {
            leader: self.core.leader(),
            term: self.core.term(),
            committed: self.core.committed(),
        }
    }

    /// Whether this member leads, and knows what is committed.
    pub fn leads(&self) -> bool {
        self.core.knows_commit()
    }

    /// Whether a linearizable read needs no round: nobody else can lead, so everything that was
    /// ever answered was applied here first (R1).
    pub fn reads_at_once(&self) -> bool {
        self.core.knows_commit() && self.core.is_lone_voter()
    }

    /// Gives a lease its full time again: its length in seconds, `None` when it is gone or going.
    /// Only the leader may be asked.
    pub fn renew(&mut self, now: Now, lease: i64) -> Option<i64> {
        let time = self.clock.at(now.monotonic);
        self.leases.renew(lease, time)
    }

    /// What is left of a lease. Only the leader may be asked.
    pub fn lease_left(&self, now: Now, lease: i64) -> Option<LeaseAnswer> {
        let (left_ms, ttl_s) = self.leases.left(lease, self.clock.at(now.monotonic))?;
        Some(LeaseAnswer { left_ms, ttl_s })
    }

    /// All leases, soonest to end first.
    pub fn leases_by_end(&self) -> Vec<i64> {
        self.leases.by_end()
    }

    /// Takes an input and says what is to be done.
    ///
    /// # Errors
    /// [`Halt`]: this member must stop.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) -> Result<(), Halt> {
        match input {
            Input::Tick => self.tick(now),
            Input::Propose(drafts) => self.stamp(now, drafts),
            Input::Read(id) => self.reads_waiting.push(id),
            Input::Persisted { ready, at } => self.core.persisted(ready, &at),
            Input::Applied(notice) => self.applied(now, &notice),
        }
        self.propose_held()?;
        self.turn_around(out)
    }

    fn tick(&mut self, now: Now) {
        // Missed ticks count as one: a paused process must not storm into an election.
        if now.monotonic.0 >= self.next_tick {
            self.next_tick = now.monotonic.0 + self.tick_ms;
            self.core.tick();
        }
        if !self.leads() {
            return;
        }
        let time = self.clock.at(now.monotonic);
        for id in self.leases.take_due(time, LEASE_ENDS) {
            self.propose_own(now, &Body::LeaseRevoke { id });
        }
        let due = self.next_deadline.is_some_and(|deadline| deadline <= time);
        if due && !self.expiring {
            self.expiring = true;
            self.propose_own(now, &Body::Expire);
        }
        let timed = self.next_deadline.is_some() || !self.leases.is_empty();
        if timed && time.0 >= self.last_stamp.0 + STAMP_EVERY_MS {
            self.propose_own(now, &Body::Tick);
        }
    }

    fn applied(&mut self, now: Now, notice: &Notice) {
        self.core.applied(notice.index);
        let time = self.clock.at(now.monotonic);
        for event in &notice.leases {
            match *event {
                LeaseEvent::Granted { id, ttl_s } => self.leases.grant(id, ttl_s, time),
                LeaseEvent::Ended { id } => self.leases.end(id),
            }
        }
        self.next_deadline = notice.next_deadline;
        self.expiring &= !notice.expired;
    }

    fn propose_own(&mut self, now: Now, body: &Body) {
        let id = RequestId {
            member: self.member,
            ..RequestId::default()
        };
        self.stamp(now, vec![Draft::new(id, now.wall, body)]);
    }

    /// R2: everything is stamped here, in the order in which it is proposed.
    fn stamp(&mut self, now: Now, drafts: Vec<Draft>) {
        let time = self.clock.at(now.monotonic);
        assert!(time >= self.last_stamp, "R2");
        self.last_stamp = time;
        for id in drafts.iter().filter_map(Draft::revokes) {
            // Else its time could run out meanwhile, and that end would hit a lease that is
            // granted under the same id behind this one (P5).
            self.leases.going(id);
        }
        self.held
            .extend(drafts.into_iter().map(|draft| draft.stamp(time)));
    }

    fn propose_held(&mut self) -> Result<(), Halt> {
        while !self.held.is_empty() && self.core.is_leader() {
            let mut bytes = 0;
            let mut fits = |entry: &Bytes| {
                let first = bytes == 0;
                bytes += entry.len();
                first || bytes <= BATCH_BYTES
            };
            let count = self.held.iter().take_while(|entry| fits(entry)).count();
            let batch = self.held.drain(..count).collect();
            if let Err(Dropped(batch)) = self.core.propose(batch)? {
                // The log has too much uncommitted: they wait, first as before.
                for entry in batch.into_iter().rev() {
                    self.held.push_front(entry);
                }
                break;
            }
        }
        Ok(())
    }

    /// Starts a read round if reads wait and none is out, then empties the library.
    fn turn_around(&mut self, out: &mut Vec<Effect>) -> Result<(), Halt> {
        loop {
            if self.read_round.is_none()
                && !self.reads_waiting.is_empty()
                && self.core.knows_commit()
            {
                self.read_rounds += 1;
                self.read_round =
                    Some((self.read_rounds, core::mem::take(&mut self.reads_waiting)));
                self.core.read_index(self.read_rounds);
            }
            let Some(turn) = self.core.turn() else {
                return Ok(());
            };
            if let Some(persist) = turn.persist {
                out.push(Effect::Persist {
                    ready: persist.ready,
                    hard: persist.hard,
                    entries: persist.entries,
                    commit: persist.commit,
                });
            }
            if !turn.committed.is_empty() {
                out.push(Effect::Apply(turn.committed));
            }
            for (context, index) in turn.reads {
                // A round that was given up may still answer.
                if let Some((_, ids)) = self.read_round.take_if(|(round, _)| *round == context) {
                    out.push(Effect::ReadReady { ids, index });
                }
            }
        }
    }
}
