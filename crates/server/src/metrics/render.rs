//! All that `/metrics` shows, gathered when somebody looks.

use super::text::Text;
use super::{CHECKS, Metrics, process};
use crate::arrival::{HANDSHAKES, MAX_BYTES};
use crate::config::version::{API_VERSION, CLUSTER_VERSION, GIT_SHA, QUORATE_VERSION};
use crate::node::{MAX_WAITING, MAX_WAITING_BYTES, Node};
use crate::v3::WATCH_CHUNK_BYTES;

/// The text of `/metrics`.
pub(super) fn all(node: &Node) -> String {
    let mut out = Text::default();
    member(&mut out, node);
    node.metrics().peers.render(&mut out, node);
    proposals(&mut out, node);
    disk(&mut out, node);
    store(&mut out, node);
    watches_and_leases(&mut out, node);
    bounds(&mut out, node);
    probes(&mut out, node.metrics());
    node.metrics()
        .tree
        .render(&mut out, node.tree_hub().watchers());
    node.metrics().calls.render(&mut out);
    process::render(&mut out);
    out.into_string()
}

fn member(out: &mut Text, node: &Node) {
    let status = node.status();
    let leads = status.leader == Some(node.member_id());
    let has_leader = u8::from(status.leader.is_some());
    out.gauge(
        "etcd_server_has_leader",
        "Whether a leader is known.",
        has_leader,
    );
    let help = "Whether this member leads.";
    out.gauge("etcd_server_is_leader", help, u8::from(leads));
    let help = "Whether this member only learns.";
    out.gauge("etcd_server_is_learner", help, u8::from(node.is_learner()));
    let help = "How often a leader was found who was not the one before.";
    let changes = node.metrics().leader_changes.get();
    out.counter("etcd_server_leader_changes_seen_total", help, changes);
    let help = "Learners that were given their vote, as asked here.";
    let promotions = node.metrics().promotions.get();
    out.counter("etcd_server_learner_promote_successes", help, promotions);
    let help = "Whether a state is being received from the leader, or put in place.";
    let receives = u8::from(node.is_receiving());
    out.gauge(
        "etcd_server_snapshot_apply_in_progress_total",
        help,
        receives,
    );
    let help = "How often this leader's heartbeats were late by more than one interval.";
    let late = node.metrics().late_heartbeats.get();
    out.counter("etcd_server_heartbeat_send_failures_total", help, late);
    let id = format!("{:x}", node.member_id());
    let help = "This member's id, in hexadecimal.";
    out.info("etcd_server_id", help, &[("server_id", &id)]);
    let help = "The release of etcd whose API is answered.";
    out.info(
        "etcd_server_version",
        help,
        &[("server_version", API_VERSION)],
    );
    let minor = CLUSTER_VERSION
        .rsplit_once('.')
        .map_or(CLUSTER_VERSION, |(minor, _)| minor);
    let help = "The cluster version that goes with it.";
    out.info("etcd_cluster_version", help, &[("cluster_version", minor)]);
    let labels = [
        ("version", QUORATE_VERSION),
        ("commit", GIT_SHA.unwrap_or("")),
    ];
    out.info("quorate_build_info", "This program.", &labels);
    let help = "The current term.";
    out.gauge("quorate_raft_term", help, status.term);
}

fn proposals(out: &mut Text, node: &Node) {
    let (status, metrics) = (node.status(), node.metrics());
    let help = "The index up to which entries are committed.";
    out.gauge(
        "etcd_server_proposals_committed_total",
        help,
        status.committed,
    );
    let help = "The index up to which entries are applied.";
    out.gauge("etcd_server_proposals_applied_total", help, status.applied);
    let help = "Proposals that wait for their answer.";
    out.gauge(
        "etcd_server_proposals_pending",
        help,
        node.waiting().requests,
    );
    let help = "Proposals that were not answered in time, or not before the member stopped.";
    let failed = metrics.proposals_failed.get();
    out.counter("etcd_server_proposals_failed_total", help, failed);
    let help = "Linearizable reads that were not answered in time.";
    let failed = metrics.reads_failed.get();
    out.counter("etcd_server_read_indexes_failed_total", help, failed);
}

