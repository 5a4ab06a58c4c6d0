//! Notices that the cluster has been without a leader for long, for streams that asked to be told.
//!
//! Source: spec/v3-api.md §3.2: three election timeouts in a row.

use super::Node;

/// Looks without a leader, one an election timeout, after which it counts as lost.
const LOOKS: u32 = 3;

pub(super) async fn run(node: Node) {
    let every = node.config().election_timeout;
    let mut without = 0;
    loop {
        tokio::time::sleep(every).await;
        without = match node.status().leader {
            Some(_) => 0,
            None => without + 1,
        };
        if without == LOOKS {
            node.0.leader_lost.send_modify(|times| *times += 1);
        }
    }
}
