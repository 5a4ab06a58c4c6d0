//! The quota on live bytes and its alarm, in both dialects.

use quorate_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, LeaseGrantRequest,
    PutRequest, RangeRequest, StatusRequest, alarm_request::AlarmAction, kv_client::KvClient,
    lease_client::LeaseClient, maintenance_client::MaintenanceClient,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::member::{Member, block_on};

const QUOTA: u64 = 1_000_000;
/// Ten of them are more than the quota.
const LARGE: usize = 100_000;
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";

struct Client {
    kv: KvClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
}

impl Client {
    async fn of(member: &Member) -> Self {
        let channel = member.channel().await;
        Self {
            kv: KvClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel),
        }
    }

    async fn put(&mut self, key: &str, len: usize) -> Result<(), Status> {
        let request = PutRequest {
            key: key.to_owned().into(),
            value: vec![b'v'; len].into(),
            ..PutRequest::default()
        };
        self.kv.put(request).await.map(drop)
    }

    /// Puts large values until one is refused.
    async fn fill(&mut self) {
        for number in 0.. {
            let Err(refused) = self.put(&format!("k{number}"), LARGE).await else {
                continue;
            };
            assert_eq!(number, 9);
            assert_eq!(
                (refused.code(), refused.message()),
                (Code::ResourceExhausted, NO_SPACE)
            );
            return;
        }
    }

    async fn alarm(&mut self, action: AlarmAction, member_id: u64) -> Vec<AlarmMember> {
        let request = AlarmRequest {
            action: action.into(),
            member_id,
            alarm: AlarmType::Nospace.into(),
        };
        let answer = self.maintenance.alarm(request).await.expect("an answer");
        answer.into_inner().alarms
    }

    async fn delete_all(&mut self) {
        let all = DeleteRangeRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            prev_kv: false,
        };
        let deleted = self.kv.delete_range(all).await.expect("deletes go on");
        let request = CompactionRequest {
            revision: deleted.into_inner().header.expect("a header").revision,
            physical: true,
        };
        self.kv.compact(request).await.expect("compaction goes on");
    }
}

async fn healthy_again(member: &Member, health: &str) {
    while member.ask("GET /health").await.body != health {
        tokio::task::yield_now().await;
    }
}

const WELL: &str = "{\"health\":\"true\",\"reason\":\"\"}";
const SICK: &str = "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n";

#[test]
fn a_write_over_the_quota_raises_an_alarm_which_goes_when_there_is_room() {
    block_on(async {
        let member = Member::start_with(|config| config.quota_bytes = Some(QUOTA)).await;
        let mut client = Client::of(&member).await;
        client.fill().await;
        healthy_again(&member, SICK).await;

        // Nothing that grows is let in, though it be small; the rest goes on.
        let id = member.node.member_id();
        let refused = client.put("small", 1).await.expect_err("refused");
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::ResourceExhausted, NO_SPACE)
        );
        let mut leases = LeaseClient::new(member.channel().await);
        let lease = leases
            .lease_grant(LeaseGrantRequest { id: 0, ttl: 60 })
            .await;
        assert_eq!(lease.expect_err("refused").message(), NO_SPACE);
        let answer = member.ask("PUT /v2/keys/small?value=x").await;
        let index = answer.header("x-etcd-index").expect("an index").to_owned();
        let body = format!(
            "{{\"errorCode\":300,\"message\":\"Raft Internal Error\",\"cause\":\"{NO_SPACE}\",\"index\":{index}}}\n"
        );
        assert_eq!((answer.status, answer.body), (500, body));
        let raised = vec![AlarmMember {
            member_id: id,
            alarm: AlarmType::Nospace.into(),
        }];
        assert_eq!(client.alarm(AlarmAction::Get, 0).await, raised);
        let status = client
            .maintenance
            .status(StatusRequest {})
            .await
            .expect("a status");
        let errors = status.into_inner().errors;
        assert_eq!(errors, [format!("memberID:{id}  alarm:NOSPACE")]);
        let read = RangeRequest {
            key: "k3".into(),
            ..RangeRequest::default()
        };
        let read = client.kv.range(read).await.expect("reads go on");
        assert_eq!(read.into_inner().kvs[0].value.len(), LARGE);

        client.delete_all().await;
        healthy_again(&member, WELL).await;
        assert_eq!(client.alarm(AlarmAction::Get, 0).await, []);
        client.put("small", 1).await.expect("writes work again");
        assert_eq!(member.ask("PUT /v2/keys/small?value=x").await.status, 201);
        member.stop().await;
    });
}

#[test]
fn a_client_clears_the_alarm_until_a_write_is_refused_again() {
    block_on(async {
        let member = Member::start_with(|config| config.quota_bytes = Some(QUOTA)).await;
        let mut client = Client::of(&member).await;
        let id = member.node.member_id();
        client.fill().await;
        healthy_again(&member, SICK).await;
        assert_eq!(client.alarm(AlarmAction::Deactivate, id).await.len(), 1);
        client.put("small", 1).await.expect("it has room");
        healthy_again(&member, WELL).await;
        client.put("large", LARGE).await.expect_err("it has none");
        healthy_again(&member, SICK).await;

        // What a client raises too stays when there is room again.
        client.alarm(AlarmAction::Activate, id).await;
        client.delete_all().await;
        member.node.purged().await;
        client
            .put("small", 1)
            .await
            .expect_err("the alarm is the client's");
        client.alarm(AlarmAction::Deactivate, id).await;
        client.put("small", 1).await.expect("nothing is in the way");
        member.stop().await;
    });
}

#[test]
fn what_fits_no_quota_raises_no_alarm() {
    block_on(async {
        let member = Member::start_with(|config| config.quota_bytes = Some(1000)).await;
        let mut client = Client::of(&member).await;
        client.put("large", 1000).await.expect_err("it never fits");
        client.put("small", 1).await.expect("this does");
        client.put("other", 400).await.expect("and this");
        client.put("more", 400).await.expect_err("no more");
        healthy_again(&member, SICK).await;
        member.stop().await;
    });
}
