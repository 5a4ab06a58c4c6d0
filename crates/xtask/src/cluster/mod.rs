//! A cluster of real processes under load and faults.

mod check;
mod history;
mod model;
