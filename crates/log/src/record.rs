//! Records: what a batch is made of. Length-prefixed, each with its own format byte.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::bytes::Fields;

/// What a Raft entry holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EntryKind {
    /// A command of the state machine.
    Normal,
    /// A change of the configuration.
    Conf,
}

/// An entry of the Raft log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Its place in the Raft log; from 1.
    pub index: u64,
    /// The term in which it was proposed.
    pub term: u64,
    /// What `data` is.
    pub kind: EntryKind,
    /// The bytes, not looked into here.
    pub data: Bytes,
}

/// A value that a member copied forward in its log, so that the segment of its first home can go.
///
/// One member's own affair: it names the version whose value it is, and replaces its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Moved {
    /// The key whose value it is.
    pub key: Bytes,
    /// The revision that wrote the version.
    pub revision: u64,
    /// The value.
    pub data: Bytes,
}

/// What Raft may never forget beside its entries.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HardState {
    /// The latest term seen.
    pub term: u64,
    /// Whom this member voted for in that term; 0 for nobody.
    pub vote: u64,
    /// The highest index known to be committed.
    pub commit: u64,
}

/// The format byte of all kinds of records.
const RECORD_FORMAT: u8 = 1;
const KIND_ENTRY: u8 = 1;
const KIND_HARD_STATE: u8 = 2;
const KIND_SEALED: u8 = 3;
const KIND_MOVED: u8 = 4;

/// Length prefix, format byte and kind byte.
const RECORD_HEAD: usize = 6;
/// What stands before an entry's data: head, index, term, entry kind.
pub(crate) const ENTRY_HEAD: usize = RECORD_HEAD + 17;
/// What stands before a moved value's key and data: head, revision, length of the key.
pub(crate) const MOVED_HEAD: usize = RECORD_HEAD + 12;
pub(crate) const HARD_STATE_BYTES: usize = RECORD_HEAD + 24;
pub(crate) const SEALED_BYTES: usize = RECORD_HEAD;

/// A record as it stands in a verified batch.
#[derive(Debug)]
pub(crate) enum Record<'a> {
    /// `data_offset` counts from the start of the batch's records.
    Entry {
        index: u64,
        term: u64,
        kind: EntryKind,
        data: &'a [u8],
        data_offset: usize,
    },
    HardState(HardState),
    /// The segment ends here and goes on in the next.
    Sealed,
    /// `data_offset` as for an entry.
    Moved {
        key: &'a [u8],
        revision: u64,
        data: &'a [u8],
        data_offset: usize,
    },
}

/// A record that verified but that this version cannot read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BadRecord {
    /// Its bytes contradict themselves.
    Malformed,
    /// A later version wrote it.
    Newer(u8),
}

fn head(length: usize, kind: u8, into: &mut Vec<u8>) {
    // The length counts what follows it.
    let length = u32::try_from(length - 4).expect("a record is shorter than its segment");
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(&[RECORD_FORMAT, kind]);
}

/// Appends the record of `entry`; its data are the last bytes written.
pub(crate) fn encode_entry(entry: &Entry, into: &mut Vec<u8>) {
    into.reserve(ENTRY_HEAD + entry.data.len());
    head(ENTRY_HEAD + entry.data.len(), KIND_ENTRY, into);
    into.extend_from_slice(&entry.index.to_le_bytes());
    into.extend_from_slice(&entry.term.to_le_bytes());
    into.push(match entry.kind {
        EntryKind::Normal => 0,
        EntryKind::Conf => 1,
    });
    into.extend_from_slice(&entry.data);
}

pub(crate) fn encode_hard_state(hard: HardState, into: &mut Vec<u8>) {
    head(HARD_STATE_BYTES, KIND_HARD_STATE, into);
    for number in [hard.term, hard.vote, hard.commit] {
        into.extend_from_slice(&number.to_le_bytes());
    }
}

