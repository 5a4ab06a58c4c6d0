//! The bound of history in memory.

use std::time::Duration;

use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::{PutRequest, RangeRequest};

use crate::member::{Member, block_on};

#[test]
fn history_that_reaches_its_bound_is_compacted_and_the_newest_stays_readable() {
    block_on(async {
        let bound = 20_000;
        let member = Member::start_with(|config| config.history_memory_bytes = bound).await;
        let mut kv = KvClient::new(member.channel().await);
        let mut put = async |round: i64| {
            let put = PutRequest {
                key: "k".into(),
                value: round.to_string().into(),
                ..PutRequest::default()
            };
            kv.put(put).await.expect("a put")
        };
        for round in 2..=1_000 {
            put(round).await;
        }
        let bytes = |member: &Member| member.node.machine().store().history_bytes();
        // It is looked at once a second; how long that takes is not judged.
        while bytes(&member) > bound {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (oldest, latest) = {
            let machine = member.node.machine();
            (machine.store().oldest(), machine.store().revision())
        };
        assert!(
            oldest.get() > 250 && oldest < latest,
            "{oldest} of {latest}"
        );
        let mut kv = KvClient::new(member.channel().await);
        for revision in [oldest, latest] {
            let range = RangeRequest {
                key: "k".into(),
                revision: revision.to_wire(),
                ..RangeRequest::default()
            };
            let found = kv.range(range).await.expect("a range").into_inner();
            assert_eq!(found.kvs[0].value, revision.to_string());
        }
        member.stop().await;
    });
}
