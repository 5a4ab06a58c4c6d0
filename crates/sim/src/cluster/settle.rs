//! Everything is mended: the cluster must come to rest, whole and of use.

use quorate_store::AlarmBy;
use quorate_store::command::Body;

use super::Cluster;
use crate::workload;

/// By then it must, in milliseconds.
const REST_MS: u64 = 60_000;
/// The longest lease or TTL, and then some, in milliseconds.
const LIMITS_MS: u64 = 11_000;

impl Cluster {
    /// # Panics
    /// If the cluster does not come to rest, or is not whole.
    pub(super) fn settle(&mut self) {
        self.mend();
        self.wait("a leader", |cluster| cluster.sure_leader().is_some());
        self.put_something();
        self.wait("rest", Self::is_at_rest);
        let quiet_from = self.now_ms;
        while self.now_ms < quiet_from + LIMITS_MS {
            self.go_on_quietly();
        }
        self.wait("rest", Self::is_at_rest);
        // P5: a leader was there for longer than any of them lasts.
        let model = &self.ledger.model;
        assert!(model.leases.is_empty(), "P5: late: {:?}", model.leases);
        let dues = model.dues();
        assert!(dues.is_empty(), "P5: late: {dues:?}");
        let ids: Vec<u64> = self.ledger.store().members().keys().copied().collect();
        for id in ids {
            let node = self.nodes.get_mut(&id).expect("a member");
            let member = node.member.as_mut().expect("it came to rest");
            self.ledger.check_reads(member, &mut self.chance);
            self.ledger.check_whole(member);
        }
        assert_eq!(self.requests.open_reads(), 0, "every read is answered");
        self.trace.note(format_args!(
            "settled at {}: index {}",
            self.now_ms,
            self.ledger.last_index()
        ));
    }

    fn mend(&mut self) {
        self.trace
            .note(format_args!("{}: all is mended", self.now_ms));
        self.network.heal();
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let node = self.nodes.get_mut(&id).expect("a member");
            node.disk.mend();
            node.paused_ms = 0;
            node.starts_ms = node.starts_ms.min(self.now_ms + 1000);
        }
    }

    fn go_on_quietly(&mut self) {
        self.let_removed_go();
        self.publish();
        self.go_on();
        // Or a checkpoint of small chunks would take minutes.
        for id in self.awake() {
            let node = self.nodes.get_mut(&id).expect("it is awake");
            let member = node.member.as_mut().expect("it is awake");
            for _ in 0..4 {
                member.work_on_checkpoint();
                member.work_on_reclaim();
            }
        }
    }

    fn wait(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let until = self.now_ms + REST_MS;
        while !is_so(self) {
            self.go_on_quietly();
            if self.now_ms >= until {
                let nodes = self.nodes.iter().map(|(id, node)| {
                    let member = node.member.as_ref();
                    let state = member.map(|m| (m.status(), m.machine.applied(), m.is_quiet()));
                    format!("{id}: {state:?}\n")
                });
                let nodes: String = nodes.collect();
                let last = self.ledger.last_index();
                panic!("the cluster does not come to {what}; index {last}, members\n{nodes}");
            }
        }
    }

    /// Whoever leads, if all members agree.
    fn sure_leader(&self) -> Option<u64> {
        let leader = self.leader()?;
        let voters = self.ledger.store().voters();
        let mut voters = voters.filter_map(|id| self.nodes.get(&id)?.member.as_ref());
        let agree = voters.all(|member| member.status().leader == Some(leader));
        agree.then_some(leader)
    }

    fn is_at_rest(&self) -> bool {
        let last = self.ledger.last_index();
        let mut members = self.ledger.store().members().keys();
        let caught_up = members.all(|id| {
            let member = self.nodes.get(id).and_then(|node| node.member.as_ref());
            member.is_some_and(|m| {
                m.machine.applied().0 == last
                    && m.status().committed == last
                    && m.is_quiet()
                    && !m.is_walking()
            })
        });
        caught_up && self.sure_leader().is_some() && self.requests.open_reads() == 0
    }

    /// A write goes through. What clients asked before may still change who leads meanwhile.
    fn put_something(&mut self) {
        let put = Body::Put(workload::plain_put());
        for _ in 0..3 {
            self.wait("a leader", |cluster| cluster.sure_leader().is_some());
            let leader = self.sure_leader().expect("waited for");
            let alarms = self.ledger.model.alarms.clone();
            for alarm in alarms.into_keys() {
                let (raise, by) = (false, AlarmBy::Client);
                self.ask(leader, &Body::Alarm { alarm, raise, by });
            }
            let request = self.ask(leader, &put).expect("it leads");
            let until = self.now_ms + 10_000;
            while self.now_ms < until {
                self.go_on_quietly();
                if self.requests.is_answered(&request) {
                    return;
                }
            }
        }
        panic!("the cluster answers no write");
    }
}
