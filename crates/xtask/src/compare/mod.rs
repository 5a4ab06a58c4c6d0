//! Figures: Quorate and etcd side by side, on one machine, in one run.
//!
//! Each server is alone while it is measured: one member, the same flags, an empty directory on the
//! same disk. The load comes from this process, on the same cores. The server's CPU time per
//! operation is the steady figure; throughput and latency depend on what the load leaves of the cores.

mod grpc;
mod load;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::member::{Config, Member};
use crate::{rust_checks, tools, workspace};
use load::{Figures, OPERATIONS, Operation};

/// Measures Quorate beside etcd, and prints a table for README.
#[derive(clap::Args)]
pub(crate) struct Compare {
    /// Measure this server instead of building ours.
    #[arg(long)]
    server: Option<PathBuf>,
    /// The etcd to compare with; `none` to measure ours only.
    #[arg(long, default_value = "/usr/bin/etcd")]
    with: PathBuf,
    /// How long each operation is measured, in seconds.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Connections, each with one request under way.
    #[arg(long, default_value_t = 100)]
    clients: usize,
    /// Measure only these operations, divided by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

impl Compare {
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
        let server = match &self.server {
            Some(path) => path.clone(),
            None => rust_checks::build_server()?,
        };
        let mut rows = Vec::new();
        if self.with.as_os_str() != "none" {
            if self.with.ends_with("bin/etcd") {
                tools::ensure_debian("etcd", &["etcd-server"]).map_err(anyhow::Error::msg)?;
            }
            rows.push(("etcd", self.measure(&self.with)?));
        }
        rows.push(("Quorate", self.measure(&server)?));
        print!("{}", table(&rows, self.clients));
        Ok(ExitCode::SUCCESS)
    }

    fn measure(&self, server: &Path) -> Result<Vec<(&'static Operation, Figures)>> {
        if let Some(name) = self
            .only
            .iter()
            .find(|n| OPERATIONS.iter().all(|o| o.name != **n))
        {
            bail!("there is no operation {name:?}");
        }
        let dir = workspace::empty_dir("compare")?;
        let member = Member::start(&Config {
            server,
            dir: &dir,
            flags: &[],
        })?;
        println!("measuring {}", server.display());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut all = Vec::new();
        for operation in OPERATIONS {
            if self.only.is_empty() || self.only.iter().any(|name| name == operation.name) {
                let length = Duration::from_secs(self.seconds);
                let run = load::run(&member, operation, self.clients, length);
                let figures = runtime.block_on(run).with_context(|| operation.name)?;
                println!(
                    "  {:9} {:>9.0} operations/s",
                    operation.name, figures.per_second
                );
                all.push((operation, figures));
            }
        }
        Ok(all)
    }
}

/// The figures as a table; the last column is the last row's CPU time against the first's.
fn table(rows: &[(&str, Vec<(&'static Operation, Figures)>)], clients: usize) -> String {
    let mut text = format!(
        "\n| {clients} connections | | operations/s | p50 ms | p99 ms | server CPU µs/operation | ratio |\n\
         |---|---|---:|---:|---:|---:|---:|\n"
    );
    let (_, first) = &rows[0];
    for (at, (operation, base)) in first.iter().enumerate() {
        for (name, figures) in rows {
            let (_, figures) = &figures[at];
            let ratio = figures.cpu_us / base.cpu_us;
            text.push_str(&format!(
                "| {} | {name} | {:.0} | {:.2} | {:.2} | {:.1} | {ratio:.2} |\n",
                operation.about, figures.per_second, figures.p50_ms, figures.p99_ms, figures.cpu_us
            ));
        }
    }
    text
}
