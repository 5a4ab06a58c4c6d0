//! Who waits for which proposal.
//!
//! Counters rise by one, so the waiters stand in a queue by counter: finding one is arithmetic.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Instant;

use quorate_replica::NotDone;
use quorate_store::Outcome;
use tokio::sync::oneshot;

use super::{LATE, Unavailable};

type Answer = Result<Outcome, Unavailable>;

struct Slot {
    answer: Option<oneshot::Sender<Answer>>,
    bytes: usize,
    deadline: Instant,
}

/// The proposals of this incarnation that are not answered yet.
pub(super) struct Waiters {
    first: u64,
    slots: VecDeque<Slot>,
    bytes: usize,
    open: usize,
}

impl Default for Waiters {
    fn default() -> Self {
        // Counter 0 is nobody's: what the replica proposes by itself.
        Self {
            first: 1,
            slots: VecDeque::new(),
            bytes: 0,
            open: 0,
        }
    }
}

impl Waiters {
    /// The counter that the next [`Self::add`] stands for.
    pub(super) fn next_counter(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.open
    }

    /// How many bytes their commands have.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, bytes: usize, deadline: Instant) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        self.slots.push_back(Slot {
            answer: Some(answer),
            bytes,
            deadline,
        });
        self.bytes += bytes;
        self.open += 1;
        receiver
    }

    pub(super) fn answer(&mut self, counter: u64, answer: Answer) {
        let Some(at) = counter.checked_sub(self.first) else {
            return;
        };
        if let Some(slot) = self.slots.get_mut(at as usize)
            && let Some(sender) = slot.answer.take()
        {
            self.bytes -= slot.bytes;
            self.open -= 1;
            // Whoever asked may be gone.
            let _ = sender.send(answer);
        }
        self.forget_answered();
    }

    /// Tells those that their requests did not happen and never will.
    pub(super) fn not_done(&mut self, counters: RangeInclusive<u64>, why: NotDone) {
        let first = (*counters.start()).max(self.first);
        let last = (*counters.end()).min(self.next_counter() - 1);
        for counter in first..=last {
            self.answer(counter, Err(Unavailable::NotDone(why)));
        }
    }

    /// Tells those who have waited too long. The last counter before those that still may be
    /// answered, if that is new.
    pub(super) fn expire(&mut self, now: Instant) -> Option<u64> {
        let first = self.first;
        while let Some(slot) = self.slots.front()
            && slot.deadline <= now
        {
            self.answer(self.first, Err(LATE));
        }
        (self.first > first).then(|| self.first - 1)
    }

    /// Tells everyone who waits that it is not known what became of the request.
    pub(super) fn give_up(&mut self) {
        for counter in self.first..self.next_counter() {
            self.answer(counter, Err(LATE));
        }
    }

    /// Tells everyone that the member has stopped.
    pub(super) fn close(&mut self) {
        while !self.slots.is_empty() {
            self.answer(self.first, Err(Unavailable::Stopped));
        }
    }

    fn forget_answered(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.answer.is_none()) {
            self.slots.pop_front();
            self.first += 1;
        }
    }
}
