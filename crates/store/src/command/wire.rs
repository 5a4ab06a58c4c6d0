//! The bytes of a command: docs/formats/command.md.
//!
//! W1. The time stands at a fixed offset, so that the leader stamps an encoded command in place.
//! W2. A value's bytes are contiguous, behind their length and CRC: the entry is their home on disk.

use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;

pub use crate::codec::DecodeError;
use crate::codec::{Read, Write};
use crate::{Alarm, AlarmBy, ClusterTime, KeyEnd, KeyRange, MemberChange, UnixMs, tree};

use super::{
    Blob, Body, Command, Compare, DeleteRange, Limits, Op, Operand, Put, Range, Relation,
    RequestId, Sort, SortTarget, Txn,
};

/// The newest format this program writes and reads.
const FORMAT: u8 = 1;
/// Where the stamp stands: behind format, kind, level and request id.
const ID_AT: usize = 1 + 1 + 2;
const TIME_AT: usize = ID_AT + 24;
/// How deep txns may nest: recursion over one fits every thread's stack. [`Body::check`] lets no
/// deeper one become a command.
pub(super) const MAX_DEPTH: usize = 128;

/// An encoded command that waits for its cluster time.
#[derive(Debug)]
pub struct Draft {
    bytes: Vec<u8>,
    revokes: Option<i64>,
}

impl Draft {
    /// Encodes a command without its time.
    pub fn new(id: RequestId, wall: UnixMs, body: &Body) -> Self {
        let mut out = Vec::with_capacity(96 + body.size_hint());
        out.u8(FORMAT);
        out.u8(body.kind());
        // The cluster version this command needs; nothing needs more than the first yet.
        out.extend_from_slice(&0u16.to_le_bytes());
        out.u64(id.member);
        out.u64(id.incarnation);
        out.u64(id.counter);
        assert_eq!(out.len(), TIME_AT, "W1");
        out.u64(0);
        out.u64(wall.0);
        // The user and auth revision that asked; none until there are users.
        out.bytes(b"");
        out.u64(0);
        body.encode(&mut out);
        Self::with(out, body)
    }

    fn with(bytes: Vec<u8>, body: &Body) -> Self {
        let revokes = match body {
            Body::LeaseRevoke { id } => Some(*id),
            _ => None,
        };
        Self { bytes, revokes }
    }

    /// A command that another member was asked for, stamped or not.
    ///
    /// # Errors
    /// [`DecodeError`]: it would not be one in the log.
    pub fn received(bytes: &Bytes) -> Result<Self, DecodeError> {
        let command = Command::decode(bytes)?;
        Ok(Self::with(bytes.to_vec(), &command.body))
    }

    /// Its bytes, not stamped.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from(self.bytes)
    }

    /// Who asked.
    pub fn id(&self) -> RequestId {
        let number = |at: usize| {
            let bytes = self.bytes[at..at + 8].try_into();
            u64::from_le_bytes(bytes.expect("eight bytes"))
        };
        RequestId {
            member: number(ID_AT),
            incarnation: number(ID_AT + 8),
            counter: number(ID_AT + 16),
        }
    }

    /// How it changes who is in the cluster, if that is what it does.
    pub fn member_change(&self) -> Option<(u64, MemberChange)> {
        if self.bytes[1] != MEMBER {
            return None;
        }
        let command = Command::decode(&Bytes::copy_from_slice(&self.bytes)).ok()?;
        match command.body {
            Body::Member { id, change } => Some((id, change)),
            _ => None,
        }
    }

    /// The lease that it ends, if that is what it does.
    pub fn revokes(&self) -> Option<i64> {
        self.revokes
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: a draft has an envelope.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Puts the leader's time in, which makes it an entry.
    pub fn stamp(mut self, time: ClusterTime) -> Bytes {
        self.bytes[TIME_AT..TIME_AT + 8].copy_from_slice(&time.0.to_le_bytes());
        Bytes::from(self.bytes)
    }
}

impl Command {
    /// The cluster time of an encoded command, without decoding the rest.
    pub fn stamp_of(entry: &[u8]) -> Option<ClusterTime> {
        let bytes = entry.get(TIME_AT..TIME_AT + 8)?;
        Some(ClusterTime(u64::from_le_bytes(
            bytes.try_into().expect("eight bytes"),
        )))
    }

    /// Reads a command back. Strings share the entry's bytes.
    ///
    /// # Errors
    /// [`DecodeError`]; a newer format or level says so, and this member must be upgraded.
    pub fn decode(entry: &Bytes) -> Result<Self, DecodeError> {
        let mut read = Read::new(entry.clone());
        let format = read.u8()?;
        if format > FORMAT {
            return Err(DecodeError::Newer(format));
        }
        if format == 0 {
            return Err(DecodeError::Bad("command format"));
        }
        let kind = read.u8()?;
        let level = u16::from_le_bytes([read.u8()?, read.u8()?]);
        if level > 0 {
            return Err(DecodeError::Newer(u8::try_from(level).unwrap_or(u8::MAX)));
        }
        let id = RequestId {
            member: read.u64()?,
            incarnation: read.u64()?,
            counter: read.u64()?,
        };
        let time = ClusterTime(read.u64()?);
        let wall = UnixMs(read.u64()?);
        read.bytes()?;
        read.u64()?;
        let body = Body::decode(kind, &mut read)?;
        read.finish()?;
        // A member that asks proposes nothing else, but not all that is decoded here comes from one.
        let limits = Limits {
            max_txn_ops: usize::MAX,
        };
        body.check(limits)
            .map_err(|_| DecodeError::Bad("request"))?;
        Ok(Self {
            id,
            time,
            wall,
            body,
        })
    }
}

