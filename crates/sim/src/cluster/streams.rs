//! States on their way from one member to another, each on a connection of its own.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::network::Pair;
use crate::chance::Chance;

/// Frames under way at once; the sender waits for room.
const MOST_FRAMES: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct Streams(pub(crate) BTreeMap<Pair, Stream>);

#[derive(Debug)]
pub(crate) struct Stream {
    /// The lives of both ends.
    pub(crate) lives: (u64, u64),
    queue: VecDeque<(u64, Bytes)>,
    pub(crate) stage: Stage,
    /// The last frame has left.
    pub(crate) is_sent: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    Begins,
    Goes,
}

impl Stream {
    pub(crate) fn new(lives: (u64, u64), head: Bytes, at_ms: u64) -> Self {
        Self {
            lives,
            queue: VecDeque::from([(at_ms, head)]),
            stage: Stage::Begins,
            is_sent: false,
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        !self.is_sent && self.queue.len() < MOST_FRAMES
    }

    pub(crate) fn push(&mut self, frame: Bytes, now_ms: u64, chance: &mut Chance) {
        let last = self.queue.back().map_or(0, |(at, _)| *at);
        let at = last.max(now_ms + chance.below(20));
        self.queue.push_back((at, frame));
    }

    pub(crate) fn pop(&mut self, now_ms: u64) -> Option<Bytes> {
        let due = self.queue.pop_front_if(|(at, _)| *at <= now_ms);
        due.map(|(_, frame)| frame)
    }
}
