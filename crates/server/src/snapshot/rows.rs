//! The keys and values of each bucket, as bytes.

use bytes::{BufMut, Bytes};
use prost::Message;
use prost::encoding::{encoded_len_varint, key_len};
use quorate_proto::etcdserverpb::{AlarmMember, AlarmType};
use quorate_proto::mvccpb::KeyValue;
use quorate_store::Member;
use quorate_store::codec::{DecodeError, Read, Write};
use quorate_store::{
    Action, Alarm, AlarmKind, ClusterTime, Deadline, FileVersion, Mark, Revision, UnixMs,
    ValueError, Values,
};

/// Buckets that every file has, in their order.
pub(super) const ALARM: &[u8] = b"alarm";
pub(super) const AUTH: &[u8] = b"auth";
pub(super) const AUTH_ROLES: &[u8] = b"authRoles";
pub(super) const AUTH_USERS: &[u8] = b"authUsers";
pub(super) const CLUSTER: &[u8] = b"cluster";
pub(super) const KEY: &[u8] = b"key";
pub(super) const LEASE: &[u8] = b"lease";
pub(super) const MEMBERS: &[u8] = b"members";
pub(super) const MEMBERS_REMOVED: &[u8] = b"members_removed";
pub(super) const META: &[u8] = b"meta";
pub(super) const OURS: &[u8] = b"quorate";

/// All of them.
pub(super) const KNOWN: [&[u8]; 11] = [
    ALARM,
    AUTH,
    AUTH_ROLES,
    AUTH_USERS,
    CLUSTER,
    KEY,
    LEASE,
    MEMBERS,
    MEMBERS_REMOVED,
    META,
    OURS,
];

pub(super) const AUTH_ENABLED: &[u8] = b"authEnabled";
pub(super) const CONF_STATE: &[u8] = b"confState";
pub(super) const CONSISTENT_INDEX: &[u8] = b"consistent_index";
pub(super) const FINISHED_COMPACTION: &[u8] = b"finishedCompactRev";
pub(super) const SCHEDULED_COMPACTION: &[u8] = b"scheduledCompactRev";
pub(super) const TERM: &[u8] = b"term";
/// The key of [`OURS`] that says what the others are: before marks, behind which are rows.
pub(super) const OURS_HEAD: &[u8] = b"head";

/// The version of what lies in [`OURS`].
const FORMAT: u8 = 1;
/// Bytes of a revision as a key; a tombstone's has one more.
pub(super) const REVISION_BYTES: usize = 17;
const TOMBSTONE: u8 = b't';

/// A lease as its bucket holds it.
///
/// Source: etcd's lease.proto.
#[derive(Clone, PartialEq, Message)]
pub(super) struct LeaseRow {
    #[prost(int64, tag = "1")]
    pub(super) id: i64,
    #[prost(int64, tag = "2")]
    pub(super) ttl_s: i64,
    /// What was left at the last checkpoint; 0 is all.
    #[prost(int64, tag = "3")]
    pub(super) remaining_s: i64,
}

/// A revision as a key: big-endian, so that bytes are in its order.
pub(super) fn revision_key(revision: Revision, sub: u32, is_tombstone: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(REVISION_BYTES + 1);
    key.put_u64(revision.get());
    key.put_u8(b'_');
    key.put_u64(sub.into());
    if is_tombstone {
        key.put_u8(TOMBSTONE);
    }
    key
}

/// Reads [`revision_key`] back: revision, sub, whether it is a tombstone.
pub(super) fn read_revision_key(key: &[u8]) -> Option<(u64, u64, bool)> {
    let (revision, rest) = key.split_first_chunk()?;
    let rest = rest.strip_prefix(b"_")?;
    let (sub, rest) = rest.split_first_chunk()?;
    let is_tombstone = match rest {
        [] => false,
        [TOMBSTONE] => true,
        _ => return None,
    };
    Some((
        u64::from_be_bytes(*revision),
        u64::from_be_bytes(*sub),
        is_tombstone,
    ))
}

/// A version as etcd stores it.
pub(super) fn key_value(
    key: &[u8],
    version: &FileVersion,
    values: &dyn Values,
) -> Result<Vec<u8>, ValueError> {
    let mut message = KeyValue {
        key: Bytes::copy_from_slice(key),
        ..KeyValue::default()
    };
    if version.count > 0 {
        message.create_revision = version.create.to_wire();
        message.mod_revision = version.revision.to_wire();
        message.version = i64::try_from(version.count).unwrap_or(i64::MAX);
        message.value = Bytes::copy_from_slice(&version.value.read(values)?);
        message.lease = version.limit.lease();
    }
    Ok(message.encode_to_vec())
}

/// The length of [`key_value`], without reading the value.
pub(super) fn key_value_bytes(key: &[u8], version: &FileVersion) -> usize {
    let bytes = |tag, len: usize| match len {
        0 => 0,
        len => key_len(tag) + encoded_len_varint(len as u64) + len,
    };
    let number = |tag, number: u64| match number {
        0 => 0,
        number => key_len(tag) + encoded_len_varint(number),
    };
    if version.count == 0 {
        return bytes(1, key.len());
    }
    bytes(1, key.len())
        + number(2, version.create.get())
        + number(3, version.revision.get())
        + number(4, version.count)
        + bytes(5, version.value.len())
        + number(6, version.limit.lease() as u64)
}

