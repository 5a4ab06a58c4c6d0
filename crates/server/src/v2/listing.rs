//! The body of a get: one node with what is below it, in pieces.
//!
//! A listing of any size is written from one revision, with the machine's lock held for a bounded
//! time and a bounded buffer. If that revision is compacted meanwhile, or a value does not verify,
//! the connection is reset: a body that ends cleanly is whole (one-store.md M13).

use bytes::Bytes;
use quorate_store::tree::{Found, Lister, Path, Step};
use quorate_store::{Revision, Store, UnixMs, ValueError, Values};

use axum::body::Body;

use super::render::Nodes;
use crate::node::Node;

/// About how many bytes are written before the lock is given back.
const PIECE_BYTES: usize = 64 << 10;

/// Why the rest of a listing cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("revision {0} was compacted while it was being listed")]
    Compacted(Revision),
    #[error(transparent)]
    Value(#[from] ValueError),
}

/// A listing under way.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    at: Revision,
    lister: Lister,
    nodes: Nodes,
    done: bool,
}

impl Listing {
    /// Begins the listing of what was found at `path` as of `at`.
    pub(super) fn begin(
        out: &mut Vec<u8>,
        (path, found): (&Path, Found<'_>),
        (at, recursive): (Revision, bool),
        now: UnixMs,
        values: &dyn Values,
    ) -> Result<Self, ValueError> {
        out.extend_from_slice(b"{\"action\":\"get\",\"node\":");
        let mut nodes = Nodes::new(now);
        nodes.open(out, path.as_bytes(), found, values)?;
        let lister = Lister::new(path.as_bytes(), at, recursive);
        Ok(Self {
            at,
            lister,
            nodes,
            done: false,
        })
    }

    /// Writes the next piece.
    pub(super) fn write(
        &mut self,
        out: &mut Vec<u8>,
        store: &Store,
        values: &dyn Values,
    ) -> Result<(), Broken> {
        if store.oldest() > self.at {
            return Err(Broken::Compacted(self.at));
        }
        let mut walk = self.lister.resume(store);
        while !self.done && out.len() < PIECE_BYTES {
            match walk.step() {
                Step::Open { path, found } => self.nodes.open(out, &path, found, values)?,
                Step::Close => self.nodes.close(out),
                Step::End => {
                    self.nodes.close(out);
                    out.extend_from_slice(b"}\n");
                    self.done = true;
                }
            }
        }
        Ok(())
    }

    /// The whole body, of which `first` was written already.
    pub(super) fn into_body(self, node: &Node, first: Vec<u8>) -> Body {
        if self.done {
            return Body::from(first);
        }
        let state = (self, node.clone(), first);
        Body::from_stream(futures_util::stream::unfold(
            state,
            |(listing, node, piece)| async {
                let (piece, listing) = (piece, listing);
                if !piece.is_empty() {
                    return Some((Ok(Bytes::from(piece)), (listing, node, Vec::new())));
                }
                listing.next_piece(node).await
            },
        ))
    }

    async fn next_piece(
        mut self,
        node: Node,
    ) -> Option<(Result<Bytes, Broken>, (Self, Node, Vec<u8>))> {
        if self.done {
            return None;
        }
        tokio::task::yield_now().await;
        let written = node.read(|machine, values| {
            let (mut next, mut piece) = (self.clone(), Vec::with_capacity(PIECE_BYTES + 4096));
            next.write(&mut piece, machine.store(), values)?;
            Ok((next, piece))
        });
        let piece = match written.await {
            Ok((next, piece)) => {
                self = next;
                Ok(Bytes::from(piece))
            }
            Err(broken) => {
                self.done = true;
                Err(broken)
            }
        };
        Some((piece, (self, node, Vec::new())))
    }
}
