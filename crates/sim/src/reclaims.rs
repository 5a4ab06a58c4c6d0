//! Reclaiming beside the member's work, a chunk at a time.
//!
//! Source: `server::node::reclaim`; what runs there on a thread of its own runs here in
//! [`Reclaims::work`], between whose calls the member goes on.

use quorate_log::{Disk, Moved, segment_name};
use quorate_replica::{Machine, Reclaim, Wanted};
use quorate_store::Value;

use crate::disk::SimDisk;
use crate::disk_thread::DiskThread;
use crate::plan::Plan;

#[derive(Debug)]
pub(crate) struct Reclaims {
    disk: SimDisk,
    chunk: usize,
    round: Option<Reclaim>,
    /// Copies that are on their way to the disk.
    copying: Vec<Wanted>,
    more: bool,
}

impl Reclaims {
    pub(crate) fn new(disk: SimDisk, plan: &Plan) -> Self {
        Self {
            disk,
            chunk: plan.chunk_keys,
            round: None,
            copying: Vec::new(),
            more: false,
        }
    }

    /// Copies are on their way, of which the machine does not know yet.
    pub(crate) fn is_copying(&self) -> bool {
        !self.copying.is_empty()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.round.is_none()
    }

    /// Begins a round if one is worth while.
    pub(crate) fn look(
        &mut self,
        machine: &Machine,
        held: impl Iterator<Item = u32>,
        (segment_bytes, least): (u32, u64),
    ) {
        if self.round.is_none() {
            self.round = Reclaim::choose(machine.store(), held, segment_bytes, least);
            self.more = true;
        }
    }

    /// One step of the thread. Returns whether a round has ended.
    pub(crate) fn work(&mut self, machine: &mut Machine, disk: &mut DiskThread) -> bool {
        let Some(round) = &mut self.round else {
            return false;
        };
        if !self.copying.is_empty() {
            if let Some(places) = disk.take_copied() {
                let wanted = std::mem::take(&mut self.copying);
                machine.moved(wanted.into_iter().zip(places));
            }
            return false;
        }
        if !self.more {
            self.round = None;
            return true;
        }
        let bounds = (self.chunk, 1 << 20);
        self.more = round.gather(machine.store(), bounds, &mut self.copying);
        if self.disk.is_without_power() {
            // Nobody will see what comes of it.
            self.copying.clear();
        }
        if !self.copying.is_empty() {
            let moved = self.copying.iter().map(|wanted| read(&self.disk, wanted));
            disk.copy(moved.collect());
        }
        false
    }
}

fn read(disk: &SimDisk, wanted: &Wanted) -> Moved {
    let at = wanted.at;
    let mut data = vec![0; at.len as usize];
    let name = segment_name(at.segment);
    let read = disk.read_at(&name, at.offset.into(), &mut data);
    assert!(
        read.is_ok() && Value::verifies(&at, &data),
        "L1: a wanted value is where the state says: {read:?} {wanted:?}"
    );
    Moved {
        key: wanted.key.to_vec().into(),
        revision: wanted.revision.get(),
        data: data.into(),
    }
}
