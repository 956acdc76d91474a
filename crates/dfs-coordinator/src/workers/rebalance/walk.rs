//! The walk over the list of a node that gives replicas.

use std::collections::VecDeque;
use std::time::Duration;

use dfs_types::{ChunkId, ReplicaRef};
use tokio::time::Instant;

/// Pause after a list without a replica to move, as a multiple of the time that the walk took.
const REST_FACTOR: u32 = 20;
/// Longest pause.
const REST_MAX: Duration = Duration::from_mins(10);

/// Position in the list of a node, which is walked again and again as long as replicas are found to
/// move. Pure.
#[derive(Debug)]
pub(super) struct Walk {
    began: Instant,
    /// Listed replicas that were not considered yet.
    listed: VecDeque<ReplicaRef>,
    after: Option<ChunkId>,
    is_last: bool,
    /// A replica was moved, or another node can take some, since the beginning of the list.
    walks_again: bool,
    resting: Option<Rest>,
}

/// Why a node is not asked for now, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// None of its replicas could be moved.
    Stuck(Instant),
    /// Its list could not be read.
    Unlisted(Instant),
}

impl Walk {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            listed: VecDeque::new(),
            after: None,
            is_last: false,
            walks_again: false,
            resting: None,
        }
    }

    /// Returns whether the next replicas must be listed first.
    pub(super) fn needs_page(&self) -> bool {
        self.listed.is_empty()
    }

    /// Returns the chunk after which the next page begins; `None` for the first page.
    pub(super) fn after(&self) -> Option<ChunkId> {
        self.after
    }

    /// Adds a page of the list, which was asked for at that time.
    pub(super) fn add_page(&mut self, page: Vec<ReplicaRef>, is_last: bool, asked: Instant) {
        if self.after.is_none() {
            self.began = asked;
        }
        self.after = page.last().map(|replica| replica.chunk).or(self.after);
        self.is_last = is_last;
        self.listed.extend(page);
    }

    /// Returns the next replicas to consider.
    pub(super) fn take(&mut self, count: usize) -> Vec<ReplicaRef> {
        self.listed.drain(..count.min(self.listed.len())).collect()
    }

    /// Records which of the replicas taken were not considered. At the end of a list of which none
    /// was moved, the node rests for `least`, or longer if the list is
    /// long: what is true of its replicas now need not be later.
    pub(super) fn note(&mut self, rest: &[ReplicaRef], (now, least): (Instant, Duration)) {
        for replica in rest.iter().rev() {
            self.listed.push_front(*replica);
        }
        if self.listed.is_empty() && self.is_last {
            let took = now.duration_since(self.began);
            let rest = least.max((took * REST_FACTOR).min(REST_MAX));
            let resting = (!self.walks_again).then(|| Rest::Stuck(now + rest));
            *self = Self { resting, ..Self::new(now) };
        }
    }

    /// Ends the rest of a node, as one of its replicas was moved, or another node can take some.
    /// Those that were passed already are considered in another walk.
    pub(super) fn wake(&mut self) {
        self.resting = self.resting.filter(|rest| matches!(rest, Rest::Unlisted(_)));
        self.walks_again |= self.after.is_some();
    }

    /// Starts over after a pause, as the list could not be read.
    pub(super) fn postpone(&mut self, until: Instant) {
        *self = Self { resting: Some(Rest::Unlisted(until)), ..Self::new(until) };
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

    const LEAST: Duration = Duration::from_secs(5);

    #[test]
    fn list_is_walked_again_while_replicas_are_found() {
        let now = Instant::now();
        let mut walk = Walk::new(now);
        assert!(walk.needs_page() && walk.after().is_none());
        walk.add_page(vec![replica(1), replica(2)], false, now);
        assert!(!walk.needs_page());
        let taken = walk.take(2);
        walk.note(&taken[1..], (now, LEAST));
        walk.wake();
        assert_eq!(walk.take(9), [replica(2)], "what was not considered comes next");
        walk.note(&[], (now, LEAST));
        assert!(walk.needs_page() && walk.after() == Some(ChunkId(2)));
        walk.add_page(vec![replica(3)], true, now);
        walk.take(9);
        walk.note(&[], (now, LEAST));
        assert_eq!(walk.rest(now), None);
        assert!(walk.needs_page() && walk.after().is_none(), "from the beginning");
    }

    #[test]
    fn node_without_a_replica_to_move_rests_in_proportion_to_its_list() {
        let began = Instant::now();
        for (took, pages) in [
            (Duration::ZERO, vec![Vec::new()]),
            (Duration::from_secs(1), vec![vec![replica(1)], vec![]]),
            (Duration::from_mins(1), vec![vec![replica(1)]]),
            // The worker was paused.
            (Duration::from_hours(1), vec![vec![replica(1)]]),
        ] {
            let mut walk = Walk::new(began);
            // The pause before a walk does not count.
            for asked in [began, began + Duration::from_hours(9)] {
                let now = asked + took;
                for (index, page) in pages.iter().enumerate() {
                    assert_eq!(walk.rest(now), None);
                    walk.add_page(page.clone(), index + 1 == pages.len(), asked);
                    walk.take(9);
                    walk.note(&[], (now, LEAST));
                }
                let until = now + LEAST.max((took * REST_FACTOR).min(REST_MAX));
                assert_eq!(walk.rest(now), Some(Rest::Stuck(until)));
                assert_eq!(walk.rest(until), None);
            }
        }
    }

    #[test]
    fn woken_walk_keeps_its_position_and_does_not_rest_at_the_end() {
        let now = Instant::now();
        let mut walk = Walk::new(now);
        walk.add_page(vec![replica(1), replica(2)], false, now);
        walk.take(1);
        walk.note(&[], (now, LEAST));
        walk.wake();
        assert_eq!(walk.take(9), [replica(2)], "the next ones come next");
        walk.note(&[], (now, LEAST));
        assert_eq!(walk.after(), Some(ChunkId(2)));
        walk.add_page(Vec::new(), true, now);
        walk.note(&[], (now, LEAST));
        assert_eq!(walk.rest(now), None, "the first ones were considered before");
        walk.add_page(vec![replica(1)], true, now);
        walk.take(9);
        walk.note(&[], (now, LEAST));
        assert!(walk.rest(now).is_some());
        walk.wake();
        assert_eq!(walk.rest(now), None);
        // A list that could not be read is not read sooner.
        walk.postpone(now + LEAST);
        walk.wake();
        assert_eq!(walk.rest(now), Some(Rest::Unlisted(now + LEAST)));
    }
}
