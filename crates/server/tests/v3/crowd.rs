//! Very many watchers, of which some do not read: who reads is served, memory stays, and those who
//! slept have missed nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::{Builder, Connection, SendRequest};
use h2::{RecvStream, SendStream};
use http_body_util::BodyExt;
use prost::Message;
use quorate::node::Node;
use quorate::{v2, v3};
use quorate_proto::etcdserverpb::{
    PutRequest, WatchCreateRequest, WatchRequest, WatchResponse, kv_client::KvClient,
    watch_request::RequestUnion,
};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::member::{Member, block_on};

const CONNECTIONS: usize = 50;
/// Those that do not read, and hold a tenth of all watchers.
const SILENT: usize = 5;
const WATCHERS: usize = 10_000;
/// Each watcher has a range of its own, in which all keys of one group lie.
const GROUPS: usize = 500;
const PUTS: usize = 10_000;
const WRITERS: usize = 50;
/// If a silent watcher's events were kept for it, that were 80 MB.
const VALUE_BYTES: usize = 4_000;
const GROWTH_BYTES: u64 = 64 << 20;

/// The revisions that each watcher was sent, by its id.
type Seen = Arc<Mutex<BTreeMap<i64, Vec<i64>>>>;

#[test]
fn ten_thousand_watchers_cost_bounded_memory_and_miss_nothing() {
    block_on(async {
        let member = Member::start().await;
        let seen = Seen::default();
        let (awake, asleep) = watch::channel(false);
        let mut clients = JoinSet::new();
        for connection in 0..CONNECTIONS {
            let ids = (connection * WATCHERS / CONNECTIONS + 1) as i64..;
            let ids = ids.take(WATCHERS / CONNECTIONS).collect();
            let gate = (connection < SILENT).then(|| asleep.clone());
            let client = Client::open(&member, ids, gate).await;
            clients.spawn(client.read(seen.clone()));
        }
        assert_eq!(member.node.watch_hub().watchers(), WATCHERS);

        let before = anonymous_bytes();
        let revisions = put_all(&member).await;
        let each = PUTS / GROUPS;
        let readers = WATCHERS - WATCHERS / CONNECTIONS * SILENT;
        events(&seen, readers * each).await;
        let growth = anonymous_bytes().saturating_sub(before);
        assert!(growth < GROWTH_BYTES, "grew by {growth} bytes");

        awake.send_replace(true);
        events(&seen, WATCHERS * each).await;
        for (id, seen) in seen.lock().expect("whole").iter() {
            assert_eq!(seen, &revisions[group(*id)], "watcher {id}");
        }
        clients.abort_all();
        member.stop().await;
    });
}

/// One connection with one stream.
struct Client {
    connection: Connection<TcpStream>,
    body: RecvStream,
    _requests: SendStream<Bytes>,
    received: BytesMut,
    /// It does not even look at its socket before this says so.
    gate: Option<watch::Receiver<bool>>,
}

impl Client {
    /// Opens a stream, creates watchers, and waits until they are.
    async fn open(member: &Member, ids: Vec<i64>, gate: Option<watch::Receiver<bool>>) -> Self {
        let address = member
            .url
            .trim_start_matches("http://")
            .trim_end_matches('/');
        let socket = TcpStream::connect(address)
            .await
            .expect("the member listens");
        // Large windows: what holds the server up is the socket.
        let mut builder = Builder::new();
        builder.initial_window_size(1 << 30);
        builder.initial_connection_window_size(1 << 30);
        let (sender, mut connection) = builder.handshake(socket).await.expect("HTTP/2");
        let created = Self::create(sender, ids);
        let (requests, body, received) = tokio::select! {
            created = created => created,
            ended = &mut connection => panic!("{ended:?}"),
        };
        Self {
            connection,
            body,
            _requests: requests,
            received,
            gate,
        }
    }

    async fn create(
        mut sender: SendRequest<Bytes>,
        ids: Vec<i64>,
    ) -> (SendStream<Bytes>, RecvStream, BytesMut) {
        let request = Request::post("http://member/etcdserverpb.Watch/Watch")
            .header("content-type", "application/grpc")
            .body(())
            .expect("a request");
        let (answer, mut requests) = sender.send_request(request, false).expect("open");
        let left = ids.len();
        for id in ids {
            requests.send_data(creation(id), false).expect("open");
        }
        let mut body = answer.await.expect("an answer").into_body();
        let mut received = BytesMut::new();
        for _ in 0..left {
            assert!(next(&mut body, &mut received).await.created);
        }
        (requests, body, received)
    }

    /// Reads on, for ever.
    async fn read(mut self, seen: Seen) {
        if let Some(gate) = &mut self.gate {
            gate.wait_for(|awake| *awake)
                .await
                .expect("the test goes on");
        }
        let reading = async {
            loop {
                let response = next(&mut self.body, &mut self.received).await;
                assert!(!response.canceled, "{response:?}");
                let revisions = response.events.iter().map(|event| {
                    let kv = event.kv.as_ref().expect("a put");
                    assert_eq!(kv.value.len(), VALUE_BYTES);
                    kv.mod_revision
                });
                let mut seen = seen.lock().expect("whole");
                seen.entry(response.watch_id).or_default().extend(revisions);
            }
        };
        tokio::select! {
            () = reading => {}
            ended = self.connection => panic!("{ended:?}"),
        }
    }
}

