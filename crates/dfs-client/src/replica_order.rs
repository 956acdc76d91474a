//! The order in which a reader tries the replicas of a chunk, and when it asks a second one.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_types::{NodeId, ReplicaHealth};
use tokio::time::Instant;

use crate::Client;
use crate::layout::Source;
use crate::pieces::Piece;

/// Time for which a node that failed is tried last.
const PENALTY: Duration = Duration::from_secs(10);
/// Maximum number of nodes whose failures are remembered.
const PENALTIES_MAX: usize = 1_024;
/// Bounds of the time after which a second replica is asked as well, and what it is at first.
const HEDGE_MIN: Duration = Duration::from_millis(50);
const HEDGE_MAX: Duration = Duration::from_secs(2);
const HEDGE_FIRST: Duration = Duration::from_millis(300);

/// Recent behaviour of nodes.
#[derive(Debug, Default)]
pub(crate) struct Penalties(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    failed: BTreeMap<NodeId, Instant>,
    /// Smoothed recent time of a piece; `None` before the first.
    usual: Option<Duration>,
}

impl Penalties {
    /// Records that a node failed or was overtaken: others are preferred for a while.
    pub(crate) fn add(&self, node: NodeId) {
        let now = Instant::now();
        let mut known = self.lock();
        known.failed.retain(|_, at| now.duration_since(*at) < PENALTY);
        if known.failed.len() < PENALTIES_MAX {
            known.failed.insert(node, now);
        }
    }

    fn has(&self, node: NodeId) -> bool {
        self.lock().failed.get(&node).is_some_and(|at| at.elapsed() < PENALTY)
    }

    pub(crate) fn took(&self, time: Duration) {
        let mut known = self.lock();
        known.usual = Some(known.usual.map_or(time, |usual| (usual * 7 + time) / 8));
    }

    /// Returns the time after which a second replica is asked: several times the usual time of a piece.
    pub(crate) fn hedge_after(&self) -> Duration {
        let usual = self.lock().usual;
        usual.map_or(HEDGE_FIRST, |usual| usual * 6).clamp(HEDGE_MIN, HEDGE_MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Returns the replicas in the order to try them: by health, then nodes without a recent failure,
    /// then the same machine, then the same zone. Ties are broken by a hash of machine and piece,
    /// which spreads load and sends rereads of a piece to the same node.
    pub(crate) fn in_order(&self, piece: &Piece) -> Vec<Source> {
        let inner = &self.inner;
        let extent = &piece.extent;
        let part = (extent.chunk_offset + piece.offset) / Piece::MAX;
        let mut sources: Vec<_> = extent
            .sources()
            .map(|(health, source)| {
                let node = &source.node;
                let is_here = !inner.host.is_empty() && node.host == inner.host;
                let is_near = !inner.zone.is_empty() && node.zone == inner.zone;
                let has_failed = inner.penalties.has(node.id);
                let mut hasher = DefaultHasher::new();
                (&inner.host, extent.chunk.0, part, node.id).hash(&mut hasher);
                let health = health.max(ReplicaHealth::Leaving);
                ((health, has_failed, !is_here, !is_near, hasher.finish()), source)
            })
            .collect();
        sources.sort_by_key(|(rank, _)| *rank);
        sources.into_iter().map(|(_, source)| source).collect()
    }
}
