//! The metadata of dfs: the engine contract, and the namespace as pure transactions over it.

pub mod change_log;
pub mod check;
mod codec;
mod committer;
pub mod conformance;
pub mod engine;
mod error;
pub mod health;
mod keys;
pub mod local_leases;
pub mod memory;
pub mod migrate;
pub mod namespace;
pub mod placement;
pub mod reconcile;
mod records;

pub use committer::Committer;
pub use error::{Error, Unknown};
