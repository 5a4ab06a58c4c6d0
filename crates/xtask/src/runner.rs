//! `cargo xtask test`: runs suites one after the other, each in a process of its own.
//!
//! Owns order, budgets, logs and the closing summary. A suite over its budget is reported; at three
//! times its budget it is killed with all the processes it started, and counts as failed.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::suites::{SUITES, Suite};
use crate::{member, outcome, rust_checks, workspace};

/// How often a running suite is mentioned.
const PROGRESS_EVERY: Duration = Duration::from_secs(20);
/// How many budgets a suite may take before it is killed.
const KILL_AT_BUDGETS: u32 = 3;

/// Runs the tests: builds the server, then each suite; ends with a line of counts.
#[derive(clap::Args)]
#[command(after_help = suite_list())]
pub(crate) struct Test {
    /// Run only these suites, divided by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Test this server instead of building ours.
    #[arg(long)]
    server: Option<PathBuf>,
}

fn suite_list() -> String {
    let mut text = String::from("Suites, in order, with their budgets in seconds:\n");
    for suite in SUITES {
        let budget = suite.budget.as_secs();
        text.push_str(&format!(
            "  {:16}{budget:>5}  {}\n",
            suite.name, suite.about
        ));
    }
    text
}

enum Verdict {
    Passed,
    Failed,
    Skipped,
}

struct Report {
    suite: &'static Suite,
    verdict: Verdict,
    took: Duration,
    note: String,
}

impl Test {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let chosen = self.chosen()?;
        let needs_server = chosen.iter().any(|suite| suite.needs_server);
        let server = match self.server {
            Some(path) => path
                .canonicalize()
                .with_context(|| format!("no {}", path.display()))?,
            None if needs_server => {
                println!("building the server");
                rust_checks::build_server()?
            }
            None => workspace::release_server(),
        };
        let mut reports = Vec::new();
        for (at, suite) in chosen.iter().enumerate() {
            println!(
                "[{}/{}] {}: {}",
                at + 1,
                chosen.len(),
                suite.name,
                suite.about
            );
            let report = run_suite(suite, &server)?;
            println!(
                "      {} in {:.1} s: {}",
                report.word(),
                report.took.as_secs_f64(),
                report.note
            );
            reports.push(report);
        }
        Ok(summarise(&reports))
    }

    fn chosen(&self) -> Result<Vec<&'static Suite>> {
        if let Some(name) = self
            .only
            .iter()
            .find(|name| SUITES.iter().all(|s| s.name != **name))
        {
            bail!("there is no suite {name:?}; see cargo xtask test --help");
        }
        let wanted = |suite: &&Suite| {
            self.only.is_empty() || self.only.iter().any(|name| name == suite.name)
        };
        Ok(SUITES.iter().filter(wanted).collect())
    }
}

impl Report {
    fn word(&self) -> &'static str {
        match self.verdict {
            Verdict::Passed => "passed",
            Verdict::Failed => "FAILED",
            Verdict::Skipped => "skipped",
        }
    }
}

fn run_suite(suite: &'static Suite, server: &Path) -> Result<Report> {
    let log = workspace::scratch()?.join(format!("{}.log", suite.name));
    let out = File::create(&log)?;
    let started = Instant::now();
    let child = Command::new(std::env::current_exe()?)
        .args(["suite", suite.name, "--server"])
        .arg(server)
        .current_dir(workspace::root())
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .process_group(0)
        .spawn()?;
    let exit = watch_over(suite, child, &log)?;
    let took = started.elapsed();
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let last = last_line(&text);
    let verdict = match exit {
        Some(code) if code == i32::from(outcome::SKIPPED) => Verdict::Skipped,
        Some(0) => Verdict::Passed,
        _ => Verdict::Failed,
    };
    if matches!(verdict, Verdict::Failed) {
        println!("{}", member::tail(&text, 60));
        println!("      the whole output is in {}", log.display());
    }
    let note = match exit {
        None => format!("killed after {} budgets; last: {last}", KILL_AT_BUDGETS),
        Some(_) => last,
    };
    Ok(Report {
        suite,
        verdict,
        took,
        note,
    })
}

/// Waits for a suite's process. `None` if it had to be killed or ended by a signal.
fn watch_over(suite: &Suite, mut child: Child, log: &Path) -> Result<Option<i32>> {
    let group = Pid::from_child(&child);
    let (started, mut told) = (Instant::now(), Instant::now());
    let exit = loop {
        if let Some(status) = child.try_wait()? {
            break status.code();
        }
        if started.elapsed() > suite.budget * KILL_AT_BUDGETS {
            break None;
        }
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
            println!(
                "      {:>4} s: {}",
                started.elapsed().as_secs(),
                last_line(&text)
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    // What the suite left behind, if anything; the group is gone when nothing is.
    let _ = kill_process_group(group, Signal::KILL);
    child.wait()?;
    Ok(exit)
}

fn last_line(text: &str) -> String {
    let line = text
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(140).collect()
}

fn summarise(reports: &[Report]) -> ExitCode {
    println!(
        "\n{:16} {:8} {:>7} {:>7}  note",
        "suite", "result", "seconds", "budget"
    );
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for report in reports {
        match report.verdict {
            Verdict::Passed => passed += 1,
            Verdict::Failed => failed += 1,
            Verdict::Skipped => skipped += 1,
        }
        let over = if report.took > report.suite.budget {
            "OVER BUDGET; "
        } else {
            ""
        };
        println!(
            "{:16} {:8} {:>7.1} {:>7}  {over}{}",
            report.suite.name,
            report.word(),
            report.took.as_secs_f64(),
            report.suite.budget.as_secs(),
            report.note
        );
    }
    println!("\nxtask: {passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 && passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    use super::{last_line, watch_over};
    use crate::outcome::Outcome;
    use crate::suites::suite;

    fn child(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).process_group(0);
        command.spawn().unwrap()
    }

    /// Runs a script as a suite with a budget in seconds.
    fn exit(budget_s: u64, script: &str) -> Option<i32> {
        let log = std::env::temp_dir().join(format!("xtask-runner-{}", std::process::id()));
        File::create(&log).unwrap();
        let suite = suite("a", budget_s, "b", |_| Ok(Outcome::Passed(String::new())));
        watch_over(&suite, child(script), &log).unwrap()
    }

    #[test]
    fn a_suite_far_over_its_budget_is_killed() {
        assert_eq!(exit(0, "sleep 1000 & sleep 1000"), None);
    }

    #[test]
    fn an_exit_is_passed_on_and_a_signal_is_a_failure() {
        assert_eq!(exit(100, "exit 77"), Some(77));
        assert_eq!(exit(100, "kill -9 $$"), None);
    }

    #[test]
    fn the_last_line_that_says_something_is_the_note() {
        assert_eq!(last_line("a\n  12 tests\n\n"), "12 tests");
        assert_eq!(last_line(""), "");
    }
}
