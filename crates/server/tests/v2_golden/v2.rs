//! The client of v2: requests handed to the server's handler, answers as one line each.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{Request, Response};
use futures_util::StreamExt as _;

use super::session::{Session, bytes};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A body that is read line by line.
pub(super) struct Lines {
    body: BodyDataStream,
    buffer: Vec<u8>,
}

pub(super) async fn answer(session: &mut Session, request: &str) -> String {
    let (verb, rest) = request.split_once(' ').expect("a method and a path");
    match verb {
        "next" => {
            let lines = session.watches.get_mut(rest).expect("a watch of that name");
            format!("{rest}: {}", lines.next().await)
        }
        "watch" => {
            let (name, rest) = rest.split_once(' ').expect("a name and a path");
            let response = send(session, "GET", &format!("{rest} wait=true")).await;
            let head = head(&response);
            if response.status().is_success() {
                let body = response.into_body().into_data_stream();
                session.watches.insert(
                    name.to_owned(),
                    Lines {
                        body,
                        buffer: Vec::new(),
                    },
                );
                return format!("{name}: {head}");
            }
            format!("{name}: {head} {}", whole(response).await)
        }
        method => {
            let response = send(session, method, rest).await;
            format!("{} {}", head(&response), whole(response).await)
        }
    }
}

async fn send(session: &Session, method: &str, request: &str) -> Response<Body> {
    let mut words = request.split(' ');
    let path = words.next().expect("a path");
    let pairs: Vec<String> = words.map(pair).collect();
    let pairs = pairs.join("&");
    let builder = Request::builder()
        .method(method)
        .header("host", "localhost");
    let built = if matches!(method, "PUT" | "POST") {
        let kind = "application/x-www-form-urlencoded";
        builder
            .uri(path)
            .header("content-type", kind)
            .body(Body::from(pairs))
    } else {
        builder.uri(format!("{path}?{pairs}")).body(Body::empty())
    };
    quorate::v2::handle(session.node.clone(), built.expect("a request")).await
}

/// `name=value` with its value escaped.
fn pair(word: &str) -> String {
    let (name, value) = word.split_once('=').expect("name=value");
    let escaped: String = bytes(value)
        .iter()
        .map(|byte| format!("%{byte:02x}"))
        .collect();
    format!("{name}={escaped}")
}

fn head(response: &Response<Body>) -> String {
    let index = response
        .headers()
        .get("x-etcd-index")
        .map(|index| index.to_str().expect("text"));
    format!(
        "{} index {}",
        response.status().as_u16(),
        index.unwrap_or("-")
    )
}

async fn whole(response: Response<Body>) -> String {
    let read = axum::body::to_bytes(response.into_body(), usize::MAX);
    let body = tokio::time::timeout(PATIENCE, read)
        .await
        .expect("an answer")
        .expect("a body");
    shown(&body)
}

/// What differs from run to run is left out: times, and in a get or a previous node the ttl left.
fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body).trim_end().to_owned();
    let text = mask(&text, "\"expiration\":\"", '"', "TIME");
    let is_get = text.contains("\"action\":\"get\"");
    let left_from = if is_get {
        Some(0)
    } else {
        text.find("\"prevNode\"")
    };
    let (now, left) = text.split_at(left_from.unwrap_or(text.len()));
    now.to_owned() + &mask(left, "\"ttl\":", ',', "LEFT")
}

fn mask(text: &str, start: &str, end: char, with: &str) -> String {
    let mut parts = text.split(start);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.split_once(end).expect("an end").1;
        out += &format!("{start}{with}{end}{rest}");
    }
    out
}

impl Lines {
    async fn next(&mut self) -> String {
        tokio::time::timeout(PATIENCE, self.line())
            .await
            .expect("a line or the end")
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return shown(&line);
            }
            match self.body.next().await {
                Some(Ok(piece)) => self.buffer.extend_from_slice(&piece),
                Some(Err(error)) => return format!("broken: {error}"),
                None => return "the end".to_owned(),
            }
        }
    }
}
