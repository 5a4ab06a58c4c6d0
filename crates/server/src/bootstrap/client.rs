//! HTTP as a client, in clear or over TLS: one question, one answer, within a time.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, Request, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;
use tower::util::BoxCloneSyncService;

use crate::config::{Scheme, Url};
use crate::tls::{Stream, Tls};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 4 << 20;

type Connector = BoxCloneSyncService<Uri, Wire, io::Error>;

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

/// A connection under HTTP.
struct Wire(TokioIo<Stream>);

/// What a URI's connection is; TLS if it says so.
fn connector(tls: &Arc<Tls>) -> Connector {
    let tls = tls.clone();
    BoxCloneSyncService::new(tower::service_fn(move |uri: Uri| {
        let tls = tls.clone();
        async move {
            let connected = timeout(CONNECT, tls.connect(&address(&uri)?)).await;
            let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            Ok(Wire(TokioIo::new(stream)))
        }
    }))
}

fn address(uri: &Uri) -> io::Result<Url> {
    let (scheme, port) = match uri.scheme_str() {
        Some("https") => (Scheme::Https, 443),
        _ => (Scheme::Http, 80),
    };
    let host = uri.host().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(Url {
        scheme,
        host: host.to_owned(),
        port: uri.port_u16().unwrap_or(port),
    })
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, to)
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl Client {
    /// `tls` says whom it trusts and what it shows.
    pub(super) fn new(tls: &Arc<Tls>) -> Self {
        Self(legacy::Client::builder(TokioExecutor::new()).build(connector(tls)))
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
