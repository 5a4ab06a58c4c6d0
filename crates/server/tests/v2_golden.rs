//! Runs the scripts of `testdata/golden/v2` and `testdata/golden/one-store`, each on a fresh member.
//!
//! A script is blocks of requests, `---`, and what they printed, with an empty line behind each.
//! `UPDATE_GOLDEN=1` accepts what is printed. The requests:
//!
//! - `v2 METHOD PATH [NAME=VALUE ...]`: the pairs are a form for PUT and POST, a query for others;
//! - `v2 watch NAME PATH [NAME=VALUE ...]` begins a watch, `v2 next NAME` waits for its next line;
//! - `v3 put KEY VALUE [lease=N] [prev] [ignore_value] [ignore_lease]`, `v3 get KEY [END] [rev=N]`,
//!   `v3 del KEY [END]`, `v3 txn PUT-OR-DEL; ...`, `v3 grant ID TTL`, `v3 revoke ID`,
//!   `v3 compact REVISION`, `v3 revision`, and `v3 events FROM`, which prints what a v3 watch of all
//!   keys is told.
//!
//! `\xNN` stands for a byte.

#[path = "v2_golden/bodies.rs"]
mod bodies;
#[path = "v2_golden/session.rs"]
mod session;
#[path = "v2_golden/v2.rs"]
mod v2;
#[path = "v2_golden/v3.rs"]
mod v3;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use session::Session;

/// Members that run at once: some scripts only wait for a ttl to end.
const AT_ONCE: usize = 4;

#[test]
fn one_store() {
    run("one-store");
}

#[test]
fn v2_alone() {
    run("v2");
}

fn run(folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata/golden")
        .join(folder);
    let entries = folder.read_dir().expect("scripts");
    let mut scripts: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    let (left, wrong) = (Mutex::new(scripts.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(script) = next(&left) {
                    wrong.lock().expect("no panic").extend(check(script));
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("no panic");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn next<'a>(left: &Mutex<std::slice::Iter<'a, PathBuf>>) -> Option<&'a PathBuf> {
    left.lock().expect("no panic").next()
}

/// What is wrong with a script, if something is.
fn check(script: &Path) -> Option<String> {
    let expected = std::fs::read_to_string(script).expect("a script");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let printed = runtime.expect("a runtime").block_on(replay(&expected));
    if printed == expected {
        return None;
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(script, &printed).expect("a script that can be written");
        return None;
    }
    Some(format!(
        "{}:\n{}",
        script.display(),
        difference(&expected, &printed)
    ))
}

fn difference(expected: &str, printed: &str) -> String {
    let (mut old, mut new) = (expected.lines(), printed.lines());
    loop {
        match (old.next(), new.next()) {
            (None, None) => return "  line ends differ".to_owned(),
            (old, new) if old != new => {
                return format!("  expected: {old:?}\n  printed:  {new:?}");
            }
            _ => {}
        }
    }
}

async fn replay(script: &str) -> String {
    let mut session = Session::start().await;
    let mut printed = String::new();
    let mut lines = script.lines().peekable();
    while let Some(first) = lines.next() {
        printed += &format!("{first}\n");
        if first.is_empty() || first.starts_with('#') {
            continue;
        }
        let mut requests = vec![first];
        for line in lines.by_ref().take_while(|line| *line != "---") {
            printed += &format!("{line}\n");
            requests.push(line);
        }
        printed += "---\n";
        for request in requests {
            printed += &session.answer(request).await;
        }
        // What was printed the last time.
        while lines.next_if(|line| !line.is_empty()).is_some() {}
    }
    session.stop().await;
    printed
}
