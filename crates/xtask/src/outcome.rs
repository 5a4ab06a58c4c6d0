//! How a suite ends, and how its process tells the runner.

use std::process::ExitCode;

/// The exit code of a suite that could not run here; the custom is automake's.
pub(crate) const SKIPPED: u8 = 77;

/// How a suite that did not fail ended. A failure is an `Err`.
pub(crate) enum Outcome {
    /// Everything ran and held; the text says how much that was; empty if
    /// the last line of the output says it already.
    Passed(String),
    /// Nothing ran; the text says what is missing.
    Skipped(String),
}

impl Outcome {
    /// Prints the text as the last line of the suite's output, where the runner looks for it.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Passed(what) => {
                if !what.is_empty() {
                    println!("{what}");
                }
                ExitCode::SUCCESS
            }
            Self::Skipped(why) => {
                println!("skipped: {why}");
                ExitCode::from(SKIPPED)
            }
        }
    }
}