const PUT: u8 = 1;
const DELETE_RANGE: u8 = 2;
const TXN: u8 = 3;
const COMPACT: u8 = 4;
const LEASE_GRANT: u8 = 5;
const LEASE_REVOKE: u8 = 6;
const TREE: u8 = 7;
const EXPIRE: u8 = 8;
const TICK: u8 = 9;
const MEMBER: u8 = 10;
const RANGE: u8 = 11;
const ALARM: u8 = 12;

impl Body {
    fn kind(&self) -> u8 {
        match self {
            Self::Put(_) => PUT,
            Self::DeleteRange(_) => DELETE_RANGE,
            Self::Txn(_) => TXN,
            Self::Compact { .. } => COMPACT,
            Self::LeaseGrant { .. } => LEASE_GRANT,
            Self::LeaseRevoke { .. } => LEASE_REVOKE,
            Self::Alarm { .. } => ALARM,
            Self::Tree(_) => TREE,
            Self::Expire => EXPIRE,
            Self::Tick => TICK,
            Self::Member { .. } => MEMBER,
        }
    }

    fn size_hint(&self) -> usize {
        match self {
            Self::Put(put) => put.key.len() + put.value.bytes.len(),
            _ => 64,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Put(put) => put.encode(out),
            Self::DeleteRange(delete) => delete.encode(out),
            Self::Txn(txn) => txn.encode(out),
            Self::Compact { revision } => out.i64(*revision),
            Self::LeaseGrant { id, ttl_s } => {
                out.i64(*id);
                out.i64(*ttl_s);
            }
            Self::LeaseRevoke { id } => out.i64(*id),
            Self::Alarm { alarm, raise, by } => {
                alarm.encode(out);
                by.encode(out);
                out.bool(*raise);
            }
            Self::Tree(request) => request.encode(out),
            Self::Expire | Self::Tick => {}
            Self::Member { id, change } => {
                out.u64(*id);
                change.encode(out);
            }
        }
    }

    fn decode(kind: u8, read: &mut Read) -> Result<Self, DecodeError> {
        Ok(match kind {
            PUT => Self::Put(Put::decode(read)?),
            DELETE_RANGE => Self::DeleteRange(DeleteRange::decode(read)?),
            TXN => Self::Txn(Box::new(Txn::decode(read, 0)?)),
            COMPACT => Self::Compact {
                revision: read.i64()?,
            },
            LEASE_GRANT => Self::LeaseGrant {
                id: read.i64()?,
                ttl_s: read.i64()?,
            },
            LEASE_REVOKE => Self::LeaseRevoke { id: read.i64()? },
            ALARM => Self::Alarm {
                alarm: Alarm::decode(read)?,
                by: AlarmBy::decode(read)?,
                raise: read.bool()?,
            },
            TREE => Self::Tree(tree::Request::decode(read)?),
            EXPIRE => Self::Expire,
            TICK => Self::Tick,
            MEMBER => Self::Member {
                id: read.u64()?,
                change: MemberChange::decode(read)?,
            },
            _ => return Err(DecodeError::Bad("command kind")),
        })
    }
}

impl Blob {
    /// Writes length, CRC and bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.u32(self.crc);
        out.bytes(&self.bytes);
    }

    /// Reads them, and notes where the bytes begin.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn decode(read: &mut Read) -> Result<Self, DecodeError> {
        let crc = read.u32()?;
        let bytes = read.bytes()?;
        let at = u32::try_from(read.offset() - bytes.len());
        Ok(Self {
            bytes,
            crc,
            at: at.map_err(|_| DecodeError::Bad("entry length"))?,
        })
    }
}

impl KeyRange {
    /// Writes start and end.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.bytes(&self.start);
        match &self.end {
            KeyEnd::Point => out.bytes(b""),
            KeyEnd::Before(end) => out.bytes(end),
            KeyEnd::Open => out.bytes(b"\0"),
        }
    }

    /// Reads them.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn decode(read: &mut Read) -> Result<Self, DecodeError> {
        Ok(Self::from_parts(read.bytes()?, read.bytes()?))
    }
}

impl Put {
    fn encode(&self, out: &mut Vec<u8>) {
        out.bytes(&self.key);
        self.value.encode(out);
        out.i64(self.lease);
        out.bool(self.prev_kv);
        out.bool(self.ignore_value);
        out.bool(self.ignore_lease);
    }

