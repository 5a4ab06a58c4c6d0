//! Long ranges: in pieces they are, byte for byte, what they are at once.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use base64::Engine as _;
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use prost::Message;
use quorate::v3::Services;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp,
    TxnRequest, request_op::Request as Op,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::Channel;
use tower::Service;

use crate::member::{Member, block_on};
use crate::wire::{Wire, method};

const KEYS: usize = 20_000;
const PREFIX_BYTES: usize = 5;

fn key(number: usize) -> Bytes {
    format!("k{number:06}").into()
}

/// Some are empty, some live in the index, most in the log; many are equal, or begin alike.
fn value(number: usize) -> Bytes {
    match number % 7 {
        0 => Bytes::new(),
        1 => format!("short {}", number % 50).into(),
        _ => {
            let tail = "x".repeat(number * 37 % 400);
            format!("what begins like many others {:03}{tail}", number % 300).into()
        }
    }
}

async fn fill(client: &mut KvClient<Channel>, numbers: impl Iterator<Item = usize>) {
    let puts: Vec<RequestOp> = numbers
        .map(|number| {
            Op::RequestPut(PutRequest {
                key: key(number),
                value: value(number),
                ..PutRequest::default()
            })
        })
        .map(|put| RequestOp { request: Some(put) })
        .collect();
    for success in puts.chunks(100) {
        let txn = TxnRequest {
            success: success.to_vec(),
            ..TxnRequest::default()
        };
        client.txn(txn).await.expect("puts");
    }
}

async fn compact(client: &mut KvClient<Channel>, revision: i64) {
    let request = CompactionRequest {
        revision,
        physical: true,
    };
    client.compact(request).await.expect("a compaction");
}

/// A member with many keys, some deleted and some overwritten, and its revision.
async fn filled() -> (Member, KvClient<Channel>, i64) {
    let member = Member::start().await;
    let mut client = KvClient::new(member.channel().await);
    fill(&mut client, 0..KEYS).await;
    let delete = DeleteRangeRequest {
        key: key(5_000),
        range_end: key(9_000),
        ..DeleteRangeRequest::default()
    };
    client.delete_range(delete).await.expect("a delete");
    fill(&mut client, (0..KEYS).step_by(3)).await;
    let revision = member.node.machine().store().revision().to_wire();
    (member, client, revision)
}

fn services(member: &Member, keys: usize, bytes: usize) -> Services {
    quorate::v3::services(member.node.clone(), Duration::MAX).with_ranges_whole_up_to(keys, bytes)
}

fn call(request: &RangeRequest) -> Request<Body> {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(request.encoded_len() as u32);
    request.encode(&mut frame).expect("room");
    Request::post("/etcdserverpb.KV/Range")
        .body(Body::from(frame.freeze()))
        .expect("a request")
}

/// The body of an answer, its trailers, and how many pieces it came in.
async fn answer(services: &mut Services, request: &RangeRequest) -> (Bytes, HeaderMap, usize) {
    let Ok(response) = services.call(call(request)).await;
    assert!(
        !response.headers().contains_key("grpc-status"),
        "{response:?}"
    );
    let mut body = response.into_body();
    let (mut bytes, mut pieces) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        match frame.expect("no reset").into_data() {
            Ok(piece) => {
                bytes.extend_from_slice(&piece);
                pieces += 1;
            }
            Err(frame) => {
                let trailers = frame.into_trailers().expect("trailers");
                assert!(body.frame().await.is_none());
                return (bytes.freeze(), trailers, pieces);
            }
        }
    }
    panic!("an answer without trailers");
}

fn all() -> RangeRequest {
    RangeRequest {
        key: "k".into(),
        range_end: "l".into(),
        ..RangeRequest::default()
    }
}

fn variants(revision: i64) -> Vec<RangeRequest> {
    let all = all();
    let mut requests = vec![
        all.clone(),
        RangeRequest {
            limit: 7_777,
            ..all.clone()
        },
        RangeRequest {
            limit: 1,
            ..all.clone()
        },
        RangeRequest {
            limit: 16_000,
            ..all.clone()
        },
        RangeRequest {
            limit: 1_000_000,
            ..all.clone()
        },
        RangeRequest {
            keys_only: true,
            ..all.clone()
        },
        RangeRequest {
            count_only: true,
            limit: 3,
            ..all.clone()
        },
        RangeRequest {
            revision: 150,
            serializable: true,
            ..all.clone()
        },
        RangeRequest {
            revision: revision - 3,
            ..all.clone()
        },
        RangeRequest {
            min_mod_revision: 100,
            limit: 500,
            ..all.clone()
        },
        RangeRequest {
            max_create_revision: 90,
            ..all.clone()
        },
        RangeRequest {
            min_mod_revision: i64::MAX,
            ..all.clone()
        },
        RangeRequest {
            key: key(100),
            range_end: "\0".into(),
            ..all.clone()
        },
        RangeRequest {
            key: "\0".into(),
            range_end: key(5_500),
            ..all.clone()
        },
        RangeRequest {
            key: key(5_001),
            range_end: key(8_998),
            keys_only: true,
            ..all.clone()
        },
    ];
    for (target, order) in (0..5).flat_map(|target| [(target, 1), (target, 2)]) {
        for (limit, revision, keys_only) in [(0, 0, false), (3_000, 0, true), (50, 250, false)] {
            requests.push(RangeRequest {
                sort_target: target,
                sort_order: order,
                limit,
                revision,
                keys_only,
                ..all.clone()
            });
        }
    }
    requests
}

