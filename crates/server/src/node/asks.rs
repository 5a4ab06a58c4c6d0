//! Questions that only the leader can answer, and that are none of the log's: what is left of a lease,
//! and that it be renewed.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quorate_replica::LeaseAnswer;
use quorate_store::codec::{DecodeError, Read, Write};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{LATE, Node, Unavailable};
use crate::peer;

/// The questions that are out.
#[derive(Default)]
pub(super) struct Asks(Mutex<Out>);

#[derive(Default)]
struct Out {
    last: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Bytes>>,
}

const RENEW: u8 = 1;
const LEFT: u8 = 2;

impl Asks {
    fn out(&self) -> MutexGuard<'_, Out> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an answer to whoever asked.
    pub(super) fn answered(&self, frame: Bytes) {
        let mut read = Read::new(frame);
        let Ok(number) = read.u64() else {
            return;
        };
        if let Some(waiting) = self.out().waiting.remove(&number) {
            // Whoever asked may be gone.
            let _ = waiting.send(read.rest());
        }
    }
}

/// Forgets a question that nobody waits for any more.
struct Asked<'a>(&'a Asks, u64);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.out().waiting.remove(&self.1);
    }
}

impl Node {
    /// Gives a lease its full time again: its length in seconds; `None` if it is unknown or over.
    ///
    /// # Errors
    /// [`Unavailable::NoLeader`], [`Unavailable::TimedOut`].
    pub async fn renew(&self, lease: i64) -> Result<Option<i64>, Unavailable> {
        let renewed = match self.renew_here(lease) {
            Some(renewed) => renewed,
            None => {
                let answer = self.ask(RENEW, lease).await?;
                decode(answer, |read| read.i64())?
            }
        };
        if renewed.is_some() {
            self.0.metrics.leases_renewed.one();
        }
        Ok(renewed)
    }

    /// What is left of a lease; `None` if it is unknown.
    ///
    /// # Errors
    /// [`Unavailable::NoLeader`], [`Unavailable::TimedOut`].
    pub async fn lease_left(&self, lease: i64) -> Result<Option<LeaseAnswer>, Unavailable> {
        if let Some(left) = self.lease_left_here(lease) {
            return Ok(left);
        }
        let answer = self.ask(LEFT, lease).await?;
        decode(answer, |read| {
            Ok(LeaseAnswer {
                left_ms: read.u64()?,
                ttl_s: read.i64()?,
            })
        })
    }

    /// `None` if this member does not lead.
    fn renew_here(&self, lease: i64) -> Option<Option<i64>> {
        let (mut replica, now) = (self.0.replica(), self.0.now());
        replica.leads_at(now).then(|| replica.renew(now, lease))
    }

    fn lease_left_here(&self, lease: i64) -> Option<Option<LeaseAnswer>> {
        let (replica, now) = (self.0.replica(), self.0.now());
        replica
            .leads_at(now)
            .then(|| replica.lease_left(now, lease))
    }

    /// Asks whoever leads, again after a change of leaders, until an answer comes.
    async fn ask(&self, kind: u8, lease: i64) -> Result<Bytes, Unavailable> {
        let deadline = Instant::from_std(self.0.deadline());
        let pause = self.config().heartbeat_interval;
        loop {
            let leader = self.0.replica().status().leader;
            match leader.filter(|id| *id != self.0.member_id && self.links().is_up(*id)) {
                Some(leader) => {
                    let asked = self.ask_of(leader, kind, lease, deadline).await;
                    if let Some(answer) = asked.filter(|answer| !answer.is_empty()) {
                        return Ok(answer);
                    }
                }
                None if leader.is_none() && Instant::now() + pause >= deadline => {
                    return Err(Unavailable::NoLeader);
                }
                None => {}
            }
            if Instant::now() + pause >= deadline {
                return Err(LATE);
            }
            tokio::time::sleep(pause).await;
            // It may be this member by now.
            if let Some(answer) = self.answer_here(kind, lease) {
                return Ok(answer);
            }
        }
    }

    async fn ask_of(&self, leader: u64, kind: u8, lease: i64, deadline: Instant) -> Option<Bytes> {
        let (answer, answered) = oneshot::channel();
        let asks = &self.0.peers.asks;
        let number = {
            let mut out = asks.out();
            out.last += 1;
            let number = out.last;
            out.waiting.insert(number, answer);
            number
        };
        let _asked = Asked(asks, number);
        let mut frame = Vec::new();
        frame.u64(number);
        frame.u8(kind);
        frame.i64(lease);
        self.links().send(leader, peer::ASK, frame.into());
        let patience = self.config().election_timeout;
        let soon = deadline.min(Instant::now() + patience);
        tokio::time::timeout_at(soon, answered).await.ok()?.ok()
    }

    /// The answer to a question; none if this member does not lead, or does not know it.
    fn answer_here(&self, kind: u8, lease: i64) -> Option<Bytes> {
        match kind {
            RENEW => self.renew_here(lease).map(encode_renewed),
            LEFT => self.lease_left_here(lease).map(encode_left),
            _ => None,
        }
    }

    /// Answers a member that believes that this one leads; with nothing if it does not.
    pub(super) fn answer_ask(&self, member: u64, frame: Bytes) {
        let mut read = Read::new(frame);
        let asked = (|| Ok::<_, DecodeError>((read.u64()?, read.u8()?, read.i64()?)))();
        let Ok((number, kind, lease)) = asked else {
            return;
        };
        let answer = self.answer_here(kind, lease);
        let mut frame = Vec::new();
        frame.u64(number);
        frame.extend_from_slice(&answer.unwrap_or_default());
        self.links().send(member, peer::ANSWER, frame.into());
    }
}

fn encode_renewed(renewed: Option<i64>) -> Bytes {
    let mut out = Vec::new();
    out.bool(renewed.is_some());
    if let Some(ttl_s) = renewed {
        out.i64(ttl_s);
    }
    out.into()
}

fn encode_left(left: Option<LeaseAnswer>) -> Bytes {
    let mut out = Vec::new();
    out.bool(left.is_some());
    if let Some(left) = left {
        out.u64(left.left_ms);
        out.i64(left.ttl_s);
    }
    out.into()
}

/// An answer that cannot be read is none.
fn decode<T>(
    answer: Bytes,
    found: impl FnOnce(&mut Read) -> Result<T, DecodeError>,
) -> Result<Option<T>, Unavailable> {
    let mut read = Read::new(answer);
    let decoded = read.bool().and_then(|is_there| {
        if is_there {
            found(&mut read).map(Some)
        } else {
            Ok(None)
        }
    });
    decoded.map_err(|_| LATE)
}