fn disk(out: &mut Text, node: &Node) {
    let times = node.disk_times();
    let help = "How long the log took to be durable, a sync for each batch.";
    out.times("etcd_disk_wal_fsync_duration_seconds", help, &times.log);
    let help = "How long a piece of a checkpoint took to be durable.";
    let checkpoints = &times.checkpoints;
    out.times(
        "etcd_disk_backend_commit_duration_seconds",
        help,
        checkpoints,
    );
    let metrics = node.metrics();
    let help = "How long a snapshot took, until its client had all of it.";
    out.times(
        "etcd_disk_backend_snapshot_duration_seconds",
        help,
        &metrics.snapshots,
    );
    let help = "Checkpoints taken.";
    out.counter("quorate_checkpoints_total", help, metrics.checkpoints.get());
    let help = "Size of the newest checkpoint taken; 0 before the first.";
    let bytes = metrics.checkpoint_bytes.get();
    out.gauge("quorate_checkpoint_bytes", help, bytes);
    let help = "Bytes of live values copied out of sparse segments, so that these are freed.";
    out.counter(
        "quorate_reclaim_copied_bytes_total",
        help,
        metrics.bytes_moved.get(),
    );
    if let Some(bytes) = directory_bytes(node) {
        let help = "Size of all files of the data directory.";
        out.gauge("quorate_data_directory_bytes", help, bytes);
    }
    if let Some(kept) = node.kept() {
        let help = "Spare segment files: one is the reserve for a full disk.";
        out.gauge("quorate_spare_segments", help, kept.segments);
        let help = "Bytes kept for a checkpoint on a full disk.";
        out.gauge(
            "quorate_checkpoint_reserve_bytes",
            help,
            kept.checkpoint_bytes,
        );
        let help = "1 while the disk has no room beyond the reserve: writes that grow are refused.";
        out.gauge("quorate_disk_short", help, u8::from(kept.is_short));
    }
}

fn directory_bytes(node: &Node) -> Option<u64> {
    let entries = std::fs::read_dir(&node.config().data_dir).ok()?;
    // A file that goes meanwhile does not count.
    let sizes = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
    Some(sizes.sum())
}

fn store(out: &mut Text, node: &Node) {
    let (live, keys, revision, compacted, history, history_bytes) = {
        let machine = node.machine();
        let store = machine.store();
        (
            store.live_bytes(),
            store.key_count(),
            store.revision().to_wire(),
            store.compacted(),
            store.history_len(),
            store.history_bytes(),
        )
    };
    let help = "Bytes that count against the quota: all versions that are not compacted.";
    out.gauge("etcd_mvcc_db_total_size_in_bytes", help, live);
    let help = "The same: there are no free pages that wait for a defragmentation.";
    out.gauge("etcd_mvcc_db_total_size_in_use_in_bytes", help, live);
    let quota = node.config().quota_bytes.unwrap_or(0);
    let help = "The quota; 0 for none.";
    out.gauge("etcd_server_quota_backend_bytes", help, quota);
    let help = "Keys that are alive or in history.";
    out.gauge("etcd_debugging_mvcc_keys_total", help, keys);
    let help = "The latest revision.";
    out.gauge("etcd_debugging_mvcc_current_revision", help, revision);
    let help = "The revision of the last compaction; -1 before the first.";
    out.gauge("etcd_debugging_mvcc_compact_revision", help, compacted);
    let help = "Changes that are kept for reading the past.";
    out.gauge("quorate_history_entries", help, history);
    let help = "What they take of memory, about.";
    out.gauge("quorate_history_bytes", help, history_bytes);
    let help = "At this size of history its oldest quarter is compacted.";
    let bound = node.config().history_memory_bytes;
    out.gauge("quorate_history_max_bytes", help, bound);
    let applied = &node.metrics().applied;
    let ranges = applied.ranges.get() + node.metrics().ranges.get();
    for (name, help, count) in [
        (
            "etcd_mvcc_put_total",
            "Puts through v3.",
            applied.puts.get(),
        ),
        (
            "etcd_mvcc_delete_total",
            "Deletes through v3.",
            applied.deletes.get(),
        ),
        ("etcd_mvcc_range_total", "Ranges through v3.", ranges),
        (
            "etcd_mvcc_txn_total",
            "Transactions through v3 of more than one operation.",
            applied.txns.get(),
        ),
    ] {
        out.counter(name, help, count);
    }
}

fn watches_and_leases(out: &mut Text, node: &Node) {
    let (metrics, hub) = (node.metrics(), node.watch_hub());
    let help = "Watch streams that are open.";
    let streams = metrics.watch_streams.get();
    out.gauge("etcd_debugging_mvcc_watch_stream_total", help, streams);
    let help = "Watchers.";
    out.gauge("etcd_debugging_mvcc_watcher_total", help, hub.watchers());
    let help = "Watchers with news that they have not looked at.";
    let slow = hub.slow_watchers();
    out.gauge("etcd_debugging_mvcc_slow_watcher_total", help, slow);
    let help = "Events sent to watchers.";
    let events = metrics.events_sent.get();
    out.counter("etcd_debugging_mvcc_events_total", help, events);
    let applied = &metrics.applied;
    for (name, help, count) in [
        (
            "etcd_debugging_lease_granted_total",
            "Leases granted.",
            applied.granted.get(),
        ),
        (
            "etcd_debugging_lease_revoked_total",
            "Leases ended, by a client or by their time.",
            applied.revoked.get(),
        ),
        (
            "etcd_debugging_lease_renewed_total",
            "Leases kept alive.",
            metrics.leases_renewed.get(),
        ),
        (
            "etcd_debugging_server_lease_expired_total",
            "Leases ended by their time.",
            applied.expired.get(),
        ),
        (
            "etcd_network_client_grpc_received_bytes_total",
            "Bytes of gRPC messages that came from clients.",
            metrics.received_bytes.get(),
        ),
        (
            "etcd_network_client_grpc_sent_bytes_total",
            "Bytes of gRPC messages that went to clients.",
            metrics.sent_bytes.get(),
        ),
    ] {
        out.counter(name, help, count);
    }
}

