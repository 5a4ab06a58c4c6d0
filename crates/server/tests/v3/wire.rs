//! Calls by name with messages made from text or JSON, so that scripts can say anything that the
//! wire can. Nothing here knows what a message means.

use std::sync::LazyLock;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/proto");
    let files = protox::compile(["rpc.proto", "health.proto"], [folder]).expect("they compile");
    DescriptorPool::from_file_descriptor_set(files).expect("they are whole")
});

/// The method named `Service/Method`.
pub(crate) fn method(name: &str) -> MethodDescriptor {
    let (service, method) = name.split_once('/').expect("Service/Method");
    let found = POOL
        .services()
        .find(|each| each.name() == service)
        .expect("a known service");
    found
        .methods()
        .find(|each| each.name() == method)
        .expect("a known method")
}

fn path(method: &MethodDescriptor) -> PathAndQuery {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    path.parse().expect("a path")
}

/// A client that moves bytes.
pub(crate) struct Wire(pub(crate) Channel);

impl Wire {
    /// Calls a unary method, with extra metadata.
    pub(crate) async fn unary(
        &self,
        method: &MethodDescriptor,
        message: &DynamicMessage,
        metadata: &[(&'static str, Vec<u8>)],
    ) -> Result<DynamicMessage, Status> {
        let mut request = Request::new(Bytes::from(message.encode_to_vec()));
        for (name, value) in metadata {
            let value = MetadataValue::try_from(&value[..]).expect("metadata");
            request.metadata_mut().insert(*name, value);
        }
        let mut client = self.ready().await;
        let answer = client.unary(request, path(method), Raw).await?.into_inner();
        Ok(decode(method, answer))
    }

    /// Opens a stream.
    pub(crate) async fn open(&self, method: &MethodDescriptor) -> Stream {
        let (requests, receiver) = tokio::sync::mpsc::channel(8);
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut client = self.ready().await;
        let answer = client
            .streaming(Request::new(outgoing), path(method), Raw)
            .await;
        let answers = answer.map(tonic::Response::into_inner);
        Stream {
            method: method.clone(),
            requests,
            answers,
        }
    }

    /// Calls a unary method, and leaves it to the caller when to take the answer.
    pub(crate) async fn unary_in_pieces(
        &self,
        method: &MethodDescriptor,
        message: Bytes,
    ) -> Result<Streaming<Bytes>, Status> {
        let mut client = self.ready().await;
        let request = Request::new(message);
        let answer = client.server_streaming(request, path(method), Raw).await?;
        Ok(answer.into_inner())
    }

    async fn ready(&self) -> Grpc<Channel> {
        let mut client = Grpc::new(self.0.clone()).max_decoding_message_size(usize::MAX);
        client.ready().await.expect("the server is there");
        client
    }
}

/// An open bidirectional call.
pub(crate) struct Stream {
    pub(crate) method: MethodDescriptor,
    requests: tokio::sync::mpsc::Sender<Bytes>,
    answers: Result<Streaming<Bytes>, Status>,
}

impl Stream {
    /// Sends a message; the server's end may be gone.
    pub(crate) async fn send(&self, message: &DynamicMessage) {
        let _ = self
            .requests
            .send(Bytes::from(message.encode_to_vec()))
            .await;
    }

    /// The next answer; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<DynamicMessage>, Status> {
        let answers = self.answers.as_mut().map_err(|status| status.clone())?;
        Ok(answers
            .message()
            .await?
            .map(|bytes| decode(&self.method, bytes)))
    }
}

fn decode(method: &MethodDescriptor, bytes: Bytes) -> DynamicMessage {
    let message = DynamicMessage::decode(method.output(), bytes).expect("an answer of its type");
    assert_eq!(message.unknown_fields().count(), 0, "no unknown fields");
    message
}

/// Messages as the bytes they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
