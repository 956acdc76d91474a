//! The queue of chunks that need repair. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_metadata::chunk_health::{Cluster, judge};
use dfs_metadata::namespace::Chunk;
use dfs_types::{ChunkId, ReplicaHealth, move_cost};
use tokio::time::Instant;

use crate::background::ReplicationCounts;
use crate::build_slots::BuildEnd;

/// Pause of a chunk after a failed repair, and the longest one: doubled with each further failure.
const REST: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(64));

/// Resting chunks considered to make room for one that is more urgent.
const RESTING_CONSIDERED: usize = 16;

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
    /// Bytes of the chunk.
    length: u64,
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
        Some(Self { is_scattered, urgency, lacks, bad, length: chunk.seal.length })
    }

    fn rank(self) -> (bool, (i16, i16)) {
        (self.is_scattered, self.urgency)
    }

    fn is_missing(self) -> bool {
        self.urgency.0 < 0
    }

    /// Returns whether the loss of one more replica would lose data.
    fn has_no_spare(self) -> bool {
        self.urgency.0 <= 0
    }

    /// Returns the bytes of the chunk.
    pub(crate) fn length(self) -> u64 {
        self.length
    }

    /// Returns whether no replica is lacking.
    pub(crate) fn is_complete(self) -> bool {
        self.lacks == 0
    }

    /// Returns the bytes that the rate of repair counts for building what is lacking, or for reading a
    /// good replica before bad ones are dropped.
    pub(crate) fn cost(self) -> u64 {
        move_cost(self.length).saturating_mul(self.lacks.max(1).into())
    }

    /// Returns whether there is nothing to do.
    fn needs_nothing(self) -> bool {
        self.lacks == 0 && self.bad == 0
    }
}

