//! The list of suites.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::outcome::Outcome;
use crate::{
    architecture, bad_input, bootstrap, cluster, conformance, etcd_client, etcd3gw, etcdctl,
    examples, full_disk, kill, pytest, python_etcd, rust_checks, sim, snapshot, tls,
};

/// One suite: its name, what it may take, and its work.
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    /// Over this it is reported, at three times this it is killed.
    pub(crate) budget: Duration,
    pub(crate) about: &'static str,
    pub(crate) needs_server: bool,
    work: fn(&Path) -> Result<Outcome>,
}

pub(crate) const fn suite(
    name: &'static str,
    budget_s: u64,
    about: &'static str,
    work: fn(&Path) -> Result<Outcome>,
) -> Suite {
    let budget = Duration::from_secs(budget_s);
    Suite {
        name,
        budget,
        about,
        needs_server: true,
        work,
    }
}

const fn without_server(suite: Suite) -> Suite {
    Suite {
        needs_server: false,
        ..suite
    }
}

/// All suites, in the order in which they run: what fails fast and often comes first.
pub(crate) const SUITES: &[Suite] = &[
    without_server(suite("format", 30, "rustfmt has nothing to change", |_| {
        rust_checks::format()
    })),
    without_server(suite(
        "architecture",
        60,
        "crates depend as ARCHITECTURE.md's map says",
        |_| architecture::check(),
    )),
    without_server(suite("clippy", 420, "no warnings in the workspace", |_| {
        rust_checks::clippy()
    })),
    without_server(suite(
        "unit",
        600,
        "cargo nextest and the documentation's examples",
        |_| rust_checks::unit(),
    )),
    without_server(suite(
        "sim",
        180,
        "simulated members keep their promises",
        |_| sim::suite(),
    )),
    suite(
        "v2-conformance",
        60,
        "recorded answers of etcd 3.4.23's v2 API",
        conformance::v2,
    ),
    suite(
        "v3-conformance",
        120,
        "recorded answers of etcd 3.7.1's JSON gateway",
        conformance::v3,
    ),
    suite(
        "etcdctl",
        120,
        "etcdctl 3.4.23 in both API versions, to one member and to three",
        etcdctl::suite,
    ),
    suite(
        "python-etcd",
        180,
        "python-etcd 0.4.5's own integration tests, which kill clusters",
        python_etcd::suite,
    ),
    suite(
        "etcd3gw",
        120,
        "the tests of etcd3gw 2.7.0, over the JSON gateway",
        etcd3gw::suite,
    ),
    suite(
        "aetcd",
        90,
        "aetcd 1.0.0's own integration tests",
        pytest::aetcd,
    ),
    suite(
        "etcd3",
        120,
        "python-etcd3 0.12.0's own tests",
        pytest::etcd3,
    ),
    suite(
        "etcd-client",
        300,
        "the etcd-client crate's own tests",
        etcd_client::suite,
    ),
    suite(
        "bad-input",
        90,
        "what no client, peer or directory should send or hold",
        bad_input::suite,
    ),
    suite(
        "bootstrap",
        60,
        "members find their cluster by discovery, beside etcd's own, and by SRV records",
        bootstrap::suite,
    ),
    suite(
        "kill",
        120,
        "a server under load is killed 20 times",
        kill::suite,
    ),
    suite(
        "cluster",
        180,
        "clusters of three and five under load and faults: every answer is checked",
        cluster::suite,
    ),
    suite(
        "full-disk",
        60,
        "a server on a full disk loses nothing and goes on by itself",
        full_disk::suite,
    ),
    suite(
        "snapshot",
        60,
        "snapshots between Quorate and etcd 3.4.23, both ways",
        snapshot::suite,
    ),
    suite(
        "tls",
        60,
        "curl, openssl and etcdctl over TLS, with certificates that change",
        tls::suite,
    ),
    suite(
        "examples",
        60,
        "README's commands, typed as printed",
        examples::suite,
    ),
];

/// Runs a suite in this process.
pub(crate) fn run(name: &str, server: &Path) -> Result<ExitCode> {
    let suite = SUITES
        .iter()
        .find(|suite| suite.name == name)
        .with_context(|| format!("there is no suite {name:?}"))?;
    // Some suites start the server in another directory.
    Ok((suite.work)(&std::path::absolute(server)?)?.report())
}
