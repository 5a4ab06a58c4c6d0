//! What was measured, kept between runs so that a whole table can be made of parts.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::workspace;

/// Figures of one server in one case, by name; the unit is last in the name.
pub(super) type Figures = BTreeMap<String, f64>;

/// All cases that were measured, by case and server.
#[derive(Default)]
pub(super) struct Results {
    /// The commit that was measured.
    pub(super) commit: String,
    cases: BTreeMap<String, BTreeMap<String, Figures>>,
}

impl Results {
    /// What was measured of a commit before.
    pub(super) fn load(commit: &str) -> Result<Self> {
        let fresh = Self {
            commit: commit.to_owned(),
            cases: BTreeMap::new(),
        };
        let Ok(text) = fs::read_to_string(path()?) else {
            return Ok(fresh);
        };
        let (measured, cases): (String, _) = serde_json::from_str(&text)?;
        Ok(if measured == commit {
            Self {
                commit: measured,
                cases,
            }
        } else {
            fresh
        })
    }

    /// Notes a case, and writes all to the disk.
    pub(super) fn put(&mut self, case: &str, server: &str, figures: Figures) -> Result<()> {
        let servers = self.cases.entry(case.to_owned()).or_default();
        servers.insert(server.to_owned(), figures);
        Ok(fs::write(
            path()?,
            serde_json::to_string_pretty(&(&self.commit, &self.cases))?,
        )?)
    }

    pub(super) fn get(&self, case: &str, server: &str, figure: &str) -> Option<f64> {
        self.cases.get(case)?.get(server)?.get(figure).copied()
    }
}

fn path() -> Result<PathBuf> {
    Ok(workspace::scratch()?.join("bench.json"))
}
