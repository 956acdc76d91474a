//! The metadata of dfs: the engine contract, and the namespace as pure transactions over it.

pub mod change_log;
pub mod check;
pub mod chunk_health;
mod codec;
mod committer;
pub mod conformance;
pub mod engine;
mod error;
mod keys;
pub mod local_leases;
pub mod memory;
pub mod migrate;
pub mod namespace;
pub mod placement;
mod records;
pub mod replica_findings;

pub use committer::Committer;
pub use error::{Error, Unknown};
