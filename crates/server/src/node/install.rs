//! Puts a received state in the place of this member's.
//!
//! The values are in the log already. What is left: the log is told that it goes on behind the new
//! state, a checkpoint of that is written, and then replica and machine are made anew, as by a
//! restart. Until the checkpoint is durable the old state is the member's, and a crash brings it back.
//!
//! I1. From the moment at which the log goes on behind the new state until the replica is made anew,
//!     nothing is appended but terms and votes.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use quorate_log::{CheckpointWriter, DirectoryId, LogError, Position};
use quorate_replica::Machine;
use tokio::sync::oneshot;

use super::Shared;
use crate::disk::FsDisk;

pub(super) type Answer = oneshot::Sender<Result<(), String>>;

/// One on its way, if any.
#[derive(Default)]
pub(super) enum Install {
    #[default]
    None,
    /// What else uses the directory comes to its end first.
    Waits(Box<Machine>, Answer),
    /// The checkpoint is being written.
    Writes(JoinHandle<Result<Written, LogError>>, Answer),
    /// It is durable: from now on the new state is the member's.
    Written(Written, Answer),
}

pub(super) struct Written {
    pub(super) machine: Box<Machine>,
    pub(super) position: Position,
    pub(super) bytes: u64,
}

/// Writes the checkpoint of a received state once the disk thread says where it goes on.
pub(super) fn begin(
    shared: Arc<Shared>,
    disk: FsDisk,
    directory: DirectoryId,
    mut machine: Box<Machine>,
    position: Receiver<Position>,
) -> JoinHandle<Result<Written, LogError>> {
    let write = move || {
        let written = (|| {
            let position = position.recv().map_err(|_| LogError::Poisoned)?;
            let bytes = write(&disk, directory, &mut machine, &position)?;
            Ok(Written {
                machine,
                position,
                bytes,
            })
        })();
        shared.wake.notify_one();
        written
    };
    let thread = std::thread::Builder::new().name("install".into());
    thread.spawn(write).expect("a thread can be started")
}

fn write(
    disk: &FsDisk,
    directory: DirectoryId,
    machine: &mut Machine,
    position: &Position,
) -> Result<u64, LogError> {
    let (index, term) = machine.applied();
    let (meta, mut cursor) = machine.begin_walk();
    machine.end_walk();
    let (files, meta) = (disk.clone(), &meta);
    let mut writer = CheckpointWriter::begin(files, directory, index, term, position, meta)?;
    let mut written = Ok(());
    let mut more = true;
    while more && written.is_ok() {
        let mut row = |row: &[u8]| {
            if written.is_ok() {
                written = writer.row(row);
            }
        };
        more = machine.store().walk(&mut cursor, 4_096, &mut row);
    }
    written?;
    let bytes = writer.written_bytes();
    writer.finish_alone()?;
    Ok(bytes)
}
