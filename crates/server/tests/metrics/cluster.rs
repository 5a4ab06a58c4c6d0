//! What both dialects say in a cluster, and of it.

use std::time::Duration;

use futures_util::future::join_all;
use quorate::config::{ClusterState, Config, InitialCluster, ListenUrl, parse_peer_urls};
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, MemberAddRequest, MemberListRequest,
    MemberPromoteRequest, PutRequest, RangeRequest, StatusRequest, WatchCreateRequest,
    WatchRequest, cluster_client::ClusterClient, kv_client::KvClient, lease_client::LeaseClient,
    maintenance_client::MaintenanceClient, watch_client::WatchClient, watch_request::RequestUnion,
};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Status};

use crate::member::{Member, block_on};
use crate::ports::{free_port, listen};

const NO_LEADER: &str = "etcdserver: no leader";
const NOT_FOR_LEARNER: &str = "etcdserver: rpc not supported for learner";

/// Members of a cluster: `m1` and so on.
struct Cluster {
    peers: Vec<ListenUrl>,
    members: Vec<Member>,
}

impl Cluster {
    async fn start(count: usize) -> Self {
        let peers: Vec<_> = (0..count).map(|_| listen(free_port())).collect();
        let mut cluster = Self {
            peers,
            members: Vec::new(),
        };
        let members = (0..count).map(|at| cluster.start_member(at, ClusterState::New));
        cluster.members = join_all(members).await;
        cluster
    }

    async fn start_member(&self, at: usize, state: ClusterState) -> Member {
        let urls = self.peers.iter().enumerate();
        let urls = urls.map(|(at, peer)| format!("m{}={}", at + 1, peer.url));
        let all = parse_peer_urls(&Vec::from_iter(urls).join(",")).expect("URLs");
        Member::start_with(|config: &mut Config| {
            config.name = format!("m{}", at + 1);
            config.listen_peer_urls = vec![self.peers[at].clone()];
            config.advertise_peer_urls = vec![self.peers[at].url.clone()];
            config.initial_cluster = InitialCluster::Static(all);
            config.initial_cluster_state = state;
            config.heartbeat_interval = Duration::from_millis(50);
            config.election_timeout = Duration::from_millis(500);
        })
        .await
    }

