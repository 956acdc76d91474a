//! Moves replicas that share a zone to zones without a replica of their chunk.
//!
//! The comparison of disks with the records reads every record, and counts those chunks. If it has
//! found any, all records are walked once, and again, ever more rarely, while some could not be moved.

use std::time::Duration;

use dfs_metadata::namespace::{Namespace, ScanCursor};
use dfs_types::Scope;
use dfs_workers::Next;
use tokio::time::Instant;

use super::run::{Moves, Ran};
use super::unreported::Move;
use super::{Nodes, REST, REST_FACTOR, Rebalance};
use crate::Error;
use crate::metrics::MoveReason;
use crate::workers::moves::Mover;
use crate::workers::spread::settled;

/// Pause before the records are walked again because replicas could not be moved: at least this long,
/// and as a multiple of the time that the walk took. It doubles with each walk, up to the interval of
/// the comparisons.
const RETRY_AFTER: (Duration, u32) = (Duration::from_mins(1), 20);

/// Progress over all records.
#[derive(Debug, Default)]
pub(super) struct Respread {
    /// Number of the last comparison whose result was followed.
    followed: u64,
    /// Chunks that it has found.
    crowded: u64,
    /// Those that are moved so far.
    moved: u64,
    /// `None` while nothing is to be done.
    position: Option<Position>,
    /// When the walk began.
    began: Option<Instant>,
    /// Replicas were found since then that could not be moved.
    has_left: bool,
    /// Walks before that were followed by another one.
    retries: u32,
    /// When the next walk begins.
    resume_at: Option<Instant>,
}

#[derive(Debug, Clone, Default)]
enum Position {
    #[default]
    Start,
    After(ScanCursor),
}

impl Rebalance {
    /// Takes the next step of a walk over all records. `None` when nothing is to be done.
    pub(super) async fn respread(&mut self, nodes: &Nodes) -> Result<Option<Next>, Error> {
        let (number, crowded) = self.core.background.checks.crowded().unwrap_or_default();
        if number != self.respread.followed {
            let position = (crowded > 0).then(Position::default);
            self.respread = Respread { followed: number, crowded, position, ..Respread::default() };
            self.handle.set_queued(self.respread.left());
        }
        if self.respread.resume_at.is_some_and(|at| nodes.at < at) {
            return Ok(None);
        }
        let Some(position) = self.respread.position.clone() else { return Ok(None) };
        let began = *self.respread.began.get_or_insert(nodes.at);
        let after = match &position {
            Position::Start => None,
            Position::After(cursor) => Some(cursor),
        };
        let limit = Namespace::PAGE_LEN_MAX;
        let page = self.core.namespace.scan_chunks(Scope::internal(), after, limit).await;
        let page = page.map_err(Error::metadata("reading chunk records"))?;
        let mover = Mover {
            core: self.core.clone(),
            lease: self.lease,
            handle: self.handle.clone(),
            reason: MoveReason::Zone,
        };
        let mut next = page.next;
        let mut moves = Moves::default();
        for (chunk, record) in page.chunks {
            let held = settled(&record, &nodes.cluster);
            let crowding = held.and_then(|held| nodes.places.crowding(&held));
            let Some((from, replica)) = crowding else { continue };
            let may_take = |node| !nodes.failing.contains_key(&node);
            let to = mover.in_another_zone(&record, replica, may_take);
            let Some(to) = to.filter(|_| !self.unreported.is_full(from)) else {
                self.respread.has_left = true;
                continue;
            };
            moves.add(Move { chunk, record, replica, from, to });
            if moves.is_full() {
                next = Some(ScanCursor::after(chunk));
                break;
            }
        }
        self.respread.position = next.map(Position::After);
        let mut after = Next::After(nodes.at.elapsed() * REST_FACTOR);
        if !moves.0.is_empty() {
            let ran = self.run(moves.0, MoveReason::Zone, nodes.at).await;
            self.respread.has_left |= !matches!(ran, Ok(Ran { left: 0, .. }));
            let Ran { moved, .. } = ran?;
            self.respread.moved += moved;
            after = if moved > 0 { Next::Again } else { Next::After(REST) };
        }
        if self.respread.position.is_none() && std::mem::take(&mut self.respread.has_left) {
            let pause = pause(began.elapsed(), self.respread.retries);
            let pause = pause.min(self.core.settings.reconcile_interval());
            self.respread.position = Some(Position::Start);
            self.respread.retries += 1;
            (self.respread.began, self.respread.resume_at) = (None, Some(Instant::now() + pause));
        }
        self.handle.set_queued(self.respread.left());
        Ok(Some(after))
    }
}

impl Respread {
    /// Returns the crowded chunks that were not moved yet; 0 when nothing more is to be done.
    fn left(&self) -> u64 {
        let left = self.crowded.saturating_sub(self.moved);
        if self.position.is_some() { left } else { 0 }
    }

    /// Describes the progress; `None` when nothing is to be done.
    pub(super) fn describe(&self) -> Option<String> {
        let Self { crowded, moved, .. } = self;
        self.position.as_ref()?;
        Some(format!("spreading chunks over zones: {moved} of {crowded} whose replicas share one"))
    }
}

/// Returns the pause before another walk after one that took so long.
fn pause(took: Duration, retries: u32) -> Duration {
    let (least, factor) = RETRY_AFTER;
    least.max(took * factor).saturating_mul(1 << retries.min(16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_before_another_walk_doubles() {
        let minutes = |took, retries| pause(Duration::from_mins(took), retries).as_secs() / 60;
        assert_eq!([0, 1, 2, 5].map(|retries| minutes(0, retries)), [1, 2, 4, 32]);
        assert_eq!([0, 1, 60].map(|retries| minutes(3, retries)), [60, 120, 60 << 16]);
    }
}
