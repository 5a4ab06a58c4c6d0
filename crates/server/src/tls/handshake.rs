//! Handshakes: the thread on which they are made, and each one's steps.
//!
//! Source: etcd gives a handshake ten seconds and logs `rejected connection on … endpoint`.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::stream::Socket;
use super::{ClientCertificate, Port, Tls, address, certificate};
use crate::arrival::HANDSHAKE_LIMIT;

/// What is said to who speaks HTTP where TLS is spoken. Go's words.
const CLEARTEXT: &[u8] = b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Connection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
/// What is said to who speaks TLS where HTTP is spoken.
pub(crate) const CLEARTEXT_HERE: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Connection: close\r\nContent-Length: 43\r\n\r\nClient sent a TLS hello to an HTTP server.\n";
/// How long a client may take to read that.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The first byte of every TLS connection: a record of a handshake.
const HANDSHAKE: u8 = 0x16;

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// It spoke something else than TLS, and was told.
    #[error("tls: first record does not look like a TLS handshake")]
    Cleartext,
    /// It took too long.
    #[error("the handshake was not done in {} seconds", HANDSHAKE_LIMIT.as_secs())]
    Late,
    /// It went away before it said anything, as a probe of the port does.
    #[error("EOF")]
    Gone,
    /// A certificate is not accepted, or what came is no handshake.
    #[error("{0}")]
    Failed(String),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        let kind = match refused {
            Refused::Late => io::ErrorKind::TimedOut,
            Refused::Gone => io::ErrorKind::UnexpectedEof,
            Refused::Cleartext | Refused::Failed(_) => io::ErrorKind::InvalidData,
        };
        Self::new(kind, refused)
    }
}

/// A thread with a runtime of its own; started when it is first needed, ended with this.
#[derive(Default)]
pub(super) struct Thread(OnceLock<(Handle, oneshot::Sender<()>)>);

impl Thread {
    /// Does a piece of work there.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> io::Result<T> {
        let (handle, _) = match self.0.get() {
            Some(there) => there,
            None => {
                let started = start()?;
                self.0.get_or_init(|| started)
            }
        };
        handle.spawn(work).await.map_err(io::Error::other)
    }
}

fn start() -> io::Result<(Handle, oneshot::Sender<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()?;
    let handle = runtime.handle().clone();
    let (end, ended) = oneshot::channel::<()>();
    let name = "tls-handshakes".to_owned();
    std::thread::Builder::new().name(name).spawn(move || {
        // An error means that the sender is gone, which is how it ends.
        let _ = runtime.block_on(ended);
        runtime.shutdown_background();
    })?;
    Ok((handle, end))
}

type Shaken<S> = (S, std::net::TcpStream);

/// The side of a server: on the handshakes' thread.
pub(super) async fn accept(
    tls: &Tls,
    stream: std::net::TcpStream,
    from: SocketAddr,
    port: Port,
) -> Result<
    (
        server::TlsStream<Socket>,
        std::net::TcpStream,
        Option<ClientCertificate>,
    ),
    Refused,
> {
    let stream = TcpStream::from_std(stream)?;
    let steps = async {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(0) | Err(_) => return Err(Refused::Gone),
            Ok(_) if first[0] != HANDSHAKE => {
                say_cleartext(stream).await;
                return Err(Refused::Cleartext);
            }
            Ok(_) => {}
        }
        let _place = tls.room.acquire().await;
        let endpoint = tls.endpoint(port);
        let acceptor = TlsAcceptor::from(endpoint.server().map_err(Refused::Failed)?);
        let mut stream = acceptor.accept(Socket::new(stream)).await?;
        let client = judge(&stream, from, port, endpoint.checks_address()).await?;
        let socket = stream.get_mut().0.leave()?;
        Ok((stream, socket, client))
    };
    let in_time = tokio::time::timeout(HANDSHAKE_LIMIT, steps).await;
    in_time.unwrap_or(Err(Refused::Late))
}

/// Judges what the handshake could not; T2.
async fn judge(
    stream: &server::TlsStream<Socket>,
    from: SocketAddr,
    port: Port,
    checks_address: bool,
) -> Result<Option<ClientCertificate>, Refused> {
    let (_, session) = stream.get_ref();
    let Some(shown) = session.peer_certificates().and_then(<[_]>::first) else {
        return Ok(None);
    };
    if port == Port::Peer && checks_address {
        let subjects = certificate::subjects(shown);
        let judged = address::check(&subjects, from.ip()).await;
        judged.map_err(Refused::Failed)?;
    }
    let common_name = certificate::common_name(shown).into();
    Ok(Some(ClientCertificate { common_name }))
}

/// The side of who connects: on the handshakes' thread.
pub(super) async fn connect(
    tls: &Arc<Tls>,
    stream: std::net::TcpStream,
    name: ServerName<'static>,
) -> Result<Shaken<client::TlsStream<Socket>>, Refused> {
    let stream = TcpStream::from_std(stream)?;
    let steps = async {
        let _place = tls.room.acquire().await;
        let connector = TlsConnector::from(tls.peers.client().map_err(Refused::Failed)?);
        let mut stream = connector.connect(name, Socket::new(stream)).await?;
        let socket = stream.get_mut().0.leave()?;
        Ok((stream, socket))
    };
    let in_time = tokio::time::timeout(HANDSHAKE_LIMIT, steps).await;
    in_time.unwrap_or(Err(Refused::Late))
}

/// Says that TLS is spoken here, and waits until that has been read: what is closed on bytes that
/// nobody read may take its last words with it.
async fn say_cleartext(mut stream: TcpStream) {
    let steps = async {
        stream.write_all(CLEARTEXT).await?;
        stream.shutdown().await?;
        let mut rest = [0; 4_096];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // Whoever does not listen is not told.
    let _ = tokio::time::timeout(LAST_WORDS, steps).await;
}
