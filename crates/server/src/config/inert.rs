//! The flags of etcd 3.4 to 3.7 that do nothing here, each with the reason.
//!
//! They are accepted so that a unit file or script written for etcd starts Quorate unchanged; each
//! one that is set is warned of once. When a later version heeds one, its row moves to
//! [`in_force`](super::in_force).

use super::flags::{Effect, Flag, Kind};

const CLUSTER: &str = "clusters of several members come with a later version";
const SAN: &str = "a client's address is never compared with its certificate, as in etcd";
const DISCOVERY: &str = "it is of discovery by v3 keys, which is not in it";
const AUTH: &str = "authentication comes with a later version";
const LATER: &str = "it comes with a later version";
const PROXY: &str = "there is no v2 proxy in it";
const BBOLT: &str = "there is no bbolt file in it";
const SNAPSHOTS: &str = "checkpoints go by bytes, and their files are its own to keep";
const TRACING: &str = "it sends no traces";
const CHECKS: &str = "what it reads is always checked, and members are not compared yet";
const DEFRAG: &str = "it needs no defragmentation";
const ANCIENT: &str = "it is of etcd 0.4 and no longer supported by etcd either";

const fn inert(
    name: &'static str,
    versions: &'static str,
    default: &'static str,
    kind: Kind,
    doc: &'static str,
) -> Flag {
    Flag {
        name,
        versions,
        default,
        kind,
        doc,
        effect: Effect::Inert,
    }
}

const fn ancient(name: &'static str) -> Flag {
    inert(name, "3.4", "", Kind::Legacy, ANCIENT)
}

use Kind::{Bool, Duration, Int, List, Text, Uint};

