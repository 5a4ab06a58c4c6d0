//! The wire of etcd's v3 API: messages, service traits and clients generated from `proto/*.proto`.
//!
//! Owns names and numbers of the wire format, nothing of its meaning (that is `quorate::v3`).
//! Every `bytes` field is a [`bytes::Bytes`], which shares the receive buffer it was decoded
//! from: whoever keeps one must copy it.

// Generated from the .proto files, where the comments are.
#![allow(missing_docs, clippy::all)]

/// All of the .proto files as a `FileDescriptorSet`, for code that goes by names: the JSON gateway.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// KV, Watch, Lease, Cluster, Maintenance.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// Keys and events.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// gRPC's own health service.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}
