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
        let here = self.nodes.iter().filter(|(_, node)| {
            let removed = node.removed_index;
            !node.is_gone && removed.is_some_and(|index| index <= known)
        });
        for id in here.map(|(id, _)| *id).collect::<Vec<_>>() {
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