/// An alarm: all of it is the key.
pub(super) fn alarm_key(alarm: &Alarm) -> Vec<u8> {
    let kind = match alarm.kind {
        AlarmKind::NoSpace => AlarmType::Nospace,
        AlarmKind::Corrupt => AlarmType::Corrupt,
    };
    let message = AlarmMember {
        member_id: alarm.member,
        alarm: kind.into(),
    };
    message.encode_to_vec()
}

/// Reads [`alarm_key`] back; `None` for what is no alarm that we know.
pub(super) fn read_alarm_key(key: &[u8]) -> Option<Alarm> {
    let message = AlarmMember::decode(key).ok()?;
    let kind = match AlarmType::try_from(message.alarm) {
        Ok(AlarmType::Nospace) => AlarmKind::NoSpace,
        Ok(AlarmType::Corrupt) => AlarmKind::Corrupt,
        Ok(AlarmType::None) | Err(_) => return None,
    };
    Some(Alarm {
        member: message.member_id,
        kind,
    })
}

/// A member: its id in hexadecimal, and JSON.
pub(super) fn member(member: &Member) -> (Vec<u8>, Vec<u8>) {
    let json = serde_json::json!({
        "id": member.id,
        "peerURLs": member.peer_urls,
        "name": member.name,
        "clientURLs": member.client_urls,
    });
    (format!("{:x}", member.id).into(), json.to_string().into())
}

/// Who votes, as JSON.
pub(super) fn conf_state(members: &[Member]) -> Vec<u8> {
    let voters: Vec<u64> = members.iter().map(|member| member.id).collect();
    let json = serde_json::json!({ "voters": voters, "auto_leave": false });
    json.to_string().into()
}

/// What our bucket says of itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct OursHead {
    pub(super) revision: Revision,
    pub(super) time: ClusterTime,
}

impl OursHead {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.u8(FORMAT);
        bytes.u64(self.revision.get());
        bytes.u64(self.time.0);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut read = Read::new(Bytes::copy_from_slice(bytes));
        let format = read.u8()?;
        if format != FORMAT {
            return Err(DecodeError::Newer(format));
        }
        let revision = read.u64()?;
        if revision > i64::MAX as u64 {
            return Err(DecodeError::Bad("revision"));
        }
        let head = Self {
            revision: Revision::new(revision),
            time: ClusterTime(read.u64()?),
        };
        read.finish()?;
        Ok(head)
    }
}

/// How v2 sees a version, where that does not follow from the version itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Marked {
    pub(super) mark: Mark,
    pub(super) deadline: Option<Deadline>,
}

pub(super) const ROW_KEY_BYTES: usize = 9;
pub(super) const MARK_KEY_BYTES: usize = 13;
pub(super) const MARK_BYTES: usize = 20;

/// The key of a row of the state: rows keep their order.
pub(super) fn row_key(number: u64) -> [u8; ROW_KEY_BYTES] {
    let mut key = [b'r'; ROW_KEY_BYTES];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Whether this is the key of a row of the state.
pub(super) fn is_row_key(key: &[u8]) -> bool {
    key.len() == ROW_KEY_BYTES && key[0] == b'r'
}

/// The key of a version's mark.
pub(super) fn mark_key(revision: Revision, sub: u32) -> [u8; MARK_KEY_BYTES] {
    let mut key = [b'm'; MARK_KEY_BYTES];
    key[1..9].copy_from_slice(&revision.get().to_be_bytes());
    key[9..].copy_from_slice(&sub.to_be_bytes());
    key
}

/// Reads [`mark_key`] back.
pub(super) fn read_mark_key(key: &[u8]) -> Option<(u64, u32)> {
    let (revision, rest) = key.strip_prefix(b"m")?.split_first_chunk()?;
    let sub: &[u8; 4] = rest.try_into().ok()?;
    Some((u64::from_be_bytes(*revision), u32::from_be_bytes(*sub)))
}

/// How v2 sees what a v3 client wrote.
pub(super) fn plain_mark(count: u64) -> Mark {
    Mark::shown(match count {
        0 => Action::Delete,
        1 => Action::Create,
        _ => Action::Update,
    })
}

/// Whether a version needs a mark.
pub(super) fn is_marked(version: &FileVersion) -> bool {
    version.limit.deadline().is_some() || version.mark != plain_mark(version.count)
}

impl Marked {
    pub(super) fn of(version: &FileVersion) -> Self {
        Self {
            mark: version.mark,
            deadline: version.limit.deadline().copied(),
        }
    }

    /// [`MARK_BYTES`] bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MARK_BYTES);
        bytes.u8(self.mark.action as u8);
        bytes.bool(self.mark.covered);
        bytes.bool(self.mark.refresh);
        bytes.bool(self.deadline.is_some());
        let (at, shown) = self.deadline.map_or((0, 0), |due| (due.at.0, due.shown.0));
        bytes.u64(at);
        bytes.u64(shown);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut read = Read::new(Bytes::copy_from_slice(bytes));
        let action = Action::from_number(read.u8()?).ok_or(DecodeError::Bad("action"))?;
        let mark = Mark {
            action,
            covered: read.bool()?,
            refresh: read.bool()?,
        };
        let has_deadline = read.bool()?;
        let deadline = Deadline {
            at: ClusterTime(read.u64()?),
            shown: UnixMs(read.u64()?),
        };
        read.finish()?;
        Ok(Self {
            mark,
            deadline: has_deadline.then_some(deadline),
        })
    }
}