/// What may pile up, each beside its bound (P8).
fn bounds(out: &mut Text, node: &Node) {
    let (waiting, config, metrics) = (node.waiting(), node.config(), node.metrics());
    for (name, help, value) in [
        (
            "quorate_waiting_requests",
            "Proposals that wait for their answer.",
            waiting.requests as u64,
        ),
        (
            "quorate_waiting_requests_bound",
            "One more than this is refused.",
            MAX_WAITING as u64,
        ),
        (
            "quorate_waiting_bytes",
            "Bytes of proposals that wait for their answer.",
            waiting.bytes as u64,
        ),
        (
            "quorate_waiting_bytes_bound",
            "With so many waiting, one more proposal is refused.",
            MAX_WAITING_BYTES as u64,
        ),
        (
            "quorate_request_bytes_bound",
            "The largest request that is taken.",
            config.max_request_bytes,
        ),
        (
            "quorate_txn_operations_bound",
            "The most operations of a transaction.",
            config.max_txn_ops,
        ),
        (
            "quorate_connection_streams_bound",
            "The most requests that one connection may have open.",
            u64::from(config.max_concurrent_streams),
        ),
        (
            "quorate_watch_stream_bytes_bound",
            "What a watch stream has ready for its client; one response may go beyond.",
            WATCH_CHUNK_BYTES as u64,
        ),
        (
            "quorate_client_connections",
            "Connections of clients.",
            metrics.connections.get(),
        ),
        (
            "quorate_client_connections_bound",
            "With so many open, one more waits until another ends.",
            metrics.connections_bound.get(),
        ),
        (
            "quorate_tls_handshakes",
            "TLS handshakes under way.",
            metrics.tls.under_way.get(),
        ),
        (
            "quorate_tls_handshakes_bound",
            "With so many under way, one more waits.",
            HANDSHAKES as u64,
        ),
        (
            "quorate_arriving_bytes",
            "Bytes of requests that have not arrived whole.",
            metrics.arriving_bytes.get(),
        ),
        (
            "quorate_arriving_bytes_bound",
            "A request whose bytes would be more than this together is refused.",
            MAX_BYTES,
        ),
    ] {
        out.gauge(name, help, value);
    }
    let help = "Requests that were refused since too many waited.";
    let refused = metrics.requests_refused.get();
    out.counter("quorate_requests_refused_total", help, refused);
    let name = "quorate_tls_connections_total";
    let help = "Connections by what came of their handshakes; not_tls spoke in clear where TLS is \
                spoken, unexpected spoke TLS where it is not.";
    out.family(name, "counter", help);
    let tls = &metrics.tls;
    for (result, count) in [
        ("done", &tls.done),
        ("failed", &tls.failed),
        ("gone", &tls.gone),
        ("late", &tls.late),
        ("not_tls", &tls.cleartext),
        ("unexpected", &tls.unexpected),
    ] {
        out.sample(name, &[("result", result)], count.get());
    }
}

fn probes(out: &mut Text, metrics: &Metrics) {
    let help = "Times that /health found the member well.";
    let count = metrics.health_successes.get();
    out.counter("etcd_server_health_success", help, count);
    let help = "Times that /health found something wrong.";
    let count = metrics.health_failures.get();
    out.counter("etcd_server_health_failures", help, count);
    let name = "etcd_server_healthcheck";
    let help = "What a check of /livez or /readyz found last: 1 for well, 0 also before the first.";
    out.family(name, "gauge", help);
    for ((kind, check), probe) in CHECKS.iter().zip(&metrics.probes) {
        let labels = [("name", *check), ("type", *kind)];
        out.sample(name, &labels, probe.is_well.get());
    }
    let name = "etcd_server_healthchecks_total";
    out.family(name, "counter", "Checks of /livez and /readyz made.");
    for ((kind, check), probe) in CHECKS.iter().zip(&metrics.probes) {
        for (status, count) in [("success", &probe.successes), ("error", &probe.failures)] {
            let labels = [("name", *check), ("status", status), ("type", *kind)];
            out.sample(name, &labels, count.get());
        }
    }
}
