//! What is counted while the server runs, and `/metrics`, which shows it under etcd's names.
//!
//! Owns the counters and their rendering. A count is one relaxed atomic addition; nothing is timed
//! on the way of a request. What a lock, the store or the system knows anyway is asked when
//! somebody looks, on a thread beside the runtime. What this server cannot say truthfully is left
//! out; docs/compat.md names it.
//!
//! Source: spec/v3-api.md §3.5, spec/v2-api.md §3.2.

mod calls;
mod framed;
mod peers;
mod process;
mod render;
mod text;
mod tree;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Response, StatusCode};
use quorate_store::command::RequestId;
use quorate_store::{Outcome, Reply};

use crate::disk::{SnapshotTimes, SyncTimes};
use crate::node::Node;
pub(crate) use calls::{
    COMPACT, Call, Calls, DELETE_RANGE, LEASE_GRANT, LEASE_REVOKE, MethodId, PUT, RANGE, TXN,
};
pub(crate) use framed::{count_request, count_response};
pub(crate) use peers::Peers;
pub(crate) use tree::{TreeCounts, WriteKind};

/// A number that only grows, or one that stands for how many there are now.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Counts less again, where the number stands for what is there.
    pub(crate) fn take(&self, count: u64) {
        self.0.fetch_sub(count, Relaxed);
    }

    pub(crate) fn set(&self, count: u64) {
        self.0.store(count, Relaxed);
    }
}

/// Counts while it lives.
#[derive(Debug)]
pub(crate) struct Open(Arc<Metrics>, fn(&Metrics) -> &Counter);

impl Drop for Open {
    fn drop(&mut self) {
        self.1(&self.0).take(1);
    }
}

/// What one run of a member has counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) calls: Calls,
    /// Bytes of gRPC messages, without their frames.
    pub(crate) received_bytes: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) tree: TreeCounts,
    pub(crate) probes: [Probe; CHECKS.len()],
    pub(crate) health_successes: Counter,
    pub(crate) health_failures: Counter,
    /// Proposals that were taken and not answered in time.
    pub(crate) proposals_failed: Counter,
    pub(crate) reads_failed: Counter,
    /// Requests refused since too many waited.
    pub(crate) requests_refused: Counter,
    pub(crate) leader_changes: Counter,
    pub(crate) leases_renewed: Counter,
    /// Ranges of KV calls that did not go through the log.
    pub(crate) ranges: Counter,
    pub(crate) events_sent: Counter,
    watch_streams: Counter,
    /// Connections of clients, and how many there may be.
    pub(crate) connections: Counter,
    pub(crate) connections_bound: Counter,
    pub(crate) tls: TlsCounts,
    /// Bytes of bodies that have not arrived whole.
    pub(crate) arriving_bytes: Counter,
    /// How long snapshots took that were sent whole.
    pub(crate) snapshots: SnapshotTimes,
    pub(crate) checkpoints: Counter,
    /// The size of the newest checkpoint of this run.
    checkpoint_bytes: Counter,
    /// Bytes of values copied out of sparse segments.
    pub(crate) bytes_moved: Counter,
    pub(crate) peers: Peers,
    /// Ticks of the leader that were so late that its heartbeats were.
    pub(crate) late_heartbeats: Counter,
    /// Learners that were given their vote, as asked here.
    pub(crate) promotions: Counter,
    applied: Applied,
}

/// What came of connections where TLS is spoken, or was where it is not.
#[derive(Debug, Default)]
pub(crate) struct TlsCounts {
    /// Handshakes that are being made.
    pub(crate) under_way: Counter,
    pub(crate) done: Counter,
    /// Handshakes that failed: a certificate that is not accepted, no common version.
    pub(crate) failed: Counter,
    /// Handshakes that took too long.
    pub(crate) late: Counter,
    /// Connections that ended before they said anything.
    pub(crate) gone: Counter,
    /// Connections that spoke in clear where TLS is spoken.
    pub(crate) cleartext: Counter,
    /// Connections that spoke TLS where it is not spoken.
    pub(crate) unexpected: Counter,
}

/// What applied commands did.
#[derive(Debug, Default)]
struct Applied {
    puts: Counter,
    deletes: Counter,
    ranges: Counter,
    txns: Counter,
    granted: Counter,
    revoked: Counter,
    expired: Counter,
}

/// How often a check of `/livez` or `/readyz` was made.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    pub(crate) successes: Counter,
    pub(crate) failures: Counter,
    /// Whether the last one succeeded.
    pub(crate) is_well: Counter,
}

