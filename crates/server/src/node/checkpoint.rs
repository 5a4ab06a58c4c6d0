//! Takes checkpoints while writes go on, and frees the segments that nothing needs any more.
//!
//! A checkpoint is due when the log has grown by what the last one took, and at least 64 MiB, so
//! that its cost is shared by as much log. It is written on a thread of its own, which holds the
//! machine's read lock for one chunk of keys at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use quorate_log::{CheckpointWriter, DirectoryId, Disk, DiskError, Entry, LogError, Position};
use quorate_replica::CheckpointSchedule;
use quorate_store::{Cursor, Revision};

use super::Shared;
use crate::disk::{DiskThread, FsDisk};

/// The log grows by at least this between two checkpoints, in bytes.
pub(super) const LEAST_GROWTH: u64 = 64 << 20;
/// What a checkpoint may be larger than the last one: what the growth of the log between them, put
/// into keys of some 100 bytes with next to no values, adds to the index.
const CHECKPOINT_GROWTH: u64 = LEAST_GROWTH / 2;
/// Keys walked under one hold of the machine's lock.
const CHUNK_KEYS: usize = 512;

pub(super) struct Checkpoints {
    disk: FsDisk,
    directory: DirectoryId,
    schedule: CheckpointSchedule,
    running: Option<JoinHandle<Result<Taken, LogError>>>,
    abandon: Arc<AtomicBool>,
    /// How many are wanted before they are due.
    early: u32,
    /// The oldest revision when clearing up last began.
    pub(super) compacted: Revision,
}

struct Taken {
    position: Position,
    bytes: u64,
}

/// What a checkpoint is of.
struct Begun {
    index: u64,
    term: u64,
    meta: Vec<u8>,
    cursor: Cursor,
}

impl Checkpoints {
    pub(super) fn new(disk: FsDisk, directory: DirectoryId, schedule: CheckpointSchedule) -> Self {
        Self {
            disk,
            directory,
            schedule,
            running: None,
            abandon: Arc::default(),
            early: 0,
            compacted: Revision::ZERO,
        }
    }

    /// Notes what goes to the log.
    pub(super) fn grew(&mut self, entries: &[Entry]) {
        self.schedule.grew(entries);
    }

    /// Begins one that is due; ends one that is done.
    pub(super) fn look(&mut self, shared: &Arc<Shared>, disk: &DiskThread) -> Result<(), String> {
        if self.running.as_ref().is_some_and(JoinHandle::is_finished) {
            let joined = self.running.take().expect("just seen").join();
            shared.machine_mut().end_walk();
            shared.wake.notify_one();
            match joined.map_err(|_| "the checkpoint thread panicked".to_owned())? {
                Ok(taken) => {
                    tracing::info!(bytes = taken.bytes, "checkpoint taken");
                    shared.metrics.took_checkpoint(taken.bytes);
                    disk.free(self.schedule.taken(taken.position, taken.bytes));
                    disk.keep_room(taken.bytes + CHECKPOINT_GROWTH);
                }
                // The log still has everything: the next growth tries again.
                Err(error) => {
                    tracing::error!(%error, "no checkpoint could be taken");
                    disk.keep_room(0);
                }
            }
        }
        let rests = self.abandon.load(Ordering::Relaxed) || shared.is_receiving();
        if self.running.is_none() && !rests && (self.schedule.is_due() || self.early > 0) {
            self.begin(shared, disk);
        }
        Ok(())
    }

    /// Takes two as soon as may be, so that what the state no longer needs is freed: as long as
    /// there are older ones, they hold it.
    pub(super) fn free_early(&mut self) {
        self.early = 2;
    }

    /// Whether one is being written or wanted early.
    pub(super) fn is_busy(&self) -> bool {
        self.running.is_some() || self.early > 0
    }

