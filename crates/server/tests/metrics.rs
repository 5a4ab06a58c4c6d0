//! What a member says about itself: `/metrics`, `/health`, `/livez`, `/readyz`, `/v2/stats/store`,
//! `/debug/vars` and `/config/local/log`, asked over its sockets; and what members of a cluster say.

#[path = "metrics/cluster.rs"]
mod cluster;
#[path = "metrics/member.rs"]
mod member;
#[path = "support/ports.rs"]
mod ports;
#[path = "metrics/space.rs"]
mod space;
#[path = "metrics/text.rs"]
mod text;

use std::collections::BTreeSet;
use std::path::Path;

use member::{Member, block_on};
use quorate_proto::etcdserverpb::{
    AlarmRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest,
    PutRequest, RangeRequest, RequestOp, SnapshotRequest, TxnRequest, WatchCreateRequest,
    WatchRequest, alarm_request::AlarmAction, kv_client::KvClient, lease_client::LeaseClient,
    maintenance_client::MaintenanceClient, request_op, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use text::Scrape;
use tokio_stream::StreamExt as _;

/// What etcd 3.4 shows and this server does not, for the reasons in docs/compat.md.
const LEFT_OUT: &[&str] = &[
    "etcd_debugging_auth_revision",
    "etcd_debugging_disk_backend_",
    "etcd_debugging_lease_ttl_total",
    "etcd_debugging_mvcc_db_",
    "etcd_debugging_mvcc_delete_total",
    "etcd_debugging_mvcc_index_",
    "etcd_debugging_mvcc_pending_events_total",
    "etcd_debugging_mvcc_put_total",
    "etcd_debugging_mvcc_range_total",
    "etcd_debugging_mvcc_total_put_size_in_bytes",
    "etcd_debugging_mvcc_txn_total",
    "etcd_debugging_snap_",
    "etcd_disk_backend_defrag_duration_seconds",
    "etcd_disk_defrag_inflight",
    "etcd_disk_wal_write_bytes_total",
    "etcd_http_successful_duration_seconds",
    "etcd_mvcc_db_open_read_transactions",
    "etcd_mvcc_hash_",
    "etcd_server_client_requests_total",
    "etcd_server_go_version",
    "etcd_server_slow_",
    "etcd_snap_",
];

/// Of etcd's families those that 3.4 has not, or only once they are used.
const NEWER: &[(&str, &str)] = &[
    ("etcd_debugging_store_reads_failed_total", "counter"),
    ("etcd_debugging_store_writes_failed_total", "counter"),
    ("etcd_server_healthcheck", "gauge"),
    ("etcd_server_healthchecks_total", "counter"),
];

#[test]
fn families_have_etcds_names_and_types() {
    block_on(async {
        let member = Member::start().await;
        let scrape = member.scrape().await;
        let recorded =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/metrics/etcd-3.4.23");
        let recorded = std::fs::read_to_string(recorded).expect("a recording");
        let recorded: BTreeSet<(&str, &str)> = recorded
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_once(' ').expect("a name and a type"))
            .collect();
        let ours = scrape.families();
        for family in &recorded {
            let left_out = LEFT_OUT.iter().any(|start| family.0.starts_with(start));
            assert_eq!(ours.contains(family), !left_out, "{family:?}");
        }
        for family in ours.difference(&recorded) {
            assert!(
                family.0.starts_with("quorate_") || NEWER.contains(family),
                "{family:?} is neither etcd's nor ours"
            );
        }
        member.stop().await;
    });
}

