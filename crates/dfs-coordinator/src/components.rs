//! Dependencies of a coordinator.

use std::sync::Arc;

use dfs_metadata::engine::Engine;
use dfs_transport::Network;
use dfs_types::{Clock, Random};

/// Dependencies of a coordinator, passed in so that a simulation can control all of them.
#[derive(Clone)]
pub struct Components {
    /// The metadata engine.
    pub engine: Arc<dyn Engine>,
    /// Network to reach others.
    pub network: Arc<dyn Network>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Source of ids, keys and random choices.
    pub random: Arc<dyn Random>,
}
