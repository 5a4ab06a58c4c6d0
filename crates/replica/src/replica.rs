//! One member's Raft, timers, reads, and the leader's duties towards time.
//!
//! Input in, effects out. The owner performs the effects in order, and feeds back what came of
//! them. Between two steps nothing happens.
//!
//! P1. A command is forwarded to the leader of one term. What a member sent in a term, and has not
//!     seen applied when an entry of a later term is, never will be: it says so.
//! P2. What the leader does by itself (ends of leases, deadlines, promotions) is never forwarded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use quorate_log::EntryAt;
use quorate_store::codec::DecodeError;
use quorate_store::command::{Body, Draft, RequestId};
use quorate_store::{ClusterTime, Command, MemberChange, Role};

use crate::Halt;
use crate::agreement::Agreement;
use crate::clocks::{ClusterClock, LeaseClocks, Monotonic, Now};
use crate::conf::{Seat, Situation, quorum};
use crate::core::{Core, Dropped, Outgoing, PeerProgress};
use crate::frame::{Frame, finish_raft};
use crate::machine::{LeaseEvent, Notice};
use crate::planted::Planted;

/// Bytes proposed at once; below half of what may be uncommitted.
const BATCH_BYTES: usize = 16 << 20;
/// Bytes of commands in one frame to the leader, unless the first alone is more.
const FORWARD_BYTES: usize = 1 << 20;
/// Bytes of other members' commands that wait here at once; more is refused.
const FOREIGN_BYTES: usize = 64 << 20;
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
    /// Counts its starts.
    pub incarnation: u64,
    /// The members that vote.
    pub voters: Vec<u64>,
    /// The members that do not.
    pub learners: Vec<u64>,
    /// All of them, as the state knows them.
    pub seats: Vec<Seat>,
    /// Whether changes that could cost the quorum are refused.
    pub strict_reconfig: bool,
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
    /// A frame came from another member.
    Peer {
        /// From whom.
        from: u64,
        /// What its replica sent.
        frame: Bytes,
    },
    /// What was sent to a member may be lost.
    Unreachable {
        /// To whom.
        member: u64,
    },
    /// It is reached again.
    Reachable {
        /// Who.
        member: u64,
    },
    /// The transfer of the state has ended.
    StateSent {
        /// To whom.
        member: u64,
        /// It has installed it.
        ok: bool,
    },
    /// Leadership is to be handed over.
    Transfer {
        /// To whom.
        member: u64,
    },
    /// A received state is being put in place of this member's, or no longer: until the replica is
    /// made anew, the log takes no entries, and there is no election.
    Installing(bool),
    /// Nobody waits any more for this member's requests up to this counter.
    Forget {
        /// It, and those before it.
        counter: u64,
    },
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
    /// Send to another member; it may get lost, but not overtake an earlier one.
    Send {
        /// To whom.
        member: u64,
        /// What its replica is to get.
        frame: Bytes,
    },
    /// Send it the state, then answer [`Input::StateSent`].
    SendState {
        /// To whom.
        member: u64,
    },
    /// These members' states are not what most voters' are: they are told, and stop. None of them when
    /// there is no majority of one mind.
    Diverged {
        /// Who, besides this one.
        members: Vec<u64>,
        /// The index at which they differ.
        index: u64,
    },
    /// This member's requests of these counters, as far as they are not answered, did not happen
    /// and never will.
    NotDone {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
        /// Why.
        why: NotDone,
    },
}

/// Why a request did not get into the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotDone {
    /// Its leader lost its place.
    LeaderChanged = 0,
    /// The leader has too much to do.
    TooMany = 1,
    /// Too few members are reached for the cluster to be changed.
    Unhealthy = 2,
    /// Too few members would have started.
    NotEnoughStarted = 3,
    /// The learner is too far behind.
    LearnerNotReady = 4,
}

