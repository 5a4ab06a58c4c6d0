//! What this member has seen of leaders: since when there is one, or that there has been none for long.
//!
//! Source: spec/v3-api.md §2.13.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Late, Node};

/// So many election timeouts without a leader are long.
const LONG: u32 = 3;

/// What was seen, at the driver's ticks.
pub(super) struct Leadership {
    seen: Mutex<Seen>,
    /// There has been none for long.
    is_lost: watch::Sender<bool>,
}

#[derive(Default)]
struct Seen {
    leader: Option<u64>,
    /// When this one was first seen, or that there is none; `None` before the first look.
    since: Option<Instant>,
    /// When the newest one was first seen.
    found: Option<Instant>,
}

impl Default for Leadership {
    fn default() -> Self {
        Self {
            seen: Mutex::default(),
            is_lost: watch::Sender::new(false),
        }
    }
}

impl Leadership {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes who leads now. Whether it is one who did not before.
    pub(super) fn note(&self, leader: Option<u64>, now: Instant, election: Duration) -> bool {
        let mut seen = self.seen();
        let is_other = leader != seen.leader;
        if is_other || seen.since.is_none() {
            seen.since = Some(now);
        }
        seen.leader = leader;
        let is_found = is_other && leader.is_some();
        if is_found {
            seen.found = Some(now);
        }
        let is_lost = leader.is_none() && seen.since.is_some_and(|at| now >= at + LONG * election);
        drop(seen);
        self.is_lost
            .send_if_modified(|was| std::mem::replace(was, is_lost) != is_lost);
        is_found
    }

    /// Whether something asked at this moment was so in vain since the leader of then was lost: it came
    /// within two election timeouts before there was another.
    fn was_between(&self, asked: Instant, election: Duration) -> bool {
        let found = self.seen().found;
        found.is_some_and(|found| asked < found && found < asked + 2 * election)
    }
}

impl Node {
    /// Waits until there has been no leader for three election timeouts.
    pub(crate) fn leader_lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let (node, mut is_lost) = (self.clone(), self.0.leadership.is_lost.subscribe());
        async move {
            // Without a sender the member is gone altogether.
            while is_lost.wait_for(|is_lost| *is_lost).await.is_ok() {
                // One that was found since the driver's last look counts.
                if node.status().leader.is_none() || is_lost.changed().await.is_err() {
                    return;
                }
            }
        }
    }

    /// How long the newest leader has been known; zero before there was one.
    pub(crate) fn leader_known_for(&self) -> Duration {
        let found = self.0.leadership.seen().found;
        found.map_or(Duration::ZERO, |found| found.elapsed())
    }

    /// What is likely to have kept a request from being answered that was made at `asked`.
    pub(super) fn why_late(&self, asked: Instant) -> Late {
        let election = self.config().election_timeout;
        if self.0.leadership.was_between(asked, election) {
            return Late::LeaderLost;
        }
        let own = self.member_id();
        let is_connected = |member: u64| member == own || self.links().is_up_since(member, asked);
        let is_cut_off = match self.0.replica().status().leader {
            None => false,
            Some(leader) if leader == own => {
                let machine = self.machine();
                let voters = machine.store().voters();
                let (all, up) = voters.fold((0, 0), |(all, up), voter| {
                    (all + 1, up + usize::from(is_connected(voter)))
                });
                up < all / 2 + 1
            }
            Some(leader) => !is_connected(leader),
        };
        if is_cut_off {
            Late::ConnectionLost
        } else {
            Late::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELECTION: Duration = Duration::from_secs(1);

    #[test]
    fn a_leader_is_lost_after_three_election_timeouts_without_one() {
        let (leadership, start) = (Leadership::default(), Instant::now());
        let look = |leader, ms| {
            let is_found = leadership.note(leader, start + Duration::from_millis(ms), ELECTION);
            (is_found, *leadership.is_lost.borrow())
        };
        assert_eq!(look(None, 0), (false, false));
        assert_eq!(look(Some(1), 2_900), (true, false));
        assert_eq!(look(Some(1), 5_000), (false, false));
        assert_eq!(look(None, 5_100), (false, false));
        assert_eq!(look(None, 8_000), (false, false));
        assert_eq!(look(None, 8_100), (false, true));
        assert_eq!(look(Some(1), 8_200), (true, false));
        assert_eq!(look(Some(2), 8_300), (true, false));
    }

    #[test]
    fn only_what_was_asked_shortly_before_a_leader_came_blames_the_one_before() {
        let (leadership, start) = (Leadership::default(), Instant::now());
        let found = start + Duration::from_secs(10);
        leadership.note(Some(1), start, ELECTION);
        leadership.note(None, start + Duration::from_secs(9), ELECTION);
        leadership.note(Some(2), found, ELECTION);
        let blames = |ms| leadership.was_between(start + Duration::from_millis(ms), ELECTION);
        assert_eq!(
            [7_900, 8_100, 9_900, 10_100].map(blames),
            [false, true, true, false]
        );
    }
}
