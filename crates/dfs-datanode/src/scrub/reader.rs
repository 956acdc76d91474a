//! Reads the replicas of one disk, pass after pass.

use std::sync::Arc;
use std::time::Duration;

use dfs_chunkstore::{DiskUsage, ScrubProgress, SealedChunk, StoreError};
use dfs_types::{ChunkId, DiskId, DiskScrub, DiskState, ReplicaCondition, WholePass};
use dfs_workers::{Control, Handle};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::pace::Pace;
use super::schedule::{Left, gap, pass_time};
use crate::Error;
use crate::node::Node;

/// Longest wait before the disk, the replicas on it and the time are checked again.
const CHECK_EVERY: Duration = Duration::from_mins(1);
/// Time between two writes of the progress, at least.
const SAVE_EVERY: Duration = Duration::from_mins(1);
/// Time between two counts of what is left.
const COUNT_EVERY: Duration = Duration::from_hours(1);
/// Replicas listed to find the next one.
const NEXT_STEP: usize = 64;
/// Replicas listed at once to count what is left.
const COUNT_STEP: usize = 1_000;

/// The reader of one disk.
pub(super) struct Reader {
    node: Arc<Node>,
    handle: Arc<Handle>,
    disk: DiskId,
    /// `None` until it was read from the disk.
    progress: Option<ScrubProgress>,
    /// `None` until it was counted.
    left: Option<(Left, Instant)>,
    pace: Pace,
    control: watch::Receiver<Control>,
    /// Length of the last replica, and when its reading began.
    last_read: Option<(u64, Instant)>,
    /// Up to when the time of the pass is counted.
    counted_to: Instant,
    saved: Instant,
    is_unsaved: bool,
}

impl Reader {
    pub(super) fn new(node: &Arc<Node>, handle: &Arc<Handle>, disk: DiskId) -> Self {
        let now = Instant::now();
        Self {
            node: Arc::clone(node),
            handle: Arc::clone(handle),
            disk,
            progress: None,
            left: None,
            pace: Pace::new(handle),
            control: handle.watch_control(),
            last_read: None,
            counted_to: now,
            saved: now,
            is_unsaved: false,
        }
    }

