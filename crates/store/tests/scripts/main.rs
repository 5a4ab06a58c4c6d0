//! Runs the scripts of `testdata`, each on a fresh store.
//!
//! A script is the rule that it shows, then blocks: commands, `---`, what they print, an empty
//! line. `!` before a command says that it is refused. The commands are in `parse.rs`. When a
//! script ends, the store is walked and loaded, and must then answer as before.
//! `UPDATE=1` accepts what is printed.

mod parse;
mod session;
#[path = "../support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use session::Session;

/// Folders of `testdata` that hold other things.
const OTHERS: [&str; 2] = ["tree", "golden_v1"];

#[test]
fn scripts() {
    let mut scripts = files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata")));
    scripts.sort();
    assert!(!scripts.is_empty());
    let mut wrong = String::new();
    for script in &scripts {
        let expected = std::fs::read_to_string(script).expect("a script");
        let printed = run(&expected, script);
        if printed == expected {
            continue;
        }
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(script, &printed).expect("a script that can be written");
        } else {
            let _ = writeln!(wrong, "{}", difference(script, &expected, &printed));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn files(testdata: &Path) -> Vec<PathBuf> {
    let areas = list(testdata)
        .filter(|area| !OTHERS.iter().any(|other| area.ends_with(other)))
        .collect::<Vec<_>>();
    areas.iter().flat_map(|area| list(area)).collect()
}

fn list(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = folder.read_dir().expect("a folder");
    entries.map(|entry| entry.expect("an entry").path())
}

fn run(script: &str, path: &Path) -> String {
    let mut lines = script.lines();
    let rule = lines.next().unwrap_or_default();
    assert!(rule.starts_with("# "), "{path:?} does not say its rule");
    let mut printed = format!("{rule}\n");
    let mut session = Session::default();
    let mut blocks = Vec::new();
    while let Some(first) = lines.next() {
        if first.is_empty() {
            continue;
        }
        let rest = lines.by_ref().take_while(|line| *line != "---");
        let commands: Vec<&str> = std::iter::once(first).chain(rest).collect();
        lines
            .by_ref()
            .take_while(|line| !line.is_empty())
            .for_each(drop);
        let answers = session
            .run(&commands)
            .unwrap_or_else(|why| panic!("{path:?}: {why}"));
        blocks.push(format!("{}\n---\n{answers}", commands.join("\n")));
    }
    printed.push_str(&blocks.join("\n"));
    session.reload(1);
    printed
}

fn difference(script: &Path, expected: &str, printed: &str) -> String {
    let pairs = expected.lines().map(Some).chain(std::iter::repeat(None));
    let mut pairs = printed.lines().map(Some).zip(pairs);
    let (new, old) = pairs.find(|(new, old)| new != old).unwrap_or_default();
    format!(
        "{}\n  expected: {old:?}\n  printed:  {new:?}",
        script.display()
    )
}
