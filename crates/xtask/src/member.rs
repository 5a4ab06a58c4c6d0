//! One server process of a suite: started on free ports, waited for, ended with its owner.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a server may take until it is ready. Generous: a busy machine is no failure.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running server. Dropping it kills the process; the directory stays.
pub(crate) struct Member {
    child: Child,
    /// The port of `client_url`.
    pub(crate) client_port: u16,
    log: PathBuf,
}

/// How to start a [`Member`].
#[derive(Clone, Copy)]
pub(crate) struct Config<'a> {
    /// The program: any that takes etcd's flags.
    pub(crate) server: &'a Path,
    /// The directory that holds the data directory and the server's log.
    pub(crate) dir: &'a Path,
    /// Flags beyond the addresses and directories.
    pub(crate) flags: &'a [&'a str],
}

impl Member {
    /// Starts a server on free ports and waits until it is healthy.
    pub(crate) fn start(config: &Config<'_>) -> Result<Self> {
        let mut member = Self::spawn(config, free_ports())?;
        member.await_ready()?;
        Ok(member)
    }

    /// Starts a server on the given client and peer ports and does not wait for it.
    pub(crate) fn spawn(config: &Config<'_>, (client, peer): (u16, u16)) -> Result<Self> {
        let initial_cluster = format!("default={}", url(peer));
        Self::spawn_as("default", &initial_cluster, config, (client, peer))
    }

    /// Starts the members of a cluster, each in a directory of its own below `config.dir`, and waits
    /// until all are healthy.
    pub(crate) fn start_cluster(config: &Config<'_>, count: usize) -> Result<Vec<Self>> {
        let names: Vec<_> = (1..=count).map(|number| format!("m{number}")).collect();
        let ports = names.iter().map(|name| (name.as_str(), free_ports()));
        Self::start_named(config, &Vec::from_iter(ports))
    }

    /// The same, with these names and ports.
    pub(crate) fn start_named(
        config: &Config<'_>,
        names: &[(&str, (u16, u16))],
    ) -> Result<Vec<Self>> {
        let pairs = names.iter();
        let pairs: Vec<_> = pairs
            .map(|(name, (_, peer))| format!("{name}={}", url(*peer)))
            .collect();
        let mut members = Vec::new();
        for (name, ports) in names {
            let dir = config.dir.join(name);
            std::fs::create_dir_all(&dir)?;
            let config = Config {
                dir: &dir,
                ..*config
            };
            members.push(Self::spawn_as(name, &pairs.join(","), &config, *ports)?);
        }
        for member in &mut members {
            member.await_ready()?;
        }
        Ok(members)
    }

    fn spawn_as(
        name: &str,
        initial_cluster: &str,
        config: &Config<'_>,
        (client, peer): (u16, u16),
    ) -> Result<Self> {
        let log = config.dir.join("server.log");
        let out = File::options().create(true).append(true).open(&log)?;
        let (client_url, peer_url) = (url(client), url(peer));
        let child = Command::new(config.server)
            .args([
                "--name",
                name,
                "--enable-v2",
                "--logger=zap",
                "--log-outputs=stderr",
            ])
            .arg("--data-dir")
            .arg(data_dir(config.dir))
            .args([
                "--listen-client-urls",
                &client_url,
                "--advertise-client-urls",
                &client_url,
            ])
            .args([
                "--listen-peer-urls",
                &peer_url,
                "--initial-advertise-peer-urls",
                &peer_url,
            ])
            .args(["--initial-cluster", initial_cluster])
            .args(config.flags)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {}", config.server.display()))?;
        Ok(Self {
            child,
            client_port: client,
            log,
        })
    }

    /// Waits until the server says that it is healthy.
    ///
    /// # Errors
    /// If the process ended, or the limit passed; with the end of its log.
    pub(crate) fn await_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < START_LIMIT {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}:\n{}", self.log_tail());
            }
            // The cluster version is the last thing that a starting etcd writes.
            let healthy = get(self.client_port, "/health").is_ok_and(|body| body.contains("true"));
            if healthy
                && get(self.client_port, "/version").is_ok_and(|b| !b.contains("not_decided"))
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!(
            "the server was not ready after {START_LIMIT:?}:\n{}",
            self.log_tail()
        );
    }

    /// Waits for the process to end by itself. `None` if it still ran after `limit`.
    pub(crate) fn await_end(
        &mut self,
        limit: Duration,
    ) -> Result<Option<std::process::ExitStatus>> {
        let started = Instant::now();
        while started.elapsed() < limit {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(None)
    }

    /// Ends the process at once, as a crash would, and waits until it is gone.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last lines that the server logged.
    pub(crate) fn log_tail(&self) -> String {
        tail(&std::fs::read_to_string(&self.log).unwrap_or_default(), 15)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Fails only if the process has already been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The data directory of a member that was started with `dir`.
pub(crate) fn data_dir(dir: &Path) -> PathBuf {
    dir.join("data")
}

/// The last `count` lines of a text.
pub(crate) fn tail(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// Two neighbouring ports that nobody listens on, below the range of outgoing connections.
pub(crate) fn free_ports() -> (u16, u16) {
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let port = fastrand::u16(10_000..16_000) * 2;
        if is_free(port) && is_free(port + 1) {
            return (port, port + 1);
        }
    }
}

/// The body of a small answer over plain HTTP.
pub(crate) fn get(port: u16, path: &str) -> Result<String> {
    let answer = raw_get(port, path)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no end of headers")?;
    Ok(body.to_owned())
}

/// A whole small answer, head and body, over plain HTTP.
pub(crate) fn raw_get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Memory of a process that no file is behind, in KiB.
pub(crate) fn anonymous_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.context("no RssAnon")?.trim().trim_end_matches(" kB");
    Ok(kib.parse()?)
}