/// Chunks that need repair, fewest good replicas first.
///
/// A chunk whose nodes have too many builds already waits apart, so that the others go on.
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
    /// Failures of chunks since their last success.
    failures: BTreeMap<ChunkId, u32>,
    /// Chunks for which the last attempt found no node.
    without_target: BTreeSet<ChunkId>,
    /// Chunks that wait for a node with too many builds; by node, and by chunk.
    parked: BTreeMap<BuildEnd, BTreeSet<(RepairNeed, ChunkId)>>,
    waits_for: BTreeMap<ChunkId, BuildEnd>,
    /// Chunks in repair, and whether what they need was set meanwhile: that is kept, as it is corrected
    /// by the next change, while what their repair found may be older than all changes.
    busy: BTreeMap<ChunkId, bool>,
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
            failures: BTreeMap::new(),
            without_target: BTreeSet::new(),
            parked: BTreeMap::new(),
            waits_for: BTreeMap::new(),
            busy: BTreeMap::new(),
        }
    }

    /// Clears everything but the chunks in repair, before all chunks are counted.
    pub(crate) fn restart(&mut self) {
        // What was set for them is forgotten, too.
        let busy = std::mem::take(&mut self.busy).into_keys().map(|chunk| (chunk, false)).collect();
        *self = Self { busy, ..Self::new(self.capacity) };
    }

    /// Notes that the sweep starts another turn, which finds what did not fit again.
    pub(crate) fn start_turn(&mut self) {
        self.overflow = [ReplicationCounts::default(), self.overflow[0]];
    }

    /// Ends all pauses and waits, after a change that may help.
    pub(crate) fn wake(&mut self) {
        for end in self.waited_for() {
            self.unpark(end, usize::MAX);
        }
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
            without_spare: sum(|counts| counts.without_spare),
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

    /// Returns for how many queued chunks the last attempt found no node.
    pub(crate) fn without_target(&self) -> usize {
        self.without_target.len()
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
        if let Some(is_set) = self.busy.get_mut(&chunk) {
            *is_set = true;
        }
        let found_no_target = self.without_target.remove(&chunk);
        if let Some(old) = self.abnormal.remove(&chunk).or_else(|| self.missing.remove(&chunk)) {
            count_need(&mut self.counts, old, -1);
            self.ready.remove(&(old, chunk));
            if let Some(end) = self.waits_for.get(&chunk).copied() {
                self.leave(end, (old, chunk));
            }
            // Its failures were those of a chunk that could wait.
            if need.is_some_and(|need| need.rank() < old.rank()) {
                self.end_rest(chunk);
                self.failures.remove(&chunk);
            }
        }
        let Some(need) = need.filter(|need| !need.needs_nothing()) else {
            self.failures.remove(&chunk);
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
        if found_no_target {
            self.without_target.insert(chunk);
        }
        count_need(&mut self.counts, need, 1);
        if !self.busy.contains_key(&chunk) && !self.rests_until.contains_key(&chunk) {
            self.enqueue(chunk, need);
        }
    }

    /// Makes room for a need by dropping one that is less urgent. Returns whether there was one.
    fn evict_for(&mut self, need: RepairNeed) -> bool {
        let is_less_urgent = |(last, _): &(RepairNeed, ChunkId)| *last > need;
        let ready = || self.ready.last().copied();
        let parked = || self.parked.values().filter_map(BTreeSet::last).max().copied();
        let resting = || {
            let longest = self.resting.iter().rev().take(RESTING_CONSIDERED);
            longest.filter_map(|(_, id)| Some((*self.abnormal.get(id)?, *id))).max()
        };
        let found = ready().filter(is_less_urgent);
        let found = found.or_else(|| parked().filter(is_less_urgent));
        let Some((last, chunk)) = found.or_else(|| resting().filter(is_less_urgent)) else {
            return false;
        };
        self.ready.remove(&(last, chunk));
        self.end_rest(chunk);
        if let Some(end) = self.waits_for.get(&chunk).copied() {
            self.leave(end, (last, chunk));
        }
        self.failures.remove(&chunk);
        self.without_target.remove(&chunk);
        self.abnormal.remove(&chunk);
        count_need(&mut self.counts, last, -1);
        count_need(&mut self.overflow[0], last, 1);
        true
    }

    /// Takes the most urgent chunk, with `sole_only` only one without a spare replica; it is busy
    /// until [`Self::finish`], [`Self::fail`] or [`Self::park`].
    pub(crate) fn take(&mut self, now: Instant, sole_only: bool) -> Option<(ChunkId, RepairNeed)> {
        let (chunk, need) = self.peek(now, sole_only)?;
        self.ready.remove(&(need, chunk));
        self.busy.insert(chunk, false);
        Some((chunk, need))
    }

    /// Returns the chunk that [`Self::take`] would take.
    pub(crate) fn peek(&mut self, now: Instant, sole_only: bool) -> Option<(ChunkId, RepairNeed)> {
        while let Some((until, chunk)) = self.resting.first().copied().filter(|(at, _)| *at <= now)
        {
            self.resting.remove(&(until, chunk));
            self.rests_until.remove(&chunk);
            if let Some(need) = self.abnormal.get(&chunk).copied() {
                self.enqueue(chunk, need);
            }
        }
        let (need, chunk) = self.ready.first().copied()?;
        (!sole_only || need.has_no_spare()).then_some((chunk, need))
    }

    /// Ends the repair of a chunk, with what it needs now, unless that was set meanwhile. If it is not
    /// nothing, it is retried after `again`.
    pub(crate) fn finish(&mut self, chunk: ChunkId, need: Option<RepairNeed>, again: Instant) {
        self.failures.remove(&chunk);
        self.without_target.remove(&chunk);
        self.rest(chunk, need, again);
    }

    /// Ends an attempt that found no node for a replica of a chunk; it is repeated after `again`.
    pub(crate) fn found_no_target(
        &mut self,
        chunk: ChunkId,
        need: Option<RepairNeed>,
        again: Instant,
    ) {
        self.finish(chunk, need, again);
        if self.abnormal.contains_key(&chunk) {
            self.without_target.insert(chunk);
        }
    }

    /// Ends a failed repair of a chunk, which is retried after a pause that grows with each failure
    /// in a row.
    pub(crate) fn fail(&mut self, chunk: ChunkId, need: Option<RepairNeed>, now: Instant) {
        let failures = self.failures.entry(chunk).or_default();
        let (first, longest) = REST;
        let rest = first.saturating_mul(1 << (*failures).min(16)).min(longest);
        *failures = failures.saturating_add(1);
        self.without_target.remove(&chunk);
        self.rest(chunk, need, now + rest);
    }

    /// Ends the repair of a chunk of which nothing else is known.
    pub(crate) fn fail_as_before(&mut self, chunk: ChunkId, now: Instant) {
        let need = self.abnormal.get(&chunk).copied();
        self.fail(chunk, need, now);
    }

    /// Ends an attempt for which a node has too many builds. The chunk waits for that node.
    pub(crate) fn park(&mut self, chunk: ChunkId, need: Option<RepairNeed>, end: BuildEnd) {
        self.without_target.remove(&chunk);
        self.end(chunk, need);
        if let Some(need) = self.abnormal.get(&chunk).copied()
            && !self.rests_until.contains_key(&chunk)
        {
            self.ready.remove(&(need, chunk));
            self.parked.entry(end).or_default().insert((need, chunk));
            self.waits_for.insert(chunk, end);
        }
    }

    /// Returns the nodes that chunks wait for.
    pub(crate) fn waited_for(&self) -> Vec<BuildEnd> {
        self.parked.keys().copied().collect()
    }

    /// Lets the most urgent of the chunks that wait for a node go on, at most `count`.
    pub(crate) fn unpark(&mut self, end: BuildEnd, count: usize) {
        for _ in 0..count {
            let first = self.parked.get(&end).and_then(BTreeSet::first).copied();
            let Some((need, chunk)) = first else { return };
            self.leave(end, (need, chunk));
            self.enqueue(chunk, need);
        }
    }

    fn leave(&mut self, end: BuildEnd, parked: (RepairNeed, ChunkId)) {
        self.waits_for.remove(&parked.1);
        if let Some(waiting) = self.parked.get_mut(&end) {
            waiting.remove(&parked);
            if waiting.is_empty() {
                self.parked.remove(&end);
            }
        }
    }

    fn rest(&mut self, chunk: ChunkId, need: Option<RepairNeed>, again: Instant) {
        self.end(chunk, need);
        if let Some(need) = self.abnormal.get(&chunk) {
            self.ready.remove(&(*need, chunk));
            self.resting.insert((again, chunk));
            self.rests_until.insert(chunk, again);
        } else {
            self.failures.remove(&chunk);
        }
    }

    /// Ends the repair of a chunk.
    fn end(&mut self, chunk: ChunkId, need: Option<RepairNeed>) {
        if self.busy.remove(&chunk) != Some(true) {
            self.set(chunk, need);
        }
    }

    fn end_rest(&mut self, chunk: ChunkId) {
        if let Some(until) = self.rests_until.remove(&chunk) {
            self.resting.remove(&(until, chunk));
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
        add(&mut counts.without_spare, u64::from(need.has_no_spare()));
    }
    add(&mut counts.bad_replicas, u64::from(need.bad));
}

#[cfg(test)]
pub(super) mod tests;