/// Appends the record of a moved value; its data are the last bytes written.
pub(crate) fn encode_moved(moved: &Moved, into: &mut Vec<u8>) {
    let length = MOVED_HEAD + moved.key.len() + moved.data.len();
    into.reserve(length);
    head(length, KIND_MOVED, into);
    into.extend_from_slice(&moved.revision.to_le_bytes());
    let key = u32::try_from(moved.key.len()).expect("a record is shorter than its segment");
    into.extend_from_slice(&key.to_le_bytes());
    into.extend_from_slice(&moved.key);
    into.extend_from_slice(&moved.data);
}

pub(crate) fn encode_sealed(into: &mut Vec<u8>) {
    head(SEALED_BYTES, KIND_SEALED, into);
}

/// The records of a batch, in order.
pub(crate) struct Records<'a> {
    all: &'a [u8],
    next: usize,
}

impl<'a> Records<'a> {
    /// Reads the records part of a batch whose checksum was right.
    pub(crate) fn new(all: &'a [u8]) -> Self {
        Self { all, next: 0 }
    }

    fn read(&mut self) -> Result<Record<'a>, BadRecord> {
        let mut fields = Fields(self.all.get(self.next..).ok_or(BadRecord::Malformed)?);
        let length = fields.u32().ok_or(BadRecord::Malformed)? as usize;
        let body = fields.take(length).ok_or(BadRecord::Malformed)?;
        self.next += 4 + length;
        match body.first() {
            Some(&RECORD_FORMAT) => {}
            Some(&newer) => return Err(BadRecord::Newer(newer)),
            None => return Err(BadRecord::Malformed),
        }
        match body.get(1) {
            Some(&(KIND_ENTRY | KIND_HARD_STATE | KIND_SEALED | KIND_MOVED)) => {}
            // Kinds are added without a new format byte, so an unknown one is a newer one.
            Some(_) => return Err(BadRecord::Newer(RECORD_FORMAT)),
            None => return Err(BadRecord::Malformed),
        }
        decode_body(body[1], &body[2..], self.next).ok_or(BadRecord::Malformed)
    }
}

/// Decodes what follows the kind byte; `end` is where the record ends among its batch's records.
fn decode_body(kind: u8, body: &[u8], end: usize) -> Option<Record<'_>> {
    let mut fields = Fields(body);
    match kind {
        KIND_ENTRY => {
            let (index, term) = (fields.u64()?, fields.u64()?);
            let kind = match fields.u8()? {
                0 => EntryKind::Normal,
                1 => EntryKind::Conf,
                _ => return None,
            };
            let data = fields.0;
            let data_offset = end - data.len();
            // An index must have a next one.
            (index > 0 && index < u64::MAX).then_some(Record::Entry {
                index,
                term,
                kind,
                data,
                data_offset,
            })
        }
        KIND_HARD_STATE => {
            let hard = HardState {
                term: fields.u64()?,
                vote: fields.u64()?,
                commit: fields.u64()?,
            };
            fields.0.is_empty().then_some(Record::HardState(hard))
        }
        KIND_SEALED => fields.0.is_empty().then_some(Record::Sealed),
        KIND_MOVED => {
            let revision = fields.u64()?;
            let length = fields.u32()? as usize;
            let key = fields.take(length)?;
            let data = fields.0;
            Some(Record::Moved {
                key,
                revision,
                data,
                data_offset: end - data.len(),
            })
        }
        _ => None,
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BadRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.next < self.all.len()).then(|| self.read())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_without_a_next_one_is_malformed() {
        for (index, is_good) in [
            (0, false),
            (1, true),
            (u64::MAX - 1, true),
            (u64::MAX, false),
        ] {
            let entry = Entry {
                index,
                term: 1,
                kind: EntryKind::Normal,
                data: Bytes::from_static(b"x"),
            };
            let mut bytes = Vec::new();
            encode_entry(&entry, &mut bytes);
            let read = Records::new(&bytes).next().expect("a record");
            assert_eq!(read.is_ok(), is_good, "{index}");
        }
    }
}
