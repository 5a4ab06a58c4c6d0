//! Replays the recorded answers of real etcd servers (`testdata/conformance`).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::outcome::Outcome;
use crate::{tools, workspace};

/// One API's recorded answers.
struct Recording {
    /// The script that replays it.
    name: &'static str,
    /// The sample, and perhaps what was found beyond it.
    files: &'static [&'static str],
    /// What a scenario is called by in the file.
    id: &'static str,
    /// Scenarios of APIs that are not built yet.
    later: &'static [&'static str],
}

const V2: Recording = Recording {
    name: "v2",
    // The second holds what `testdata/clients/v2_diff.py` found.
    files: &["v2.json", "v2.extra.json"],
    id: "id",
    later: &["auth"],
};
const V3: Recording = Recording {
    name: "v3",
    files: &["v3.json"],
    id: "name",
    later: &["auth"],
};

pub(crate) fn v2(server: &Path) -> Result<Outcome> {
    let flags = "--enable-v2 --logger=zap --log-level=error --log-outputs=/dev/null --data-dir {dir} \
                 --listen-client-urls {client} --advertise-client-urls {client} \
                 --listen-peer-urls {peer} --initial-advertise-peer-urls {peer} \
                 --initial-cluster default={peer}";
    V2.replay(&["--cmd", &format!("{} {flags}", server.display())])
}

pub(crate) fn v3(server: &Path) -> Result<Outcome> {
    V3.replay(&["--etcd", &server.display().to_string()])
}

impl Recording {
    fn replay(&self, arguments: &[&str]) -> Result<Outcome> {
        let Some(python) = tools::find("python3") else {
            return Ok(Outcome::Skipped("python3 is missing".into()));
        };
        let name = self.name;
        let dir = workspace::root().join("testdata/conformance");
        let (mut text, mut totals) = (String::new(), Vec::new());
        for file in self.files {
            let replayed = self.replay_file(&python, &dir, file, arguments)?;
            let total = replayed.lines().find(|line| line.starts_with("total: "));
            let total = total.with_context(|| format!("{name}.py did not come to its end"))?;
            totals.push(total.to_owned());
            text += &replayed;
        }
        let deviations = fs::read_to_string(dir.join(format!("{name}.deviations.txt")))?;
        judge(&differences(&text), &deviations, &totals.join("; "))
    }

    /// What the script prints for one file.
    fn replay_file(
        &self,
        python: &Path,
        dir: &Path,
        file: &str,
        arguments: &[&str],
    ) -> Result<String> {
        let recorded: Value = serde_json::from_str(&fs::read_to_string(dir.join(file))?)?;
        let scenarios = recorded["scenarios"].as_array();
        let ids = scenarios
            .with_context(|| format!("{file} has no scenarios"))?
            .iter()
            .filter_map(|scenario| scenario[self.id].as_str());
        let wanted: Vec<_> = ids.filter(|id| !self.later.contains(id)).collect();
        let output = Command::new(python)
            .arg("-u")
            .arg(dir.join(format!("{}.py", self.name)))
            .args(["--in".as_ref(), dir.join(file).as_os_str()])
            .args(["--only", &wanted.join(",")])
            .args(arguments)
            .stdin(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        println!("{text}{}", String::from_utf8_lossy(&output.stderr));
        Ok(text.into_owned())
    }
}

/// The indented lines, behind the step's name where the line before them gives it.
fn differences(output: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut step = None;
    for line in output.lines() {
        if let Some(failed) = line.strip_prefix("FAIL ") {
            step = failed.split(' ').next();
        } else if let Some(difference) = line.strip_prefix("    ") {
            let step = step.map(|step| format!("{step} ")).unwrap_or_default();
            found.insert(format!("{step}{}", difference.trim()));
        }
    }
    found
}

/// Passes if the differences are exactly the listed deviations.
fn judge(found: &BTreeSet<String>, deviations: &str, total: &str) -> Result<Outcome> {
    let lines = deviations
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let listed: Vec<_> = lines.collect();
    let unlisted = found
        .iter()
        .filter(|line| !listed.iter().any(|known| line.starts_with(known)));
    let stale = listed
        .iter()
        .filter(|known| !found.iter().any(|line| line.starts_with(**known)));
    let (unlisted, stale): (Vec<_>, Vec<_>) = (unlisted.collect(), stale.collect());
    for line in &stale {
        println!("listed as a deviation, but not so: {line}");
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

#[cfg(test)]
mod tests {
    use super::{differences, judge};

    const OUTPUT: &str =
        "root  2 probes 1 DIFFERENCES\n    root step 2 (GET /x): status want 200 got 400\n";

    #[test]
    fn a_difference_must_be_listed() {
        let found = differences(OUTPUT);
        assert!(judge(&found, "# none\n", "total").is_err());
        assert!(judge(&found, "root step 2 (GET /x): status\n", "total").is_ok());
    }

    #[test]
    fn a_deviation_that_is_gone_must_leave_the_list() {
        let found = differences("root  2 probes ok\n");
        assert!(judge(&found, "root step 2\n", "total").is_err());
    }

    #[test]
    fn a_difference_is_of_the_step_named_before_it() {
        let found = differences("FAIL txn#7 /v3/kv/txn note\n    .status: expected 1, got 2\n");
        assert!(found.contains("txn#7 .status: expected 1, got 2"));
    }
}
