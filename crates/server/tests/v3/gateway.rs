//! The JSON gateway beyond what was recorded: heads, streams, headers and bounds, over a socket.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::member::{Member, block_on};

/// A request and what comes back, line by line.
struct Http(BufReader<TcpStream>);

impl Http {
    async fn post(member: &Member, path: &str, headers: &str, body: &str) -> Self {
        let mut http = Self::open(member, path, headers).await;
        http.chunk(body).await;
        http.chunk("").await;
        http
    }

    /// A request whose body goes on.
    async fn open(member: &Member, path: &str, headers: &str) -> Self {
        let address = member.url.strip_prefix("http://").expect("a URL");
        let socket = TcpStream::connect(address).await.expect("it listens");
        let mut http = Self(BufReader::new(socket));
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Transfer-Encoding: chunked\r\n{headers}\r\n"
        );
        http.write(&head).await;
        http
    }

    /// Sends a piece of the body; an empty one ends it.
    async fn chunk(&mut self, text: &str) {
        self.write(&format!("{:x}\r\n{text}\r\n", text.len())).await;
    }

    async fn write(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.expect("it is read");
    }

    /// The status line's number, and the headers.
    async fn head(&mut self) -> (u16, String) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = self.0.read_line(&mut head).await.expect("a head");
            assert!(read > 0, "a head that ends: {head:?}");
        }
        let status = head.split(' ').nth(1).expect("a status");
        (status.parse().expect("a number"), head)
    }

    /// The next line of a chunked body that is JSON.
    async fn json(&mut self) -> Value {
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line).await.expect("a line");
            assert!(read > 0, "a line of JSON");
            if line.starts_with('{') {
                return serde_json::from_str(&line).expect("JSON");
            }
        }
    }

    async fn rest(mut self) -> String {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).await.expect("text");
        rest
    }
}

async fn call(member: &Member, path: &str, body: &Value) -> Value {
    let mut http = Http::post(member, path, "", &body.to_string()).await;
    assert_eq!(http.head().await.0, 200);
    serde_json::from_str(&http.rest().await).expect("JSON")
}

#[test]
fn a_watch_goes_on_after_its_body_ended() {
    block_on(async {
        let member = Member::start().await;
        let create = r#"{"create_request":{"key":"aw==","watchId":"7"}} {"progress_request":{}}"#;
        let mut watch = Http::post(&member, "/v3/watch", "", create).await;
        assert_eq!(watch.head().await.0, 200);
        let created = watch.json().await;
        assert_eq!(created["result"]["created"], true);
        assert_eq!(created["result"]["watch_id"], "7");
        assert_eq!(watch.json().await["result"]["watch_id"], "-1");
        call(
            &member,
            "/v3/kv/put",
            &json!({"key": "aw==", "value": "MQ=="}),
        )
        .await;
        let events = &watch.json().await["result"]["events"];
        assert_eq!(events[0]["kv"]["value"], "MQ==");
        drop(watch);
        member.stop().await;
    });
}

#[test]
fn a_stream_takes_requests_as_they_come_and_is_silent_until_it_has_an_answer() {
    block_on(async {
        let member = Member::start().await;
        let mut watch = Http::open(&member, "/v3/watch", "").await;
        let mut byte = [0];
        let silence = tokio::time::timeout(Duration::from_millis(200), watch.0.read(&mut byte));
        assert!(silence.await.is_err(), "no head before a message");
        watch.chunk("{\"create_request\":{\"ke").await;
        watch.chunk("y\":\"aw==\"}}").await;
        assert_eq!(watch.head().await.0, 200);
        assert_eq!(watch.json().await["result"]["created"], true);
        watch.chunk("{\"cancel_request\":{\"watch_id\":0}}").await;
        assert_eq!(watch.json().await["result"]["canceled"], true);
        drop(watch);
        member.stop().await;
    });
}

#[test]
fn keep_alives_are_answered_one_by_one_and_end_with_the_body() {
    block_on(async {
        let member = Member::start().await;
        call(&member, "/v3/lease/grant", &json!({"ID": 5, "TTL": "3600"})).await;
        let mut http = Http::post(&member, "/v3/lease/keepalive", "", "{\"ID\":5}{\"ID\":6}").await;
        assert_eq!(http.head().await.0, 200);
        assert_eq!(http.json().await["result"]["TTL"], "3600");
        let gone = http.json().await;
        assert_eq!(gone["result"]["ID"], "6");
        assert_eq!(gone["result"].get("TTL"), None);
        let rest = http.rest().await;
        assert!(rest.ends_with("0\r\n\r\n"), "the stream's end: {rest:?}");
        member.stop().await;
    });
}

#[test]
fn a_deadline_ends_a_stream_before_and_behind_its_head() {
    block_on(async {
        let member = Member::start().await;
        let late = json!({"error": {"code": 4, "message": "context deadline exceeded"}});
        let timeout = "Grpc-Timeout: 100m\r\n";
        let mut http = Http::post(&member, "/v3/watch", timeout, "").await;
        assert_eq!(http.head().await.0, 504);
        assert_eq!(http.json().await, late);
        let create = "{\"create_request\":{\"key\":\"aw==\"}}";
        let mut http = Http::post(&member, "/v3/watch", timeout, create).await;
        assert_eq!(http.head().await.0, 200);
        assert_eq!(http.json().await["result"]["created"], true);
        assert_eq!(http.json().await, late);
        let mut http = Http::post(&member, "/v3/kv/range", "Grpc-Timeout: 1x\r\n", "").await;
        assert_eq!(http.head().await.0, 400);
        member.stop().await;
    });
}

#[test]
fn headers_become_metadata() {
    block_on(async {
        let member = Member::start().await;
        let header = "Grpc-Metadata-Client-Api-Version: \u{e9}\r\n";
        let body = "{\"key\":\"aw==\"}";
        let mut http = Http::post(&member, "/v3/kv/range", header, body).await;
        assert_eq!(http.head().await.0, 200, "it is UTF-8");
        // gRPC's own are not for clients: this one would say that the message is compressed.
        let header = "Grpc-Metadata-Grpc-Encoding: gzip\r\n";
        let mut http = Http::post(&member, "/v3/lease/leases", header, "").await;
        assert_eq!(http.head().await.0, 200);
        let (_, head) = Http::post(&member, "/v3/kv/range", "Origin: http://a\r\n", body)
            .await
            .head()
            .await;
        assert!(head.contains("Access-Control-Allow-Origin: *"), "{head}");
        member.stop().await;
    });
}

#[test]
fn a_body_without_end_is_refused() {
    block_on(async {
        let member = Member::start().await;
        let body = format!("{{\"key\":\"{}", "A".repeat(9 << 20));
        let mut http = Http::post(&member, "/v3/kv/range", "", &body).await;
        assert_eq!(http.head().await.0, 429);
        member.stop().await;
    });
}
