//! The queue of chunks that need repair. Pure.

use std::collections::{BTreeMap, BTreeSet};

use dfs_metadata::chunk_health::{Cluster, judge};
use dfs_metadata::namespace::Chunk;
use dfs_types::{ChunkId, ReplicaHealth};
use tokio::time::Instant;

use crate::background::ReplicationCounts;

/// Need of a chunk, derived from its health. Ordered by urgency: fewest spare parts first, then
/// fewest parts that stay; chunks without a good replica come last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RepairNeed {
    /// Set if no replica is good, but bad ones may together have all blocks.
    is_scattered: bool,
    urgency: (i16, i16),
    /// Replicas to build.
    lacks: u8,
    /// Bad replicas.
    bad: u8,
}

impl RepairNeed {
    /// Returns what the chunk of a record needs; `None` for a tombstone.
    pub(crate) fn of(chunk: &Chunk, cluster: &Cluster) -> Option<Self> {
        if chunk.is_tombstone() {
            return None;
        }
        let health = judge(chunk, cluster);
        let is_scattered = health.is_missing() && health.replicas.contains(&ReplicaHealth::Bad);
        let (urgency, lacks, bad) = (health.urgency(), health.lacks(), health.bad);
        Some(Self { is_scattered, urgency, lacks, bad })
    }

    fn is_missing(self) -> bool {
        self.urgency.0 < 0
    }

    /// Returns whether the loss of one more replica would lose data.
    fn has_no_spare(self) -> bool {
        self.urgency.0 <= 0
    }

    /// Returns whether no replica is lacking.
    pub(crate) fn is_complete(self) -> bool {
        self.lacks == 0
    }

    /// Returns whether there is nothing to do.
    fn needs_nothing(self) -> bool {
        self.lacks == 0 && self.bad == 0
    }
}

/// Chunks that need repair, fewest good replicas first.
///
/// Bounded: the least urgent ones that do not fit are only counted, and found again by another turn
/// of the sweep once there is room. Chunks without any replica to read, which cannot be repaired,
/// are kept apart, so that any number of them does not delay others.
#[derive(Debug)]
pub(crate) struct RepairQueue {
    capacity: usize,
    /// Counts of the chunks kept here, and of all chunks.
    counts: ReplicationCounts,
    /// Counts of those that did not fit in the present turn of the sweep, and in the last one.
    overflow: [ReplicationCounts; 2],
    abnormal: BTreeMap<ChunkId, RepairNeed>,
    /// Chunks without any replica to read.
    missing: BTreeMap<ChunkId, RepairNeed>,
    ready: BTreeSet<(RepairNeed, ChunkId)>,
    /// Failed chunks and when to retry them; by time, and by chunk.
    resting: BTreeSet<(Instant, ChunkId)>,
    rests_until: BTreeMap<ChunkId, Instant>,
    busy: BTreeSet<ChunkId>,
}

