//! The suites that are cargo's: format, lints, unit tests; and the server's build.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::outcome::Outcome;
use crate::{tools, workspace};

/// Builds the server as a user gets it, and says where it is.
pub(crate) fn build_server() -> Result<PathBuf> {
    tools::run(&mut cargo(&["build", "--release", "--package", "quorate"]))?;
    Ok(workspace::release_server())
}

pub(crate) fn format() -> Result<Outcome> {
    tools::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    Ok(Outcome::Passed("every file is formatted".into()))
}

pub(crate) fn clippy() -> Result<Outcome> {
    tools::run(&mut cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    Ok(Outcome::Passed("no warnings".into()))
}

/// Runs the workspace's tests, documentation examples included.
pub(crate) fn unit() -> Result<Outcome> {
    if tools::find("cargo-nextest").is_none() {
        tools::run(&mut cargo(&["test", "--workspace"]))?;
        return Ok(Outcome::Passed(
            "by cargo test, since cargo-nextest is missing".into(),
        ));
    }
    tools::run(&mut cargo(&["test", "--workspace", "--doc"]))?;
    // Last, so that its count of tests is the last line of the log.
    tools::run(&mut cargo(&[
        "nextest",
        "run",
        "--workspace",
        "--no-tests=fail",
        "--no-fail-fast",
    ]))?;
    Ok(Outcome::Passed(String::new()))
}

pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command
        .args(args)
        .current_dir(workspace::root())
        .env("CARGO_TERM_COLOR", "never");
    command
}
