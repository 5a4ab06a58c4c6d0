//! Feeds each decoder of foreign bytes what libFuzzer thinks of: the targets of `fuzz/`.
//!
//! They are built with the pinned compiler, with the flags that cargo-fuzz would give, but without a
//! sanitizer, which it lacks and which code without `unsafe` of ours needs least. What a target
//! found before is in `fuzz/corpus`, and is where it begins; what fells it is in `fuzz/artifacts`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::rust_checks::cargo;
use crate::{tools, workspace};

/// Coverage for libFuzzer, overflow checks, and `cfg(fuzzing)`.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cdebug-assertions -Ccodegen-units=1 \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Runs every target for `seconds`, one after the other; fails at the first that falls.
pub(crate) fn run(seconds: u64) -> Result<()> {
    let root = workspace::root().join("fuzz");
    let target = workspace::target().join("fuzz");
    // Named, so that build scripts are built without the flags.
    let host = host()?;
    let build = ["build", "--release", "--target", &host, "--manifest-path"];
    tools::run(
        cargo(&build)
            .arg(root.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .env("RUSTFLAGS", FLAGS),
    )?;
    for source in workspace::files(&root.join("fuzz_targets"), "rs")? {
        let name = source.file_stem().context("a file has a name")?;
        let program = target.join(&host).join("release").join(name);
        println!("fuzzing {} for {seconds} s", name.display());
        target_run(&program, &root, name.as_ref(), seconds)?;
    }
    Ok(())
}

fn target_run(program: &Path, root: &Path, name: &Path, seconds: u64) -> Result<()> {
    let (corpus, artifacts) = (
        root.join("corpus").join(name),
        root.join("artifacts").join(name),
    );
    std::fs::create_dir_all(&corpus)?;
    std::fs::create_dir_all(&artifacts)?;
    tools::run(
        Command::new(program)
            .arg(format!("-max_total_time={seconds}"))
            .args([
                "-rss_limit_mb=1024",
                "-malloc_limit_mb=512",
                "-timeout=5",
                "-verbosity=0",
            ])
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg(&corpus),
    )
}

/// The triple that the compiler builds for.
fn host() -> Result<String> {
    let text = tools::output(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}
