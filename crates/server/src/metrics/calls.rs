//! gRPC calls, counted by method and outcome as `grpc_server_*`.

use std::array::from_fn;
use std::ops::Deref;

use tonic::Code;

use super::text::Text;
use super::{Counter, Metrics};

/// How many messages go which way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Unary,
    ServerStream,
    BidiStream,
}

/// A method that is counted: its place in [`METHODS`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct MethodId(usize);

pub(crate) const RANGE: MethodId = MethodId(0);
pub(crate) const PUT: MethodId = MethodId(1);
pub(crate) const DELETE_RANGE: MethodId = MethodId(2);
pub(crate) const TXN: MethodId = MethodId(3);
pub(crate) const COMPACT: MethodId = MethodId(4);
pub(crate) const LEASE_GRANT: MethodId = MethodId(5);
pub(crate) const LEASE_REVOKE: MethodId = MethodId(6);

const KV: &str = "etcdserverpb.KV";
const WATCH: &str = "etcdserverpb.Watch";
const LEASE: &str = "etcdserverpb.Lease";
const CLUSTER: &str = "etcdserverpb.Cluster";
const MAINTENANCE: &str = "etcdserverpb.Maintenance";
const HEALTH: &str = "grpc.health.v1.Health";

use Kind::{BidiStream, ServerStream, Unary};

/// Every method of every service that is served; those with a constant come first.
pub(super) const METHODS: [(&str, &str, Kind); 27] = [
    (KV, "Range", Unary),
    (KV, "Put", Unary),
    (KV, "DeleteRange", Unary),
    (KV, "Txn", Unary),
    (KV, "Compact", Unary),
    (LEASE, "LeaseGrant", Unary),
    (LEASE, "LeaseRevoke", Unary),
    (KV, "RangeStream", ServerStream),
    (WATCH, "Watch", BidiStream),
    (LEASE, "LeaseKeepAlive", BidiStream),
    (LEASE, "LeaseTimeToLive", Unary),
    (LEASE, "LeaseLeases", Unary),
    (CLUSTER, "MemberAdd", Unary),
    (CLUSTER, "MemberRemove", Unary),
    (CLUSTER, "MemberUpdate", Unary),
    (CLUSTER, "MemberList", Unary),
    (CLUSTER, "MemberPromote", Unary),
    (MAINTENANCE, "Alarm", Unary),
    (MAINTENANCE, "Status", Unary),
    (MAINTENANCE, "Defragment", Unary),
    (MAINTENANCE, "Hash", Unary),
    (MAINTENANCE, "HashKV", Unary),
    (MAINTENANCE, "Snapshot", ServerStream),
    (MAINTENANCE, "MoveLeader", Unary),
    (MAINTENANCE, "Downgrade", Unary),
    (HEALTH, "Check", Unary),
    (HEALTH, "Watch", ServerStream),
];

/// gRPC's codes by number, in Go's spelling.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The calls of every method.
#[derive(Debug)]
pub(crate) struct Calls([Counts; METHODS.len()]);

/// Of a unary call the messages are not counted: one comes in, and one goes out if it succeeds.
#[derive(Debug, Default)]
struct Counts {
    started: Counter,
    handled: [Counter; CODES.len()],
    received: Counter,
    sent: Counter,
}

impl Default for Calls {
    fn default() -> Self {
        Self(from_fn(|_| Counts::default()))
    }
}

