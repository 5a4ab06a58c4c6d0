//! Snapshots between Quorate and Debian's etcd 3.4.23, both ways, with etcd's own tools as judges.
//!
//! A server that was made from another's snapshot must show the same keys, history, leases and
//! HashKV as that other. The way goes Quorate, etcd, Quorate, each time with new writes.

mod client;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::member::{Config, Member, data_dir};
use crate::outcome::Outcome;
use crate::{tools, workspace};
use client::{Client, Seen};

/// The version that judges.
const VERSION: &str = "etcdctl version: 3.4.23";
/// How long a server may take to end.
const END_LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn suite(server: &Path) -> Result<Outcome> {
    let etcd = match tools::ensure_debian("etcd", &["etcd-server"]) {
        Ok(etcd) => etcd,
        Err(missing) => return Ok(Outcome::Skipped(missing)),
    };
    if let Err(missing) = tools::ensure_debian("etcdctl", &["etcd-client"]) {
        return Ok(Outcome::Skipped(missing));
    }
    let version = tools::output(etcdctl().arg("version"))?;
    if !version.contains(VERSION) {
        return Ok(Outcome::Skipped(format!(
            "needs {VERSION}, found {version:?}"
        )));
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let dir = workspace::empty_dir("snapshot")?;
    let trip = Trip {
        quorate: server,
        etcd: &etcd,
        dir: &dir,
        runtime: &runtime,
    };
    let there = trip.to_etcd()?;
    trip.back_and_away(&there)?;
    trip.under_load()?;
    trip.damaged(&there)?;
    Ok(Outcome::Passed(
        "5 servers made from another's file, alike".into(),
    ))
}

struct Trip<'a> {
    quorate: &'a Path,
    etcd: &'a Path,
    dir: &'a Path,
    runtime: &'a tokio::runtime::Runtime,
}