impl RepairQueue {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            counts: ReplicationCounts::default(),
            overflow: [ReplicationCounts::default(); 2],
            abnormal: BTreeMap::new(),
            missing: BTreeMap::new(),
            ready: BTreeSet::new(),
            resting: BTreeSet::new(),
            rests_until: BTreeMap::new(),
            busy: BTreeSet::new(),
        }
    }

    /// Clears everything but the chunks in repair, before all chunks are counted.
    pub(crate) fn restart(&mut self) {
        let busy = std::mem::take(&mut self.busy);
        *self = Self { busy, ..Self::new(self.capacity) };
    }

    /// Notes that the sweep starts another turn, which finds what did not fit again.
    pub(crate) fn start_turn(&mut self) {
        self.overflow = [ReplicationCounts::default(), self.overflow[0]];
    }

    /// Ends all pauses, after a change that may help.
    pub(crate) fn wake(&mut self) {
        self.rests_until.clear();
        for (_, chunk) in std::mem::take(&mut self.resting) {
            if let Some(need) = self.abnormal.get(&chunk).copied() {
                self.enqueue(chunk, need);
            }
        }
    }

    /// Returns the numbers of chunks. While more need repair than fit, those that do not are
    /// counted as of the last whole turn.
    pub(crate) fn counts(&self) -> ReplicationCounts {
        let [now, before] = &self.overflow;
        let sum = |of: fn(&ReplicationCounts) -> u64| of(&self.counts) + of(now).max(of(before));
        ReplicationCounts {
            chunks: self.counts.chunks,
            under_replicated: sum(|counts| counts.under_replicated),
            missing: sum(|counts| counts.missing),
            bad_replicas: sum(|counts| counts.bad_replicas),
        }
    }

    /// Returns how many chunks are queued or in repair.
    pub(crate) fn len(&self) -> usize {
        self.abnormal.len()
    }

    /// Returns how many chunks are in repair.
    pub(crate) fn busy(&self) -> usize {
        self.busy.len()
    }

    /// Returns whether chunks that did not fit would fit now.
    pub(crate) fn wants_turn(&self) -> bool {
        let has_overflowed = self.overflow.iter().any(|counts| counts.under_replicated > 0);
        has_overflowed && self.abnormal.len() < self.capacity / 2
    }

    /// Returns whether the chunk is queued or missing.
    pub(crate) fn knows(&self, chunk: ChunkId) -> bool {
        self.abnormal.contains_key(&chunk) || self.missing.contains_key(&chunk)
    }

    /// Changes the number of all chunks.
    pub(crate) fn count(&mut self, chunks: i64) {
        self.counts.chunks = self.counts.chunks.saturating_add_signed(chunks);
    }

    /// Updates what a chunk needs; `None` when it is gone.
    pub(crate) fn set(&mut self, chunk: ChunkId, need: Option<RepairNeed>) {
        if let Some(old) = self.abnormal.remove(&chunk).or_else(|| self.missing.remove(&chunk)) {
            count_need(&mut self.counts, old, -1);
            self.ready.remove(&(old, chunk));
        }
        let Some(need) = need.filter(|need| !need.needs_nothing()) else {
            return;
        };
        if need.is_missing() && !need.is_scattered {
            if self.missing.len() < self.capacity {
                self.missing.insert(chunk, need);
                count_need(&mut self.counts, need, 1);
            } else {
                count_need(&mut self.overflow[0], need, 1);
            }
            return;
        }
        if self.abnormal.len() >= self.capacity && !self.evict_for(need) {
            count_need(&mut self.overflow[0], need, 1);
            return;
        }
        self.abnormal.insert(chunk, need);
        count_need(&mut self.counts, need, 1);
        if !self.busy.contains(&chunk) && !self.rests_until.contains_key(&chunk) {
            self.enqueue(chunk, need);
        }
    }

    /// Makes room for a need by dropping one that is less urgent. Returns whether there was one.
    fn evict_for(&mut self, need: RepairNeed) -> bool {
        let Some((last, chunk)) = self.ready.last().copied().filter(|(last, _)| *last > need)
        else {
            return false;
        };
        self.ready.remove(&(last, chunk));
        self.abnormal.remove(&chunk);
        count_need(&mut self.counts, last, -1);
        count_need(&mut self.overflow[0], last, 1);
        true
    }

    /// Takes the most urgent chunk, with `sole_only` only one without a spare replica; it is busy
    /// until [`Self::finish`].
    pub(crate) fn take(&mut self, now: Instant, sole_only: bool) -> Option<(ChunkId, RepairNeed)> {
        while let Some((until, chunk)) = self.resting.first().copied().filter(|(at, _)| *at <= now)
        {
            self.resting.remove(&(until, chunk));
            self.rests_until.remove(&chunk);
            if let Some(need) = self.abnormal.get(&chunk).copied() {
                self.enqueue(chunk, need);
            }
        }
        let (need, _) = self.ready.first()?;
        if sole_only && !need.has_no_spare() {
            return None;
        }
        let (need, chunk) = self.ready.pop_first()?;
        self.busy.insert(chunk);
        Some((chunk, need))
    }

    /// Ends the repair of a chunk, with what it needs now. If that is not nothing, it is retried
    /// after `again`.
    pub(crate) fn finish(&mut self, chunk: ChunkId, need: Option<RepairNeed>, again: Instant) {
        self.busy.remove(&chunk);
        self.set(chunk, need);
        if let Some(need) = self.abnormal.get(&chunk) {
            self.ready.remove(&(*need, chunk));
            self.resting.insert((again, chunk));
            self.rests_until.insert(chunk, again);
        }
    }

    fn enqueue(&mut self, chunk: ChunkId, need: RepairNeed) {
        self.ready.insert((need, chunk));
    }
}