impl Calls {
    /// The method that a path names, `/service/method`.
    pub(crate) fn find(path: &str) -> Option<MethodId> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        let found = METHODS
            .iter()
            .position(|(s, m, _)| (*s, *m) == (service, method));
        found.map(MethodId)
    }

    /// Calls that began.
    pub(super) fn started(&self) -> u64 {
        self.0.iter().map(|counts| counts.started.get()).sum()
    }

    /// Counts messages of a stream that came in.
    pub(super) fn received(&self, method: MethodId, messages: u64) {
        self.0[method.0].received.add(messages);
    }

    /// Counts messages of a stream that went out.
    pub(super) fn sent(&self, method: MethodId, messages: u64) {
        self.0[method.0].sent.add(messages);
    }

    pub(super) fn render(&self, out: &mut Text) {
        self.family(
            out,
            "grpc_server_started_total",
            "Calls that began.",
            |counts, _| counts.started.get(),
        );
        out.family(
            "grpc_server_handled_total",
            "counter",
            "Calls that ended, by code.",
        );
        for ((service, method, kind), counts) in METHODS.iter().zip(&self.0) {
            for (code, count) in CODES.iter().zip(&counts.handled) {
                let labels = [
                    ("grpc_code", *code),
                    ("grpc_method", *method),
                    ("grpc_service", *service),
                    ("grpc_type", kind.name()),
                ];
                out.sample("grpc_server_handled_total", &labels, count.get());
            }
        }
        self.family(
            out,
            "grpc_server_msg_received_total",
            "Messages that calls received.",
            |counts, kind| match kind {
                Unary => counts.started.get(),
                ServerStream | BidiStream => counts.received.get(),
            },
        );
        self.family(
            out,
            "grpc_server_msg_sent_total",
            "Messages that calls sent.",
            |counts, kind| match kind {
                Unary => counts.handled[Code::Ok as usize].get(),
                ServerStream | BidiStream => counts.sent.get(),
            },
        );
    }

    fn family(&self, out: &mut Text, name: &str, help: &str, value: impl Fn(&Counts, Kind) -> u64) {
        out.family(name, "counter", help);
        for ((service, method, kind), counts) in METHODS.iter().zip(&self.0) {
            let labels = [
                ("grpc_method", *method),
                ("grpc_service", *service),
                ("grpc_type", kind.name()),
            ];
            out.sample(name, &labels, value(counts, *kind));
        }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Unary => "unary",
            ServerStream => "server_stream",
            BidiStream => "bidi_stream",
        }
    }
}

/// A call under way. One that is dropped before its end was given up by its client.
pub(crate) struct Call<M: Deref<Target = Metrics>> {
    pub(crate) metrics: M,
    pub(super) method: MethodId,
    ended: bool,
}

impl<M: Deref<Target = Metrics>> Call<M> {
    pub(crate) fn begin(metrics: M, method: MethodId) -> Self {
        metrics.calls.0[method.0].started.one();
        Self {
            metrics,
            method,
            ended: false,
        }
    }

    /// The same call, for whom it outlives the handler.
    pub(crate) fn handed_to<N: Deref<Target = Metrics>>(mut self, metrics: N) -> Call<N> {
        self.ended = true;
        Call {
            metrics,
            method: self.method,
            ended: false,
        }
    }

    pub(crate) fn end(mut self, code: Code) {
        self.handled(code);
    }

    fn handled(&mut self, code: Code) {
        self.ended = true;
        self.metrics.calls.0[self.method.0].handled[code as usize].one();
    }
}

impl<M: Deref<Target = Metrics>> Drop for Call<M> {
    fn drop(&mut self) {
        if !self.ended {
            self.handled(Code::Cancelled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_name_their_methods() {
        for (id, path) in [
            (RANGE, "/etcdserverpb.KV/Range"),
            (PUT, "/etcdserverpb.KV/Put"),
            (DELETE_RANGE, "/etcdserverpb.KV/DeleteRange"),
            (TXN, "/etcdserverpb.KV/Txn"),
            (COMPACT, "/etcdserverpb.KV/Compact"),
            (LEASE_GRANT, "/etcdserverpb.Lease/LeaseGrant"),
            (LEASE_REVOKE, "/etcdserverpb.Lease/LeaseRevoke"),
        ] {
            assert_eq!(Calls::find(path), Some(id), "{path}");
        }
        assert_eq!(Calls::find("/etcdserverpb.KV/Nothing"), None);
    }

    #[test]
    fn a_call_ends_once_with_its_code_or_as_given_up() {
        let metrics = Metrics::default();
        Call::begin(&metrics, PUT).end(Code::Ok);
        drop(Call::begin(&metrics, PUT));
        let counts = &metrics.calls.0[PUT.0];
        let handled: Vec<u64> = counts.handled.iter().map(Counter::get).collect();
        assert_eq!(
            (counts.started.get(), handled[..3].to_vec()),
            (2, vec![1, 1, 0])
        );
        assert_eq!(handled.iter().sum::<u64>(), 2);
    }
}
