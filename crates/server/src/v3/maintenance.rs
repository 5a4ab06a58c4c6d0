//! The Maintenance service: status, alarms, checksums, and what needs nothing done here.

use quorate_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeInfo, DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest,
    HashResponse, MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse,
    StatusRequest, StatusResponse, alarm_request::AlarmAction, downgrade_request::DowngradeAction,
    maintenance_server::Maintenance,
};
use quorate_store::{Alarm, AlarmBy, AlarmKind, Body, Reply, Revision};
use tonic::{Request, Response, Status, async_trait};

use super::{Api, Responses, admission, encode, hash, snapshot, status};
use crate::config::version;

#[async_trait]
impl Maintenance for Api {
    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let raft = self.node.status();
        let header = self.header(Revision::ZERO);
        let no_leader = raft.leader.is_none().then(|| status::NO_LEADER.to_owned());
        let machine = self.node.machine();
        let live_bytes = encode::count(machine.store().live_bytes());
        let alarms = machine.store().alarms().keys().map(shown);
        Ok(Response::new(StatusResponse {
            header: Some(encode::at(header, machine.store().revision())),
            version: version::API_VERSION.to_owned(),
            db_size: live_bytes,
            leader: raft.leader.unwrap_or(0),
            raft_index: raft.committed,
            raft_term: raft.term,
            raft_applied_index: raft.applied,
            errors: no_leader.into_iter().chain(alarms).collect(),
            db_size_in_use: live_bytes,
            is_learner: self.node.is_learner(),
            storage_version: version::CLUSTER_VERSION.to_owned(),
            db_size_quota: encode::count(self.node.config().quota_bytes.unwrap_or(0)),
            downgrade_info: Some(DowngradeInfo::default()),
        }))
    }

    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        let request = request.into_inner();
        let kind = match AlarmType::try_from(request.alarm) {
            Ok(AlarmType::Nospace) => Some(AlarmKind::NoSpace),
            Ok(AlarmType::Corrupt) => Some(AlarmKind::Corrupt),
            Ok(AlarmType::None) | Err(_) => None,
        };
        let raise = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => return self.alarms(kind).await,
            Ok(AlarmAction::Activate) => Some(true),
            Ok(AlarmAction::Deactivate) => Some(false),
            Err(_) => None,
        };
        let (Some(raise), Some(kind)) = (raise, kind) else {
            // As in etcd, what names no alarm does nothing.
            return Ok(self.alarm_response(Vec::new()));
        };
        let alarm = Alarm {
            member: request.member_id,
            kind,
        };
        let by = AlarmBy::Client;
        match self.propose(0, Body::Alarm { alarm, raise, by }).await? {
            (_, Reply::Alarm(affected)) => {
                Ok(self.alarm_response(affected.iter().map(alarm_member).collect()))
            }
            (_, other) => Err(status::mismatch(&other)),
        }
    }

    /// Space comes back by itself, so there is nothing to wait for.
    async fn defragment(
        &self,
        _request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        Ok(Response::new(DefragmentResponse::default()))
    }

    async fn hash(&self, _request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let hash = hash::state(&self.node).await?;
        Ok(Response::new(HashResponse {
            header: Some(self.header(self.revision())),
            hash,
        }))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        let found = hash::keys(&self.node, request.into_inner().revision).await?;
        Ok(Response::new(HashKvResponse {
            header: Some(self.header(self.revision())),
            hash: found.crc,
            compact_revision: found.compacted,
            hash_revision: found.revision.to_wire(),
        }))
    }

    type SnapshotStream = Responses<SnapshotResponse>;

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let pieces = snapshot::stream(self);
        let needs_leader = admission::needs_leader(request.metadata().as_ref());
        Ok(Response::new(self.until_over(pieces, needs_leader)))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        let target = request.into_inner().target_id;
        let own = self.node.member_id();
        if self.node.status().leader != Some(own) {
            return Err(Status::failed_precondition("etcdserver: not leader"));
        }
        // Without a header, as from etcd.
        let done = Response::new(MoveLeaderResponse { header: None });
        if target == own {
            return Ok(done);
        }
        let is_voter = self.node.machine().store().voters().any(|id| id == target);
        if !is_voter {
            return Err(Status::failed_precondition(
                "etcdserver: bad leader transferee",
            ));
        }
        if !self.node.transfer(target).await {
            return Err(Status::unknown(
                "etcdserver: request timed out, leader transfer took too long",
            ));
        }
        Ok(done)
    }

    /// No older program can read what this one writes, so no target is valid.
    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        let request = request.into_inner();
        match DowngradeAction::try_from(request.action) {
            Ok(DowngradeAction::Validate | DowngradeAction::Enable) => {
                if is_version(&request.version) {
                    Err(status::invalid_downgrade_target())
                } else {
                    Err(status::wrong_downgrade_format())
                }
            }
            // There is none under way, which is as the client wants it.
            Ok(DowngradeAction::Cancel) => {
                let (version, _patch) = version::CLUSTER_VERSION
                    .rsplit_once('.')
                    .expect("three numbers");
                Ok(Response::new(DowngradeResponse {
                    header: Some(self.header(self.revision())),
                    version: version.to_owned(),
                }))
            }
            Err(_) => Err(status::unknown_action()),
        }
    }
}

impl Api {
    /// The alarms raised, or those of one kind.
    async fn alarms(&self, kind: Option<AlarmKind>) -> Result<Response<AlarmResponse>, Status> {
        self.linearize().await?;
        let alarms = {
            let machine = self.node.machine();
            let raised = machine.store().alarms().keys();
            let asked = raised.filter(|alarm| kind.is_none_or(|kind| alarm.kind == kind));
            asked.map(alarm_member).collect()
        };
        Ok(self.alarm_response(alarms))
    }

    fn alarm_response(&self, alarms: Vec<AlarmMember>) -> Response<AlarmResponse> {
        Response::new(AlarmResponse {
            header: Some(self.header(self.revision())),
            alarms,
        })
    }
}

fn alarm_member(alarm: &Alarm) -> AlarmMember {
    let kind = match alarm.kind {
        AlarmKind::NoSpace => AlarmType::Nospace,
        AlarmKind::Corrupt => AlarmType::Corrupt,
    };
    AlarmMember {
        member_id: alarm.member,
        alarm: kind.into(),
    }
}

/// As Status shows an alarm: protobuf's text, with the two spaces that it has there.
fn shown(alarm: &Alarm) -> String {
    let kind = match alarm.kind {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
    };
    format!("memberID:{}  alarm:{kind}", alarm.member)
}

/// Whether a text is a version: two numbers, or three.
fn is_version(text: &str) -> bool {
    let numbers = text
        .split('.')
        .filter(|number| number.parse::<u32>().is_ok());
    matches!(text.split('.').count(), 2 | 3) && numbers.count() == text.split('.').count()
}