#[test]
fn every_method_has_all_its_series_from_the_start() {
    block_on(async {
        let member = Member::start().await;
        let scrape = member.scrape().await;
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/proto");
        let files = protox::compile(["rpc.proto", "health.proto"], [folder]).expect("they compile");
        let pool = prost_reflect::DescriptorPool::from_file_descriptor_set(files).expect("whole");
        let mut methods = 0;
        for method in pool
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
        {
            let kind = match (method.is_client_streaming(), method.is_server_streaming()) {
                (false, false) => "unary",
                (false, true) => "server_stream",
                (true, false) => "client_stream",
                (true, true) => "bidi_stream",
            };
            let service = method.parent_service().full_name().to_owned();
            let labels = [
                ("grpc_method", method.name()),
                ("grpc_service", &service[..]),
                ("grpc_type", kind),
            ];
            for name in ["started", "msg_received", "msg_sent"] {
                let name = format!("grpc_server_{name}_total");
                assert_eq!(scrape.get(&name, &labels), Some(0.0), "{name} {labels:?}");
            }
            let handled = scrape.all("grpc_server_handled_total", &labels);
            assert_eq!(handled, [0.0; 17], "{labels:?}");
            methods += 1;
        }
        assert!(methods > 20, "{methods}");
        let started = scrape.all("grpc_server_started_total", &[]);
        assert_eq!(started.len(), methods, "no others");
        member.stop().await;
    });
}

const PUT: [(&str, &str); 3] = [
    ("grpc_method", "Put"),
    ("grpc_service", "etcdserverpb.KV"),
    ("grpc_type", "unary"),
];

#[test]
fn calls_and_what_they_did_are_counted() {
    block_on(async {
        let member = Member::start().await;
        let before = member.scrape().await;
        let mut kv = KvClient::new(member.channel().await);
        let put = |key: &'static str| PutRequest {
            key: key.into(),
            value: "value".into(),
            ..PutRequest::default()
        };
        kv.put(put("a")).await.expect("a put");
        kv.put(put("")).await.expect_err("no key");
        let range = RangeRequest {
            key: "a".into(),
            ..RangeRequest::default()
        };
        kv.range(range.clone()).await.expect("a range");
        let op = |request| RequestOp {
            request: Some(request),
        };
        let success = vec![
            op(request_op::Request::RequestPut(put("b"))),
            op(request_op::Request::RequestRange(range)),
        ];
        let txn = TxnRequest {
            success,
            ..TxnRequest::default()
        };
        kv.txn(txn).await.expect("a txn");
        let delete = DeleteRangeRequest {
            key: "a".into(),
            ..DeleteRangeRequest::default()
        };
        kv.delete_range(delete).await.expect("a delete");
        let mut maintenance = MaintenanceClient::new(member.channel().await);
        let snapshot = maintenance.snapshot(SnapshotRequest {}).await;
        let mut snapshot = snapshot.expect("a snapshot").into_inner();
        while snapshot.message().await.expect("all of it").is_some() {}
        let after = member.scrape().await;
        let grew = |name: &str, labels: &[(&str, &str)]| {
            let value = |scrape: &Scrape| scrape.get(name, labels).expect(name);
            value(&after) - value(&before)
        };
        assert_eq!(grew("grpc_server_started_total", &PUT), 2.0);
        assert_eq!(grew("grpc_server_msg_received_total", &PUT), 2.0);
        assert_eq!(grew("grpc_server_msg_sent_total", &PUT), 1.0);
        for (code, count) in [("OK", 1.0), ("InvalidArgument", 1.0), ("Internal", 0.0)] {
            let labels = [&[("grpc_code", code)][..], &PUT].concat();
            assert_eq!(grew("grpc_server_handled_total", &labels), count, "{code}");
        }
        assert_eq!(grew("etcd_mvcc_put_total", &[]), 2.0);
        assert_eq!(grew("etcd_mvcc_range_total", &[]), 2.0);
        assert_eq!(grew("etcd_mvcc_delete_total", &[]), 1.0);
        assert_eq!(grew("etcd_mvcc_txn_total", &[]), 1.0);
        let snapshots = "etcd_disk_backend_snapshot_duration_seconds_count";
        assert_eq!(grew(snapshots, &[]), 1.0);
        assert_eq!(grew("etcd_debugging_mvcc_current_revision", &[]), 3.0);
        assert_eq!(grew("quorate_history_entries", &[]), 3.0);
        assert_eq!(after.get("etcd_server_has_leader", &[]), Some(1.0));
        assert_eq!(after.get("etcd_server_is_leader", &[]), Some(1.0));
        assert_eq!(after.get("etcd_server_proposals_pending", &[]), Some(0.0));
        let live = grew("etcd_mvcc_db_total_size_in_bytes", &[]);
        assert!(live > 512.0, "two versions of {live} bytes");
        for name in [
            "etcd_network_client_grpc_received_bytes_total",
            "etcd_network_client_grpc_sent_bytes_total",
            "etcd_server_proposals_applied_total",
            "etcd_server_proposals_committed_total",
            "etcd_disk_wal_fsync_duration_seconds_count",
            "etcd_disk_wal_fsync_duration_seconds_sum",
        ] {
            assert!(grew(name, &[]) > 0.0, "{name}");
        }
        member.stop().await;
    });
}