    /// Reads one replica, or waits for the time to do so. Returns itself for the next one.
    pub(super) async fn advance(mut self) -> Self {
        let wait = match self.read_next().await {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(disk = %self.disk, %error, "cannot scrub a disk");
                self.handle.add_failed(1);
                CHECK_EVERY
            }
        };
        let requested = requested(&mut self.control, self.progress);
        drop(timeout(wait.min(CHECK_EVERY), requested).await);
        self
    }

    /// Reads the next replica, if it is time. Returns how long to wait afterwards.
    async fn read_next(&mut self) -> Result<Duration, StoreError> {
        let Some(state) = self.state() else { return Ok(CHECK_EVERY) };
        self.pace.set_slow(state == DiskState::Slow);
        let mut progress = match self.progress {
            Some(progress) => progress,
            None => self.node.store.scrub_progress(self.disk).await?,
        };
        let now = Instant::now();
        let spent = now.duration_since(std::mem::replace(&mut self.counted_to, now));
        progress.spent_ms = progress.spent_ms.saturating_add(spent.as_millis() as u64);
        let request = self.control.borrow().request;
        if request > progress.request {
            let last = progress.last;
            progress = ScrubProgress { request, is_requested: true, last, ..Default::default() };
            self.left = None;
            self.save(progress).await;
        }
        self.progress = Some(progress);
        let next = self.next(progress.after).await?;
        let left = self.count(&progress, next).await?;
        let ScrubProgress { replicas, errors, last, .. } = progress;
        let Left { replicas: left_replicas, bytes: left_bytes } = left;
        let every = self.node.settings.scrub_every();
        let shown = DiskScrub { last, replicas, errors, left_replicas, left_bytes, every };
        self.node.scrub.show(self.disk, shown);
        let Some(replica) = next else { return self.end_pass(progress).await };
        let wait = self.time_to_next(&progress, left);
        if !wait.is_zero() {
            return Ok(wait);
        }
        self.read(progress, replica).await
    }

    /// Returns the state of the disk; `None` if it cannot be read. One that is returning or retiring
    /// is read like others: its replicas count until they are gone.
    fn state(&self) -> Option<DiskState> {
        let is_it = |usage: &DiskUsage| usage.disk == self.disk;
        let state = self.node.store.usage().into_iter().find(is_it)?.state;
        state.is_in_service().then_some(state)
    }

    /// Returns the replica on the disk that follows this chunk.
    async fn next(&self, mut after: Option<ChunkId>) -> Result<Option<SealedChunk>, StoreError> {
        loop {
            let page = self.node.store.list(after, NEXT_STEP).await?;
            if let Some(found) = page.iter().find(|replica| replica.disk == self.disk) {
                return Ok(Some(*found));
            }
            match page.last() {
                Some(last) => after = Some(last.chunk),
                None => return Ok(None),
            }
            tokio::task::yield_now().await;
        }
    }

    /// Returns what is left to read, counted again from time to time, and when there is more than was
    /// counted.
    async fn count(
        &mut self,
        progress: &ScrubProgress,
        next: Option<SealedChunk>,
    ) -> Result<Left, StoreError> {
        let includes_next = |left: Left| next.is_none_or(|next| left.includes(next.length));
        if let Some((left, at)) = self.left
            && at.elapsed() < COUNT_EVERY
            && includes_next(left)
        {
            return Ok(left);
        }
        let (mut left, mut after) = (Left::default(), progress.after);
        loop {
            let page = self.node.store.list(after, COUNT_STEP).await?;
            let here = page.iter().filter(|replica| replica.disk == self.disk);
            here.for_each(|replica| left.add(replica.length));
            match page.last() {
                Some(last) => after = Some(last.chunk),
                None => break,
            }
            tokio::task::yield_now().await;
        }
        self.left = Some((left, Instant::now()));
        Ok(left)
    }

    /// Returns the time until the next replica is due.
    fn time_to_next(&self, progress: &ScrubProgress, left: Left) -> Duration {
        if progress.is_requested {
            return Duration::ZERO;
        }
        let Some(every) = self.node.settings.scrub_every() else { return CHECK_EVERY };
        let Some((length, began)) = self.last_read else { return Duration::ZERO };
        let spent = Duration::from_millis(progress.spent_ms);
        let whole = Left {
            replicas: left.replicas.saturating_add(progress.replicas),
            bytes: left.bytes.saturating_add(progress.bytes),
        };
        gap(length, left, whole, spent, every).saturating_sub(began.elapsed())
    }

    /// Reads a replica, unless everything is requested meanwhile, and records the result.
    async fn read(
        &mut self,
        mut progress: ScrubProgress,
        replica: SealedChunk,
    ) -> Result<Duration, StoreError> {
        let length = replica.length;
        self.last_read = Some((length, Instant::now()));
        let verified = tokio::select! {
            biased;
            () = requested(&mut self.control, Some(progress)) => None,
            verified = self.node.verify_at(replica, &self.pace) => Some(verified),
        };
        self.pace.end_read();
        let Some(verified) = verified else { return Ok(Duration::ZERO) };
        let is_good = match verified {
            Ok(verdict) => verdict.condition == ReplicaCondition::Sound,
            // It was deleted meanwhile.
            Err(Error::Store(StoreError::NotFound(_))) => true,
            // That concerns the disk.
            Err(
                Error::Store(StoreError::Hung { .. } | StoreError::Closed)
                | Error::DiskOutOfService { .. },
            ) => return Ok(CHECK_EVERY),
            Err(error) => {
                let (chunk, disk) = (replica.chunk, self.disk);
                tracing::warn!(%chunk, %disk, %error, "the scrub cannot read a replica");
                false
            }
        };
        self.node.counts.scrub_bytes.add(length);
        self.handle.add_done(1);
        if !is_good {
            self.node.counts.scrub_errors.increment();
            self.handle.add_failed(1);
            progress.errors += 1;
        }
        progress.replicas += 1;
        progress.bytes += length;
        progress.after = Some(replica.chunk);
        if let Some((left, _)) = &mut self.left {
            left.subtract(length);
        }
        self.progress = Some(progress);
        self.is_unsaved = true;
        if self.saved.elapsed() >= SAVE_EVERY {
            self.save(progress).await;
        }
        Ok(Duration::ZERO)
    }

    /// Ends a pass that has read everything, unless more may be written in its time.
    async fn end_pass(&mut self, mut progress: ScrubProgress) -> Result<Duration, StoreError> {
        let spent = Duration::from_millis(progress.spent_ms);
        let rest = match self.node.settings.scrub_every() {
            _ if progress.is_requested => Duration::ZERO,
            Some(every) => pass_time(every).saturating_sub(spent),
            None => CHECK_EVERY,
        };
        if !rest.is_zero() {
            if self.is_unsaved {
                self.save(progress).await;
            }
            return Ok(rest);
        }
        let Some(end) = self.node.clocks.latest() else { return Ok(CHECK_EVERY) };
        let ScrubProgress { request, bytes, errors, .. } = progress;
        let last = Some(WholePass { end, bytes, errors });
        tracing::info!(disk = %self.disk, bytes, errors, "every replica on a disk was read");
        progress = ScrubProgress { request, last, ..ScrubProgress::default() };
        self.progress = Some(progress);
        self.left = None;
        self.save(progress).await;
        Ok(Duration::ZERO)
    }

    /// Writes the progress to the disk. If that fails, a restart reads again what was read since
    /// the last time.
    async fn save(&mut self, progress: ScrubProgress) {
        self.saved = Instant::now();
        match self.node.store.store_scrub_progress(self.disk, progress).await {
            Ok(()) => self.is_unsaved = false,
            Err(error) => {
                tracing::warn!(disk = %self.disk, %error, "cannot store how far the scrub is");
            }
        }
    }
}

/// Waits for a request that is not followed yet.
async fn requested(control: &mut watch::Receiver<Control>, progress: Option<ScrubProgress>) {
    let followed = progress.map_or(u64::MAX, |progress| progress.request);
    // The sender lives as long as the node.
    drop(control.wait_for(|control| control.request > followed).await);
}
