//! TLS on both ports, and to other members.
//!
//! [`Tls::accept`] answers who connects, [`Tls::connect`] reaches another member. Handshakes are made
//! on a thread of their own, since one takes as long as a hundred requests: at most one core is busy
//! with them, and a client that is slow costs a timer there and nothing to those who are served.
//! Afterwards the connection moves to the thread that asked.
//!
//! Owns the files of certificates while the server runs, how many handshakes are under way and how
//! long each may take. Never looks at what is said inside.
//!
//! T1. A handshake is judged by the files as they are when it is made; a file that has become bad
//!     leaves what it held before in force (`files`).
//! T2. No connection is served before its certificate has been judged whole.
//!
//! Source: etcd's `client/pkg/transport`; spec/v3-api.md §3.3.

mod address;
mod certificate;
mod endpoint;
mod files;
mod handshake;
mod self_signed;
mod stream;
#[cfg(test)]
mod tests;
mod verify;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

pub(crate) use handshake::{CLEARTEXT_HERE, Refused};
pub use stream::{ReadHalf, Socket, Stream, WriteHalf};

use crate::arrival;
use crate::config::{Config, Scheme, Transport, Url};
use endpoint::Endpoint;
use handshake::Thread;

/// Why TLS cannot be had as it was configured: names the flag and the file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

/// Who may be connected to, and by whom.
pub struct Tls {
    /// Of client URLs and metrics URLs, if one of them is https or a certificate is given.
    clients: Option<Endpoint>,
    peers: Endpoint,
    room: Arc<Semaphore>,
    thread: Thread,
}

/// A port's part in a handshake.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Port {
    /// Clients, and who reads the metrics.
    Client,
    /// Other members.
    Peer,
}

/// What a client's certificate says about it: an extension of each of its requests.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientCertificate {
    /// Empty if it has none.
    pub common_name: Arc<str>,
}

/// A connection that may be served.
pub(crate) struct Accepted {
    pub(crate) stream: Stream,
    /// Of a client that was asked for a certificate.
    pub(crate) client: Option<ClientCertificate>,
}

impl Tls {
    /// Reads the files that the flags name. Makes none: see [`Self::load`].
    ///
    /// # Errors
    /// [`TlsError`], for what would fail at the first handshake.
    pub fn check(config: &Config) -> Result<(), TlsError> {
        for (prefix, transport) in [("", &config.client_tls), ("peer-", &config.peer_tls)] {
            Endpoint::open(prefix, transport, &config.tls, None).map_err(TlsError)?;
        }
        Ok(())
    }

    /// Reads the files that the flags name, and makes the certificates that the server is to make.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(config: &Config) -> Result<Arc<Self>, TlsError> {
        let made = |transport: &Transport, whose: &str, urls| {
            let directory = config.data_dir.join("fixtures").join(whose);
            let is_wanted = transport.auto && transport.cert_file.is_none();
            is_wanted
                .then(|| self_signed::ensure(&directory, urls, config.tls.self_signed_years))
                .transpose()
                .map_err(TlsError)
        };
        let open = |prefix, transport, made| {
            Endpoint::open(prefix, transport, &config.tls, made).map_err(TlsError)
        };
        let own = made(&config.client_tls, "client", &config.listen_client_urls)?;
        let has_certificate = own.is_some() || config.client_tls.cert_file.is_some();
        let clients = has_certificate
            .then(|| open("", &config.client_tls, own))
            .transpose()?;
        let own = made(&config.peer_tls, "peer", &config.listen_peer_urls)?;
        Ok(Arc::new(Self {
            clients,
            peers: open("peer-", &config.peer_tls, own)?,
            room: Arc::new(Semaphore::new(arrival::HANDSHAKES)),
            thread: Thread::default(),
        }))
    }

    /// To connect to who is no member: the system's authorities are trusted, and nothing is shown.
    #[must_use]
    pub fn of_nobody() -> Arc<Self> {
        let opened = Self::load(&Config::default());
        opened.expect("no file is named, so none is bad")
    }

    /// Makes the handshake with who has connected to an https URL.
    ///
    /// # Errors
    /// [`Refused`]; the other side has been told, if it can be.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        stream: TcpStream,
        from: SocketAddr,
        port: Port,
    ) -> Result<Accepted, Refused> {
        let stream = stream.into_std()?;
        let tls = self.clone();
        let work = async move { handshake::accept(&tls, stream, from, port).await };
        let (mut stream, socket, client) = self.thread.run(work).await??;
        stream.get_mut().0.join(socket)?;
        Ok(Accepted {
            stream: Stream::Tls(Box::new(stream.into())),
            client,
        })
    }

    /// Connects to a member, over TLS if its URL is https: its certificate is verified, and ours shown.
    ///
    /// # Errors
    /// Whatever kept the connection from being made; a handshake's error says why. No limit of time
    /// holds for the connection itself, one does for the handshake.
    pub async fn connect(self: &Arc<Self>, url: &Url) -> io::Result<Stream> {
        let host = url.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, url.port)).await?;
        // A socket that cannot be told is slow, not wrong.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&arrival::keepalive());
        if url.scheme == Scheme::Http {
            return Ok(Stream::Plain(stream));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = stream.into_std()?;
        let tls = self.clone();
        let work = async move { handshake::connect(&tls, stream, name).await };
        let (mut stream, socket) = self.thread.run(work).await??;
        stream.get_mut().0.join(socket)?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }

    fn endpoint(&self, port: Port) -> &Endpoint {
        match port {
            Port::Client => self
                .clients
                .as_ref()
                .expect("judged: https needs a certificate"),
            Port::Peer => &self.peers,
        }
    }
}
