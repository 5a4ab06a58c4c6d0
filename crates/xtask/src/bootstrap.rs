//! Members without data find their cluster through servers that are not theirs: discovery with
//! Debian's etcd, with Quorate and with Debian's discovery service in front of it, each time beside a
//! member that is an etcd; and SRV records, by a DNS of a few lines.
//!
//! The system's resolver is told of that DNS in a mount namespace, so this needs root.

use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::member::{self, Config, Member, free_ports, tail};
use crate::outcome::Outcome;
use crate::{tools, workspace};

/// How long a member may take to say what cluster it begins.
const LIMIT: Duration = Duration::from_secs(30);
/// Where the DNS listens: at the port that resolvers take, where nobody else does.
const DNS: &str = "127.53.53.53:53";

pub(crate) fn suite(server: &Path) -> Result<Outcome> {
    if !tools::has_own_mounts() {
        return tools::with_own_mounts("bootstrap", server);
    }
    let etcd = match tools::ensure_debian("etcd", &["etcd-server"]) {
        Ok(etcd) => etcd,
        Err(missing) => return Ok(Outcome::Skipped(missing)),
    };
    let service = match tools::ensure_debian("discovery.etcd.io", &["etcd-discovery"]) {
        Ok(service) => service,
        Err(missing) => return Ok(Outcome::Skipped(missing)),
    };
    let dir = workspace::empty_dir("bootstrap")?;
    for (name, store) in [("by-etcd", etcd.as_path()), ("by-quorate", server)] {
        let place = dir.join(name);
        let store = start_store(store, &place)?;
        let token = new_token(&store, name)?;
        discovered(&token, server, &etcd, &place).context(name)?;
    }
    by_service(server, &etcd, &service, &dir.join("by-service"))?;
    by_srv(server, &dir.join("by-srv"))?;
    Ok(Outcome::Passed(
        "4 clusters by discovery, 2 of them with etcd's member; 1 by SRV records".into(),
    ))
}

/// A cluster that found itself keeps the tokens of a discovery service, by which another one finds
/// itself.
fn by_service(server: &Path, etcd: &Path, service: &Path, dir: &Path) -> Result<()> {
    let etcd = start_store(etcd, &dir.join("etcd"))?;
    let first = cluster(&new_token(&etcd, "first")?, server, &dir.join("first"))?;
    let (port, _) = free_ports();
    let flags = [
        format!("--addr=127.0.0.1:{port}"),
        format!("--etcd=http://127.0.0.1:{}", first[0].client_port),
        format!("--host=http://127.0.0.1:{port}"),
    ];
    let _service = Process::start(dir, "service", service, &flags)?;
    let is_token = |text: &String| text.starts_with("http://");
    let token = until("token", || {
        member::get(port, "/new?size=3").ok().filter(is_token)
    })?;
    let second = cluster(&token, server, &dir.join("second"))?;
    let list = |cluster: &[Process]| member::get(cluster[0].client_port, "/v2/members");
    let (one, other) = (list(&first)?, list(&second)?);
    for name in ["one", "two", "three"].map(|name| format!("\"name\":\"{name}\"")) {
        ensure!(one.contains(&name) && other.contains(&name), "{one}{other}");
    }
    Ok(())
}

/// Three members of ours that serve.
fn cluster(token: &str, server: &Path, dir: &Path) -> Result<Vec<Process>> {
    fs::create_dir_all(dir)?;
    let mut members = Vec::new();
    for name in ["one", "two", "three"] {
        members.push(Process::start(
            dir,
            name,
            server,
            &discovering(token, name, dir),
        )?);
    }
    for member in &members {
        until("health", || {
            let health = member::get(member.client_port, "/health").ok()?;
            health.contains("true").then_some(())
        })
        .with_context(|| member.log())?;
    }
    Ok(members)
}

fn new_token(store: &Member, name: &str) -> Result<String> {
    let token = format!("http://127.0.0.1:{}/v2/keys/{name}", store.client_port);
    let size = format!("{token}/_config/size");
    let args = ["-sfo", "/dev/null", "-X", "PUT", "-d", "value=3", &size];
    tools::run(Command::new("curl").args(args))?;
    Ok(token)
}

fn start_store(server: &Path, dir: &Path) -> Result<Member> {
    fs::create_dir_all(dir)?;
    let flags = &[];
    Member::start(&Config { server, dir, flags })
}

/// Two members of ours and one of etcd's begin the same cluster by a token; a fourth is too late.
fn discovered(token: &str, server: &Path, etcd: &Path, dir: &Path) -> Result<()> {
    let flags = |name: &str| discovering(token, name, dir);
    let ours = ["one", "two"].map(|name| Process::start(dir, name, server, &flags(name)));
    let theirs = Process::start(dir, "three", etcd, &flags("three"))?;
    let mut clusters = Vec::new();
    for member in ours {
        let member = member?;
        clusters.push(
            until("a cluster begun", || {
                member.logged_after("\"msg\":\"beginning a cluster\",\"cluster_id\":\"")
            })
            .with_context(|| member.log())?,
        );
    }
    let etcds = until("etcd's cluster", || theirs.logged_after(" in cluster "));
    clusters.push(etcds.with_context(|| theirs.log())?);
    let first = &clusters[0];
    ensure!(clusters.iter().all(|one| one == first), "{clusters:?}");
    let mut late = Process::start(dir, "four", server, &flags("four"))?;
    let status = until("the end of the fourth", || {
        late.child.try_wait().ok().flatten()
    })?;
    let full = "failed to join discovery cluster (discovery: cluster is full";
    ensure!(
        !status.success() && late.log().contains(full),
        "{}",
        late.log()
    );
    Ok(())
}

