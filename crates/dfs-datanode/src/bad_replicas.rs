//! Bad replicas not yet confirmed by a coordinator.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dfs_proto::v1;
use dfs_types::ReplicaRef;

/// Replicas per heartbeat.
pub(crate) const PER_REPORT: usize = 1_000;
/// Maximum number of replicas kept in memory. The store knows them all; the others are found there
/// once these are confirmed.
const KEPT_MAX: usize = 8 * PER_REPORT;

/// Bad replicas to report in heartbeats until confirmed.
#[derive(Debug, Default)]
pub(crate) struct BadReplicas(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The first bad block, by replica.
    kept: BTreeMap<ReplicaRef, u64>,
    /// True if more were found than kept.
    is_incomplete: bool,
}

impl BadReplicas {
    /// Adds a replica. Returns true if it is new.
    pub(crate) fn add(&self, replica: ReplicaRef, block: u64) -> bool {
        let mut state = self.lock();
        if state.kept.len() >= KEPT_MAX {
            state.is_incomplete = true;
            return false;
        }
        state.kept.insert(replica, block).is_none()
    }

    /// Removes a replica that was confirmed or deleted.
    pub(crate) fn remove(&self, replica: ReplicaRef) {
        self.lock().kept.remove(&replica);
    }

    /// Returns the replicas that the next heartbeat reports.
    pub(crate) fn page(&self) -> Vec<v1::BadReplica> {
        let state = self.lock();
        let named = state.kept.iter().take(PER_REPORT);
        named
            .map(|(replica, block)| v1::BadReplica {
                replica: Some((*replica).into()),
                block: *block,
            })
            .collect()
    }

    /// Returns true, once, if the store must be searched for more.
    pub(crate) fn take_incomplete(&self) -> bool {
        let mut state = self.lock();
        state.kept.is_empty() && std::mem::take(&mut state.is_incomplete)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dfs_proto::wire;
    use dfs_types::{ChunkId, DiskId, Part, Stamp};

    use super::*;

    fn replica(chunk: usize) -> ReplicaRef {
        let chunk = ChunkId(chunk as u128);
        ReplicaRef { chunk, part: Part::WHOLE, disk: DiskId(1), stamp: Stamp(1) }
    }

    #[test]
    fn all_are_reported_eventually_though_few_are_kept() {
        let bad = BadReplicas::default();
        let all = KEPT_MAX + 5;
        let mut left: BTreeSet<_> = (0..all).map(replica).collect();
        let mut scans = 0;
        while !left.is_empty() {
            scans += 1;
            for replica in &left {
                bad.add(*replica, 0);
            }
            while !bad.page().is_empty() {
                assert!(bad.page().len() <= PER_REPORT);
                for replica in bad.page() {
                    let replica = wire::replica("replica", replica.replica).unwrap();
                    bad.remove(replica);
                    left.remove(&replica);
                }
            }
            assert_eq!(bad.take_incomplete(), !left.is_empty());
            assert!(!bad.take_incomplete(), "returned once");
        }
        assert_eq!(scans, 2);
    }
}
