//! What is asked, of which keys, how often and until when.

use std::time::Duration;

use fastrand::Rng;

use crate::template::Template;

/// Requests to be made.
#[derive(Clone, Debug)]
pub struct Work {
    /// Kinds of requests, each with its share of all. All are of one dialect.
    pub templates: Vec<(u32, Template)>,
    /// The keys that go into them.
    pub keys: Keys,
    /// When a request is due.
    pub pace: Pace,
    /// When no more are due.
    pub until: Until,
}

/// Which keys are asked for.
#[derive(Clone, Debug)]
pub enum Keys {
    /// Any below a number.
    Any(u32),
    /// These, in order, again and again.
    Each(Vec<u32>),
}

/// When a request is due.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// As soon as a client is free.
    Closed,
    /// So many a second, whether or not earlier ones are answered; waiting for a free client is
    /// part of a request's latency.
    Open(u32),
}

/// When no more requests are due.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After a time.
    Elapsed(Duration),
    /// After so many.
    Count(u64),
}

impl Work {
    /// One kind of request as fast as the clients can, for a time.
    pub fn closed(template: Template, keys: Keys, time: Duration) -> Self {
        Self {
            templates: vec![(1, template)],
            keys,
            pace: Pace::Closed,
            until: Until::Elapsed(time),
        }
    }

    pub(crate) fn choose(&self, rng: &mut Rng) -> &Template {
        let (_, first) = &self.templates[0];
        if self.templates.len() == 1 {
            return first;
        }
        let shares: u32 = self.templates.iter().map(|(share, _)| share).sum();
        let mut at = rng.u32(..shares);
        for (share, template) in &self.templates {
            match at.checked_sub(*share) {
                Some(rest) => at = rest,
                None => return template,
            }
        }
        first
    }
}

impl Keys {
    pub(crate) fn choose(&self, number: u64, rng: &mut Rng) -> u32 {
        match self {
            Self::Any(count) => rng.u32(..count),
            Self::Each(keys) => keys[(number % keys.len() as u64) as usize],
        }
    }
}

/// Says when the next request is due. Times are the generator's nanoseconds.
pub(crate) struct Schedule {
    pace: Pace,
    until: Until,
    start: u64,
    issued: u64,
}

impl Schedule {
    pub(crate) fn new(work: &Work, start: u64) -> Self {
        let (pace, until) = (work.pace, work.until);
        Self {
            pace,
            until,
            start,
            issued: 0,
        }
    }

    /// How many requests were due.
    pub(crate) fn issued(&self) -> u64 {
        self.issued
    }

    /// Takes the next request if it is due; returns since when.
    pub(crate) fn take(&mut self, now: u64) -> Option<u64> {
        let due = self.due(now);
        if self.is_over(now) || due > now {
            return None;
        }
        self.issued += 1;
        Some(due)
    }

    /// Whether no more will be due.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        match self.until {
            Until::Count(count) => self.issued >= count,
            Until::Elapsed(time) => u128::from(self.due(now) - self.start) >= time.as_nanos(),
        }
    }

    fn due(&self, now: u64) -> u64 {
        match self.pace {
            Pace::Closed => now,
            Pace::Open(per_second) => {
                self.start + self.issued * 1_000_000_000 / u64::from(per_second)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fastrand::Rng;

    use super::{Keys, Pace, Schedule, Until, Work};
    use crate::template::Template;

    fn work(pace: Pace, until: Until) -> Work {
        let template = |share| (share, Template::http("GET", &format!("/{share}"), "", 0));
        Work {
            templates: vec![template(1), template(3)],
            keys: Keys::Any(1),
            pace,
            until,
        }
    }

    #[test]
    fn an_open_pace_keeps_its_times_when_it_is_late() {
        let second = Until::Elapsed(Duration::from_secs(1));
        let mut schedule = Schedule::new(&work(Pace::Open(4), second), 100);
        assert_eq!(schedule.take(100), Some(100));
        assert_eq!(schedule.take(200_000_000), None);
        let late = 5_000_000_000;
        let due: Vec<_> = std::iter::from_fn(|| schedule.take(late)).collect();
        assert_eq!(due, [250_000_100, 500_000_100, 750_000_100]);
        assert!(schedule.is_over(late) && schedule.issued() == 4);
    }

    #[test]
    fn a_closed_pace_ends_with_its_time_or_its_count() {
        let mut schedule = Schedule::new(&work(Pace::Closed, Until::Count(2)), 0);
        assert_eq!(
            (schedule.take(7), schedule.take(9), schedule.take(9)),
            (Some(7), Some(9), None)
        );
        let time = Until::Elapsed(Duration::from_nanos(10));
        let mut schedule = Schedule::new(&work(Pace::Closed, time), 5);
        assert_eq!((schedule.take(14), schedule.take(15)), (Some(14), None));
    }

    #[test]
    fn kinds_have_their_shares() {
        let (work, mut rng) = (work(Pace::Closed, Until::Count(1)), Rng::with_seed(3));
        let rare = (0..4000).filter(|_| std::ptr::eq(work.choose(&mut rng), &work.templates[0].1));
        assert!((900..1100).contains(&rare.count()));
        let keys = Keys::Each(vec![5, 6]);
        assert_eq!([0, 1, 2].map(|at| keys.choose(at, &mut rng)), [5, 6, 5]);
    }
}
