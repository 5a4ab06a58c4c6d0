//! Members of one cluster on one thread from one seed: the production replica, machine, store and log
//! of each over a disk of its own, a network that delays, breaks and is cut, clients, clocks, loss of
//! power, and the checkers.
//!
//! Owns true time and the order in which everything happens. Whatever is wrong panics, with the broken
//! promise's number (`requests`, `ledger`).

mod clients;
mod ledger;
mod network;
mod node;
mod plan;
mod requests;
mod settle;
mod streams;
mod transfer;
mod trouble;

use std::collections::BTreeMap;

use quorate_replica::{Committed, Input};
use quorate_store::command::{Body, Draft};
use quorate_store::{AlarmBy, Command, MemberChange};

pub use plan::ClusterPlan;

use crate::chance::Chance;
use crate::disk::{Crash, SimDisk};
use crate::member::{Down, Happened, Who, first_member};
use crate::trace::Trace;
use clients::Renewal;
use ledger::Ledger;
use network::{Network, News};
use node::Node;
use requests::{ReadKey, Requests};
use streams::Streams;

/// How often things happened that a run should meet.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClusterSeen {
    /// Commands that a client was answered.
    pub answered: u64,
    /// Commands that a client was told not to have happened.
    pub not_done: u64,
    /// Linearizable reads answered.
    pub reads: u64,
    /// Terms in which something was committed.
    pub terms: u64,
    /// States received and put in place.
    pub installed: u64,
    /// Processes that ended.
    pub crashes: u64,
    /// Members that were added, got their vote, or were removed.
    pub changes: u64,
    /// Leases and deadlines that ended by themselves.
    pub ended: u64,
    /// Leases renewed.
    pub renewed: u64,
    /// True time that passed, in milliseconds.
    pub ms: u64,
}

/// Members in their surroundings.
#[derive(Debug)]
pub struct Cluster {
    plan: ClusterPlan,
    chance: Chance,
    trace: Trace,
    now_ms: u64,
    nodes: BTreeMap<u64, Node>,
    network: Network,
    streams: Streams,
    ledger: Ledger,
    requests: Requests,
    renewals: BTreeMap<ReadKey, Renewal>,
    /// Reads that were answered in this turn.
    confirmed: Vec<ReadKey>,
    next_id: u64,
    last_term: u64,
    seen: ClusterSeen,
}

/// Runs a cluster through its trouble, mends everything, and lets it come to rest.
///
/// # Panics
/// If a promise is broken; the message says which.
#[must_use]
pub fn cluster(plan: ClusterPlan, trace: Trace) -> (Trace, ClusterSeen) {
    let mut cluster = Cluster::new(plan, trace);
    let until = cluster.plan.trouble_ms;
    while cluster.now_ms < until {
        cluster.step();
    }
    cluster.settle();
    let mut seen = cluster.seen;
    seen.answered = cluster.requests.answered;
    seen.not_done = cluster.requests.not_done;
    seen.reads = cluster.requests.reads_answered;
    seen.ms = cluster.now_ms;
    (cluster.trace, seen)
}

/// Starts a follower from a disk as it was some time ago, without whatever it has acknowledged since.
///
/// # Panics
/// It must: the follower has to stop, and to say why.
pub fn rolled_back(mut plan: ClusterPlan) {
    (plan.members, plan.newcomers, plan.calm, plan.odd_clocks) = (3, 0, 0, false);
    let mut cluster = Cluster::new(plan, Trace::Silent);
    let mut run = |until: u64, old: Option<(u64, SimDisk)>| {
        if let Some((id, disk)) = old {
            cluster.crash(id);
            let node = cluster.nodes.get_mut(&id).expect("a member");
            (node.disk, node.starts_ms) = (disk, cluster.now_ms);
        }
        while cluster.now_ms < until {
            cluster.step();
        }
        let leader = cluster.leader().expect("nothing went wrong");
        let mut ids = cluster.nodes.keys().copied();
        let follower = ids.find(|id| *id != leader).expect("one of three");
        (
            follower,
            cluster.nodes[&follower].disk.survivors(Crash::Clean),
        )
    };
    let old = run(6_000, None);
    run(12_000, None);
    run(18_000, Some(old));
}

impl Cluster {
    /// Fresh directories, and no member runs yet.
    #[must_use]
    pub fn new(plan: ClusterPlan, trace: Trace) -> Self {
        let ids: Vec<u64> = (1..=plan.members).collect();
        let first: Vec<_> = ids.iter().map(|id| first_member(*id)).collect();
        let node = |id: u64| {
            let first = first.clone();
            let mut node = Node::new(Who { id, first }, plan.sizes.clone(), 0);
            node.disk_pace = plan.disk_pace;
            (id, node)
        };
        let network = Network::new(plan.longest_delay_ms);
        Self {
            chance: Chance::new(plan.seed),
            trace,
            now_ms: 0,
            nodes: ids.into_iter().map(node).collect(),
            network,
            streams: Streams::default(),
            ledger: Ledger::new(first.clone()),
            requests: Requests::default(),
            renewals: BTreeMap::new(),
            confirmed: Vec::new(),
            next_id: plan.members + 1,
            last_term: 1,
            seen: ClusterSeen::default(),
            plan,
        }
    }

