//! Checks that the crates depend on each other, and on others' crates, as it is written down.
//!
//! Reads three things: `cargo metadata`; the table headed `| crate | may use |` in
//! ARCHITECTURE.md; and the table headed `| crate | why | licence |` in
//! `docs/decisions/dependencies.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::outcome::Outcome;
use crate::rust_checks::cargo;
use crate::{tools, workspace};

/// The crates in which no clock, file, thread or hash map can be named.
const CORE: &[&str] = &["store", "log"];

pub(crate) fn check() -> Result<Outcome> {
    let root = workspace::root();
    let args = ["metadata", "--format-version", "1"];
    let metadata: Value = serde_json::from_str(&tools::output(&mut cargo(&args))?)?;
    let packages = packages(&metadata)?;
    let mut wrong = edges_off_the_map(
        &packages,
        &read_table(&root.join("ARCHITECTURE.md"), "may use")?,
    );
    let reasons = read_table(&root.join("docs/decisions/dependencies.md"), "why")?;
    wrong.extend(unexplained(&packages, &reasons));
    wrong.extend(std_in_dependencies(&metadata)?);
    for core in CORE {
        for file in rust_files(&root.join("crates").join(core).join("src"))? {
            wrong.extend(std_in_source(
                &file.display().to_string(),
                &fs::read_to_string(&file)?,
            ));
        }
        let lib = root.join("crates").join(core).join("src/lib.rs");
        if !fs::read_to_string(&lib)?
            .lines()
            .any(|line| line == "#![no_std]")
        {
            wrong.push(format!("{} lacks #![no_std]", lib.display()));
        }
    }
    if !wrong.is_empty() {
        wrong.iter().for_each(|line| println!("{line}"));
        bail!(
            "{} things are not as ARCHITECTURE.md and docs/decisions say",
            wrong.len()
        );
    }
    Ok(Outcome::Passed(format!(
        "{} crates of ours",
        packages.len()
    )))
}

/// One crate of the workspace, with the crates that its manifest names.
struct Package {
    name: String,
    ours: BTreeSet<String>,
    others: BTreeSet<String>,
}

/// The crate's name in the map: its directory's, not cargo's.
fn short(name: &str) -> &str {
    if name == "quorate" {
        "server"
    } else {
        name.strip_prefix("quorate-").unwrap_or(name)
    }
}

fn packages(metadata: &Value) -> Result<Vec<Package>> {
    let all = metadata["packages"]
        .as_array()
        .context("metadata without packages")?;
    // Packages of the workspace are those that come from no registry.
    let mut packages = Vec::new();
    for package in all.iter().filter(|package| package["source"].is_null()) {
        let name = short(
            package["name"]
                .as_str()
                .context("a package without a name")?,
        )
        .to_owned();
        let (mut ours, mut others) = (BTreeSet::new(), BTreeSet::new());
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let dependency_name = dependency["name"]
                .as_str()
                .context("a dependency without a name")?;
            if dependency["source"].is_null() {
                ours.insert(short(dependency_name).to_owned());
            } else {
                others.insert(dependency_name.to_owned());
            }
        }
        packages.push(Package { name, ours, others });
    }
    Ok(packages)
}

fn edges_off_the_map(packages: &[Package], map: &BTreeMap<String, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in packages {
        let Some(row) = map.get(&package.name) else {
            wrong.push(format!("{} is not in ARCHITECTURE.md's map", package.name));
            continue;
        };
        let allowed: BTreeSet<_> = row
            .split(',')
            .map(|name| short(name.trim().trim_matches('`')))
            .collect();
        for name in package
            .ours
            .iter()
            .filter(|name| !allowed.contains(name.as_str()))
        {
            wrong.push(format!(
                "{} depends on {name}, which the map does not allow",
                package.name
            ));
        }
    }
    wrong
}

fn unexplained(packages: &[Package], reasons: &BTreeMap<String, String>) -> Vec<String> {
    let used: BTreeSet<_> = packages
        .iter()
        .flat_map(|package| &package.others)
        .collect();
    let mut wrong = Vec::new();
    for name in used
        .iter()
        .filter(|name| reasons.get(**name).is_none_or(|why| why.is_empty()))
    {
        wrong.push(format!(
            "docs/decisions/dependencies.md does not say why we use {name}"
        ));
    }
    for name in reasons.keys().filter(|name| !used.contains(name)) {
        wrong.push(format!(
            "docs/decisions/dependencies.md explains {name}, which we do not use"
        ));
    }
    wrong
}

/// A markdown table, first column to second, found by its second column's heading.
fn read_table(path: &Path, heading: &str) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).with_context(|| format!("no {}", path.display()))?;
    let rows = table(&text, heading);
    if rows.is_empty() {
        bail!(
            "{} has no table headed | crate | {heading} |",
            path.display()
        );
    }
    Ok(rows)
}

