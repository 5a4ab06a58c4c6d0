//! HTTP as a client: one question, one answer, within a time.

use std::error::Error;
use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, Request};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

/// How long a connection may take, and how long a silent one is trusted.
const CONNECT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(30);
/// The longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 4 << 20;

type Connector = HttpConnector;

/// Clones share their connections.
#[derive(Clone)]
pub(super) struct Client(legacy::Client<Connector, Full<Bytes>>);

/// An answer, whatever its status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Where TLS to members and to discovery services begins.
fn connector() -> Connector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_keepalive(Some(KEEPALIVE));
    connector
}

impl Client {
    pub(super) fn new() -> Self {
        Self(legacy::Client::builder(TokioExecutor::new()).build(connector()))
    }

    /// # Errors
    /// A sentence about what failed on the way.
    pub(super) async fn get(&self, url: &str, within: Duration) -> Result<Answer, String> {
        self.ask(Method::GET, url, String::new(), within).await
    }

    /// PUT of a form.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(super) async fn put(
        &self,
        url: &str,
        form: String,
        within: Duration,
    ) -> Result<Answer, String> {
        self.ask(Method::PUT, url, form, within).await
    }

    async fn ask(
        &self,
        method: Method,
        url: &str,
        form: String,
        within: Duration,
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(url);
        if !form.is_empty() {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let request = request
            .body(Full::from(form))
            .map_err(|error| chain(&error))?;
        let answered = timeout(within, async {
            let (head, body) = self
                .0
                .request(request)
                .await
                .map_err(|error| chain(&error))?
                .into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| chain(error.as_ref()))?;
            Ok(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body: body.to_bytes(),
            })
        });
        let late = |_| format!("no answer within {} s", within.as_secs_f32());
        answered.await.map_err(late)?
    }
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