impl NotDone {
    pub(crate) fn decode(number: u8) -> Result<Self, DecodeError> {
        let all = [
            Self::LeaderChanged,
            Self::TooMany,
            Self::Unhealthy,
            Self::NotEnoughStarted,
            Self::LearnerNotReady,
        ];
        let found = all.into_iter().find(|why| *why as u8 == number);
        found.ok_or(DecodeError::Bad("reason"))
    }
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
    incarnation: u64,
    clock: ClusterClock,
    /// The highest stamp applied.
    time: ClusterTime,
    /// The highest stamp in the log, while this member leads.
    last_stamp: ClusterTime,
    tick_ms: u64,
    next_tick: u64,
    election_ms: u64,
    last_tick: u64,
    is_strict: bool,
    /// It led after the last step.
    led: bool,
    /// Commands that wait for a leader or for room.
    held: VecDeque<Draft>,
    /// Bytes of those that other members were asked for.
    foreign_bytes: usize,
    /// Terms in which commands of this member were sent, and the last counter of each (P1).
    sent: VecDeque<(u64, u64)>,
    reads: Reads,
    /// The round that must be confirmed before this leader may act by its clock.
    unconfirmed: Option<u64>,
    leases: LeaseClocks,
    next_deadline: Option<ClusterTime>,
    /// An `Expire` is on its way through the log.
    expiring: bool,
    seats: Vec<Seat>,
    /// The entry up to which one may change the configuration that is not applied yet.
    conf_index: u64,
    /// What was committed at the last tick.
    committed_before: u64,
    applied: u64,
    heard: BTreeMap<u64, Monotonic>,
    agreement: Agreement,
    next_comparison: u64,
    /// Members that nothing can be sent to: commands wait here rather than get lost.
    down: BTreeSet<u64>,
}

/// Linearizable reads on their way.
#[derive(Default)]
struct Reads {
    own: Vec<ReadId>,
    /// Members that ask, and their rounds.
    foreign: Vec<(u64, u64)>,
    /// The round that is out: through Raft if this member leads, else to this leader.
    out: Option<Round>,
    last: u64,
}

