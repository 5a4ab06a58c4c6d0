//! Steps the replica with what has gathered, and performs its effects.
//!
//! One task on the first connection runtime. A turn takes everything that waits, so proposals of
//! one turn become one batch, and answers wake their tasks without leaving the thread.
//!
//! D1. Effects are performed in the order in which the replica gave them.
//! D2. A panic of the replica or the machine ends the member: its promises may be broken.

use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use quorate_replica::{Applied, Boot, Committed, Effect, Input, ReadId, Settings};
use quorate_store::command::Body;
use quorate_store::{Action, Alarm, AlarmBy, AlarmKind, Change, Class, Mark, Role, Store, tree};
use tokio::sync::oneshot;

use super::checkpoint::{Checkpoints, LEAST_GROWTH};
use super::install::{self, Install, Written};
use super::reclaim::Reclaims;
use super::{Inbox, Node, PeerInput, Shared};
use crate::disk::{DiskThread, Persist};
use crate::metrics::Tally;
use crate::peer;

/// Changes cleared up after a compaction in one turn.
const PURGE_CHUNK: usize = 2_000;

/// How long a removed member stays, for the others to learn of it.
const LAST_WORDS: Duration = Duration::from_secs(1);
const REMOVED: &str = "the member has been permanently removed from the cluster; its data directory is \
    of no more use: to come back it must be added again, with an empty one";

pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: DiskThread,
    pub(super) checkpoints: Checkpoints,
    reclaims: Reclaims,
    segment_bytes: u32,
    install: Install,
    settings: Settings,
    /// What was given to the disk and not reported yet.
    persisting: u64,
    /// When this member ends, because the cluster has removed it.
    ends: Option<Instant>,
    reads: Reads,
    effects: Vec<Effect>,
    applied: u64,
    /// The disk was short when it was last looked at.
    was_short: bool,
    /// When the last tick was.
    ticked: Instant,
}

/// Reads on their way through the replica: one id stands for all that came in one turn.
#[derive(Default)]
struct Reads {
    next: ReadId,
    waiting: VecDeque<Read>,
    /// Confirmed at an index that is not applied yet.
    confirmed: Vec<(u64, Vec<oneshot::Sender<()>>)>,
}

