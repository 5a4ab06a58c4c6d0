//! What was measured, as text that is both a terminal's and a page's.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::cases::CASES;
use super::results::{Figures, Results};
use super::{plot, targets, tools, version};

/// All that is said of a subject.
pub(super) struct Page<'a> {
    results: &'a Results,
    /// The peer, and the machine.
    beside: String,
}

/// One case and server, while it is measured: all its figures, or the most telling ones.
pub(super) fn line(figures: &Figures) -> String {
    if !figures.contains_key("load_us") {
        let figure = |(name, value): (&String, &f64)| format!("{name} {value:.2}");
        return figures.iter().map(figure).collect::<Vec<_>>().join(", ");
    }
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

/// Rows of the tables that hold one case: figure, what it is, digits.
const BUSY: &[(&str, &str, usize)] = &[
    ("quiet_p50_ms", "quiet, p50 ms", 2),
    ("quiet_p99_ms", "quiet, p99 ms", 2),
    ("busy_p50_ms", "busy, p50 ms", 2),
    ("busy_p99_ms", "busy, p99 ms", 2),
    ("busy_max_ms", "busy, longest ms", 1),
    ("ratio", "busy p99 / quiet p99", 2),
    ("compactions", "compactions meanwhile", 0),
    ("snapshots", "snapshots read meanwhile", 0),
    ("snapshot_mb", "MB of snapshots", 0),
    ("checkpoints_quiet", "checkpoints while quiet", 0),
    ("checkpoints_busy", "checkpoints while busy", 0),
];
const FILL: &[(&str, &str, usize)] = &[
    ("keys", "keys", 0),
    ("per_second", "puts/s, 100 clients", 0),
    ("cpu_us", "server CPU µs a put", 1),
    ("anonymous_mb", "anonymous memory, MB", 0),
    ("resident_mb", "RSS, mapped files included, MB", 0),
    (
        "anonymous_restarted_mb",
        "anonymous memory after a restart, MB",
        0,
    ),
    ("live_mb", "live data by the server's own count, MB", 0),
    ("written_mb", "files without the zeros at their ends, MB", 0),
    ("length_mb", "files, MB", 0),
    ("allocated_mb", "blocks on the disk, MB", 0),
    ("restart_killed_s", "restart after kill -9, s", 2),
    ("restart_s", "restart after SIGTERM, s", 2),
];

const EXPLAINED: &str = "\
Both servers run, one member each, with the same flags, on the same disk; one at a time is under load, in \
rounds that alternate. The load comes from one thread on the same cores: raw frames, a connection for \
each client, one request under way on each. So operations per second and latencies are of a machine that \
is shared with the load, and the steady figure is the server's CPU time per operation, of which the \
ratio is. Its span is that of the rounds furthest apart. Values have 256 B, keys 24 B, of which \
there are 100,000.\n";

impl<'a> Page<'a> {
    pub(super) fn new(results: &'a Results, etcd: &Path) -> Result<Self> {
        let beside = format!("{}; {}", version(etcd)?, machine()?);
        Ok(Self { results, beside })
    }

    /// The tables.
    pub(super) fn text(&self) -> String {
        let mut text = self.requests();
        text.push_str(&self.one("busy", "Puts at 5,000/s, of 2 KiB", BUSY));
        text.push_str(&self.one("fill", "Many keys", FILL));
        text.push_str("| target | at most | measured | | |\n|---|---:|---:|---|---|\n");
        targets::all(self.results)
            .iter()
            .for_each(|target| text.push_str(&target.row()));
        text
    }

    /// Requests as a table; a cell is etcd's figure and ours.
    fn requests(&self) -> String {
        let mut text = String::from(
            "| etcd / Quorate | operations/s | p50 ms | p99 ms | server CPU µs | CPU ratio | load's CPU µs |\n\
             |---|---:|---:|---:|---:|---:|---:|\n",
        );
        for case in CASES {
            text.extend(self.row(case.name, case.about));
        }
        text.extend(self.row("watch", "an event told to one of 100 watchers"));
        let sync = |figure| self.results.get("sync", "disk", figure);
        if let (Some(p50), Some(p99)) = (sync("p50_ms"), sync("p99_ms")) {
            text.push_str(&format!(
                "| 4 KiB overwritten and fdatasync, by itself | | {p50:.3} | {p99:.2} | | | |\n"
            ));
        }
        text.push('\n');
        text
    }

    fn row(&self, case: &str, about: &str) -> Option<String> {
        let cell = |figure, digits: usize| {
            let [etcd, ours] = self.results.both(case, figure)?;
            Some(format!("{etcd:.digits$} / {ours:.digits$}"))
        };
        let ratio = self.results.ratio(case, "cpu_us")?;
        let [etcd_least, ours_least] = self.results.both(case, "cpu_us_least")?;
        let [etcd_most, ours_most] = self.results.both(case, "cpu_us_most")?;
        let (least, most) = (ours_least / etcd_most, ours_most / etcd_least);
        Some(format!(
            "| {about} | {} | {} | {} | {} | **{ratio:.2}** ({least:.2} to {most:.2}) | {} |\n",
            cell("per_second", 0)?,
            cell("p50_ms", 2)?,
            cell("p99_ms", 2)?,
            cell("cpu_us", 1)?,
            cell("load_us", 1)?,
        ))
    }

    /// One case as a table of its figures; empty if it was not measured.
    fn one(&self, case: &str, about: &str, rows: &[(&str, &str, usize)]) -> String {
        let mut lines = String::new();
        for &(figure, about, digits) in rows {
            if let Some([etcd, ours]) = self.results.both(case, figure) {
                lines.push_str(&format!(
                    "| {about} | {etcd:.digits$} | {ours:.digits$} |\n"
                ));
            }
        }
        if lines.is_empty() {
            return lines;
        }
        let ours = |figure| self.results.get(case, "quorate", figure);
        let mut remarks = String::new();
        if ours("has_snapshots") == Some(0.0) {
            remarks += "This build of Quorate has no snapshots; its busy figures are without.\n\n";
        }
        if ours("quiet_p50_ms") > ours("busy_p50_ms").map(|busy| 1.1 * busy) {
            remarks +=
                "The quiet puts took longer than the busy ones, so the ratio says nothing.\n\n";
        }
        format!("| {about} | etcd | Quorate |\n|---|---:|---:|\n{lines}\n{remarks}")
    }

    /// Writes the page and its plot.
    pub(super) fn save(&self, docs: &Path) -> Result<()> {
        let date = tools::output(std::process::Command::new("date").arg("+%F"))?;
        let text = format!(
            "# Performance\n\nThe last run of `cargo xtask bench --save`: Quorate, {}, beside {}; {}.\n\n\
             ![Quorate's share of etcd's](performance.svg)\n\n{EXPLAINED}\n{}",
            self.results.subject,
            self.beside,
            date.trim(),
            self.text()
        );
        fs::write(docs.join("performance.md"), text)?;
        Ok(fs::write(
            docs.join("performance.svg"),
            plot::svg(self.results),
        )?)
    }
}

/// Cores, kernel, disk.
fn machine() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name\t: "));
    let count = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut disk = std::process::Command::new("df");
    disk.arg("--output=source,fstype")
        .arg(crate::workspace::scratch()?);
    let disk = tools::output(&mut disk)?;
    let disk = disk.lines().last().context("df prints a line")?;
    Ok(format!(
        "{count} cores of {}, Linux {}, {}",
        model.context("no model name")?,
        kernel.trim(),
        disk.split_whitespace().collect::<Vec<_>>().join(" ")
    ))
}
