//! The walk over the list of a node that gives replicas.

use std::collections::VecDeque;
use std::time::Duration;

use dfs_types::{ChunkId, ReplicaRef};
use tokio::time::Instant;

/// Pause of a node none of whose replicas can be moved.
const REST: Duration = Duration::from_hours(1);

/// Position in the list of a node, which is walked again and again as long as replicas are found to
/// move. Pure.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Listed replicas that were not considered yet.
    listed: VecDeque<ReplicaRef>,
    after: Option<ChunkId>,
    is_last: bool,
    /// A replica to move was found since the beginning of the list.
    has_found: bool,
    resting: Option<Rest>,
}

/// Why a node is not asked for now, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// None of its replicas can be moved.
    Stuck(Instant),
    /// Its list could not be read.
    Unlisted(Instant),
}

impl Walk {
    /// Returns whether the next replicas must be listed first.
    pub(super) fn needs_page(&self) -> bool {
        self.listed.is_empty()
    }

    /// Returns the chunk after which the next page begins; `None` for the first page.
    pub(super) fn after(&self) -> Option<ChunkId> {
        self.after
    }

    /// Adds a page of the list.
    pub(super) fn add_page(&mut self, page: Vec<ReplicaRef>, is_last: bool) {
        self.after = page.last().map(|replica| replica.chunk).or(self.after);
        self.is_last = is_last;
        self.listed.extend(page);
    }

    /// Returns the next replicas to consider.
    pub(super) fn take(&mut self, count: usize) -> Vec<ReplicaRef> {
        self.listed.drain(..count.min(self.listed.len())).collect()
    }

    /// Records that some of the replicas taken are to be moved, and which were not considered. At
    /// the end of a list without any to move, the node rests.
    pub(super) fn note(&mut self, has_found: bool, rest: &[ReplicaRef], now: Instant) {
        self.has_found |= has_found;
        for replica in rest.iter().rev() {
            self.listed.push_front(*replica);
        }
        if self.listed.is_empty() && self.is_last {
            let resting = (!self.has_found).then(|| Rest::Stuck(now + REST));
            *self = Self { resting, ..Self::default() };
        }
    }

    /// Starts over after a pause, as the list could not be read.
    pub(super) fn postpone(&mut self, until: Instant) {
        *self = Self { resting: Some(Rest::Unlisted(until)), ..Self::default() };
    }

    /// Returns why the node is not asked for now; `None` if it is.
    pub(super) fn rest(&self, now: Instant) -> Option<Rest> {
        self.resting.filter(|(Rest::Stuck(until) | Rest::Unlisted(until))| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use dfs_types::{DiskId, Part, Stamp};

    use super::*;

    fn replica(chunk: u128) -> ReplicaRef {
        ReplicaRef { chunk: ChunkId(chunk), part: Part::WHOLE, disk: DiskId(1), stamp: Stamp(1) }
    }

    #[test]
    fn list_is_walked_again_while_replicas_are_found() {
        let now = Instant::now();
        let mut walk = Walk::default();
        assert!(walk.needs_page() && walk.after().is_none());
        walk.add_page(vec![replica(1), replica(2)], false);
        assert!(!walk.needs_page());
        let taken = walk.take(2);
        walk.note(true, &taken[1..], now);
        assert_eq!(walk.take(9), [replica(2)], "what was not considered comes next");
        walk.note(false, &[], now);
        assert!(walk.needs_page() && walk.after() == Some(ChunkId(2)));
        walk.add_page(vec![replica(3)], true);
        walk.take(9);
        walk.note(false, &[], now);
        assert_eq!(walk.rest(now), None);
        assert!(walk.needs_page() && walk.after().is_none(), "from the beginning");
    }

    #[test]
    fn node_without_a_replica_to_move_rests() {
        let now = Instant::now();
        for pages in [vec![vec![]], vec![vec![replica(1)], vec![]], vec![vec![replica(1)]]] {
            let mut walk = Walk::default();
            let count = pages.len();
            for (index, page) in pages.into_iter().enumerate() {
                assert_eq!(walk.rest(now), None);
                walk.add_page(page, index + 1 == count);
                walk.take(9);
                walk.note(false, &[], now);
            }
            assert_eq!(walk.rest(now), Some(Rest::Stuck(now + REST)));
            assert_eq!(walk.rest(now + REST), None);
        }
    }
}
