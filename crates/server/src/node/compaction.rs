//! Compaction without being asked.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use quorate_store::Revision;
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

/// Notes the revision ten times an hour or retention, and compacts to that of one retention ago,
/// at most once an hour.
async fn periodic(node: &Node, retention: Duration, keep_at_least: u64) {
    let period = retention.min(Duration::from_secs(3600));
    let mut samples: VecDeque<(Instant, Revision)> = VecDeque::new();
    let mut due = Instant::now() + retention;
    loop {
        samples.push_back((Instant::now(), node.machine().store().revision()));
        tokio::time::sleep(period / 10).await;
        if Instant::now() < due {
            continue;
        }
        let mut old_enough = None;
        while let Some((taken, revision)) = samples.front()
            && taken.elapsed() >= retention
        {
            old_enough = Some(revision.get());
            samples.pop_front();
        }
        if let Some(revision) = old_enough {
            let latest = node.machine().store().revision().get();
            compact(node, revision.min(latest.saturating_sub(keep_at_least))).await;
            due = Instant::now() + period;
        }
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
