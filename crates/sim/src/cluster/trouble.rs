//! What goes wrong: processes end, disks fail, clocks stop, the network breaks.

use super::Cluster;

impl Cluster {
    pub(super) fn cause_trouble(&mut self) {
        self.let_removed_go();
        let calm = self.plan.calm;
        if calm == 0 || !self.chance.one_in(calm) {
            return;
        }
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        let id = match self.leader().filter(|_| self.chance.one_in(3)) {
            Some(leader) => leader,
            None => *self.chance.pick(&ids),
        };
        if self.plan.hunts_leader {
            return self.hunt_leader();
        }
        let is_up = self.nodes[&id].member.is_some();
        match self.chance.below(12) {
            0 if is_up => self.crash(id),
            1 if is_up => self.nodes[&id].draw_fault(&mut self.chance),
            2 if self.plan.odd_clocks => {
                let until = self.now_ms + self.chance.below(4000);
                self.trace
                    .note(format_args!("{}: {id} stops until {until}", self.now_ms));
                let node = self.nodes.get_mut(&id).expect("a member");
                node.paused_ms = until;
            }
            3 if self.plan.odd_clocks => {
                let ms = self.chance.below(100_000_000);
                let node = self.nodes.get_mut(&id).expect("a member");
                node.jump_wall(ms);
            }
            4..=6 => self.cut_something(id, &ids),
            7..=9 => {
                self.trace.note(format_args!("{}: healed", self.now_ms));
                self.network.heal();
            }
            _ => {
                let other = *self.chance.pick(&ids);
                let (pair, now_ms) = ((id, other), self.now_ms);
                self.network.break_one(pair, now_ms, &mut self.chance);
            }
        }
    }

    /// It stops for long, or is cut off and does not know yet.
    fn hunt_leader(&mut self) {
        let Some(leader) = self.leader() else {
            return self.network.heal();
        };
        if self.chance.one_in(2) {
            let node = self.nodes.get_mut(&leader).expect("it leads");
            node.paused_ms = self.now_ms + 2000 + self.chance.below(7000);
            return;
        }
        let others = self.nodes.keys().filter(|id| **id != leader);
        for other in others {
            self.network.cut((leader, *other), false);
            self.network.cut((*other, leader), false);
        }
    }

    fn cut_something(&mut self, id: u64, ids: &[u64]) {
        let silent = self.chance.one_in(2);
        let shape = self.chance.below(6);
        let others: Vec<u64> = ids.iter().copied().filter(|other| *other != id).collect();
        let mut pairs = Vec::new();
        match shape {
            // Alone.
            0 | 1 => pairs.extend(others.iter().flat_map(|o| [(id, *o), (*o, id)])),
            // One way.
            2 => pairs.extend(others.iter().map(|o| (id, *o))),
            3 => pairs.extend(others.iter().map(|o| (*o, id))),
            // One pair, so that others are bridges.
            4 => {
                if !others.is_empty() {
                    let other = *self.chance.pick(&others);
                    pairs.extend([(id, other), (other, id)]);
                }
            }
            // Two halves.
            _ => {
                let side: Vec<bool> = ids.iter().map(|_| self.chance.one_in(2)).collect();
                for (a, at) in ids.iter().zip(&side) {
                    for (b, bt) in ids.iter().zip(&side) {
                        if at != bt {
                            pairs.push((*a, *b));
                        }
                    }
                }
            }
        }
        self.trace.note(format_args!(
            "{}: cut {pairs:?}, silent {silent}",
            self.now_ms
        ));
        pairs
            .into_iter()
            .for_each(|pair| self.network.cut(pair, silent));
    }

    /// A member that was removed runs on until all voters know, for they may need its vote until
    /// then, and some time later never again.
    pub(super) fn let_removed_go(&mut self) {
        let voters: Vec<u64> = self.ledger.store().voters().collect();
        let known = voters.iter().map(|id| self.nodes[id].applied);
        let known = known.min().unwrap_or(0);
        let mut here = Vec::new();
        for (id, node) in &mut self.nodes {
            let is_known = node.removed_index.is_some_and(|index| index <= known);
            let since = node.known_ms.filter(|_| is_known);
            node.known_ms = is_known.then_some(since.unwrap_or(self.now_ms));
            // By then that it is committed is on their disks.
            let long = node.known_ms.is_some_and(|ms| ms + 500 < self.now_ms);
            if long && !node.is_gone {
                here.push(*id);
            }
        }
        for id in here {
            if self.chance.one_in(300) {
                if self.nodes[&id].member.is_some() {
                    self.crash(id);
                }
                let node = self.nodes.get_mut(&id).expect("it was removed");
                node.is_gone = true;
            }
        }
    }
}
