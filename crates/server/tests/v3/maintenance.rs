//! HashKV and RangeStream, held against what etcd and Range say of the same keys.

use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, Compare, DefragmentRequest, DeleteRangeRequest,
    HashKvRequest, HashRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest,
    RangeResponse, RequestOp, TxnRequest,
    alarm_request::AlarmAction,
    compare::{CompareTarget, TargetUnion},
    request_op::Request as Op,
};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::member::{Member, block_on};

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..PutRequest::default()
    }
}

fn delete(key: &str, range_end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        prev_kv: false,
    }
}

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

    async fn put(&mut self, key: &str, value: &str) {
        self.kv.put(put(key, value)).await.expect("a put");
    }

    async fn compact(&mut self, revision: i64) {
        let request = CompactionRequest {
            revision,
            physical: true,
        };
        self.kv.compact(request).await.expect("a compaction");
    }

    async fn hash(&mut self, revision: i64) -> u32 {
        let hash = self.maintenance.hash_kv(HashKvRequest { revision }).await;
        hash.expect("a hash").into_inner().hash
    }

    /// All pieces as one answer, and how many there were.
    async fn streamed(&mut self, request: RangeRequest) -> Result<(RangeResponse, usize), Status> {
        let mut stream = self.kv.range_stream(request).await?.into_inner();
        let (mut whole, mut pieces) = (RangeResponse::default(), 0);
        while let Some(piece) = stream.message().await? {
            let piece = piece.range_response.expect("a piece");
            assert_eq!(whole.header, None, "the header comes last");
            whole.header = piece.header;
            whole.kvs.extend(piece.kvs);
            whole.more = piece.more;
            whole.count = piece.count;
            pieces += 1;
        }
        Ok((whole, pieces))
    }
}

/// The sums were read from etcd 3.4.23 after the same commands.
#[test]
fn hash_kv_is_etcds() {
    block_on(async {
        let member = Member::start().await;
        let mut client = Client::of(&member).await;
        assert_eq!(client.hash(0).await, 1_084_519_789);
        for number in 1..=7 {
            let (key, value) = (format!("k{number}"), format!("value {number}"));
            client.put(&key, &value).await;
        }
        client.put("k1", "again").await;
        client.put("big", &"x".repeat(3_000)).await;
        assert_eq!(client.hash(0).await, 381_214_347);
        assert_eq!(client.hash(5).await, 2_081_741_263);

        client.kv.delete_range(delete("k2", "")).await.expect("k2");
        client.put("k2", "reborn").await;
        client.kv.delete_range(delete("k3", "")).await.expect("k3");
        let mut leases = LeaseClient::new(member.channel().await);
        let grant = LeaseGrantRequest { id: 77, ttl: 1_000 };
        leases.lease_grant(grant).await.expect("a lease");
        let leased = PutRequest {
            lease: 77,
            ..put("leased", "x")
        };
        client.kv.put(leased).await.expect("a put");
        client.kv.txn(txn()).await.expect("a txn");
        assert_eq!(client.hash(0).await, 390_325_807);

        // Some versions go at once, some stood at the compaction and do no more.
        client.compact(12).await;
        assert_eq!(client.hash(0).await, 4_145_848_015);
        assert_eq!(client.hash(13).await, 2_080_334_769);
        client.kv.delete_range(delete("k", "l")).await.expect("k*");
        assert_eq!(client.hash(0).await, 606_726_833);
        client.compact(14).await;
        assert_eq!(client.hash(0).await, 2_469_612_464);
        let revoke = LeaseRevokeRequest { id: 77 };
        leases.lease_revoke(revoke).await.expect("its end");
        assert_eq!(client.hash(0).await, 3_842_329_991);

        for revision in [13, 18] {
            let refused = client.maintenance.hash_kv(HashKvRequest { revision }).await;
            assert_eq!(refused.expect_err("refused").code(), Code::OutOfRange);
        }
        member.stop().await;
    });
}

fn txn() -> TxnRequest {
    let op = |request| RequestOp {
        request: Some(request),
    };
    TxnRequest {
        compare: vec![Compare {
            key: "k1".into(),
            target: CompareTarget::Value.into(),
            target_union: Some(TargetUnion::Value("again".into())),
            ..Compare::default()
        }],
        success: vec![
            op(Op::RequestPut(put("a", "1"))),
            op(Op::RequestPut(put("b", "2"))),
            op(Op::RequestDeleteRange(delete("k4", ""))),
        ],
        failure: vec![op(Op::RequestPut(put("c", "3")))],
    }
}

