//! What the clients ask for, drawn from the seed.
//!
//! Every value is written by one request only: the checker knows an unanswered write by it.

use fastrand::Rng;

use super::clients::{PREFIX, PREFIX_END, Shared};
use super::history::{Guard, Op, Outcome, Request, Txn};

/// Keys of the test: few, so that clients meet on them.
const KEYS: usize = 10;
/// A lease that a round does not outlive, and one that it does.
const TTLS_S: [u64; 2] = [60, 2];

/// What one client has drawn so far.
pub(super) struct Drawn {
    name: String,
    values: u64,
    leases: Vec<(i64, u64)>,
}

impl Drawn {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            values: 0,
            leases: Vec::new(),
        }
    }

    fn value(&mut self) -> String {
        self.values += 1;
        format!("{}-{}", self.name, self.values)
    }

    /// Keeps the leases that were granted and forgets those that are gone.
    pub(super) fn learn(&mut self, request: &Request, outcome: &Outcome) {
        match (request, outcome) {
            (Request::Grant { lease, ttl_s }, Outcome::Ok(_)) => {
                self.leases.push((*lease, *ttl_s));
            }
            (Request::Revoke { lease }, _)
            | (Request::KeepAlive { lease, .. }, Outcome::NotDone(_)) => {
                self.leases.retain(|(held, _)| held != lease);
            }
            _ => {}
        }
    }
}

fn key(rng: &mut Rng) -> String {
    format!("{PREFIX}k{}", rng.usize(..KEYS))
}

/// A put in which the key's life goes on.
pub(super) fn put(key: &str, value: String, lease: i64) -> Op {
    Op::Put {
        key: key.to_owned(),
        value,
        lease,
        fresh: false,
    }
}

fn one(key: &str) -> Op {
    Op::Range {
        from: key.to_owned(),
        to: format!("{key}\0"),
        at: None,
    }
}

/// A read of all keys of the test, now or at a revision.
pub(super) fn all(at: Option<i64>) -> Op {
    Op::Range {
        from: PREFIX.into(),
        to: PREFIX_END.into(),
        at,
    }
}

/// A request of nothing but one operation.
pub(super) fn only(op: Op, is_local: bool) -> Request {
    let txn = Txn {
        then: vec![op],
        ..Txn::default()
    };
    Request::Txn { txn, is_local }
}

/// A v3 request.
pub(super) fn v3(drawn: &mut Drawn, shared: &Shared, rng: &mut Rng) -> Request {
    let key = key(rng);
    match rng.u8(..100) {
        0..25 => {
            let lease = rng.choice(&drawn.leases).map_or(0, |(lease, _)| *lease);
            let lease = if rng.bool() { lease } else { 0 };
            only(put(&key, drawn.value(), lease), false)
        }
        25..33 => only(Op::Delete { key }, false),
        33..55 => {
            let txn = transaction(drawn, shared, &key, rng);
            Request::Txn {
                txn,
                is_local: false,
            }
        }
        55..62 => only(one(&key), false),
        62..70 => only(all(None), false),
        70..82 => only(all(None), true),
        82..92 => {
            let newest = shared.newest();
            let at = rng.i64(shared.base_revision.max(newest - 200)..=newest);
            only(all(Some(at)), rng.bool())
        }
        _ => lease(drawn, rng),
    }
}

/// Two or three keys at once, guarded or not.
fn transaction(drawn: &mut Drawn, shared: &Shared, key: &str, rng: &mut Rng) -> Txn {
    let other = loop {
        let other = self::key(rng);
        if other != key {
            break other;
        }
    };
    let guards = match rng.u8(..4) {
        0 => Vec::new(),
        1 => vec![Guard::Modified(key.to_owned(), 0)],
        _ => vec![Guard::Value(key.to_owned(), shared.value(key))],
    };
    let second = if rng.u8(..3) == 0 {
        Op::Delete { key: other }
    } else {
        put(&other, drawn.value(), 0)
    };
    let then = vec![all(None), put(key, drawn.value(), 0), second, one(key)];
    let otherwise = match rng.u8(..3) {
        0 => vec![put(key, drawn.value(), 0)],
        1 => vec![all(None)],
        _ => Vec::new(),
    };
    Txn {
        guards,
        then,
        otherwise,
    }
}

fn lease(drawn: &mut Drawn, rng: &mut Rng) -> Request {
    match rng.choice(&drawn.leases).copied() {
        Some((lease, ttl_s)) if drawn.leases.len() > 2 || rng.bool() => match rng.u8(..3) {
            0 => Request::Revoke { lease },
            _ => Request::KeepAlive { lease, ttl_s },
        },
        _ => Request::Grant {
            lease: rng.i64(1..i64::MAX),
            ttl_s: TTLS_S[rng.usize(..TTLS_S.len())],
        },
    }
}

/// A v2 request.
pub(super) fn v2(drawn: &mut Drawn, shared: &Shared, rng: &mut Rng) -> Request {
    let key = key(rng);
    let write = |guards, op| Request::Txn {
        txn: Txn {
            guards,
            then: vec![op],
            otherwise: Vec::new(),
        },
        is_local: false,
    };
    let value = drawn.value();
    match (rng.u8(..100), shared.value(&key)) {
        (0..30, _) => {
            let op = Op::Put {
                key,
                value,
                lease: 0,
                fresh: true,
            };
            write(Vec::new(), op)
        }
        (30..40, _) => write(vec![Guard::Value(key.clone(), None)], put(&key, value, 0)),
        (40..50, Some(old)) => {
            let guard = Guard::Value(key.clone(), Some(old));
            write(vec![guard], put(&key, value, 0))
        }
        (40..55, _) => write(vec![Guard::Exists(key.clone())], put(&key, value, 0)),
        (55..62, _) => write(vec![Guard::Exists(key.clone())], Op::Delete { key }),
        (62..72, _) => only(one(&key), false),
        (72..82, _) => only(all(None), false),
        (82..92, _) => only(one(&key), true),
        _ => only(all(None), true),
    }
}
