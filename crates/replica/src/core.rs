//! The Raft library behind our own types: the one module that sees it.
//!
//! Its traps and the order of calls that works are in ../shared/PERFORMANCE.md §4.
//!
//! C1. `on_persist_ready(n)` acknowledges every smaller number: it is called only when all that
//!     was given to the disk up to n is durable.
//! C2. Entries are readable through [`Tail`] before `advance_append_async` forgets them.
//! C3. A message of a Ready leaves once that Ready and all before it are durable. What may leave at
//!     once (a leader's, answers to heartbeats) does so only if the term is durable.
//! C4. The library never sees that an entry changes the configuration: whoever proposes sees to it
//!     that there is one at a time (`replica::conf`), and it is told when one was applied.

mod codec;

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use quorate_log::{EntryAt, EntryKind};
use quorate_store::ClusterTime;
use quorate_store::Command;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, HardState,
    Message, MessageType,
};
use raft::{Config, ProgressState, RawNode, SnapshotStatus, StateRole};
use slog::{Discard, Logger, o};

use crate::Halt;
use crate::frame::HEAD;
use crate::planted::Planted;
use crate::replica::{Boot, Committed};
use crate::tail::Tail;

/// What one Ready asks for.
#[derive(Debug)]
pub(crate) struct Turn {
    /// Goes to the disk; none when there is nothing new to promise.
    pub(crate) persist: Option<Persist>,
    pub(crate) committed: Vec<Committed>,
    /// (context, index) of read rounds that are confirmed.
    pub(crate) reads: Vec<(u64, u64)>,
    /// What may leave now.
    pub(crate) out: Vec<Outgoing>,
}

/// What goes to another member.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A message, behind room for a frame's head.
    Frame(u64, Vec<u8>),
    /// It is too far behind: the state must be sent.
    State(u64),
}

/// What the disk is to make durable.
#[derive(Debug)]
pub(crate) struct Persist {
    pub(crate) ready: u64,
    pub(crate) hard: Option<quorate_log::HardState>,
    pub(crate) entries: Vec<quorate_log::Entry>,
    pub(crate) commit: u64,
}

/// The library refused a batch for now.
#[derive(Debug)]
pub(crate) struct Dropped;

/// A Ready at the disk.
struct Outstanding {
    ready: u64,
    /// It carries a new term or vote.
    promises: bool,
    /// What leaves once it is durable.
    out: Vec<Outgoing>,
}

/// How far another member is, as the leader sees it.
#[derive(Clone, Copy, Debug)]
pub struct PeerProgress {
    /// Its id.
    pub member: u64,
    /// The last index that it is known to have.
    pub matched: u64,
    /// It has been heard of since about an election timeout.
    pub is_active: bool,
    /// It is being sent the state.
    pub gets_state: bool,
}

pub(crate) struct Core {
    node: RawNode<Tail>,
    outstanding: VecDeque<Outstanding>,
    last_ready: u64,
    /// Term and vote as last given to the disk.
    promised: (u64, u64),
    /// For the election timeout, the library's one unseeded choice.
    random: u64,
    role: (u64, StateRole),
    /// Another state is about to take this one's place.
    installing: bool,
    pub(crate) planted: Option<Planted>,
}

