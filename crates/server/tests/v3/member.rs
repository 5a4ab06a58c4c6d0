//! A member in this process, on a fresh directory and free ports of the loopback interface.

use std::path::PathBuf;

use quorate::config::Config;
use quorate::node::Node;
use quorate::serve::{self, ServeError};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

use crate::ports::{free_port, listen};

/// A running member.
pub(crate) struct Member {
    pub(crate) node: Node,
    /// Where clients reach it.
    pub(crate) url: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServeError>>,
    directory: PathBuf,
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
        Self::start_with(|_| {}).await
    }

    /// The same, on a data directory that may exist.
    pub(crate) async fn start_on(directory: PathBuf) -> Self {
        Self::start_with(|config| config.data_dir = directory).await
    }

    /// The same, configured otherwise.
    pub(crate) async fn start_with(configure: impl FnOnce(&mut Config)) -> Self {
        let (client, peer) = (free_port(), free_port());
        let name = format!("quorate-v3-{}-{client}", std::process::id());
        let client = listen(client);
        let url = client.url.to_string();
        let mut config = Config {
            data_dir: scratch().join(name),
            advertise_client_urls: vec![client.url.clone()],
            listen_client_urls: vec![client],
            listen_peer_urls: vec![listen(peer)],
            ..Config::default()
        };
        configure(&mut config);
        let directory = config.data_dir.clone();
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
            url,
            stop,
            serving,
            directory,
        }
    }

    /// A client's connection.
    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(self.url.clone()).expect("a URL");
        endpoint.connect().await.expect("the member listens")
    }

    /// Stops the member and removes its directory.
    pub(crate) async fn stop(self) {
        let directory = self.directory.clone();
        self.stop_and_keep().await;
        std::fs::remove_dir_all(directory).expect("its directory");
    }

    /// Stops the member.
    pub(crate) async fn stop_and_keep(self) {
        self.stop.send(()).expect("it runs");
        self.serving
            .await
            .expect("no panic")
            .expect("it stops cleanly");
    }
}

/// A folder in memory where there is one: these tests are not about the disk.
fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    }
}
