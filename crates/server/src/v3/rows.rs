//! A range's answer, written straight from the store's rows into the message that is sent.
//!
//! Measured first, so that the length in front of it is known and its buffer is taken once, then
//! written once: keys from the index, values from the log, both copied a single time. The message
//! is a head, the rows, and a tail, so that a long one can be written in pieces.
//!
//! Field numbers are those of `rpc.proto` and `kv.proto`; a test holds this against the generated
//! code.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use quorate_proto::etcdserverpb::ResponseHeader;
use quorate_store::{RangeAnswer, Row, ValueError, Values};

use super::unary;

/// `RangeResponse.header`.
const HEADER: u32 = 1;
const KVS: u32 = 2;
const MORE: u32 = 3;
const COUNT: u32 = 4;
/// `KeyValue.key`.
const KEY: u32 = 1;
const CREATE: u32 = 2;
const MOD: u32 = 3;
const VERSION: u32 = 4;
const VALUE: u32 = 5;
const LEASE: u32 = 6;

/// What of a `RangeResponse` is not its rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) header: ResponseHeader,
    pub(super) more: bool,
    pub(super) count: u64,
}

impl Frame {
    /// The message's length in bytes, with rows of so many.
    pub(super) fn message_len(&self, rows: usize) -> usize {
        let header = nested_len(HEADER, self.header.encoded_len());
        header + rows + number_len(MORE, self.more.into()) + number_len(COUNT, self.count)
    }

    /// Writes what comes before the rows.
    pub(super) fn put_head(&self, to: &mut BytesMut) {
        put_len(to, HEADER, self.header.encoded_len());
        self.header.encode_raw(to);
    }

    /// Writes what comes behind the rows.
    pub(super) fn put_tail(&self, to: &mut BytesMut) {
        put_number(to, MORE, self.more.into());
        put_number(to, COUNT, self.count);
    }
}

/// The framed `RangeResponse` for what was found; `None` if it has several rows and its message
/// would be longer than `max_bytes`.
///
/// # Errors
/// As [`quorate_store::Value::read`].
pub(super) fn response(
    header: ResponseHeader,
    answer: &RangeAnswer<'_>,
    keys_only: bool,
    max_bytes: usize,
    values: &dyn Values,
) -> Result<Option<Bytes>, ValueError> {
    let frame = Frame {
        header,
        more: answer.more,
        count: answer.count,
    };
    let rows = answer.rows.iter();
    let len = frame.message_len(rows.map(|row| entry_len(row, keys_only)).sum());
    if len > max_bytes && answer.rows.len() > 1 {
        return Ok(None);
    }
    let mut to = unary::prefixed(len);
    frame.put_head(&mut to);
    for row in &answer.rows {
        put_entry(&mut to, row, keys_only, values)?;
    }
    frame.put_tail(&mut to);
    Ok(Some(to.freeze()))
}

/// The bytes that a row takes of the message.
pub(super) fn entry_len(row: &Row<'_>, keys_only: bool) -> usize {
    nested_len(KVS, row_len(row, keys_only))
}

/// Writes a row. After an error some of it may have been written.
///
/// # Errors
/// As [`quorate_store::Value::read`].
pub(super) fn put_entry(
    to: &mut BytesMut,
    row: &Row<'_>,
    keys_only: bool,
    values: &dyn Values,
) -> Result<(), ValueError> {
    let mut fields = Fields::new();
    fields.len(KVS, row_len(row, keys_only));
    put_row_behind(fields, to, row, keys_only, values)
}

pub(super) fn row_len(row: &Row<'_>, keys_only: bool) -> usize {
    let version = row.version;
    let value = if keys_only { 0 } else { version.value.len() };
    bytes_len(KEY, row.key.len())
        + number_len(CREATE, version.create.get())
        + number_len(MOD, version.revision.get())
        + number_len(VERSION, version.count)
        + bytes_len(VALUE, value)
        + number_len(LEASE, version.limit.lease() as u64)
}

pub(super) fn put_row(
    to: &mut BytesMut,
    row: &Row<'_>,
    keys_only: bool,
    values: &dyn Values,
) -> Result<(), ValueError> {
    put_row_behind(Fields::new(), to, row, keys_only, values)
}

fn put_row_behind(
    mut fields: Fields,
    to: &mut BytesMut,
    row: &Row<'_>,
    keys_only: bool,
    values: &dyn Values,
) -> Result<(), ValueError> {
    let version = row.version;
    if !row.key.is_empty() {
        fields.len(KEY, row.key.len());
        fields.put(to);
        to.extend_from_slice(row.key);
    }
    fields.number(CREATE, version.create.get());
    fields.number(MOD, version.revision.get());
    fields.number(VERSION, version.count);
    if !keys_only && !version.value.is_empty() {
        let value = version.value.read(values)?;
        fields.len(VALUE, value.len());
        fields.put(to);
        to.extend_from_slice(&value);
    }
    // A negative lease is the two's complement, as of every `int64`.
    fields.number(LEASE, version.limit.lease() as u64);
    fields.put(to);
    Ok(())
}

/// Tags, lengths and numbers that stand side by side, gathered to be written at once: a listing
/// writes thousands of them.
struct Fields {
    bytes: [u8; Self::ROOM],
    len: usize,
}

impl Fields {
    /// Between two byte strings of a row: three numbers and a length, each of at most 11 bytes.
    const ROOM: usize = 44;

    fn new() -> Self {
        Self {
            bytes: [0; Self::ROOM],
            len: 0,
        }
    }

