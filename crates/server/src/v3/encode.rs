//! Answers of the store, as the wire wants them.
//!
//! Keys and values are copied once, out of the store and the log into the message.
//!
//! Source: spec/v3-api.md §2.1 for what a header shows where.

use bytes::Bytes;
use quorate_proto::{etcdserverpb as pb, mvccpb};
use quorate_store::{
    FileVersion, Key, KeyValue, RangeReply, Reply, Revision, TxnReply, ValueError, Values,
};

/// A header that shows `revision`.
pub(super) fn at(header: pb::ResponseHeader, revision: Revision) -> pb::ResponseHeader {
    pb::ResponseHeader {
        revision: revision.to_wire(),
        ..header
    }
}

/// A key with its value read from the log.
pub(super) fn version(
    key: &Key,
    version: &FileVersion,
    values: &dyn Values,
) -> Result<mvccpb::KeyValue, ValueError> {
    let value = Bytes::copy_from_slice(&version.value.read(values)?);
    Ok(mvccpb::KeyValue {
        value,
        ..without_value(key, version)
    })
}

/// A key without its value; its lease and numbers stay.
pub(super) fn without_value(key: &Key, version: &FileVersion) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: Bytes::copy_from_slice(key),
        create_revision: version.create.to_wire(),
        mod_revision: version.revision.to_wire(),
        version: count(version.count),
        value: Bytes::new(),
        lease: version.limit.lease(),
    }
}

/// A put's answer.
pub(super) fn put(header: pb::ResponseHeader, prev: Option<KeyValue>) -> pb::PutResponse {
    pb::PutResponse {
        header: Some(header),
        prev_kv: prev.map(key_value),
    }
}

/// A delete's answer.
pub(super) fn deleted(
    header: pb::ResponseHeader,
    deleted: u64,
    prev: Vec<KeyValue>,
) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header: Some(header),
        deleted: count(deleted),
        prev_kvs: prev.into_iter().map(key_value).collect(),
    }
}

/// A txn's answer. Headers of its operations show a revision only, those of nested txns nothing.
pub(super) fn txn(header: pb::ResponseHeader, reply: TxnReply) -> pb::TxnResponse {
    pb::TxnResponse {
        header: Some(header),
        succeeded: reply.succeeded,
        responses: reply
            .responses
            .into_iter()
            .map(|(at, reply)| response_op(at, reply))
            .collect(),
    }
}

fn response_op(at: Revision, reply: Reply) -> pb::ResponseOp {
    use pb::response_op::Response;
    let header = self::at(pb::ResponseHeader::default(), at);
    let response = match reply {
        Reply::Range(reply) => Some(Response::ResponseRange(range_reply(header, reply))),
        Reply::Put { prev } => Some(Response::ResponsePut(put(header, prev))),
        Reply::Deleted { count, prev } => {
            Some(Response::ResponseDeleteRange(deleted(header, count, prev)))
        }
        Reply::Txn(reply) => Some(Response::ResponseTxn(txn(
            pb::ResponseHeader::default(),
            reply,
        ))),
        Reply::Compacted
        | Reply::Alarm(_)
        | Reply::LeaseGranted { .. }
        | Reply::LeaseRevoked
        | Reply::Tree(_)
        | Reply::Done => None, // No operation of a txn is answered so.
    };
    pb::ResponseOp { response }
}

fn range_reply(header: pb::ResponseHeader, reply: RangeReply) -> pb::RangeResponse {
    pb::RangeResponse {
        header: Some(header),
        kvs: reply.kvs.into_iter().map(key_value).collect(),
        more: reply.more,
        count: count(reply.count),
    }
}

fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: Bytes::copy_from_slice(&kv.key),
        create_revision: kv.create.to_wire(),
        mod_revision: kv.modified.to_wire(),
        version: count(kv.version),
        value: kv.value,
        lease: kv.lease,
    }
}

/// A count as the wire's `int64`.
pub(super) fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
