//! A member, or a [`cluster`] of them, on one thread from one seed: the production replica, machine,
//! store and log over a simulated disk, with clients, clocks and loss of power, and the checkers.
//!
//! What is checked after each start and while it runs: every committed entry is still there and
//! the same (P1), reads of every kept revision are those of a naive model (P3), watches miss and
//! repeat nothing (P4), nothing ends early or late by virtual time (P5), the state from a
//! checkpoint and the log behind it is the state from the whole log.
//!
//! See docs/simulation.md.

mod chance;
mod checkpoints;
pub mod cluster;
pub mod disk;
mod disk_thread;
mod known;
mod member;
mod model;
mod plan;
mod reclaims;
mod runs;
mod trace;
mod transfers;
mod watchers;
mod workload;
mod world;

pub use cluster::{Cluster, ClusterPlan, ClusterSeen, cluster, rolled_back};
pub use plan::{Fault, Plan};
pub use runs::{Budget, Tried, crash_points, full_disk, reserve_used_up, swarm};
pub use trace::Trace;
pub use world::{Seen, World};
