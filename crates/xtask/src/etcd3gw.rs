//! Runs the tests that etcd3gw 2.7.0, the Python client of the JSON gateway, ships.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::member::{Config, Member};
use crate::outcome::Outcome;
use crate::{tools, workspace};

/// The client with its tests, and what they import.
const PACKAGES: &[&str] = &[
    "etcd3gw==2.7.0",
    "certifi==2026.10.18",
    "charset-normalizer==3.5.2",
    "debtcollector==3.1.0",
    "fixtures==4.3.2",
    "futurist==3.5.0",
    "idna==3.20",
    "oslotest==6.1.1",
    "pbr==7.1.3",
    "requests==2.34.2",
    "setuptools==75.8.0",
    "testtools==2.9.1",
    "urllib3==2.8.0",
    "wrapt==2.5.2",
];

pub(crate) fn suite(server: &Path) -> Result<Outcome> {
    if tools::find("python3").is_none() {
        return Ok(Outcome::Skipped("python3 is missing".into()));
    }
    let python = tools::venv("etcd3gw", PACKAGES)?;
    let dir = workspace::empty_dir("etcd3gw")?;
    let flags = &[];
    let config = Config {
        server,
        dir: &dir,
        flags,
    };
    let member = Member::start(&config)?;
    let port = member.client_port.to_string();
    let output = Command::new(python)
        .args(["-m", "unittest"])
        .args(["etcd3gw.tests.test_client", "etcd3gw.tests.test_etcd3gw"])
        .env("TOOZ_TEST_HTTP_URL", format!("http://127.0.0.1:{port}"))
        .env("TOOZ_TEST_ETCD_PORT", &port)
        .current_dir(&dir)
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    println!("{}{text}", String::from_utf8_lossy(&output.stdout));
    let count = text.lines().find(|line| line.starts_with("Ran "));
    let count = count.context("the tests did not come to their end")?;
    // Without a server they would be skipped, not failed.
    if !output.status.success() || text.lines().last() != Some("OK") {
        bail!("{count}; {}", text.lines().last().unwrap_or_default());
    }
    Ok(Outcome::Passed(count.to_owned()))
}
