//! Runs the moves of a step.

use std::time::Duration;

use dfs_types::{BUILD_WEIGHT_MAX, NodeId, build_weight, with_causes};
use dfs_workers::DELETE;
use futures_util::{StreamExt, stream};
use tokio::time::Instant;
use tracing::warn;

use super::Rebalance;
use super::unreported::Move;
use super::walk::Walk;
use crate::Error;
use crate::background::Background;
use crate::metrics::MoveReason;
use crate::workers::moves::{Moved, Mover};

/// Weight of the replicas moved per step: that of 16 large ones, or of many small ones.
const BATCH: u32 = 16 * BUILD_WEIGHT_MAX;
/// Weight of those of them to one node.
const BATCH_PER_NODE: u32 = 4 * BUILD_WEIGHT_MAX;
/// Age of a step after which no further move begins: nodes have changed since.
const STEP_AGE_MAX: Duration = Duration::from_mins(1);

/// Outcome of some moves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ran {
    pub(super) moved: u64,
    /// Moves that failed, or were not begun.
    pub(super) left: u64,
}

/// Moves of one step.
#[derive(Default)]
pub(super) struct Moves(pub(super) Vec<Move>);

impl Moves {
    pub(super) fn is_full(&self) -> bool {
        self.weight(|_| true) >= BATCH
    }

    /// Returns whether another one may go to a node.
    pub(super) fn has_room(&self, to: NodeId) -> bool {
        self.weight(|one| one.to == to) < BATCH_PER_NODE
    }

    fn weight(&self, of: impl Fn(&&Move) -> bool) -> u32 {
        self.0.iter().filter(of).map(|one| build_weight(one.record.seal.length)).sum()
    }

    pub(super) fn add(&mut self, one: Move) {
        self.0.push(one);
    }
}

impl Rebalance {
    /// Runs moves that were chosen at that time. Fails only if none was made.
    pub(super) async fn run(
        &mut self,
        moves: Vec<Move>,
        reason: MoveReason,
        chosen: Instant,
    ) -> Result<Ran, Error> {
        let (core, lease, handle) = (&self.core, self.lease, &self.handle);
        let mover = Mover { core: core.clone(), lease, handle: handle.clone(), reason };
        let (mover, concurrency) = (&mover, core.settings.repair_concurrency);
        let runs = stream::iter(moves.into_iter().enumerate()).map(|(nth, one)| async move {
            if nth > 0 && chosen.elapsed() > STEP_AGE_MAX {
                return (one, Ok(Moved::NoTarget));
            }
            let may_take = || {
                let (background, now) = (&mover.core.background, Instant::now());
                // Others would keep the whole step waiting.
                let is_failing = background.builds.failing(now).contains_key(&one.to);
                !is_failing && has_precedence(background, now).is_none()
            };
            let target = || (mover.is_open(one.to, &one.record) && may_take()).then_some(one.to);
            let moved = mover.run(one.chunk, &one.record, one.replica, target).await;
            (one, moved)
        });
        let mut runs = runs.buffer_unordered(concurrency);
        let (mut ran, mut failure) = (Ran::default(), None);
        while let Some((one, moved)) = runs.next().await {
            match moved {
                Ok(Moved::Done) => {
                    ran.moved += 1;
                    self.unreported.add(&one, Instant::now());
                    self.walks.get_mut(&one.from).into_iter().for_each(Walk::wake);
                }
                Ok(Moved::Failed) => {
                    ran.left += 1;
                    self.handle.add_failed(1);
                }
                Ok(Moved::NoTarget) => ran.left += 1,
                Ok(Moved::NotNamed) => {}
                Err(error) => {
                    let chunk = one.chunk;
                    warn!(%chunk, error = with_causes(&error), "a replica could not be moved");
                    ran.left += 1;
                    self.handle.add_failed(1);
                    failure = Some(error);
                }
            }
        }
        match failure {
            Some(error) if ran.moved == 0 => Err(error),
            _ => Ok(ran),
        }
    }
}

/// Returns the other work before which no move begins, if there is any.
pub(super) fn has_precedence(background: &Background, now: Instant) -> Option<&'static str> {
    if background.workers.of(&DELETE).pause_left().is_some() {
        return Some(
            "waiting until deletion is no longer paused, as moves free no space until then; \
             `dfs worker resume delete` ends the pause",
        );
    }
    if background.is_repairing() {
        return Some("waiting until repair is done");
    }
    background.is_draining(now).then_some("waiting until drain is done")
}
