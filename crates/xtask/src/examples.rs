//! Types README's commands as they are printed, and compares what README says they print.
//!
//! A fenced block marked `console` holds them: `$` starts a command, and what follows is its output,
//! compared after [`crate::normalise`]. All of them run in order against one server that was started
//! without any flag, in an empty directory.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::golden::{Script, Shell, print_difference};
use crate::normalise::Normaliser;
use crate::outcome::Outcome;
use crate::{member, tools, workspace};

const CLIENT_PORT: u16 = 2379;

pub(crate) fn suite(server: &Path) -> Result<Outcome> {
    for (program, package) in [("curl", "curl"), ("etcdctl", "etcd-client")] {
        if let Err(missing) = tools::ensure_debian(program, &[package]) {
            return Ok(Outcome::Skipped(missing));
        }
    }
    if !tools::has_own_ports() {
        return tools::with_own_ports("examples", server);
    }
    let readme = fs::read_to_string(workspace::root().join("README.md")).context("README.md")?;
    let blocks = console_blocks(&readme);
    if blocks.is_empty() {
        bail!("README.md has no ```console block");
    }
    let dir = workspace::empty_dir("examples")?;
    let mut running = start(server, &dir)?;
    let outcome = type_all(&blocks, &dir);
    running.kill()?;
    running.wait()?;
    outcome
}

fn start(server: &Path, dir: &Path) -> Result<std::process::Child> {
    let log = dir.join("server.log");
    let out = File::create(&log)?;
    let mut child = Command::new(server)
        .current_dir(dir)
        // On by default in ours; a real etcd, on which this suite is tried, wants to be told.
        .env("ETCD_ENABLE_V2", "true")
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()?;
    let started = Instant::now();
    while !member::get(CLIENT_PORT, "/health").is_ok_and(|body| body.contains("true")) {
        if let Some(status) = child.try_wait()? {
            bail!(
                "the server ended with {status}: {}",
                fs::read_to_string(&log)?
            );
        }
        if started.elapsed() > Duration::from_secs(60) {
            child.kill()?;
            bail!("the server was not ready after 60 s");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(child)
}

fn type_all(blocks: &[String], dir: &Path) -> Result<Outcome> {
    let shell = Shell { dir, env: &[] };
    let (mut printed, mut got) = (Normaliser::new(None), Normaliser::new(None));
    let (mut commands, mut differences) = (0, 0);
    for block in blocks {
        for step in Script::parse(block)?.steps {
            let actual = shell.run(&step.command, &mut got)?;
            commands += 1;
            println!("$ {}", step.command);
            if printed.text(&step.expected) != actual {
                differences += 1;
                print_difference("README.md", &step, &actual);
            }
        }
    }
    if differences > 0 {
        bail!("{differences} of README's {commands} commands do not print what it says");
    }
    Ok(Outcome::Passed(format!("{commands} commands")))
}

/// The contents of the fenced blocks marked `console`.
fn console_blocks(markdown: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        if line.trim_end() == "```console" {
            let block: Vec<_> = lines
                .by_ref()
                .take_while(|line| line.trim_end() != "```")
                .collect();
            blocks.push(block.join("\n"));
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::console_blocks;

    #[test]
    fn only_console_blocks_are_typed() {
        let text = "a\n```sh\n$ no\n```\n```console\n$ yes\nout\n```\nb\n```console\n$ too\n```\n";
        assert_eq!(console_blocks(text), ["$ yes\nout", "$ too"]);
    }
}
