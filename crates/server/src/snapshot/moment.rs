//! The state that a snapshot is made from.

use quorate_store::{ClusterTime, Head, Store, ValueError, Values};

/// A state that can be looked at while commands go on, and that nothing is purged from.
pub(crate) trait State {
    /// Looks at it. Only for bounded work: a running member's writes wait.
    fn look<R>(&self, work: impl FnOnce(&Store) -> R) -> R;

    /// Looks at it and reads values. An attempt that needs one which is not in memory is made again
    /// once it is: nobody waits for the disk.
    fn read<R>(
        &self,
        attempt: impl FnMut(&Store, &dyn Values) -> Result<R, ValueError>,
    ) -> Result<R, ValueError>;
}

/// A member's state that nobody changes.
impl<V: Values> State for (&Store, &V) {
    fn look<R>(&self, work: impl FnOnce(&Store) -> R) -> R {
        work(self.0)
    }

    fn read<R>(
        &self,
        mut attempt: impl FnMut(&Store, &dyn Values) -> Result<R, ValueError>,
    ) -> Result<R, ValueError> {
        attempt(self.0, self.1)
    }
}

/// What of a state is copied when a snapshot begins.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    /// Index and term of the last entry applied.
    pub(crate) applied: (u64, u64),
    /// The highest cluster time applied.
    pub(crate) time: ClusterTime,
    /// Leases, members, alarms, the revision and the compaction.
    pub(crate) head: Head,
}
