//! What a run's clients did and saw: the checker's whole input.
//!
//! Every call has the moment it was sent and, if it was answered, the moment its answer was read. All
//! moments are of one monotonic clock, so that "A returned before B was invoked" is exact.
//! Holds no rule about what is right: that is `check`'s.

use std::collections::BTreeMap;
use std::fmt;

/// Nanoseconds of the run's clock.
pub(crate) type Nanos = u64;

/// A member's number, from 0.
pub(crate) type Member = usize;

/// A key that exists, as a model knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Version {
    pub(crate) value: String,
    pub(crate) created: i64,
    pub(crate) modified: i64,
    /// Writes in this life, from 1.
    pub(crate) version: i64,
    /// 0 for none.
    pub(crate) lease: i64,
}

/// All keys of the test at one revision.
pub(crate) type State = BTreeMap<String, Version>;

/// A key as an answer or an event shows it; v2 shows neither version nor lease.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Shown {
    pub(crate) value: String,
    pub(crate) created: i64,
    pub(crate) modified: i64,
    pub(crate) version: Option<i64>,
    pub(crate) lease: Option<i64>,
}

impl Shown {
    /// Whether it shows this version, and nothing else.
    pub(crate) fn is(&self, known: &Version) -> bool {
        self.value == known.value
            && self.created == known.created
            && self.modified == known.modified
            && self.version.is_none_or(|version| version == known.version)
            && self.lease.is_none_or(|lease| lease == known.lease)
    }
}

/// What must hold for a transaction's first branch to be taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Guard {
    /// The key holds this value; `None`: it does not exist.
    Value(String, Option<String>),
    /// The key exists.
    Exists(String),
    /// The key was last written at this revision; 0: it does not exist.
    Modified(String, i64),
}

/// One operation of a transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Op {
    Put {
        key: String,
        value: String,
        lease: i64,
        /// v2's `set` begins a new life of the key.
        fresh: bool,
    },
    Delete {
        key: String,
    },
    /// Keys in `[from, to)`, now or as they were at a revision.
    Range {
        from: String,
        to: String,
        at: Option<i64>,
    },
}

/// Any request of either dialect on keys.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Txn {
    pub(crate) guards: Vec<Guard>,
    pub(crate) then: Vec<Op>,
    pub(crate) otherwise: Vec<Op>,
}

/// What was asked of a member.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Request {
    /// Linearizable unless `is_local`.
    Txn {
        txn: Txn,
        is_local: bool,
    },
    Grant {
        lease: i64,
        ttl_s: u64,
    },
    Revoke {
        lease: i64,
    },
    KeepAlive {
        lease: i64,
        ttl_s: u64,
    },
}

/// What one operation's answer showed, in key order; `None` where the dialect does not show it. A put
/// and a delete show what was there before.
pub(crate) type Result = Option<Vec<(String, Shown)>>;

/// A request that was carried out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Answer {
    /// Of the store after a write, or as a read saw it.
    pub(crate) revision: i64,
    /// Whether the first branch was taken.
    pub(crate) succeeded: bool,
    /// Of the operations of the branch that was taken; empty if none is shown.
    pub(crate) results: Vec<Result>,
}

/// How a call ended for the one who called.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    Ok(Answer),
    /// The answer, or a connection that was refused, says that nothing was done.
    NotDone(String),
    /// It may have been done, or may be yet.
    Unknown(String),
}

/// One call to one member.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) client: String,
    pub(crate) member: Member,
    /// Which of the member's processes answered; `None` if it was restarted meanwhile.
    pub(crate) run: Option<u32>,
    pub(crate) invoked: Nanos,
    pub(crate) returned: Nanos,
    pub(crate) request: Request,
    pub(crate) outcome: Outcome,
}

impl Call {
    /// The answer, if there was one.
    pub(crate) fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Ok(answer) => Some(answer),
            Outcome::NotDone(_) | Outcome::Unknown(_) => None,
        }
    }

    /// A read that may be old.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.request, Request::Txn { is_local: true, .. })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |at: Nanos| at as f64 / 1e6;
        let Self {
            client,
            member,
            request,
            outcome,
            ..
        } = self;
        let (from, to) = (ms(self.invoked), ms(self.returned));
        write!(f, "{client} at member {member}, {from:.3} to {to:.3} ms")?;
        write!(f, "\n        {request:?}\n        {outcome:?}")
    }
}

/// What happened to a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    Put(Shown),
    Delete,
}

/// One event that a watcher was sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Event {
    pub(crate) at: Nanos,
    /// Which message of the watch it came in.
    pub(crate) message: u64,
    pub(crate) revision: i64,
    pub(crate) key: String,
    pub(crate) change: Change,
}

/// A watch on all keys of the test, resumed wherever it broke.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    pub(crate) name: String,
    /// The first revision it asked for.
    pub(crate) from: i64,
    pub(crate) events: Vec<Event>,
    /// Whether a message holds all events of its revisions, as v3's do.
    pub(crate) is_whole: bool,
}

/// One run of clients against one store.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The keys before the first call, and the revision at which they were read.
    pub(crate) base: State,
    pub(crate) base_revision: i64,
    /// The revision of the last write; all watches should have come so far.
    pub(crate) end_revision: i64,
    pub(crate) calls: Vec<Call>,
    pub(crate) watches: Vec<Watch>,
    /// The whole history as each member tells it after the run: watches from the base on.
    pub(crate) logs: Vec<Watch>,
}
