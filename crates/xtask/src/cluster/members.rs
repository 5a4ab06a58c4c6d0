//! The members of a cluster: real processes on this machine, each with its own directory and ports.
//!
//! Owns starting, signals and restarts, all by process id, and the proxies between the peer ports.
//! Dropping it ends every process.

use std::collections::HashSet;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::history::Member;
use super::network::{Kind, Network, Ports};
use crate::member;

/// How long a cluster may take to start. Generous: a busy machine is no failure.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a member may take to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(20);

/// What is run as a member.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Program {
    /// The server under test.
    Quorate,
    /// Debian's etcd 3.4, to try the suite itself on.
    Etcd,
}

/// How to run members.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) program: Program,
    pub(crate) server: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) members: usize,
    pub(crate) network: Kind,
    pub(crate) election: Duration,
}

/// What clients know of a member.
pub(super) struct Face {
    pub(super) client_port: u16,
    /// Raised at each start of the process.
    pub(super) run: AtomicU32,
}

/// A running cluster.
pub(super) struct Cluster {
    pub(super) setup: Setup,
    /// Of each member, for clients, which outlive its processes.
    pub(super) faces: Arc<Vec<Face>>,
    pub(super) network: Network,
    ports: Vec<Ports>,
    processes: Vec<Option<Child>>,
}

impl Cluster {
    /// Starts all members in empty directories and waits until each is ready.
    pub(super) async fn start(setup: Setup) -> Result<Self> {
        let ports: Vec<_> = free_ports(setup.members * 3)
            .chunks(3)
            .map(|ports| Ports {
                client: ports[0],
                dialled: ports[1],
                behind: ports[2],
            })
            .collect();
        let faces = ports.iter().map(|ports| Face {
            client_port: ports.client,
            run: AtomicU32::new(0),
        });
        let mut cluster = Self {
            faces: Arc::new(faces.collect()),
            network: Network::start(setup.network, &ports).await?,
            ports,
            processes: (0..setup.members).map(|_| None).collect(),
            setup,
        };
        for member in 0..cluster.len() {
            cluster.start_member(member)?;
        }
        cluster.await_ready().await?;
        Ok(cluster)
    }

    pub(super) fn len(&self) -> usize {
        self.faces.len()
    }

    /// Starts a member that does not run, on the directory it left.
    pub(super) fn start_member(&mut self, member: Member) -> Result<()> {
        ensure!(self.processes[member].is_none(), "member {member} runs");
        let log = self.log(member);
        let out = File::options().create(true).append(true).open(&log)?;
        let mut words = self.network.place(member, self.ports[member]).before;
        words.push(self.setup.server.display().to_string());
        words.extend(self.flags(member));
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {}", self.setup.server.display()))?;
        self.network.is_run_by(member, Some(child.id()));
        self.faces[member].run.fetch_add(1, Ordering::SeqCst);
        self.processes[member] = Some(child);
        Ok(())
    }

