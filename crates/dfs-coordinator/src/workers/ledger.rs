//! The chunks that are not as they should be. Pure.

use std::collections::{BTreeMap, BTreeSet};

use dfs_metadata::namespace::Chunk;
use dfs_types::ChunkId;
use tokio::time::Instant;

use crate::lost::Lost;

/// How the chunks are, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// All.
    pub(crate) chunks: u64,
    /// Fewer good copies than wanted, but at least one.
    pub(crate) under_replicated: u64,
    /// No good copy within reach.
    pub(crate) missing: u64,
    /// Copies found bad that are still recorded.
    pub(crate) bad_copies: u64,
}

/// How one chunk is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Condition {
    /// Copies that are neither bad nor lost.
    pub(crate) good: u8,
    /// Copies wanted.
    pub(crate) wanted: u8,
    /// Copies known to be bad.
    pub(crate) bad: u8,
}

impl Condition {
    /// How the chunk of a record is; `None` for a tombstone.
    pub(crate) fn of(chunk: &Chunk, lost: &Lost) -> Option<Self> {
        if chunk.is_tombstone() {
            return None;
        }
        let good = chunk.good_copies().filter(|copy| !lost.has(copy)).count();
        let bad = chunk.copies.iter().filter(|copy| copy.is_bad).count();
        Some(Self { good: good as u8, wanted: chunk.wanted, bad: bad as u8 })
    }

    /// Whether nothing is to be done.
    pub(crate) fn is_normal(self) -> bool {
        self.good >= self.wanted && self.bad == 0
    }
}

/// The chunks that need repair, fewest good copies first.
///
/// Bounded: what does not fit is counted, and found again by another scan once there is room.
/// Chunks without a good copy, of which nothing can be repaired, have a place of their own, so that
/// however many they are they keep no others waiting.
#[derive(Debug)]
pub(crate) struct Ledger {
    capacity: usize,
    tally: Tally,
    abnormal: BTreeMap<ChunkId, Condition>,
    /// Without a good copy.
    missing: BTreeMap<ChunkId, Condition>,
    ready: BTreeSet<(Condition, ChunkId)>,
    /// Tried without success, to be tried again from then on; by time, and by chunk.
    resting: BTreeSet<(Instant, ChunkId)>,
    rests_until: BTreeMap<ChunkId, Instant>,
    busy: BTreeSet<ChunkId>,
    has_overflowed: bool,
}

impl Ledger {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            tally: Tally::default(),
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
            if let Some(condition) = self.abnormal.get(&chunk).copied() {
                self.line_up(chunk, condition);
            }
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally
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

    /// Changes the number of all chunks.
    pub(crate) fn count(&mut self, chunks: i64) {
        self.tally.chunks = self.tally.chunks.saturating_add_signed(chunks);
    }

    /// Takes over how a chunk is; `None` when there is no such chunk any more.
    pub(crate) fn set(&mut self, chunk: ChunkId, condition: Option<Condition>) {
        if let Some(old) = self.abnormal.remove(&chunk).or_else(|| self.missing.remove(&chunk)) {
            self.tell(old, -1);
            self.ready.remove(&(old, chunk));
        }
        let Some(condition) = condition.filter(|condition| !condition.is_normal()) else {
            return;
        };
        self.tell(condition, 1);
        if condition.good == 0 {
            if self.missing.len() < self.capacity {
                self.missing.insert(chunk, condition);
            }
            return;
        }
        if self.abnormal.len() >= self.capacity {
            self.has_overflowed = true;
            return;
        }
        self.abnormal.insert(chunk, condition);
        if !self.busy.contains(&chunk) && !self.rests_until.contains_key(&chunk) {
            self.line_up(chunk, condition);
        }
    }

    /// The chunk that is worst off; it is busy until [`Self::finish`].
    pub(crate) fn take(&mut self, now: Instant) -> Option<(ChunkId, Condition)> {
        while let Some((until, chunk)) = self.resting.first().copied().filter(|(at, _)| *at <= now)
        {
            self.resting.remove(&(until, chunk));
            self.rests_until.remove(&chunk);
            if let Some(condition) = self.abnormal.get(&chunk).copied() {
                self.line_up(chunk, condition);
            }
        }
        let (condition, chunk) = self.ready.pop_first()?;
        self.busy.insert(chunk);
        Some((chunk, condition))
    }

    /// The repair of a chunk ended, and it is like this now. If that is still not right, it rests
    /// until `again`.
    pub(crate) fn finish(&mut self, chunk: ChunkId, condition: Option<Condition>, again: Instant) {
        self.busy.remove(&chunk);
        self.set(chunk, condition);
        if let Some(condition) = self.abnormal.get(&chunk) {
            self.ready.remove(&(*condition, chunk));
            self.resting.insert((again, chunk));
            self.rests_until.insert(chunk, again);
        }
    }

    fn line_up(&mut self, chunk: ChunkId, condition: Condition) {
        self.ready.insert((condition, chunk));
    }

