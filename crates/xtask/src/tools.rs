//! The programs that suites use: finding them, installing them, running them.
//!
//! A suite installs what it needs by itself: Debian packages when this is root on a machine with
//! apt, Python packages into `target/venv`. What cannot be had makes the suite skipped, never passed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::outcome::Outcome;
use crate::workspace;

/// The path of a program, if `PATH` has it; an absolute path, if there is a file.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Runs a command to its end, its output going where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {}", name(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", name(command));
    }
    Ok(())
}

/// A command's program and first arguments, to tell it by.
fn name(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args().take(3));
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs a command to its end and takes its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", name(command)))?;
    if !output.status.success() {
        bail!("{} ended with {}", name(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no UTF-8", name(command)))
}

/// Makes sure that `program` is there, by installing Debian's `packages` if need be.
/// `Err` holds what is missing, as a skipped suite reports it.
pub(crate) fn ensure_debian(program: &str, packages: &[&str]) -> Result<PathBuf, String> {
    match find(program) {
        Some(path) => Ok(path),
        None => install_debian(program, packages),
    }
}

fn install_debian(program: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let package = packages.join(" ");
    if find("apt-get").is_none() {
        return Err(format!(
            "{program} is missing, and so is apt-get to install {package}"
        ));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(format!("{program} is missing; install Debian's {package}"));
    }
    apt_get(&["update", "-q"]).map_err(|error| format!("{program} is missing: {error:#}"))?;
    apt_get(
        &[
            &["install", "-q", "-y", "--no-install-recommends"],
            packages,
        ]
        .concat(),
    )
    .map_err(|error| format!("{program} is missing: {error:#}"))?;
    find(program).ok_or_else(|| format!("{package} was installed, but has no {program}"))
}

fn apt_get(args: &[&str]) -> Result<()> {
    // A freshly installed etcd-server would otherwise be started, and take port 2379.
    run(Command::new("apt-get")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("RUNLEVEL", "1"))
}

/// The Python of a suite's virtual environment, with exactly the given pinned packages installed.
pub(crate) fn venv(suite: &str, packages: &[&str]) -> Result<PathBuf> {
    let dir = workspace::target().join("venv").join(suite);
    let python = dir.join("bin/python");
    let installed = dir.join("installed.txt");
    let wanted = packages.join("\n");
    if std::fs::read_to_string(&installed).is_ok_and(|found| found == wanted) && python.is_file() {
        return Ok(python);
    }
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&dir))?;
    run(Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "--no-deps",
        ])
        .args(packages))?;
    std::fs::write(&installed, wanted)?;
    Ok(python)
}

/// The unpacked source package of a Python client, downloaded on first use. What builds it must be
/// in the environment of `python`.
pub(crate) fn source_package(python: &Path, name: &str, version: &str) -> Result<PathBuf> {
    let dir = workspace::target().join(name);
    let unpacked = dir.join(format!("{name}-{version}"));
    // Written last: the unpacking was not cut short.
    let done = dir.join(format!("{name}-{version}.done"));
    if done.is_file() {
        return Ok(unpacked);
    }
    std::fs::create_dir_all(&dir)?;
    run(Command::new(python)
        .args(["-m", "pip", "download", "-q", "--disable-pip-version-check"])
        .args(["--no-deps", "--no-build-isolation", "--no-binary=:all:"])
        .arg("--dest")
        .arg(&dir)
        .arg(format!("{name}=={version}")))?;
    run(Command::new("tar")
        .arg("-xzf")
        .arg(dir.join(format!("{name}-{version}.tar.gz")))
        .arg("-C")
        .arg(&dir))?;
    std::fs::write(done, "")?;
    Ok(unpacked)
}

/// Set in a suite's process that may take whatever port a foreign test suite has fixed.
const OWN_PORTS: &str = "XTASK_OWN_PORTS";

/// Whether this process was started by [`with_own_ports`].
pub(crate) fn has_own_ports() -> bool {
    std::env::var_os(OWN_PORTS).is_some()
}

/// Runs a suite in another process, where all ports are free: in a network namespace of its own if
/// this is root; else here, and a port that is taken fails the suite.
pub(crate) fn with_own_ports(suite: &str, server: &Path) -> Result<Outcome> {
    let program = std::env::current_exe()?;
    let script = "ip link set lo up && exec \"$0\" \"$@\"";
    let mut command = if can_unshare(script) {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", script]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command
        .args(["suite", suite, "--server"])
        .arg(server)
        .env(OWN_PORTS, "1");
    run(&mut command).with_context(|| format!("{suite}, in a process with its own ports"))?;
    Ok(Outcome::Passed(String::new()))
}

fn can_unshare(script: &str) -> bool {
    find("unshare").is_some()
        && Command::new("unshare")
            .args(["--net", "sh", "-c", script, "true"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

/// Set in a suite's process that may mount what it likes.
const OWN_MOUNTS: &str = "XTASK_OWN_MOUNTS";

/// Whether this process was started by [`with_own_mounts`].
pub(crate) fn has_own_mounts() -> bool {
    std::env::var_os(OWN_MOUNTS).is_some()
}

/// Runs a suite in another process whose mounts end with it. Skipped where only root may mount.
pub(crate) fn with_own_mounts(suite: &str, server: &Path) -> Result<Outcome> {
    let unshared = Command::new("unshare").args(["--mount", "true"]).output();
    if !unshared.is_ok_and(|output| output.status.success()) {
        return Ok(Outcome::Skipped("only root may mount".to_owned()));
    }
    let mut command = Command::new("unshare");
    command
        .arg("--mount")
        .arg(std::env::current_exe()?)
        .args(["suite", suite, "--server"])
        .arg(server)
        .env(OWN_MOUNTS, "1");
    run(&mut command).with_context(|| format!("{suite}, in a process with its own mounts"))?;
    Ok(Outcome::Passed(String::new()))
}

/// Makes `dir/name` a symbolic link to `program`, so that it can be called by another name.
pub(crate) fn alias(dir: &Path, name: &str, program: &Path) -> Result<PathBuf> {
    let program = program
        .canonicalize()
        .with_context(|| format!("no {}", program.display()))?;
    let link = dir.join(name);
    std::os::unix::fs::symlink(&program, &link)
        .with_context(|| format!("cannot make {}", link.display()))?;
    Ok(link)
}
