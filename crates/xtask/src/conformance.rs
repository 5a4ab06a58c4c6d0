//! Replays the recorded answers of real etcd servers (`testdata/conformance`).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::outcome::Outcome;
use crate::{tools, workspace};

/// Scenarios of APIs that a server of one member does not have yet.
const V2_LATER: &[&str] = &["auth", "members"];
/// Where `docs/compat.md`'s deviations from the recorded answers are listed.
const DEVIATIONS: &str = "v2.deviations.txt";

/// The recorded answers: the sample, and what `testdata/clients/v2_diff.py` found beyond it.
const V2_RECORDED: &[&str] = &["v2.json", "v2.extra.json"];

pub(crate) fn v2(server: &Path) -> Result<Outcome> {
    let Some(python) = tools::find("python3") else {
        return Ok(Outcome::Skipped("python3 is missing".into()));
    };
    let dir = workspace::root().join("testdata/conformance");
    let mut text = String::new();
    let mut totals = Vec::new();
    for file in V2_RECORDED {
        let replayed = replay_v2(&python, server, &dir, file)?;
        let total = replayed.lines().find(|line| line.starts_with("total: "));
        totals.push(total.context("v2.py did not come to its end")?.to_owned());
        text += &replayed;
    }
    let deviations = fs::read_to_string(dir.join(DEVIATIONS))?;
    judge(&text, &deviations, &totals.join("; "))
}

/// What `v2.py` prints for one file.
fn replay_v2(python: &Path, server: &Path, dir: &Path, file: &str) -> Result<String> {
    let recorded: Value = serde_json::from_str(&fs::read_to_string(dir.join(file))?)?;
    let scenarios = recorded["scenarios"].as_array();
    let ids = scenarios
        .with_context(|| format!("{file} has no scenarios"))?
        .iter()
        .filter_map(|scenario| scenario["id"].as_str());
    let wanted: Vec<_> = ids.filter(|id| !V2_LATER.contains(id)).collect();
    let flags = "--enable-v2 --logger=zap --log-level=error --log-outputs=/dev/null --data-dir {dir} \
                 --listen-client-urls {client} --advertise-client-urls {client} \
                 --listen-peer-urls {peer} --initial-advertise-peer-urls {peer} \
                 --initial-cluster default={peer}";
    let output = Command::new(python)
        .args(["-u".as_ref(), dir.join("v2.py").as_os_str()])
        .args(["--in".as_ref(), dir.join(file).as_os_str()])
        .args(["--only", &wanted.join(",")])
        .args(["--cmd", &format!("{} {flags}", server.display())])
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(text.into_owned())
}

/// Passes if the differences are exactly the listed deviations.
fn judge(output: &str, deviations: &str, total: &str) -> Result<Outcome> {
    let found: BTreeSet<_> = output
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    let found: BTreeSet<_> = found.iter().map(|line| line.trim()).collect();
    let lines = deviations
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let listed: Vec<_> = lines.collect();
    let unlisted: Vec<_> = found
        .iter()
        .filter(|line| !listed.iter().any(|known| line.starts_with(known)))
        .collect();
    let stale: Vec<_> = listed
        .iter()
        .filter(|known| !found.iter().any(|line| line.starts_with(**known)))
        .collect();
    for line in &stale {
        println!("listed in {DEVIATIONS}, but not so: {line}");
    }
    if !unlisted.is_empty() || !stale.is_empty() {
        bail!(
            "{total}; {} not listed, {} listed in vain",
            unlisted.len(),
            stale.len()
        );
    }
    Ok(Outcome::Passed(format!(
        "{total}; those of docs/compat.md: {}",
        listed.len()
    )))
}

pub(crate) fn v3(server: &Path) -> Result<Outcome> {
    let Some(python) = tools::find("python3") else {
        return Ok(Outcome::Skipped("python3 is missing".into()));
    };
    let script = workspace::root().join("testdata/conformance/v3.py");
    tools::run(
        Command::new(python)
            .arg("-u")
            .arg(script)
            .arg("--etcd")
            .arg(server),
    )?;
    Ok(Outcome::Passed(String::new()))
}

#[cfg(test)]
mod tests {
    use super::judge;

    const OUTPUT: &str =
        "root  2 probes 1 DIFFERENCES\n    root step 2 (GET /x): status want 200 got 400\n";

    #[test]
    fn a_difference_must_be_listed() {
        assert!(judge(OUTPUT, "# none\n", "total").is_err());
        assert!(judge(OUTPUT, "root step 2 (GET /x): status\n", "total").is_ok());
    }

    #[test]
    fn a_deviation_that_is_gone_must_leave_the_list() {
        assert!(judge("root  2 probes ok\n", "root step 2\n", "total").is_err());
    }
}
