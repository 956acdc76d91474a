//! Moves replicas that share a zone to zones without a replica of their chunk.
//!
//! The comparison of disks with the records reads every record, and counts those chunks. If it has
//! found any, all records are walked once.

use std::time::Duration;

use dfs_metadata::namespace::{Namespace, ScanCursor};
use dfs_types::Scope;
use dfs_workers::Next;
use tokio::time::Instant;

use super::unreported::Move;
use super::{Moves, Nodes, REST_FACTOR, Rebalance};
use crate::Error;
use crate::metrics::MoveReason;
use crate::workers::moves::Mover;
use crate::workers::spread::settled;

/// Pause before the records are walked again because moves have failed: at least this long, and as
/// a multiple of the time that the walk took.
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
    /// Moves have failed since then.
    has_failed: bool,
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
        let (number, crowded) = self.core.background.checks.crowded();
        if number != self.respread.followed {
            let position = (crowded > 0).then(Position::default);
            self.respread = Respread { followed: number, crowded, position, ..Respread::default() };
        }
        if self.respread.resume_at.is_some_and(|at| nodes.at < at) {
            return Ok(None);
        }
        let Some(position) = self.respread.position.clone() else { return Ok(None) };
        if self.unreported.is_full() {
            return Ok(None);
        }
        self.describe_respread();
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
            let Some(to) = mover.in_another_zone(&record, replica) else { continue };
            moves.add(Move { chunk, record, replica, from, to });
            if moves.is_full() {
                next = Some(ScanCursor::after(chunk));
                break;
            }
        }
        self.respread.position = next.map(Position::After);
        let mut after = Next::After(nodes.at.elapsed() * REST_FACTOR);
        if !moves.0.is_empty() {
            let before = (self.handle.done(), self.handle.failed());
            after = self.run(moves.0, MoveReason::Zone).await?;
            self.respread.moved += self.handle.done() - before.0;
            self.respread.has_failed |= self.handle.failed() > before.1;
        }
        if self.respread.position.is_none() && std::mem::take(&mut self.respread.has_failed) {
            let (least, factor) = RETRY_AFTER;
            let resume_at = Instant::now() + least.max(began.elapsed() * factor);
            self.respread.position = Some(Position::Start);
            (self.respread.began, self.respread.resume_at) = (None, Some(resume_at));
        }
        Ok(Some(after))
    }

    fn describe_respread(&self) {
        let Respread { crowded, moved, .. } = self.respread;
        self.handle.set_queued(crowded.saturating_sub(moved));
        self.handle.set_detail(format!(
            "spreading chunks over zones: {moved} of {crowded} whose replicas share one"
        ));
    }
}
