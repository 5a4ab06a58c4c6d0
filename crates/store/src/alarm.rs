//! Alarms: standing refusals of writes, raised and cleared by an operator.
//!
//! What ends by time (leases, v2 deadlines) goes on ending under any alarm: P5 does not wait for
//! an operator.
//!
//! Source: spec/v3-api.md §2.12.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::codec::{DecodeError, Read, Write};
use crate::command::Body;
use crate::{Refusal, Reply, Store};

/// One member's alarm. The member need not exist.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Alarm {
    /// The member it is about.
    pub member: u64,
    /// What is wrong.
    pub kind: AlarmKind,
}

/// What an alarm says.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum AlarmKind {
    /// Space is short: what would add a version or a lease is refused.
    NoSpace = 1,
    /// Members differ: every write is refused.
    Corrupt = 2,
}

impl Alarm {
    /// Writes member and kind.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.u64(self.member);
        out.u8(self.kind as u8);
    }

    /// Reads them.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(read: &mut Read) -> Result<Self, DecodeError> {
        Ok(Self {
            member: read.u64()?,
            kind: match read.u8()? {
                1 => AlarmKind::NoSpace,
                2 => AlarmKind::Corrupt,
                _ => return Err(DecodeError::Bad("alarm")),
            },
        })
    }
}

impl Store {
    /// The alarms that are raised.
    pub fn alarms(&self) -> &BTreeSet<Alarm> {
        &self.alarms
    }

    /// Whether an alarm of this kind is raised, whoever it is about.
    pub fn is_raised(&self, kind: AlarmKind) -> bool {
        self.alarms.iter().any(|alarm| alarm.kind == kind)
    }

    /// Raises or clears an alarm; the answer names it if it is raised now or was.
    pub(crate) fn alarm(&mut self, alarm: Alarm, raise: bool) -> Reply {
        let affected = if raise {
            self.alarms.insert(alarm);
            true
        } else {
            self.alarms.remove(&alarm)
        };
        Reply::Alarm(affected.then_some(alarm))
    }

    /// Whether the alarms let a command through.
    pub(crate) fn check_alarms(&self, body: &Body) -> Result<(), Refusal> {
        if self.alarms.is_empty() {
            return Ok(());
        }
        if writes(body) && self.is_raised(AlarmKind::Corrupt) {
            return Err(Refusal::Corrupt);
        }
        if body.growth_bytes().is_some() && self.is_raised(AlarmKind::NoSpace) {
            return Err(Refusal::NoSpace);
        }
        Ok(())
    }
}

/// Whether a client asks for a change. The end of a lease does not count: its time may be over.
fn writes(body: &Body) -> bool {
    match body {
        Body::Put(_)
        | Body::DeleteRange(_)
        | Body::Txn(_)
        | Body::Compact { .. }
        | Body::LeaseGrant { .. }
        | Body::Tree(_) => true,
        Body::LeaseRevoke { .. }
        | Body::Alarm { .. }
        | Body::Expire
        | Body::Tick
        | Body::Publish(_) => false,
    }
}