    /// The place of the leader once all know it, and of a follower.
    async fn leader_and_follower(&self) -> (usize, usize) {
        loop {
            let leaders: Vec<_> = self
                .members
                .iter()
                .map(|m| m.node.status().leader)
                .collect();
            let first = leaders[0];
            if first.is_some() && leaders.iter().all(|leader| *leader == first) {
                let ids = self
                    .members
                    .iter()
                    .map(|member| Some(member.node.member_id()));
                let leader = ids.into_iter().position(|id| id == first);
                let leader = leader.expect("a member leads");
                return (leader, (leader + 1) % self.members.len());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn needing_leader<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("hasleader", "true".parse().expect("text"));
    request
}

fn said(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

#[test]
fn members_are_changed_over_v2_and_each_says_how_it_sees_the_others() {
    block_on(async {
        let mut cluster = Cluster::start(3).await;
        let (leader, follower) = cluster.leader_and_follower().await;
        let leads = &cluster.members[leader];
        let follows = &cluster.members[follower];
        let answer = follows.ask("GET /v2/stats/leader").await;
        assert_eq!(
            (answer.status, &answer.body[..]),
            (403, r#"{"message":"not current leader"}"#)
        );
        let answer = leads.ask("GET /v2/stats/leader").await;
        let stats: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        let id = format!("{:x}", follows.node.member_id());
        assert!(
            stats["followers"][&id]["latency"]["current"].is_number(),
            "{stats}"
        );
        assert_eq!(stats["followers"].as_object().map(|all| all.len()), Some(2));
        leads
            .scrape_until(|scrape| {
                let to = [("To", &id[..])];
                let count = "etcd_network_peer_round_trip_time_seconds_count";
                let active = scrape.all("etcd_network_active_peers", &[("Remote", &id)]);
                scrape.get(count, &to) > Some(0.0) && active == [1.0]
            })
            .await;

        let third = 3 - leader - follower;
        let gone = format!("{:x}", cluster.members[third].node.member_id());
        let other = format!(r#"{{"peerURLs":["{}"]}}"#, cluster.peers[follower].url);
        let own = format!(r#"{{"peerURLs":["{}"]}}"#, cluster.peers[third].url);
        let path = format!("/v2/members/{gone}");
        for (request, body, status, text) in [
            (
                "PUT",
                &other[..],
                409,
                r#"{"message":"membership: peerURL exists"}"#,
            ),
            ("PUT", &own, 204, ""),
            ("DELETE", "", 204, ""),
            (
                "DELETE",
                "",
                410,
                &format!(r#"{{"message":"Member permanently removed: {gone}"}}"#),
            ),
            ("PUT", &own, 500, r#"{"message":"Internal Server Error"}"#),
        ] {
            let answer = follows.send_json(&format!("{request} {path}"), body).await;
            assert_eq!(
                (answer.status, &answer.body[..]),
                (status, text),
                "{request} {body}"
            );
        }
        let removed = cluster.members.remove(third);
        let why = removed.ended().await;
        assert!(why.contains("permanently removed"), "{why}");
        for member in cluster.members {
            member.stop().await;
        }
    });
}

#[test]
fn a_learner_answers_what_a_learner_may_until_it_is_promoted() {
    block_on(async {
        let mut cluster = Cluster::start(1).await;
        cluster.peers.push(listen(free_port()));
        let mut members = ClusterClient::new(cluster.members[0].channel().await);
        let request = MemberAddRequest {
            peer_ur_ls: vec![cluster.peers[1].url.to_string()],
            is_learner: true,
        };
        let added = members.member_add(request).await.expect("it is added");
        let id = added.into_inner().member.expect("it").id;
        let learner = cluster.start_member(1, ClusterState::Existing).await;
        let channel = learner.channel().await;
        let mut kv = KvClient::new(channel.clone());
        let range = |serializable| RangeRequest {
            key: "k".into(),
            serializable,
            ..RangeRequest::default()
        };
        let refusals = [
            kv.range(range(false)).await.map(drop),
            kv.put(PutRequest::default()).await.map(drop),
            ClusterClient::new(channel.clone())
                .member_list(MemberListRequest::default())
                .await
                .map(drop),
            LeaseClient::new(channel.clone())
                .lease_keep_alive(tokio_stream::iter([LeaseKeepAliveRequest::default()]))
                .await
                .map(drop),
        ];
        for refusal in refusals {
            let refusal = refusal.expect_err("it is refused");
            assert_eq!(said(&refusal), (Code::FailedPrecondition, NOT_FOR_LEARNER));
        }
        kv.range(range(true)).await.expect("it reads its own");
        let mut maintenance = MaintenanceClient::new(channel.clone());
        let status = maintenance.status(StatusRequest::default()).await;
        assert!(status.expect("it says how it is").into_inner().is_learner);
        assert_eq!(learner.ask("GET /health").await.status, 200);
        assert_eq!(learner.ask("GET /livez").await.status, 200);
        let ready = learner.ask("GET /readyz").await;
        let failed = "[-]non_learner failed: not supported for learner";
        assert!(
            ready.status == 503 && ready.body.contains(failed),
            "{}",
            ready.body
        );

        loop {
            match members.member_promote(MemberPromoteRequest { id }).await {
                Ok(_) => break,
                Err(early) => assert_eq!(early.code(), Code::FailedPrecondition),
            }
        }
        let again = members.member_promote(MemberPromoteRequest { id }).await;
        assert_eq!(
            said(&again.expect_err("it votes")),
            (
                Code::FailedPrecondition,
                "etcdserver: can only promote a learner member"
            )
        );
        let promoted = |status: u16| status == 200;
        while !promoted(learner.ask("GET /readyz").await.status) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        kv.range(range(false)).await.expect("it serves all");
        learner.stop().await;
    });
}

#[test]
fn without_a_quorum_streams_end_and_requests_are_told_why_in_time() {
    block_on(async {
        let mut cluster = Cluster::start(3).await;
        let (leader, _) = cluster.leader_and_follower().await;
        let last = cluster.members.remove((leader + 2) % 3);
        let channel = last.channel().await;
        let mut kv = KvClient::new(channel.clone());
        let mut leases = LeaseClient::new(channel.clone());
        let grant = LeaseGrantRequest { ttl: 60, id: 7 };
        leases.lease_grant(grant).await.expect("a lease");
        let alive = LeaseKeepAliveRequest { id: 7 };
        let requests = tokio_stream::iter([alive]).chain(tokio_stream::pending());
        let renewals = leases.lease_keep_alive(needing_leader(requests)).await;
        let mut renewals = renewals.expect("a stream").into_inner();
        let renewed = renewals.next().await.expect("an answer");
        assert_eq!(renewed.expect("a renewal").ttl, 60);
        let create = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
                key: "k".into(),
                ..WatchCreateRequest::default()
            })),
        };
        let mut watches = WatchClient::new(channel.clone());
        let requests = || tokio_stream::iter([create.clone()]).chain(tokio_stream::pending());
        let bound = watches.watch(needing_leader(requests())).await;
        let mut bound = bound.expect("a stream").into_inner();
        assert!(
            bound
                .next()
                .await
                .expect("an answer")
                .expect("created")
                .created
        );
        let free = watches.watch(requests()).await;
        let mut free = free.expect("a stream").into_inner();
        assert!(
            free.next()
                .await
                .expect("an answer")
                .expect("created")
                .created
        );

        for member in cluster.members {
            member.stop().await;
        }
        let ended = bound.next().await.expect("an end").expect_err("an error");
        assert_eq!(said(&ended), (Code::Unavailable, NO_LEADER));
        let ended = renewals
            .next()
            .await
            .expect("an end")
            .expect_err("an error");
        assert_eq!(said(&ended), (Code::Unavailable, NO_LEADER));
        let refused = kv.put(needing_leader(PutRequest::default())).await;
        assert_eq!(
            said(&refused.expect_err("at once")),
            (Code::Unavailable, NO_LEADER)
        );

        let mut maintenance = MaintenanceClient::new(channel.clone());
        let status = maintenance.status(StatusRequest::default()).await;
        let status = status.expect("it says how it is").into_inner();
        assert_eq!(
            (status.leader, &status.errors[..]),
            (0, &[NO_LEADER.to_owned()][..])
        );
        let health = last.ask("GET /health").await;
        assert_eq!(
            (health.status, &health.body[..]),
            (
                503,
                "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n"
            )
        );
        let answer = last.ask("GET /v2/members/leader").await;
        assert_eq!(
            (answer.status, &answer.body[..]),
            (503, r#"{"message":"During election"}"#)
        );
        let local = RangeRequest {
            key: "k".into(),
            serializable: true,
            ..RangeRequest::default()
        };
        kv.range(local).await.expect("it reads its own");
        assert_eq!(last.ask("GET /v2/keys/k").await.status, 404);

        let put = PutRequest {
            key: "k".into(),
            ..PutRequest::default()
        };
        let range = RangeRequest {
            key: "k".into(),
            ..RangeRequest::default()
        };
        let (mut other_kv, new_member) = (kv.clone(), r#"{"peerURLs":["http://127.0.0.1:9"]}"#);
        let (put, range, written, read, added) = tokio::join!(
            kv.put(put),
            other_kv.range(range),
            last.ask("PUT /v2/keys/k?value=1"),
            last.ask("GET /v2/keys/k?quorum=true"),
            last.send_json("POST /v2/members", new_member),
        );
        let late = "etcdserver: request timed out";
        for failed in [put.map(drop), range.map(drop)] {
            assert_eq!(said(&failed.expect_err("late")), (Code::Unavailable, late));
        }
        let body = format!(
            "{{\"errorCode\":300,\"message\":\"Raft Internal Error\",\"cause\":\"{late}\",\"index\":0}}\n"
        );
        for answer in [written, read] {
            assert_eq!((answer.status, &answer.body), (500, &body));
        }
        assert_eq!(added.status, 500);
        let created = free.next();
        assert!(
            tokio::time::timeout(Duration::ZERO, created).await.is_err(),
            "a watch that needs no leader goes on"
        );
        last.stop().await;
    });
}