    fn step(&mut self) {
        self.cause_trouble();
        self.ask_something();
        self.go_on();
    }

    /// Time passes: members are started, frames come, threads run.
    fn go_on(&mut self) {
        self.now_ms += self.chance.below(12);
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let node = &self.nodes[&id];
            if node.member.is_none() && !node.is_gone && node.starts_ms <= self.now_ms {
                self.start(id);
            }
        }
        self.carry();
        self.move_states();
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            if self.nodes[&id].is_awake(self.now_ms) {
                self.beat(id);
            }
        }
    }

    fn start(&mut self, id: u64) {
        let now_ms = self.now_ms;
        let slow = self.plan.odd_clocks && self.chance.one_in(3);
        let speed = if slow {
            990 + self.chance.below(10)
        } else {
            1000
        };
        let node = self.nodes.get_mut(&id).expect("it is to be started");
        node.counter = 0;
        match node.start(now_ms, speed, &mut self.chance) {
            Ok(found) => {
                self.ledger.reopened(id, &found.entries, found.applied);
                self.trace.note(format_args!(
                    "{now_ms}: {id} started, log behind {}, applied {}, torn {}",
                    found.start, found.applied, found.torn
                ));
                if self.nodes[&id].disk.is_without_power() {
                    self.crash(id);
                }
            }
            Err(down) => self.went_down(id, &down),
        }
    }

    /// Frames arrive.
    fn carry(&mut self) {
        let alive = |(id, node): (&u64, &Node)| node.member.is_some().then_some((*id, node.life));
        let lives: BTreeMap<u64, u64> = self.nodes.iter().filter_map(alive).collect();
        for news in self.network.run(self.now_ms, &lives, &mut self.chance) {
            let (to, input) = match news {
                News::Frame { from, to, frame } => (to, Input::Peer { from, frame }),
                News::Reached { from, to, reached } => {
                    let member = to;
                    let input = match reached {
                        true => Input::Reachable { member },
                        false => Input::Unreachable { member },
                    };
                    (from, input)
                }
            };
            self.input(to, input);
        }
    }

    fn input(&mut self, id: u64, input: Input) {
        let member = self
            .nodes
            .get_mut(&id)
            .and_then(|node| node.member.as_mut());
        if let Some(member) = member {
            member.input(input);
        }
    }

    fn beat(&mut self, id: u64) {
        let mut happened = Vec::new();
        let node = self.nodes.get_mut(&id).expect("it beats");
        let beaten = node.beat(self.now_ms, &mut self.chance, &mut happened);
        let lost_power = node.disk.is_without_power();
        if let Some(member) = &node.member {
            let role = (member.status().leader == Some(id), member.status().term);
            if node.role != role {
                node.role = role;
                let what = if role.0 { "leads" } else { "follows" };
                self.trace
                    .note(format_args!("{}: {id} {what} in {}", self.now_ms, role.1));
            }
        }
        for happened in happened {
            self.see(id, happened);
        }
        // What happened in a turn has happened to the leases when one of them is renewed.
        for key in std::mem::take(&mut self.confirmed) {
            self.renew(key);
        }
        match beaten {
            Err(down) => self.went_down(id, &down),
            Ok(()) if lost_power => self.crash(id),
            Ok(()) => {}
        }
    }

    /// The only excuse for a member to go down by itself is its disk.
    fn went_down(&mut self, id: u64, down: &Down) {
        let disk = &self.nodes[&id].disk;
        let excused = disk.is_without_power() || disk.has_refused();
        assert!(excused, "member {id} went down by itself: {down}");
        self.crash(id);
    }

    fn see(&mut self, id: u64, happened: Happened) {
        let node = &self.nodes[&id];
        let member = node.member.as_ref().expect("it did something");
        let start = (id, member.incarnation());
        match happened {
            Happened::Applied { entries, outcomes } => {
                let mut outcomes = outcomes.into_iter();
                for entry in &entries {
                    let outcome = (!entry.data.is_empty()).then(|| outcomes.next());
                    let outcome = outcome.map(|outcome| outcome.expect("one for each command"));
                    let (now_ms, requests) = (self.now_ms, &mut self.requests);
                    let asked =
                        |command: &Command| requests.committed(command, entry.index, now_ms);
                    let told = outcome.as_ref().map(|(_, outcome)| outcome);
                    if entry.index > self.ledger.last_index() && !self.trace.is_silent() {
                        self.trace
                            .note(format_args!("{now_ms}: {id} applies {}", describe(entry)));
                    }
                    let new = self.ledger.applied(id, entry, told, now_ms, asked);
                    self.seen.terms += u64::from(entry.term > self.last_term);
                    self.last_term = self.last_term.max(entry.term);
                    if let Some(new) = new {
                        self.note(&new);
                    }
                    if let Some((request, _)) = outcome
                        && (request.member, request.incarnation) == start
                    {
                        self.requests.applied(request, entry.index);
                    }
                }
            }
            Happened::ReadHolds(number, index) => {
                let shown = member.machine.applied().0;
                let key = (start.0, start.1, number);
                self.requests.read(key, index, shown);
                self.confirmed.push(key);
            }
            Happened::CheckpointTaken(index) => {
                self.trace
                    .note(format_args!("{}: {id} checkpoint {index}", self.now_ms));
            }
            Happened::Sends(to, frame) => {
                let (now_ms, chance) = (self.now_ms, &mut self.chance);
                self.network.send((id, to), frame, now_ms, chance);
            }
            Happened::SendsState(to) => self.send_state(id, to),
            Happened::NotDone { first, last, .. } => {
                self.trace.note(format_args!(
                    "{}: {id} not done {first}..={last}",
                    self.now_ms
                ));
                self.requests.not_done(start, first, last);
            }
            Happened::Installed(index) => {
                self.trace
                    .note(format_args!("{}: {id} installed {index}", self.now_ms));
                self.seen.installed += 1;
                self.requests.give_up(start);
                for number in self.requests.give_up_reads(start) {
                    self.renewals.remove(&(start.0, start.1, number));
                }
            }
        }
    }

    /// What the surroundings do about a command that is committed.
    fn note(&mut self, new: &ledger::New) {
        let is_own = new.id.counter == 0;
        let Body::Member { id, change } = &new.body else {
            self.seen.ended += u64::from(is_own && new.is_ok);
            return;
        };
        if !new.is_ok {
            return;
        }
        match change {
            MemberChange::Add { .. } => {
                self.seen.changes += 1;
                let first = Vec::new();
                let starts_ms = self.now_ms + self.chance.below(500);
                let sizes = self.plan.sizes.clone();
                let node = Node::new(Who { id: *id, first }, sizes, starts_ms);
                self.nodes.insert(*id, node);
            }
            MemberChange::Remove => {
                self.seen.changes += 1;
                // What it has raised for itself leaves with it; the model knows no members.
                let alarms = &mut self.ledger.model.alarms;
                alarms.retain(|alarm, by| alarm.member != *id || *by == AlarmBy::Client);
                if let Some(node) = self.nodes.get_mut(id) {
                    node.removed_index = Some(new.index);
                }
            }
            MemberChange::Promote | MemberChange::Alone => self.seen.changes += 1,
            MemberChange::Publish { .. } => {
                if let Some(node) = self.nodes.get_mut(id) {
                    node.publishes_ms = None;
                }
            }
            MemberChange::Update { .. } => {}
        }
    }

    /// A process ends, as by kill -9 or a loss of power.
    fn crash(&mut self, id: u64) {
        let crash = match self.chance.below(4) {
            0 => Crash::Clean,
            1 => Crash::Lost,
            _ => Crash::Torn {
                seed: self.chance.next(),
                sector_bytes: self.plan.sizes.sector_bytes,
            },
        };
        let starts_ms = self.now_ms + self.chance.below(4000);
        let node = self.nodes.get_mut(&id).expect("it runs");
        if let Some(member) = &node.member {
            let start = (id, member.incarnation());
            self.requests.give_up(start);
            for number in self.requests.give_up_reads(start) {
                self.renewals.remove(&(start.0, start.1, number));
            }
        }
        node.end(crash, starts_ms);
        if self.chance.one_in(3) {
            node.rot_newest_checkpoint(&mut self.chance);
        }
        self.seen.crashes += 1;
        self.trace
            .note(format_args!("{}: {id} is gone by {crash:?}", self.now_ms));
    }

    /// A client asks a member.
    fn ask(&mut self, id: u64, body: &Body) -> Option<quorate_store::command::RequestId> {
        let now_ms = self.now_ms;
        let node = self.nodes.get_mut(&id)?;
        let wall = node.now(now_ms).wall;
        let member = node.member.as_mut()?;
        node.counter += 1;
        let request = member.request_id(node.counter);
        let draft = || Draft::new(request, wall, body);
        self.requests.ask(request, draft(), now_ms);
        member.propose(draft());
        Some(request)
    }

    /// Members that run and are not stopped.
    fn awake(&self) -> Vec<u64> {
        let awake = self.nodes.iter().filter(|(_, n)| n.is_awake(self.now_ms));
        awake.map(|(id, _)| *id).collect()
    }
}

fn describe(entry: &Committed) -> String {
    let of = format!("{} of term {}", entry.index, entry.term);
    let Ok(command) = Command::decode(&entry.data) else {
        return of;
    };
    let Command { id, time, body, .. } = command;
    let body: String = format!("{body:?}").chars().take(160).collect();
    let id = (id.member, id.incarnation, id.counter);
    format!("{of} at {}, request {id:?}: {body}", time.0)
}
