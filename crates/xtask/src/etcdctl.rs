//! Replays golden scripts with Debian's etcdctl 3.4.23, in both API versions.
//!
//! The scripts in `testdata/clients/etcdctl/{v2,v3,cluster}` were recorded from etcd 3.4.23. Each gets
//! an empty server of its own; those of `cluster` (v3) three members.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::golden::{Script, Shell, print_difference};
use crate::member::{Config, Member, raw_get};
use crate::normalise::Normaliser;
use crate::outcome::Outcome;
use crate::{tools, workspace};

/// The version whose output the scripts hold.
const VERSION: &str = "etcdctl version: 3.4.23";
const SCRIPTS: &str = "testdata/clients/etcdctl";

/// Records the outputs of the etcdctl scripts from a real etcd 3.4.23, in place.
#[derive(clap::Args)]
pub(crate) struct Record {
    /// The server to record from.
    #[arg(long, default_value = "/usr/bin/etcd")]
    server: PathBuf,
    /// Record only scripts whose path contains this.
    #[arg(default_value = "")]
    only: String,
}

impl Record {
    pub(crate) fn run(self) -> Result<ExitCode> {
        for path in scripts()? {
            if !path.to_string_lossy().contains(&self.only) {
                continue;
            }
            let mut script = read(&path)?;
            for (at, output) in play(&path, &script, &self.server)?.into_iter().enumerate() {
                script.steps[at].expected = output;
            }
            fs::write(&path, script.render())?;
            println!("recorded {}", name(&path));
        }
        Ok(ExitCode::SUCCESS)
    }
}

pub(crate) fn suite(server: &Path) -> Result<Outcome> {
    if let Err(missing) = tools::ensure_debian("etcdctl", &["etcd-client"]) {
        return Ok(Outcome::Skipped(missing));
    }
    let version = tools::output(
        Command::new("etcdctl")
            .arg("version")
            .env("ETCDCTL_API", "3"),
    )?;
    if !version.contains(VERSION) {
        return Ok(Outcome::Skipped(format!(
            "needs {VERSION}, found {:?}",
            version.lines().next()
        )));
    }
    let (mut commands, mut differences) = (0, 0);
    let scripts = scripts()?;
    for path in &scripts {
        let script = read(path)?;
        let outputs = play(path, &script, server)?;
        let mut bad = 0;
        for (step, output) in script.steps.iter().zip(&outputs) {
            if step.expected != *output {
                bad += 1;
                print_difference(&name(path), step, output);
            }
        }
        println!(
            "{}: {} commands, {bad} differences",
            name(path),
            outputs.len()
        );
        commands += outputs.len();
        differences += bad;
    }
    if differences > 0 {
        bail!("{differences} of {commands} commands differ from etcd 3.4.23");
    }
    Ok(Outcome::Passed(format!(
        "{} scripts, {commands} commands",
        scripts.len()
    )))
}

fn scripts() -> Result<Vec<PathBuf>> {
    let dir = workspace::root().join(SCRIPTS);
    let mut paths = workspace::files(&dir.join("v2"), "txt")?;
    paths.extend(workspace::files(&dir.join("v3"), "txt")?);
    paths.extend(workspace::files(&dir.join("cluster"), "txt")?);
    Ok(paths)
}

fn read(path: &Path) -> Result<Script> {
    Script::parse(&fs::read_to_string(path)?).with_context(|| name(path))
}

/// Runs the script on an empty server and returns each command's normalised output.
fn play(path: &Path, script: &Script, server: &Path) -> Result<Vec<String>> {
    let is_in = |kind| path.parent().is_some_and(|dir| dir.ends_with(kind));
    if is_in("cluster") {
        return play_on_three(script, server);
    }
    let is_v2 = is_in("v2");
    let dir = workspace::empty_dir("etcdctl")?;
    let member = Member::start(&Config {
        server,
        dir: &dir,
        flags: &[],
    })?;
    // The forms that each version's own default has.
    let (api, scheme) = if is_v2 { ("2", "http://") } else { ("3", "") };
    let endpoint = format!("{scheme}127.0.0.1:{}", member.client_port);
    let env = [
        ("ETCDCTL_API", api),
        ("ETCDCTL_ENDPOINTS", endpoint.as_str()),
    ];
    let shell = Shell {
        dir: &dir,
        env: &env,
    };
    let base = if is_v2 {
        Some(v2_index(&member)?)
    } else {
        None
    };
    let mut normaliser = Normaliser::new(base);
    script
        .steps
        .iter()
        .map(|step| shell.run(&step.command, &mut normaliser))
        .collect()
}

fn play_on_three(script: &Script, server: &Path) -> Result<Vec<String>> {
    let dir = workspace::empty_dir("etcdctl")?;
    let config = Config {
        server,
        dir: &dir,
        flags: &[],
    };
    let members = Member::start_cluster(&config, 3)?;
    let endpoints: Vec<_> = members
        .iter()
        .map(|member| format!("127.0.0.1:{}", member.client_port))
        .collect();
    let all = endpoints.join(",");
    let env = [
        ("ETCDCTL_API", "3"),
        ("ETCDCTL_ENDPOINTS", all.as_str()),
        ("EP1", &endpoints[0]),
        ("EP2", &endpoints[1]),
        ("EP3", &endpoints[2]),
    ];
    let shell = Shell {
        dir: &dir,
        env: &env,
    };
    let mut normaliser = Normaliser::new(None);
    let steps = script.steps.iter();
    steps
        .map(|step| shell.run(&step.command, &mut normaliser))
        .collect()
}

/// The v2 index of a server, by which its later indexes are told.
fn v2_index(member: &Member) -> Result<i64> {
    let answer = raw_get(member.client_port, "/v2/keys/")?;
    let header = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("X-Etcd-Index").then_some(value)
    });
    let index = header.with_context(|| format!("no X-Etcd-Index in {answer:?}"))?;
    Ok(index.trim().parse()?)
}

/// `v3/get.txt` for a script's path.
fn name(path: &Path) -> String {
    let parts: Vec<_> = path
        .iter()
        .rev()
        .take(2)
        .map(|part| part.to_string_lossy())
        .collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}
