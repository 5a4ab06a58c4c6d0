//! The network: for each ordered pair of members a link, which is a row of connections.
//!
//! A connection keeps the order of what is sent on it. When it breaks, what is under way is lost or
//! still comes, perhaps behind what the next connection brings. No connection outlives the process at
//! either end: what was sent to an earlier life of a member never reaches a later one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::chance::Chance;

/// Who sends, who gets.
pub(crate) type Pair = (u64, u64);

/// What a link tells its two ends.
#[derive(Debug)]
pub(crate) enum News {
    Frame {
        from: u64,
        to: u64,
        frame: Bytes,
    },
    /// The sender reaches it, or no longer.
    Reached {
        from: u64,
        to: u64,
        reached: bool,
    },
}

#[derive(Debug, Default)]
pub(crate) struct Network {
    links: BTreeMap<Pair, Link>,
    /// No connection holds here.
    cut: BTreeSet<Pair>,
    /// Nothing gets through here, and nobody is told.
    stalled: BTreeSet<Pair>,
    /// From connections that broke.
    stray: Vec<(u64, Pair, u64, Bytes)>,
    longest_delay_ms: u64,
}

#[derive(Debug, Default)]
struct Link {
    /// The lives of both ends, while a connection stands.
    lives: Option<(u64, u64)>,
    /// The lives at the last attempt: a process that starts connects at once.
    tried: Option<(u64, u64)>,
    /// When the next attempt to connect is made.
    retry_ms: u64,
    queue: VecDeque<(u64, Bytes)>,
    last_ms: u64,
}

impl Network {
    pub(crate) fn new(longest_delay_ms: u64) -> Self {
        Self {
            longest_delay_ms,
            ..Self::default()
        }
    }

    /// A frame leaves. Lost, if there is no connection.
    pub(crate) fn send(&mut self, pair: Pair, frame: Bytes, now_ms: u64, chance: &mut Chance) {
        let delay = chance.below(self.longest_delay_ms + 1);
        let link = self.links.entry(pair).or_default();
        if link.lives.is_some() {
            link.last_ms = link.last_ms.max(now_ms + delay);
            link.queue.push_back((link.last_ms, frame));
        }
    }

    /// Cuts both ways or one, with or without telling.
    pub(crate) fn cut(&mut self, pair: Pair, silent: bool) {
        if silent {
            self.stalled.insert(pair);
        } else {
            self.cut.insert(pair);
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.stalled.clear();
    }

    pub(crate) fn is_whole(&self, pair: Pair) -> bool {
        !self.cut.contains(&pair) && !self.stalled.contains(&pair)
    }

    /// Whether a stream from one to the other lives on.
    pub(crate) fn holds(&self, pair: Pair) -> bool {
        !self.cut.contains(&pair)
    }

    /// A connection breaks by itself.
    pub(crate) fn break_one(&mut self, pair: Pair, now_ms: u64, chance: &mut Chance) {
        let Some(link) = self.links.get_mut(&pair) else {
            return;
        };
        let Some((_, life)) = link.lives.take() else {
            return;
        };
        link.retry_ms = now_ms + chance.below(300);
        // What the other end's kernel has already may still be read.
        let strays = chance.below(link.queue.len() as u64 + 1);
        for (_, frame) in link.queue.drain(..).take(strays as usize) {
            let at = now_ms + chance.below(200);
            self.stray.push((at, pair, life, frame));
        }
        self.stray.sort_by_key(|(at, ..)| *at);
    }

    /// Moves everything on to `now_ms`; `lives` are those of the members that run.
    pub(crate) fn run(
        &mut self,
        now_ms: u64,
        lives: &BTreeMap<u64, u64>,
        chance: &mut Chance,
    ) -> Vec<News> {
        let mut news = Vec::new();
        for from in lives.keys() {
            for to in lives.keys().filter(|to| *to != from) {
                self.links.entry((*from, *to)).or_default();
            }
        }
        for pair in self.links.keys().copied().collect::<Vec<_>>() {
            let (from, to) = pair;
            let current = lives.get(&from).zip(lives.get(&to));
            let current = current.map(|(a, b)| (*a, *b));
            let was = self.links[&pair].lives;
            if was.is_some() && (was != current || self.cut.contains(&pair)) {
                self.break_one(pair, now_ms, chance);
            }
            let cut = self.cut.contains(&pair) || self.stalled.contains(&pair);
            let link = self.links.get_mut(&pair).expect("just seen");
            if was.is_some() && link.lives.is_none() {
                let reached = false;
                news.push(News::Reached { from, to, reached });
            }
            let is_fresh = current.is_some() && link.tried != current;
            if link.lives.is_none() && (link.retry_ms <= now_ms || is_fresh) {
                link.tried = current;
                if current.is_some() && !cut {
                    link.lives = current;
                    link.last_ms = now_ms;
                } else {
                    link.retry_ms = now_ms + 50 + chance.below(200);
                }
                let reached = link.lives.is_some();
                news.push(News::Reached { from, to, reached });
            }
            if cut {
                continue;
            }
            while let Some((_, frame)) = link.queue.pop_front_if(|(at, _)| *at <= now_ms) {
                news.push(News::Frame { from, to, frame });
            }
        }
        while self.stray.first().is_some_and(|(at, ..)| *at <= now_ms) {
            let (_, (from, to), life, frame) = self.stray.remove(0);
            if lives.get(&to) == Some(&life) {
                news.push(News::Frame { from, to, frame });
            }
        }
        news
    }
}
