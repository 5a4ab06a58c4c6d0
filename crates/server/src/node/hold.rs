//! A running member's state, held still for a snapshot while commands go on.
//!
//! After each look at it, whoever makes the snapshot rests the longer the more requests came meanwhile:
//! making and sending it would else take the cores and the machine's lock from them. Alone on the
//! member, it goes as fast as it can.

use std::cell::Cell;
use std::time::Duration;

use quorate_store::{Store, ValueError, Values};
use tokio::runtime::Handle;

use super::Node;
use crate::snapshot::{Moment, State};

/// What a request is given: some ten times what it costs.
const REST_PER_REQUEST: Duration = Duration::from_micros(400);
/// The longest rest after a look. A snapshot takes 64 KiB of values a look, so it is never slower
/// than some 20 MiB/s, however many requests come.
const LONGEST_REST: Duration = Duration::from_millis(2);

/// Nothing is purged until it is dropped: what compaction leaves behind takes space until then.
///
/// Used by a thread that may wait, of the runtime that the member runs on.
pub(crate) struct Held {
    node: Node,
    rests: Rests,
}

/// Makes way for requests: by those that have come since the last rest.
pub(crate) struct Rests(Cell<u64>);

impl Rests {
    pub(crate) fn new(node: &Node) -> Self {
        Self(Cell::new(node.metrics().requests()))
    }

    /// Sleeps a while, for a thread that may.
    pub(crate) fn rest(&self, node: &Node) {
        let requests = node.metrics().requests();
        let came = requests - self.0.replace(requests);
        std::thread::sleep(rest_after(came));
    }
}

impl Node {
    /// The state of this moment, and what holds it.
    pub(crate) fn hold(&self) -> (Moment, Held) {
        let mut machine = self.0.machine_mut();
        let (_, cursor) = machine.begin_walk();
        let moment = Moment {
            applied: machine.applied(),
            time: machine.time(),
            head: cursor.head().clone(),
        };
        drop(machine);
        let held = Held {
            rests: Rests::new(self),
            node: self.clone(),
        };
        (moment, held)
    }
}

fn rest_after(requests: u64) -> Duration {
    let requests = u32::try_from(requests).unwrap_or(u32::MAX);
    REST_PER_REQUEST.saturating_mul(requests).min(LONGEST_REST)
}

impl State for Held {
    fn look<R>(&self, work: impl FnOnce(&Store) -> R) -> R {
        let done = work(self.node.machine().store());
        self.rests.rest(&self.node);
        done
    }

    fn read<R>(
        &self,
        mut attempt: impl FnMut(&Store, &dyn Values) -> Result<R, ValueError>,
    ) -> Result<R, ValueError> {
        let read = self
            .node
            .read(|machine, values| attempt(machine.store(), values));
        let read = Handle::current().block_on(read);
        self.rests.rest(&self.node);
        read
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.node.end_walk();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_grows_with_the_requests_up_to_its_bound() {
        assert_eq!(rest_after(0), Duration::ZERO);
        assert_eq!(rest_after(2), 2 * REST_PER_REQUEST);
        assert_eq!(rest_after(u64::MAX), LONGEST_REST);
    }
}
