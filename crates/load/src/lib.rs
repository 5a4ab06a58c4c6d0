//! Load on a server of either dialect, at little cost: a request is some copied bytes, an answer is
//! frames walked over, and one thread serves all connections.
//!
//! Owns connections, pace, latencies, and the check that each answer says it was done. Never knows what a
//! request means: a [`Template`] is bytes with holes. Never uses a client library: what those cost
//! would be taken from the server, which runs on the same cores.
//!
//! L1. A [`Report`] counts each request once, as done or as failed; none is under way when it is given.
//! L2. An answer without HTTP status 200 (201 in v2), without gRPC status 0, or shorter than its
//!     template asks, is a failure.

mod connection;
pub mod cpu;
mod generator;
mod histogram;
mod hpack;
mod http1;
mod http2;
mod template;
mod watch;
mod work;

pub use generator::{Generator, Report, Spread};
pub use histogram::Histogram;
pub use template::{DIGITS, FILLER, TIME, Template};
pub use work::{Keys, Pace, Until, Work};
