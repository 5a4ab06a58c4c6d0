//! Checkpoints beside the member's work, a chunk at a time.
//!
//! Source: `server::node::checkpoint`; what runs there on a thread of its own runs here in
//! [`Checkpoints::work`], between whose calls the member goes on.

use quorate_log::{CheckpointWriter, DirectoryId, Entry, LogError, Position};
use quorate_replica::Machine;
use quorate_store::Cursor;

use crate::disk::SimDisk;
use crate::disk_thread::DiskThread;
use crate::plan::{Fault, Plan};

#[derive(Debug)]
pub(crate) struct Checkpoints {
    disk: SimDisk,
    directory: DirectoryId,
    plan: Plan,
    grown: u64,
    threshold: u64,
    /// Positions of the two newest, older first.
    kept: Vec<Position>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Begun {
    index: u64,
    term: u64,
    meta: Vec<u8>,
    cursor: Cursor,
}

#[derive(Debug)]
enum Running {
    /// The disk thread has not said yet where replay must start.
    Waiting(Begun),
    Walking {
        writer: CheckpointWriter<SimDisk>,
        cursor: Cursor,
        position: Position,
    },
    Ended(Result<(Position, u64), LogError>),
}

impl Checkpoints {
    pub(crate) fn new(
        disk: SimDisk,
        directory: DirectoryId,
        plan: &Plan,
        newest: Option<Position>,
    ) -> Self {
        Self {
            disk,
            directory,
            plan: plan.clone(),
            grown: 0,
            threshold: plan.checkpoint_growth,
            kept: newest.into_iter().collect(),
            running: None,
        }
    }

    /// Notes what goes to the log.
    pub(crate) fn grew(&mut self, entries: &[Entry]) {
        self.grown += entries
            .iter()
            .map(|entry| entry.data.len() as u64 + 32)
            .sum::<u64>();
    }

    /// Nothing may be purged meanwhile.
    pub(crate) fn is_walking(&self) -> bool {
        self.running.is_some()
    }

    /// The driver's part: begins one that is due, ends one that is done. Returns whether one was
    /// taken.
    pub(crate) fn look(&mut self, machine: &mut Machine, disk: &mut DiskThread) -> bool {
        let mut taken = false;
        if let Some(Running::Ended(_)) = &self.running
            && let Some(Running::Ended(ended)) = self.running.take()
        {
            machine.end_walk();
            // After an error the log still has everything: the next growth tries again.
            if let Ok((position, bytes)) = ended {
                self.threshold = self.plan.checkpoint_growth.max(bytes);
                self.kept.push(position);
                if self.kept.len() > 2 {
                    self.kept.remove(0);
                }
                disk.free(self.kept.clone());
                taken = true;
            }
        }
        if self.running.is_none() && self.grown >= self.threshold {
            self.grown = 0;
            let (index, term) = machine.applied();
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

    /// The checkpoint thread's part, one chunk of it.
    pub(crate) fn work(&mut self, machine: &Machine, disk: &mut DiskThread) {
        self.running = match self.running.take() {
            Some(Running::Waiting(begun)) => match disk.take_position() {
                Some(position) => Some(self.begin(begun, position, machine)),
                None => Some(Running::Waiting(begun)),
            },
            Some(Running::Walking {
                writer,
                cursor,
                position,
            }) => Some(self.chunk(writer, cursor, position, machine)),
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
            Ok(writer) => Running::Walking {
                writer,
                cursor,
                position,
            },
            Err(error) => Running::Ended(Err(error)),
        }
    }

    fn chunk(
        &self,
        mut writer: CheckpointWriter<SimDisk>,
        mut cursor: Cursor,
        position: Position,
        machine: &Machine,
    ) -> Running {
        let mut rows: Vec<Vec<u8>> = Vec::new();
        let keys = self.plan.chunk_keys;
        let more = machine
            .store()
            .walk(&mut cursor, keys, &mut |row| rows.push(row.to_vec()));
        if let Err(error) = rows.iter().try_for_each(|row| writer.row(row)) {
            return Running::Ended(Err(error));
        }
        if more {
            return Running::Walking {
                writer,
                cursor,
                position,
            };
        }
        let bytes = writer.written_bytes();
        Running::Ended(writer.finish().map(|()| (position, bytes)))
    }
}
