//! bbolt's file format, in which etcd keeps its state: read from foreign bytes, written front to back.
//!
//! Owns pages, elements, buckets and the checksum of the meta pages. Knows nothing of what etcd puts
//! into its buckets; that is [`crate::snapshot`]'s. Neither maps a file nor changes one in place.
//!
//! B1. Reading never panics and never allocates by a number that was not checked against the file.
//! B2. Reading ends: the keys of a bucket rise strictly, so no page is given out twice, and depth is
//!     bounded.
//! B3. What is written is reachable: every page of a file is a meta page, the empty free list, or part
//!     of exactly one bucket.
//!
//! The bytes are in docs/formats/snapshot.md. Source: bbolt's public documentation, and files that
//! etcd 3.4.23 wrote.

mod page;
mod read;
mod shape;
mod write;

pub use page::PAGE_BYTES;
pub use read::{Bucket, Database, Item, Items, ReadAt, ReadError};
pub use shape::{FileShape, Shape};
pub use write::Writer;

#[cfg(test)]
mod tests;
