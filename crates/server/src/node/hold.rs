//! A running member's state, held still for a snapshot while commands go on.

use quorate_store::{Store, ValueError, Values};
use tokio::runtime::Handle;

use super::Node;
use crate::snapshot::{Moment, State};

/// Nothing is purged until it is dropped: what compaction leaves behind takes space until then.
///
/// Used by a thread that may wait, of the runtime that the member runs on.
pub(crate) struct Held(Node);

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
        (moment, Held(self.clone()))
    }
}

impl State for Held {
    fn look<R>(&self, work: impl FnOnce(&Store) -> R) -> R {
        work(self.0.machine().store())
    }

    fn read<R>(
        &self,
        mut attempt: impl FnMut(&Store, &dyn Values) -> Result<R, ValueError>,
    ) -> Result<R, ValueError> {
        let read = self
            .0
            .read(|machine, values| attempt(machine.store(), values));
        Handle::current().block_on(read)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let shared = &self.0.0;
        shared.machine_mut().end_walk();
        shared.wake.notify_one();
    }
}
