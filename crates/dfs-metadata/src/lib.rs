//! The metadata of dfs: the engine contract, and the namespace as pure transactions over it.

pub mod engine;
