//! Application of changes by the operator.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Application of changes by the operator.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Maintenance {
    /// Rollout of a new image or new settings.
    #[serde(default)]
    pub update: Update,
}

/// Rollout of a new image or new settings to datanodes, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Update {
    /// Update strategy: who restarts datanodes.
    #[serde(default)]
    pub strategy: UpdateStrategy,
    /// True to require that all data has all its replicas before the next one is stopped.
    #[serde(default = "default_true")]
    pub require_fully_replicated: bool,
    /// Seconds that a datanode may take to come back before the rollout counts as stuck.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 60, max = 86_400))]
    pub node_timeout_seconds: i32,
}

/// Update strategy: who restarts datanodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum UpdateStrategy {
    /// The operator.
    #[default]
    RollingUpdate,
    /// The user, by deleting pods.
    OnDelete,
}

impl Default for Update {
    fn default() -> Self {
        Self {
            strategy: UpdateStrategy::default(),
            require_fully_replicated: default_true(),
            node_timeout_seconds: default_timeout(),
        }
    }
}

fn default_true() -> bool {
    true
}

fn default_timeout() -> i32 {
    1_800
}
