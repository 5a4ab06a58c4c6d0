//! `quorate util ...`: what can be done with a data directory while no server runs on it.
//!
//! Owns the arguments; the work is done elsewhere. Its own syntax, so `clap` reads it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{Config, Invocation, UsageError};

/// Tools for a data directory that no server is using.
#[derive(Debug, Parser)]
#[command(
    name = "quorate util",
    bin_name = "quorate util",
    disable_version_flag = true
)]
pub(super) struct Util {
    #[command(subcommand)]
    pub(super) command: UtilCommand,
}

/// One of the tools.
#[derive(Clone, Debug, Eq, PartialEq, Subcommand)]
pub enum UtilCommand {
    /// Reads every record of a data directory and says what it found. Changes nothing.
    Verify {
        /// The data directory, as given to --data-dir.
        data_dir: PathBuf,
    },
    /// Snapshots: etcd's own files, as `etcdctl snapshot save` gets them from either server.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Makes a data directory from a snapshot of an etcd 3, or from its member/snap/db.
    ///
    /// Keys keep their revisions, history and leases. Stop an etcd before its member/snap/db is
    /// copied; what only its log holds is not in there, so a snapshot is better.
    Import(Restore),
    /// Writes the state of a data directory as a snapshot, which etcdutl and etcdctl restore.
    Export {
        /// The data directory, as given to --data-dir. No server may be using it.
        data_dir: PathBuf,
        /// The snapshot to write. Must not exist.
        file: PathBuf,
    },
}

/// What can be done with a snapshot.
#[derive(Clone, Debug, Eq, PartialEq, Subcommand)]
pub enum SnapshotCommand {
    /// Reads a snapshot whole and says what it holds.
    Status {
        /// The snapshot.
        file: PathBuf,
        /// How to say it.
        #[arg(short, long, value_enum, default_value_t)]
        write_out: WriteOut,
    },
    /// Makes a data directory from a snapshot whose SHA-256 is right.
    Restore {
        /// What to restore, and for whom.
        #[command(flatten)]
        restore: Restore,
        /// Restore a file without a SHA-256, or with a wrong one.
        #[arg(long)]
        skip_hash_check: bool,
    },
}

/// How a status is printed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum WriteOut {
    /// One line, with commas.
    #[default]
    Simple,
    /// JSON.
    Json,
    /// A table.
    Table,
}

/// A data directory to make.
#[derive(Args, Clone, Debug, Eq, PartialEq)]
#[group(skip)]
pub struct Restore {
    /// The snapshot.
    pub file: PathBuf,
    /// The data directory to make: must be missing or empty. Unless given, NAME.etcd.
    #[arg(long)]
    pub data_dir: Option<String>,
    /// The member's name, as it will be started with.
    #[arg(long, default_value = "default")]
    pub name: String,
    /// The new cluster: NAME=PEER-URL of each member. Make each one's directory from the same file.
    #[arg(long)]
    pub initial_cluster: Option<String>,
    /// Goes into the new cluster's id.
    #[arg(long)]
    pub initial_cluster_token: Option<String>,
    /// The member's peer URLs.
    #[arg(long)]
    pub initial_advertise_peer_urls: Option<String>,
    /// Adds this to the last revision, so that no client sees a revision twice.
    #[arg(long, default_value_t, requires = "mark_compacted")]
    pub bump_revision: u64,
    /// Makes the last revision a compaction's, so that watches of older ones end.
    #[arg(long, requires = "bump_revision")]
    pub mark_compacted: bool,
    /// Take the file even though it asks for passwords, which nobody here will.
    #[arg(long)]
    pub without_auth: bool,
}

impl Restore {
    /// The member's settings, judged as those of a start.
    ///
    /// # Errors
    /// As [`super::parse`].
    pub fn config(&self) -> Result<Config, UsageError> {
        let name = Some(&self.name);
        let flags = [
            ("--name", name),
            ("--data-dir", self.data_dir.as_ref()),
            ("--initial-cluster", self.initial_cluster.as_ref()),
            (
                "--initial-cluster-token",
                self.initial_cluster_token.as_ref(),
            ),
            (
                "--initial-advertise-peer-urls",
                self.initial_advertise_peer_urls.as_ref(),
            ),
        ];
        let given = flags
            .into_iter()
            .filter_map(|(flag, value)| Some(format!("{flag}={}", value?)));
        let args = given.map(OsString::from);
        let no_file = |_: &std::path::Path| Err(std::io::ErrorKind::Unsupported.into());
        match super::parse(args, std::iter::empty(), no_file)? {
            Invocation::Serve(config, _) => Ok(*config),
            Invocation::Version | Invocation::Help(_) | Invocation::Util(_) => {
                unreachable!("flags of a member ask for a member")
            }
        }
    }
}
