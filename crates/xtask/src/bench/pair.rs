//! Quorate and etcd, both running, and what can be read of their processes and directories.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context, Result, bail, ensure};
use quorate_load::{Generator, Keys, Pace, Report, Spread, Template, Until, Work, cpu};

use super::cases::KEYS;
use crate::member::{self, Config, Member};
use crate::workspace;

/// Beyond what any case writes, so that neither server runs into its quota.
const FLAGS: &[&str] = &["--quota-backend-bytes=8589934592"];
/// The clients that fill a server.
pub(super) const HUNDRED: Spread = Spread {
    connections: 100,
    clients: 1,
};

/// One of the two servers.
pub(super) struct Side {
    pub(super) name: &'static str,
    program: PathBuf,
    dir: PathBuf,
    /// The one that is asked: in a cluster its leader.
    pub(super) member: Member,
    /// The others of its cluster.
    others: Vec<Member>,
}

/// What a process holds in memory, in bytes.
pub(super) struct Memory {
    pub(super) anonymous: u64,
    pub(super) resident: u64,
}

/// What a data directory takes on the disk, in bytes.
#[derive(Default)]
pub(super) struct Disk {
    /// Lengths of files.
    pub(super) length: u64,
    /// The same without the zeros that files end with, prepared for what is to come.
    pub(super) written: u64,
    /// Blocks.
    pub(super) allocated: u64,
}

impl Side {
    /// Starts a server with an empty directory.
    pub(super) fn start(name: &'static str, program: &Path) -> Result<Self> {
        let dir = workspace::empty_dir(&format!("bench/{name}"))?;
        let config = Config {
            server: program,
            dir: &dir,
            flags: FLAGS,
        };
        let member = Member::start(&config)?;
        Ok(Self {
            name,
            program: program.to_owned(),
            dir,
            member,
            others: Vec::new(),
        })
    }

    /// Starts three servers that make a cluster, with empty directories.
    pub(super) fn start_three(name: &'static str, program: &Path) -> Result<Self> {
        let dir = workspace::empty_dir(&format!("bench/three-{name}"))?;
        let config = Config {
            server: program,
            dir: &dir,
            flags: FLAGS,
        };
        let mut others = Member::start_cluster(&config, 3)?;
        let leads = |member: &Member| {
            let metrics = member::get(member.client_port, "/metrics")?;
            Ok(metrics
                .lines()
                .any(|line| line == "etcd_server_is_leader 1"))
        };
        let leads: Result<Vec<bool>> = others.iter().map(leads).collect();
        let leader = leads?.iter().position(|leads| *leads);
        let member = others.remove(leader.context("nobody leads")?);
        Ok(Self {
            name,
            program: program.to_owned(),
            dir,
            member,
            others,
        })
    }

    /// Starts the server again, which must have ended, and does not wait for it.
    pub(super) fn start_again(&mut self) -> Result<()> {
        let config = Config {
            server: &self.program,
            dir: &self.dir,
            flags: FLAGS,
        };
        self.member = Member::spawn(&config, member::free_ports())?;
        Ok(())
    }

    pub(super) fn connect(&self, spread: Spread, template: &Template) -> Result<Generator> {
        let connected = Generator::connect(self.member.client_port, spread, template);
        connected.with_context(|| format!("{} cannot be reached", self.name))
    }

    /// Time that the server has used, with all its members.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let members = self.others.iter().chain([&self.member]);
        let times = members.map(|member| Ok(cpu::of_process(member.pid())?));
        times.sum()
    }

    pub(super) fn memory(&self) -> Result<Memory> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.member.pid()))?;
        let field = |name: &str| -> Result<u64> {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            Ok(number
                .with_context(|| format!("no {name}"))?
                .parse::<u64>()?
                * 1024)
        };
        Ok(Memory {
            anonymous: field("Anonymous:")?,
            resident: field("Rss:")?,
        })
    }

    pub(super) fn disk(&self) -> Result<Disk> {
        let mut disk = Disk::default();
        add_files(&member::data_dir(&self.dir), &mut disk)?;
        Ok(disk)
    }

    /// A number that `/metrics` shows; `None` if it does not.
    pub(super) fn metric(&self, name: &str) -> Result<Option<f64>> {
        let text = member::get(self.member.client_port, "/metrics")?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.map(str::parse).transpose()?)
    }
}

fn add_files(dir: &Path, disk: &mut Disk) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            add_files(&entry.path(), disk)?;
        } else {
            disk.length += metadata.len();
            disk.written += written(&entry.path(), metadata.len())?;
            disk.allocated += metadata.blocks() * 512;
        }
    }
    Ok(())
}

/// The length of a file without the zeros at its end.
fn written(path: &Path, length: u64) -> io::Result<u64> {
    let file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(buffer.len() as u64);
        let piece = &mut buffer[..(end - start) as usize];
        file.read_exact_at(piece, start)?;
        if let Some(last) = piece.iter().rposition(|byte| *byte != 0) {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Puts each of these keys once, in order.
pub(super) fn fill(side: &Side, template: Template, keys: Vec<u32>) -> Result<Report> {
    let mut generator = side.connect(HUNDRED, &template)?;
    let until = Until::Count(keys.len() as u64);
    let (templates, keys) = (vec![(1, template)], Keys::Each(keys));
    run(
        side,
        &mut generator,
        &Work {
            templates,
            keys,
            pace: Pace::Closed,
            until,
        },
    )
}

/// Puts all keys that the cases read.
pub(super) fn fill_all(side: &Side, template: Template) -> Result<()> {
    fill(side, template, (0..KEYS).collect()).map(drop)
}

/// Does some work. Whatever is refused fails the run.
pub(super) fn run(side: &Side, generator: &mut Generator, work: &Work) -> Result<Report> {
    let report = generator.run(work).with_context(|| {
        format!(
            "{} failed; the end of its log:\n{}",
            side.name,
            side.member.log_tail()
        )
    })?;
    if let Some(failure) = &report.failure {
        bail!(
            "{}: {} requests failed: {failure}",
            side.name,
            report.failed
        );
    }
    ensure!(report.done > 0, "{}: nothing was asked", side.name);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::written;
    use crate::workspace;

    #[test]
    fn zeros_at_a_files_end_are_not_written() {
        let path = workspace::empty_dir("written")
            .expect("a directory")
            .join("file");
        let mut bytes = vec![0; 3 << 20];
        let mut check = |end: usize| {
            if end > 0 {
                bytes[end - 1] = 1;
            }
            std::fs::write(&path, &bytes).expect("a file");
            assert_eq!(
                written(&path, bytes.len() as u64).expect("it is there"),
                end as u64
            );
        };
        [0, 1, 1 << 20, (2 << 20) + 7, 3 << 20]
            .into_iter()
            .for_each(&mut check);
    }
}