    fn len(&mut self, field: u32, len: usize) {
        self.push(tag(field, WireType::LengthDelimited));
        self.varint(len as u64);
    }

    /// Zero is not written.
    fn number(&mut self, field: u32, number: u64) {
        if number != 0 {
            self.push(tag(field, WireType::Varint));
            self.varint(number);
        }
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.push(number as u8);
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    /// Writes what was gathered.
    fn put(&mut self, to: &mut BytesMut) {
        to.extend_from_slice(&self.bytes[..self.len]);
        self.len = 0;
    }
}

/// The key of a field whose number is below 16.
fn tag(field: u32, kind: WireType) -> u8 {
    (field << 3) as u8 | kind as u8
}

/// A message inside the message; it is written even when empty.
pub(super) fn nested_len(field: u32, len: usize) -> usize {
    key_len(field) + encoded_len_varint(len as u64) + len
}

pub(super) fn put_len(to: &mut BytesMut, field: u32, len: usize) {
    encode_key(field, WireType::LengthDelimited, to);
    encode_varint(len as u64, to);
}

/// An empty byte string is not written.
pub(super) fn bytes_len(field: u32, len: usize) -> usize {
    if len == 0 { 0 } else { nested_len(field, len) }
}

pub(super) fn put_bytes(to: &mut BytesMut, field: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_len(to, field, bytes.len());
        to.put_slice(bytes);
    }
}

/// Zero is not written.
pub(super) fn number_len(field: u32, number: u64) -> usize {
    if number == 0 {
        0
    } else {
        key_len(field) + encoded_len_varint(number)
    }
}

pub(super) fn put_number(to: &mut BytesMut, field: u32, number: u64) {
    if number != 0 {
        encode_key(field, WireType::Varint, to);
        encode_varint(number, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    use quorate_proto::{etcdserverpb::RangeResponse, mvccpb::KeyValue};
    use quorate_store::{Action, FileVersion, Key, Limit, Mark, Revision, Short, Value, ValueAt};

    /// A log of one value.
    struct Log(Vec<u8>);

    impl Values for Log {
        fn read<'a>(&'a self, _: &ValueAt) -> Result<Cow<'a, [u8]>, ValueError> {
            Ok(Cow::Borrowed(&self.0))
        }
    }

    fn version(value: Value, count: u64, limit: Limit) -> FileVersion {
        FileVersion {
            revision: Revision::new(1 << 40),
            create: Revision::new(300),
            count,
            sub: 0,
            mark: Mark::shown(Action::Set),
            value,
            limit,
        }
    }

    #[test]
    fn the_generated_code_reads_what_is_written() {
        let log = Log(vec![7; 200]);
        let at = ValueAt {
            segment: 0,
            offset: 0,
            len: 200,
            crc: crc_of(&log.0),
        };
        let keys: [Key; 3] = [
            b"a".as_slice().into(),
            vec![b'k'; 130].into(),
            b"c".as_slice().into(),
        ];
        let versions = [
            version(Value::empty(), 1, Limit::NONE),
            version(
                Value::Inline(Short::new(b"value").expect("short")),
                128,
                Limit::from_lease(-4),
            ),
            version(Value::Logged(at), u64::from(u32::MAX), Limit::from_lease(9)),
        ];
        let header = ResponseHeader {
            cluster_id: 5,
            member_id: u64::MAX,
            revision: 9,
            raft_term: 2,
        };
        for (more, count, keys_only) in [(false, 0, false), (true, 1_000, true)] {
            let rows = keys
                .iter()
                .zip(&versions)
                .map(|(key, version)| Row { key, version });
            let answer = RangeAnswer {
                rows: rows.collect(),
                more,
                count,
            };
            let written = response(header, &answer, keys_only, usize::MAX, &log);
            let written = written.expect("readable").expect("short");
            let message = written.len() - unary::PREFIX_BYTES;
            let bounded = |bytes| response(header, &answer, keys_only, bytes, &log);
            assert_eq!(bounded(message), Ok(Some(written.clone())));
            assert_eq!(bounded(message - 1), Ok(None));
            let expected = RangeResponse {
                header: Some(header),
                kvs: answer
                    .rows
                    .iter()
                    .map(|row| generated(row, keys_only, &log))
                    .collect(),
                more,
                count: count as i64,
            };
            assert_eq!(written, unary::framed(&expected));
        }
    }

    fn generated(row: &Row<'_>, keys_only: bool, log: &Log) -> KeyValue {
        let value = row.version.value.read(log).expect("readable");
        KeyValue {
            key: Bytes::copy_from_slice(row.key),
            create_revision: 300,
            mod_revision: 1 << 40,
            version: row.version.count as i64,
            value: if keys_only {
                Bytes::new()
            } else {
                Bytes::copy_from_slice(&value)
            },
            lease: row.version.limit.lease(),
        }
    }

    fn crc_of(bytes: &[u8]) -> u32 {
        quorate_store::command::Blob::new(Bytes::copy_from_slice(bytes)).crc
    }

    #[test]
    fn an_empty_answer_is_its_header() {
        let header = ResponseHeader::default();
        let answer = RangeAnswer {
            rows: Vec::new(),
            more: false,
            count: 0,
        };
        let written = response(header, &answer, false, 0, &Log(Vec::new())).expect("readable");
        let expected = RangeResponse {
            header: Some(header),
            ..RangeResponse::default()
        };
        assert_eq!(written, Some(unary::framed(&expected)));
    }
}