impl Trip<'_> {
    /// Quorate's snapshot becomes an etcd; returns that etcd's own snapshot, after more writes.
    fn to_etcd(&self) -> Result<PathBuf> {
        let quorate = self.start(self.quorate, "quorate")?;
        let file = self.dir.join("quorate.db");
        let wanted = self.work(&quorate, 1, 1_500)?;
        save(&quorate, &file)?;
        self.statuses_agree(&file)?;
        drop(quorate);

        restore_with_etcdctl(&file, &self.data("etcd"))?;
        let etcd = self.start(self.etcd, "etcd")?;
        self.shows(&etcd, &wanted, "an etcd restored from Quorate's snapshot")?;

        let wanted = self.work(&etcd, 2, 1_000)?;
        let file = self.dir.join("etcd.db");
        save(&etcd, &file)?;
        self.statuses_agree(&file)?;
        stop(etcd)?;
        self.util(
            &["import", path(&self.data("etcd").join("member/snap/db"))?],
            "bare",
        )?;
        let bare = self.start(self.quorate, "bare")?;
        self.shows(&bare, &wanted, "Quorate on an etcd's member/snap/db")?;
        Ok(file)
    }

    /// etcd's snapshot becomes a Quorate, whose export becomes an etcd.
    fn back_and_away(&self, file: &Path) -> Result<()> {
        self.util(&["snapshot", "restore", path(file)?], "back")?;
        let back = self.start(self.quorate, "back")?;
        let bare = self.runtime.block_on(async {
            let mut client = Client::connect(back.client_port).await?;
            client.look().await
        })?;
        let wanted = self.work(&back, 3, 700)?;
        ensure!(
            wanted.revision() > bare.revision(),
            "it goes on from etcd's revision"
        );
        stop(back)?;
        let file = self.dir.join("export.db");
        let data = self.data("back");
        tools::output(
            Command::new(self.quorate)
                .args(["util", "export"])
                .arg(data)
                .arg(&file),
        )?;
        self.statuses_agree(&file)?;
        restore_with_etcdctl(&file, &self.data("away"))?;
        let away = self.start(self.etcd, "away")?;
        self.shows(&away, &wanted, "an etcd restored from Quorate's export")
    }

    /// A snapshot that is taken while writers write and compact has all that was answered before.
    fn under_load(&self) -> Result<()> {
        let quorate = self.start(self.quorate, "load")?;
        let file = self.dir.join("load.db");
        self.work(&quorate, 4, 500)?;
        let port = quorate.client_port;
        let last = self.runtime.block_on(async {
            let load = tokio::spawn(Client::load(port));
            let (save, target) = (save_command(port, &file), file.clone());
            let saved = tokio::task::spawn_blocking(move || saved(save, &target)).await?;
            load.abort();
            saved?;
            anyhow::Ok(status_revision(self.quorate, &file)?)
        })?;
        let mut wanted = self.runtime.block_on(async {
            let mut client = Client::connect(port).await?;
            client.keys_at(last).await
        })?;
        drop(quorate);
        restore_with_etcdctl(&file, &self.data("loaded"))?;
        let etcd = self.start(self.etcd, "loaded")?;
        let mut found = self.runtime.block_on(async {
            let mut client = Client::connect(etcd.client_port).await?;
            client.keys_at(0).await
        })?;
        wanted.sort_by(|a, b| a.key.cmp(&b.key));
        found.sort_by(|a, b| a.key.cmp(&b.key));
        ensure!(
            !wanted.is_empty() && wanted == found,
            "a snapshot under load differs at {last}"
        );
        Ok(())
    }

    /// A file that rotted is refused, and no directory is left.
    fn damaged(&self, file: &Path) -> Result<()> {
        let mut bytes = std::fs::read(file)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let bad = self.dir.join("bad.db");
        std::fs::write(&bad, bytes)?;
        let refused = self.util(&["snapshot", "restore", path(&bad)?], "bad");
        ensure!(refused.is_err(), "a rotten file was restored");
        ensure!(
            !self.data("bad").exists(),
            "a refused file left a directory"
        );
        Ok(())
    }

    /// Starts a server in a room of this name.
    fn start(&self, server: &Path, name: &str) -> Result<Member> {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir)?;
        let config = Config {
            server,
            dir: &dir,
            flags: &[],
        };
        Member::start(&config).with_context(|| format!("the server {name}"))
    }

    fn data(&self, name: &str) -> PathBuf {
        data_dir(&self.dir.join(name))
    }

    /// Runs `quorate util ... --data-dir` for the room of this name.
    fn util(&self, args: &[&str], name: &str) -> Result<()> {
        std::fs::create_dir_all(self.dir.join(name))?;
        let mut command = Command::new(self.quorate);
        command
            .arg("util")
            .args(args)
            .arg("--data-dir")
            .arg(self.data(name));
        print!("{}", tools::output(&mut command)?);
        Ok(())
    }

    /// Writes to a server, and says what it shows then.
    fn work(&self, member: &Member, seed: u64, writes: usize) -> Result<Seen> {
        self.runtime.block_on(async {
            let mut client = Client::connect(member.client_port).await?;
            client.write(seed, writes).await?;
            client.look().await
        })
    }

    fn shows(&self, member: &Member, wanted: &Seen, what: &str) -> Result<()> {
        let found = self.runtime.block_on(async {
            let mut client = Client::connect(member.client_port).await?;
            client.look_at(wanted.revisions()).await
        })?;
        wanted.compare(&found).with_context(|| what.to_owned())?;
        println!("{what}: alike, revision {}", found.revision());
        Ok(())
    }

    /// Ours tells of a file what etcdctl tells, to the byte.
    fn statuses_agree(&self, file: &Path) -> Result<()> {
        for form in ["simple", "json", "table"] {
            let mut theirs = etcdctl();
            theirs.args(["snapshot", "status", "-w", form]).arg(file);
            let mut ours = Command::new(self.quorate);
            ours.args(["util", "snapshot", "status", "-w", form])
                .arg(file);
            let (theirs, ours) = (tools::output(&mut theirs)?, tools::output(&mut ours)?);
            ensure!(
                theirs == ours,
                "status of {}: {ours} is not {theirs}",
                file.display()
            );
        }
        Ok(())
    }
}

fn etcdctl() -> Command {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3");
    command
}

fn save_command(port: u16, file: &Path) -> Command {
    let mut command = etcdctl();
    command.arg("--endpoints").arg(format!("127.0.0.1:{port}"));
    command
        .args(["--command-timeout=60s", "snapshot", "save"])
        .arg(file);
    command
}

fn save(member: &Member, file: &Path) -> Result<()> {
    saved(save_command(member.client_port, file), file)
}

/// Runs it without its log.
fn saved(mut command: Command, file: &Path) -> Result<()> {
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("etcdctl snapshot save {}: {said}", file.display());
    }
    Ok(())
}

fn restore_with_etcdctl(file: &Path, data_dir: &Path) -> Result<()> {
    let parent = data_dir.parent().context("a room")?;
    std::fs::create_dir_all(parent)?;
    let mut command = etcdctl();
    command
        .args(["snapshot", "restore"])
        .arg(file)
        .arg("--data-dir")
        .arg(data_dir);
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("etcdctl snapshot restore {}: {said}", file.display());
    }
    Ok(())
}

fn status_revision(quorate: &Path, file: &Path) -> Result<i64> {
    let mut command = Command::new(quorate);
    command
        .args(["util", "snapshot", "status", "-w", "json"])
        .arg(file);
    let status: serde_json::Value = serde_json::from_str(&tools::output(&mut command)?)?;
    status["revision"].as_i64().context("a revision")
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// Ends a server as an operator does.
fn stop(mut member: Member) -> Result<()> {
    let pid = i32::try_from(member.pid()).ok();
    let pid = pid
        .and_then(rustix::process::Pid::from_raw)
        .context("a process id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    member
        .await_end(END_LIMIT)?
        .context("the server did not stop")?;
    Ok(())
}