impl Core {
    pub(crate) fn new(boot: Boot) -> Result<Self, Halt> {
        let config = Config {
            id: boot.member,
            election_tick: boot.election_ticks,
            heartbeat_tick: 1,
            applied: boot.applied,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 32,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: 64 << 20,
            max_committed_size_per_ready: 4 << 20,
            ..Config::default()
        };
        let mut hard = HardState::default();
        hard.term = boot.hard.term;
        hard.vote = boot.hard.vote;
        hard.commit = boot.hard.commit;
        let conf = ConfState::from((boot.voters, boot.learners));
        let mut tail = Tail::new(hard, conf, boot.start, boot.applied);
        for (entry, place) in boot.entries {
            tail.append(to_raft(entry), Some(place));
        }
        let node = RawNode::new(&config, tail, &Logger::root(Discard, o!())).map_err(refused)?;
        let role = (node.raft.term, node.raft.state);
        let mut core = Self {
            promised: (boot.hard.term, boot.hard.vote),
            node,
            outstanding: VecDeque::new(),
            last_ready: 0,
            random: boot.seed,
            role,
            installing: false,
            planted: None,
        };
        core.draw_election_timeout();
        Ok(core)
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    pub(crate) fn leader(&self) -> Option<u64> {
        Some(self.node.raft.leader_id).filter(|&id| id != 0)
    }

    pub(crate) fn term(&self) -> u64 {
        self.node.raft.term
    }

    pub(crate) fn committed(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    pub(crate) fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    /// The newest stamp of the entries in memory, which are all that are not applied.
    pub(crate) fn last_stamp(&self) -> Option<ClusterTime> {
        let entries = self.node.store().newest_first();
        entries.filter_map(|data| Command::stamp_of(data)).next()
    }

    /// Term and vote that may be given out, and how far the log is known: for a member that starts
    /// anew from a received state.
    pub(crate) fn hard(&self) -> quorate_log::HardState {
        quorate_log::HardState {
            term: self.node.raft.term,
            vote: self.node.raft.vote,
            commit: self.committed(),
        }
    }

    /// Whether this member's log has this entry, or will be rid of it never.
    pub(crate) fn has_entry(&self, index: u64, term: u64) -> bool {
        index <= self.committed() || self.node.raft.raft_log.term(index) == Ok(term)
    }

    /// Whether the leader has committed an entry of its own term, before which it cannot know
    /// what is committed.
    pub(crate) fn knows_commit(&self) -> bool {
        self.is_leader() && self.node.raft.commit_to_current_term()
    }

    /// Whether this member alone is the quorum.
    pub(crate) fn is_lone_voter(&self) -> bool {
        let voters = self.node.raft.prs().conf().voters().ids();
        voters.len() == 1 && voters.contains(self.node.raft.id)
    }

    /// Whether no other member is known.
    fn is_alone(&self) -> bool {
        let others = self.node.raft.prs().iter();
        others.filter(|(id, _)| **id != self.node.raft.id).count() == 0
    }

    /// Until it ends, the log takes no entries, and there is no election.
    pub(crate) fn set_installing(&mut self, installing: bool) {
        assert!(
            !installing || !self.is_leader(),
            "a leader installs nothing"
        );
        self.installing = installing;
    }

    pub(crate) fn tick(&mut self) -> Result<(), Halt> {
        if self.installing {
            return Ok(());
        }
        if self.is_lone_voter() && !self.is_leader() {
            // It wins at once, and the library wants everything durable then.
            if self.outstanding.is_empty() {
                self.campaign()?;
            }
            return Ok(());
        }
        self.node.tick();
        self.note_role();
        self.look_after_pins();
        Ok(())
    }

    /// Stands for election. A lone voter does so at once, when nothing is at the disk.
    pub(crate) fn campaign(&mut self) -> Result<(), Halt> {
        assert!(
            self.outstanding.is_empty(),
            "no election while a sync is out"
        );
        self.node.campaign().map_err(refused)?;
        self.note_role();
        Ok(())
    }

    /// Appends entries to the log, all or none.
    pub(crate) fn propose(&mut self, entries: Vec<Bytes>) -> Result<Result<(), Dropped>, Halt> {
        assert!(self.is_leader() && !entries.is_empty());
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.node.raft.id;
        let entries = entries.into_iter().map(|data| Entry {
            data,
            ..Entry::default()
        });
        message.set_entries(entries.collect::<Vec<_>>().into());
        match self.node.raft.step(message) {
            Ok(()) => Ok(Ok(())),
            Err(raft::Error::ProposalDropped) => Ok(Err(Dropped)),
            Err(error) => Err(refused(error)),
        }
    }

    /// Whether proposals would be dropped because leadership is being handed over.
    pub(crate) fn is_transferring(&self) -> bool {
        self.node.raft.lead_transferee.is_some()
    }

    /// Hands leadership over, if `to` votes.
    pub(crate) fn transfer(&mut self, to: u64) {
        self.node.transfer_leader(to);
        self.note_role();
    }

    /// Starts a round that confirms leadership for reads.
    pub(crate) fn read_index(&mut self, context: u64) {
        self.node.read_index(context.to_le_bytes().to_vec());
    }

    /// Takes a frame of another member. The newest stamp of its entries, if it has some.
    pub(crate) fn receive(&mut self, from: u64, frame: Bytes) -> Result<Option<ClusterTime>, Halt> {
        let id = self.node.raft.id;
        let Ok(message) = codec::decode(from, id, frame) else {
            // A peer is not trusted: what it garbles is lost.
            return Ok(None);
        };
        let kind = message.get_msg_type();
        if self.installing && matches!(kind, MessageType::MsgAppend | MessageType::MsgTimeoutNow) {
            return Ok(None);
        }
        if kind == MessageType::MsgTimeoutNow && self.is_lone_voter() {
            // It wins at once; the next tick sees to it that nothing is at the disk then.
            return Ok(None);
        }
        self.check(&message)?;
        let stamps = message.entries.iter().rev();
        let newest = stamps
            .filter_map(|entry| Command::stamp_of(&entry.data))
            .next();
        match self.node.step(message) {
            Ok(()) | Err(raft::Error::StepPeerNotFound) => {}
            Err(error) => return Err(refused(error)),
        }
        self.note_role();
        Ok(newest)
    }

    /// What the library would panic over: a leader that has committed what we do not have, or
    /// something else than what we have, though it was told that we do.
    fn check(&self, message: &Message) -> Result<(), Halt> {
        if message.term < self.term() {
            return Ok(());
        }
        let log = &self.node.raft.raft_log;
        let kind = message.get_msg_type();
        if kind == MessageType::MsgHeartbeat && message.commit > log.last_index() {
            return Err(Halt::LostEntries {
                commit: message.commit,
                last: log.last_index(),
            });
        }
        if kind == MessageType::MsgAppend && message.index >= log.committed {
            return Ok(());
        }
        let differs = message.entries.iter().find(|entry| {
            let is_kept = entry.index > self.node.store().start().0;
            is_kept && entry.index <= log.committed && log.term(entry.index) != Ok(entry.term)
        });
        match differs {
            Some(entry) if kind == MessageType::MsgAppend => Err(Halt::Contradiction {
                index: entry.index,
                term: entry.term,
            }),
            _ => Ok(()),
        }
    }

    /// Nothing reaches a member for now.
    pub(crate) fn unreachable(&mut self, member: u64) {
        self.node.report_unreachable(member);
    }

    /// The state was sent to a member, or was not.
    pub(crate) fn state_sent(&mut self, member: u64, ok: bool) {
        let status = if ok {
            SnapshotStatus::Finish
        } else {
            self.node.mut_store().unpin(member);
            SnapshotStatus::Failure
        };
        self.node.report_snapshot(member, status);
    }

    /// Entries are kept for a member until it is in step again, or away.
    fn look_after_pins(&mut self) {
        let last = self.last_index();
        for member in self.node.store().pinned() {
            let progress = self.node.raft.prs().get(member);
            match progress.filter(|_| self.is_leader()) {
                Some(progress) if progress.state == ProgressState::Replicate => {
                    if progress.matched + 1000 >= last {
                        self.node.mut_store().unpin(member);
                    } else {
                        let matched = progress.matched;
                        self.node.mut_store().pin(member, matched);
                    }
                }
                Some(progress) if progress.recent_active => {}
                _ => self.node.mut_store().unpin(member),
            }
        }
    }

    /// How far the others are; meaningful on the leader.
    pub(crate) fn progress(&self) -> Vec<PeerProgress> {
        let own = self.node.raft.id;
        let others = self.node.raft.prs().iter().filter(|(id, _)| **id != own);
        let others = others.map(|(id, progress)| PeerProgress {
            member: *id,
            matched: progress.matched,
            is_active: progress.recent_active,
            gets_state: progress.state == ProgressState::Snapshot,
        });
        others.collect()
    }

    /// C4: the configuration is this from now on.
    pub(crate) fn configure(
        &mut self,
        voters: &BTreeSet<u64>,
        learners: &BTreeSet<u64>,
    ) -> Result<(), Halt> {
        let conf = self.node.raft.prs().conf().to_conf_state();
        let old_voters: BTreeSet<u64> = conf.voters.iter().copied().collect();
        let old_learners: BTreeSet<u64> = conf.learners.iter().copied().collect();
        if self.is_leader() && !voters.contains(&self.node.raft.id) {
            self.step_down(voters);
        }
        let gone = old_voters.union(&old_learners);
        let gone = gone.filter(|id| !voters.contains(id) && !learners.contains(id));
        let gone = gone.map(|id| (ConfChangeType::RemoveNode, *id));
        let vote = voters.difference(&old_voters);
        let vote = vote.map(|id| (ConfChangeType::AddNode, *id));
        let learn = learners.difference(&old_learners);
        let learn = learn.map(|id| (ConfChangeType::AddLearnerNode, *id));
        // Those that come first: there is always one that votes.
        for (kind, node_id) in vote.chain(learn).chain(gone).collect::<Vec<_>>() {
            let mut single = ConfChangeSingle::default();
            single.set_change_type(kind);
            single.node_id = node_id;
            let mut change = ConfChangeV2::default();
            change.set_changes(vec![single].into());
            self.node.apply_conf_change(&change).map_err(refused)?;
        }
        self.note_role();
        Ok(())
    }

    /// This leader does not vote any more. The library would let it go on, and count it: its reads
    /// would hold by its own word.
    fn step_down(&mut self, voters: &BTreeSet<u64>) {
        let progress = self.progress().into_iter();
        let able = progress.filter(|peer| voters.contains(&peer.member) && peer.is_active);
        if let Some(next) = able.max_by_key(|peer| peer.matched) {
            self.node.raft.send_timeout_now(next.member);
        }
        self.node.raft.become_follower(self.term(), 0);
        self.note_role();
    }

    /// Takes the disk's word that a Ready, and all before it, is durable. What may leave now.
    pub(crate) fn persisted(&mut self, ready: u64, at: &[(u64, EntryAt)]) -> Vec<Outgoing> {
        let done = self.outstanding.pop_front().expect("the disk was asked");
        assert_eq!(done.ready, ready, "the disk answers in order");
        for (index, place) in at {
            self.node.mut_store().placed(*index, *place);
        }
        // C1.
        let durable = if self.outstanding.is_empty() {
            self.last_ready
        } else {
            ready
        };
        self.node.on_persist_ready(durable);
        self.note_role();
        done.out
    }

    pub(crate) fn applied(&mut self, index: u64) {
        self.node.advance_apply_to(index);
        // A learner may be behind too.
        let is_alone = self.is_alone();
        self.node.mut_store().trim(index, is_alone);
    }

    /// The next thing to do, if there is any.
    pub(crate) fn turn(&mut self) -> Option<Turn> {
        if !self.node.has_ready() {
            return None;
        }
        let mut ready = self.node.ready();
        self.last_ready = ready.number();
        let at_once = ready.take_messages();
        let in_order = ready.take_persisted_messages();
        let entries = ready.take_entries();
        let hard = ready.hs().cloned();
        let must_sync = ready.must_sync();
        let read_states = ready.take_read_states();
        let reads = read_states.iter().filter_map(|state| {
            let context = state.request_ctx[..].try_into().ok()?;
            Some((u64::from_le_bytes(context), state.index))
        });
        let reads = reads.collect();
        let committed = ready.take_committed_entries();
        let number = ready.number();
        // C2.
        for entry in &entries {
            self.node.mut_store().append(entry.clone(), None);
        }
        self.node.advance_append_async(ready);
        let persist = must_sync.then(|| Persist {
            ready: number,
            hard: hard.as_ref().map(|hard| quorate_log::HardState {
                term: hard.term,
                vote: hard.vote,
                commit: hard.commit,
            }),
            entries: entries.into_iter().map(from_raft).collect(),
            commit: self.committed(),
        });
        let promised = hard.map_or(self.promised, |hard| (hard.term, hard.vote));
        let promises = promised != self.promised;
        self.promised = promised;
        assert!(!promises || must_sync, "a new term or vote is a promise");
        if must_sync {
            let out = Vec::new();
            self.outstanding.push_back(Outstanding {
                ready: number,
                promises,
                out,
            });
        } else if self.outstanding.is_empty() {
            // C1: nothing to wait for, and the library keeps a record until it is told.
            self.node.on_persist_ready(number);
        }
        let committed = committed
            .into_iter()
            .map(|entry| self.commit(entry))
            .collect();
        Some(Turn {
            persist,
            committed,
            reads,
            out: self.release(at_once, in_order),
        })
    }

    /// C3: what may leave now; the rest waits for the disk.
    fn release(&mut self, at_once: Vec<Message>, in_order: Vec<Message>) -> Vec<Outgoing> {
        let mut is_term_durable = !self.outstanding.iter().any(|waiting| waiting.promises);
        is_term_durable |= self.planted == Some(Planted::LeadsEarly);
        let mut out = Vec::new();
        let messages = at_once
            .into_iter()
            .map(|message| (message, true))
            .chain(in_order.into_iter().map(|message| (message, false)));
        for (message, leaves_at_once) in messages {
            let kind = message.get_msg_type();
            let leaves_at_once =
                is_term_durable && (leaves_at_once || kind == MessageType::MsgHeartbeatResponse);
            let leaves_at_once = leaves_at_once || self.planted == Some(Planted::SendsEarly);
            let to = message.to;
            let outgoing = if kind == MessageType::MsgSnapshot {
                let index = message.get_snapshot().get_metadata().index;
                self.node.mut_store().pin(to, index);
                Outgoing::State(to)
            } else {
                match codec::encode(&message, HEAD) {
                    Some(frame) => Outgoing::Frame(to, frame),
                    None => continue,
                }
            };
            match self.outstanding.back_mut() {
                Some(last) if !leaves_at_once => last.out.push(outgoing),
                _ => out.push(outgoing),
            }
        }
        out
    }

    fn commit(&self, entry: Entry) -> Committed {
        let place = self.node.store().place(entry.index);
        let place = place.expect("what is committed here is durable here");
        Committed {
            index: entry.index,
            term: entry.term,
            data: entry.data,
            place,
        }
    }

    fn note_role(&mut self) {
        let role = (self.node.raft.term, self.node.raft.state);
        if role != self.role {
            self.role = role;
            self.draw_election_timeout();
        }
    }

    /// SplitMix64: chance comes from the seed alone.
    fn draw_election_timeout(&mut self) {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let base = self.node.raft.election_timeout();
        self.node
            .raft
            .set_randomized_election_timeout(base + (mixed as usize % base));
    }
}

fn to_raft(entry: quorate_log::Entry) -> Entry {
    Entry {
        entry_type: EntryType::EntryNormal,
        index: entry.index,
        term: entry.term,
        data: entry.data,
        ..Entry::default()
    }
}

fn from_raft(entry: Entry) -> quorate_log::Entry {
    quorate_log::Entry {
        index: entry.index,
        term: entry.term,
        kind: EntryKind::Normal,
        data: entry.data,
    }
}

fn refused(error: raft::Error) -> Halt {
    Halt::Raft(error.to_string())
}