async fn next(body: &mut RecvStream, received: &mut BytesMut) -> WatchResponse {
    loop {
        if let Some(mut prefix) = received.get(1..5) {
            let len = prefix.get_u32() as usize;
            if received.len() >= 5 + len {
                received.advance(5);
                let message = received.split_to(len).freeze();
                return WatchResponse::decode(message).expect("a response");
            }
        }
        let data = body
            .data()
            .await
            .expect("the stream goes on")
            .expect("no error");
        let taken = body.flow_control().release_capacity(data.len());
        taken.expect("what was received");
        received.extend_from_slice(&data);
    }
}

fn group(id: i64) -> usize {
    id as usize % GROUPS
}

fn creation(id: i64) -> Bytes {
    let prefix = format!("g/{:03}/a", group(id));
    let request = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
            range_end: format!("{prefix}{id:05}").into(),
            key: prefix.into(),
            watch_id: id,
            ..WatchCreateRequest::default()
        })),
    };
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(request.encoded_len() as u32);
    request.encode(&mut frame).expect("there is room");
    frame.freeze()
}

/// Writes each group's key equally often. Returns the revisions of each group.
async fn put_all(member: &Member) -> Vec<Vec<i64>> {
    let services = v3::services(member.node.clone(), Duration::from_secs(600));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let mut client = KvClient::new(services.clone());
        writers.spawn(async move {
            let mut revisions = Vec::new();
            for put in (writer..PUTS).step_by(WRITERS) {
                let put = put % GROUPS;
                let request = PutRequest {
                    key: format!("g/{put:03}/a").into(),
                    value: vec![b'v'; VALUE_BYTES].into(),
                    ..PutRequest::default()
                };
                let answer = client.put(request).await.expect("a put").into_inner();
                revisions.push((put, answer.header.expect("a header").revision));
            }
            revisions
        });
    }
    let mut groups = vec![Vec::new(); GROUPS];
    while let Some(revisions) = writers.join_next().await {
        for (group, revision) in revisions.expect("no panic") {
            groups[group].push(revision);
        }
    }
    groups
        .iter_mut()
        .for_each(|revisions| revisions.sort_unstable());
    groups
}

/// Waits until so many events were seen.
async fn events(seen: &Seen, expected: usize) {
    loop {
        let count = seen
            .lock()
            .expect("whole")
            .values()
            .map(Vec::len)
            .sum::<usize>();
        assert!(count <= expected, "{count} events, of {expected}");
        if count == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Memory of this process, which is the server and all its clients, that no file backs.
fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.expect("a size").parse::<u64>().expect("a number") << 10
}

const KEYS: u64 = 100;
const ROUNDS: u64 = 5;

#[test]
fn a_thousand_long_polls_and_a_hundred_streams_of_v2_miss_nothing() {
    block_on(async {
        let member = Member::start().await;
        let node = &member.node;
        let mut polls = Vec::new();
        for number in 0..1_000 {
            let query = format!("/v2/keys/c/{}?wait=true", number % KEYS);
            polls.push((number % KEYS, open(node, &query).await));
        }
        let mut streams = Vec::new();
        for _ in 0..100 {
            streams.push(open(node, "/v2/keys/c?wait=true&recursive=true&stream=true").await);
        }
        assert_eq!(node.tree_hub().watchers(), 1_100);
        let slept = streams.split_off(90);
        let readers: Vec<_> = streams
            .into_iter()
            .map(|body| tokio::spawn(stream(body)))
            .collect();
        let first = node.machine().store().revision().get() + 1;
        let mut expected = Vec::new();
        for put in 0..KEYS * ROUNDS {
            let request = Request::put(format!("/v2/keys/c/{}", put % KEYS))
                .header("content-type", "application/x-www-form-urlencoded")
                .body(Body::from("value=v"));
            let answer = v2::handle(node.clone(), request.expect("a request")).await;
            assert!(answer.status().is_success());
            expected.push((format!("/c/{}", put % KEYS), first + put));
        }
        for (key, mut body) in polls {
            let told = lines(&mut body, usize::MAX).await;
            assert_eq!(told, [(format!("/c/{key}"), first + key)]);
        }
        for reader in readers {
            assert_eq!(reader.await.expect("no panic"), expected);
        }
        for body in slept {
            assert_eq!(stream(body).await, expected);
        }
        assert_eq!(node.tree_hub().watchers(), 0);
        member.stop().await;
    });
}

async fn open(node: &Node, query: &str) -> Body {
    let request = Request::get(query).body(Body::empty()).expect("a request");
    v2::handle(node.clone(), request).await.into_body()
}

async fn stream(mut body: Body) -> Vec<(String, u64)> {
    lines(&mut body, (KEYS * ROUNDS) as usize).await
}

/// Key and index of the next events, at most so many.
async fn lines(body: &mut Body, count: usize) -> Vec<(String, u64)> {
    let mut text = Vec::new();
    let ends = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
    while ends(&text) < count
        && let Some(frame) = body.frame().await
    {
        text.extend(frame.expect("no error").into_data().expect("no trailers"));
    }
    let lines = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let told = lines.map(|line| {
        let event: serde_json::Value = serde_json::from_slice(line).expect("JSON");
        let node = &event["node"];
        let key = node["key"].as_str().expect("a key").to_owned();
        (key, node["modifiedIndex"].as_u64().expect("an index"))
    });
    told.collect()
}
