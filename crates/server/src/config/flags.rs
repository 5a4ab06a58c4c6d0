//! What a flag is: its name, how its value is written, and what setting it does.
//!
//! Owns the shape of the tables, [`in_force`](super::in_force), [`security`](super::security) and
//! [`inert`](super::inert), the look-up in them, and how Go writes booleans and numbers. A flag is one row: name, documentation
//! and effect stand together, and the command line, the environment, the YAML file, the help text
//! and the tests all read the same row. Never reads an argument or a variable itself.
//!
//! F1. A name stands in the tables once.
//! F2. A row's default, when it has one, is a value that the row accepts.

use super::draft::Draft;
use super::{duration, in_force, inert, security};

/// How a flag's value is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Texts parted by commas; in YAML also a list.
    List,
    /// Go's booleans. Without a value it is true, and it never takes the next argument.
    Bool,
    /// A decimal number from 0 on; units are in the flag's documentation.
    Uint,
    /// A decimal number that may be negative.
    Int,
    /// Go's durations (`1h30m`, `100ms`); in YAML also a number of nanoseconds, as in etcd.
    Duration,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A flag of etcd 0.4, which etcd 3.4 accepts without looking at its value. Written as a boolean.
    Legacy,
}

/// One flag of the server.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// The name without dashes; its variable is [`Flag::variable`].
    pub name: &'static str,
    /// The releases of etcd that know it; "Quorate" for our own.
    pub versions: &'static str,
    /// The value that holds when nothing is set, as text. Empty for none, or one that follows others.
    pub default: &'static str,
    /// How its value is written.
    pub kind: Kind,
    /// What it does; for one that is not in force, why it does nothing.
    pub doc: &'static str,
    pub(super) effect: Effect,
}

/// Puts a value into the draft, or says why the value is none.
pub(super) type Apply = fn(&mut Draft, &str) -> Result<(), String>;

#[derive(Clone, Copy, Debug)]
pub(super) enum Effect {
    /// Changes how this server runs.
    InForce(Apply),
    /// Accepted, so that what starts etcd starts Quorate, with a warning that it does nothing.
    Inert,
}

/// All flags: those in force in the order of the help text, then those without effect.
pub fn flags() -> impl Iterator<Item = &'static Flag> {
    in_force::TABLE
        .iter()
        .chain(security::TABLE)
        .chain(inert::TABLE)
}

pub(super) fn find(name: &str) -> Option<&'static Flag> {
    flags().find(|flag| flag.name == name)
}

impl Flag {
    /// The name of its environment variable: `data-dir` is `ETCD_DATA_DIR`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("ETCD_{}", self.name.replace('-', "_").to_uppercase())
    }

    /// Whether this server heeds the flag.
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        matches!(self.effect, Effect::InForce(_))
    }

    /// Whether the flag may stand without a value and never takes the next argument.
    #[must_use]
    pub fn is_boolean(&self) -> bool {
        matches!(self.kind, Kind::Bool | Kind::Legacy)
    }

    /// Puts a value into `draft`, or refuses it with the reason.
    pub(super) fn set(&self, draft: &mut Draft, value: &str) -> Result<(), String> {
        match self.effect {
            Effect::InForce(apply) => apply(draft, value),
            Effect::Inert => {
                self.kind.check(value)?;
                draft.warn_once(format!(
                    "--{} does nothing in Quorate: {}",
                    self.name, self.doc
                ));
                Ok(())
            }
        }
    }
}

impl Kind {
    fn check(self, value: &str) -> Result<(), String> {
        match self {
            Self::Text | Self::List | Self::Legacy => Ok(()),
            Self::Bool => boolean(value).map(drop),
            Self::Uint => uint(value).map(drop),
            Self::Int => int(value).map(drop),
            Self::Duration => duration::parse_ns(value).map(drop),
            Self::Choice(words) => choice(value, words).map(drop),
        }
    }
}

/// What Go says of a number or boolean that it cannot read.
const PARSE_ERROR: &str = "parse error";

pub(super) fn boolean(value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(PARSE_ERROR.to_owned()),
    }
}

pub(super) fn uint(value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| PARSE_ERROR.to_owned())
}

pub(super) fn int(value: &str) -> Result<i64, String> {
    value.parse().map_err(|_| PARSE_ERROR.to_owned())
}

pub(super) fn choice<'a>(value: &'a str, words: &[&str]) -> Result<&'a str, String> {
    if words.contains(&value) {
        Ok(value)
    } else {
        Err("invalid value".to_owned())
    }
}

/// The items of a comma-separated list. An empty text is an empty list.
pub(super) fn list(value: &str) -> Vec<String> {
    value
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}