#[test]
fn streams_and_leases_are_counted() {
    block_on(async {
        let member = Member::start().await;
        let channel = member.channel().await;
        let create = WatchCreateRequest {
            key: "k".into(),
            ..WatchCreateRequest::default()
        };
        let request = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        let (send, mut sent) = tokio::sync::mpsc::channel(1);
        send.send(request).await.expect("room for one");
        let requests = futures_util::stream::poll_fn(move |context| sent.poll_recv(context));
        let watch = WatchClient::new(channel.clone()).watch(requests).await;
        let mut events = watch.expect("a stream").into_inner();
        events.next().await.expect("created").expect("no error");
        let mut kv = KvClient::new(channel.clone());
        let put = PutRequest {
            key: "k".into(),
            ..PutRequest::default()
        };
        kv.put(put).await.expect("a put");
        events.next().await.expect("an event").expect("no error");
        let watching = [
            ("grpc_method", "Watch"),
            ("grpc_service", "etcdserverpb.Watch"),
            ("grpc_type", "bidi_stream"),
        ];
        let open = member.scrape().await;
        let get = |name: &str| open.get(name, &[]);
        assert_eq!(get("etcd_debugging_mvcc_watch_stream_total"), Some(1.0));
        assert_eq!(get("etcd_debugging_mvcc_watcher_total"), Some(1.0));
        assert_eq!(get("etcd_debugging_mvcc_events_total"), Some(1.0));
        let of_watch = |name: &str| open.get(name, &watching);
        assert_eq!(of_watch("grpc_server_started_total"), Some(1.0));
        assert_eq!(of_watch("grpc_server_msg_received_total"), Some(1.0));
        assert_eq!(of_watch("grpc_server_msg_sent_total"), Some(2.0));
        let handled = open.all("grpc_server_handled_total", &watching);
        assert_eq!(handled, [0.0; 17], "it is open");

        drop((send, events));
        let mut lease = LeaseClient::new(channel);
        for id in [7, 8] {
            let grant = LeaseGrantRequest { ttl: 60, id };
            lease.lease_grant(grant).await.expect("a lease");
        }
        let alive = tokio_stream::once(LeaseKeepAliveRequest { id: 7 });
        let kept = lease.lease_keep_alive(alive).await.expect("a stream");
        assert_eq!(kept.into_inner().collect::<Vec<_>>().await.len(), 1);
        let revoke = LeaseRevokeRequest { id: 8 };
        lease.lease_revoke(revoke).await.expect("an end");
        let closed = member
            .scrape_until(|scrape| {
                scrape.get("etcd_debugging_mvcc_watch_stream_total", &[]) == Some(0.0)
            })
            .await;
        let get = |name: &str| closed.get(name, &[]);
        assert_eq!(get("etcd_debugging_mvcc_watcher_total"), Some(0.0));
        assert_eq!(get("etcd_debugging_lease_granted_total"), Some(2.0));
        assert_eq!(get("etcd_debugging_lease_renewed_total"), Some(1.0));
        assert_eq!(get("etcd_debugging_lease_revoked_total"), Some(1.0));
        assert_eq!(get("etcd_debugging_server_lease_expired_total"), Some(0.0));
        let handled = closed.all("grpc_server_handled_total", &watching);
        assert_eq!(handled.iter().sum::<f64>(), 1.0);
        let canceled = [&[("grpc_code", "Canceled")][..], &watching].concat();
        assert_eq!(
            closed.get("grpc_server_handled_total", &canceled),
            Some(1.0)
        );
        let keeping = [("grpc_code", "OK"), ("grpc_method", "LeaseKeepAlive")];
        assert_eq!(closed.all("grpc_server_handled_total", &keeping), [1.0]);
        member.stop().await;
    });
}

