//! A member's state on its way to others, and another's in the place of its own.
//!
//! Source: `server::node::driver`, `server::peer::state`.

use bytes::Bytes;
use quorate_replica::transfer::{Receiving, Sending, frame};
use quorate_replica::{Boot, Input, Now, Settings};
use quorate_store::Revision;

use super::{Down, Happened, SimMember};
use crate::transfers::Incoming;

impl SimMember {
    /// Begins to send the state to a member; returns what goes first.
    pub(crate) fn begin_sending(&mut self, to: u64) -> Bytes {
        self.end_sending(to);
        let sending = Sending::begin(&mut self.machine);
        let head = sending.head();
        self.sending.insert(to, sending);
        head.into()
    }

    /// The next frame of a state on its way to a member, and whether it was the last.
    pub(crate) fn send_more(&mut self, to: u64, max: usize) -> Option<(Bytes, bool)> {
        let sending = self.sending.get_mut(&to)?;
        let (mut rows, mut out) = (Vec::new(), Vec::new());
        let more = sending.rows(&self.machine, max, &mut rows);
        let framed = rows
            .iter()
            .try_for_each(|row| frame(row, &self.values, &mut out));
        if framed.is_err() && self.values.0.is_without_power() {
            return None;
        }
        framed.expect("P6: a value of the state can be read");
        if !more {
            out.extend(sending.end());
            self.end_sending(to);
        }
        Some((out.into(), !more))
    }

    /// Nothing more of the state goes to a member.
    pub(crate) fn end_sending(&mut self, to: u64) {
        if self.sending.remove(&to).is_some() {
            self.machine.end_walk();
        }
    }

    /// Begins to receive a state. Returns whether it is of use, or `None` if it cannot now.
    pub(crate) fn begin_receiving(&mut self, head: Bytes) -> Option<bool> {
        if !self.incoming.is_idle() || !self.reclaims.is_idle() {
            return None;
        }
        let (index, term) = Receiving::begin(head.clone()).ok()?.applied();
        let is_of_use = !self.replica.0.has_entry(index, term);
        if is_of_use {
            self.incoming = Incoming::begin(head);
        }
        Some(is_of_use)
    }

    /// Where the state comes from that is being received, and goes to.
    pub(crate) fn incoming(&mut self) -> &mut Incoming {
        &mut self.incoming
    }

    /// A step of the threads that receive and install a state.
    pub(crate) fn work_on_incoming(&mut self) -> Result<(), Down> {
        self.incoming.take(&mut self.thread);
        let (incoming, checkpoints) = (&mut self.incoming, &self.checkpoints);
        let (disk, chunk) = (&mut self.thread, self.chunk_keys);
        Ok(incoming.write(disk, checkpoints, chunk)?)
    }

    /// Puts a received state in place, step by step.
    pub(super) fn look_for_install(
        &mut self,
        now: Now,
        out: &mut Vec<Happened>,
    ) -> Result<(), Down> {
        self.incoming = match std::mem::take(&mut self.incoming) {
            Incoming::Waits(machine) => {
                let (index, term) = machine.applied();
                let leads = self.replica.0.status().leader == Some(self.id);
                if leads || self.replica.0.has_entry(index, term) {
                    self.step(now, Input::Installing(false), out)?;
                    return Ok(());
                }
                self.step(now, Input::Installing(true), out)?;
                let rests = !self.checkpoints.is_walking() && self.reclaims.is_idle();
                if rests && self.persisting == 0 {
                    match self.installs_in_place {
                        false => self.thread.install(index, self.replica.0.hard()),
                        true => self.thread.position_for(index),
                    }
                    Incoming::Places(machine)
                } else {
                    Incoming::Waits(machine)
                }
            }
            Incoming::Written(machine, position, bytes) if self.persisting == 0 => {
                let settings = Settings {
                    now,
                    ..self.settings
                };
                let (index, _) = machine.applied();
                let boot = Boot::behind(&machine, self.replica.0.hard(), settings);
                self.replica.0.install(boot)?;
                self.machine = *machine;
                self.sending.clear();
                self.checkpoints.installed(index, position, bytes);
                (self.compacted, self.tidy) = (Revision::ZERO, false);
                self.confirmed.clear();
                out.push(Happened::Installed(index));
                Incoming::None
            }
            other => other,
        };
        Ok(())
    }
}
