//! Alarms: standing refusals of writes, raised and cleared by an operator, or by a member itself.
//!
//! A member clears only what a member has raised; an operator clears either, and what he raises is
//! his even if a member had raised it before.
//!
//! What ends by time (leases, v2 deadlines) goes on ending under any alarm: P5 does not wait for
//! an operator.
//!
//! Source: spec/v3-api.md §2.12.

use alloc::collections::BTreeMap;
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

/// Who raises or clears an alarm. It counts who has raised one: only his own are a member's to clear.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AlarmBy {
    /// A call of a client.
    Client = 0,
    /// The member that it is about.
    Member = 1,
}

impl AlarmBy {
    /// Writes one byte.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.u8(self as u8);
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(read: &mut Read) -> Result<Self, DecodeError> {
        match read.u8()? {
            0 => Ok(Self::Client),
            1 => Ok(Self::Member),
            _ => Err(DecodeError::Bad("who raised an alarm")),
        }
    }
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
    /// The alarms that are raised, and who has raised them.
    pub fn alarms(&self) -> &BTreeMap<Alarm, AlarmBy> {
        &self.alarms
    }

    /// Whether an alarm of this kind is raised, whoever it is about.
    pub fn is_raised(&self, kind: AlarmKind) -> bool {
        self.alarms.keys().any(|alarm| alarm.kind == kind)
    }

    /// Raises or clears an alarm; the answer names it if it is raised now or was.
    pub(crate) fn alarm(&mut self, alarm: Alarm, raise: bool, by: AlarmBy) -> Reply {
        let clients = self.alarms.get(&alarm) == Some(&AlarmBy::Client);
        let affected = if raise {
            let by = if clients { AlarmBy::Client } else { by };
            self.alarms.insert(alarm, by);
            true
        } else if clients && by == AlarmBy::Member {
            false
        } else {
            self.alarms.remove(&alarm).is_some()
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
        | Body::Member { .. } => false,
    }
}
