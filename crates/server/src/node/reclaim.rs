//! Copies live values out of sparse segments, so that these can be freed, while all else goes on.
//!
//! On a thread of its own: finds a chunk of values under the machine's read lock, reads them from
//! the disk without it, hands them to the disk thread, and tells the machine of the new places once
//! they are durable (L1). It rests twice as long as a chunk took, so that clients hardly notice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_log::{Disk as _, EntryAt, Moved, segment_name};
use quorate_replica::{Reclaim, Wanted};
use quorate_store::Value;

use super::Shared;
use crate::disk::{FsDisk, Mover};

/// Versions looked at under one hold of the machine's lock.
const CHUNK_VERSIONS: usize = 2_000;
/// It rests no longer than this, so that a member that stops need not wait for it.
const LONGEST_REST: Duration = Duration::from_millis(500);
/// Bytes of values copied at once, about.
const CHUNK_BYTES: u64 = 128 << 10;

/// The round under way, if any.
pub(super) struct Reclaims {
    disk: FsDisk,
    mover: Mover,
    running: Option<JoinHandle<Result<Emptied, Broken>>>,
    abandon: Arc<AtomicBool>,
    /// Segments with a value that cannot be read: they stay, for its sake.
    rotten: BTreeSet<u32>,
}

struct Emptied {
    segments: usize,
    bytes: u64,
}

/// Why a round ended before its time.
enum Broken {
    /// A value of this segment does not verify.
    Rotten(u32),
    /// The member stops.
    Stopped,
}

impl Reclaims {
    pub(super) fn new(disk: FsDisk, mover: Mover) -> Self {
        Self {
            disk,
            mover,
            running: None,
            abandon: Arc::default(),
            rotten: BTreeSet::new(),
        }
    }

    /// Begins a round if one is worth while, ends one that is done. Returns whether segments have
    /// been emptied, which two more checkpoints will free.
    pub(super) fn look(
        &mut self,
        shared: &Arc<Shared>,
        held: impl Iterator<Item = u32>,
        segment_bytes: u32,
        least: u64,
    ) -> bool {
        if let Some(running) = self.running.take_if(|running| running.is_finished()) {
            match running.join() {
                Ok(Ok(emptied)) => {
                    let Emptied { segments, bytes } = emptied;
                    tracing::info!(segments, bytes, "copied live values out of sparse segments");
                    shared.metrics.bytes_moved.add(bytes);
                    return true;
                }
                Ok(Err(Broken::Rotten(segment))) => {
                    self.rotten.insert(segment);
                }
                Ok(Err(Broken::Stopped)) | Err(_) => {}
            }
        }
        if self.running.is_none() && !self.abandon.load(Ordering::Relaxed) {
            let held = held.filter(|segment| !self.rotten.contains(segment));
            let reclaim = Reclaim::choose(shared.machine().store(), held, segment_bytes, least);
            self.running = reclaim.map(|reclaim| self.begin(shared, reclaim));
        }
        false
    }

    fn begin(&self, shared: &Arc<Shared>, reclaim: Reclaim) -> JoinHandle<Result<Emptied, Broken>> {
        let (shared, disk) = (shared.clone(), self.disk.clone());
        let (mover, abandon) = (self.mover.clone(), self.abandon.clone());
        let run = move || empty(&shared, &disk, &mover, reclaim, &abandon);
        let thread = std::thread::Builder::new().name("reclaim".into());
        thread.spawn(run).expect("a thread can be started")
    }

    /// Comes to rest, because another state is to take this one's place. Whether it rests.
    pub(super) fn rest(&mut self) -> bool {
        self.abandon.store(true, Ordering::Relaxed);
        let running = self.running.take_if(|running| running.is_finished());
        // What it has copied is where it was as well.
        let _ = running.map(JoinHandle::join);
        self.running.is_none()
    }

    /// Goes on, with another state.
    pub(super) fn installed(&mut self) {
        self.abandon.store(false, Ordering::Relaxed);
        self.rotten.clear();
    }

    /// Gives up the round under way, if any.
    pub(super) fn finish(self) {
        self.abandon.store(true, Ordering::Relaxed);
        drop(self.mover);
        if let Some(running) = self.running {
            // What it has copied is where it was as well.
            let _ = running.join();
        }
    }
}

fn empty(
    shared: &Shared,
    disk: &FsDisk,
    mover: &Mover,
    mut reclaim: Reclaim,
    abandon: &AtomicBool,
) -> Result<Emptied, Broken> {
    let mut emptied = Emptied {
        segments: reclaim.segments().count(),
        bytes: 0,
    };
    let mut more = true;
    while more {
        if abandon.load(Ordering::Relaxed) {
            return Err(Broken::Stopped);
        }
        let began = Instant::now();
        let mut wanted = Vec::new();
        more = {
            let machine = shared.machine();
            let bounds = (CHUNK_VERSIONS, CHUNK_BYTES);
            reclaim.gather(machine.store(), bounds, &mut wanted)
        };
        if !wanted.is_empty() {
            let moved = wanted.iter().map(|wanted| read(disk, wanted));
            let moved = moved.collect::<Result<_, _>>()?;
            let _moving = shared.moving();
            let durable = mover.copy(moved);
            let places = wait(&durable)?;
            emptied.bytes += wanted
                .iter()
                .map(|wanted| u64::from(wanted.at.len))
                .sum::<u64>();
            shared.machine_mut().moved(wanted.into_iter().zip(places));
        }
        std::thread::sleep((began.elapsed() * 2).min(LONGEST_REST));
    }
    Ok(emptied)
}

/// A segment is not freed while a value in it is wanted, so it may be read without a lock.
fn read(disk: &FsDisk, wanted: &Wanted) -> Result<Moved, Broken> {
    let at = wanted.at;
    let mut data = vec![0; at.len as usize];
    let name = segment_name(at.segment);
    let read = disk.read_at(&name, at.offset.into(), &mut data);
    let is_whole = read.as_ref().is_ok_and(|count| *count == data.len());
    if !is_whole || !Value::verifies(&at, &data) {
        let (segment, offset) = (at.segment, at.offset);
        tracing::error!(
            segment,
            offset,
            "a value does not verify; its segment is kept"
        );
        return Err(Broken::Rotten(segment));
    }
    Ok(Moved {
        key: Bytes::copy_from_slice(&wanted.key),
        revision: wanted.revision.get(),
        data: data.into(),
    })
}

fn wait(durable: &Receiver<Vec<EntryAt>>) -> Result<Vec<EntryAt>, Broken> {
    durable.recv().map_err(|_| Broken::Stopped)
}
