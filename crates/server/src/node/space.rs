//! The NOSPACE alarm that a member raises for itself, and clears by itself.
//!
//! Judged here, decided through the log: the quota is this member's own flag, and every member must
//! refuse the same writes. Refuses what grows before it takes room in the log; deletes, compaction
//! and the end of leases go on. Never touches an alarm that a client has raised.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_store::command::Body;
use quorate_store::{Alarm, AlarmBy, AlarmKind, Outcome, Refusal, Store};
use tokio::sync::Notify;

use super::{Node, Unavailable};

/// How often a member looks whether its alarm can go.
const LOOK: Duration = Duration::from_millis(100);

/// What was refused for want of space, and is not told yet.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// Bytes that a write would have added over the quota; 0 for none.
    over_quota: AtomicU64,
    wake: Notify,
}

impl Node {
    /// Refuses a write for which there is no space, and sees to it that the alarm is raised.
    pub(super) fn refuse_for_space(&self, body: &Body) -> Option<Outcome> {
        let cost = body.growth_bytes()?;
        let machine = self.machine();
        let store = machine.store();
        let is_over = self.is_over_quota(store, cost);
        // Where members differ, that is what the log says.
        let is_raised = store.is_raised(AlarmKind::NoSpace) && !store.is_raised(AlarmKind::Corrupt);
        if !is_over && !is_raised {
            return None;
        }
        if !is_raised {
            self.0.space.over_quota.fetch_max(cost, Ordering::Relaxed);
            self.0.space.wake.notify_one();
        }
        Some(Outcome {
            revision: store.revision(),
            result: Err(Refusal::NoSpace),
        })
    }

    fn is_over_quota(&self, store: &Store, cost: u64) -> bool {
        let quota = self.0.config.quota_bytes;
        quota.is_some_and(|quota| store.live_bytes().saturating_add(cost) > quota)
    }

    /// Whether the quota has room again: a tenth of it, and for what was refused.
    fn has_room(&self, store: &Store, refused: u64) -> bool {
        let quota = self.0.config.quota_bytes;
        quota.is_none_or(|quota| {
            store.live_bytes() < quota - quota / 10 && !self.is_over_quota(store, refused)
        })
    }
}

/// Raises and clears this member's alarm, for ever. One proposal at a time.
pub(super) async fn run(node: Node) {
    let member = node.member_id();
    let alarm = Alarm {
        member,
        kind: AlarmKind::NoSpace,
    };
    // The dearest write that was refused since the alarm was raised.
    let mut refused = 0;
    loop {
        let over_quota = node.0.space.over_quota.swap(0, Ordering::Relaxed);
        // What never fits says nothing about the others.
        let never = node
            .0
            .config
            .quota_bytes
            .is_some_and(|quota| over_quota > quota);
        let (raised, has_room) = {
            let machine = node.machine();
            let store = machine.store();
            let raised = store.alarms().get(&alarm).copied();
            (raised, node.has_room(store, refused))
        };
        let raise = match raised {
            None if over_quota > 0 && !never => {
                refused = over_quota;
                true
            }
            Some(AlarmBy::Member) if has_room => false,
            Some(AlarmBy::Member) => {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            None | Some(AlarmBy::Client) => {
                node.0.space.wake.notified().await;
                continue;
            }
        };
        let by = AlarmBy::Member;
        match node.propose(Body::Alarm { alarm, raise, by }).await {
            Ok(_) if raise => tracing::warn!("alarm NOSPACE raised: writes that grow are refused"),
            Ok(_) => tracing::info!("alarm NOSPACE cleared: there is room again"),
            Err(Unavailable::Stopped) => return,
            Err(error) => {
                tracing::warn!(%error, raise, "could not change the alarm NOSPACE");
                node.0
                    .space
                    .over_quota
                    .fetch_max(over_quota, Ordering::Relaxed);
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}
