//! Annotations of a [`DfsCluster`](crate::DfsCluster) that the operator acts on.

/// With the value `true` the operator observes the cluster and publishes its status, but changes
/// nothing.
pub const PAUSED: &str = "dfs.io/paused";
/// Any new value restarts the pods of the cluster, one after the other, as an upgrade does.
pub const RESTARTED_AT: &str = "dfs.io/restarted-at";
