//! Runs the tests that the etcd-client crate ships, from a package of ours outside the workspace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::member::{Config, Member};
use crate::outcome::Outcome;
use crate::rust_checks::cargo;
use crate::{tools, workspace};

/// The crate's tests of what is built. Of leadership it wants a header that etcd does not send.
const TESTS: &[&str] = &[
    "test_put",
    "test_get",
    "test_delete",
    "test_compact",
    "test_txn",
    "test_watch",
    "test_grant_revoke",
    "test_keep_alive",
    "test_time_to_live",
    "test_leases",
    "test_status",
    "test_alarm",
    "test_defragment",
    "test_hash",
    "test_hash_kv",
    "test_snapshot",
    "test_remove_and_add_endpoint",
    "test_namespace_kv",
];
/// Of the messages that every protoc should know, one file.
const WELL_KNOWN: &str = "/usr/include/google/protobuf/descriptor.proto";
const MANIFEST: &str = "tests-clients/etcd-client/Cargo.toml";
const TEST_FILES: &[&str] = &["client.rs", "namespace.rs", "testing.rs"];

pub(crate) fn suite(server: &Path) -> Result<Outcome> {
    for (file, package) in [
        ("protoc", "protobuf-compiler"),
        (WELL_KNOWN, "libprotobuf-dev"),
    ] {
        if let Err(missing) = tools::ensure_debian(file, &[package]) {
            return Ok(Outcome::Skipped(missing));
        }
    }
    if !tools::has_own_ports() {
        // The network is still here: the packages come from the registry.
        copy_tests()?;
        tools::run(&mut test_command(&["--no-run"]))?;
        return tools::with_own_ports("etcd-client", server);
    }
    let dir = workspace::empty_dir("etcd-client")?;
    let config = Config {
        server,
        dir: &dir,
        flags: &[],
    };
    // The crate's tests have localhost:2379 written into them.
    let members = [
        ("m1", (2379, 2380)),
        ("m2", (2381, 2382)),
        ("m3", (2383, 2384)),
    ];
    let _members = Member::start_named(&config, &members)?;
    let names: Vec<_> = ["--offline", "--", "--exact"]
        .iter()
        .chain(TESTS)
        .copied()
        .collect();
    let text = tools::output(&mut test_command(&names))?;
    println!("{text}");
    let passed = text
        .lines()
        .filter(|line| line.starts_with("test ") && line.ends_with("... ok"))
        .count();
    if passed != TESTS.len() {
        bail!("{passed} tests ran; the crate should have {}", TESTS.len());
    }
    Ok(Outcome::Passed(format!("{passed} of the crate's tests")))
}

fn test_command(args: &[&str]) -> Command {
    let mut command = cargo(&["test", "--locked", "--manifest-path", MANIFEST, "--tests"]);
    command.args(args).env(
        "CARGO_TARGET_DIR",
        workspace::target().join("etcd-client/build"),
    );
    command
}

/// Copies the crate's tests from the registry's package to where our manifest looks for them.
fn copy_tests() -> Result<()> {
    let dir = workspace::root().join("target/etcd-client/tests");
    fs::create_dir_all(&dir)?;
    for file in TEST_FILES {
        // Cargo wants the files of a manifest to be there before it tells where the package is.
        fs::File::options()
            .create(true)
            .append(true)
            .open(dir.join(file))?;
    }
    let package = package_dir()?;
    for file in TEST_FILES {
        let text = fs::read_to_string(package.join("tests").join(file))?;
        let to = dir.join(file);
        if fs::read_to_string(&to)? != text {
            fs::write(&to, text)?;
        }
    }
    Ok(())
}

/// Where cargo unpacked the etcd-client crate.
fn package_dir() -> Result<PathBuf> {
    let args = [
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--manifest-path",
        MANIFEST,
    ];
    let metadata: Value = serde_json::from_str(&tools::output(&mut cargo(&args))?)?;
    let packages = metadata["packages"]
        .as_array()
        .context("metadata without packages")?;
    let package = packages
        .iter()
        .find(|package| package["name"] == "etcd-client");
    let manifest = package.and_then(|package| package["manifest_path"].as_str());
    let manifest = Path::new(manifest.context("etcd-client is not among the packages")?);
    Ok(manifest
        .parent()
        .context("a manifest lies in a directory")?
        .to_owned())
}
