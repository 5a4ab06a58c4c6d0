//! The sockets: client, peer and metrics listeners, and who answers what on them.
//!
//! One port speaks HTTP/1.1 and HTTP/2, in clear or over TLS (`tls`) as its URL says. A request whose content is gRPC goes to `v3`,
//! every other one to `v2`, which also has the small endpoints and hands v3's JSON to the gateway.
//!
//! Never looks into a request beyond its content type and path. How long a head may take, and how
//! many connections fit, is `arrival`'s.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Request, Response};
use futures_util::FutureExt;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::arrival::{self, Patience, Stage};
use crate::authority::Mended;
use crate::config::{Config, ListenUrl, Scheme};
use crate::gateway::Gateway;
use crate::node::{Node, OpenError, Running};
use crate::tls::{Accepted, CLEARTEXT_HERE, Port, Refused, Stream, Tls, TlsError};
use crate::{metrics, output, peer, systemd, v2, v3};

/// How long a leader is waited for before clients are served without one.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long open requests may take when the server stops.
const GRACE: Duration = Duration::from_secs(2);
/// What a client may send ahead on one stream and on one connection, in bytes.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// With so many bytes of a stream on their way, its answer is not asked for more.
const STREAM_OUTPUT_BYTES: usize = 64 << 10;
/// Connections of the peer port and of the metrics port, each.
const OTHER_CONNECTIONS: usize = 64;
/// The headers of one request, in bytes as HTTP/2 counts them; beyond: 431.
const MAX_HEADER_BYTES: u32 = 64 << 10;
/// What is said to a head that took too long.
const TOO_LATE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Connection: close\r\nContent-Length: 52\r\n\r\nthe head of the request did not arrive in 20 seconds\n";

/// Why the server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A port cannot be listened on.
    #[error("cannot listen on {url}: {error}{}", hint(error))]
    Listen {
        /// Which.
        url: String,
        /// What the system said.
        error: io::Error,
    },
    /// TLS cannot be had as it was configured.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The member did not start.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The member had to stop.
    #[error("the member stopped: {0}")]
    Halted(String),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program, perhaps another member, has this port: stop it or choose another"
        }
        _ => "",
    }
}

/// Runs a member until `stop` resolves or the member halts.
///
/// `ready` is called once clients are served.
///
/// # Errors
/// [`ServeError`].
pub async fn run(
    config: Config,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(&Node),
) -> Result<(), ServeError> {
    Tls::check(&config)?;
    // The ports first: a second server is refused before it touches the directory.
    let clients = bind(&config.listen_client_urls).await?;
    let peers = bind(&config.listen_peer_urls).await?;
    let metrics = bind(&config.listen_metrics_urls).await?;
    let running = Running::start(config).await?;
    let node = running.node.clone();
    let mut stop = pin!(stop);
    let (closing, closed) = watch::channel(false);
    let mut listeners = JoinSet::new();
    let v3 = v3::services(node.clone(), node.config().watch_progress_interval);
    let app = Arc::new(App {
        gateway: (node.config().enable_grpc_gateway).then(|| Gateway::new(v3.clone())),
        v3,
        node: node.clone(),
        tls: node.tls().clone(),
        room: Room::new(&node),
    });
    let grant = |role| (app.clone(), role, closed.clone());
    let mut listen = |sockets: Vec<Listener>, role| {
        for socket in sockets {
            let (app, role, closed) = grant(role);
            listeners.spawn(accept(socket, app, role, closed));
        }
    };
    // The others must reach this member before there can be a leader.
    listen(peers, Role::Peer);
    listen(metrics, Role::Metrics);
    let halted = {
        let mut publishing = pin!(running.publish());
        let mut is_published = false;
        let patience = tokio::time::sleep(PATIENCE);
        let early = tokio::select! {
            published = &mut publishing => { published?; is_published = true; None }
            () = patience => {
                tracing::warn!(
                    "no leader yet: serving what needs none, until a majority of the members is there"
                );
                None
            }
            () = &mut stop => Some(None),
            reason = node.halted() => Some(Some(reason)),
        };
        match early {
            Some(halted) => halted,
            None => {
                listen(clients, Role::Client);
                tracing::info!("ready to serve client requests");
                say_how_clients_are_served(node.config());
                systemd::notify_ready();
                ready(&node);
                loop {
                    tokio::select! {
                        () = &mut stop => break None,
                        reason = node.halted() => break Some(reason),
                        published = &mut publishing, if !is_published => {
                            published?;
                            is_published = true;
                        }
                    }
                }
            }
        }
    };
    node.hand_over().await;
    systemd::notify_stopping();
    closing.send_replace(true);
    running.stop().await;
    // Connections see the member's end, answer what they can and close.
    let drained = async { while listeners.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, drained).await.is_err() {
        tracing::warn!("closed connections that did not end by themselves");
    }
    halted.map_or(Ok(()), |reason| Err(ServeError::Halted(reason)))
}

