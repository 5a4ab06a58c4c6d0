//! The Cluster service: the members, and changes of them.
//!
//! Source: spec/v3-api.md §2.11.

use quorate_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse, ResponseHeader, cluster_server::Cluster,
};
use quorate_store::{Body, MemberChange, Revision, Role};
use tonic::{Request, Response, Status, async_trait};

use super::{Api, status};
use crate::config::Url;

#[async_trait]
impl Cluster for Api {
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            self.linearize().await?;
        }
        let (header, members) = self.members();
        Ok(Response::new(MemberListResponse { header, members }))
    }

    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        let MemberAddRequest {
            peer_ur_ls,
            is_learner,
        } = request.into_inner();
        let urls = parse_urls(&peer_ur_ls)?;
        let id = self.node.new_member_id(&urls);
        let change = self.node.addition(&urls, is_learner);
        self.change(id, change).await?;
        let (header, members) = self.members();
        Ok(Response::new(MemberAddResponse {
            header,
            member: members.iter().find(|member| member.id == id).cloned(),
            members,
        }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.change(request.into_inner().id, MemberChange::Remove)
            .await?;
        let (header, members) = self.members();
        Ok(Response::new(MemberRemoveResponse { header, members }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        let MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        let urls = parse_urls(&peer_ur_ls)?;
        let peer_urls = urls.iter().map(Url::to_string).collect();
        self.change(id, MemberChange::Update { peer_urls }).await?;
        let (header, members) = self.members();
        Ok(Response::new(MemberUpdateResponse { header, members }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.change(request.into_inner().id, MemberChange::Promote)
            .await?;
        self.node.metrics().promotions.one();
        let (header, members) = self.members();
        Ok(Response::new(MemberPromoteResponse { header, members }))
    }
}

impl Api {
    async fn change(&self, id: u64, change: MemberChange) -> Result<(), Status> {
        let proposed = self.node.propose(Body::Member { id, change }).await;
        let outcome = proposed.map_err(|error| status::unavailable(&error))?;
        let done = outcome.result.map_err(|refusal| status::refused(&refusal));
        done.map(drop)
    }

    fn members(&self) -> (Option<ResponseHeader>, Vec<Member>) {
        let header = self.header(Revision::ZERO);
        let machine = self.node.machine();
        let members = machine.store().members().values().map(member);
        (Some(header), members.collect())
    }
}

fn parse_urls(texts: &[String]) -> Result<Vec<Url>, Status> {
    let urls = Url::parse_all(texts);
    urls.map_err(|_| Status::invalid_argument("etcdserver: given member URLs are invalid"))
}

fn member(member: &quorate_store::Member) -> Member {
    Member {
        id: member.id,
        name: member.name.clone(),
        peer_ur_ls: member.peer_urls.clone(),
        client_ur_ls: member.client_urls.clone(),
        is_learner: member.role != Role::Voter,
    }
}
