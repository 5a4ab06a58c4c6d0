//! Receiving another member's state and putting it in the place of this one's, step by step.
//!
//! Source: `server::peer::state`, `server::node::install`; what runs there on threads of their own
//! runs here in [`Incoming::take`] and [`Incoming::write`], between whose calls the member goes on.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_log::{CheckpointWriter, LogError, Position};
use quorate_replica::Machine;
use quorate_replica::transfer::Receiving;
use quorate_store::Cursor;

use crate::checkpoints::Checkpoints;
use crate::disk::SimDisk;
use crate::disk_thread::DiskThread;

/// A state on its way in, if there is one.
#[derive(Debug, Default)]
pub(crate) enum Incoming {
    #[default]
    None,
    /// Its frames come; the first may have its values at the disk.
    Receives {
        receiving: Box<Receiving>,
        frames: VecDeque<Bytes>,
        at_disk: bool,
    },
    /// It was given up while values were at the disk.
    Drains,
    /// What else uses the directory comes to its end first.
    Waits(Box<Machine>),
    /// The disk thread has not said yet where the log goes on.
    Places(Box<Machine>),
    /// Its checkpoint is being written.
    Writes(Box<Writing>),
    /// It is durable: from now on the new state is the member's.
    Written(Box<Machine>, Position, u64),
}

#[derive(Debug)]
pub(crate) struct Writing {
    machine: Machine,
    position: Position,
    writer: CheckpointWriter<SimDisk>,
    cursor: Cursor,
}

impl Incoming {
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(crate) fn begin(head: Bytes) -> Self {
        let receiving = Receiving::begin(head).expect("a member sends a good head");
        Self::Receives {
            receiving: Box::new(receiving),
            frames: VecDeque::new(),
            at_disk: false,
        }
    }

    pub(crate) fn frame(&mut self, frame: Bytes) {
        if let Self::Receives { frames, .. } = self {
            frames.push_back(frame);
        }
    }

    /// Whoever sends it is gone. What is whole is of use all the same.
    pub(crate) fn give_up(&mut self) {
        if let Self::Receives { at_disk, .. } = self {
            *self = if *at_disk { Self::Drains } else { Self::None };
        }
    }

    /// A step of the receiving thread.
    pub(crate) fn take(&mut self, disk: &mut DiskThread) {
        *self = match std::mem::take(self) {
            Self::Receives {
                mut receiving,
                mut frames,
                mut at_disk,
            } => {
                let places = if at_disk { disk.take_copied() } else { None };
                if let (Some(frame), true) = (frames.front().cloned(), !at_disk) {
                    let values = Receiving::values(&frame).expect("a member sends good frames");
                    at_disk = !values.is_empty();
                    if at_disk {
                        disk.copy(values);
                    } else {
                        receiving.take(frame, &[]).expect("good rows");
                        frames.pop_front();
                    }
                } else if let Some(places) = places {
                    let frame = frames.pop_front().expect("its values were at the disk");
                    receiving.take(frame, &places).expect("good rows");
                    at_disk = false;
                }
                if receiving.is_whole() {
                    Self::Waits(Box::new(receiving.finish().expect("a good state")))
                } else {
                    Self::Receives {
                        receiving,
                        frames,
                        at_disk,
                    }
                }
            }
            Self::Drains if disk.take_copied().is_some() => Self::None,
            other => other,
        };
    }

    /// A step of the installing thread.
    pub(crate) fn write(
        &mut self,
        disk: &mut DiskThread,
        checkpoints: &Checkpoints,
        max: usize,
    ) -> Result<(), LogError> {
        *self = match std::mem::take(self) {
            Self::Places(machine) => match disk.take_position() {
                Some(position) => Self::Writes(Box::new(begin(checkpoints, *machine, position)?)),
                None => Self::Places(machine),
            },
            Self::Writes(writing) => chunk(writing, max)?,
            other => other,
        };
        Ok(())
    }
}

fn begin(
    checkpoints: &Checkpoints,
    mut machine: Machine,
    mut position: Position,
) -> Result<Writing, LogError> {
    let (disk, directory) = checkpoints.place();
    let (index, term) = machine.applied();
    position.retain(|segment| machine.store().needs_segment(segment));
    let (meta, cursor) = machine.begin_walk();
    machine.end_walk();
    let writer = CheckpointWriter::begin(disk, directory, index, term, &position, &meta)?;
    Ok(Writing {
        machine,
        position,
        writer,
        cursor,
    })
}

fn chunk(mut writing: Box<Writing>, max: usize) -> Result<Incoming, LogError> {
    let mut rows: Vec<Vec<u8>> = Vec::new();
    let store = writing.machine.store();
    let more = store.walk(&mut writing.cursor, max, &mut |row| rows.push(row.to_vec()));
    rows.iter().try_for_each(|row| writing.writer.row(row))?;
    if more {
        return Ok(Incoming::Writes(writing));
    }
    let Writing {
        machine,
        position,
        writer,
        ..
    } = *writing;
    let bytes = writer.written_bytes();
    writer.finish_alone()?;
    Ok(Incoming::Written(Box::new(machine), position, bytes))
}