/// The checks, by the probe they belong to. Source: spec/v3-api.md §3.4.
pub(crate) const CHECKS: [(&str, &str); 5] = [
    ("livez", "serializable_read"),
    ("readyz", "data_corruption"),
    ("readyz", "serializable_read"),
    ("readyz", "linearizable_read"),
    ("readyz", "non_learner"),
];

impl Metrics {
    /// Counts a watch stream as long as the answer lives.
    pub(crate) fn open_watch_stream(self: &Arc<Self>) -> Open {
        self.open(|metrics| &metrics.watch_streams)
    }

    /// Counts a client's connection as long as the answer lives.
    pub(crate) fn open_connection(self: &Arc<Self>) -> Open {
        self.open(|metrics| &metrics.connections)
    }

    /// Counts a handshake under way as long as the answer lives.
    pub(crate) fn open_handshake(self: &Arc<Self>) -> Open {
        self.open(|metrics| &metrics.tls.under_way)
    }

    fn open(self: &Arc<Self>, counter: fn(&Metrics) -> &Counter) -> Open {
        counter(self).one();
        Open(self.clone(), counter)
    }

    /// Requests that clients have begun, of either dialect.
    pub(crate) fn requests(&self) -> u64 {
        self.calls.started() + self.tree.requests()
    }

    /// Notes a checkpoint of so many bytes.
    pub(crate) fn took_checkpoint(&self, bytes: u64) {
        self.checkpoints.one();
        self.checkpoint_bytes.set(bytes);
    }

    /// Notes what a check found.
    pub(crate) fn probed(&self, check: usize, is_well: bool) {
        let probe = &self.probes[check];
        let count = if is_well {
            &probe.successes
        } else {
            &probe.failures
        };
        count.one();
        probe.is_well.set(u64::from(is_well));
    }
}

/// What a batch of applied commands did, to be counted at once.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    ops: Ops,
    txns: u64,
    granted: u64,
    revoked: u64,
    expired: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ops {
    puts: u64,
    deletes: u64,
    ranges: u64,
}

impl Tally {
    /// Takes in what came of a command.
    pub(crate) fn add(&mut self, id: &RequestId, outcome: &Outcome) {
        let Ok(reply) = &outcome.result else { return };
        match reply {
            Reply::LeaseGranted { .. } => self.granted += 1,
            Reply::LeaseRevoked => {
                self.revoked += 1;
                // Counter 0: nobody asked for it but its own time.
                self.expired += u64::from(id.counter == 0);
            }
            reply => {
                let before = self.ops;
                self.ops.add(reply);
                self.txns += u64::from(self.ops.sum() - before.sum() > 1);
            }
        }
    }

    pub(crate) fn count(self, metrics: &Metrics) {
        let applied = &metrics.applied;
        for (counter, count) in [
            (&applied.puts, self.ops.puts),
            (&applied.deletes, self.ops.deletes),
            (&applied.ranges, self.ops.ranges),
            (&applied.txns, self.txns),
            (&applied.granted, self.granted),
            (&applied.revoked, self.revoked),
            (&applied.expired, self.expired),
        ] {
            if count > 0 {
                counter.add(count);
            }
        }
    }
}

impl Ops {
    fn add(&mut self, reply: &Reply) {
        match reply {
            Reply::Put { .. } => self.puts += 1,
            Reply::Deleted { .. } => self.deletes += 1,
            Reply::Range(_) => self.ranges += 1,
            Reply::Txn(txn) => txn.responses.iter().for_each(|(_, reply)| self.add(reply)),
            // Not of the key-value API.
            _ => {}
        }
    }

    fn sum(&self) -> u64 {
        self.puts + self.deletes + self.ranges
    }
}

/// How long the member's syncs took.
#[derive(Debug)]
pub(crate) struct DiskTimes {
    /// Of the log.
    pub(crate) log: Arc<SyncTimes>,
    /// Of checkpoints, which are synced piece by piece.
    pub(crate) checkpoints: Arc<SyncTimes>,
}

/// Answers `/metrics`.
pub(crate) async fn respond(node: &Node) -> Response<Body> {
    let node = node.clone();
    // It lists this process's files and the data directory: nothing for the runtime's thread.
    let rendered = tokio::task::spawn_blocking(move || render::all(&node)).await;
    let Ok(text) = rendered else {
        return crate::v2::plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the metrics could not be rendered; the panic is in the log\n",
        );
    };
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

pub(crate) use process::descriptor_limit;
