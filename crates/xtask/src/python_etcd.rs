//! Runs the integration tests that python-etcd 0.4.5 ships in its source package.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::outcome::Outcome;
use crate::{tools, workspace};

const NAME: &str = "python-etcd";
/// The last release that came with a v2 server of its own time.
const VERSION: &str = "0.4.5";
/// What the client and its tests import, at versions that work with each other.
const PACKAGES: &[&str] = &[
    "urllib3==1.26.20",
    "dnspython==2.7.0",
    "pyOpenSSL==24.3.0",
    "cryptography==44.0.3",
    "cffi==1.17.1",
    "pycparser==2.22",
    "setuptools==75.8.0",
];

pub(crate) fn suite(server: &Path) -> Result<Outcome> {
    if tools::find("python3").is_none() {
        return Ok(Outcome::Skipped("python3 is missing".into()));
    }
    if !tools::has_own_ports() {
        // The network is still here: the packages come from PyPI.
        tools::source_package(&tools::venv(NAME, PACKAGES)?, NAME, VERSION)?;
        return tools::with_own_ports(NAME, server);
    }
    let python = tools::venv(NAME, PACKAGES)?;
    let source = tools::source_package(&python, NAME, VERSION)?;
    let dir = workspace::empty_dir(NAME)?;
    tools::alias(&dir, "etcd", server)?;
    // The tests start the first `etcd` in PATH.
    let path = std::env::var("PATH").unwrap_or_default();
    tools::run(
        Command::new(&python)
            .arg(workspace::root().join("testdata/clients/python-etcd/run.py"))
            .arg(&source)
            .env("PATH", format!("{}:{path}", dir.display()))
            .env("ETCD_ENABLE_V2", "true")
            .env("TMPDIR", &dir),
    )?;
    Ok(Outcome::Passed(String::new()))
}