    fn tell(&mut self, condition: Condition, sign: i64) {
        let add = |count: &mut u64, of: u64| {
            *count = count.saturating_add_signed(sign * of as i64);
        };
        if condition.good == 0 && condition.wanted > 0 {
            add(&mut self.tally.missing, 1);
        } else if condition.good < condition.wanted {
            add(&mut self.tally.under_replicated, 1);
        }
        add(&mut self.tally.bad_copies, u64::from(condition.bad));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn condition(good: u8, bad: u8) -> Condition {
        Condition { good, wanted: 3, bad }
    }

    #[test]
    fn the_worst_off_come_first() {
        let now = Instant::now();
        let mut ledger = Ledger::new(10);
        for (id, good) in [(1, 2), (2, 0), (3, 1), (4, 3), (5, 2)] {
            ledger.set(ChunkId(id), Some(condition(good, 0)));
        }
        let mut order = Vec::new();
        while let Some((chunk, _)) = ledger.take(now) {
            order.push(chunk.0);
        }
        assert_eq!(order, [3, 1, 5], "and one without a good copy never");
        assert_eq!((ledger.len(), ledger.busy()), (3, 3));
    }

    #[test]
    fn the_tally_follows_each_chunk() {
        let mut ledger = Ledger::new(10);
        ledger.count(3);
        let tally = |ledger: &Ledger| {
            let Tally { chunks, under_replicated, missing, bad_copies } = ledger.tally();
            (chunks, under_replicated, missing, bad_copies)
        };
        ledger.set(ChunkId(1), Some(condition(2, 1)));
        ledger.set(ChunkId(2), Some(condition(0, 2)));
        ledger.set(ChunkId(3), Some(condition(3, 0)));
        assert_eq!(tally(&ledger), (3, 1, 1, 3));
        ledger.set(ChunkId(2), Some(condition(1, 0)));
        assert_eq!(tally(&ledger), (3, 2, 0, 1));
        ledger.set(ChunkId(1), Some(condition(3, 0)));
        ledger.set(ChunkId(2), None);
        ledger.count(-1);
        assert_eq!(tally(&ledger), (2, 0, 0, 0));
        assert_eq!(ledger.len(), 0);
    }

    #[test]
    fn a_chunk_in_repair_is_not_taken_twice_and_rests_after_a_failure() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let mut ledger = Ledger::new(10);
        ledger.set(ChunkId(1), Some(condition(2, 0)));
        assert!(ledger.take(now).is_some());
        ledger.set(ChunkId(1), Some(condition(1, 0)));
        assert_eq!(ledger.take(now), None);
        ledger.finish(ChunkId(1), Some(condition(1, 0)), later);
        ledger.set(ChunkId(1), Some(condition(1, 1)));
        assert_eq!(ledger.take(now), None);
        assert_eq!(ledger.take(later).unwrap().1, Condition { good: 1, wanted: 3, bad: 1 });
        ledger.finish(ChunkId(1), Some(condition(3, 0)), later);
        assert_eq!(ledger.take(later), None);
    }

    #[test]
    fn who_rests_is_woken_when_something_changed_and_a_scan_keeps_who_is_in_repair() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let mut ledger = Ledger::new(10);
        ledger.set(ChunkId(1), Some(condition(2, 0)));
        ledger.take(now).unwrap();
        ledger.finish(ChunkId(1), Some(condition(2, 0)), later);
        assert_eq!(ledger.take(now), None);
        ledger.wake();
        assert!(ledger.take(now).is_some());
        ledger.restart();
        ledger.set(ChunkId(1), Some(condition(2, 0)));
        assert_eq!((ledger.take(now), ledger.busy(), ledger.len()), (None, 1, 1));
    }

    #[test]
    fn what_has_no_room_is_counted_and_asks_for_a_scan() {
        let now = Instant::now();
        let mut ledger = Ledger::new(4);
        for id in 0..10 {
            ledger.set(ChunkId(id), Some(condition(2, 0)));
        }
        assert_eq!((ledger.len(), ledger.tally().under_replicated), (4, 10));
        assert!(!ledger.wants_scan());
        for _ in 0..3 {
            let (chunk, _) = ledger.take(now).unwrap();
            ledger.finish(chunk, Some(condition(3, 0)), now);
        }
        assert!(ledger.wants_scan());
    }

    #[test]
    fn chunks_that_nothing_can_be_done_for_keep_no_others_waiting() {
        let now = Instant::now();
        let mut ledger = Ledger::new(4);
        for id in 0..10 {
            ledger.set(ChunkId(id), Some(condition(0, 0)));
        }
        ledger.set(ChunkId(10), Some(condition(1, 0)));
        assert_eq!((ledger.tally().missing, ledger.tally().under_replicated), (10, 1));
        assert_eq!(ledger.take(now).map(|(chunk, _)| chunk), Some(ChunkId(10)));
        // One comes back.
        ledger.set(ChunkId(1), Some(condition(2, 0)));
        assert_eq!(ledger.take(now).map(|(chunk, _)| chunk), Some(ChunkId(1)));
        assert_eq!((ledger.tally().missing, ledger.wants_scan()), (9, false));
    }
}
