//! The Lease service.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, lease_server::Lease,
};
use quorate_replica::LeaseAnswer;
use quorate_store::{AlarmKind, Body, Refusal, Reply, Revision};
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{Api, Responses, admission, encode, limits, status};

#[async_trait]
impl Lease for Api {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        self.grant(request.into_inner()).await.map(Response::new)
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        self.revoke(request.into_inner()).await.map(Response::new)
    }

    type LeaseKeepAliveStream = Responses<LeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let api = self.clone();
        let needs_leader = admission::needs_leader(request.metadata().as_ref());
        let answers = request.into_inner().then(move |request| {
            let api = api.clone();
            async move {
                let request =
                    request.map_err(|error| limits::translate(&error).unwrap_or(error))?;
                api.keep_alive(request.id).await
            }
        });
        Ok(Response::new(self.until_over(answers, needs_leader)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let left = self
            .node
            .lease_left(id)
            .await
            .map_err(|error| status::unavailable(&error))?;
        let header = self.header(Revision::ZERO);
        let machine = self.node.machine();
        let header = Some(encode::at(header, machine.store().revision()));
        let Some(LeaseAnswer {
            left_ms,
            ttl_s: granted_ttl,
        }) = left
        else {
            let unknown = LeaseTimeToLiveResponse {
                header,
                id,
                ttl: -1,
                ..Default::default()
            };
            return Ok(Response::new(unknown));
        };
        let ttl = encode::count(left_ms / 1_000);
        let lease = machine.store().leases().get(&id).filter(|_| keys);
        let keys = lease.into_iter().flat_map(|lease| &lease.keys);
        let keys = keys.map(|key| Bytes::copy_from_slice(key)).collect();
        Ok(Response::new(LeaseTimeToLiveResponse {
            header,
            id,
            ttl,
            granted_ttl,
            keys,
        }))
    }

    async fn lease_leases(
        &self,
        _request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let leases = self.node.leases_by_end();
        Ok(Response::new(LeaseLeasesResponse {
            header: Some(self.header(self.revision())),
            leases: leases.into_iter().map(|id| LeaseStatus { id }).collect(),
        }))
    }
}

impl Api {
    /// LeaseGrant.
    pub(super) async fn grant(
        &self,
        request: LeaseGrantRequest,
    ) -> Result<LeaseGrantResponse, Status> {
        let bytes = request.encoded_len();
        let id = if request.id == 0 {
            self.lease_ids.next()
        } else {
            request.id
        };
        let ttl_s = request.ttl.max(self.minimum_ttl_s());
        let body = Body::LeaseGrant { id, ttl_s };
        body.check(limits::commands(self.node.config()))
            .map_err(|r| status::refused(&r))?;
        match self.propose(bytes, body).await? {
            (header, Reply::LeaseGranted { id, ttl_s: ttl }) => Ok(LeaseGrantResponse {
                header: Some(header),
                id,
                ttl,
                error: String::new(),
            }),
            (_, other) => Err(status::mismatch(&other)),
        }
    }

    /// LeaseRevoke.
    pub(super) async fn revoke(
        &self,
        request: LeaseRevokeRequest,
    ) -> Result<LeaseRevokeResponse, Status> {
        // The end of a lease that ran out is the same command, and goes on under the alarm.
        if self.node.machine().store().is_raised(AlarmKind::Corrupt) {
            return Err(status::refused(&Refusal::Corrupt));
        }
        let body = Body::LeaseRevoke { id: request.id };
        match self.propose(request.encoded_len(), body).await? {
            (header, Reply::LeaseRevoked) => Ok(LeaseRevokeResponse {
                header: Some(header),
            }),
            (_, other) => Err(status::mismatch(&other)),
        }
    }

    async fn keep_alive(&self, id: i64) -> Result<LeaseKeepAliveResponse, Status> {
        let header = Some(self.header(self.revision()));
        let renewed = self
            .node
            .renew(id)
            .await
            .map_err(|error| status::unavailable(&error))?;
        Ok(LeaseKeepAliveResponse {
            header,
            id,
            ttl: renewed.unwrap_or(0),
        })
    }

    /// A leader must be able to change without a lease ending early.
    fn minimum_ttl_s(&self) -> i64 {
        let ms = self.node.config().election_timeout.as_millis() * 3 / 2;
        i64::try_from(ms.div_ceil(1_000)).unwrap_or(i64::MAX)
    }
}

/// Makes lease ids: the member's upper 16 bits, then a count that starts at the time.
pub(super) struct Ids(AtomicU64);

impl Ids {
    /// For one run of a member. Milliseconds keep one run's ids from another's.
    pub(super) fn new(member: u64) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let ms = u64::try_from(now.as_millis()).unwrap_or(0);
        Self(AtomicU64::new(
            (member & 0xffff << 48) | ((ms << 8) & 0x0000_ffff_ffff_ffff),
        ))
    }

    /// The next one; positive.
    fn next(&self) -> i64 {
        let id = self.0.fetch_add(1, Ordering::Relaxed) & i64::MAX as u64;
        i64::try_from(id).expect("its top bit is cleared").max(1)
    }
}
