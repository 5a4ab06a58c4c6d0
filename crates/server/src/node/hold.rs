//! A running member's state, held still for a snapshot while commands go on.

use std::sync::Arc;

use quorate_store::{Store, Values};

use super::{Node, Shared};
use crate::snapshot::{Moment, State};

/// Nothing is purged until it is dropped: what compaction leaves behind takes space until then.
pub(crate) struct Held(Arc<Shared>);

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
        (moment, Held(self.0.clone()))
    }
}

impl State for Held {
    fn look<R>(&self, work: impl FnOnce(&Store, &dyn Values) -> R) -> R {
        work(self.0.machine().store(), &*self.0.segments)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.machine_mut().end_walk();
        self.0.wake.notify_one();
    }
}