struct Read {
    id: ReadId,
    deadline: Instant,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        disk: DiskThread,
        checkpoints: Checkpoints,
        reclaims: Reclaims,
        segment_bytes: u32,
        settings: Settings,
    ) -> Self {
        let applied = shared.machine().applied().0;
        Self {
            shared,
            disk,
            checkpoints,
            reclaims,
            segment_bytes,
            install: Install::None,
            settings,
            persisting: 0,
            ends: None,
            reads: Reads::default(),
            effects: Vec::new(),
            applied,
            was_short: false,
            ticked: Instant::now(),
        }
    }

    /// Runs until the member stops; then ends the disk thread, all that was written synced.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let shared = self.shared.clone();
        self.link();
        let mut tick = tokio::time::interval(shared.config.heartbeat_interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let ticked = tokio::select! {
                biased;
                _ = &mut stop => break,
                // Before the work, or a member that always has some would never tick.
                _ = tick.tick() => true,
                () = shared.wake.notified() => false,
            };
            // D2.
            let turned = catch_unwind(AssertUnwindSafe(|| self.turn(ticked)));
            let stopped = match turned {
                Ok(Ok(())) => continue,
                Ok(Err(reason)) => reason,
                Err(_) => "an invariant is broken; the panic is in the log".into(),
            };
            shared.halt(stopped);
            break;
        }
        shared.close();
        // Joining threads blocks, but the member has ended: a few milliseconds are nobody's.
        self.checkpoints.finish();
        self.reclaims.finish();
        if let Err(failure) = self.disk.stop() {
            tracing::error!(%failure, "the log's last batch could not be written");
        }
    }

    fn turn(&mut self, ticked: bool) -> Result<(), String> {
        let (drafts, reads, done, peers, expired) = {
            let mut inbox = self.shared.inbox();
            let Inbox {
                drafts,
                reads,
                done,
                waiters,
                peers,
                frame_bytes,
                ..
            } = &mut *inbox;
            let expired = ticked.then(|| waiters.expire(Instant::now())).flatten();
            *frame_bytes = 0;
            (
                mem::take(drafts),
                mem::take(reads),
                mem::take(done),
                mem::take(peers),
                expired,
            )
        };
        self.shared.peers.room.notify_waiters();
        for done in done {
            for persisted in done.map_err(|failure| failure.to_string())? {
                let (ready, at) = (persisted.ready, persisted.at);
                self.persisting -= 1;
                self.step(Input::Persisted { ready, at })?;
            }
        }
        for peer in peers {
            self.hear(peer)?;
        }
        if let Some(counter) = expired {
            self.step(Input::Forget { counter })?;
        }
        if !drafts.is_empty() {
            self.step(Input::Propose(drafts))?;
        }
        if !reads.is_empty() {
            let id = self.reads.add(reads, self.shared.deadline());
            self.step(Input::Read(id))?;
        }
        if ticked {
            self.look_for_delay();
            self.look_for_sparse();
            self.reads.expire(Instant::now());
            self.step(Input::Tick)?;
            self.look_for_leader();
            if self.ends.is_some_and(|ends| ends <= Instant::now()) {
                return Err(REMOVED.to_owned());
            }
        }
        self.look_for_install()?;
        self.look_for_room();
        self.tidy();
        self.checkpoints.look(&self.shared, &self.disk)
    }

    fn step(&mut self, input: Input) -> Result<(), String> {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = mem::take(&mut self.effects);
            let now = self.shared.now();
            let stepped = self.shared.replica().step(now, input, &mut effects);
            stepped.map_err(|halt| halt.to_string())?;
            // D1.
            for effect in effects.drain(..) {
                match effect {
                    Effect::Persist {
                        ready,
                        hard,
                        entries,
                        commit,
                    } => {
                        self.checkpoints.grew(&entries);
                        self.persisting += 1;
                        self.disk.persist(Persist {
                            ready,
                            hard,
                            entries,
                            commit,
                        });
                    }
                    Effect::Apply(batch) => inputs.push_back(self.apply(&batch)?),
                    Effect::Send { member, frame } => {
                        self.shared.peers.links.send(member, peer::REPLICA, frame);
                    }
                    Effect::SendState { member } => {
                        peer::send_state(&Node(self.shared.clone()), member);
                    }
                    Effect::Diverged { members, index } => self.tell_diverged(&members, index),
                    Effect::NotDone { first, last, why } => {
                        let mut inbox = self.shared.inbox();
                        inbox.waiters.not_done(first..=last, why);
                    }
                    Effect::ReadReady { ids, index } => {
                        self.reads.confirm(&ids, index);
                    }
                }
            }
            self.effects = effects;
        }
        self.reads.release(self.applied);
        Ok(())
    }

    fn apply(&mut self, batch: &[Committed]) -> Result<Input, String> {
        let Applied {
            outcomes, notice, ..
        } = {
            let mut machine = self.shared.machine_mut();
            let applied = machine.apply(batch, &self.shared.segments.reader());
            let applied = applied.map_err(|halt| halt.to_string())?;
            let store = machine.store();
            let changes = || store.changes(applied.changes_from);
            // N2.
            self.shared.watch_hub.publish(changes());
            self.shared.tree_hub.publish(changes());
            if applied.notice.expired {
                let ended = changes().filter(|change| self.ended(store, change));
                self.shared.metrics.tree.expired(ended.count() as u64);
            }
            let compacted = machine.store().oldest();
            if compacted > self.checkpoints.compacted {
                self.checkpoints.compacted = compacted;
                self.shared.tidy.send_replace(false);
            }
            applied
        };
        self.applied = notice.index;
        if notice.seats.is_some() {
            self.link();
            let removed = self.shared.machine().store().removed().clone();
            Node(self.shared.clone()).end_connections(&removed);
            if removed.contains(&self.shared.member_id) && self.ends.is_none() {
                // The others must hear that it is committed: without its vote they could not.
                self.ends = Some(Instant::now() + LAST_WORDS);
                let now = self.shared.now();
                if let Some(member) = self.shared.replica().successor(now) {
                    self.shared.inbox().peers.push(PeerInput::Transfer(member));
                    self.shared.wake.notify_one();
                }
            }
        }
        let mut tally = Tally::default();
        let mut inbox = self.shared.inbox();
        for (id, outcome) in outcomes {
            tally.add(&id, &outcome);
            if id.member == self.shared.member_id && id.incarnation == self.shared.incarnation {
                inbox.waiters.answer(id.counter, Ok(outcome));
            }
        }
        drop(inbox);
        tally.count(&self.shared.metrics);
        Ok(Input::Applied(notice))
    }

    /// The members' states are not all the same. Those that are known to be wrong have been told to
    /// stop; without a majority of one mind nobody can be believed, and nothing more is to be written.
    fn tell_diverged(&self, members: &[u64], index: u64) {
        let named: Vec<String> = members.iter().map(|id| format!("{id:x}")).collect();
        tracing::error!(
            members = named.join(","),
            index,
            "members have different states at one index; those named are told to stop, and must be \
             removed and added again with empty directories"
        );
        if members.is_empty() {
            let node = Node(self.shared.clone());
            let alarm = Alarm {
                member: 0,
                kind: AlarmKind::Corrupt,
            };
            let (raise, by) = (true, AlarmBy::Member);
            tokio::spawn(async move { node.propose(Body::Alarm { alarm, raise, by }).await });
        }
    }

    fn hear(&mut self, input: PeerInput) -> Result<(), String> {
        self.step(match input {
            PeerInput::Frame(from, frame) => Input::Peer { from, frame },
            PeerInput::Unreachable(member) => Input::Unreachable { member },
            PeerInput::Reachable(member) => Input::Reachable { member },
            PeerInput::StateSent(member, ok) => Input::StateSent { member, ok },
            PeerInput::Transfer(member) => Input::Transfer { member },
            PeerInput::Install(machine, answer) => {
                self.install = Install::Waits(machine, answer);
                return Ok(());
            }
        })
    }

    /// Makes links to the members that there are now.
    fn link(&self) {
        let node = Node(self.shared.clone());
        let own = self.shared.member_id;
        let machine = self.shared.machine();
        let members = machine.store().members().values();
        let others = members.filter(|member| member.id != own);
        let others: Vec<_> = others
            .map(|member| (member.id, member.peer_urls.clone()))
            .collect();
        let is_joining = machine.store().members().is_empty();
        let own = machine.store().members().get(&own);
        let learns = own.is_some_and(|own| own.role == Role::Learner);
        self.shared.learns.store(learns, Ordering::Relaxed);
        drop(machine);
        if is_joining {
            node.links().set(&node, &self.shared.peers.first);
        } else {
            node.links().set(&node, &others);
        }
    }

    /// Puts a received state in place, step by step.
    fn look_for_install(&mut self) -> Result<(), String> {
        self.install = match mem::take(&mut self.install) {
            Install::Waits(machine, answer) => {
                let (index, term) = machine.applied();
                let (is_of_use, leads) = {
                    let replica = self.shared.replica();
                    let leads = replica.status().leader == Some(self.shared.member_id);
                    (!replica.has_entry(index, term), leads)
                };
                if !is_of_use || leads {
                    self.step(Input::Installing(false))?;
                    let _ = answer.send(Ok(()));
                    Install::None
                } else {
                    self.step(Input::Installing(true))?;
                    let rests = self.checkpoints.rest() & self.reclaims.rest();
                    if rests && self.persisting == 0 {
                        let hard = self.shared.replica().hard();
                        let position = self.disk.install(index, hard);
                        let (disk, directory) = self.checkpoints.place();
                        let shared = self.shared.clone();
                        let writes = install::begin(shared, disk, directory, machine, position);
                        Install::Writes(writes, answer)
                    } else {
                        Install::Waits(machine, answer)
                    }
                }
            }
            Install::Writes(writes, answer) if writes.is_finished() => {
                let written = writes.join().map_err(|_| "a thread panicked".to_owned())?;
                // The log does not fit the old state any more.
                let written = written.map_err(|error| {
                    format!("the checkpoint of a received state cannot be written: {error}")
                })?;
                Install::Written(written, answer)
            }
            Install::Written(written, answer) if self.persisting == 0 => {
                self.installed(written)?;
                // Whoever sent it may be gone.
                let _ = answer.send(Ok(()));
                Install::None
            }
            other => other,
        };
        Ok(())
    }

    /// Makes replica and machine anew from a state whose checkpoint is durable.
    fn installed(&mut self, written: Written) -> Result<(), String> {
        let Written {
            machine,
            position,
            bytes,
        } = written;
        let settings = Settings {
            now: self.shared.now(),
            ..self.settings
        };
        let hard = self.shared.replica().hard();
        let boot = Boot::behind(&machine, hard, settings);
        let installed = self.shared.replica().install(boot);
        installed.map_err(|halt| halt.to_string())?;
        let (index, _) = machine.applied();
        let old = {
            let mut current = self.shared.machine_mut();
            let before = current.store().revision();
            let old = mem::replace(&mut *current, *machine);
            // N2.
            self.shared.watch_hub.publish_all(before.next());
            self.shared.tree_hub.publish_all(before.next());
            old
        };
        // An index of millions takes a while to let go.
        std::thread::spawn(move || drop(old));
        self.applied = index;
        self.checkpoints.installed(index, position, bytes);
        self.reclaims.installed();
        self.shared.tidy.send_replace(false);
        // What they asked for may be in the state.
        self.shared.inbox().waiters.give_up();
        self.link();
        tracing::info!(index, "the received state is in place");
        for id in self.reads.again() {
            self.step(Input::Read(id))?;
        }
        Ok(())
    }

    /// Whether a change is the end of a v2 node's ttl. What went with its lease had none.
    fn ended(&self, store: &Store, change: &Change) -> bool {
        let Change {
            class,
            key,
            revision,
            ..
        } = change;
        match class {
            Class::File => {
                let mark = store.file_written_at(key, *revision).map(|file| file.mark);
                let expired = mark.is_some_and(|mark| mark == Mark::shown(Action::Expire));
                let before = || store.file_at(key, revision.previous());
                expired && before().is_some_and(|file| file.limit.deadline().is_some())
            }
            Class::Dir => {
                let values = self.shared.segments.reader();
                let event = tree::Event::of(store, change, &values);
                let event = event.ok().flatten();
                event.is_some_and(|event| {
                    let had_ttl = event.previous.and_then(|node| node.expiration).is_some();
                    event.action == Action::Expire && had_ttl
                })
            }
        }
    }

    /// Whether this tick is so late that a leader's heartbeats were.
    fn look_for_delay(&mut self) {
        let now = Instant::now();
        let since = now.duration_since(mem::replace(&mut self.ticked, now));
        let shared = &self.shared;
        let is_late = since > 2 * shared.config.heartbeat_interval;
        if is_late && !shared.peers.links.is_empty() && shared.replica().leads() {
            shared.metrics.late_heartbeats.one();
        }
    }

    fn look_for_leader(&mut self) {
        let leader = self.shared.replica().status().leader;
        let election = self.shared.config.election_timeout;
        let leadership = &self.shared.leadership;
        if leadership.note(leader, Instant::now(), election) {
            self.shared.metrics.leader_changes.one();
        }
    }

    /// Has live values copied out of segments that hold little else than dead ones.
    fn look_for_sparse(&mut self) {
        if self.checkpoints.is_busy() || !*self.shared.tidy.borrow() {
            return;
        }
        // What two checkpoints cost must be worth it, but for a disk that is short. Then the copies,
        // `least` bytes at most, come out of the reserve, or what is left of the last segment in it.
        let spares = self.shared.space.kept().map_or(0, |kept| kept.segments);
        let least = match (self.was_short, spares) {
            (true, 0) => u64::from(self.segment_bytes / 2),
            (true, _) => LEAST_GROWTH,
            (false, _) => self.checkpoints.cost(),
        };
        let (held, segment_bytes) = (self.checkpoints.held(), self.segment_bytes);
        if self.reclaims.look(&self.shared, held, segment_bytes, least) {
            self.checkpoints.free_early();
        }
    }

    /// When the disk gets short, what nothing needs any more is freed.
    fn look_for_room(&mut self) {
        let is_short = self.shared.space.is_short();
        if is_short && !self.was_short {
            self.checkpoints.free_early();
        }
        self.was_short = is_short;
    }

    /// Clears up a chunk of what compaction left behind.
    fn tidy(&mut self) {
        // Whoever walks wakes the driver when done.
        if *self.shared.tidy.borrow() || self.shared.machine().is_walked() {
            return;
        }
        let mut machine = self.shared.machine_mut();
        let more = machine.purge(PURGE_CHUNK);
        drop(machine);
        if more {
            self.shared.wake.notify_one();
        } else {
            self.shared.tidy.send_replace(true);
            if self.was_short {
                self.checkpoints.free_early();
            }
        }
    }
}

