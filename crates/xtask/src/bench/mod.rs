//! `cargo xtask bench`: Quorate and etcd side by side, on one machine, in one run.
//!
//! Both servers run, with the same flags and an empty directory each on the same disk; one at a time
//! is under load. A case goes round: etcd, Quorate, etcd, Quorate. The load comes from this thread,
//! on the same cores, so the server's CPU time per operation is the steady figure; operations per
//! second and latencies depend on what the load leaves of the cores.
//!
//! Owns what is measured and how it is told. Never a pass or a failure: targets are printed, and the
//! exit code is 0 unless a server refused or lost something.

mod busy;
mod cases;
mod fill;
mod pair;
mod plot;
mod report;
mod results;
mod rounds;
mod sync;
mod targets;
mod watch;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::{rust_checks, tools, workspace};
use cases::{CASES, Case, Set};
use pair::Side;
use report::Page;
use results::{Figures, Results};
use rounds::Length;
use sync::Syncs;

/// Syncs of the disk measured before each round of the case that they are the floor of.
const SYNCS: u64 = 500;

/// Measures Quorate beside etcd; takes some ten minutes.
#[derive(clap::Args)]
#[command(after_help = case_list())]
pub(crate) struct Bench {
    /// One short round each, in some two minutes.
    #[arg(long)]
    quick: bool,
    /// Measure only these cases, or those whose name begins so before a dash, divided by commas;
    /// `none` to print what was measured of this commit before.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How long each of three rounds is, in seconds.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Measure this server instead of building ours.
    #[arg(long)]
    server: Option<PathBuf>,
    /// The etcd to compare with.
    #[arg(long, default_value = "/usr/bin/etcd")]
    with: PathBuf,
    /// Write what was measured of this commit into docs/performance.md and .svg.
    #[arg(long)]
    save: bool,
}

/// Cases that are not one kind of request at full speed.
const OTHERS: [(&str, &str); 3] = [
    ("watch", "puts at 500/s, told to 100 watchers; per event"),
    (
        "busy",
        "puts at 5,000/s beside compactions, checkpoints and snapshots",
    ),
    (
        "fill",
        "1 M keys of 24 B with values of 256 B: memory, disk, restart",
    ),
];

fn case_list() -> String {
    let mut text = String::from("Cases, in order:\n");
    for (name, about) in CASES
        .iter()
        .map(|case| (case.name, case.about))
        .chain(OTHERS)
    {
        text.push_str(&format!("  {name:10} {about}\n"));
    }
    text
}

