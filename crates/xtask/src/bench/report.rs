//! What was measured, as text that is both a terminal's and a page's.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::cases::CASES;
use super::results::{Figures, Results};
use super::{targets, version};

/// All that is said of a commit.
pub(super) struct Page<'a> {
    results: &'a Results,
    machine: String,
}

/// One case and server, while it is measured: all its figures, or the most telling ones.
pub(super) fn line(figures: &Figures) -> String {
    let Some(_) = figures.get("load_us") else {
        let figure = |(name, value): (&String, &f64)| format!("{name} {value:.2}");
        return figures.iter().map(figure).collect::<Vec<_>>().join(", ");
    };
    let get = |name: &str| figures.get(name).copied().unwrap_or(f64::NAN);
    format!(
        "{:>8.0}/s  p50 {:>7.3} ms  p99 {:>7.2} ms  CPU {:>7.1} µs ({:.1} to {:.1})  load {:.1} µs",
        get("per_second"),
        get("p50_ms"),
        get("p99_ms"),
        get("cpu_us"),
        get("cpu_us_least"),
        get("cpu_us_most"),
        get("load_us"),
    )
}

impl<'a> Page<'a> {
    pub(super) fn new(results: &'a Results, etcd: &Path) -> Result<Self> {
        let machine = format!("{}; {}", version(etcd)?, machine()?);
        Ok(Self { results, machine })
    }

    pub(super) fn text(&self) -> String {
        let mut text = self.cases();
        text.push_str("\n| target | at most | measured | | |\n|---|---:|---:|---|---|\n");
        for target in targets::all(self.results) {
            text.push_str(&target.line());
        }
        text
    }

    /// The cases as a table; a cell is etcd's figure and ours.
    fn cases(&self) -> String {
        let mut text = String::from(
            "etcd / Quorate:\n\n\
             | case | operations/s | p50 ms | p99 ms | server CPU µs | CPU ratio | load's CPU µs |\n\
             |---|---:|---:|---:|---:|---:|---:|\n",
        );
        for case in CASES {
            if let Some(row) = self.row(case.name, case.about) {
                text.push_str(&row);
            }
        }
        text
    }

    fn row(&self, case: &str, about: &str) -> Option<String> {
        let cell = |figure, digits: usize| {
            let [etcd, ours] =
                ["etcd", "quorate"].map(|server| self.results.get(case, server, figure));
            Some(format!("{:.digits$} / {:.digits$}", etcd?, ours?))
        };
        let get = |server, figure| self.results.get(case, server, figure);
        let ratio = get("quorate", "cpu_us")? / get("etcd", "cpu_us")?;
        // The rounds that lie furthest apart.
        let least = get("quorate", "cpu_us_least")? / get("etcd", "cpu_us_most")?;
        let most = get("quorate", "cpu_us_most")? / get("etcd", "cpu_us_least")?;
        Some(format!(
            "| {about} | {} | {} | {} | {} | **{ratio:.2}** ({least:.2} to {most:.2}) | {} |\n",
            cell("per_second", 0)?,
            cell("p50_ms", 2)?,
            cell("p99_ms", 2)?,
            cell("cpu_us", 1)?,
            cell("load_us", 1)?,
        ))
    }

    /// Writes the page.
    pub(super) fn save(&self, docs: &Path) -> Result<()> {
        let text = format!(
            "# Performance\n\nQuorate {} beside {}.\n\n{}",
            self.results.commit,
            self.machine,
            self.text()
        );
        Ok(fs::write(docs.join("performance.md"), text)?)
    }
}

/// Cores and kernel.
fn machine() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name\t: "));
    let count = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!(
        "{count} cores of {}, Linux {}",
        model.context("no model name")?,
        kernel.trim()
    ))
}
