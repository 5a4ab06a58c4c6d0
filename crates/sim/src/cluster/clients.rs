//! Clients: they ask any member for anything, and never ask twice.

use quorate_replica::Input;
use quorate_store::command::Body;
use quorate_store::{Life, MemberChange, Role};

use super::Cluster;
use super::requests::ReadKey;
use crate::plan::Fault;
use crate::workload;

/// Before a started member says so again, in milliseconds.
const PUBLISH_EVERY_MS: u64 = 3000;

/// A lease is to be renewed once its leader is confirmed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renewal {
    lease: i64,
    asked_ms: u64,
}

impl Cluster {
    pub(super) fn ask_something(&mut self) {
        self.publish();
        self.ask_who_wakes();
        let awake = self.awake();
        if awake.is_empty() {
            return;
        }
        let id = *self.chance.pick(&awake);
        match self.chance.below(24) {
            0..=7 => {
                let longest = self.plan.sizes.longest_value;
                let body = workload::request(&mut self.chance, &self.ledger.model, longest);
                // Under one nearly everything is refused.
                let raises = matches!(body, Body::Alarm { raise: true, .. });
                if !raises || self.chance.one_in(8) {
                    self.ask(id, &body);
                }
            }
            8..=9 => drop(self.ask_read(id)),
            // Seldom, so that some end.
            10 if self.chance.one_in(3) || self.plan.hunts_leader => self.ask_renewal(),
            12 => {
                let member = self.nodes[&id].member.as_ref().expect("it is awake");
                self.ledger.check_reads(member, &mut self.chance);
            }
            13 if self.chance.one_in(self.plan.change_every) => self.change_members(id),
            14 if self.chance.one_in(60) => {
                let to = *self.chance.pick(&awake);
                if let Some(leader) = self.leader() {
                    self.input(leader, Input::Transfer { member: to });
                }
            }
            _ => {}
        }
    }

    /// Members that have started say so until it is known.
    pub(super) fn publish(&mut self) {
        for id in self.awake() {
            let now_ms = self.now_ms;
            let node = self.nodes.get_mut(&id).expect("it is awake");
            if node.publishes_ms.is_none_or(|at| at > now_ms) {
                continue;
            }
            node.publishes_ms = Some(now_ms + PUBLISH_EVERY_MS);
            let member = node.member.as_ref().expect("it is awake");
            if member.machine.store().members().is_empty() {
                // It does not know the cluster yet.
                node.publishes_ms = Some(now_ms + 100);
                continue;
            }
            let incarnation = member.incarnation();
            let change = MemberChange::Publish {
                name: format!("m{id}"),
                client_urls: vec![format!("http://m{id}:2379")],
                life: Life {
                    directory: u128::from(id),
                    incarnation,
                },
            };
            self.ask(id, &Body::Member { id, change });
        }
    }

    /// Before anything else happens to it.
    fn ask_who_wakes(&mut self) {
        for id in self.awake() {
            let node = self.nodes.get_mut(&id).expect("it is awake");
            let has_slept = std::mem::take(&mut node.paused_ms) > 0;
            for lease in (1..=5).filter(|_| has_slept) {
                let asked_ms = self.now_ms;
                self.renew_now(id, Renewal { lease, asked_ms });
            }
        }
    }

    fn ask_read(&mut self, id: u64) -> Option<ReadKey> {
        let node = self.nodes.get_mut(&id)?;
        let member = node.member.as_mut()?;
        node.counter += 1;
        let key = (id, member.incarnation(), node.counter);
        member.read(node.counter);
        self.requests.ask_read(key);
        Some(key)
    }

    /// Whoever is sure to lead.
    pub(super) fn leader(&self) -> Option<u64> {
        let mut awake = self.awake().into_iter();
        awake.find(|id| {
            let member = self.nodes[id].member.as_ref();
            member.is_some_and(|member| member.leads())
        })
    }

    fn ask_renewal(&mut self) {
        let awake = self.awake();
        let leads = |id: &u64| self.nodes[id].member.as_ref().is_some_and(|m| m.leads());
        // Old leaders are asked as well.
        let leaders: Vec<u64> = awake.into_iter().filter(leads).collect();
        if leaders.is_empty() {
            return;
        }
        let id = *self.chance.pick(&leaders);
        let (lease, asked_ms) = (1 + self.chance.below(5) as i64, self.now_ms);
        let renewal = Renewal { lease, asked_ms };
        // The server asks the leader alone; by a read it is confirmed as well.
        if self.plan.hunts_leader || self.chance.one_in(2) {
            return self.renew_now(id, renewal);
        }
        if let Some(key) = self.ask_read(id) {
            self.renewals.insert(key, renewal);
        }
    }

    /// A read holds: if it stood for a renewal, the leader is confirmed.
    pub(super) fn renew(&mut self, key: ReadKey) {
        if let Some(renewal) = self.renewals.remove(&key) {
            self.renew_now(key.0, renewal);
        }
    }

    fn renew_now(&mut self, id: u64, renewal: Renewal) {
        let node = self.nodes.get_mut(&id).expect("it was asked");
        let now = node.now(self.now_ms);
        let member = node.member.as_mut().expect("it was asked");
        let leads = match self.plan.sizes.fault {
            Some(Fault::RenewsAsleep) => member.leads(),
            _ => member.leads_at(now),
        };
        if !leads || member.renew(now, renewal.lease).is_none() {
            return;
        }
        self.seen.renewed += 1;
        self.trace.note(format_args!(
            "{}: {id} renews lease {}",
            self.now_ms, renewal.lease
        ));
        if let Some(lease) = self.ledger.model.leases.get_mut(&renewal.lease) {
            lease.since = lease.since.max(renewal.asked_ms);
        }
    }

    /// Somebody joins, gets a vote, or leaves.
    fn change_members(&mut self, at: u64) {
        let members: Vec<u64> = self.ledger.store().members().keys().copied().collect();
        let first_newcomer = self.plan.members + 1;
        let joined = self.next_id - first_newcomer;
        let dice = match self.plan.learners_only {
            true => 0,
            false => self.chance.below(5),
        };
        let (id, change) = match dice {
            0 | 1 if joined < self.plan.newcomers => {
                let id = self.next_id;
                self.next_id += 1;
                let role = *self
                    .chance
                    .pick(&[Role::Joining, Role::Joining, Role::Learner]);
                let change = MemberChange::Add {
                    peer_urls: vec![format!("http://m{id}:2380")],
                    role,
                    max_learners: 2,
                };
                (id, change)
            }
            2 if self.plan.newcomers > 0 && members.len() > 1 => {
                (*self.chance.pick(&members), MemberChange::Remove)
            }
            3 => (*self.chance.pick(&members), MemberChange::Promote),
            _ => return,
        };
        self.ask(at, &Body::Member { id, change });
    }
}