#[test]
fn what_v2_clients_do_is_counted() {
    block_on(async {
        let member = Member::start().await;
        for (request, status) in [
            ("GET /v2/keys/none", 404),
            ("GET /v2/keys/?recursive=true", 200),
            ("PUT /v2/keys/a?value=1", 201),
            ("PUT /v2/keys/a?value=2&prevValue=9", 412),
            ("PUT /v2/keys/a?value=2&prevExist=true", 200),
            ("DELETE /v2/keys/a?prevValue=2", 200),
            ("DELETE /v2/keys/a", 404),
            ("PUT /v2/keys/short?value=1&ttl=1", 201),
        ] {
            assert_eq!(member.ask(request).await.status, status, "{request}");
        }
        let scrape = member
            .scrape_until(|scrape| {
                scrape.get("etcd_debugging_store_expires_total", &[]) == Some(1.0)
            })
            .await;
        for (name, action, count) in [
            ("reads_total", "get", 0.0),
            ("reads_total", "getRecursive", 1.0),
            ("reads_failed_total", "get", 1.0),
            ("writes_total", "set", 2.0),
            ("writes_total", "update", 1.0),
            ("writes_total", "compareAndDelete", 1.0),
            ("writes_failed_total", "compareAndSwap", 1.0),
            ("writes_failed_total", "delete", 1.0),
        ] {
            let name = format!("etcd_debugging_store_{name}");
            assert_eq!(
                scrape.get(&name, &[("action", action)]),
                Some(count),
                "{name} {action}"
            );
        }
        let failed = [("method", "PUT"), ("code", "412")];
        assert_eq!(scrape.get("etcd_http_failed_total", &failed), Some(1.0));
        let received = [("method", "PUT")];
        assert_eq!(scrape.get("etcd_http_received_total", &received), Some(4.0));
        assert_eq!(
            member.ask("GET /v2/stats/store").await.body,
            "{\"getsSuccess\":1,\"getsFail\":1,\"setsSuccess\":2,\"setsFail\":0,\
             \"deleteSuccess\":0,\"deleteFail\":1,\"updateSuccess\":1,\"updateFail\":0,\
             \"createSuccess\":0,\"createFail\":0,\"compareAndSwapSuccess\":0,\
             \"compareAndSwapFail\":1,\"compareAndDeleteSuccess\":1,\"compareAndDeleteFail\":0,\
             \"expireCount\":1,\"watchers\":0}"
        );
        member.stop().await;
    });
}

#[test]
fn probes_say_what_they_checked() {
    block_on(async {
        let member = Member::start().await;
        let ready = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n\
                     [+]non_learner ok\nok\n";
        for (path, status, body) in [
            ("/livez", 200, "ok\n"),
            ("/readyz", 200, "ok\n"),
            ("/livez?verbose", 200, "[+]serializable_read ok\nok\n"),
            ("/readyz?verbose", 200, ready),
            (
                "/readyz?verbose&exclude=linearizable_read&exclude=non_learner&exclude=none",
                200,
                "[+]data_corruption ok\n[+]serializable_read ok\nok\n",
            ),
            (
                "/readyz/linearizable_read?verbose",
                200,
                "[+]linearizable_read ok\nok\n",
            ),
            ("/livez/linearizable_read", 404, "404 page not found\n"),
            ("/livezz", 404, "404 page not found\n"),
            ("/health", 200, "{\"health\":\"true\",\"reason\":\"\"}"),
            (
                "/health?serializable=true",
                200,
                "{\"health\":\"true\",\"reason\":\"\"}",
            ),
        ] {
            for answer in [
                member.ask(&format!("GET {path}")).await,
                member.ask_metrics(path).await,
            ] {
                assert_eq!((answer.status, &answer.body[..]), (status, body), "{path}");
            }
        }
        let refused = member.ask("POST /readyz").await;
        assert_eq!(
            (refused.status, refused.header("allow")),
            (405, Some("GET"))
        );
        assert_eq!(member.ask_metrics("/version").await.status, 404);
        let scrape = member.scrape().await;
        let checks = [
            ("type", "readyz"),
            ("name", "linearizable_read"),
            ("status", "success"),
        ];
        let made = scrape.get("etcd_server_healthchecks_total", &checks);
        assert_eq!(made, Some(6.0), "three paths on two ports");
        let live = [("type", "livez"), ("name", "serializable_read")];
        assert_eq!(scrape.get("etcd_server_healthcheck", &live), Some(1.0));
        assert_eq!(scrape.get("etcd_server_health_success", &[]), Some(4.0));
        member.stop().await;
    });
}

