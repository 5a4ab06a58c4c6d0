//! Bounds on what a client may send.
//!
//! Source: spec/v3-api.md §2.13.

use prost::DecodeError;
use quorate_store::{Refusal, command};
use tonic::{Code, Status};

use super::status;
use crate::config::Config;

/// What gRPC may receive beyond `max-request-bytes`.
const OVERHEAD_BYTES: usize = 512 << 10;
/// What etcd counts beside the request itself: the envelope it goes to its log in. The id in it
/// takes 9 bytes or 10, by chance.
const ENVELOPE_BYTES: usize = 17;

/// The largest message received, in bytes.
pub(super) fn receive_bytes(config: &Config) -> usize {
    request_bytes(config).saturating_add(OVERHEAD_BYTES)
}

/// The bounds that the store's checks want.
pub(super) fn commands(config: &Config) -> command::Limits {
    command::Limits {
        max_txn_ops: usize::try_from(config.max_txn_ops).unwrap_or(usize::MAX),
    }
}

/// Whether a write of so many bytes may go to the log.
///
/// # Errors
/// [`Refusal::TooLarge`].
pub(super) fn check_request(bytes: usize, config: &Config) -> Result<(), Refusal> {
    if bytes.saturating_add(ENVELOPE_BYTES) > request_bytes(config) {
        Err(Refusal::TooLarge)
    } else {
        Ok(())
    }
}

fn request_bytes(config: &Config) -> usize {
    usize::try_from(config.max_request_bytes).unwrap_or(usize::MAX)
}

/// What is said of bytes that are no message.
///
/// Of all known messages only txns nest so deep that decoding gives up, after some 50 levels; each
/// takes up at least one operation. Groups, which no message has, may nest, too.
pub(super) fn undecodable(error: &DecodeError) -> Status {
    let text = error.to_string();
    if text.contains("TxnRequest.") && text.ends_with("recursion limit reached") {
        return status::refused(&Refusal::TooManyOps);
    }
    Status::internal(format!("grpc: error unmarshalling request: {error}"))
}

/// What Go's gRPC says where tonic refuses a message for its length; `None` for other errors.
pub(super) fn translate(error: &Status) -> Option<Status> {
    if error.code() != Code::OutOfRange {
        return None;
    }
    let rest = error
        .message()
        .strip_prefix("Error, decoded message length too large: found ")?;
    let (found, rest) = rest.split_once(" bytes, the limit is: ")?;
    let limit = rest.strip_suffix(" bytes")?;
    Some(too_large(found.parse().ok()?, limit.parse().ok()?))
}

/// A message of `bytes` that was not received.
pub(super) fn too_large(bytes: usize, limit: usize) -> Status {
    Status::resource_exhausted(format!(
        "grpc: received message larger than max ({bytes} vs. {limit})"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use quorate_proto::etcdserverpb::{RequestOp, TxnRequest, request_op::Request};

    #[test]
    fn groups_nested_too_deep_are_no_operations() {
        let error = TxnRequest::decode(&[0x7b; 1 << 10][..]).expect_err("too deep");
        assert_eq!(undecodable(&error).code(), Code::Internal);
    }

    #[test]
    fn a_txn_nested_too_deep_has_too_many_operations() {
        let nested = |inner| TxnRequest {
            success: vec![RequestOp {
                request: Some(Request::RequestTxn(inner)),
            }],
            ..TxnRequest::default()
        };
        let txn = (0..60).fold(TxnRequest::default(), |inner, _| nested(inner));
        let error = TxnRequest::decode(&txn.encode_to_vec()[..]).expect_err("too deep");
        let refused = undecodable(&error);
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(
            refused.message(),
            "etcdserver: too many operations in txn request"
        );
    }
}