impl Reads {
    /// Those that are to be asked for again.
    fn again(&self) -> Vec<ReadId> {
        self.waiting.iter().map(|read| read.id).collect()
    }

    fn add(&mut self, waiting: Vec<oneshot::Sender<()>>, deadline: Instant) -> ReadId {
        self.next += 1;
        self.waiting.push_back(Read {
            id: self.next,
            deadline,
            waiting,
        });
        self.next
    }

    /// These hold once `index` is applied.
    fn confirm(&mut self, ids: &[ReadId], index: u64) {
        for id in ids {
            let found = self.waiting.iter().position(|read| read.id == *id);
            // A read that waited too long is gone.
            if let Some(read) = found.and_then(|at| self.waiting.remove(at)) {
                self.confirmed.push((index, read.waiting));
            }
        }
    }

    /// Answers those whose index is applied.
    fn release(&mut self, applied: u64) {
        for (_, waiting) in self
            .confirmed
            .extract_if(.., |(index, _)| *index <= applied)
        {
            for read in waiting {
                // Whoever asked may be gone.
                let _ = read.send(());
            }
        }
    }

    /// Lets go of those that have waited too long; their senders dropped say so.
    fn expire(&mut self, now: Instant) {
        while self
            .waiting
            .front()
            .is_some_and(|read| read.deadline <= now)
        {
            self.waiting.pop_front();
        }
    }
}
