//! Watch streams whose client reads when the test says so: without a socket between, the server
//! is asked for a response only when the client wants one.

use std::time::Duration;

use quorate::v3;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::{
    CompactionRequest, PutRequest, WatchCreateRequest, WatchRequest, WatchResponse,
    watch_request::RequestUnion,
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