/// etcd's lines, which tools look for.
fn say_how_clients_are_served(config: &Config) {
    let urls = config.listen_client_urls.iter().map(|listen| &listen.url);
    for url in urls {
        let address = url.to_string();
        match url.scheme {
            Scheme::Https => tracing::info!(address, "serving client traffic securely"),
            Scheme::Http => tracing::info!(
                address,
                "serving client traffic insecurely; this is strongly discouraged!"
            ),
        }
    }
}

/// A port that is listened on.
struct Listener {
    socket: TcpListener,
    scheme: Scheme,
}

#[derive(Clone, Copy)]
enum Role {
    Client,
    Peer,
    Metrics,
}

struct App {
    v3: v3::Services,
    gateway: Option<Gateway>,
    node: Node,
    tls: Arc<Tls>,
    room: Room,
}

/// How many connections may be taken.
struct Room {
    clients: Arc<Semaphore>,
    peers: Arc<Semaphore>,
    metrics: Arc<Semaphore>,
}

impl Room {
    fn new(node: &Node) -> Self {
        let clients = arrival::client_connections(metrics::descriptor_limit());
        node.metrics().connections_bound.set(clients as u64);
        let room = |connections| Arc::new(Semaphore::new(connections));
        Self {
            clients: room(clients),
            peers: room(OTHER_CONNECTIONS),
            metrics: room(OTHER_CONNECTIONS),
        }
    }

    fn of(&self, role: Role) -> &Arc<Semaphore> {
        match role {
            Role::Client => &self.clients,
            Role::Peer => &self.peers,
            Role::Metrics => &self.metrics,
        }
    }
}

async fn bind(urls: &[ListenUrl]) -> Result<Vec<Listener>, ServeError> {
    let mut listeners = Vec::new();
    for ListenUrl { url, address } in urls {
        let bound = TcpListener::bind(address).await;
        // Accepted sockets inherit it.
        let bound = bound.and_then(|listener| {
            SockRef::from(&listener).set_tcp_keepalive(&arrival::keepalive())?;
            Ok(Listener {
                socket: listener,
                scheme: url.scheme,
            })
        });
        let failed = |error| ServeError::Listen {
            url: url.to_string(),
            error,
        };
        listeners.push(bound.map_err(failed)?);
    }
    Ok(listeners)
}

