//! Whether a history is one that a correct store could have: exact, since every answer says its revision.
//!
//! The base is the log of events as the members tell it after the run. From it follow the state at every
//! revision, and what every call must have answered.
//!
//! C1. All members tell the same log, without gaps, up to the last write.
//! C2. Each revision was made by one call, with exactly that call's changes; an answered write is there,
//!     once; one that was refused is not; one whose outcome is unknown is there at most once.
//! C3. What a call answered is what its request answers on the state at its revision, all guards,
//!     operations and previous values of a transaction included; so on every member, for ever.
//! C4. Real time: what was invoked after an answer or an event with revision R is not before R, and a
//!     write is after it. Local reads are excused, but on one run of one member none steps back.
//! C5. A watch shows each event of the log from its start to the end, once, in order, and a whole
//!     revision in one message where the dialect promises that.
//! C6. No lease ends before its time.
//!
//! Pure: no clock, no I/O. Its tests plant each violation.

#[cfg(test)]
mod maker;
mod order;
mod replay;
#[cfg(test)]
mod tests;
mod watches;

use std::fmt;

use super::history::{Event, History};

/// A way to be wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Two members tell different histories.
    MembersDiffer,
    /// A revision without an event.
    Hole,
    /// A revision that no call accounts for.
    Unexplained,
    /// Two writes were answered the same revision.
    RevisionTwice,
    /// What was written is not what the write asked for.
    WrongWrite,
    /// An answered write is not in the log.
    LostWrite,
    /// A write that was said not to have been done is in the log.
    DoneAllTheSame,
    /// An answer that the state at its revision does not give.
    WrongAnswer,
    /// A linearizable call that does not see what had been answered before.
    Stale,
    /// A local read that is older than an earlier answer of the same process.
    StepBack,
    /// A watch left something out.
    WatchGap,
    /// A watch told something twice or too late.
    WatchAgain,
    /// A watch's event is not the log's.
    WatchDiffers,
    /// A revision's events came in two messages.
    WatchTorn,
    /// A lease ended before its time.
    EarlyEnd,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text)
    }
}

/// What was found so far.
#[derive(Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn push(&mut self, kind: Kind, text: impl Into<String>) {
        let text = text.into();
        self.0.push(Violation { kind, text });
    }
}

/// What a checked history held.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) answered: usize,
    pub(crate) unknown: usize,
    /// Unknown ones that the log shows to have been done.
    pub(crate) unknown_done: usize,
    pub(crate) revisions: usize,
    pub(crate) events: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.answered += other.answered;
        self.unknown += other.unknown;
        self.unknown_done += other.unknown_done;
        self.revisions += other.revisions;
        self.events += other.events;
    }
}

/// All that is wrong with a history.
pub(crate) fn check(history: &History) -> (Vec<Violation>, Counts) {
    let mut findings = Findings::default();
    let Some(log) = watches::common_log(history, &mut findings) else {
        return (findings.0, Counts::default());
    };
    let replayed = replay::replay(history, &log, &mut findings);
    order::real_time(history, &replayed, &mut findings);
    order::local_reads(history, &mut findings);
    for watch in &history.watches {
        watches::compare(watch, &log, history.end_revision, &mut findings);
    }
    let counts = Counts {
        answered: history
            .calls
            .iter()
            .filter(|call| call.answer().is_some())
            .count(),
        unknown: history
            .calls
            .iter()
            .filter(|call| matches!(call.outcome, super::history::Outcome::Unknown(_)))
            .count(),
        unknown_done: replayed.unknown_done.len(),
        revisions: log.len(),
        events: history.watches.iter().map(|watch| watch.events.len()).sum(),
    };
    (findings.0, counts)
}

/// The events of each revision.
type Log<'a> = std::collections::BTreeMap<i64, Vec<&'a Event>>;
