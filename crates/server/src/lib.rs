//! The server: sockets, files, threads and flags around the replicated store.

pub mod config;
pub mod logging;
pub mod systemd;