fn count_need(counts: &mut ReplicationCounts, need: RepairNeed, sign: i64) {
    let add = |count: &mut u64, of: u64| {
        *count = count.saturating_add_signed(sign * of as i64);
    };
    if need.is_missing() {
        add(&mut counts.missing, 1);
    } else if !need.is_complete() {
        add(&mut counts.under_replicated, 1);
    }
    add(&mut counts.bad_replicas, u64::from(need.bad));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn need(good: u8, bad: u8) -> RepairNeed {
        RepairNeed {
            is_scattered: false,
            urgency: (i16::from(good) - 1, i16::from(good) - 3),
            lacks: 3_u8.saturating_sub(good),
            bad,
        }
    }

    #[test]
    fn most_urgent_chunk_comes_first() {
        let now = Instant::now();
        let mut queue = RepairQueue::new(10);
        for (id, good) in [(1, 2), (2, 0), (3, 1), (4, 3), (5, 2)] {
            queue.set(ChunkId(id), Some(need(good, 0)));
        }
        let mut order = Vec::new();
        while let Some((chunk, _)) = queue.take(now, false) {
            order.push(chunk.0);
        }
        assert_eq!(order, [3, 1, 5], "one without a good replica is never taken");
        assert_eq!((queue.len(), queue.busy()), (3, 3));
    }

    #[test]
    fn chunk_with_bad_replicas_only_is_repaired_after_all_others() {
        let now = Instant::now();
        let mut queue = RepairQueue::new(10);
        queue.set(ChunkId(1), Some(RepairNeed { is_scattered: true, ..need(0, 3) }));
        queue.set(ChunkId(2), Some(need(2, 1)));
        assert_eq!(queue.counts().missing, 1);
        assert_eq!(queue.take(now, false).map(|(chunk, _)| chunk), Some(ChunkId(2)));
        assert_eq!(queue.take(now, false).map(|(chunk, _)| chunk), Some(ChunkId(1)));
    }

    #[test]
    fn counts_follow_each_chunk() {
        let mut queue = RepairQueue::new(10);
        queue.count(3);
        let counts = |queue: &RepairQueue| {
            let ReplicationCounts { chunks, under_replicated, missing, bad_replicas } =
                queue.counts();
            (chunks, under_replicated, missing, bad_replicas)
        };
        queue.set(ChunkId(1), Some(need(2, 1)));
        queue.set(ChunkId(2), Some(need(0, 2)));
        queue.set(ChunkId(3), Some(need(3, 0)));
        assert_eq!(counts(&queue), (3, 1, 1, 3));
        queue.set(ChunkId(2), Some(need(1, 0)));
        assert_eq!(counts(&queue), (3, 2, 0, 1));
        queue.set(ChunkId(1), Some(need(3, 0)));
        queue.set(ChunkId(2), None);
        queue.count(-1);
        assert_eq!(counts(&queue), (2, 0, 0, 0));
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn chunk_in_repair_is_not_taken_twice_and_pauses_after_failure() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let mut queue = RepairQueue::new(10);
        queue.set(ChunkId(1), Some(need(2, 0)));
        assert!(queue.take(now, false).is_some());
        queue.set(ChunkId(1), Some(need(1, 0)));
        assert_eq!(queue.take(now, false), None);
        queue.finish(ChunkId(1), Some(need(1, 0)), later);
        queue.set(ChunkId(1), Some(need(1, 1)));
        assert_eq!(queue.take(now, false), None);
        assert_eq!(queue.take(later, false).unwrap().1, need(1, 1));
        queue.finish(ChunkId(1), Some(need(3, 0)), later);
        assert_eq!(queue.take(later, false), None);
    }

    #[test]
    fn changes_end_pauses_and_a_new_count_keeps_chunks_in_repair() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let mut queue = RepairQueue::new(10);
        queue.set(ChunkId(1), Some(need(2, 0)));
        queue.take(now, false).unwrap();
        queue.finish(ChunkId(1), Some(need(2, 0)), later);
        assert_eq!(queue.take(now, false), None);
        queue.wake();
        assert!(queue.take(now, false).is_some());
        queue.set(ChunkId(2), Some(need(0, 0)));
        queue.restart();
        assert_eq!(queue.counts().missing, 0, "it may have been deleted meanwhile");
        queue.set(ChunkId(1), Some(need(2, 0)));
        assert_eq!((queue.take(now, false), queue.busy(), queue.len()), (None, 1, 1));
    }

    #[test]
    fn overflow_is_counted_and_requests_a_turn() {
        let now = Instant::now();
        let mut queue = RepairQueue::new(4);
        for id in 0..10 {
            queue.set(ChunkId(id), Some(need(2, 0)));
        }
        assert_eq!((queue.len(), queue.counts().under_replicated), (4, 10));
        assert!(!queue.wants_turn());
        for _ in 0..3 {
            let (chunk, _) = queue.take(now, false).unwrap();
            queue.finish(chunk, Some(need(3, 0)), now);
        }
        assert!(queue.wants_turn());
        // The turn finds them again: they are not counted twice.
        queue.start_turn();
        for id in 4..10 {
            queue.set(ChunkId(id), Some(need(2, 0)));
        }
        queue.start_turn();
        assert_eq!((queue.len(), queue.counts().under_replicated), (4, 7));
        queue.start_turn();
        assert_eq!(queue.counts().under_replicated, 4);
    }

    #[test]
    fn urgent_chunk_takes_the_place_of_another_one_in_a_full_queue() {
        let now = Instant::now();
        let mut queue = RepairQueue::new(2);
        for (id, good) in [(1, 2), (2, 2), (3, 1)] {
            queue.set(ChunkId(id), Some(need(good, 0)));
        }
        assert_eq!((queue.len(), queue.counts().under_replicated), (2, 3));
        assert_eq!(queue.take(now, true).map(|(chunk, _)| chunk), Some(ChunkId(3)));
        assert_eq!(queue.take(now, true), None, "the others have a spare replica");
        assert!(queue.take(now, false).is_some());
    }

    #[test]
    fn missing_chunks_do_not_hold_up_others() {
        let now = Instant::now();
        let mut queue = RepairQueue::new(4);
        for id in 0..10 {
            queue.set(ChunkId(id), Some(need(0, 0)));
        }
        queue.set(ChunkId(10), Some(need(1, 0)));
        assert_eq!((queue.counts().missing, queue.counts().under_replicated), (10, 1));
        assert_eq!(queue.take(now, false).map(|(chunk, _)| chunk), Some(ChunkId(10)));
        // One comes back.
        queue.set(ChunkId(1), Some(need(2, 0)));
        assert_eq!(queue.take(now, false).map(|(chunk, _)| chunk), Some(ChunkId(1)));
        assert_eq!((queue.counts().missing, queue.wants_turn()), (9, false));
    }
}