#[test]
fn defragment_says_nothing_and_hash_follows_the_state() {
    block_on(async {
        let member = Member::start().await;
        let mut client = Client::of(&member).await;
        let done = client.maintenance.defragment(DefragmentRequest {}).await;
        assert_eq!(done.expect("done").into_inner().header, None);
        let mut hashes = Vec::new();
        for alarm in [AlarmType::Nospace, AlarmType::Corrupt] {
            let raise = AlarmRequest {
                action: AlarmAction::Activate.into(),
                member_id: 1,
                alarm: alarm.into(),
            };
            client.maintenance.alarm(raise).await.expect("an alarm");
            for _ in 0..2 {
                let hash = client.maintenance.hash(HashRequest {}).await;
                hashes.push(hash.expect("a hash").into_inner().hash);
            }
        }
        assert!(hashes[0] == hashes[1] && hashes[2] == hashes[3]);
        assert_ne!(hashes[1], hashes[2]);
        member.stop().await;
    });
}

#[test]
fn the_pieces_of_a_range_are_the_range() {
    block_on(async {
        let member = Member::start().await;
        let mut client = Client::of(&member).await;
        for number in 0..200 {
            client.put(&format!("k{number:03}"), "value").await;
        }
        client
            .kv
            .delete_range(delete("k150", "k160"))
            .await
            .expect("some");
        let all = RangeRequest {
            key: "k".into(),
            range_end: "l".into(),
            ..RangeRequest::default()
        };
        let requests = [
            all.clone(),
            RangeRequest {
                limit: 10,
                ..all.clone()
            },
            RangeRequest {
                limit: 190,
                keys_only: true,
                ..all.clone()
            },
            RangeRequest {
                count_only: true,
                ..all.clone()
            },
            RangeRequest {
                revision: 100,
                serializable: true,
                ..all.clone()
            },
            RangeRequest {
                key: "k007".into(),
                ..RangeRequest::default()
            },
            RangeRequest {
                key: "nothing".into(),
                ..RangeRequest::default()
            },
            RangeRequest {
                key: "\0".into(),
                range_end: "\0".into(),
                limit: 11,
                ..RangeRequest::default()
            },
        ];
        for request in requests {
            let whole = client.kv.range(request.clone()).await.expect("a range");
            let (streamed, _) = client.streamed(request.clone()).await.expect("pieces");
            assert_eq!(streamed, whole.into_inner(), "{request:?}");
        }
        let (_, pieces) = client.streamed(all).await.expect("pieces");
        assert_eq!(pieces, 5, "of 10, 20, 40, 80 and the rest");
        member.stop().await;
    });
}

#[test]
fn a_range_that_needs_all_keys_first_is_not_streamed() {
    block_on(async {
        let member = Member::start().await;
        let mut client = Client::of(&member).await;
        let one = RangeRequest {
            key: "k".into(),
            ..RangeRequest::default()
        };
        let refused = [
            (
                RangeRequest {
                    sort_order: 2,
                    ..one.clone()
                },
                "RangeStream does not support custom sort orders",
            ),
            (
                RangeRequest {
                    min_mod_revision: 1,
                    ..one.clone()
                },
                "RangeStream does not support revision filters",
            ),
        ];
        for (request, text) in refused {
            let status = client.streamed(request).await.expect_err("refused");
            assert_eq!(
                (status.code(), status.message()),
                (Code::Unimplemented, text)
            );
        }
        let future = RangeRequest { revision: 9, ..one };
        let status = client.streamed(future).await.expect_err("refused");
        assert_eq!(status.code(), Code::OutOfRange);
        member.stop().await;
    });
}

#[test]
fn a_compaction_ends_a_stream_that_it_overtakes() {
    block_on(async {
        let member = Member::start().await;
        let mut client = Client::of(&member).await;
        for number in 0..50 {
            client.put(&format!("k{number:02}"), "value").await;
        }
        let request = RangeRequest {
            key: "k".into(),
            range_end: "l".into(),
            ..RangeRequest::default()
        };
        // Without a socket between, a piece is made when the test asks for it.
        let services = quorate::v3::services(member.node.clone(), std::time::Duration::MAX);
        let mut stream = KvClient::new(services)
            .range_stream(Request::new(request))
            .await
            .expect("a stream")
            .into_inner();
        let first = stream.message().await.expect("a piece").expect("the first");
        assert_eq!(first.range_response.expect("keys").kvs.len(), 10);
        client.put("k00", "newer").await;
        client.compact(52).await;
        let status = stream.message().await.expect_err("overtaken");
        assert_eq!(status.code(), Code::OutOfRange);
        member.stop().await;
    });
}
