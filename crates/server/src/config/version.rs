//! The versions that this program names: etcd's, whose API it answers, and its own.

/// The release of etcd whose API we answer, wherever a client looks (`--version`, `/version`, Status).
pub const API_VERSION: &str = "3.7.1";

/// The cluster version that goes with [`API_VERSION`], also told as the storage version.
pub const CLUSTER_VERSION: &str = "3.7.0";

/// Our own version.
pub const QUORATE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit this was built from, when the build was told it (`QUORATE_GIT_SHA=... cargo build`).
pub const GIT_SHA: Option<&str> = option_env!("QUORATE_GIT_SHA");

/// What `--version` prints: etcd's four lines, which scripts cut apart, then our own.
#[must_use]
pub fn text() -> String {
    format!(
        "etcd Version: {API_VERSION}\nGit SHA: {}\nGo Version: none (Rust {})\nGo OS/Arch: {}/{}\n\
         Quorate Version: {QUORATE_VERSION}\n",
        GIT_SHA.unwrap_or("not recorded in this build"),
        env!("CARGO_PKG_RUST_VERSION"),
        std::env::consts::OS,
        go_arch(std::env::consts::ARCH),
    )
}

/// The name that Go has for an architecture.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