#[test]
fn an_answer_in_pieces_is_the_answer() {
    block_on(async {
        let (member, _, revision) = filled().await;
        let mut at_once = services(&member, usize::MAX, usize::MAX);
        let mut in_pieces = services(&member, 10, usize::MAX);
        let mut most = 0;
        for request in variants(revision) {
            let (whole, end, one) = answer(&mut at_once, &request).await;
            assert_eq!(one, 1, "{request:?}");
            let (bytes, trailers, pieces) = answer(&mut in_pieces, &request).await;
            assert!(bytes == whole, "{request:?}");
            assert_eq!(trailers, end, "{request:?}");
            most = most.max(pieces);
        }
        assert!(most >= KEYS / 512, "{most} pieces");
        member.stop().await;
    });
}

#[test]
fn what_is_within_the_bounds_is_answered_at_once() {
    block_on(async {
        let member = Member::start().await;
        let mut client = KvClient::new(member.channel().await);
        fill(&mut client, 0..1_200).await;
        let (whole, ..) = answer(&mut services(&member, usize::MAX, usize::MAX), &all()).await;
        let message = whole.len() - PREFIX_BYTES;
        let one = RangeRequest {
            key: key(4),
            range_end: Bytes::new(),
            ..all()
        };
        let dead = DeleteRangeRequest {
            key: "j".into(),
            ..DeleteRangeRequest::default()
        };
        for (request, keys, bytes, pieces) in [
            (all(), 1_200, message, 1),
            (all(), 1_199, message, 3),
            (all(), 1_200, message - 1, 3),
            (one, 1, 1, 1),
        ] {
            let mut services = services(&member, keys, bytes);
            let (_, _, found) = answer(&mut services, &request).await;
            assert_eq!(found, pieces, "{keys} keys, {bytes} bytes");
        }
        // A key that is dead counts: it takes time.
        let put = PutRequest {
            key: "j".into(),
            ..PutRequest::default()
        };
        client.put(put).await.expect("a put");
        client.delete_range(dead).await.expect("a delete");
        let from = RangeRequest {
            key: "j".into(),
            ..all()
        };
        let (_, _, found) = answer(&mut services(&member, 1_200, usize::MAX), &from).await;
        assert_eq!(found, 3);
        member.stop().await;
    });
}

#[test]
fn writes_go_on_between_pieces_and_are_not_in_them() {
    block_on(async {
        let (member, mut client, _) = filled().await;
        let (expected, ..) = answer(&mut services(&member, usize::MAX, usize::MAX), &all()).await;
        let Ok(response) = services(&member, 10, 10).call(call(&all())).await;
        let mut body = response.into_body();
        let (mut bytes, mut number) = (BytesMut::new(), 0);
        while let Some(frame) = body.frame().await {
            if let Ok(piece) = frame.expect("no reset").into_data() {
                bytes.extend_from_slice(&piece);
            }
            // Before and behind where the walk stands: new keys, new values, and the dead.
            fill(
                &mut client,
                [number, KEYS + number, KEYS - 1 - number].into_iter(),
            )
            .await;
            let delete = DeleteRangeRequest {
                key: key(number * 97),
                ..Default::default()
            };
            client.delete_range(delete).await.expect("a delete");
            number += 1;
        }
        assert!(number > 30);
        assert!(bytes == expected);
        member.stop().await;
    });
}

#[test]
fn a_compaction_resets_an_answer_that_has_begun() {
    block_on(async {
        let (member, mut client, revision) = filled().await;
        for sort_order in [0, 2] {
            let request = RangeRequest {
                sort_order,
                ..all()
            };
            let Ok(response) = services(&member, 10, 10).call(call(&request)).await;
            let mut body = response.into_body();
            assert!(
                body.frame()
                    .await
                    .expect("a frame")
                    .expect("a piece")
                    .is_data()
            );
            fill(&mut client, 0..1).await;
            let latest = member.node.machine().store().revision().to_wire();
            compact(&mut client, latest).await;
            let reset = body.frame().await.expect("a frame").expect_err("a reset");
            assert!(reset.to_string().contains("compacted"), "{reset}");
            assert!(body.frame().await.is_none());
        }
        let past = RangeRequest { revision, ..all() };
        let Ok(response) = services(&member, 10, 10).call(call(&past)).await;
        let status = tonic::Status::from_header_map(response.headers()).expect("refused");
        assert_eq!(status.code(), Code::OutOfRange);
        member.stop().await;
    });
}