    /// The segments that the newest one needs for values alone.
    pub(super) fn held(&self) -> impl Iterator<Item = u32> + '_ {
        self.schedule.held()
    }

    /// What one costs, in bytes.
    pub(super) fn cost(&self) -> u64 {
        self.schedule.threshold()
    }

    fn begin(&mut self, shared: &Arc<Shared>, disk: &DiskThread) {
        let begun = {
            let mut machine = shared.machine_mut();
            let (index, term) = machine.applied();
            let begins = match self.early {
                0 => self.schedule.begin(index),
                _ => self.schedule.begin_early(index),
            };
            if !begins {
                if self.early > 0 {
                    shared.space.want_entry();
                }
                return;
            }
            self.early = self.early.saturating_sub(1);
            let (meta, cursor) = machine.begin_walk();
            Begun {
                index,
                term,
                meta,
                cursor,
            }
        };
        let (files, directory) = (self.disk.clone(), self.directory);
        let (shared, abandon) = (shared.clone(), self.abandon.clone());
        let position = disk.position_for(begun.index);
        let write = move || {
            // The disk thread answers after the sync in flight, and never once it has ended.
            let position = position.recv().map_err(|_| LogError::Poisoned);
            let taken = position
                .and_then(|position| write(&shared, files, directory, begun, position, &abandon));
            shared.wake.notify_one();
            taken
        };
        let thread = std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(write);
        self.running = Some(thread.expect("a thread can be started"));
    }

    /// Comes to rest, because another state is to take this one's place: begins none, and gives up
    /// the one being written. Whether it rests.
    pub(super) fn rest(&mut self) -> bool {
        self.abandon.store(true, Ordering::Relaxed);
        self.running.is_none()
    }

    /// Goes on with the state that has taken the place, whose checkpoint has `bytes` bytes.
    pub(super) fn installed(&mut self, index: u64, position: Position, bytes: u64) {
        self.abandon.store(false, Ordering::Relaxed);
        self.schedule.installed(index, position, bytes);
        self.early = 0;
        self.compacted = Revision::ZERO;
    }

    /// The files, and whose they are.
    pub(super) fn place(&self) -> (FsDisk, DirectoryId) {
        (self.disk.clone(), self.directory)
    }

    /// Gives up the one being written, if any.
    pub(super) fn finish(self) {
        self.abandon.store(true, Ordering::Relaxed);
        if let Some(running) = self.running {
            // What it says no longer matters: an unfinished checkpoint is no checkpoint.
            let _ = running.join();
        }
    }
}

fn write(
    shared: &Shared,
    disk: FsDisk,
    directory: DirectoryId,
    begun: Begun,
    mut position: Position,
    abandon: &AtomicBool,
) -> Result<Taken, LogError> {
    let Begun {
        index,
        term,
        meta,
        mut cursor,
    } = begun;
    {
        // Copies that were durable before the position are in the state now; later ones lie behind it.
        let _still = shared.moving();
        // Nothing is purged while the walk lasts, so what it needs now it needs to its end.
        let machine = shared.machine();
        position.retain(|segment| machine.store().needs_segment(segment));
    }
    let mut writer = CheckpointWriter::begin(disk, directory, index, term, &position, &meta)?;
    let mut rows: Vec<Vec<u8>> = Vec::new();
    loop {
        let more = {
            let machine = shared.machine();
            machine
                .store()
                .walk(&mut cursor, CHUNK_KEYS, &mut |row| rows.push(row.to_vec()))
        };
        for row in rows.drain(..) {
            writer.row(&row)?;
        }
        if abandon.load(Ordering::Relaxed) {
            return Err(LogError::Poisoned);
        }
        if !more {
            break;
        }
    }
    let bytes = writer.written_bytes();
    writer.finish()?;
    Ok(Taken { position, bytes })
}

/// What a checkpoint may take, going by those that are there; in bytes.
pub(super) fn room(disk: &FsDisk) -> Result<u64, DiskError> {
    let mut largest = 0;
    for name in disk.list()? {
        if name.ends_with(".checkpoint") {
            largest = disk.len(&name)?.max(largest);
        }
    }
    Ok(largest + CHECKPOINT_GROWTH)
}
