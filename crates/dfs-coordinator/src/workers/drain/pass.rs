//! One pass over the list of a node.

use std::fmt::Write as _;

use dfs_metadata::namespace::NodeVersion;
use dfs_types::{ChunkId, counted};
use tokio::time::Instant;

use crate::workers::moves::Moved;

/// Heartbeats that must follow the end of a pass: the first one may have been composed before it.
const HEARTBEATS: u8 = 2;

/// Progress of emptying a node or a disk.
#[derive(Debug)]
pub(super) struct Pass {
    /// Since when this worker has known that it is to be emptied.
    pub(super) since: Instant,
    /// The record of the node before the pass; `None` between passes.
    pub(super) version: Option<NodeVersion>,
    /// The last chunk listed.
    pub(super) after: Option<ChunkId>,
    /// When to take the next step.
    pub(super) resume_at: Instant,
    /// Set when the pass has found nothing, until heartbeats confirm it.
    empty: Option<Empty>,
    found: Found,
    /// Result of the last whole pass.
    last: Found,
    /// Why the last pass could not show that nothing is left.
    obstacle: Option<String>,
    /// Replicas moved so far.
    moved: u64,
}

/// A pass that found nothing.
#[derive(Debug, Clone, Copy)]
struct Empty {
    /// Its end, or the last heartbeat since.
    last: Instant,
    heartbeats: u8,
}

/// Replicas of a pass, by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Found {
    moved: u64,
    /// Replicas that no record names as good: waiting for deletion, repair or garbage collection.
    unnamed: u64,
    without_target: u64,
    failed: u64,
}

impl Found {
    fn left(self) -> u64 {
        self.unnamed + self.without_target + self.failed
    }
}

impl Pass {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            version: None,
            after: None,
            resume_at: now,
            empty: None,
            found: Found::default(),
            last: Found::default(),
            obstacle: None,
            moved: 0,
        }
    }

    /// Begins a pass, with the record of the node before it.
    pub(super) fn begin(&mut self, version: NodeVersion) {
        self.version = Some(version);
        self.after = None;
        self.empty = None;
        self.found = Found::default();
    }

    pub(super) fn note(&mut self, moved: Moved) {
        match moved {
            Moved::Done => {
                self.found.moved += 1;
                self.moved += 1;
            }
            Moved::NotNamed => self.found.unnamed += 1,
            Moved::NoTarget => self.found.without_target += 1,
            Moved::Failed => self.found.failed += 1,
        }
    }

    pub(super) fn note_unnamed(&mut self) {
        self.found.unnamed += 1;
    }

    /// Ends the list. The next pass follows after `short`, or after `long` if replicas could not be
    /// moved; a pass that found nothing waits for heartbeats that [confirm](Self::is_confirmed) it.
    pub(super) fn end(&mut self, now: Instant, short: Instant, long: Instant) {
        self.last = self.found;
        if self.found == Found::default() {
            self.empty = Some(Empty { last: now, heartbeats: 0 });
            return;
        }
        let could_not_move = self.last.without_target + self.last.failed > 0;
        self.wait(None, if could_not_move { long } else { short });
    }

    /// Returns whether it has found nothing, and is not confirmed yet.
    pub(super) fn is_empty(&self) -> bool {
        self.empty.is_some()
    }

    /// Takes the time of the last heartbeat. Returns whether enough of them have followed the end of
    /// a pass that found nothing: the last one was then composed after it.
    pub(super) fn is_confirmed(&mut self, heard: Instant) -> bool {
        let Some(empty) = &mut self.empty else { return false };
        if heard > empty.last {
            *empty = Empty { last: heard, heartbeats: empty.heartbeats + 1 };
        }
        empty.heartbeats >= HEARTBEATS
    }

    /// Ends a pass, or gives it up for now.
    pub(super) fn wait(&mut self, why: Option<String>, until: Instant) {
        self.obstacle = why;
        self.version = None;
        self.after = None;
        self.empty = None;
        self.resume_at = until;
    }

    /// Returns how many replicas the last pass left behind.
    pub(super) fn waiting(&self) -> u64 {
        self.last.left()
    }

    /// Describes what was done, and what it waits for.
    pub(super) fn describe(&self) -> String {
        let mut text = format!("{} moved", counted(self.moved, "replica"));
        let Found { unnamed, without_target, failed, .. } = self.last;
        if without_target > 0 {
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                ", {without_target} cannot be placed on another node: add datanodes, lower the \
                 replication factor, or take it back"
            );
        }
        if failed > 0 {
            let _ = write!(text, ", {failed} failed and will be retried");
        }
        if unnamed > 0 {
            let _ = write!(text, ", {unnamed} waiting for deletion, repair or garbage collection");
        }
        if let Some(obstacle) = &self.obstacle {
            let _ = write!(text, ", {obstacle}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn replicas_without_a_target_are_explained() {
        let now = Instant::now();
        let mut pass = Pass::new(now);
        for moved in [Moved::Done, Moved::NoTarget, Moved::NoTarget, Moved::NotNamed] {
            pass.note(moved);
        }
        pass.end(now, now, now);
        assert!(!pass.is_empty());
        let text = pass.describe();
        assert!(text.contains("1 replica moved, 2 cannot be placed on another node"), "{text}");
        assert_eq!(pass.waiting(), 3);
    }

    #[test]
    fn empty_list_is_confirmed_by_a_heartbeat_composed_after_it() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut pass = Pass::new(now);
        pass.end(at(10), at(11), at(12));
        for (heard, is_confirmed) in [(9, false), (10, false), (11, false), (11, false), (12, true)]
        {
            assert_eq!(pass.is_confirmed(at(heard)), is_confirmed, "{heard}");
        }
    }
}
