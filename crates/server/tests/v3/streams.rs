//! Watch streams whose client reads when the test says so: without a socket between, the server
//! is asked for a response only when the client wants one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use quorate::v3;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::{
    CompactionRequest, LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, WatchCreateRequest,
    WatchRequest, WatchResponse, watch_request::RequestUnion,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::member::{Member, block_on};

#[test]
fn a_reader_that_slept_misses_nothing() {
    block_on(async {
        let member = Member::start().await;
        let (_requests, mut responses) = watch(&member, creation(), LONG).await;
        assert!(next(&mut responses).await.created);
        for round in 0..2_500 {
            put(&member, &format!("k/{round}")).await;
        }
        let mut revision = 1;
        while revision < 2_501 {
            for event in next(&mut responses).await.events {
                revision += 1;
                let kv = event.kv.expect("a put");
                assert_eq!(kv.mod_revision, revision);
                assert_eq!(kv.key, format!("k/{}", revision - 2));
            }
        }
        drop(responses);
        assert_eq!(member.node.watch_hub().watchers(), 0);
        member.stop().await;
    });
}

#[test]
fn a_reader_overtaken_by_compaction_is_told_where_to_start_again() {
    block_on(async {
        let member = Member::start().await;
        let (_requests, mut responses) = watch(&member, creation(), LONG).await;
        assert!(next(&mut responses).await.created);
        for _ in 0..5 {
            put(&member, "k/").await;
        }
        let compaction = CompactionRequest {
            revision: 5,
            physical: true,
        };
        let routes = v3::services(member.node.clone(), LONG);
        KvClient::new(routes)
            .compact(compaction)
            .await
            .expect("a compaction");
        let cancelled = next(&mut responses).await;
        assert!(cancelled.canceled && cancelled.events.is_empty());
        assert_eq!(cancelled.compact_revision, 5);
        assert_eq!(cancelled.header.expect("a header").revision, 0);
        member.stop().await;
    });
}

#[test]
fn a_quiet_watcher_is_told_how_far_it_was_served() {
    block_on(async {
        let member = Member::start().await;
        let request = WatchCreateRequest {
            progress_notify: true,
            ..creation()
        };
        let (_requests, mut responses) = watch(&member, request, Duration::from_millis(20)).await;
        assert!(next(&mut responses).await.created);
        put(&member, "elsewhere").await;
        let progress = loop {
            let response = next(&mut responses).await;
            if response.header.as_ref().expect("a header").revision == 2 {
                break response;
            }
        };
        assert!(progress.events.is_empty() && !progress.created && !progress.canceled);
        assert_eq!(progress.watch_id, 0);
        member.stop().await;
    });
}

#[test]
fn a_keep_alive_stream_ends_well_when_its_client_is_done() {
    block_on(async {
        let member = Member::start().await;
        let mut client = LeaseClient::new(v3::services(member.node.clone(), LONG));
        let grant = LeaseGrantRequest { id: 5, ttl: 100 };
        client.lease_grant(grant).await.expect("a lease");
        let requests = [5, 6].map(|id| LeaseKeepAliveRequest { id });
        let opened = client.lease_keep_alive(tokio_stream::iter(requests)).await;
        let mut responses = opened.expect("a stream").into_inner();
        for ttl in [100, 0] {
            let answer = responses
                .message()
                .await
                .expect("no error")
                .expect("an answer");
            assert_eq!(answer.ttl, ttl);
        }
        assert_eq!(responses.message().await.expect("no error"), None);
        member.stop().await;
    });
}

#[test]
fn a_client_that_asks_and_does_not_read_is_not_listened_to() {
    block_on(async {
        let member = Member::start().await;
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let progress = (0..MANY).map(move |number| {
            counter.fetch_add(1, Relaxed);
            let request_union = match number {
                0 => RequestUnion::CreateRequest(creation()),
                _ => RequestUnion::ProgressRequest(Default::default()),
            };
            WatchRequest {
                request_union: Some(request_union),
            }
        });
        let mut client = WatchClient::new(v3::services(member.node.clone(), LONG));
        let opened = client.watch(tokio_stream::iter(progress)).await;
        let mut responses = opened.expect("a stream").into_inner();
        assert!(next(&mut responses).await.created);
        // All that could be done without the client is done.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let held = asked.load(Relaxed);
        assert!(held < MANY / 10, "{held} requests were taken");
        for _ in 1..MANY {
            assert_eq!(next(&mut responses).await.watch_id, -1);
        }
        member.stop().await;
    });
}

/// Requests of a client that does not wait for answers.
const MANY: usize = 100_000;

#[test]
fn open_streams_hear_that_the_member_stops() {
    block_on(async {
        let member = Member::start().await;
        let (_requests, mut responses) = watch(&member, creation(), LONG).await;
        assert!(next(&mut responses).await.created);
        member.stop().await;
        let status = responses.message().await.expect_err("an error");
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert_eq!(status.message(), "etcdserver: server stopped");
    });
}

#[test]
fn a_path_that_names_nothing_is_told_so() {
    block_on(async {
        let member = Member::start().await;
        let services = v3::services(member.node.clone(), LONG);
        for (path, text) in [
            (
                "/etcdserverpb.Auth/AuthEnable",
                "unknown service etcdserverpb.Auth",
            ),
            (
                "/etcdserverpb.KV/Nothing",
                "unknown method Nothing for service etcdserverpb.KV",
            ),
            (
                "/etcdserverpb.Lease/Nothing",
                "unknown method Nothing for service etcdserverpb.Lease",
            ),
        ] {
            let request = axum::http::Request::post(path).body(axum::body::Body::empty());
            let response = services.answer(request.expect("a request")).await;
            let status = tonic::Status::from_header_map(response.headers()).expect("a status");
            assert_eq!(
                (status.code(), status.message()),
                (tonic::Code::Unimplemented, text)
            );
        }
        member.stop().await;
    });
}

const LONG: Duration = Duration::from_secs(600);

fn creation() -> WatchCreateRequest {
    WatchCreateRequest {
        key: "k/".into(),
        range_end: "k0".into(),
        ..Default::default()
    }
}

/// Opens a stream with one watcher.
async fn watch(
    member: &Member,
    creation: WatchCreateRequest,
    progress_interval: Duration,
) -> (mpsc::Sender<WatchRequest>, Streaming<WatchResponse>) {
    let (requests, receiver) = mpsc::channel(4);
    let request_union = Some(RequestUnion::CreateRequest(creation));
    requests
        .send(WatchRequest { request_union })
        .await
        .expect("room for a request");
    let routes = v3::services(member.node.clone(), progress_interval);
    let opened = WatchClient::new(routes)
        .watch(ReceiverStream::new(receiver))
        .await;
    (requests, opened.expect("a stream").into_inner())
}

async fn next(responses: &mut Streaming<WatchResponse>) -> WatchResponse {
    responses
        .message()
        .await
        .expect("no error")
        .expect("the stream goes on")
}

async fn put(member: &Member, key: &str) {
    let request = PutRequest {
        key: key.to_owned().into(),
        ..Default::default()
    };
    let routes = v3::services(member.node.clone(), LONG);
    KvClient::new(routes).put(request).await.expect("a put");
}
