//! What a client is told when something fails: etcd's codes and texts, which clients compare.
//!
//! Source: spec/v3-api.md §2.14.

use quorate_replica::NotDone;
use quorate_store::{ReadError, Refusal, Reply, ValueError};
use tonic::{Code, Status};

use crate::arrival::Broken;
use crate::node::Unavailable;

pub(super) const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const NOT_ENOUGH_STARTED: &str =
    "etcdserver: re-configuration failed due to not enough started members";
pub(super) const NO_LEADER: &str = "etcdserver: no leader";

/// The client's doing.
pub(super) fn refused(refusal: &Refusal) -> Status {
    let (code, text) = match refusal {
        Refusal::EmptyKey => (Code::InvalidArgument, "etcdserver: key is not provided"),
        Refusal::KeyNotFound => (Code::InvalidArgument, "etcdserver: key not found"),
        Refusal::ValueProvided => (Code::InvalidArgument, "etcdserver: value is provided"),
        Refusal::LeaseProvided => (Code::InvalidArgument, "etcdserver: lease is provided"),
        Refusal::TooManyOps => (
            Code::InvalidArgument,
            "etcdserver: too many operations in txn request",
        ),
        Refusal::DuplicateKey => (
            Code::InvalidArgument,
            "etcdserver: duplicate key given in txn request",
        ),
        Refusal::InvalidSort => (Code::InvalidArgument, "etcdserver: invalid sort option"),
        Refusal::TooLarge => (Code::InvalidArgument, "etcdserver: request is too large"),
        Refusal::Compacted { .. } => (Code::OutOfRange, COMPACTED),
        Refusal::Future { .. } => (
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        Refusal::LeaseNotFound { .. } => (Code::NotFound, "etcdserver: requested lease not found"),
        Refusal::LeaseExists { .. } => {
            (Code::FailedPrecondition, "etcdserver: lease already exists")
        }
        Refusal::LeaseTtlTooLarge { .. } => (Code::OutOfRange, "etcdserver: too large lease TTL"),
        Refusal::MemberNotFound { .. } | Refusal::MemberRemoved { .. } => {
            (Code::NotFound, "etcdserver: member not found")
        }
        Refusal::MemberExists => (
            Code::FailedPrecondition,
            "etcdserver: member ID already exist",
        ),
        Refusal::PeerUrlExists => (
            Code::FailedPrecondition,
            "etcdserver: Peer URLs already exists",
        ),
        Refusal::TooManyLearners => (
            Code::FailedPrecondition,
            "etcdserver: too many learner members in cluster",
        ),
        Refusal::NotLearner => (
            Code::FailedPrecondition,
            "etcdserver: can only promote a learner member",
        ),
        Refusal::LastVoter => (Code::Unknown, NOT_ENOUGH_STARTED),
        // Nobody but a member itself makes itself known.
        Refusal::MemberOtherDirectory | Refusal::MemberOutdated => {
            return Status::internal(refusal.to_string());
        }
        Refusal::NoSpace => (
            Code::ResourceExhausted,
            "etcdserver: mvcc: database space exceeded",
        ),
        Refusal::Corrupt => (Code::DataLoss, "etcdserver: corrupt cluster"),
        // Only a v2 command is refused so, and none comes from here.
        Refusal::Tree(refusal) => return Status::internal(refusal.to_string()),
    };
    Status::new(code, text)
}

/// Nobody's doing; the request was not done, or it is unknown whether it was.
pub(super) fn unavailable(error: &Unavailable) -> Status {
    let code = match error {
        Unavailable::NotDone(NotDone::NotEnoughStarted) => Code::Unknown,
        Unavailable::NotDone(NotDone::LearnerNotReady) => Code::FailedPrecondition,
        // etcd declares this code and by an accident sends Unknown.
        Unavailable::TooManyRequests | Unavailable::NotDone(NotDone::TooMany) => {
            Code::ResourceExhausted
        }
        Unavailable::NoLeader
        | Unavailable::NotDone(NotDone::LeaderChanged | NotDone::Unhealthy)
        | Unavailable::TimedOut(_)
        | Unavailable::Stopped => Code::Unavailable,
    };
    Status::new(code, format!("etcdserver: {error}"))
}

/// A call that a learner does not answer.
pub(super) fn not_for_learner() -> Status {
    Status::failed_precondition("etcdserver: rpc not supported for learner")
}

/// A request that did not arrive whole; nothing was done.
pub(super) fn broken(why: &Broken) -> Status {
    match why {
        Broken::Late => Status::cancelled(why.to_string()),
        Broken::Cut(error) => Status::cancelled(format!("the request broke off: {error}")),
    }
}

/// This member's disk's doing.
pub(super) fn value(error: &ValueError) -> Status {
    match error {
        ValueError::Rotten(_) => Status::data_loss("etcdserver: corrupt cluster"),
        // `Node::read` waits for it instead.
        ValueError::NotResident(_) => Status::internal(error.to_string()),
    }
}

/// A read that failed.
pub(super) fn read(error: &ReadError) -> Status {
    match error {
        ReadError::Refused(refusal) => refused(refusal),
        ReadError::Value(error) => value(error),
    }
}

/// A call that needs a leader, and there is none.
pub(super) fn no_leader() -> Status {
    unavailable(&Unavailable::NoLeader)
}

/// Metadata `client-api-version` that is no text.
pub(super) fn invalid_client_api_version() -> Status {
    Status::invalid_argument("etcdserver: invalid client api version")
}

/// A downgrade to what is no version.
pub(super) fn wrong_downgrade_format() -> Status {
    Status::invalid_argument("etcdserver: wrong downgrade target version format")
}

/// A downgrade to a version that cannot be downgraded to.
pub(super) fn invalid_downgrade_target() -> Status {
    Status::invalid_argument("etcdserver: invalid downgrade target version")
}

/// A downgrade's action that does not exist.
pub(super) fn unknown_action() -> Status {
    Status::unknown("etcdserver: unknown method")
}

/// A path that names no method of ours.
pub(super) fn unknown_method(path: &str) -> Status {
    let (service, method) = path
        .trim_start_matches('/')
        .rsplit_once('/')
        .unwrap_or((path, ""));
    Status::unimplemented(format!("unknown method {method} for service {service}"))
}

/// A service that this version does not have.
pub(super) fn unknown_service(service: &str) -> Status {
    Status::unimplemented(format!(
        "unknown service {}",
        service.trim_start_matches('/')
    ))
}

/// A command was answered as another kind of command: our own mistake.
pub(super) fn mismatch(reply: &Reply) -> Status {
    Status::internal(format!(
        "the store's answer does not fit the request: {reply:?}"
    ))
}
