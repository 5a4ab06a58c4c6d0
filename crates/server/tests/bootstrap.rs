//! Members without data ask real servers what they are to be: a member of this process, as the
//! cluster to join and as the discovery service.

use std::ffi::OsString;
use std::net::SocketAddr;

use ports::{free_port, listen};
use quorate::bootstrap::{self, BootError, DiscoveryError, Plan};
use quorate::config::{self, Config, Invocation};
use quorate::serve;
use quorate::tls::Tls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

#[path = "support/ports.rs"]
mod ports;

/// A member that serves until the test's runtime ends.
struct Running {
    client: SocketAddr,
    peer: SocketAddr,
    _stop: oneshot::Sender<()>,
    _directory: tempfile::TempDir,
}

impl Running {
    async fn start() -> Self {
        let [client, peer] = [(); 2].map(|()| listen(free_port()));
        let (client_address, peer_address) = (client.address, peer.address);
        let directory = tempfile::tempdir().expect("a directory");
        let line = format!(
            "--name first --data-dir {} --listen-client-urls {client} --advertise-client-urls \
             {client} --listen-peer-urls {peer} --initial-advertise-peer-urls {peer}",
            directory.path().join("member").display(),
            client = client.url,
            peer = peer.url,
        );
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, started) = oneshot::channel();
        tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            let served = serve::run(settings(&line), stopped, |_| {
                ready.send(()).expect("the test waits");
            })
            .await;
            served.expect("it serves until it is told to stop");
        });
        started.await.expect("the member starts");
        Self {
            client: client_address,
            peer: peer_address,
            _stop: stop,
            _directory: directory,
        }
    }

    /// Puts a v2 key.
    async fn put(&self, key: &str, value: &str) {
        let mut stream = TcpStream::connect(self.client).await.expect("it listens");
        let request = format!(
            "PUT /v2/keys{key}?value={value} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        );
        stream
            .write_all(request.as_bytes())
            .await
            .expect("it reads");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .await
            .expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    /// Settings of the member `name`, with a peer URL of its own, that joins by a token.
    fn member(&self, token: &str, name: &str, port: u16) -> Config {
        settings(&format!(
            "--name {name} --initial-advertise-peer-urls http://127.0.0.1:{port} \
             --discovery http://{}/v2/keys{token}",
            self.client
        ))
    }

    async fn join(&self, token: &str, name: &str, port: u16) -> Result<Plan, DiscoveryError> {
        match bootstrap::plan(&self.member(token, name, port), false, &Tls::of_nobody()).await {
            Ok(plan) => Ok(plan),
            Err(BootError::Discovery(error)) => Err(error),
            Err(error) => panic!("{error}"),
        }
    }
}

fn settings(line: &str) -> Config {
    let args = line.split_whitespace().map(OsString::from);
    match config::parse(args, [], |_| panic!("no file is named")) {
        Ok(Invocation::Serve(config, _)) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(test)
}

#[test]
fn three_members_find_one_another_and_a_fourth_one_is_too_late() {
    block_on(async {
        let store = Running::start().await;
        store.put("/d/token/_config/size", "3").await;
        let mut joining = JoinSet::new();
        for (port, name) in (1_u16..).zip(["a", "b", "c"]) {
            let settings = store.member("/d/token", name, port);
            joining
                .spawn(async move { bootstrap::plan(&settings, false, &Tls::of_nobody()).await });
        }
        let plans = joining.join_all().await;
        let plans: Vec<_> = plans
            .into_iter()
            .map(|plan| plan.expect("a plan"))
            .collect();
        let mut own: Vec<_> = plans.iter().map(|plan| plan.member_id).collect();
        own.sort_unstable();
        for plan in &plans {
            assert_eq!(plan.members, plans[0].members);
            assert_eq!(plan.cluster_id, plans[0].cluster_id);
            let ids: Vec<_> = plan.members.iter().map(|one| one.id).collect();
            assert_eq!(ids, own);
        }
        let mut members: Vec<_> = plans[0]
            .members
            .iter()
            .map(|one| format!("{}={}", one.name, one.peer_urls.join(",")))
            .collect();
        members.sort();
        assert_eq!(
            members,
            [
                "a=http://127.0.0.1:1",
                "b=http://127.0.0.1:2",
                "c=http://127.0.0.1:3"
            ]
        );
        let late = store.join("/d/token", "d", 4).await;
        assert_eq!(late, Err(DiscoveryError::Full(3)));
        let again = store.join("/d/token", "b", 2).await;
        assert_eq!(again, Err(DiscoveryError::DuplicateId));
        let cut_short =
            bootstrap::plan(&store.member("/d/token", "b", 2), true, &Tls::of_nobody()).await;
        assert_eq!(cut_short.expect("a plan"), plans[1]);
    });
}

#[test]
fn a_token_that_makes_no_cluster_is_refused() {
    block_on(async {
        let store = Running::start().await;
        let missing = store.join("/none", "a", 1).await;
        let url = format!("http://{}/v2/keys/none", store.client);
        assert_eq!(missing, Err(DiscoveryError::SizeNotFound(url)));
        for bad in ["three", "0", "-1"] {
            let token = format!("/{bad}");
            store.put(&format!("{token}/_config/size"), bad).await;
            let refused = store.join(&token, "a", 1).await;
            assert_eq!(refused, Err(DiscoveryError::BadSize(bad.to_owned())));
        }
        // Registered by hand: the same name at another URL, and no URL at all.
        for (token, value) in [
            ("/twice", "a%3Dhttp://127.0.0.1:9"),
            ("/none-such", "b%3D9"),
        ] {
            store.put(&format!("{token}/_config/size"), "2").await;
            store.put(&format!("{token}/77"), value).await;
        }
        let twice = store.join("/twice", "a", 1).await;
        assert_eq!(twice, Err(DiscoveryError::DuplicateName("a".to_owned())));
        let entry = store.join("/none-such", "a", 1).await;
        assert!(
            matches!(entry, Err(DiscoveryError::InvalidEntry(_))),
            "{entry:?}"
        );
        let elsewhere = settings(&format!("--discovery http://{}/version", store.peer));
        let elsewhere = bootstrap::plan(&elsewhere, false, &Tls::of_nobody())
            .await
            .expect_err("no such service");
        let text = elsewhere.to_string();
        let start = "failed to join discovery cluster (discovery: bad discovery endpoint: status ";
        assert!(text.starts_with(start), "{text}");
    });
}

#[test]
fn a_running_member_tells_what_cluster_it_is_in() {
    block_on(async {
        let first = Running::start().await;
        let line = format!(
            "--initial-advertise-peer-urls http://127.0.0.1:1 \
             --initial-cluster first=http://{},default=http://127.0.0.1:1",
            first.peer
        );
        let existing = settings(&format!("{line} --initial-cluster-state existing"));
        let error = bootstrap::plan(&existing, false, &Tls::of_nobody())
            .await
            .expect_err("nobody added it");
        let text = error.to_string();
        let parts = [
            "member count is unequal: --initial-cluster has 2, the cluster at",
            "does not know this member's peer URLs http://127.0.0.1:1: add it first",
        ];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        let error = bootstrap::plan(&settings(&line), false, &Tls::of_nobody()).await;
        let error = error.expect_err("a cluster runs there");
        assert!(matches!(error, BootError::OtherCluster { .. }), "{error}");
    });
}
