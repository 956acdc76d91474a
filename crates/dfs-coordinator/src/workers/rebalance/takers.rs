//! Nodes that can take replicas, as news for those that give. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use dfs_types::NodeId;
use tokio::time::Instant;

/// Time between two attempts to give replicas to nodes where builds fail, while nothing else can be
/// moved: each reads the lists of all nodes that give.
const RETRY_AFTER: Duration = Duration::from_mins(10);

/// Nodes that had room at the last step.
#[derive(Debug, Default)]
pub(super) struct Takers {
    /// Those where builds do not fail.
    working: BTreeSet<NodeId>,
    /// When the others are news again.
    retry_at: Option<Instant>,
}

impl Takers {
    /// Takes the nodes that have room now. At those that are `unproven` no build has succeeded since
    /// one failed, and some of them rest. Returns whether more can be moved than at the last step.
    pub(super) fn update(
        &mut self,
        with_room: &BTreeSet<NodeId>,
        unproven: &BTreeSet<NodeId>,
        rests: impl Fn(NodeId) -> bool,
        now: Instant,
    ) -> bool {
        let working: BTreeSet<NodeId> = with_room.difference(unproven).copied().collect();
        let is_new = !working.is_subset(&self.working);
        self.working = working;
        let may_be_tried = with_room.intersection(unproven).any(|node| !rests(*node));
        let is_retry = may_be_tried && self.retry_at.is_none_or(|at| now >= at);
        if is_retry {
            self.retry_at = Some(now + RETRY_AFTER);
        }
        is_new || is_retry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(of: &[u128]) -> BTreeSet<NodeId> {
        of.iter().map(|node| NodeId(*node)).collect()
    }

    #[test]
    fn node_with_room_is_news_once_and_again_after_it_had_none() {
        let (mut takers, now) = (Takers::default(), Instant::now());
        let mut is_news = |of: &[u128]| takers.update(&nodes(of), &nodes(&[]), |_| false, now);
        assert!(is_news(&[1]) && !is_news(&[1]));
        assert!(is_news(&[1, 2]) && !is_news(&[2]) && is_news(&[1]));
    }

    #[test]
    fn node_that_keeps_failing_is_news_rarely_and_at_once_when_it_works() {
        let (mut takers, now) = (Takers::default(), Instant::now());
        let both = nodes(&[1, 2]);
        let mut is_news = |unproven: &[u128], rests: bool, seconds| {
            let now = now + Duration::from_secs(seconds);
            takers.update(&both, &nodes(unproven), |_| rests, now)
        };
        assert!(is_news(&[], false, 0));
        assert!(!is_news(&[1], true, 0), "it rests");
        assert!(is_news(&[1], false, 1));
        for second in 2..600 {
            assert!(!is_news(&[1], second % 30 != 0, second), "{second}");
        }
        assert!(is_news(&[1], false, 601) && !is_news(&[1], false, 601));
        assert!(is_news(&[], false, 602), "it works");
    }
}