#[test]
fn alarms_are_told_unless_they_are_excluded() {
    block_on(async {
        let member = Member::start().await;
        let mut maintenance = MaintenanceClient::new(member.channel().await);
        for (alarm, name, readyz) in [(1, "NOSPACE", 200), (2, "CORRUPT", 503)] {
            let mut request = AlarmRequest {
                action: AlarmAction::Activate.into(),
                member_id: member.node.member_id(),
                alarm,
            };
            maintenance.alarm(request).await.expect("raised");
            let answer = member.ask("GET /health").await;
            let body = format!("{{\"health\":\"false\",\"reason\":\"ALARM {name}\"}}\n");
            assert_eq!((answer.status, answer.body), (503, body));
            let excluding = format!("GET /health?exclude=X&exclude={name}");
            assert_eq!(member.ask(&excluding).await.status, 200);
            assert_eq!(member.ask("GET /livez").await.status, 200);
            let answer = member.ask("GET /readyz").await;
            assert_eq!(answer.status, readyz, "{}", answer.body);
            if readyz != 200 {
                let failed = "[-]data_corruption failed: alarm activated: CORRUPT\n";
                assert!(answer.body.starts_with(failed), "{}", answer.body);
                assert_eq!(
                    member
                        .ask("GET /readyz?exclude=data_corruption")
                        .await
                        .status,
                    200
                );
                assert_eq!(
                    member.ask("GET /readyz/linearizable_read").await.status,
                    200
                );
            }
            request.action = AlarmAction::Deactivate.into();
            maintenance.alarm(request).await.expect("cleared");
            assert_eq!(member.ask("GET /health").await.status, 200);
        }
        member.stop().await;
    });
}

#[test]
fn variables_and_the_level_of_the_log() {
    block_on(async {
        let member = Member::start().await;
        let vars = member.ask("GET /debug/vars").await;
        let vars: serde_json::Value = serde_json::from_str(&vars.body).expect("JSON");
        assert_eq!(vars["raft.status"]["raftState"], "StateLeader");
        assert_eq!(
            vars["raft.status"]["id"],
            format!("{:x}", member.node.member_id())
        );
        assert!(vars["file_descriptor_limit"].as_u64() > Some(0), "{vars}");
        assert!(vars["cmdline"].is_array(), "{vars}");
        for (body, status, answer) in [
            ("{\"Level\":\"DEBUG\"}", 204, ""),
            ("{\"level\":\"warning\"} and more", 204, ""),
            ("{\"Level\":\"I\"}", 204, ""),
            (
                "{\"Level\":\"WARN\"}",
                400,
                "{\"message\":\"Invalid log level WARN\"}",
            ),
            ("{}", 400, "{\"message\":\"Invalid log level \"}"),
            ("{\"Level\":3}", 400, "{\"message\":\"Invalid json body\"}"),
            ("", 400, "{\"message\":\"Invalid json body\"}"),
        ] {
            let got = member.send("PUT /config/local/log", body).await;
            assert_eq!((got.status, &got.body[..]), (status, answer), "{body}");
        }
        assert_eq!(member.ask("GET /config/local/log").await.status, 405);
        member.stop().await;
    });
}