struct Round {
    number: u64,
    leader: u64,
    own: Vec<ReadId>,
    foreign: Vec<(u64, u64)>,
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
        let mut leases = LeaseClocks::default();
        for (id, ttl_s) in &boot.leases {
            leases.grant(*id, *ttl_s, time);
        }
        let now = boot.now.monotonic;
        let mut replica = Self {
            member: boot.member,
            incarnation: boot.incarnation,
            clock: ClusterClock::new(time, now),
            time: boot.time,
            last_stamp: time,
            tick_ms: boot.tick_ms,
            next_tick: now.0 + boot.tick_ms,
            election_ms: boot.tick_ms * boot.election_ticks as u64,
            last_tick: now.0,
            is_strict: boot.strict_reconfig,
            led: false,
            held: VecDeque::new(),
            foreign_bytes: 0,
            sent: VecDeque::new(),
            reads: Reads {
                // Answers to an earlier life's rounds must not fit.
                last: boot.incarnation << 40,
                ..Reads::default()
            },
            unconfirmed: None,
            leases,
            next_deadline: boot.next_deadline,
            expiring: false,
            seats: boot.seats.clone(),
            conf_index: 0,
            committed_before: 0,
            applied: boot.applied,
            heard: BTreeMap::new(),
            agreement: Agreement::default(),
            next_comparison: 0,
            down: BTreeSet::new(),
            core: Core::new(boot)?,
        };
        if replica.core.is_lone_voter() {
            replica.core.campaign()?;
            // Its leases begin anew with this start, not with its first step.
            replica.led = replica.core.is_leader();
            replica.conf_index = replica.core.last_index();
        }
        Ok(replica)
    }

    /// Starts anew from a received state, within the same process. What waited here is given up.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn install(&mut self, boot: Boot) -> Result<(), Halt> {
        let mut anew = Self::new(boot)?;
        // Answers to earlier rounds may still come, and must not fit (R3).
        anew.reads.last = self.reads.last;
        anew.core.planted = self.core.planted;
        anew.heard = std::mem::take(&mut self.heard);
        anew.down = std::mem::take(&mut self.down);
        *self = anew;
        Ok(())
    }

    /// For simulations only.
    #[doc(hidden)]
    pub fn plant(&mut self, planted: Option<Planted>) {
        self.core.planted = planted;
    }

    /// What is known of the cluster.
    pub fn status(&self) -> Status {
        Status {
            leader: self.core.leader(),
            term: self.core.term(),
            committed: self.core.committed(),
        }
    }

    /// Whether this member leads, knows what is committed, and has not slept since it last knew.
    pub fn leads(&self) -> bool {
        self.core.knows_commit() && self.unconfirmed.is_none()
    }

    /// Whether this member leads and may act by its clocks between two ticks: it has not slept since
    /// the last, and has heard of a majority within an election timeout, though of what they sent up to
    /// another one before, if it slept often and shortly. For two election timeouts the next leader
    /// bears with what it does by this alone.
    pub fn leads_at(&self, now: Now) -> bool {
        let since = now.monotonic.0.saturating_sub(self.last_tick);
        // Without it the next leader has to bear with more, which a check must show.
        let is_heard = self.hears_majority(now) || self.core.planted == Some(Planted::EndsAtOnce);
        self.leads() && since <= self.election_ms && is_heard
    }

    fn hears_majority(&self, now: Now) -> bool {
        let is_heard = |id: &u64| *id == self.member || self.hears(now, *id);
        self.voters().filter(is_heard).count() >= quorum(self.voters().count())
    }

    fn voters(&self) -> impl Iterator<Item = u64> + '_ {
        let voters = self.seats.iter().filter(|seat| seat.role == Role::Voter);
        voters.map(|seat| seat.id)
    }

    /// Whether a linearizable read needs no round: nobody else can lead, so everything that was
    /// ever answered was applied here first (R1).
    pub fn reads_at_once(&self) -> bool {
        self.core.knows_commit() && self.core.is_lone_voter()
    }

    /// How far the others are; empty unless this member leads.
    pub fn progress(&self) -> Vec<PeerProgress> {
        if self.core.is_leader() {
            self.core.progress()
        } else {
            Vec::new()
        }
    }

    /// Whether a member was heard of within an election timeout.
    pub fn hears(&self, now: Now, member: u64) -> bool {
        let heard = self.heard.get(&member);
        heard.is_some_and(|heard| now.monotonic.0 < heard.0 + self.election_ms)
    }

    /// The voter that leadership is best handed to: who is heard of and furthest.
    pub fn successor(&self, now: Now) -> Option<u64> {
        let is_voter = |id: u64| self.voters().any(|voter| voter == id);
        let progress = self.progress().into_iter();
        let able = progress.filter(|peer| is_voter(peer.member) && self.hears(now, peer.member));
        able.max_by_key(|peer| peer.matched).map(|peer| peer.member)
    }

    /// The last entry of the log.
    pub fn last_index(&self) -> u64 {
        self.core.last_index()
    }

    /// Term, vote and commit index, for a member that starts anew from a received state.
    pub fn hard(&self) -> quorate_log::HardState {
        self.core.hard()
    }

    /// Whether a received state that ends with this entry is of no use: the log has it.
    pub fn has_entry(&self, index: u64, term: u64) -> bool {
        self.core.has_entry(index, term)
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
            Input::Tick => self.tick(now, out)?,
            Input::Propose(drafts) => self.held.extend(drafts),
            Input::Read(id) => self.reads.own.push(id),
            Input::Persisted { ready, at } => {
                let released = self.core.persisted(ready, &at);
                self.send(now, released, out);
            }
            Input::Applied(notice) => self.applied(now, &notice, out)?,
            Input::Peer { from, frame } => self.receive(now, from, frame, out)?,
            Input::Unreachable { member } => {
                self.down.insert(member);
                self.core.unreachable(member);
            }
            Input::Reachable { member } => {
                self.down.remove(&member);
            }
            Input::StateSent { member, ok } => self.core.state_sent(member, ok),
            Input::Transfer { member } => self.core.transfer(member),
            Input::Installing(installing) => self.core.set_installing(installing),
            Input::Forget { counter } => self.forget(counter),
        }
        self.note_role(now, out);
        self.propose_held(now, out)?;
        self.turn_around(now, out)
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Effect>) -> Result<(), Halt> {
        let slept = now.monotonic.0.saturating_sub(self.last_tick);
        self.last_tick = now.monotonic.0;
        // Others may have elected and gone on meanwhile: what this member's clock says of leases and
        // deadlines is to be acted on only by one that still leads.
        if slept > self.election_ms && self.core.is_leader() && !self.core.is_lone_voter() {
            self.unconfirmed = Some(self.reads.last + 1);
        }
        // Missed ticks count as one: a paused process must not storm into an election.
        if now.monotonic.0 >= self.next_tick {
            self.next_tick = now.monotonic.0 + self.tick_ms;
            self.core.tick()?;
        }
        self.ask_again(out);
        self.compare(now, out)?;
        if !self.leads() {
            return Ok(());
        }
        let time = self.clock.at(now.monotonic);
        for id in self.leases.take_due(time, LEASE_ENDS).into_iter().rev() {
            // Before all that waits: behind a client's end and grant of the same id it would hit the
            // new lease (P5).
            let draft = self.own_draft(now, &Body::LeaseRevoke { id });
            self.held.push_front(draft);
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
        self.promote(now);
        self.committed_before = self.core.committed();
        Ok(())
    }

    /// A learner that is to vote does so once it has what was committed a tick ago.
    fn promote(&mut self, now: Now) {
        let is_joining = self.seats.iter().any(|seat| seat.role == Role::Joining);
        if !is_joining || self.conf_index > self.applied {
            return;
        }
        let ready = self.core.progress().into_iter().find(|peer| {
            let mut seats = self.seats.iter();
            let seat = seats.find(|seat| seat.id == peer.member);
            seat.is_some_and(|seat| seat.role == Role::Joining && seat.has_started)
                && self.hears(now, peer.member)
                && peer.matched >= self.committed_before
        });
        if let Some(peer) = ready {
            let (id, change) = (peer.member, MemberChange::Promote);
            self.propose_own(now, &Body::Member { id, change });
        }
    }

    fn applied(&mut self, now: Now, notice: &Notice, out: &mut Vec<Effect>) -> Result<(), Halt> {
        self.applied = notice.index;
        self.time = notice.time;
        self.core.applied(notice.index);
        self.agreement.applied(notice.index, &notice.digests);
        self.answer_digest(out);
        let time = self.clock.at(now.monotonic);
        self.leases.applied(notice.index);
        for event in &notice.leases {
            match *event {
                LeaseEvent::Granted { id, ttl_s } => self.leases.grant(id, ttl_s, time),
                LeaseEvent::Ended { id } => self.leases.end(id),
            }
        }
        self.next_deadline = notice.next_deadline;
        self.expiring &= !notice.expired;
        if let Some(seats) = &notice.seats {
            let ids = |votes: bool| {
                let seats = seats.iter();
                let seats = seats.filter(move |seat| (seat.role == Role::Voter) == votes);
                seats.map(|seat| seat.id).collect::<BTreeSet<_>>()
            };
            self.core.configure(&ids(true), &ids(false))?;
            self.seats.clone_from(seats);
        }
        // P1.
        let mut lost = None;
        while let Some((_, counter)) = self.sent.pop_front_if(|(term, _)| *term < notice.term) {
            lost = Some(counter);
        }
        if let Some(last) = lost {
            let (first, why) = (0, NotDone::LeaderChanged);
            out.push(Effect::NotDone { first, last, why });
        }
        Ok(())
    }

    /// Has the members' states compared, about once in an election timeout.
    fn compare(&mut self, now: Now, out: &mut Vec<Effect>) -> Result<(), Halt> {
        if !self.leads() || now.monotonic.0 < self.next_comparison {
            return Ok(());
        }
        self.next_comparison = now.monotonic.0 + self.election_ms;
        let voters: Vec<u64> = self.voters().collect();
        if let Some((index, verdict)) = self.agreement.end(&voters) {
            for member in verdict.odd.iter().filter(|id| **id != self.member) {
                let frame = Frame::Differs(index).encode();
                let member = *member;
                out.push(Effect::Send { member, frame });
            }
            if verdict.odd.contains(&self.member) {
                return Err(Halt::Diverged { index });
            }
            if verdict.is_split || !verdict.odd.is_empty() {
                let members = verdict.odd;
                out.push(Effect::Diverged { members, index });
            }
        }
        if let Some(index) = self.agreement.begin(self.member) {
            for seat in self.seats.iter().filter(|seat| seat.id != self.member) {
                let frame = Frame::AskDigest(index).encode();
                let member = seat.id;
                out.push(Effect::Send { member, frame });
            }
        }
        Ok(())
    }

    fn answer_digest(&mut self, out: &mut Vec<Effect>) {
        if let Some((member, index, digest)) = self.agreement.answer() {
            let frame = Frame::Digest(index, digest).encode();
            out.push(Effect::Send { member, frame });
        }
    }

    fn propose_own(&mut self, now: Now, body: &Body) {
        let draft = self.own_draft(now, body);
        self.held.push_back(draft);
    }

    fn own_draft(&self, now: Now, body: &Body) -> Draft {
        let id = RequestId {
            member: self.member,
            ..RequestId::default()
        };
        Draft::new(id, now.wall, body)
    }

    fn is_own(&self, draft: &Draft) -> bool {
        draft.id().member == self.member
    }

    fn forget(&mut self, counter: u64) {
        let member = self.member;
        self.held.retain(|draft| {
            let id = draft.id();
            id.member != member || id.counter == 0 || id.counter > counter
        });
    }

    /// Whether this member came to lead, or no longer does.
    fn note_role(&mut self, now: Now, out: &mut Vec<Effect>) {
        let leads = self.core.is_leader();
        let leader = self.core.leader().unwrap_or(0);
        if leads != self.led {
            self.led = leads;
            self.unconfirmed = None;
            self.expiring = false;
            if leads {
                // R2: entries of an earlier leader may be ahead of this member's clock.
                self.last_stamp = self.core.last_stamp().unwrap_or_default().max(self.time);
                self.clock.raise(self.last_stamp, now.monotonic);
                let time = self.clock.at(now.monotonic);
                let grace_ms = match self.core.planted {
                    Some(Planted::EndsAtOnce) => 0,
                    _ => 2 * self.election_ms,
                };
                self.leases.renew_all(time, grace_ms);
                // One of them may be of an earlier leader, and not applied here yet.
                self.conf_index = self.core.last_index();
            } else {
                self.let_go(out);
            }
        }
        // A round whose leader is gone is asked again.
        if let Some(round) = self.reads.out.take_if(|round| round.leader != leader) {
            self.reads.own.splice(0..0, round.own);
        }
        if !leads {
            self.reads.foreign.clear();
        }
    }

    /// What waited for this member's own term: P2, and other members' commands (P1).
    fn let_go(&mut self, out: &mut Vec<Effect>) {
        let member = self.member;
        for draft in std::mem::take(&mut self.held) {
            let id = draft.id();
            if id.member != member {
                self.refuse(id, NotDone::LeaderChanged, out);
            } else if id.counter > 0 {
                self.held.push_back(draft);
            }
        }
        self.foreign_bytes = 0;
    }

    /// Tells whoever was asked that a command is not in the log.
    fn refuse(&self, id: RequestId, why: NotDone, out: &mut Vec<Effect>) {
        let (first, last) = (id.counter, id.counter);
        out.push(if id.member == self.member {
            Effect::NotDone { first, last, why }
        } else {
            let frame = Frame::NotDone(id.incarnation, id.counter, why).encode();
            let member = id.member;
            Effect::Send { member, frame }
        });
    }

    fn propose_held(&mut self, now: Now, out: &mut Vec<Effect>) -> Result<(), Halt> {
        if !self.core.is_leader() {
            self.forward_held(out);
            return Ok(());
        }
        while !self.held.is_empty() && !self.core.is_transferring() {
            let time = self.clock.at(now.monotonic).max(self.last_stamp);
            let (mut batch, mut bytes) = (Vec::new(), 0);
            let conf_before = self.conf_index;
            while let Some(draft) = self.held.front() {
                bytes += draft.len();
                if !batch.is_empty() && bytes > BATCH_BYTES {
                    break;
                }
                let changes = draft.member_change();
                let waits = self.core.planted != Some(Planted::ChangesTogether);
                if changes.is_some() && self.conf_index > self.applied && waits {
                    // One at a time.
                    break;
                }
                let draft = self.held.pop_front().expect("just seen");
                if let Some((id, change)) = changes {
                    if let Err(why) = self.may_change(now, id, &change) {
                        let id = draft.id();
                        self.refuse(id, why, out);
                        continue;
                    }
                    self.conf_index = self.core.last_index() + batch.len() as u64 + 1;
                }
                batch.push(draft);
            }
            if batch.is_empty() {
                break;
            }
            if !self.append(time, batch)? {
                // Else a change that waits would wait for itself.
                self.conf_index = conf_before;
                break;
            }
        }
        Ok(())
    }

    /// Whether the batch is in the log; else it waits, first as before.
    fn append(&mut self, time: ClusterTime, batch: Vec<Draft>) -> Result<bool, Halt> {
        let mut last_own = 0;
        let mut foreign = 0;
        let mut revoked = Vec::new();
        for (index, draft) in (self.core.last_index() + 1..).zip(&batch) {
            revoked.extend(draft.revokes().map(|id| (id, index)));
            if self.is_own(draft) {
                last_own = draft.id().counter.max(last_own);
            } else {
                foreign += draft.len();
            }
        }
        let entries: Vec<Bytes> = batch.into_iter().map(|draft| draft.stamp(time)).collect();
        if let Err(Dropped) = self.core.propose(entries.clone())? {
            for entry in entries.iter().rev() {
                let draft = Draft::received(entry).expect("it was a draft");
                self.held.push_front(draft);
            }
            return Ok(false);
        }
        for (id, index) in revoked {
            // Else its time could run out meanwhile, and that end would hit a lease that is granted
            // under the same id behind this one (P5).
            self.leases.going(id, index);
        }
        // R2.
        assert!(time >= self.last_stamp, "R2");
        self.last_stamp = time;
        self.foreign_bytes = self.foreign_bytes.saturating_sub(foreign);
        self.note_sent(last_own);
        Ok(true)
    }

    /// P1.
    fn note_sent(&mut self, counter: u64) {
        if counter == 0 {
            return;
        }
        let term = self.core.term();
        match self.sent.back_mut() {
            Some((last_term, last)) if *last_term == term => *last = counter.max(*last),
            _ => self.sent.push_back((term, counter)),
        }
    }

    /// A follower's clients' commands go to the leader, in the order in which they came.
    fn forward_held(&mut self, out: &mut Vec<Effect>) {
        let leader = self.core.leader().filter(|id| *id != self.member);
        let Some(leader) = leader.filter(|id| !self.down.contains(id)) else {
            return;
        };
        while !self.held.is_empty() {
            let (mut commands, mut bytes, mut last) = (Vec::new(), 0, 0);
            while let Some(draft) = self.held.front() {
                bytes += draft.len();
                if !commands.is_empty() && bytes > FORWARD_BYTES {
                    break;
                }
                let draft = self.held.pop_front().expect("just seen");
                last = draft.id().counter;
                commands.push(draft.into_bytes());
            }
            self.note_sent(last);
            let frame = Frame::Forward(self.core.term(), commands).encode();
            let member = leader;
            out.push(Effect::Send { member, frame });
        }
    }

    fn may_change(&self, now: Now, id: u64, change: &MemberChange) -> Result<(), NotDone> {
        let active: Vec<u64> = self
            .heard
            .keys()
            .copied()
            .filter(|member| self.hears(now, *member))
            .collect();
        let situation = Situation {
            own: self.member,
            seats: &self.seats,
            active: &active,
            progress: &self.core.progress(),
            last_index: self.core.last_index(),
            is_strict: self.is_strict,
        };
        situation.check(id, change)
    }

    fn receive(
        &mut self,
        now: Now,
        from: u64,
        frame: Bytes,
        out: &mut Vec<Effect>,
    ) -> Result<(), Halt> {
        self.heard.insert(from, now.monotonic);
        // A peer is not trusted: what it garbles is lost.
        let Ok(frame) = Frame::decode(frame) else {
            return Ok(());
        };
        match frame {
            Frame::Raft(time, message) => {
                let newest = self.core.receive(from, message)?;
                if self.core.leader() == Some(from) {
                    // Also if this member's clock is ahead: what this leader stamps would else end
                    // early once this member leads (P5).
                    let time = newest.map_or(time, |newest| newest.max(time));
                    self.clock = ClusterClock::new(time, now.monotonic);
                }
            }
            Frame::Forward(term, commands) => self.take_foreign(from, term, &commands, out),
            // What an earlier start of this member asked for had counters of its own.
            Frame::NotDone(incarnation, counter, why) if incarnation == self.incarnation => {
                let (first, last) = (counter, counter);
                out.push(Effect::NotDone { first, last, why });
            }
            Frame::NotDone(..) => {}
            Frame::AskRead(round) if self.core.is_leader() => {
                self.reads.foreign.push((from, round));
            }
            Frame::ReadAt(number, index) => {
                let asked = |round: &mut Round| round.number == number && round.leader == from;
                if let Some(round) = self.reads.out.take_if(asked) {
                    let ids = round.own;
                    out.push(Effect::ReadReady { ids, index });
                }
            }
            Frame::AskRead(_) => {}
            Frame::AskDigest(index) => {
                self.agreement.ask(from, index);
                self.answer_digest(out);
            }
            Frame::Digest(index, digest) => self.agreement.told(from, index, digest),
            Frame::Differs(index) if self.core.leader() == Some(from) => {
                return Err(Halt::Diverged { index });
            }
            Frame::Differs(_) => {}
        }
        Ok(())
    }

    fn take_foreign(&mut self, from: u64, term: u64, commands: &[Bytes], out: &mut Vec<Effect>) {
        for command in commands {
            let Ok(draft) = Draft::received(command) else {
                continue;
            };
            let id = draft.id();
            if id.member != from || id.counter == 0 {
                continue;
            }
            let is_old = term != self.core.term();
            let is_old = is_old && self.core.planted != Some(Planted::TakesOldForwards);
            if !self.core.is_leader() || is_old {
                self.refuse(id, NotDone::LeaderChanged, out);
            } else if self.foreign_bytes + draft.len() > FOREIGN_BYTES {
                self.refuse(id, NotDone::TooMany, out);
            } else {
                self.foreign_bytes += draft.len();
                self.held.push_back(draft);
            }
        }
    }

    /// What a follower has asked may have got lost.
    fn ask_again(&mut self, out: &mut Vec<Effect>) {
        if let Some(round) = &self.reads.out
            && round.leader != self.member
        {
            let frame = Frame::AskRead(round.number).encode();
            let member = round.leader;
            out.push(Effect::Send { member, frame });
        }
    }

    /// Starts a read round if reads wait and none is out.
    fn start_round(&mut self, out: &mut Vec<Effect>) {
        let reads = &mut self.reads;
        let is_asked = !reads.own.is_empty() || !reads.foreign.is_empty();
        if reads.out.is_some() || !is_asked && self.unconfirmed.is_none() {
            return;
        }
        let Some(leader) = self.core.leader() else {
            return;
        };
        let leads = leader == self.member;
        let answers = match self.core.planted {
            Some(Planted::ReadsBeforeCommit) => leads && !self.core.knows_commit(),
            Some(Planted::ReadsUnconfirmed) => leads && self.core.knows_commit(),
            _ => false,
        };
        if leads && !self.core.knows_commit() && !answers || !leads && !is_asked {
            return;
        }
        reads.last += 1;
        let number = reads.last;
        reads.out = Some(Round {
            number,
            leader,
            own: std::mem::take(&mut reads.own),
            foreign: std::mem::take(&mut reads.foreign),
        });
        if answers {
            self.confirmed(number, self.core.committed(), out);
        } else if leads {
            self.core.read_index(number);
        } else {
            let frame = Frame::AskRead(number).encode();
            let member = leader;
            out.push(Effect::Send { member, frame });
        }
    }

    fn send(&self, now: Now, outgoing: Vec<Outgoing>, out: &mut Vec<Effect>) {
        let time = self.clock.at(now.monotonic);
        out.extend(outgoing.into_iter().map(|outgoing| match outgoing {
            Outgoing::Frame(member, frame) => Effect::Send {
                member,
                frame: finish_raft(frame, time),
            },
            Outgoing::State(member) => Effect::SendState { member },
        }));
    }

    /// Starts a read round if one is due, then empties the library.
    fn turn_around(&mut self, now: Now, out: &mut Vec<Effect>) -> Result<(), Halt> {
        loop {
            self.start_round(out);
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
            self.send(now, turn.out, out);
            if !turn.committed.is_empty() {
                out.push(Effect::Apply(turn.committed));
            }
            for (context, index) in turn.reads {
                self.confirmed(context, index, out);
            }
            // A turn may have ended this member's time as leader.
            self.note_role(now, out);
        }
    }

    fn confirmed(&mut self, number: u64, index: u64, out: &mut Vec<Effect>) {
        if self.unconfirmed.is_some_and(|from| number >= from) {
            self.unconfirmed = None;
        }
        // A round that was given up may still answer.
        let Some(round) = self.reads.out.take_if(|round| round.number == number) else {
            return;
        };
        if !round.own.is_empty() {
            let ids = round.own;
            out.push(Effect::ReadReady { ids, index });
        }
        for (member, number) in round.foreign {
            let frame = Frame::ReadAt(number, index).encode();
            out.push(Effect::Send { member, frame });
        }
    }
}
