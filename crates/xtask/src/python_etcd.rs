//! Runs the integration tests that python-etcd 0.4.5 ships in its source package.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::outcome::Outcome;
use crate::{tools, workspace};

/// The last release that came with a v2 server of its own time.
const SOURCE: &str = "python-etcd==0.4.5";
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
        source(&tools::venv("python-etcd", PACKAGES)?)?;
        return tools::with_own_ports("python-etcd", server);
    }
    let python = tools::venv("python-etcd", PACKAGES)?;
    let source = source(&python)?;
    let dir = workspace::empty_dir("python-etcd")?;
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

/// The unpacked source package, downloaded on first use.
fn source(python: &Path) -> Result<PathBuf> {
    let dir = workspace::target().join("python-etcd");
    let unpacked = dir.join("python-etcd-0.4.5");
    if !unpacked
        .join("src/etcd/tests/integration/test_simple.py")
        .is_file()
    {
        std::fs::create_dir_all(&dir)?;
        tools::run(
            Command::new(python)
                .args([
                    "-m",
                    "pip",
                    "download",
                    "-q",
                    "--disable-pip-version-check",
                    "--no-deps",
                ])
                .args(["--no-build-isolation", "--no-binary=:all:", "--dest"])
                .arg(&dir)
                .arg(SOURCE),
        )?;
        tools::run(
            Command::new("tar")
                .arg("-xzf")
                .arg(dir.join("python-etcd-0.4.5.tar.gz"))
                .arg("-C")
                .arg(&dir),
        )?;
    }
    Ok(unpacked)
}
