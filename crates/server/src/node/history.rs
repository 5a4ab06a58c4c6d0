//! Holds history within its bound in memory: when it reaches `--history-memory-bytes`, the oldest
//! quarter is compacted, whatever auto-compaction says.
//!
//! Through the log, so that it is the same on all members. The leader sees to it; a member whose own
//! bound is lower does so itself when the leader has not.

use std::time::Duration;

use quorate_store::Revision;
use quorate_store::command::Body;

use super::Node;

/// How often it is looked at. At a hundred thousand writes a second it grows by 10 MB meanwhile.
const LOOK: Duration = Duration::from_secs(1);

/// How often a member that does not lead looks before it acts.
const PATIENCE: u32 = 3;

pub(super) async fn run(node: Node) {
    let most = node.config().history_memory_bytes;
    let mut looked = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        // What was compacted is counted until it is cleared up.
        node.purged().await;
        let Some(revision) = too_much(&node, most) else {
            looked = 0;
            continue;
        };
        looked += 1;
        if looked < PATIENCE && !node.0.replica().leads() {
            continue;
        }
        looked = 0;
        tracing::warn!(
            bound_bytes = most,
            revision = revision.get(),
            "history has reached --history-memory-bytes; compacting its oldest quarter early"
        );
        let revision = revision.to_wire();
        if let Err(error) = node.propose(Body::Compact { revision }).await {
            tracing::warn!(%error, "could not compact history");
        }
    }
}

/// Where to compact, if history takes more than `most` bytes.
fn too_much(node: &Node, most: u64) -> Option<Revision> {
    let machine = node.machine();
    let store = machine.store();
    if store.history_bytes() <= most {
        return None;
    }
    let revision = store.revision_at(store.history_len() / 4)?;
    (revision > store.oldest()).then_some(revision)
}
