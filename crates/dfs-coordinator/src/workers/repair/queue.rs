//! The chunks that are not as they should be. Pure.

use std::collections::{BTreeMap, BTreeSet};

use dfs_metadata::health::{Cluster, judge};
use dfs_metadata::namespace::Chunk;
use dfs_types::ChunkId;
use tokio::time::Instant;

/// How the chunks are, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ReplicationCounts {
    /// All.
    pub(crate) chunks: u64,
    /// Fewer good replicas than wanted, but at least one.
    pub(crate) under_replicated: u64,
    /// No good replica within reach.
    pub(crate) missing: u64,
    /// Replicas found bad that are still recorded.
    pub(crate) bad_replicas: u64,
}

/// What the queue keeps of the health of a chunk. Ordered by urgency: the fewest parts to spare
/// come first, then the fewest that stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RepairNeed {
    urgency: (i16, i16),
    /// Replicas to be made.
    lacks: u8,
    /// Replicas known to be bad.
    bad: u8,
}

impl RepairNeed {
    /// What the chunk of a record needs; `None` for a tombstone.
    pub(crate) fn of(chunk: &Chunk, cluster: &Cluster) -> Option<Self> {
        if chunk.is_tombstone() {
            return None;
        }
        let health = judge(chunk, cluster);
        Some(Self { urgency: health.urgency(), lacks: health.lacks(), bad: health.bad })
    }

    fn is_missing(self) -> bool {
        self.urgency.0 < 0
    }

    /// Whether all replicas wanted are there.
    pub(crate) fn is_complete(self) -> bool {
        self.lacks == 0
    }

    /// Whether nothing is to be done.
    fn is_normal(self) -> bool {
        self.lacks == 0 && self.bad == 0
    }
}

/// The chunks that need repair, fewest good replicas first.
///
/// Bounded: what does not fit is counted, and found again by another scan once there is room.
/// Chunks without a good replica, of which nothing can be repaired, have a place of their own, so that
/// however many they are they keep no others waiting.
#[derive(Debug)]
pub(crate) struct RepairQueue {
    capacity: usize,
    counts: ReplicationCounts,
    abnormal: BTreeMap<ChunkId, RepairNeed>,
    /// Without a good replica.
    missing: BTreeMap<ChunkId, RepairNeed>,
    ready: BTreeSet<(RepairNeed, ChunkId)>,
    /// Tried without success, to be tried again from then on; by time, and by chunk.
    resting: BTreeSet<(Instant, ChunkId)>,
    rests_until: BTreeMap<ChunkId, Instant>,
    busy: BTreeSet<ChunkId>,
    has_overflowed: bool,
}