    fn decode(read: &mut Read) -> Result<Self, DecodeError> {
        Ok(Self {
            key: read.bytes()?,
            value: Blob::decode(read)?,
            lease: read.i64()?,
            prev_kv: read.bool()?,
            ignore_value: read.bool()?,
            ignore_lease: read.bool()?,
        })
    }
}

impl DeleteRange {
    fn encode(&self, out: &mut Vec<u8>) {
        self.range.encode(out);
        out.bool(self.prev_kv);
    }

    fn decode(read: &mut Read) -> Result<Self, DecodeError> {
        Ok(Self {
            range: KeyRange::decode(read)?,
            prev_kv: read.bool()?,
        })
    }
}

impl Txn {
    fn encode(&self, out: &mut Vec<u8>) {
        out.u32(self.compare.len() as u32);
        self.compare.iter().for_each(|compare| compare.encode(out));
        for branch in [&self.success, &self.failure] {
            out.u32(branch.len() as u32);
            branch.iter().for_each(|op| op.encode(out));
        }
    }

    fn decode(read: &mut Read, depth: usize) -> Result<Self, DecodeError> {
        if depth > MAX_DEPTH {
            return Err(DecodeError::Bad("depth of nested txns"));
        }
        let mut txn = Self::default();
        for _ in 0..read.count()? {
            txn.compare.push(Compare::decode(read)?);
        }
        for branch in [&mut txn.success, &mut txn.failure] {
            for _ in 0..read.count()? {
                branch.push(Op::decode(read, depth + 1)?);
            }
        }
        Ok(txn)
    }
}

impl Op {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Range(range) => {
                out.u8(RANGE);
                range.encode(out);
            }
            Self::Put(put) => {
                out.u8(PUT);
                put.encode(out);
            }
            Self::DeleteRange(delete) => {
                out.u8(DELETE_RANGE);
                delete.encode(out);
            }
            Self::Txn(txn) => {
                out.u8(TXN);
                txn.encode(out);
            }
        }
    }

    fn decode(read: &mut Read, depth: usize) -> Result<Self, DecodeError> {
        Ok(match read.u8()? {
            RANGE => Self::Range(Range::decode(read)?),
            PUT => Self::Put(Put::decode(read)?),
            DELETE_RANGE => Self::DeleteRange(DeleteRange::decode(read)?),
            TXN => Self::Txn(Box::new(Txn::decode(read, depth)?)),
            _ => return Err(DecodeError::Bad("operation")),
        })
    }
}

impl Compare {
    fn encode(&self, out: &mut Vec<u8>) {
        self.range.encode(out);
        out.u8(self.relation as u8);
        match &self.operand {
            Operand::Version(number) => numbered(out, 0, *number),
            Operand::Create(number) => numbered(out, 1, *number),
            Operand::Mod(number) => numbered(out, 2, *number),
            Operand::Value(bytes) => {
                out.u8(3);
                out.bytes(bytes);
            }
            Operand::Lease(number) => numbered(out, 4, *number),
        }
    }

    fn decode(read: &mut Read) -> Result<Self, DecodeError> {
        Ok(Self {
            range: KeyRange::decode(read)?,
            relation: match read.u8()? {
                0 => Relation::Equal,
                1 => Relation::Greater,
                2 => Relation::Less,
                3 => Relation::NotEqual,
                _ => return Err(DecodeError::Bad("relation")),
            },
            operand: match read.u8()? {
                0 => Operand::Version(read.i64()?),
                1 => Operand::Create(read.i64()?),
                2 => Operand::Mod(read.i64()?),
                3 => Operand::Value(read.bytes()?),
                4 => Operand::Lease(read.i64()?),
                _ => return Err(DecodeError::Bad("operand")),
            },
        })
    }
}

fn numbered(out: &mut Vec<u8>, tag: u8, number: i64) {
    out.u8(tag);
    out.i64(number);
}

impl Range {
    fn encode(&self, out: &mut Vec<u8>) {
        self.range.encode(out);
        out.u8(self.sort.target as u8);
        out.bool(self.sort.descending);
        out.bool(self.keys_only);
        out.bool(self.count_only);
        for number in [
            self.limit,
            self.revision,
            self.min_mod,
            self.max_mod,
            self.min_create,
            self.max_create,
        ] {
            out.i64(number);
        }
    }

    fn decode(read: &mut Read) -> Result<Self, DecodeError> {
        Ok(Self {
            range: KeyRange::decode(read)?,
            sort: Sort {
                target: match read.u8()? {
                    0 => SortTarget::Key,
                    1 => SortTarget::Version,
                    2 => SortTarget::Create,
                    3 => SortTarget::Mod,
                    4 => SortTarget::Value,
                    _ => return Err(DecodeError::Bad("sort target")),
                },
                descending: read.bool()?,
            },
            keys_only: read.bool()?,
            count_only: read.bool()?,
            limit: read.i64()?,
            revision: read.i64()?,
            min_mod: read.i64()?,
            max_mod: read.i64()?,
            min_create: read.i64()?,
            max_create: read.i64()?,
        })
    }
}
