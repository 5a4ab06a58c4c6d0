//! States between members.

use quorate_replica::Input;

use super::Cluster;
use super::streams::{Stage, Stream};

impl Cluster {
    pub(super) fn send_state(&mut self, from: u64, to: u64) {
        let life = |id: u64| {
            let node = self.nodes.get(&id)?;
            node.member.is_some().then_some(node.life)
        };
        let lives = life(from).zip(life(to));
        let whole = self.network.is_whole((from, to)) && self.network.is_whole((to, from));
        let Some(lives) = lives.filter(|_| whole) else {
            let (member, ok) = (to, false);
            self.input(from, Input::StateSent { member, ok });
            return;
        };
        self.break_stream((from, to), false);
        let sender = self.nodes.get_mut(&from).expect("it sends");
        let sender = sender.member.as_mut().expect("it sends");
        let head = sender.begin_sending(to);
        let stream = Stream::new(lives, head, self.now_ms + self.chance.below(20));
        self.streams.0.insert((from, to), stream);
        self.trace
            .note(format_args!("{}: {from} sends {to} its state", self.now_ms));
    }

    /// Moves every state that is under way.
    pub(super) fn move_states(&mut self) {
        for pair in self.streams.0.keys().copied().collect::<Vec<_>>() {
            let (from, to) = pair;
            let stream = &self.streams.0[&pair];
            let life = |id: u64| {
                let node = self.nodes.get(&id)?;
                node.member.is_some().then_some(node.life)
            };
            let holds = self.network.holds(pair) && self.network.holds((to, from));
            if life(from).zip(life(to)) != Some(stream.lives) || !holds {
                self.break_stream(pair, true);
                continue;
            }
            self.send_on(pair);
            self.take_on(pair);
        }
    }

    fn send_on(&mut self, pair: (u64, u64)) {
        let (from, to) = pair;
        let node = self.nodes.get_mut(&from).expect("it sends");
        let stream = self.streams.0.get_mut(&pair).expect("it goes");
        if !node.is_awake(self.now_ms) || !stream.has_room() || !self.chance.one_in(3) {
            return;
        }
        let member = node.member.as_mut().expect("it is awake");
        match member.send_more(to, 16 * node.plan.chunk_keys) {
            Some((frame, is_last)) => {
                stream.push(frame, self.now_ms, &mut self.chance);
                stream.is_sent = is_last;
            }
            // It has another state itself meanwhile, or no power.
            None => self.break_stream(pair, true),
        }
    }

    fn take_on(&mut self, pair: (u64, u64)) {
        let (from, to) = pair;
        let node = self.nodes.get_mut(&to).expect("it receives");
        let Some(stream) = self.streams.0.get_mut(&pair) else {
            return;
        };
        if !node.is_awake(self.now_ms) || !self.network.is_whole(pair) {
            return;
        }
        let member = node.member.as_mut().expect("it is awake");
        if stream.stage == Stage::Goes && member.incoming().is_idle() {
            return self.end_stream(from, to, true);
        }
        let Some(frame) = stream.pop(self.now_ms) else {
            return;
        };
        match stream.stage {
            Stage::Begins => match member.begin_receiving(frame) {
                Some(true) => stream.stage = Stage::Goes,
                Some(false) => self.end_stream(from, to, true),
                None => self.end_stream(from, to, false),
            },
            Stage::Goes => member.incoming().frame(frame),
        }
    }

    fn end_stream(&mut self, from: u64, to: u64, ok: bool) {
        self.streams.0.remove(&(from, to));
        let node = self.nodes.get_mut(&from);
        if let Some(sender) = node.and_then(|node| node.member.as_mut()) {
            sender.end_sending(to);
            sender.input(Input::StateSent { member: to, ok });
        }
        self.trace
            .note(format_args!("{}: {from} sent {to}: {ok}", self.now_ms));
    }

    /// The connection is gone; whoever is left is told.
    pub(super) fn break_stream(&mut self, pair: (u64, u64), tells: bool) {
        let Some(stream) = self.streams.0.remove(&pair) else {
            return;
        };
        let (from, to) = pair;
        if let Some(node) = self.nodes.get_mut(&from)
            && node.life == stream.lives.0
            && let Some(sender) = &mut node.member
        {
            sender.end_sending(to);
            if tells {
                let (member, ok) = (to, false);
                sender.input(Input::StateSent { member, ok });
            }
        }
        if let Some(node) = self.nodes.get_mut(&to)
            && node.life == stream.lives.1
            && stream.stage == Stage::Goes
            && let Some(receiver) = &mut node.member
        {
            receiver.incoming().give_up();
        }
    }
}
