//! The one door to everything that is run on Quorate but is not Quorate: tests, soaks, figures.
//!
//! Each suite of `cargo xtask test` is a child process of this binary (`xtask suite NAME`), so that
//! a suite has a log of its own, ends within its budget, and takes its servers with it.
//!
//! Owns the list of suites and what they install. Never part of what a user runs, and holds no test
//! that `cargo nextest` could hold.

mod architecture;
mod bad_input;
mod bench;
mod bootstrap;
mod bulk;
mod cluster;
mod conformance;
mod etcd3gw;
mod etcd_client;
mod etcdctl;
mod examples;
mod full_disk;
mod fuzz;
mod golden;
mod http;
mod kill;
mod listing;
mod local;
mod member;
mod normalise;
mod outcome;
mod pytest;
mod python_etcd;
mod runner;
mod rust_checks;
mod sim;
mod snapshot;
mod soak;
mod suites;
mod tls;
mod tools;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Tests, soaks and measures Quorate.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Task {
    Test(runner::Test),
    Record(etcdctl::Record),
    Soak(soak::Soak),
    Bench(bench::Bench),
    Listing(listing::Listing),
    Cluster(local::Local),
    #[command(hide = true)]
    Suite(SuiteArgs),
}

/// Runs one suite in this process, its output on the terminal.
#[derive(clap::Args)]
struct SuiteArgs {
    /// The suite's name, as in `cargo xtask test --help`.
    name: String,
    /// The server under test.
    #[arg(long, default_value_os_t = workspace::release_server())]
    server: PathBuf,
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Test(test) => test.run(),
        Task::Record(record) => record.run(),
        Task::Soak(soak) => soak.run(),
        Task::Bench(bench) => bench.run(),
        Task::Listing(listing) => listing.run(),
        Task::Cluster(local) => local.run(),
        Task::Suite(args) => suites::run(&args.name, &args.server),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
