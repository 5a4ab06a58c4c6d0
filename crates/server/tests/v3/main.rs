//! v3 over gRPC, from outside: a member in this process, a client that speaks to its socket.

mod crowd;
mod gateway;
mod golden;
mod history;
mod listing;
mod maintenance;
mod member;
#[path = "../support/ports.rs"]
mod ports;
mod recorded;
mod snapshot;
mod streams;
mod wire;