/// The rows, in the order of etcd's own groups.
#[rustfmt::skip]
pub(super) const TABLE: &[Flag] = &[
    // Member.
    inert("wal-dir", "all", "", Text, "the log is the database and lies in the data directory"),
    inert("snapshot-count", "all", "10000", Uint, "checkpoints go by bytes written, not by a count"),
    inert("max-snapshots", "all", "5", Uint, SNAPSHOTS),
    inert("max-wals", "all", "5", Uint, SNAPSHOTS),
    inert("listen-client-http-urls", "from 3.5", "", List, "gRPC and HTTP share the client URLs"),
    inert("backend-bbolt-freelist-type", "from 3.5", "map", Text, BBOLT),
    inert("backend-batch-interval", "all", "0s", Duration, BBOLT),
    inert("backend-batch-limit", "all", "0", Int, BBOLT),
    inert("grpc-keepalive-min-time", "all", "5s", Duration, LATER),
    inert("grpc-keepalive-interval", "all", "2h", Duration, LATER),
    inert("grpc-keepalive-timeout", "all", "20s", Duration, LATER),
    inert("socket-reuse-port", "from 3.5", "false", Bool, LATER),
    inert("socket-reuse-address", "from 3.5", "false", Bool, LATER),
    inert("raft-read-timeout", "from 3.5", "5s", Duration, CLUSTER),
    inert("raft-write-timeout", "from 3.5", "5s", Duration, CLUSTER),
    inert("memory-mlock", "from 3.6", "false", Bool, BBOLT),
    inert("feature-gates", "from 3.6", "", Text, "none of etcd's gates has its feature in it yet"),
    // Clustering.
    inert("discovery-proxy", "3.4 to 3.5", "", Text, "the discovery service is spoken to directly"),
    inert("discovery-dial-timeout", "from 3.6", "2s", Duration, DISCOVERY),
    inert("discovery-request-timeout", "from 3.6", "5s", Duration, DISCOVERY),
    inert("discovery-keepalive-time", "from 3.6", "2s", Duration, DISCOVERY),
    inert("discovery-keepalive-timeout", "from 3.6", "6s", Duration, DISCOVERY),
    inert("discovery-insecure-transport", "from 3.6", "true", Bool, DISCOVERY),
    inert("discovery-insecure-skip-tls-verify", "from 3.6", "false", Bool, DISCOVERY),
    inert("discovery-cert", "from 3.6", "", Text, DISCOVERY),
    inert("discovery-key", "from 3.6", "", Text, DISCOVERY),
    inert("discovery-cacert", "from 3.6", "", Text, DISCOVERY),
    inert("discovery-user", "from 3.6", "", Text, DISCOVERY),
    inert("discovery-password", "from 3.6", "", Text, DISCOVERY),
    inert("pre-vote", "all", "true", Bool, "it is always on"),
    inert("v2-deprecation", "from 3.5", "", Text, "v2 is not deprecated in it; see --enable-v2"),
    inert("snapshot-catchup-entries", "from 3.6", "5000", Uint, CLUSTER),
    inert("downgrade-check-time", "from 3.6", "5s", Duration, CLUSTER),
    inert("next-cluster-version-compatible", "3.4", "false", Bool, CLUSTER),
    // Security.
    inert("client-skip-client-san-verification", "Quorate", "false", Bool, SAN),
    // Authentication.
    inert("auth-token", "all", "simple", Text, AUTH),
    inert("bcrypt-cost", "all", "10", Uint, AUTH),
    inert("auth-token-ttl", "all", "300", Uint, AUTH),
    // Observability.
    inert("enable-pprof", "all", "false", Bool, "Go's profiles are not in it"),
    inert("metrics", "all", "basic", Text, LATER),
    inert("warning-unary-request-duration", "from 3.6", "300ms", Duration, LATER),
    inert("warning-apply-duration", "from 3.6", "100ms", Duration, LATER),
    inert("enable-distributed-tracing", "from 3.6", "false", Bool, TRACING),
    inert("distributed-tracing-address", "from 3.6", "localhost:4317", Text, TRACING),
    inert("distributed-tracing-service-name", "from 3.6", "etcd", Text, TRACING),
    inert("distributed-tracing-instance-id", "from 3.6", "", Text, TRACING),
    inert("distributed-tracing-sampling-rate", "from 3.6", "0", Int, TRACING),
    inert("enable-log-rotation", "from 3.5", "false", Bool, "logrotate or journald do it"),
    inert("log-rotation-config-json", "from 3.5", "", Text, "logrotate or journald do it"),
    inert("log-package-levels", "3.4", "", Text, "it has one level; see --log-level"),
    // Checks and background work.
    inert("corrupt-check-time", "from 3.6", "0s", Duration, CHECKS),
    inert("compact-hash-check-time", "from 3.6", "1m", Duration, CHECKS),
    inert("compaction-batch-limit", "from 3.6", "1000", Int, "compaction never blocks"),
    inert("compaction-sleep-interval", "from 3.6", "10ms", Duration, "compaction never blocks"),
    inert("bootstrap-defrag-threshold-megabytes", "from 3.6", "0", Uint, DEFRAG),
    // Unsafe.
    inert("unsafe-no-fsync", "from 3.5", "false", Bool, "what it answered is on disk, always"),
    // The v2 proxy. --proxy itself is refused unless it is off.
    inert("proxy-failure-wait", "3.4 to 3.5", "5000", Uint, PROXY),
    inert("proxy-refresh-interval", "3.4 to 3.5", "30000", Uint, PROXY),
    inert("proxy-dial-timeout", "3.4 to 3.5", "1000", Uint, PROXY),
    inert("proxy-write-timeout", "3.4 to 3.5", "5000", Uint, PROXY),
    inert("proxy-read-timeout", "3.4 to 3.5", "0", Uint, PROXY),
    // Experimental, until 3.6.
    inert("experimental-initial-corrupt-check", "3.4 to 3.6", "false", Bool, CHECKS),
    inert("experimental-corrupt-check-time", "3.4 to 3.6", "0s", Duration, CHECKS),
    inert("experimental-compact-hash-check-enabled", "3.5 to 3.6", "false", Bool, CHECKS),
    inert("experimental-compact-hash-check-time", "3.5 to 3.6", "1m", Duration, CHECKS),
    inert("experimental-enable-v2v3", "3.4 to 3.5", "", Text, "v2 and v3 always share their keys"),
    inert("experimental-backend-bbolt-freelist-type", "3.4", "array", Text, BBOLT),
    inert("experimental-enable-lease-checkpoint", "3.4 to 3.6", "false", Bool, CLUSTER),
    inert("experimental-enable-lease-checkpoint-persist", "3.5 to 3.6", "false", Bool, CLUSTER),
    inert("experimental-compaction-batch-limit", "3.4 to 3.6", "1000", Int, "compaction never blocks"),
    inert("experimental-compaction-sleep-interval", "3.5 to 3.6", "10ms", Duration, "compaction never blocks"),
    inert("experimental-downgrade-check-time", "3.5 to 3.6", "5s", Duration, CLUSTER),
    inert("experimental-warning-apply-duration", "3.4 to 3.6", "100ms", Duration, LATER),
    inert("experimental-warning-unary-request-duration", "3.5 to 3.6", "300ms", Duration, LATER),
    inert("experimental-memory-mlock", "3.5 to 3.6", "false", Bool, BBOLT),
    inert("experimental-txn-mode-write-with-shared-buffer", "3.5 to 3.6", "true", Bool, BBOLT),
    inert("experimental-bootstrap-defrag-threshold-megabytes", "3.5 to 3.6", "0", Uint, DEFRAG),
    inert("experimental-stop-grpc-service-on-defrag", "3.5 to 3.6", "false", Bool, DEFRAG),
    inert("experimental-snapshot-catchup-entries", "3.5 to 3.6", "5000", Uint, CLUSTER),
    inert("experimental-wait-cluster-ready-timeout", "3.5", "5s", Duration, CLUSTER),
    inert("experimental-set-member-localaddr", "3.6", "false", Bool, CLUSTER),
    inert("experimental-enable-distributed-tracing", "3.5 to 3.6", "false", Bool, TRACING),
    inert("experimental-distributed-tracing-address", "3.5 to 3.6", "localhost:4317", Text, TRACING),
    inert("experimental-distributed-tracing-service-name", "3.5 to 3.6", "etcd", Text, TRACING),
    inert("experimental-distributed-tracing-instance-id", "3.5 to 3.6", "", Text, TRACING),
    inert("experimental-distributed-tracing-sampling-rate", "3.5 to 3.6", "0", Int, TRACING),
    // Of etcd 0.4, which 3.4 accepts and ignores.
    ancient("cluster-active-size"),
    ancient("cluster-remove-delay"),
    ancient("cluster-sync-interval"),
    ancient("config"),
    ancient("force"),
    ancient("max-result-buffer"),
    ancient("max-retry-attempts"),
    ancient("peer-heartbeat-interval"),
    ancient("peer-election-timeout"),
    ancient("retry-interval"),
    ancient("snapshot"),
    ancient("v"),
    ancient("vv"),
];