fn table(markdown: &str, heading: &str) -> BTreeMap<String, String> {
    let cells = |line: &str| -> Vec<String> {
        line.trim()
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    let rows = markdown
        .lines()
        .skip_while(|line| cells(line).get(1).is_none_or(|cell| cell != heading));
    let rows = rows
        .take_while(|line| line.trim_start().starts_with('|'))
        .skip(2);
    rows.map(|line| {
        let cells = cells(line);
        let name = cells[0].trim_matches('`');
        (
            short(name).to_owned(),
            cells.get(1).cloned().unwrap_or_default(),
        )
    })
    .collect()
}

/// Uses of std outside tests in a source file of the core.
fn std_in_source(file: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut before = "";
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with("extern crate std") && before != "#[cfg(test)]" {
            wrong.push(format!(
                "{file}:{}: extern crate std outside cfg(test)",
                at + 1
            ));
        }
        if !line.is_empty() {
            before = line;
        }
    }
    wrong
}

/// Crates that the core is built on and that are not `no_std` themselves.
fn std_in_dependencies(metadata: &Value) -> Result<Vec<String>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let id = |value: &Value| value["id"].as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<_, _> = list(&metadata["packages"])
        .into_iter()
        .map(|p| (id(&p), p))
        .collect();
    let nodes: BTreeMap<_, _> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| (id(&node), node))
        .collect();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    let is_core = |package: &Value| {
        CORE.iter()
            .any(|c| package["name"] == format!("quorate-{c}"))
    };
    let mut todo: Vec<_> = packages.values().filter(|p| is_core(p)).map(id).collect();
    while let Some(next) = todo.pop() {
        if !seen.insert(next.clone()) {
            continue;
        }
        let package = packages
            .get(&next)
            .context("the graph names an unknown package")?;
        let Some(lib) = library(package) else {
            continue;
        };
        if !fs::read_to_string(&lib)?.contains("no_std") {
            wrong.push(format!(
                "the core is built on {}, which needs std",
                package["name"]
            ));
        }
        let node = nodes.get(&next).context("a package is not in the graph")?;
        for dependency in list(&node["deps"]) {
            let kinds = list(&dependency["dep_kinds"]);
            let here = |kind: &Value| kind["kind"].is_null() && kind["target"].is_null();
            if kinds.iter().any(here) {
                todo.push(dependency["pkg"].as_str().unwrap_or_default().to_owned());
            }
        }
    }
    Ok(wrong)
}

/// The root file of a package's library; `None` for a proc macro, which runs in the compiler.
fn library(package: &Value) -> Option<PathBuf> {
    let targets = package["targets"].as_array()?;
    let is_library = |target: &&Value| {
        target["kind"]
            .as_array()
            .is_some_and(|kinds| kinds.iter().any(|k| k == "lib" || k == "rlib"))
    };
    targets.iter().find(is_library)?["src_path"]
        .as_str()
        .map(PathBuf::from)
}

fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = workspace::files(dir, "rs")?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Package, edges_off_the_map, std_in_source, table, unexplained};

    const MAP: &str =
        "# Map\n\n| crate | may use |\n|---|---|\n| `store` | |\n| server | `store`, log |\n\nrest";

    fn package(name: &str, ours: &[&str], others: &[&str]) -> Package {
        let set = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<BTreeSet<_>>()
        };
        Package {
            name: name.into(),
            ours: set(ours),
            others: set(others),
        }
    }

    #[test]
    fn an_edge_that_the_map_lacks_is_named() {
        let map = table(MAP, "may use");
        assert!(edges_off_the_map(&[package("server", &["store", "log"], &[])], &map).is_empty());
        let wrong = edges_off_the_map(
            &[package("store", &["log"], &[]), package("sim", &[], &[])],
            &map,
        );
        assert_eq!(wrong.len(), 2, "{wrong:?}");
    }

    #[test]
    fn a_crate_needs_a_reason_and_a_reason_a_crate() {
        let reasons = table(
            "| crate | why | licence |\n|---|---|---|\n| `bytes` | buffers | MIT |\n| `a` | |\n",
            "why",
        );
        assert!(
            unexplained(&[package("log", &[], &["bytes", "a"])], &reasons)[0]
                .contains("why we use a")
        );
        assert_eq!(unexplained(&[package("log", &[], &[])], &reasons).len(), 2);
    }

    #[test]
    fn std_is_for_tests_only() {
        assert!(std_in_source("f", "#[cfg(test)]\nextern crate std;\n").is_empty());
        assert_eq!(
            std_in_source("f", "extern crate alloc;\nextern crate std;\n").len(),
            1
        );
    }
}