    fn flags(&self, member: Member) -> Vec<String> {
        let places = self.ports.iter().enumerate();
        let mut places: Vec<_> = places
            .map(|(at, ports)| self.network.place(at, *ports))
            .collect();
        let peers = places.iter().enumerate();
        let peers: Vec<_> = peers
            .map(|(at, place)| format!("m{at}={}", place.peer_url))
            .collect();
        let place = places.swap_remove(member);
        let client = place.client_url;
        let election = self.setup.election.as_millis();
        let mut flags = vec![
            format!("--name=m{member}"),
            format!("--data-dir={}", self.data_dir(member).display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={}", place.listen_peer_url),
            format!("--initial-advertise-peer-urls={}", place.peer_url),
            format!("--initial-cluster={}", peers.join(",")),
            format!("--election-timeout={election}"),
            format!("--heartbeat-interval={}", election / 10),
        ];
        let others = ["--enable-v2", "--logger=zap", "--log-outputs=stderr"];
        flags.extend(others.map(String::from));
        // Ours is on without being asked; etcd's learned it later.
        if self.setup.program == Program::Etcd {
            flags.push("--pre-vote=true".into());
        }
        flags
    }

    /// The data directory of a member.
    pub(super) fn data_dir(&self, member: Member) -> PathBuf {
        self.setup.dir.join(format!("m{member}"))
    }

    /// The log of a member, of all its processes.
    pub(super) fn log(&self, member: Member) -> PathBuf {
        self.setup.dir.join(format!("m{member}.log"))
    }

    /// Whether a member has a process, be it stopped.
    pub(super) fn runs(&self, member: Member) -> bool {
        self.processes[member].is_some()
    }

    fn pid(&self, member: Member) -> Result<Pid> {
        let child = self.processes[member].as_ref();
        Ok(Pid::from_child(child.with_context(|| {
            format!("member {member} does not run")
        })?))
    }

    /// Ends a member at once, as a crash would.
    pub(super) fn kill(&mut self, member: Member) -> Result<()> {
        if let Some(mut child) = self.processes[member].take() {
            child.kill()?;
            child.wait()?;
        }
        self.network.is_run_by(member, None);
        Ok(())
    }

    /// Asks a member to end and does not wait for it.
    pub(super) fn terminate(&self, member: Member) -> Result<()> {
        Ok(kill_process(self.pid(member)?, Signal::TERM)?)
    }

    /// Waits for the end of a member that was asked to end.
    pub(super) async fn await_end(&mut self, member: Member) -> Result<()> {
        let started = Instant::now();
        while !self.has_ended(member)? {
            ensure!(
                started.elapsed() < END_LIMIT,
                "member {member} did not end after SIGTERM"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Whether a member has no process any more.
    pub(super) fn has_ended(&mut self, member: Member) -> Result<bool> {
        if let Some(child) = &mut self.processes[member]
            && child.try_wait()?.is_some()
        {
            self.processes[member] = None;
            self.network.is_run_by(member, None);
        }
        Ok(self.processes[member].is_none())
    }

    /// Stops a member's process, which keeps its sockets.
    pub(super) fn pause(&self, member: Member) -> Result<()> {
        Ok(kill_process(self.pid(member)?, Signal::STOP)?)
    }

    /// Lets a stopped process go on.
    pub(super) fn wake(&self, member: Member) -> Result<()> {
        Ok(kill_process(self.pid(member)?, Signal::CONT)?)
    }

    /// Undoes every fault: opens all gates, wakes and starts all members.
    pub(super) fn heal(&mut self) -> Result<()> {
        self.network.heal(self.len());
        for member in 0..self.len() {
            if self.runs(member) {
                self.wake(member)?;
            } else {
                self.start_member(member)?;
            }
        }
        Ok(())
    }

    /// Waits until every member says that it is healthy.
    ///
    /// # Errors
    /// If a process ended, or the limit passed; with the end of its log.
    pub(super) async fn await_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        for member in 0..self.len() {
            while !is_ready(self.faces[member].client_port).await {
                let child = self.processes[member].as_mut();
                if let Some(status) = child.context("it does not run")?.try_wait()? {
                    bail!(
                        "member {member} ended with {status}:\n{}",
                        self.tail(member)
                    );
                }
                ensure!(
                    started.elapsed() < START_LIMIT,
                    "member {member} was not ready after {START_LIMIT:?}:\n{}",
                    self.tail(member)
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Fails if a member's process ended by itself.
    pub(super) fn is_whole(&mut self) -> Result<()> {
        for member in 0..self.len() {
            if let Some(child) = &mut self.processes[member]
                && let Some(status) = child.try_wait()?
            {
                bail!(
                    "member {member} ended with {status}:\n{}",
                    self.tail(member)
                );
            }
        }
        Ok(())
    }

    fn tail(&self, member: Member) -> String {
        tail(&self.log(member))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.processes.iter_mut().flatten() {
            // Fails only if the process has already been waited for.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The end of a member's log.
fn tail(log: &Path) -> String {
    member::tail(&std::fs::read_to_string(log).unwrap_or_default(), 15)
}

async fn is_ready(port: u16) -> bool {
    let asked = tokio::task::spawn_blocking(move || {
        let healthy = member::get(port, "/health").is_ok_and(|body| body.contains("true"));
        healthy && member::get(port, "/version").is_ok_and(|body| !body.contains("not_decided"))
    });
    asked.await.unwrap_or(false)
}

/// Ports that nobody listens on, below the range of outgoing connections.
fn free_ports(count: usize) -> Vec<u16> {
    static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut taken = TAKEN.lock().expect("nothing panics with it");
    let taken = taken.get_or_insert_default();
    let mut ports = Vec::new();
    while ports.len() < count {
        let port = fastrand::u16(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && taken.insert(port) {
            ports.push(port);
        }
    }
    ports
}