impl Bench {
    pub(crate) fn run(self) -> Result<ExitCode> {
        if cfg!(debug_assertions) {
            // A load generator that was not optimised would take the cores for itself.
            println!("building the load generator");
            let args: Vec<_> = std::env::args().skip(1).collect();
            let mut command =
                rust_checks::cargo(&["run", "--quiet", "--release", "--package", "xtask", "--"]);
            tools::run(command.args(args))?;
            return Ok(ExitCode::SUCCESS);
        }
        self.check_names()?;
        let subject = match &self.server {
            Some(path) => path.display().to_string(),
            None => format!("commit {}", commit()?),
        };
        let nothing_new = self.only == ["none"];
        let mut results = Results::load(&subject, self.save || nothing_new)?;
        let started = Instant::now();
        if !nothing_new {
            let programs = self.programs()?;
            self.measure(&programs, &mut results)?;
        }
        let page = Page::new(&results, &self.with)?;
        println!("\n{}", page.text());
        println!("{:.0} s", started.elapsed().as_secs_f64());
        if self.save {
            page.save(&workspace::root().join("docs"))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn check_names(&self) -> Result<()> {
        for name in self.only.iter().filter(|name| *name != "none") {
            let mut names = CASES
                .iter()
                .map(|case| case.name)
                .chain(OTHERS.map(|(name, _)| name));
            let is_known = names.any(|case| chosen(name, case));
            ensure!(
                is_known,
                "there is no case {name:?}; see cargo xtask bench --help"
            );
        }
        Ok(())
    }

    fn wants(&self, case: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| chosen(name, case))
    }

    fn length(&self) -> Length {
        let (rounds, round) = if self.quick {
            (1, Duration::from_secs(1))
        } else {
            (3, Duration::from_secs(self.seconds))
        };
        Length { rounds, round }
    }

    /// The two programs, etcd first.
    fn programs(&self) -> Result<[(&'static str, PathBuf); 2]> {
        if self.with.ends_with("bin/etcd") {
            tools::ensure_debian("etcd", &["etcd-server"]).map_err(anyhow::Error::msg)?;
        }
        let server = match &self.server {
            Some(path) => path
                .canonicalize()
                .with_context(|| format!("no {}", path.display()))?,
            None => rust_checks::build_server()?,
        };
        Ok([("etcd", self.with.clone()), ("quorate", server)])
    }

    fn measure(&self, programs: &[(&'static str, PathBuf)], results: &mut Results) -> Result<()> {
        for set in [Set::V3, Set::V2, Set::Lease, Set::Three] {
            let cases: Vec<_> = CASES
                .iter()
                .filter(|case| case.set == set && self.wants(case.name))
                .collect();
            if !cases.is_empty() {
                self.measure_set(set, &cases, programs, results)?;
            }
        }
        if self.wants("watch") {
            println!("watching");
            let sides = start(programs)?;
            let measured = watch::measure(&sides, self.length()).context("watch")?;
            note("watch", &sides, measured, results)?;
        }
        if self.wants("busy") {
            println!("putting at a steady rate, quiet and busy; a minute");
            let sides = start(programs)?;
            let time = Duration::from_secs(if self.quick { 2 } else { 4 });
            let measured: Result<_> = sides.iter().map(|side| busy::measure(side, time)).collect();
            note("busy", &sides, measured.context("busy")?, results)?;
        }
        if self.wants("fill") {
            println!("filling with many keys, and restarting; two minutes");
            let mut sides = start(programs)?;
            let count = if self.quick { 100_000 } else { 1_000_000 };
            let measured: Result<_> = sides
                .iter_mut()
                .map(|side| fill::measure(side, count))
                .collect();
            note("fill", &sides, measured.context("fill")?, results)?;
        }
        Ok(())
    }

    fn measure_set(
        &self,
        set: Set,
        cases: &[&Case],
        programs: &[(&'static str, PathBuf)],
        results: &mut Results,
    ) -> Result<()> {
        println!("starting and filling both servers");
        let sides = match set {
            Set::Three => {
                let three =
                    |(name, program): &(&'static str, PathBuf)| Side::start_three(name, program);
                programs.iter().map(three).collect::<Result<Vec<_>>>()?
            }
            Set::V3 | Set::V2 | Set::Lease => start(programs)?,
        };
        for side in &sides {
            match set {
                Set::V3 | Set::Three => pair::fill_all(side, cases::put())?,
                Set::V2 => pair::fill_all(side, cases::v2_put())?,
                Set::Lease => {}
            }
        }
        for case in cases {
            let mut syncs = Syncs::default();
            let takes_syncs = case.name == "put-1";
            let between = || {
                if takes_syncs {
                    syncs.measure(SYNCS)
                } else {
                    Ok(())
                }
            };
            let measured = rounds::measure(&sides, case, self.length(), between);
            let measured = measured.with_context(|| case.name)?;
            note(case.name, &sides, measured, results)?;
            if takes_syncs {
                results.put("sync", "disk", syncs.figures())?;
            }
        }
        Ok(())
    }
}

fn chosen(name: &str, case: &str) -> bool {
    case.strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Tells and keeps what was measured of each side.
fn note(case: &str, sides: &[Side], measured: Vec<Figures>, results: &mut Results) -> Result<()> {
    for (side, figures) in sides.iter().zip(measured) {
        println!("  {case:10} {:8} {}", side.name, report::line(&figures));
        results.put(case, side.name, figures)?;
    }
    Ok(())
}

/// Starts both servers.
fn start(programs: &[(&'static str, PathBuf)]) -> Result<Vec<Side>> {
    programs
        .iter()
        .map(|(name, program)| Side::start(name, program))
        .collect()
}

/// What the server is made of; a change elsewhere leaves figures true.
const MEASURED: [&str; 5] = [
    "crates/server/src",
    "crates/store/src",
    "crates/log/src",
    "crates/replica/src",
    "crates/proto",
];

/// The last commit of this checkout that changed the server, and whether it is all that is there.
fn commit() -> Result<String> {
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command
            .args(args)
            .arg("--")
            .args(MEASURED)
            .current_dir(workspace::root());
        tools::output(&mut command)
    };
    let mut commit = git(&["log", "-1", "--format=%h"])?.trim().to_owned();
    if !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty() {
        commit.push_str(" with changes");
    }
    Ok(commit)
}

/// What a program calls itself.
fn version(program: &Path) -> Result<String> {
    let text = tools::output(Command::new(program).arg("--version"))?;
    Ok(text
        .lines()
        .next()
        .unwrap_or_default()
        .replace("etcd Version: ", "etcd "))
}
