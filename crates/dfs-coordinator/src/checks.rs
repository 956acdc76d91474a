//! Comparisons of disks with records: requested, in progress, and done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_types::{ChunkId, InodeId};
use tokio::time::Instant;

/// Requests waiting at most.
const WAITING_MAX: usize = 64;
/// Finished requests remembered.
const DONE_MAX: usize = 64;

/// What one comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CheckReport {
    /// Chunk records read.
    pub(crate) records: u64,
    /// Ranges of disks that could not be compared: their nodes did not answer, or they were not in
    /// service throughout.
    pub(crate) skipped: u64,
    /// Replicas that records named and disks do not hold.
    pub(crate) gone: u64,
    /// Replicas recorded as gone that disks hold again.
    pub(crate) back: u64,
    /// Replicas without a record, and their bytes.
    pub(crate) orphans: u64,
    pub(crate) orphan_bytes: u64,
    /// Orphans that were deleted.
    pub(crate) deleted_orphans: u64,
    /// Replicas that their records do not name, and that their chunks do not lack.
    pub(crate) surplus: u64,
    /// Surplus replicas that were deleted.
    pub(crate) deleted_surplus: u64,
    /// Replicas that their chunks lacked, and that were adopted.
    pub(crate) adopted: u64,
    /// Chunks that are missing or have bad or too few replicas, the first of them.
    pub(crate) damaged: BTreeMap<ChunkId, DamagedChunk>,
    /// Chunks without a readable replica.
    pub(crate) missing_chunks: u64,
    /// Chunks with bad or too few replicas, but at least one.
    pub(crate) degraded_chunks: u64,
    /// Chunks with replicas that share a zone although another one has room.
    pub(crate) crowded: u64,
}

/// A chunk that lacks replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DamagedChunk {
    /// The file whose upload wrote it.
    pub(crate) inode: InodeId,
    /// No replica can be reached.
    pub(crate) is_missing: bool,
    /// Nor does any disk hold one, in service or not: all of them had been recorded as gone, or
    /// were on removed nodes, when the comparison began, which adopts what is left of them.
    pub(crate) is_lost: bool,
}

impl CheckReport {
    /// Damaged chunks listed at most.
    pub(crate) const DAMAGED_MAX: usize = 10_000;

    /// Returns whether every range of every disk was compared.
    pub(crate) fn is_whole(&self) -> bool {
        self.skipped == 0
    }

    /// Returns the number of replicas that were deleted.
    pub(crate) fn deleted(&self) -> u64 {
        self.deleted_orphans + self.deleted_surplus
    }

    /// Records the current state of a chunk: `None` if it is not damaged.
    pub(crate) fn set_damage(&mut self, chunk: ChunkId, damage: Option<DamagedChunk>) {
        if let Some(known) = self.damaged.remove(&chunk) {
            *self.count_of(known) -= 1;
        } else if self.damaged.len() >= Self::DAMAGED_MAX {
            // Only counted, when first seen.
            return;
        }
        if let Some(damage) = damage {
            *self.count_of(damage) += 1;
            self.damaged.insert(chunk, damage);
        }
    }

    /// Counts a damaged chunk seen for the first time.
    pub(crate) fn add_damage(&mut self, chunk: ChunkId, damage: DamagedChunk) {
        *self.count_of(damage) += 1;
        if self.damaged.len() < Self::DAMAGED_MAX {
            self.damaged.insert(chunk, damage);
        }
    }

    fn count_of(&mut self, damage: DamagedChunk) -> &mut u64 {
        if damage.is_missing { &mut self.missing_chunks } else { &mut self.degraded_chunks }
    }
}

/// State of the comparison of disks with records.
#[derive(Debug, Default)]
pub(crate) struct Checks(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Requests that no comparison serves yet.
    waiting: BTreeSet<u64>,
    running: Option<Running>,
    /// Served requests, oldest first.
    done: VecDeque<(u64, Arc<CheckReport>)>,
    /// The last whole comparison.
    last_whole: Option<(Instant, Arc<CheckReport>)>,
    /// Number of finished comparisons, and the crowded chunks that the last one found.
    crowded: (u64, u64),
}

#[derive(Debug, Default)]
struct Running {
    /// The requests that it serves: those that came before it began.
    serves: BTreeSet<u64>,
    report: Arc<CheckReport>,
}

/// State of one request.
#[derive(Debug, Clone)]
pub(crate) enum CheckState {
    /// No comparison has begun for it yet.
    Waiting,
    /// In progress.
    Running(Arc<CheckReport>),
    /// Done.
    Done(Arc<CheckReport>),
}

/// Overview for status and metrics.
#[derive(Debug, Clone)]
pub(crate) struct CheckOverview {
    /// Records read by the comparison in progress; `None` when there is none.
    pub(crate) progress: Option<u64>,
    /// Time since the end of the last whole comparison.
    pub(crate) last_whole: Option<Duration>,
    /// What it found.
    pub(crate) report: Arc<CheckReport>,
}

