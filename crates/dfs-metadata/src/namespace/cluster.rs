//! The cluster itself: making one, opening it, its settings.

use dfs_types::{Clock, ClusterId, Incarnation, NodeId, Random, Revision, SealKey};

use super::{Components, Namespace, Node, Options};
use crate::Error;
use crate::engine::Engine;

/// What a new cluster starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitOptions {
    /// Copies of new files.
    pub replication: Replication,
}

/// How many copies files get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replication {
    /// Copies wanted of each chunk of a new file.
    pub factor: u8,
    /// Durable copies without which no write is acknowledged; a majority when not set.
    pub min_write: Option<u8>,
}

impl Replication {
    /// Copies that a file may have at most.
    pub const FACTOR_MAX: u8 = 16;

    /// Durable copies without which a file that wants `factor` copies is not acknowledged.
    pub fn min_write_for(self, factor: u8) -> u8 {
        self.min_write.unwrap_or(factor / 2 + 1).min(factor)
    }
}

/// Which cluster, and which state of its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// Raised when the metadata is restored.
    pub incarnation: Incarnation,
}

/// The cluster at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterState {
    /// Of the snapshot.
    pub revision: Revision,
    /// Copies of new files.
    pub replication: Replication,
    /// Every node, removed ones included.
    pub nodes: Vec<(NodeId, Node)>,
}

/// Makes a cluster in an empty store. [`Error::AlreadyInitialised`] when it holds one.
pub async fn init(
    engine: &dyn Engine,
    options: &InitOptions,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<ClusterIdentity, Error> {
    let _ = (engine, options, clock, random);
    todo!()
}

impl Namespace {
    /// Opens the cluster of a store. `expected` is what was seen of it before, if anything.
    ///
    /// Refuses a store that holds no cluster, another one, an older incarnation, or records of a
    /// newer format.
    pub async fn open(
        components: Components,
        options: Options,
        expected: Option<ClusterIdentity>,
    ) -> Result<Self, Error> {
        let _ = (components, options, expected);
        todo!()
    }

    /// Which cluster this is.
    pub fn identity(&self) -> ClusterIdentity {
        self.inner.identity
    }

    /// The key that all seals of the cluster come from.
    pub fn key(&self) -> &SealKey {
        &self.inner.key
    }

    /// Settings and nodes at one revision.
    pub async fn cluster_state(&self) -> Result<ClusterState, Error> {
        todo!()
    }

    /// Sets how many copies new files get; 1 to [`Replication::FACTOR_MAX`].
    pub async fn set_replication(&self, replication: Replication) -> Result<Revision, Error> {
        let _ = replication;
        todo!()
    }
}
