//! Changes of who is in the cluster, as clients ask for them.

use std::sync::atomic::Ordering;

use quorate_store::{MemberChange, Role};

use super::{Node, wall};
use crate::config::{Url, member_id};

impl Node {
    /// Whether it is to have no vote: then it serves only what a learner may. One that joins serves all.
    pub(crate) fn only_learns(&self) -> bool {
        self.0.learns.load(Ordering::Relaxed)
    }

    /// Whether this member has the data and no vote.
    pub(crate) fn is_learner(&self) -> bool {
        let machine = self.machine();
        let own = machine.store().members().get(&self.0.member_id);
        own.is_none_or(|member| member.role != Role::Voter)
    }

    /// The id of a member that is added now. As in etcd it hangs together with the time, since the id
    /// of one that was removed never returns.
    pub(crate) fn new_member_id(&self, urls: &[Url]) -> u64 {
        member_id(urls, &(wall().0 / 1000).to_string())
    }

    /// How a member is added that peers reach at `urls`. One that is to vote does so once it keeps up.
    pub(crate) fn addition(&self, urls: &[Url], is_learner: bool) -> MemberChange {
        MemberChange::Add {
            peer_urls: urls.iter().map(Url::to_string).collect(),
            role: if is_learner {
                Role::Learner
            } else {
                Role::Joining
            },
            max_learners: u32::try_from(self.config().max_learners).unwrap_or(u32::MAX),
        }
    }
}
