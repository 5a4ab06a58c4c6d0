//! What a run did, line by line: one seed gives one trace.

use std::fmt::Arguments;

/// Where the lines go.
#[derive(Clone, Debug, Default)]
pub enum Trace {
    /// Nowhere.
    #[default]
    Silent,
    /// Into memory.
    Kept(Vec<String>),
    /// To standard output.
    Printed,
}

impl Trace {
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::Silent)
    }

    pub(crate) fn note(&mut self, line: Arguments<'_>) {
        match self {
            Self::Silent => {}
            Self::Kept(lines) => lines.push(line.to_string()),
            Self::Printed => println!("{line}"),
        }
    }
}
