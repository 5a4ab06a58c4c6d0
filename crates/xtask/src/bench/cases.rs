//! The operations that are measured: what is asked, by how many clients.

use prost::Message;
use quorate_load::{DIGITS, FILLER, Spread, Template};
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{
    Compare, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

/// Keys that are written and read, in each dialect.
pub(super) const KEYS: u32 = 100_000;
pub(super) const VALUE_BYTES: usize = 256;
/// Keys in a listing.
const LISTED: u32 = 1_000;

/// Which servers measure a case: those of one set share their data.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Set {
    V3,
    V2,
    Lease,
    /// Three members each.
    Three,
}

/// One thing that clients do.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) set: Set,
    pub(super) spread: Spread,
    /// Kinds of requests, each with its share.
    pub(super) templates: fn() -> Vec<(u32, Template)>,
}

const fn case(
    name: &'static str,
    about: &'static str,
    set: Set,
    (connections, clients): (usize, usize),
    templates: fn() -> Vec<(u32, Template)>,
) -> Case {
    let spread = Spread {
        connections,
        clients,
    };
    Case {
        name,
        about,
        set,
        spread,
        templates,
    }
}

/// A hundred clients, each with a connection of its own.
const HUNDRED: (usize, usize) = (100, 1);

/// In order; those of a set are neighbours.
pub(super) const CASES: &[Case] = &[
    case("put-1", "put, 1 client", Set::V3, (1, 1), || one(put())),
    case("put-100", "put, 100 clients", Set::V3, HUNDRED, || {
        one(put())
    }),
    case(
        "put-1000",
        "put, 1,000 clients on 100 connections",
        Set::V3,
        (100, 10),
        || one(put()),
    ),
    case(
        "range",
        "range of one key, linearizable",
        Set::V3,
        HUNDRED,
        || one(range(false)),
    ),
    case(
        "srange",
        "range of one key, serializable",
        Set::V3,
        HUNDRED,
        || one(range(true)),
    ),
    case("list", "range of 1,000 keys", Set::V3, HUNDRED, || {
        one(list())
    }),
    case("txn", "txn: compare, put", Set::V3, HUNDRED, || one(txn())),
    case(
        "mixed",
        "4 ranges of one key to 1 put",
        Set::V3,
        HUNDRED,
        || vec![(4, range(false)), (1, put())],
    ),
    case("v2-put", "v2 put", Set::V2, HUNDRED, || one(v2_put())),
    case("v2-get", "v2 get", Set::V2, HUNDRED, || one(v2_get(""))),
    case(
        "v2-quorum",
        "v2 get with quorum=true",
        Set::V2,
        HUNDRED,
        || one(v2_get("?quorum=true")),
    ),
    case("lease", "lease grant", Set::Lease, HUNDRED, || one(grant())),
    case(
        "three-put-1",
        "3 members: put, 1 client",
        Set::Three,
        (1, 1),
        || one(put()),
    ),
    case(
        "three-put-100",
        "3 members: put, 100 clients",
        Set::Three,
        HUNDRED,
        || one(put()),
    ),
    case(
        "three-range",
        "3 members: range of one key, linearizable",
        Set::Three,
        HUNDRED,
        || one(range(false)),
    ),
];

fn one(template: Template) -> Vec<(u32, Template)> {
    vec![(1, template)]
}

/// The key of a template, whose number each request fills in: 24 bytes.
pub(super) fn key() -> String {
    format!("/bench/{DIGITS}")
}

pub(super) fn put() -> Template {
    put_of(vec![b'v'; VALUE_BYTES])
}

/// Puts of random values of so many bytes.
pub(super) fn put_random(value_bytes: usize) -> Template {
    put_of(vec![FILLER; value_bytes])
}

pub(super) fn put_of(value: Vec<u8>) -> Template {
    let message = PutRequest {
        key: key().into(),
        value: value.into(),
        ..PutRequest::default()
    };
    Template::grpc("/etcdserverpb.KV/Put", &message.encode_to_vec(), 2)
}

/// A range of one key, which must be found.
pub(super) fn range(serializable: bool) -> Template {
    let message = RangeRequest {
        key: key().into(),
        serializable,
        ..RangeRequest::default()
    };
    Template::grpc(
        "/etcdserverpb.KV/Range",
        &message.encode_to_vec(),
        VALUE_BYTES,
    )
}

/// A listing of the first keys, all of which must be found.
fn list() -> Template {
    let name = |number: u32| format!("/bench/{number:017}").into_bytes();
    let message = RangeRequest {
        key: name(0).into(),
        range_end: name(LISTED).into(),
        ..RangeRequest::default()
    };
    let wanted = LISTED as usize * VALUE_BYTES;
    Template::grpc("/etcdserverpb.KV/Range", &message.encode_to_vec(), wanted)
}

/// A put if the key is there, as it is. Without the put's answer the answer were shorter.
fn txn() -> Template {
    let put = PutRequest {
        key: key().into(),
        value: vec![b'v'; VALUE_BYTES].into(),
        ..PutRequest::default()
    };
    let compare = Compare {
        result: CompareResult::Greater.into(),
        target: CompareTarget::Create.into(),
        key: key().into(),
        target_union: Some(TargetUnion::CreateRevision(0)),
        ..Compare::default()
    };
    let message = TxnRequest {
        compare: vec![compare],
        success: vec![RequestOp {
            request: Some(Request::RequestPut(put)),
        }],
        failure: Vec::new(),
    };
    Template::grpc("/etcdserverpb.KV/Txn", &message.encode_to_vec(), 0)
}

fn grant() -> Template {
    let message = LeaseGrantRequest {
        ttl: 3600,
        ..LeaseGrantRequest::default()
    };
    Template::grpc(
        "/etcdserverpb.Lease/LeaseGrant",
        &message.encode_to_vec(),
        8,
    )
}

pub(super) fn v2_put() -> Template {
    let form = format!("value={}", "v".repeat(VALUE_BYTES));
    Template::http("PUT", &format!("/v2/keys{}", key()), &form, VALUE_BYTES)
}

fn v2_get(query: &str) -> Template {
    Template::http("GET", &format!("/v2/keys{}{query}", key()), "", VALUE_BYTES)
}