impl RepairQueue {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            counts: ReplicationCounts::default(),
            abnormal: BTreeMap::new(),
            missing: BTreeMap::new(),
            ready: BTreeSet::new(),
            resting: BTreeSet::new(),
            rests_until: BTreeMap::new(),
            busy: BTreeSet::new(),
            has_overflowed: false,
        }
    }

    /// Forgets everything but which chunks are in repair: a scan begins.
    pub(crate) fn restart(&mut self) {
        let busy = std::mem::take(&mut self.busy);
        *self = Self { busy, ..Self::new(self.capacity) };
    }

    /// Ends the rest of all: something has changed that may help them.
    pub(crate) fn wake(&mut self) {
        self.rests_until.clear();
        for (_, chunk) in std::mem::take(&mut self.resting) {
            if let Some(need) = self.abnormal.get(&chunk).copied() {
                self.line_up(chunk, need);
            }
        }
    }

    pub(crate) fn counts(&self) -> ReplicationCounts {
        self.counts
    }

    /// Chunks that wait for repair, or are in it.
    pub(crate) fn len(&self) -> usize {
        self.abnormal.len()
    }

    /// Chunks in repair.
    pub(crate) fn busy(&self) -> usize {
        self.busy.len()
    }

    /// Whether there are chunks to be repaired that it had no room for, and has now.
    pub(crate) fn wants_scan(&self) -> bool {
        self.has_overflowed && self.abnormal.len() < self.capacity / 2
    }

    /// Whether the chunk waits for repair, or is missing.
    pub(crate) fn knows(&self, chunk: ChunkId) -> bool {
        self.abnormal.contains_key(&chunk) || self.missing.contains_key(&chunk)
    }

    /// Changes the number of all chunks.
    pub(crate) fn count(&mut self, chunks: i64) {
        self.counts.chunks = self.counts.chunks.saturating_add_signed(chunks);
    }

    /// Takes over how a chunk is; `None` when there is no such chunk any more.
    pub(crate) fn set(&mut self, chunk: ChunkId, need: Option<RepairNeed>) {
        if let Some(old) = self.abnormal.remove(&chunk).or_else(|| self.missing.remove(&chunk)) {
            self.tell(old, -1);
            self.ready.remove(&(old, chunk));
        }
        let Some(need) = need.filter(|need| !need.is_normal()) else {
            return;
        };
        self.tell(need, 1);
        if need.is_missing() {
            if self.missing.len() < self.capacity {
                self.missing.insert(chunk, need);
            }
            return;
        }
        if self.abnormal.len() >= self.capacity {
            self.has_overflowed = true;
            return;
        }
        self.abnormal.insert(chunk, need);
        if !self.busy.contains(&chunk) && !self.rests_until.contains_key(&chunk) {
            self.line_up(chunk, need);
        }
    }

    /// The chunk that is worst off; it is busy until [`Self::finish`].
    pub(crate) fn take(&mut self, now: Instant) -> Option<(ChunkId, RepairNeed)> {
        while let Some((until, chunk)) = self.resting.first().copied().filter(|(at, _)| *at <= now)
        {
            self.resting.remove(&(until, chunk));
            self.rests_until.remove(&chunk);
            if let Some(need) = self.abnormal.get(&chunk).copied() {
                self.line_up(chunk, need);
            }
        }
        let (need, chunk) = self.ready.pop_first()?;
        self.busy.insert(chunk);
        Some((chunk, need))
    }

    /// The repair of a chunk ended, and it is like this now. If that is still not right, it rests
    /// until `again`.
    pub(crate) fn finish(&mut self, chunk: ChunkId, need: Option<RepairNeed>, again: Instant) {
        self.busy.remove(&chunk);
        self.set(chunk, need);
        if let Some(need) = self.abnormal.get(&chunk) {
            self.ready.remove(&(*need, chunk));
            self.resting.insert((again, chunk));
            self.rests_until.insert(chunk, again);
        }
    }

    fn line_up(&mut self, chunk: ChunkId, need: RepairNeed) {
        self.ready.insert((need, chunk));
    }

    fn tell(&mut self, need: RepairNeed, sign: i64) {
        let add = |count: &mut u64, of: u64| {
            *count = count.saturating_add_signed(sign * of as i64);
        };
        if need.is_missing() {
            add(&mut self.counts.missing, 1);
        } else if !need.is_complete() {
            add(&mut self.counts.under_replicated, 1);
        }
        add(&mut self.counts.bad_replicas, u64::from(need.bad));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn need(good: u8, bad: u8) -> RepairNeed {
        RepairNeed {
            urgency: (i16::from(good) - 1, i16::from(good) - 3),
            lacks: 3_u8.saturating_sub(good),
            bad,
        }
    }

    #[test]
    fn the_worst_off_come_first() {
        let now = Instant::now();
        let mut queue = RepairQueue::new(10);
        for (id, good) in [(1, 2), (2, 0), (3, 1), (4, 3), (5, 2)] {
            queue.set(ChunkId(id), Some(need(good, 0)));
        }
        let mut order = Vec::new();
        while let Some((chunk, _)) = queue.take(now) {
            order.push(chunk.0);
        }
        assert_eq!(order, [3, 1, 5], "and one without a good replica never");
        assert_eq!((queue.len(), queue.busy()), (3, 3));
    }

    #[test]
    fn the_tally_follows_each_chunk() {
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
    fn a_chunk_in_repair_is_not_taken_twice_and_rests_after_a_failure() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let mut queue = RepairQueue::new(10);
        queue.set(ChunkId(1), Some(need(2, 0)));
        assert!(queue.take(now).is_some());
        queue.set(ChunkId(1), Some(need(1, 0)));
        assert_eq!(queue.take(now), None);
        queue.finish(ChunkId(1), Some(need(1, 0)), later);
        queue.set(ChunkId(1), Some(need(1, 1)));
        assert_eq!(queue.take(now), None);
        assert_eq!(queue.take(later).unwrap().1, need(1, 1));
        queue.finish(ChunkId(1), Some(need(3, 0)), later);
        assert_eq!(queue.take(later), None);
    }

    #[test]
    fn who_rests_is_woken_when_something_changed_and_a_scan_keeps_who_is_in_repair() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let mut queue = RepairQueue::new(10);
        queue.set(ChunkId(1), Some(need(2, 0)));
        queue.take(now).unwrap();
        queue.finish(ChunkId(1), Some(need(2, 0)), later);
        assert_eq!(queue.take(now), None);
        queue.wake();
        assert!(queue.take(now).is_some());
        queue.restart();
        queue.set(ChunkId(1), Some(need(2, 0)));
        assert_eq!((queue.take(now), queue.busy(), queue.len()), (None, 1, 1));
    }

    #[test]
    fn what_has_no_room_is_counted_and_asks_for_a_scan() {
        let now = Instant::now();
        let mut queue = RepairQueue::new(4);
        for id in 0..10 {
            queue.set(ChunkId(id), Some(need(2, 0)));
        }
        assert_eq!((queue.len(), queue.counts().under_replicated), (4, 10));
        assert!(!queue.wants_scan());
        for _ in 0..3 {
            let (chunk, _) = queue.take(now).unwrap();
            queue.finish(chunk, Some(need(3, 0)), now);
        }
        assert!(queue.wants_scan());
    }

    #[test]
    fn chunks_that_nothing_can_be_done_for_keep_no_others_waiting() {
        let now = Instant::now();
        let mut queue = RepairQueue::new(4);
        for id in 0..10 {
            queue.set(ChunkId(id), Some(need(0, 0)));
        }
        queue.set(ChunkId(10), Some(need(1, 0)));
        assert_eq!((queue.counts().missing, queue.counts().under_replicated), (10, 1));
        assert_eq!(queue.take(now).map(|(chunk, _)| chunk), Some(ChunkId(10)));
        // One comes back.
        queue.set(ChunkId(1), Some(need(2, 0)));
        assert_eq!(queue.take(now).map(|(chunk, _)| chunk), Some(ChunkId(1)));
        assert_eq!((queue.counts().missing, queue.wants_scan()), (9, false));
    }
}
