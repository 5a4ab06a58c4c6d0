//! Where things are: the repository's root, the build directory, and directories for one run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the manifest lies in crates/xtask")
}

/// Cargo's build directory.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The server that `cargo build --release` makes.
pub(crate) fn release_server() -> PathBuf {
    target().join("release/quorate")
}

/// The directory of xtask's logs and scratch data, made if need be.
pub(crate) fn scratch() -> Result<PathBuf> {
    let path = target().join("xtask");
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

/// An empty directory under [`scratch`], whatever an earlier run left there.
pub(crate) fn empty_dir(name: &str) -> Result<PathBuf> {
    let path = scratch()?.join(name);
    if path.exists() {
        fs::remove_dir_all(&path).with_context(|| format!("cannot clear {}", path.display()))?;
    }
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

/// The files of a directory with the given ending, in order of their names.
pub(crate) fn files(dir: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == ending) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
