//! TLS as clients that are not ours see it: curl, openssl and etcdctl 3.4.23.
//!
//! Each scenario is a server of its own with certificates that were made for it. The suite also runs
//! on a real etcd 3.4.23 (`xtask suite tls --server /usr/bin/etcd`), where it leaves out what that
//! does not have; whatever it asks of both, both do.

mod clients;
mod files;
mod scenarios;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::member::{self, Config, Member};
use crate::outcome::Outcome;
use crate::{tools, workspace};

type Scenario = fn(&Bench<'_>) -> Result<()>;

const SCENARIOS: &[(&str, Scenario)] = &[
    ("everything is served over TLS", scenarios::served),
    (
        "clients must show certificates",
        scenarios::client_certificates,
    ),
    ("only allowed names come in", scenarios::allowed_names),
    (
        "a server makes its own certificate",
        scenarios::own_certificate,
    ),
    ("files change under an open watch", scenarios::files_change),
    ("a revoked certificate is refused", scenarios::revoked),
    ("versions and suites have bounds", scenarios::versions),
    ("members meet over TLS", scenarios::members),
    (
        "what is spoken to the wrong port is answered",
        scenarios::wrong_port,
    ),
    ("what cannot work is refused at start", scenarios::refused),
];

pub(crate) fn suite(server: &Path) -> Result<Outcome> {
    for (program, package) in [
        ("curl", "curl"),
        ("openssl", "openssl"),
        ("etcdctl", "etcd-client"),
    ] {
        if let Err(missing) = tools::ensure_debian(program, &[package]) {
            return Ok(Outcome::Skipped(missing));
        }
    }
    let version = tools::output(Command::new(server).arg("--version"))?;
    let is_ours = version.contains("Quorate");
    for (at, (name, scenario)) in SCENARIOS.iter().enumerate() {
        let dir = workspace::empty_dir(&format!("tls/{at}"))?;
        let bench = Bench {
            server,
            dir: &dir,
            is_ours,
        };
        scenario(&bench).with_context(|| (*name).to_owned())?;
        println!("{name}");
    }
    Ok(Outcome::Passed(format!("{} scenarios", SCENARIOS.len())))
}

/// Where a scenario works.
pub(crate) struct Bench<'a> {
    server: &'a Path,
    dir: &'a Path,
    is_ours: bool,
}

/// A server whose client and peer URLs are https, and whose metrics are read in clear.
pub(crate) struct Secured {
    /// Ends with it.
    member: Member,
    client: u16,
    peer: u16,
    metrics: u16,
}

const READY: Duration = Duration::from_secs(60);

impl Bench<'_> {
    /// Starts a server with these flags and waits until it says that it is well.
    fn start(&self, flags: &[String]) -> Result<Secured> {
        let secured = self.spawn(flags)?;
        secured.ready()
    }

    /// Starts members of one cluster, each with these flags, and waits until all are well.
    fn start_cluster(&self, flags: &[&[String]]) -> Result<Vec<Secured>> {
        let ports = free_ports(flags.len());
        let cluster = ports.iter().enumerate();
        let cluster = cluster
            .map(|(at, ports)| (at, ports.peer))
            .map(|(at, peer)| format!("m{at}=https://127.0.0.1:{peer}"));
        let cluster = cluster.collect::<Vec<_>>().join(",");
        let mut members = Vec::new();
        for (at, (flags, ports)) in flags.iter().zip(ports).enumerate() {
            let dir = self.dir.join(format!("m{at}"));
            std::fs::create_dir_all(&dir)?;
            let own = [
                format!("--name=m{at}"),
                format!("--initial-cluster={cluster}"),
            ];
            let bench = Bench { dir: &dir, ..*self };
            members.push(bench.spawn_on(ports, &[flags, &own[..]].concat())?);
        }
        members.into_iter().map(Secured::ready).collect()
    }

    /// Starts a server and does not wait for it.
    fn spawn(&self, flags: &[String]) -> Result<Secured> {
        self.spawn_on(free_ports(1)[0], flags)
    }

    fn spawn_on(&self, ports: Ports, flags: &[String]) -> Result<Secured> {
        let Ports {
            client,
            peer,
            metrics,
        } = ports;
        let (https, peers) = (
            format!("https://127.0.0.1:{client}"),
            format!("https://127.0.0.1:{peer}"),
        );
        let mut all = vec![
            format!("--listen-client-urls={https}"),
            format!("--advertise-client-urls={https}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=default={peers}"),
            format!("--listen-metrics-urls=http://127.0.0.1:{metrics}"),
        ];
        all.extend_from_slice(flags);
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        let config = Config {
            server: self.server,
            dir: self.dir,
            flags: &all,
        };
        Ok(Secured {
            member: Member::spawn(&config, (client, peer))?,
            client,
            peer,
            metrics,
        })
    }
}

/// Where a server listens.
#[derive(Clone, Copy)]
struct Ports {
    client: u16,
    peer: u16,
    metrics: u16,
}

/// Ports for so many servers; none twice, although nobody listens on them yet.
fn free_ports(servers: usize) -> Vec<Ports> {
    let mut pairs = BTreeSet::new();
    while pairs.len() < 2 * servers {
        pairs.insert(member::free_ports());
    }
    let pairs: Vec<_> = pairs.into_iter().collect();
    let each = pairs.chunks_exact(2).map(|two| Ports {
        client: two[0].0,
        peer: two[0].1,
        metrics: two[1].0,
    });
    each.collect()
}

impl Secured {
    /// Waits until it says that it is well.
    fn ready(mut self) -> Result<Self> {
        let started = Instant::now();
        while !member::get(self.metrics, "/health").is_ok_and(|body| body.contains("true")) {
            if let Some(status) = self.member.await_end(Duration::from_millis(1))? {
                bail!("it ended with {status}:\n{}", self.member.log_tail());
            }
            if started.elapsed() > READY {
                bail!("it was not ready:\n{}", self.member.log_tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(self)
    }

    /// etcdctl, which asks it.
    fn asker<'a>(
        &'a self,
        trusted: &'a Path,
        shown: Option<&'a files::Identity>,
    ) -> clients::Asker<'a> {
        clients::Asker {
            server: self,
            trusted,
            shown,
        }
    }

    /// A count of connections by what came of them.
    fn connections(&self, result: &str) -> Result<u64> {
        let metrics = member::get(self.metrics, "/metrics")?;
        let start = format!("quorate_tls_connections_total{{result=\"{result}\"}} ");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&start));
        Ok(count.context("no such count")?.parse()?)
    }
}
