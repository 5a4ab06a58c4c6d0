//! The Raft library behind our own types: the one module that sees it.
//!
//! Its traps and the order of calls that works are in ../shared/PERFORMANCE.md §4.
//!
//! C1. `on_persist_ready(n)` acknowledges every smaller number: it is called only when all that
//!     was given to the disk up to n is durable.
//! C2. Entries are readable through [`Tail`] before `advance_append_async` forgets them.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_log::{EntryAt, EntryKind};
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Message, MessageType};
use raft::{Config, RawNode, StateRole};
use slog::{Discard, Logger, o};

use crate::Halt;
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
pub(crate) struct Dropped(pub(crate) Vec<Bytes>);

pub(crate) struct Core {
    node: RawNode<Tail>,
    /// Readies at the disk.
    outstanding: VecDeque<u64>,
    last_ready: u64,
    /// For the election timeout, the library's one unseeded choice.
    random: u64,
    role: (u64, StateRole),
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
        let conf = ConfState::from((boot.voters, Vec::new()));
        let mut tail = Tail::new(hard, conf, boot.start);
        for (entry, place) in boot.entries {
            tail.append(to_raft(entry), Some(place));
        }
        let node = RawNode::new(&config, tail, &Logger::root(Discard, o!())).map_err(refused)?;
        let role = (node.raft.term, node.raft.state);
        let mut core = Self {
            node,
            outstanding: VecDeque::new(),
            last_ready: 0,
            random: boot.seed,
            role,
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

    pub(crate) fn tick(&mut self) {
        self.node.tick();
        self.note_role();
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
        let kept = entries.clone();
        let entries = entries.into_iter().map(|data| Entry {
            data,
            ..Entry::default()
        });
        message.set_entries(entries.collect::<Vec<_>>().into());
        match self.node.raft.step(message) {
            Ok(()) => Ok(Ok(())),
            Err(raft::Error::ProposalDropped) => Ok(Err(Dropped(kept))),
            Err(error) => Err(refused(error)),
        }
    }

    /// Starts a round that confirms leadership for reads.
    pub(crate) fn read_index(&mut self, context: u64) {
        self.node.read_index(context.to_le_bytes().to_vec());
    }

    /// Takes the disk's word that a Ready, and all before it, is durable.
    pub(crate) fn persisted(&mut self, ready: u64, at: &[(u64, EntryAt)]) {
        assert_eq!(
            self.outstanding.pop_front(),
            Some(ready),
            "the disk answers in order"
        );
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
    }

    pub(crate) fn applied(&mut self, index: u64) {
        self.node.advance_apply_to(index);
        // A learner may be behind too.
        let is_alone = self.node.raft.prs().iter().count() == 1;
        self.node.mut_store().trim(index, is_alone);
    }

    /// The next thing to do, if there is any.
    pub(crate) fn turn(&mut self) -> Option<Turn> {
        if !self.node.has_ready() {
            return None;
        }
        let mut ready = self.node.ready();
        self.last_ready = ready.number();
        let no_messages =
            ready.take_messages().is_empty() && ready.take_persisted_messages().is_empty();
        assert!(no_messages, "a cluster of one has nobody to write to");
        let entries = ready.take_entries();
        let hard = ready.hs().cloned();
        let must_sync = ready.must_sync();
        let read_states = ready.take_read_states();
        let reads = read_states.iter().map(|state| {
            let context = state.request_ctx[..].try_into().expect("contexts are ours");
            (u64::from_le_bytes(context), state.index)
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
            hard: hard.map(|hard| quorate_log::HardState {
                term: hard.term,
                vote: hard.vote,
                commit: hard.commit,
            }),
            entries: entries.into_iter().map(from_raft).collect(),
            commit: self.committed(),
        });
        if persist.is_some() {
            self.outstanding.push_back(number);
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
        })
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
    let mut out = Entry::default();
    out.set_entry_type(match entry.kind {
        EntryKind::Normal => EntryType::EntryNormal,
        EntryKind::Conf => EntryType::EntryConfChangeV2,
    });
    out.index = entry.index;
    out.term = entry.term;
    out.data = entry.data;
    out
}

fn from_raft(entry: Entry) -> quorate_log::Entry {
    let kind = match entry.get_entry_type() {
        EntryType::EntryNormal => EntryKind::Normal,
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => EntryKind::Conf,
    };
    quorate_log::Entry {
        index: entry.index,
        term: entry.term,
        kind,
        data: entry.data,
    }
}

fn refused(error: raft::Error) -> Halt {
    Halt::Raft(error.to_string())
}
