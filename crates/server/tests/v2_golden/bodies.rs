//! Bodies that are longer than what is read at once: they are whole, or they break.

use axum::body::{Body, BodyDataStream, to_bytes};
use axum::http::Request;
use bytes::Bytes;
use futures_util::StreamExt as _;
use quorate_store::command::{Blob, Body as Command, DeleteRange, Put};
use quorate_store::{KeyRange, Revision};

use super::session::Session;

/// More than is scanned or written while the lock is held once.
const MANY: usize = 5000;

fn run(test: impl AsyncFnOnce(Session) -> Session) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let session = Session::start().await;
        test(session).await.stop().await;
    });
}

async fn put_many(session: &Session) {
    let put = |number: usize| {
        session.node.propose(Command::Put(Put {
            key: format!("/d/{number:04}").into(),
            value: Blob::new(Bytes::from(vec![b'v'; 40])),
            lease: 0,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        }))
    };
    for outcome in futures_util::future::join_all((0..MANY).map(put)).await {
        outcome.expect("an answer").result.expect("a put");
    }
}

async fn delete_all(session: &Session) {
    let range = KeyRange::from_parts(Bytes::from("/d/"), Bytes::from("/d0"));
    let delete = Command::DeleteRange(DeleteRange {
        range,
        prev_kv: false,
    });
    session
        .node
        .propose(delete)
        .await
        .expect("an answer")
        .result
        .expect("a delete");
}

async fn compact(session: &Session, revision: Revision) {
    let compact = Command::Compact {
        revision: revision.to_wire(),
    };
    session
        .node
        .propose(compact)
        .await
        .expect("an answer")
        .result
        .expect("a compaction");
}

async fn get(session: &Session, path: &str) -> Body {
    let request = Request::get(path)
        .header("host", "localhost")
        .body(Body::empty());
    let response = quorate::v2::handle(session.node.clone(), request.expect("a request")).await;
    assert!(response.status().is_success());
    response.into_body()
}

/// The keys of `count` events of a stream.
async fn keys(body: &mut BodyDataStream, count: usize) -> Vec<String> {
    let mut text = String::new();
    while text.matches('\n').count() < count {
        let piece = body
            .next()
            .await
            .expect("more events")
            .expect("a whole piece");
        text += std::str::from_utf8(&piece).expect("text");
    }
    let key = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).expect("an event");
        event["node"]["key"].as_str().expect("a key").to_owned()
    };
    text.lines().map(key).collect()
}

#[test]
fn a_stream_is_told_all_of_a_large_revision_in_order() {
    run(async |session| {
        put_many(&session).await;
        let stream = "/v2/keys/d?wait=true&recursive=true&stream=true";
        let mut live = get(&session, stream).await.into_data_stream();
        delete_all(&session).await;
        let expected: Vec<String> = (0..MANY).map(|number| format!("/d/{number:04}")).collect();
        assert_eq!(keys(&mut live, MANY).await, expected);
        // From the past, the puts come first.
        let mut past = get(&session, &format!("{stream}&waitIndex=2"))
            .await
            .into_data_stream();
        assert_eq!(keys(&mut past, 2 * MANY).await[MANY..], expected);
        session
    });
}

#[test]
fn a_one_shot_watch_counts_the_siblings_of_a_large_revision() {
    run(async |session| {
        put_many(&session).await;
        let watch = get(&session, "/v2/keys/d?wait=true&recursive=true").await;
        delete_all(&session).await;
        let body = to_bytes(watch, usize::MAX).await.expect("a body");
        let event: serde_json::Value = serde_json::from_slice(&body).expect("one event");
        assert_eq!(event["node"]["key"], "/d/0000");
        assert_eq!(event["siblings"], MANY - 1);
        session
    });
}

#[test]
fn a_stream_that_compaction_overtakes_ends() {
    run(async |session| {
        put_many(&session).await;
        let stream = "/v2/keys/d?wait=true&recursive=true&stream=true&waitIndex=2";
        let mut slow = get(&session, stream).await.into_data_stream();
        let first = slow.next().await.expect("events").expect("a whole piece");
        assert!(first.starts_with(b"{\"action\":\"create\",\"node\":{\"key\":\"/d/0000\""));
        assert!(first.ends_with(b"}\n"), "pieces are whole lines");
        let latest = session.node.machine().store().revision();
        compact(&session, latest).await;
        assert!(slow.next().await.is_none(), "what is left was compacted");
        session
    });
}

#[test]
fn a_long_listing_is_of_one_revision() {
    run(async |session| {
        put_many(&session).await;
        let listing = get(&session, "/v2/keys/d?recursive=true").await;
        // The first piece is made already; the rest is read while the keys are gone.
        delete_all(&session).await;
        let body = to_bytes(listing, usize::MAX).await.expect("a whole body");
        let answer: serde_json::Value = serde_json::from_slice(&body).expect("an answer");
        assert_eq!(
            answer["node"]["nodes"].as_array().expect("nodes").len(),
            MANY
        );
        session
    });
}

#[test]
fn a_listing_whose_revision_is_compacted_breaks() {
    run(async |session| {
        put_many(&session).await;
        let listing = get(&session, "/v2/keys/d?recursive=true").await;
        delete_all(&session).await;
        let latest = session.node.machine().store().revision();
        compact(&session, latest).await;
        assert!(
            to_bytes(listing, usize::MAX).await.is_err(),
            "it must not end cleanly"
        );
        session
    });
}