/// A member whose one record is its own serves; its name in the records needs the DNS and the hosts.
fn by_srv(server: &Path, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    let (client, peer) = free_ports();
    let socket = UdpSocket::bind(DNS).context(DNS)?;
    let ip = socket.local_addr()?.ip();
    std::thread::spawn(move || {
        serve_dns(
            &socket,
            "_etcd-server-q._tcp.srv.test",
            "one.srv.test",
            peer,
        )
    });
    for (path, text) in [
        ("/etc/resolv.conf", format!("nameserver {ip}\n")),
        (
            "/etc/hosts",
            "127.0.0.1 localhost one.srv.test\n".to_owned(),
        ),
    ] {
        let ours = dir.join(path.trim_start_matches("/etc/"));
        fs::write(&ours, text)?;
        tools::run(
            Command::new("mount")
                .arg("--bind")
                .args([&ours, Path::new(path)]),
        )?;
    }
    let mut flags = addresses("one", dir, client, peer);
    flags.extend(["--discovery-srv=srv.test", "--discovery-srv-name=q"].map(str::to_owned));
    let member = Process::start(dir, "one", server, &flags)?;
    let member_of = format!("\"peerURLs\":[\"http://one.srv.test:{peer}\"],\"name\":\"one\"");
    until("member", || {
        let members = member::get(peer, "/members").ok()?;
        members.contains(&member_of).then_some(())
    })
    .with_context(|| member.log())?;
    Ok(())
}

/// Answers each question with one SRV record, or with "no such name".
fn serve_dns(socket: &UdpSocket, name: &str, target: &str, port: u16) {
    let labels = |name: &str| -> Vec<u8> {
        let label = |label: &str| [&[label.len() as u8], label.as_bytes()].concat();
        let mut bytes: Vec<u8> = name.split('.').flat_map(label).collect();
        bytes.push(0);
        bytes
    };
    let mut query = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut query) {
        let Some(end) = query[12..length].iter().position(|byte| *byte == 0) else {
            continue;
        };
        let question = &query[12..12 + end + 5];
        let is_known = question.starts_with(&labels(name));
        let mut answer = query[..2].to_vec();
        answer.extend([0x81, if is_known { 0x80 } else { 0x83 }, 0, 1, 0]);
        answer.extend([u8::from(is_known), 0, 0, 0, 0]);
        answer.extend(question);
        if is_known {
            let target = labels(target);
            answer.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 9, 0, target.len() as u8 + 6]);
            answer.extend([0; 4]);
            answer.extend(port.to_be_bytes());
            answer.extend(target);
        }
        // A resolver that has gone asks no more.
        let _ = socket.send_to(&answer, from);
    }
}

fn discovering(token: &str, name: &str, dir: &Path) -> Vec<String> {
    let (client, peer) = free_ports();
    let mut flags = addresses(name, dir, client, peer);
    flags.push(format!("--discovery={token}"));
    flags
}

fn addresses(name: &str, dir: &Path, client: u16, peer: u16) -> Vec<String> {
    vec![
        format!("--name={name}"),
        format!("--data-dir={}", dir.join(name).display()),
        format!("--listen-client-urls=http://127.0.0.1:{client}"),
        format!("--advertise-client-urls=http://127.0.0.1:{client}"),
        format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
    ]
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        if let Some(found) = look() {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("no {what} within {LIMIT:?}")
}

/// A process whose log is read; it ends with its owner.
struct Process {
    child: Child,
    /// The port that its first `--listen-client-urls` has; 0 without one.
    client_port: u16,
    log: PathBuf,
}

impl Process {
    fn start(dir: &Path, name: &str, program: &Path, args: &[String]) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let out = File::create(&log)?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let listens = args
            .iter()
            .find_map(|arg| arg.strip_prefix("--listen-client-urls=http://127.0.0.1:"));
        let client_port = listens.map_or(Ok(0), str::parse)?;
        Ok(Self {
            child,
            client_port,
            log,
        })
    }

    fn log(&self) -> String {
        tail(&fs::read_to_string(&self.log).unwrap_or_default(), 15)
    }

    /// The hexadecimal number after `text` in the log.
    fn logged_after(&self, text: &str) -> Option<String> {
        let log = fs::read_to_string(&self.log).ok()?;
        let (_, rest) = log.split_once(text)?;
        let end = rest.find(|c: char| !c.is_ascii_hexdigit())?;
        Some(rest[..end].to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if the process has already been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
