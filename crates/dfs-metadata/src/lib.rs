//! The metadata of dfs: the engine contract, and the namespace as pure transactions over it.

pub mod change_log;
mod committer;
pub mod engine;
pub mod lease;
pub mod memory;

pub use committer::Committer;