/// Takes connections until the server closes, then waits for those that are open.
async fn accept(listener: Listener, app: Arc<App>, role: Role, mut closed: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let room = app.room.of(role);
    loop {
        let accepted = tokio::select! {
            accepted = take(&listener.socket, room) => accepted,
            () = told(&mut closed) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        match accepted {
            Ok((stream, from, place)) => {
                let (app, scheme, closed) = (app.clone(), listener.scheme, closed.clone());
                connections.spawn(async move {
                    open(stream, from, app, role, scheme, closed).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: those who are connected go on.
                tracing::warn!(%error, "could not take a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Takes the next connection once there is a place for it.
async fn take(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = match room.clone().try_acquire_owned() {
        Ok(place) => place,
        Err(_) => {
            tracing::warn!("all places for connections are taken: the next one waits");
            let waited = room.clone().acquire_owned().await;
            waited.expect("nobody closes the semaphore")
        }
    };
    let (stream, from) = listener.accept().await?;
    Ok((stream, from, place))
}

/// Makes the handshake, if there is one to make, and serves the connection.
async fn open(
    stream: TcpStream,
    from: SocketAddr,
    app: Arc<App>,
    role: Role,
    scheme: Scheme,
    mut closed: watch::Receiver<bool>,
) {
    // A socket that cannot be told is slow, not wrong.
    let _ = stream.set_nodelay(true);
    let counted = matches!(role, Role::Client).then(|| app.node.metrics().open_connection());
    let accepted = match scheme {
        Scheme::Http => Some(Accepted {
            stream: Stream::Plain(stream),
            client: None,
        }),
        Scheme::Https => tokio::select! {
            accepted = app.shake_hands(stream, from, role) => accepted,
            () = told(&mut closed) => None,
        },
    };
    if let Some(accepted) = accepted {
        connection(accepted, from, app, role, closed).await;
    }
    drop(counted);
}

async fn connection(
    accepted: Accepted,
    from: SocketAddr,
    app: Arc<App>,
    role: Role,
    mut closed: watch::Receiver<bool>,
) {
    let Accepted { stream, client } = accepted;
    let node = app.node.clone();
    let streams = node.config().max_concurrent_streams;
    let stage = Stage::new();
    let asked = stage.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        if let Some(client) = &client {
            request.extensions_mut().insert(client.clone());
        }
        let (app, stage) = (app.clone(), asked.clone());
        stage.asked();
        async move {
            let answer = app.answer(role, request).await;
            if answer.body().size_hint().exact().is_some() {
                stage.answered();
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        // As etcd writes them: scripts look for `X-Etcd-Index` with grep.
        .title_case_headers(true)
        .timer(TokioTimer::new())
        // It would also end connections that wait for their next request: see `Patience`.
        .header_read_timeout(None);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_OUTPUT_BYTES);
    if matches!(role, Role::Peer) {
        // What becomes of it after the upgrade is written at once.
        let (read, write) = stream.into_split();
        let stream = tokio::io::join(Mended::new(read, stage.clone()), write);
        let mut serving =
            pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let mut told = pin!(told(&mut closed).fuse());
        let mut patience = Patience::default();
        let served = poll_fn(|context| {
            if told.as_mut().poll(context).is_ready() {
                serving.as_mut().graceful_shutdown();
            }
            let served = serving.as_mut().poll(context);
            if stage.is_tls() {
                node.metrics().tls.unexpected.one();
                tracing::warn!(remote_addr = %from, "rejected connection: TLS was spoken to an http URL");
                return Poll::Ready(Ok(()));
            }
            if served.is_pending() && patience.poll_over(&stage, context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            served
        });
        if let Err(error) = served.await {
            tracing::debug!(%error, %from, "a peer's connection ended");
        }
        return;
    }
    let (read, write) = stream.into_split();
    let (gathered, output) = output::gather(Mended::new(read, stage.clone()), write);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(gathered), service));
    let mut told = pin!(told(&mut closed).fuse());
    let mut patience = Patience::default();
    let served = poll_fn(|context| {
        if told.as_mut().poll(context).is_ready() {
            serving.as_mut().graceful_shutdown();
        }
        let served = serving.as_mut().poll(context);
        if stage.is_tls() {
            output.say_instead(CLEARTEXT_HERE);
            output.write_out(context);
            node.metrics().tls.unexpected.one();
            tracing::warn!(remote_addr = %from, "rejected connection: TLS was spoken to an http URL");
            return Poll::Ready(Ok(()));
        }
        if served.is_pending() && patience.poll_over(&stage, context).is_ready() {
            output.say(TOO_LATE);
            output.write_out(context);
            return Poll::Ready(Ok(()));
        }
        output.write_out(context);
        served
    })
    .await;
    if let Err(error) = served {
        tracing::debug!(%error, %from, "connection ended");
    }
}

/// Waits until the server closes.
async fn told(closed: &mut watch::Receiver<bool>) {
    // An error means that the server is gone altogether.
    let _ = closed.wait_for(|closed| *closed).await;
}

impl App {
    /// The connection after its handshake; `None` for one that is not served, which is logged.
    async fn shake_hands(
        &self,
        stream: TcpStream,
        from: SocketAddr,
        role: Role,
    ) -> Option<Accepted> {
        let (port, endpoint) = match role {
            Role::Client | Role::Metrics => (Port::Client, "client"),
            Role::Peer => (Port::Peer, "peer"),
        };
        let metrics = self.node.metrics();
        let under_way = metrics.open_handshake();
        let accepted = self.tls.accept(stream, from, port).await;
        drop(under_way);
        let counts = &metrics.tls;
        match &accepted {
            Ok(_) => counts.done.one(),
            Err(Refused::Gone) => counts.gone.one(),
            Err(Refused::Late) => counts.late.one(),
            Err(Refused::Cleartext) => counts.cleartext.one(),
            Err(Refused::Failed(_)) => counts.failed.one(),
        }
        let told = |error: &Refused| match error {
            // Probes of a port would fill the log.
            Refused::Gone => tracing::debug!(remote_addr = %from, "{endpoint}: nothing was said"),
            error => tracing::warn!(
                remote_addr = %from,
                %error,
                "rejected connection on {endpoint} endpoint"
            ),
        };
        accepted.inspect_err(told).ok()
    }

    async fn answer(&self, role: Role, request: Request<Incoming>) -> Response<Body> {
        if matches!(role, Role::Client) && is_grpc(&request) {
            return self.v3.answer(request).await;
        }
        // Boxed, or every call of v3 would carry the room for it.
        Box::pin(self.answer_http(role, request.map(Body::new))).await
    }

    async fn answer_http(&self, role: Role, request: Request<Body>) -> Response<Body> {
        match role {
            Role::Client => {
                v2::handle_with(self.node.clone(), self.gateway.as_ref(), request).await
            }
            Role::Peer => peer::handle(&self.node, request),
            Role::Metrics => {
                let answer = v2::observe(&self.node, request.method(), request.uri()).await;
                answer.unwrap_or_else(v2::not_found)
            }
        }
    }
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    request.method() == Method::POST
        && request
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
