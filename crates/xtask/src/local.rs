//! A cluster of three in one terminal, to look at and to break.
//!
//! Each second a line says who leads and how far each member is. Lines typed meanwhile stop members and
//! start them again. All end with this process; what they hold stays for the next time.

use std::fs::File;
use std::io::{BufRead as _, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::workspace;

/// Client ports; the peer port of each is the next one.
const PORTS: [u16; 3] = [2379, 22379, 32379];
const HELP: &str = "type `stop 2`, `kill 2` or `start 2` for member m2, `quit` to end";

/// Runs a cluster of three members in this terminal, a line a second on how each is.
#[derive(clap::Args)]
pub(crate) struct Local {
    /// The server.
    #[arg(long, default_value_os_t = workspace::release_server())]
    server: PathBuf,
    /// Where the members keep their data.
    #[arg(long, default_value = "target/local-cluster")]
    dir: PathBuf,
}

impl Local {
    pub(crate) fn run(self) -> Result<ExitCode> {
        std::fs::create_dir_all(&self.dir)?;
        let mut members = Vec::new();
        for number in 1..=PORTS.len() {
            members.push(Some(self.start(number)?));
        }
        let endpoints = PORTS.map(|port| format!("127.0.0.1:{port}")).join(",");
        println!(
            "clients: {endpoints}; data and logs: {}",
            self.dir.display()
        );
        println!("{HELP}");
        let (send, typed) = mpsc::channel();
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let mut next = Instant::now();
        loop {
            match typed.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(line) if line.trim() == "quit" => break,
                Ok(line) => {
                    if let Err(error) = self.obey(&line, &mut members) {
                        println!("{error:#}");
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    println!("{}", look(&mut members));
                    next = Instant::now() + Duration::from_secs(1);
                }
                // Nobody can type: until a signal ends it.
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                    println!("{}", look(&mut members));
                    next = Instant::now() + Duration::from_secs(1);
                }
            }
        }
        for child in members.iter_mut().flatten() {
            end(child, Signal::TERM)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn start(&self, number: usize) -> Result<Child> {
        let log = self.dir.join(format!("m{number}.log"));
        let log = File::options().create(true).append(true).open(log)?;
        let (client, peer) = (client_url(number), peer_url(number));
        let cluster = (1..=PORTS.len()).map(|number| format!("m{number}={}", peer_url(number)));
        Command::new(&self.server)
            .arg(format!("--name=m{number}"))
            .arg("--data-dir")
            .arg(self.dir.join(format!("m{number}")))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!(
                "--initial-cluster={}",
                Vec::from_iter(cluster).join(",")
            ))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.server.display()))
    }

    fn obey(&self, line: &str, members: &mut [Option<Child>]) -> Result<()> {
        let mut words = line.split_whitespace();
        let (order, number) = (words.next(), words.next().and_then(|n| n.parse().ok()));
        let (Some(order), Some(number @ 1..=3)) = (order, number) else {
            println!("{HELP}");
            return Ok(());
        };
        let member = &mut members[number - 1];
        match (order, member.as_mut()) {
            ("start", None) => *member = Some(self.start(number)?),
            ("stop", Some(child)) => {
                end(child, Signal::TERM)?;
                *member = None;
            }
            ("kill", Some(child)) => {
                end(child, Signal::KILL)?;
                *member = None;
            }
            ("start", Some(_)) => println!("m{number} runs"),
            ("stop" | "kill", None) => println!("m{number} does not run"),
            _ => println!("{HELP}"),
        }
        Ok(())
    }
}

fn client_url(number: usize) -> String {
    format!("http://127.0.0.1:{}", PORTS[number - 1])
}

fn peer_url(number: usize) -> String {
    format!("http://127.0.0.1:{}", PORTS[number - 1] + 1)
}

fn end(child: &mut Child, signal: Signal) -> Result<()> {
    kill_process(Pid::from_child(child), signal)?;
    child.wait()?;
    Ok(())
}

/// A line on all members.
fn look(members: &mut [Option<Child>]) -> String {
    let mut said = Vec::new();
    for (at, member) in members.iter_mut().enumerate() {
        let number = at + 1;
        if let Some(child) = member
            && let Ok(Some(status)) = child.try_wait()
        {
            println!("m{number} has ended by itself with {status}; its log says why");
            *member = None;
        }
        said.push(match member {
            None => format!("m{number} stopped"),
            Some(_) => match status(PORTS[at]) {
                Ok(status) => tell(number, &status),
                Err(_) => format!("m{number} does not answer"),
            },
        });
    }
    said.join("  |  ")
}

fn tell(number: usize, status: &Value) -> String {
    let field = |name: &str| status[name].as_str().unwrap_or("0").to_owned();
    let (leader, own) = (field("leader"), status["header"]["member_id"].as_str());
    let role = match &leader[..] {
        "0" => "knows no leader",
        leader if Some(leader) == own => "LEADS",
        _ => "follows",
    };
    let revision = status["header"]["revision"].as_str().unwrap_or("0");
    let (term, applied, committed) = (
        field("raftTerm"),
        field("raftAppliedIndex"),
        field("raftIndex"),
    );
    format!("m{number} {role} term {term} applied {applied} of {committed} revision {revision}")
}

/// Status over the JSON gateway.
fn status(port: u16) -> Result<Value> {
    let address = ([127, 0, 0, 1], port).into();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(200))?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    let head = "POST /v3/maintenance/status HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 2";
    write!(stream, "{head}\r\n\r\n{{}}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no end of headers")?;
    Ok(serde_json::from_str(body)?)
}
