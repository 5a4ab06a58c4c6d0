//! Snapshot: etcd's own file, streamed as it is made.
//!
//! It is made on a thread beside the connections', straight into the stream: it takes no space on
//! disk, and no more memory than its index. It makes way for requests (`node::hold`). While it lasts nothing is purged, so a client that is
//! slow is given up: one that takes nothing for a minute, and one for which a snapshot lasts longer
//! than its size allows (docs/decisions/005-snapshots.md).
//!
//! Source: spec/v3-api.md §2.12.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use quorate_proto::etcdserverpb::SnapshotResponse;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Api, status};
use crate::config::version;
use crate::node::Node;
use crate::snapshot::{Contents, WriteError};

/// Bytes of a response's blob.
const BLOB_BYTES: usize = 64 << 10;
/// Blobs that wait for the client.
const WAITING: usize = 4;
/// How long a client may take nothing.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// How long a snapshot may last, and how much longer for each so many bytes.
const LEAST_LIMIT: Duration = Duration::from_secs(600);
const LEAST_BYTES_A_SECOND: u64 = 4 << 20;

/// The responses of a snapshot that begins now.
pub(super) fn stream(
    api: &Api,
) -> impl Stream<Item = Result<SnapshotResponse, Status>> + Send + 'static {
    let (sender, responses) = mpsc::channel(WAITING);
    let (end, ended) = oneshot::channel();
    let node = api.node.clone();
    tokio::task::spawn_blocking(move || {
        // If nobody hears how it ended, the client is gone.
        let _ = end.send(make(&node, sender));
    });
    let responses = ReceiverStream::new(responses).map(Ok);
    // What was sent is a snapshot only if all of it was.
    let end = stream::once(ended).filter_map(|ended| async {
        match ended {
            Ok(Ok(())) => None,
            Ok(Err(status)) => Some(Err(status)),
            Err(_) => Some(Err(Status::internal("the snapshot's thread panicked"))),
        }
    });
    responses.chain(end)
}

fn make(node: &Node, sender: mpsc::Sender<SnapshotResponse>) -> Result<(), Status> {
    let began = Instant::now();
    let (moment, held) = node.hold();
    let revision = moment.head.revision;
    let contents = Contents::measure(held, moment);
    let bytes = contents.bytes();
    let allowed = LEAST_LIMIT + Duration::from_secs(bytes / LEAST_BYTES_A_SECOND);
    let blobs = Blobs {
        sender,
        left: bytes,
        hash: Sha256::new(),
        gathered: BytesMut::new(),
        deadline: began + allowed,
    };
    let sent = contents.write(blobs).and_then(|blobs| Ok(blobs.finish()?));
    match sent {
        Ok(()) => {
            let took = began.elapsed();
            node.metrics().snapshots.record(took);
            let took_ms = took.as_millis() as u64;
            tracing::info!(bytes, took_ms, revision = revision.get(), "sent a snapshot");
            Ok(())
        }
        Err(WriteError::Value(error)) => Err(status::value(&error)),
        Err(WriteError::Io(error)) => {
            tracing::warn!(%error, "gave up a snapshot");
            Err(Status::aborted(format!(
                "the snapshot was given up: {error}"
            )))
        }
    }
}

/// Cuts a file into responses.
struct Blobs {
    sender: mpsc::Sender<SnapshotResponse>,
    /// Bytes of the file that were not sent yet.
    left: u64,
    hash: Sha256,
    gathered: BytesMut,
    deadline: Instant,
}

impl Blobs {
    /// Sends the last response: the SHA-256 of all before.
    fn finish(mut self) -> io::Result<()> {
        let hash = std::mem::take(&mut self.hash).finalize();
        self.send(Bytes::copy_from_slice(&hash))
    }

    fn send(&mut self, blob: Bytes) -> io::Result<()> {
        let response = SnapshotResponse {
            // etcd sends none.
            header: None,
            remaining_bytes: self.left,
            blob,
            version: version::CLUSTER_VERSION.to_owned(),
        };
        let left = self.deadline.saturating_duration_since(Instant::now());
        let sent = self.sender.send_timeout(response, left.min(STALL_LIMIT));
        match Handle::current().block_on(sent) {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => {
                Err(io::Error::other("the client is gone"))
            }
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                let why = "the client took too long, and nothing can be purged meanwhile";
                Err(io::Error::other(why))
            }
        }
    }
}

impl Write for Blobs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        while self.gathered.len() >= BLOB_BYTES {
            let blob = self.gathered.split_to(BLOB_BYTES);
            self.send_file(blob.freeze())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let blob = std::mem::take(&mut self.gathered);
        self.send_file(blob.freeze())
    }
}

impl Blobs {
    fn send_file(&mut self, blob: Bytes) -> io::Result<()> {
        self.hash.update(&blob);
        self.left -= blob.len() as u64;
        self.send(blob)
    }
}
