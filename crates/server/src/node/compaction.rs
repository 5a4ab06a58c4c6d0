//! Compaction without being asked.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use quorate_store::command::Body;

use super::Node;
use crate::config::AutoCompaction;

/// How often the revisions to keep are counted. Source: etcd's revision mode.
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// Compacts as `--auto-compaction-mode` and `--auto-compaction-retention` say, for ever.
pub(super) async fn run(node: Node) {
    match node.config().auto_compaction {
        AutoCompaction::Off => {}
        AutoCompaction::Periodic {
            retention,
            keep_at_least,
        } => {
            periodic(&node, retention, keep_at_least).await;
        }
        AutoCompaction::Revision { retention } => loop {
            tokio::time::sleep(REVISION_INTERVAL).await;
            let latest = node.machine().store().revision().get();
            compact(&node, latest.saturating_sub(retention)).await;
        },
    }
}

async fn periodic(node: &Node, retention: Duration, keep_at_least: u64) {
    let started = Instant::now();
    let mut periodic = Periodic::new(retention, keep_at_least);
    loop {
        let latest = node.machine().store().revision().get();
        if let Some(revision) = periodic.sample(started.elapsed(), latest) {
            compact(node, revision).await;
        }
        tokio::time::sleep(periodic.interval()).await;
    }
}

/// Notes the revision ten times an hour or retention, and compacts to that of one retention ago,
/// at most once an hour.
struct Periodic {
    retention: Duration,
    keep_at_least: u64,
    /// The time since the start, and the revision then.
    samples: VecDeque<(Duration, u64)>,
    due: Duration,
}

impl Periodic {
    fn new(retention: Duration, keep_at_least: u64) -> Self {
        Self {
            retention,
            keep_at_least,
            samples: VecDeque::new(),
            due: retention,
        }
    }

    fn period(&self) -> Duration {
        self.retention.min(Duration::from_secs(3600))
    }

    fn interval(&self) -> Duration {
        // A retention of nothing must not keep a core busy.
        (self.period() / 10).max(Duration::from_millis(10))
    }

    /// Notes the latest revision; the one to compact to, if it is time.
    fn sample(&mut self, now: Duration, latest: u64) -> Option<u64> {
        self.samples.push_back((now, latest));
        if now < self.due {
            return None;
        }
        let mut old_enough = None;
        while let Some((taken, revision)) = self.samples.front()
            && now.saturating_sub(*taken) >= self.retention
        {
            old_enough = Some(*revision);
            self.samples.pop_front();
        }
        let revision = old_enough?;
        self.due = now + self.period();
        Some(revision.min(latest.saturating_sub(self.keep_at_least)))
    }
}

async fn compact(node: &Node, revision: u64) {
    let done = node.machine().store().oldest().get();
    if revision <= done.max(1) || !node.0.replica().leads() {
        return;
    }
    let outcome = node
        .propose(Body::Compact {
            revision: revision as i64,
        })
        .await;
    match outcome.map(|outcome| outcome.result) {
        Ok(Ok(_)) => tracing::info!(revision, "compacted history"),
        Ok(Err(refusal)) => tracing::warn!(revision, %refusal, "could not compact history"),
        Err(error) => tracing::warn!(revision, %error, "could not compact history"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// What is compacted to, and when, in minutes: a revision is written every second.
    fn compactions(retention: Duration, keep_at_least: u64, minutes: u32) -> Vec<(u64, u64)> {
        let mut periodic = Periodic::new(retention, keep_at_least);
        let (mut now, mut done) = (Duration::ZERO, Vec::new());
        while now <= minutes * MINUTE {
            let compacted = periodic.sample(now, now.as_secs());
            done.extend(compacted.map(|revision| (now.as_secs() / 60, revision / 60)));
            now += periodic.interval();
        }
        done
    }

    #[test]
    fn a_short_retention_is_kept_after_each_of_itself() {
        let done = compactions(10 * MINUTE, 0, 35);
        assert_eq!(done, [(10, 0), (20, 10), (30, 20)]);
    }

    #[test]
    fn a_long_retention_is_kept_every_hour() {
        let done = compactions(180 * MINUTE, 0, 310);
        assert_eq!(done, [(180, 0), (240, 60), (300, 120)]);
    }

    #[test]
    fn by_default_an_hour_stays_and_the_newest_thousand_revisions_whatever_their_age() {
        assert_eq!(compactions(60 * MINUTE, 1000, 130), [(60, 0), (120, 60)]);
        let mut periodic = Periodic::new(60 * MINUTE, 1000);
        assert_eq!(periodic.sample(Duration::ZERO, 900), None);
        assert_eq!(periodic.sample(60 * MINUTE, 1200), Some(200));
        assert_eq!(periodic.sample(119 * MINUTE, 5000), None);
        assert_eq!(periodic.sample(120 * MINUTE, 5000), Some(1200));
    }

    #[test]
    fn no_retention_is_too_short_to_sleep() {
        let periodic = Periodic::new(Duration::from_nanos(1), 0);
        assert_eq!(periodic.interval(), Duration::from_millis(10));
    }
}
