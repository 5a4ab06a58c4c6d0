//! Who leads, as the members themselves say.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use quorate_proto::etcdserverpb::StatusRequest;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;

use super::history::Member;
use super::members::Cluster;
use super::v3;

/// How long a member may take to say what it knows.
const ANSWER: Duration = Duration::from_secs(1);
/// How long a cluster may be without a leader.
const ELECTION: Duration = Duration::from_secs(20);

impl Cluster {
    /// The member that leads in the newest term, once there is one.
    pub(super) async fn leader(&self) -> Result<Member> {
        let since = Instant::now();
        loop {
            if let Some(leader) = self.leader_now().await? {
                return Ok(leader);
            }
            ensure!(since.elapsed() < ELECTION, "no leader within {ELECTION:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The member that says of itself that it leads; in the newest term, if there are two.
    pub(super) async fn leader_now(&self) -> Result<Option<Member>> {
        let mut newest = None;
        for (member, face) in self.faces.iter().enumerate() {
            if !self.runs(member) {
                continue;
            }
            let mut client = MaintenanceClient::new(v3::channel(face.client_port)?);
            let asked = client.status(StatusRequest {});
            let Ok(Ok(answer)) = tokio::time::timeout(ANSWER, asked).await else {
                continue;
            };
            let answer = answer.into_inner();
            let own = answer.header.map_or(0, |header| header.member_id);
            if own != 0 && answer.leader == own {
                newest = newest.max(Some((answer.raft_term, member)));
            }
        }
        Ok(newest.map(|(_, member)| member))
    }
}
