//! A member in this process with a port for metrics, and a client of plain HTTP.

use std::net::SocketAddr;

use quorate::config::Config;
use quorate::node::Node;
use quorate::serve::{self, ServeError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

use super::ports::{free_port, listen};
use super::text::Scrape;

/// How often something that is to come is looked for, at most.
const LOOKS: usize = 2_000;

/// A running member.
pub(crate) struct Member {
    pub(crate) node: Node,
    client: SocketAddr,
    metrics: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServeError>>,
    _directory: tempfile::TempDir,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

/// Runs a test on the kind of runtime that the server has.
pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(test)
}

impl Member {
    /// Starts a member and waits until it serves.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// The same, with something set.
    pub(crate) async fn start_with(set: impl FnOnce(&mut Config)) -> Self {
        let [client, peer, metrics] = [(); 3].map(|()| listen(free_port()));
        let (client_address, metrics_address) = (client.address, metrics.address);
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = Config {
            data_dir: directory.path().join("member"),
            advertise_client_urls: vec![client.url.clone()],
            listen_client_urls: vec![client],
            listen_peer_urls: vec![peer],
            listen_metrics_urls: vec![metrics],
            ..Config::default()
        };
        set(&mut config);
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            serve::run(config, stopped, |node| drop(ready.send(node.clone()))).await
        });
        let Ok(node) = started.await else {
            panic!("the member did not start: {:?}", serving.await);
        };
        Self {
            node,
            client: client_address,
            metrics: metrics_address,
            stop,
            serving,
            _directory: directory,
        }
    }

    /// A gRPC client's connection.
    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.client)).expect("a URL");
        endpoint.connect().await.expect("the member listens")
    }

    /// Sends `METHOD TARGET` to the client port.
    pub(crate) async fn ask(&self, request: &str) -> Answer {
        ask(self.client, request, "", "").await
    }

    /// The same with a body.
    pub(crate) async fn send(&self, request: &str, body: &str) -> Answer {
        ask(self.client, request, "", body).await
    }

    /// The same with a body that is said to be JSON.
    pub(crate) async fn send_json(&self, request: &str, body: &str) -> Answer {
        ask(
            self.client,
            request,
            "Content-Type: application/json\r\n",
            body,
        )
        .await
    }

    /// Gets `target` from the metrics port.
    pub(crate) async fn ask_metrics(&self, target: &str) -> Answer {
        ask(self.metrics, &format!("GET {target}"), "", "").await
    }

    /// `/metrics` of the metrics port.
    pub(crate) async fn scrape(&self) -> Scrape {
        let answer = self.ask_metrics("/metrics").await;
        assert_eq!(answer.status, 200);
        let kind = Some("text/plain; version=0.0.4; charset=utf-8");
        assert_eq!(answer.header("content-type"), kind);
        Scrape::parse(&answer.body)
    }

    /// `/metrics` once it shows what was waited for.
    pub(crate) async fn scrape_until(&self, shows: impl Fn(&Scrape) -> bool) -> Scrape {
        for _ in 0..LOOKS {
            let scrape = self.scrape().await;
            if shows(&scrape) {
                return scrape;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("what was waited for did not come");
    }

    /// Waits until the member ends by itself: why it did.
    pub(crate) async fn ended(self) -> String {
        let ended = self.serving.await.expect("no panic");
        ended.expect_err("it gives a reason").to_string()
    }

    /// Stops the member.
    pub(crate) async fn stop(self) {
        self.stop.send(()).expect("it runs");
        let ended = self.serving.await.expect("no panic");
        ended.expect("it stops cleanly");
    }
}

impl Answer {
    /// A header by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }
}

async fn ask(address: SocketAddr, request: &str, headers: &str, body: &str) -> Answer {
    let (method, target) = request.split_once(' ').expect("METHOD TARGET");
    let len = body.len();
    let text = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\
         Content-Length: {len}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(text.as_bytes()).await.expect("it reads");
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.expect("it answers");
    let received = String::from_utf8(received).expect("text");
    let (head, body) = received.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    assert!(
        !head.to_ascii_lowercase().contains("transfer-encoding"),
        "{head}"
    );
    Answer {
        status: status.expect("a status"),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}
