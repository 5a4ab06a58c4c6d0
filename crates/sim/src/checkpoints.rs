//! Checkpoints beside the member's work, a chunk at a time.
//!
//! Source: `server::node::checkpoint`; what runs there on a thread of its own runs here in
//! [`Checkpoints::work`], between whose calls the member goes on.

use quorate_log::{CheckpointWriter, DirectoryId, Entry, LogError, Position};
use quorate_replica::{CheckpointSchedule, Machine};
use quorate_store::Cursor;

use crate::disk::SimDisk;
use crate::disk_thread::DiskThread;
use crate::plan::{Fault, Plan};

#[derive(Debug)]
pub(crate) struct Checkpoints {
    disk: SimDisk,
    directory: DirectoryId,
    plan: Plan,
    schedule: CheckpointSchedule,
    running: Option<Running>,
    /// How many are wanted before they are due.
    early: u32,
    /// One is wanted, but nothing was logged since the last.
    wants_entry: bool,
}

#[derive(Debug)]
struct Begun {
    index: u64,
    term: u64,
    meta: Vec<u8>,
    cursor: Cursor,
}

#[derive(Debug)]
struct Walk {
    index: u64,
    writer: CheckpointWriter<SimDisk>,
    cursor: Cursor,
    position: Position,
}

#[derive(Debug)]
enum Running {
    /// The disk thread has not said yet where replay must start.
    Waiting(Begun),
    Walking(Walk),
    Ended(Result<(u64, Position, u64), LogError>),
}

impl Checkpoints {
    pub(crate) fn new(
        disk: SimDisk,
        directory: DirectoryId,
        plan: &Plan,
        schedule: CheckpointSchedule,
    ) -> Self {
        Self {
            disk,
            directory,
            plan: plan.clone(),
            schedule,
            running: None,
            early: 0,
            wants_entry: false,
        }
    }

    /// Notes what goes to the log.
    pub(crate) fn grew(&mut self, entries: &[Entry]) {
        self.schedule.grew(entries);
    }

    /// Nothing may be purged meanwhile.
    pub(crate) fn is_walking(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.is_walking() || self.early > 0
    }

    pub(crate) fn held(&self) -> impl Iterator<Item = u32> + '_ {
        self.schedule.held()
    }

    /// The driver's part: begins one that is due, ends one that is done. Returns the index of
    /// one that was taken.
    /// None begins while a state is received: what of that is in the log already must stay.
    pub(crate) fn look(
        &mut self,
        machine: &mut Machine,
        disk: &mut DiskThread,
        is_receiving: bool,
    ) -> Option<u64> {
        let mut taken = None;
        if let Some(Running::Ended(_)) = &self.running
            && let Some(Running::Ended(ended)) = self.running.take()
        {
            machine.end_walk();
            // After an error the log still has everything: the next growth tries again.
            match ended {
                Ok((index, position, bytes)) => {
                    disk.free(self.schedule.taken(position, bytes));
                    disk.keep_room(bytes + self.plan.checkpoint_growth);
                    taken = Some(index);
                }
                Err(_) => disk.keep_room(0),
            }
        }
        let (index, term) = machine.applied();
        let begins = self.running.is_none()
            && !is_receiving
            && match self.early {
                0 => self.schedule.begin(index),
                _ => self.schedule.begin_early(index),
            };
        self.wants_entry = self.running.is_none() && !begins && self.early > 0;
        if begins {
            self.early = self.early.saturating_sub(1);
            let (meta, cursor) = machine.begin_walk();
            disk.position_for(index);
            self.running = Some(Running::Waiting(Begun {
                index,
                term,
                meta,
                cursor,
            }));
        }
        taken
    }

    /// The checkpoint of a received state is the only one now.
    pub(crate) fn installed(&mut self, index: u64, position: Position, bytes: u64) {
        assert!(self.running.is_none(), "one checkpoint at a time");
        self.schedule.installed(index, position, bytes);
        (self.early, self.wants_entry) = (0, false);
    }

    /// Where checkpoints are written.
    pub(crate) fn place(&self) -> (SimDisk, DirectoryId) {
        (self.disk.clone(), self.directory)
    }

    /// Takes two as soon as may be.
    pub(crate) fn free_early(&mut self) {
        self.early = 2;
    }

    /// Something must be logged before the next can be taken.
    pub(crate) fn wants_entry(&self) -> bool {
        self.wants_entry
    }

    /// The checkpoint thread's part, one chunk of it.
    ///
    /// It does not begin while values are copied: see `Shared::moving` of the server.
    pub(crate) fn work(&mut self, machine: &Machine, disk: &mut DiskThread, is_copying: bool) {
        self.running = match self.running.take() {
            Some(Running::Waiting(begun)) if is_copying => Some(Running::Waiting(begun)),
            Some(Running::Waiting(begun)) => match disk.take_position() {
                Some(position) => Some(self.begin(begun, position, machine)),
                None => Some(Running::Waiting(begun)),
            },
            Some(Running::Walking(walk)) => Some(self.chunk(walk, machine)),
            other => other,
        };
    }

    fn begin(&self, begun: Begun, mut position: Position, machine: &Machine) -> Running {
        let Begun {
            index,
            term,
            meta,
            cursor,
        } = begun;
        let forgets = self.plan.fault == Some(Fault::ForgetsValues);
        position.retain(|segment| !forgets && machine.store().needs_segment(segment));
        let disk = self.disk.clone();
        match CheckpointWriter::begin(disk, self.directory, index, term, &position, &meta) {
            Ok(writer) => Running::Walking(Walk {
                index,
                writer,
                cursor,
                position,
            }),
            Err(error) => Running::Ended(Err(error)),
        }
    }

    fn chunk(&self, mut walk: Walk, machine: &Machine) -> Running {
        let mut rows: Vec<Vec<u8>> = Vec::new();
        let keys = self.plan.chunk_keys;
        let more = machine
            .store()
            .walk(&mut walk.cursor, keys, &mut |row| rows.push(row.to_vec()));
        if let Err(error) = rows.iter().try_for_each(|row| walk.writer.row(row)) {
            return Running::Ended(Err(error));
        }
        if more {
            return Running::Walking(walk);
        }
        let (index, position) = (walk.index, walk.position);
        let bytes = walk.writer.written_bytes();
        Running::Ended(walk.writer.finish().map(|()| (index, position, bytes)))
    }
}