#[test]
fn a_compaction_before_the_first_piece_has_it_read_again() {
    block_on(async {
        let (member, mut client, _) = filled().await;
        let mut in_pieces = services(&member, 10, 10);
        for is_again in [true, false] {
            let now = member.node.machine().store().revision().to_wire();
            let asked = if is_again { 0 } else { now };
            let request = RangeRequest {
                revision: asked,
                ..all()
            };
            let mut calling = pin!(in_pieces.call(call(&request)));
            // It pauses behind the first keys that it measured.
            let poll = std::future::poll_fn(|context| Poll::Ready(calling.as_mut().poll(context)));
            assert!(poll.await.is_pending());
            fill(&mut client, [KEYS].into_iter()).await;
            let latest = member.node.machine().store().revision().to_wire();
            compact(&mut client, latest).await;
            let Ok(response) = calling.await;
            let status = tonic::Status::from_header_map(response.headers());
            if is_again {
                assert!(status.is_none(), "{status:?}");
                let body = response
                    .into_body()
                    .collect()
                    .await
                    .expect("whole")
                    .to_bytes();
                let answer = RangeResponse::decode(&body[PREFIX_BYTES..]).expect("an answer");
                assert_eq!(answer.header.expect("a header").revision, latest);
                assert_eq!(answer.kvs.last().map(|kv| &kv.key), Some(&key(KEYS)));
            } else {
                assert_eq!(status.expect("refused").code(), Code::OutOfRange);
            }
        }
        member.stop().await;
    });
}

#[test]
fn a_client_that_stops_reading_stops_nobody_else() {
    block_on(async {
        let (member, mut client, revision) = filled().await;
        let wire = Wire(member.channel().await);
        let range = method("KV/Range");
        let reading = wire
            .unary_in_pieces(&range, all().encode_to_vec().into())
            .await;
        let mut reading = reading.expect("an answer has begun");
        // Its connection has no more room than HTTP/2's first windows; the others go on.
        fill(&mut client, 0..KEYS).await;
        let mut other = KvClient::new(member.channel().await).max_decoding_message_size(usize::MAX);
        let now = other.range(all()).await.expect("a range").into_inner();
        let old = reading
            .message()
            .await
            .expect("no reset")
            .expect("a message");
        let old = RangeResponse::decode(old).expect("an answer");
        assert_eq!(old.header.expect("a header").revision, revision);
        assert_eq!(old.count + 2_667, now.count, "those that were dead");
        assert_eq!(reading.message().await.expect("success"), None);
        member.stop().await;
    });
}

/// A range as JSON, whole: of HTTP/1.0 the body ends with the connection.
async fn as_json(member: &Member, request: serde_json::Value) -> serde_json::Value {
    let address = member.url.strip_prefix("http://").expect("a URL");
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    let body = request.to_string();
    let head = format!(
        "POST /v3/kv/range HTTP/1.0\r\nContent-Length: {}",
        body.len()
    );
    let text = format!("{head}\r\n\r\n{body}");
    socket.write_all(text.as_bytes()).await.expect("it is read");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.0 200 OK"), "{head}");
    serde_json::from_str(body).expect("JSON")
}

#[test]
fn the_gateway_makes_one_json_of_a_long_answer() {
    block_on(async {
        let (member, client, revision) = filled().await;
        let mut client = client.max_decoding_message_size(usize::MAX);
        let answer = client.range(all()).await.expect("a range").into_inner();
        let base64 = |bytes: &Bytes| base64::engine::general_purpose::STANDARD.encode(bytes);
        let all = json!({ "key": "aw==", "range_end": "bA==" });
        let long = as_json(&member, all).await;
        assert_eq!(long["header"]["revision"], revision.to_string());
        assert_eq!(long["count"], answer.count.to_string());
        let kvs = long["kvs"].as_array().expect("keys");
        assert_eq!(kvs.len(), answer.kvs.len());
        for (shown, kv) in kvs.iter().zip(&answer.kvs) {
            assert_eq!(shown["key"], base64(&kv.key));
            assert_eq!(shown["mod_revision"], kv.mod_revision.to_string());
            let value = shown["value"].as_str().unwrap_or_default();
            assert_eq!(value, base64(&kv.value));
        }
        let some = json!({ "key": "aw==", "range_end": "bA==", "limit": 10 });
        let short = as_json(&member, some).await;
        assert_eq!(
            (&short["kvs"], &short["count"]),
            (&kvs[..10].into(), &long["count"])
        );
        assert_eq!(
            (&short["more"], &long["more"]),
            (&true.into(), &serde_json::Value::Null)
        );
        member.stop().await;
    });
}
