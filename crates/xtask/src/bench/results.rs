//! What was measured, kept between runs so that a whole table can be made of parts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::workspace;

/// Figures of one server in one case, by name; the unit is last in the name.
pub(super) type Figures = BTreeMap<String, f64>;

/// All cases that were measured, by case and server.
#[derive(Default)]
pub(super) struct Results {
    /// What was measured: a commit, or a program.
    pub(super) subject: String,
    cases: BTreeMap<String, BTreeMap<String, Figures>>,
    /// What [`Results::get`] knows; all if there is none.
    measured_now: Option<BTreeSet<String>>,
}

impl Results {
    /// Begins with what was measured of a subject before, of which nothing is shown unless `all`.
    pub(super) fn load(subject: &str, all: bool) -> Result<Self> {
        let subject = subject.to_owned();
        let measured_now = (!all).then(BTreeSet::new);
        let mut cases = BTreeMap::new();
        if let Ok(text) = fs::read_to_string(path()?) {
            let (of, measured): (String, _) = serde_json::from_str(&text)?;
            if of == subject {
                cases = measured;
            }
        }
        Ok(Self {
            subject,
            cases,
            measured_now,
        })
    }

    /// Notes a case, and writes all to the disk.
    pub(super) fn put(&mut self, case: &str, server: &str, figures: Figures) -> Result<()> {
        if let Some(now) = &mut self.measured_now {
            now.insert(case.to_owned());
        }
        let servers = self.cases.entry(case.to_owned()).or_default();
        servers.insert(server.to_owned(), figures);
        Ok(fs::write(
            path()?,
            serde_json::to_string_pretty(&(&self.subject, &self.cases))?,
        )?)
    }

    /// A figure, if it was measured.
    pub(super) fn get(&self, case: &str, server: &str, figure: &str) -> Option<f64> {
        if self
            .measured_now
            .as_ref()
            .is_some_and(|now| !now.contains(case))
        {
            return None;
        }
        self.cases.get(case)?.get(server)?.get(figure).copied()
    }

    /// etcd's figure and ours.
    pub(super) fn both(&self, case: &str, figure: &str) -> Option<[f64; 2]> {
        Some([
            self.get(case, "etcd", figure)?,
            self.get(case, "quorate", figure)?,
        ])
    }

    /// Ours as a share of etcd's.
    pub(super) fn ratio(&self, case: &str, figure: &str) -> Option<f64> {
        self.both(case, figure).map(|[etcd, ours]| ours / etcd)
    }
}

fn path() -> Result<PathBuf> {
    Ok(workspace::scratch()?.join("bench.json"))
}
