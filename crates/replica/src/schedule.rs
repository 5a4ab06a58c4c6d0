//! When a checkpoint is due, and which two are kept.

use quorate_log::{Entry, Position};

/// What a record takes in the log beside its data, about; in bytes.
const RECORD_BYTES: u64 = 32;

/// Counts the log's growth between checkpoints.
///
/// One is due when the log has grown by what the last one took, and by a least amount, so that its
/// cost is shared by as much log.
#[derive(Debug)]
pub struct CheckpointSchedule {
    least_growth: u64,
    grown: u64,
    threshold: u64,
    /// The index of the newest one, or of the one that is being written.
    newest: u64,
    /// Positions of the two newest, older first.
    kept: Vec<Position>,
}

impl CheckpointSchedule {
    /// `least_growth` is in bytes; `newest` and `position` are of the checkpoint that the member
    /// started from, `replayed` is what the log held behind it, in bytes.
    pub(crate) fn new(
        least_growth: u64,
        newest: u64,
        position: Option<Position>,
        replayed: u64,
    ) -> Self {
        Self {
            least_growth,
            grown: replayed,
            threshold: least_growth,
            newest,
            kept: position.into_iter().collect(),
        }
    }

    /// Another state has taken this one's place, with its checkpoint.
    pub fn installed(&mut self, index: u64, position: Position, bytes: u64) {
        *self = Self::new(self.least_growth, index, Some(position), 0);
        self.threshold = self.least_growth.max(bytes);
    }

    /// Notes what goes to the log.
    pub fn grew(&mut self, entries: &[Entry]) {
        self.grown += entries.iter().map(log_bytes).sum::<u64>();
    }

    /// Whether the log has grown by enough.
    pub fn is_due(&self) -> bool {
        self.grown >= self.threshold
    }

    /// Whether a checkpoint of the state at `index` is due; if so, it has begun.
    ///
    /// Never two of one index: the second would replace the first and yet count beside it, and the
    /// segments that only the one before needs would be freed.
    pub fn begin(&mut self, index: u64) -> bool {
        self.is_due() && self.begin_early(index)
    }

    /// The same before it is due, for what it lets go.
    pub fn begin_early(&mut self, index: u64) -> bool {
        let is_new = index > self.newest;
        if is_new {
            self.grown = 0;
            self.newest = index;
        }
        is_new
    }

    /// The segments that the newest checkpoint needs for values alone.
    pub fn held(&self) -> impl Iterator<Item = u32> + '_ {
        let newest = self.kept.last().filter(|_| self.kept.len() > 1);
        newest.into_iter().flat_map(Position::held)
    }

    /// By how much the log must grow until the next is due, in bytes: what one costs.
    pub fn threshold(&self) -> u64 {
        self.threshold
    }

    /// The checkpoint that was begun is durable and has `bytes` bytes. Returns the positions for
    /// [`quorate_log::Journal::free`].
    pub fn taken(&mut self, position: Position, bytes: u64) -> Vec<Position> {
        self.threshold = self.least_growth.max(bytes);
        self.kept.push(position);
        if self.kept.len() > 2 {
            self.kept.remove(0);
        }
        self.kept.clone()
    }
}

/// What an entry takes in the log, about; in bytes.
pub(crate) fn log_bytes(entry: &Entry) -> u64 {
    entry.data.len() as u64 + RECORD_BYTES
}
