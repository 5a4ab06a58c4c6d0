//! The server: sockets, files, threads and flags around the replicated store.

pub mod arrival;
mod authority;
pub mod bolt;
pub mod bootstrap;
pub mod config;
mod date;
pub mod disk;
#[cfg(fuzzing)]
pub mod fuzz;
mod gateway;
pub mod logging;
mod metrics;
pub mod node;
mod output;
mod peer;
pub mod serve;
mod snapshot;
pub mod systemd;
pub mod tls;
pub mod util;
pub mod v2;
pub mod v3;
pub mod watch;
