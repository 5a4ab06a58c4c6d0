//! Placeholder of the first commit; see ARCHITECTURE.md.
pub mod disk;
