//! Throws at one running server what no client should send, and looks whether it minds.
//!
//! Each case has a name and prints a line. After each of them the server must still run, answer,
//! and hold no more memory than [`MAX_MEMORY_BYTES`]; after all of them no connection may be left,
//! everything that was stored must be there, and writes must work, after a kill, too.
//! Answers are compared with etcd's where it has one, else with our sentence.
//!
//! Source: spec/v3-api.md §2.13, §2.14, §6; spec/v2-api.md §1.5, §1.7.

mod connections;
mod directory;
mod gateway;
mod grpc;
mod http1;
mod http2;
mod raw;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::member::{self, Config, Member};
use crate::outcome::Outcome;
use crate::workspace;

/// What the process may hold at any moment, mapped files not counted: the bound on what all
/// arriving requests hold, and as much again for all else.
const MAX_MEMORY_BYTES: u64 = 512 << 20;
/// Keys that are there before the first case.
const KEYS: usize = 200;
/// How long a connection that was given up may take to be gone.
const END_LIMIT: Duration = Duration::from_secs(30);

/// The server under attack.
pub(super) struct Target {
    /// The client port.
    pub(super) client: u16,
    pub(super) peer: u16,
    pid: u32,
}

/// A name, and what is tried; the answer is what it says for itself.
type Case = (&'static str, fn(&Target) -> Result<String>);

pub(crate) fn suite(server: &Path) -> Result<Outcome> {
    let dir = workspace::empty_dir("bad-input")?;
    let config = Config {
        server,
        dir: &dir,
        flags: &[],
    };
    let ports = member::free_ports();
    let mut member = Member::spawn(&config, ports)?;
    member.await_ready()?;
    let target = Target {
        client: ports.0,
        peer: ports.1,
        pid: member.pid(),
    };
    store(&target)?;
    let before = stored(&target)?;
    let (mut count, mut failed) = (0, Vec::new());
    // They are slow by nature: the others are tried meanwhile.
    let slow = connections::SlowOnes::open(&target)?;
    for (name, case) in [
        grpc::CASES,
        gateway::CASES,
        http1::CASES,
        http2::CASES,
        connections::CASES,
    ]
    .concat()
    {
        let note = case(&target).and_then(|note| Ok((note, healthy(&target)?)));
        match note {
            Ok((note, memory)) => println!("{name}: {note} ({} MiB)", memory >> 20),
            Err(error) => {
                println!("FAILED {name}: {error:#}");
                failed.push(name);
                // Without a server there is nothing to try.
                healthy(&target).with_context(|| format!("{name}: {}", member.log_tail()))?;
            }
        }
        count += 1;
    }
    for line in slow.end()? {
        println!("{line}");
        count += 1;
    }
    no_connection_is_left(&target)?;
    ensure!(stored(&target)? == before, "what was stored has changed");
    write(&target)?;
    member.kill()?;
    let mut member = Member::spawn(&config, ports)?;
    member.await_ready()?;
    ensure!(
        stored(&target)? == before,
        "what was stored is gone after a restart"
    );
    drop(member);
    ensure!(
        failed.is_empty(),
        "{} of {count} cases: {failed:?}",
        failed.len()
    );
    count += directory::all(server, &dir)?;
    Ok(Outcome::Passed(format!(
        "{count} cases; the server lives, nothing is lost, no connection is left"
    )))
}

/// Keys of both dialects that must outlive everything.
fn store(target: &Target) -> Result<()> {
    for number in 0..KEYS {
        let form = format!("value={number}-{}", "x".repeat(number * 10));
        let answer = raw::form(
            target.client,
            "PUT",
            &format!("/v2/keys/kept/{number}"),
            &form,
        )?;
        ensure!(answer.status == 201, "{answer:?}");
    }
    Ok(())
}

fn stored(target: &Target) -> Result<String> {
    let answer = raw::get(target.client, "/v2/keys/kept?recursive=true")?;
    ensure!(answer.status == 200, "{answer:?}");
    ensure!(answer.body.matches("\"value\"").count() == KEYS);
    Ok(answer.body)
}

fn write(target: &Target) -> Result<()> {
    let answer = raw::form(target.client, "PUT", "/v2/keys/after", "value=1")?;
    ensure!(matches!(answer.status, 200 | 201), "{answer:?}");
    let put = grpc::message(&[(1, b"after/v3"), (2, b"1")]);
    let (code, text) = grpc::call(target.client, "/etcdserverpb.KV/Put", &grpc::framed(&put))?;
    ensure!(code == 0, "{code} {text}");
    Ok(())
}

/// The memory in use of a server that is well.
fn healthy(target: &Target) -> Result<u64> {
    write(target)?;
    let memory = memory_bytes(target.pid)?;
    ensure!(memory < MAX_MEMORY_BYTES, "the server holds {memory} bytes");
    Ok(memory)
}

/// Memory of a process that is no file's.
pub(super) fn memory_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.context("no RssAnon")?.parse::<u64>()? << 10)
}

/// A number of `/metrics`.
pub(super) fn metric(target: &Target, name: &str) -> Result<u64> {
    let text = raw::get(target.client, "/metrics")?.body;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value
        .with_context(|| format!("no {name}"))?
        .parse::<f64>()? as u64)
}

fn no_connection_is_left(target: &Target) -> Result<()> {
    let started = Instant::now();
    loop {
        // One is the one that asks.
        let open = metric(target, "quorate_client_connections")?;
        let held = metric(target, "quorate_arriving_bytes")?;
        if open == 1 && held == 0 {
            return Ok(());
        }
        if started.elapsed() > END_LIMIT {
            bail!("{open} connections and {held} bytes of requests are left");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
