//! Dials another member and says hello.

use std::io;
use std::time::Duration;

use axum::http::header::{CONNECTION, HOST, UPGRADE};
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use super::hello::{Hello, PROTOCOL, Refused};
use crate::config::Url;
use crate::node::Node;

/// How long a peer may take to answer a hello.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest sentence that is taken from a peer, in bytes.
const MAX_TEXT: usize = 4 << 10;

/// A connection on which both have said who they are.
pub(crate) type Connected = TokioIo<Upgraded>;

/// Why a member is not reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("no peer URL of it is known")]
    NoAddress,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it did not answer in {} s", PATIENCE.as_secs())]
    Late,
    #[error("what answers there is no Quorate member: {0}")]
    Http(#[from] hyper::Error),
    /// It has said why.
    #[error("it refuses: {text}")]
    Refused { status: u16, text: String },
    /// It is not who it should be.
    #[error("{0}")]
    Wrong(Refused),
}

/// Connects to `member` at `url`, for what goes to `path`.
pub(super) async fn connect(
    node: &Node,
    member: u64,
    url: &str,
    path: &'static str,
) -> Result<Connected, LinkError> {
    let connecting = dial(node, member, url, path);
    tokio::time::timeout(PATIENCE, connecting)
        .await
        .unwrap_or(Err(LinkError::Late))
}

async fn dial(
    node: &Node,
    member: u64,
    url: &str,
    path: &'static str,
) -> Result<Connected, LinkError> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let url = Url::parse(url).map_err(invalid)?;
    let stream = node.tls().connect(&url).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let hello = Hello {
        wanted: member,
        ..node.hello()
    };
    let mut request = Request::get(path)
        .header(HOST, format!("{}:{}", url.host, url.port))
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, PROTOCOL)
        .body(Empty::<Bytes>::new())
        .map_err(|error| invalid(error.to_string()))?;
    hello.write(request.headers_mut());
    let mut response = sender.send_request(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status().as_u16();
        let body = Limited::new(response.body_mut(), MAX_TEXT).collect().await;
        let text = body.map(|body| body.to_bytes()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        let text = format!("{status}: {text}");
        return Err(LinkError::Refused { status, text });
    }
    let theirs = Hello::read(response.headers()).ok_or(LinkError::Wrong(Refused::Garbled))?;
    node.check_answer(member, &theirs)
        .map_err(LinkError::Wrong)?;
    Ok(TokioIo::new(hyper::upgrade::on(response).await?))
}