impl Checks {
    /// Adds a request, unless too many are waiting.
    pub(crate) fn request(&self, id: u64) -> bool {
        let mut state = crate::lock(&self.0);
        state.waiting.len() < WAITING_MAX && state.waiting.insert(id)
    }

    /// Returns whether a request is waiting.
    pub(crate) fn is_requested(&self) -> bool {
        !crate::lock(&self.0).waiting.is_empty()
    }

    /// Returns the state of a request; `None` for one that is not known here.
    pub(crate) fn state(&self, id: u64) -> Option<CheckState> {
        let state = crate::lock(&self.0);
        if let Some((_, report)) = state.done.iter().find(|(done, _)| *done == id) {
            return Some(CheckState::Done(report.clone()));
        }
        if state.waiting.contains(&id) {
            return Some(CheckState::Waiting);
        }
        let running = state.running.as_ref().filter(|running| running.serves.contains(&id))?;
        Some(CheckState::Running(running.report.clone()))
    }

    /// Begins a comparison, which serves all waiting requests, and those of an interrupted one.
    pub(crate) fn begin(&self) {
        let mut state = crate::lock(&self.0);
        let mut serves = std::mem::take(&mut state.waiting);
        if let Some(interrupted) = state.running.take() {
            serves.extend(interrupted.serves);
        }
        state.running = Some(Running { serves, report: Arc::default() });
    }

    /// Publishes the progress of the comparison.
    pub(crate) fn set_progress(&self, report: &CheckReport) {
        if let Some(running) = &mut crate::lock(&self.0).running {
            running.report = Arc::new(report.clone());
        }
    }

    /// Ends the comparison.
    pub(crate) fn finish(&self, report: CheckReport, now: Instant) {
        let mut state = crate::lock(&self.0);
        let report = Arc::new(report);
        state.crowded = (state.crowded.0 + 1, report.crowded);
        let serves = state.running.take().map(|running| running.serves).unwrap_or_default();
        for id in serves {
            if state.done.len() >= DONE_MAX {
                state.done.pop_front();
            }
            state.done.push_back((id, report.clone()));
        }
        if report.is_whole() {
            state.last_whole = Some((now, report));
        }
    }

    /// Returns the number of finished comparisons, and the chunks whose replicas share a zone for no
    /// need, as the last one found; `None` before the first.
    pub(crate) fn crowded(&self) -> Option<(u64, u64)> {
        Some(crate::lock(&self.0).crowded).filter(|(finished, _)| *finished > 0)
    }

    /// Returns the overview.
    pub(crate) fn overview(&self, now: Instant) -> CheckOverview {
        let state = crate::lock(&self.0);
        let last = state.last_whole.as_ref();
        CheckOverview {
            progress: state.running.as_ref().map(|running| running.report.records),
            last_whole: last.map(|(at, _)| now.saturating_duration_since(*at)),
            report: last.map(|(_, report)| report.clone()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn request_is_served_by_a_comparison_that_begins_after_it() {
        let checks = Checks::default();
        assert!(checks.request(1) && checks.is_requested());
        checks.begin();
        assert!(checks.request(2));
        assert!(matches!(checks.state(1), Some(CheckState::Running(_))));
        checks.finish(CheckReport { records: 5, ..CheckReport::default() }, Instant::now());
        let done = checks.state(1);
        assert!(matches!(&done, Some(CheckState::Done(report)) if report.records == 5), "{done:?}");
        assert!(matches!(checks.state(2), Some(CheckState::Waiting)));
        // An interrupted one is served by the next.
        checks.begin();
        checks.begin();
        assert!(matches!(checks.state(2), Some(CheckState::Running(_))));
        assert!(checks.state(3).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_bounded_and_only_whole_comparisons_count() {
        let checks = Checks::default();
        assert!((0..100).filter(|id| checks.request(*id)).count() == WAITING_MAX);
        checks.begin();
        checks.finish(CheckReport { skipped: 1, ..CheckReport::default() }, Instant::now());
        assert_eq!(checks.overview(Instant::now()).last_whole, None);
    }

    #[test]
    fn chunk_is_counted_once_by_its_last_state() {
        let mut report = CheckReport::default();
        let damage = |is_missing| DamagedChunk { inode: InodeId(1), is_missing, is_lost: false };
        let counts = |report: &CheckReport| (report.missing_chunks, report.degraded_chunks);
        report.add_damage(ChunkId(1), damage(true));
        report.set_damage(ChunkId(1), Some(damage(false)));
        assert_eq!(counts(&report), (0, 1));
        report.set_damage(ChunkId(1), None);
        report.set_damage(ChunkId(2), None);
        assert_eq!((counts(&report), report.damaged.len()), ((0, 0), 0));
    }
}
