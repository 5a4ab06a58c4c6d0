//! `quorate util ...`: what can be done with a data directory while no server runs on it.
//!
//! Owns the arguments; the work is done elsewhere. Its own syntax, so `clap` reads it.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

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
}
