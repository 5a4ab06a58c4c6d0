//! The Maintenance service: so far Status.

use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeInfo,
    DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse,
    MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest,
    StatusResponse, maintenance_server::Maintenance,
};
use quorate_store::Revision;
use tonic::{Request, Response, Status, async_trait};

use super::{Api, encode, status};
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
        Ok(Response::new(StatusResponse {
            header: Some(encode::at(header, machine.store().revision())),
            version: version::API_VERSION.to_owned(),
            db_size: live_bytes,
            leader: raft.leader.unwrap_or(0),
            raft_index: raft.committed,
            raft_term: raft.term,
            raft_applied_index: raft.applied,
            errors: no_leader.into_iter().collect(),
            db_size_in_use: live_bytes,
            is_learner: false,
            storage_version: version::CLUSTER_VERSION.to_owned(),
            db_size_quota: encode::count(self.node.config().quota_bytes.unwrap_or(0)),
            downgrade_info: Some(DowngradeInfo::default()),
        }))
    }

    async fn alarm(
        &self,
        _request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        Err(status::unimplemented("Alarm"))
    }

    async fn defragment(
        &self,
        _request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        Err(status::unimplemented("Defragment"))
    }

    async fn hash(&self, _request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        Err(status::unimplemented("Hash"))
    }

    async fn hash_kv(
        &self,
        _request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        Err(status::unimplemented("HashKV"))
    }

    type SnapshotStream = tokio_stream::Empty<Result<SnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        _request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(status::unimplemented("Snapshot"))
    }

    async fn move_leader(
        &self,
        _request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        Err(status::unimplemented("MoveLeader"))
    }

    async fn downgrade(
        &self,
        _request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        Err(status::unimplemented("Downgrade"))
    }
}
