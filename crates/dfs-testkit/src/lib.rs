//! Fakes, fault injection, process clusters and simulation for tests. Never shipped.

pub mod process;
pub mod sim;
