//! The clients of the scenarios, with what each shows and trusts.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

use super::Secured;
use super::files::Identity;

/// curl, which must be answered; its output.
pub(super) fn curl(arguments: &[&str]) -> Result<String> {
    let output = try_curl(arguments)?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "curl {arguments:?}: {error}");
    Ok(String::from_utf8(output.stdout)?)
}

/// curl, which must not get a connection; what it says.
pub(super) fn curl_refused(arguments: &[&str]) -> Result<String> {
    let output = try_curl(arguments)?;
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(!output.status.success(), "curl {arguments:?}: {answer}");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn try_curl(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "20", "--noproxy", "*"]);
    command.args(arguments).stdin(Stdio::null());
    command.output().context("curl")
}

/// Who asks a server through etcdctl: whom it trusts, and what it shows.
pub(super) struct Asker<'a> {
    pub(super) server: &'a Secured,
    pub(super) trusted: &'a Path,
    pub(super) shown: Option<&'a Identity>,
}

impl Asker<'_> {
    /// A command that must print this.
    pub(super) fn gets(&self, arguments: &[&str], printed: &str) -> Result<()> {
        let output = self.command("10s").args(arguments).output()?;
        let all = [&output.stdout[..], &output.stderr[..]].concat();
        let all = String::from_utf8_lossy(&all).into_owned();
        ensure!(output.status.success() && all.contains(printed), "{all}");
        Ok(())
    }

    /// A command that must fail: etcdctl tries again until its time is over.
    pub(super) fn is_refused(&self) -> Result<()> {
        let output = self.command("1s").args(["put", "refused", "x"]).output()?;
        let all = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(!output.status.success(), "{all}");
        Ok(())
    }

    /// etcdctl, to which a command is to be added.
    pub(super) fn command(&self, limit: &str) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").stdin(Stdio::null());
        command.arg(format!("--dial-timeout={limit}"));
        command.arg(format!("--command-timeout={limit}"));
        command.arg(format!(
            "--endpoints=https://127.0.0.1:{}",
            self.server.client
        ));
        command.arg("--cacert").arg(self.trusted);
        if let Some(Identity { cert, key }) = self.shown {
            command.arg("--cert").arg(cert).arg("--key").arg(key);
        }
        command
    }
}

/// openssl's client, which sends these words; everything that it prints.
pub(super) fn openssl(port: u16, arguments: &[&str], words: &str) -> Result<String> {
    use std::io::Write as _;
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-connect",
        &format!("127.0.0.1:{port}"),
        "-ign_eof",
    ]);
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("openssl")?;
    let input = child.stdin.as_mut().context("no input")?;
    // It may have ended, if it was refused.
    let _ = input.write_all(words.as_bytes());
    let output = child.wait_with_output()?;
    let all = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&all).into_owned())
}

/// A client that runs until its scenario is over.
pub(super) struct Ends(pub(super) std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // Fails only if it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
