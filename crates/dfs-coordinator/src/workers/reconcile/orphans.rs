//! Orphans that were proven once.
//!
//! An orphan is deleted when it is proven to be one in two cycles, far enough apart for people to
//! notice that something is wrong. The time is monotonic. It is forgotten with the lease, which
//! delays the deletion.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_types::{NodeId, ReplicaRef};
use tokio::time::Instant;

/// Orphans remembered at most; others are found again once these are deleted.
const ORPHANS_MAX: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Orphans(BTreeMap<(NodeId, ReplicaRef), Proof>);

#[derive(Debug, Clone, Copy)]
struct Proof {
    first: Instant,
    first_cycle: u64,
    last_cycle: u64,
}

impl Orphans {
    /// Records the proof of a cycle. Returns whether the orphan was proven in an earlier cycle, at
    /// least `age` ago.
    pub(super) fn prove(
        &mut self,
        node: NodeId,
        replica: ReplicaRef,
        cycle: u64,
        (age, now): (Duration, Instant),
    ) -> bool {
        let key = (node, replica);
        if !self.0.contains_key(&key) && self.0.len() >= ORPHANS_MAX {
            return false;
        }
        let new = Proof { first: now, first_cycle: cycle, last_cycle: cycle };
        let proof = self.0.entry(key).or_insert(new);
        proof.last_cycle = cycle;
        proof.first_cycle != cycle && now.saturating_duration_since(proof.first) >= age
    }

    /// Removes an orphan that was deleted.
    pub(super) fn remove(&mut self, node: NodeId, replica: ReplicaRef) {
        self.0.remove(&(node, replica));
    }

    /// Forgets the orphans that a whole cycle did not prove again.
    pub(super) fn end_cycle(&mut self, cycle: u64) {
        self.0.retain(|_, proof| proof.last_cycle == cycle);
    }
}

#[cfg(test)]
mod tests {
    use dfs_types::{ChunkId, DiskId, Part, Stamp};

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    #[tokio::test(start_paused = true)]
    async fn orphan_is_ripe_after_two_proofs_and_its_age() {
        let mut orphans = Orphans::default();
        let replica =
            ReplicaRef { chunk: ChunkId(1), part: Part::WHOLE, disk: DiskId(1), stamp: Stamp(1) };
        let other = ReplicaRef { stamp: Stamp(2), ..replica };
        let start = Instant::now();
        let mut prove =
            |replica, cycle, at| orphans.prove(NodeId(1), replica, cycle, (DAY, start + at));
        assert!(!prove(replica, 1, Duration::ZERO));
        assert!(!prove(replica, 1, DAY * 2), "once is not enough");
        assert!(!prove(replica, 2, DAY / 2), "too early");
        assert!(prove(replica, 3, DAY));
        assert!(!prove(other, 3, DAY), "another replica");
        orphans.end_cycle(4);
        assert!(!orphans.prove(NodeId(1), replica, 5, (DAY, start + DAY * 3)), "forgotten");
    }
}
