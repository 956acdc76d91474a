//! Recent changes of a store within one process, for its watches.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use dfs_types::Revision;
use tokio::sync::watch;

use crate::engine::{Change, EngineError, Watch};

/// Maximum number of changes kept.
const CHANGES_MAX: usize = 8192;
/// Maximum number of bytes of keys and values kept.
const BYTES_MAX: usize = 2 << 20;

/// The latest changes, bounded in number and bytes. A cheap handle; clones share the log.
///
/// The store records changes in commit order, and only once they are durable.
#[derive(Debug, Clone)]
pub struct ChangeLog {
    ring: Arc<Mutex<Ring>>,
    /// Number of changes ever recorded; wakes the watches.
    recorded: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
struct Ring {
    changes: VecDeque<Change>,
    /// Number of the first entry of `changes` among all ever recorded.
    first: u64,
    bytes: usize,
    /// All changes with greater revisions are still kept.
    complete_after: Revision,
}

impl ChangeLog {
    /// Creates a log that starts at `current`, the revision of the store, without earlier changes.
    pub fn new(current: Revision) -> Self {
        let ring = Ring { changes: VecDeque::new(), first: 0, bytes: 0, complete_after: current };
        Self { ring: Arc::new(Mutex::new(ring)), recorded: Arc::new(watch::Sender::new(0)) }
    }

    /// Appends changes of commits after all recorded ones and wakes the watches.
    pub fn record(&self, changes: impl IntoIterator<Item = Change>) {
        let recorded = {
            let mut ring = lock(&self.ring);
            changes.into_iter().for_each(|change| ring.push(change));
            ring.end()
        };
        self.recorded.send_replace(recorded);
    }

    /// Drops all changes, because those up to `current` were not recorded. Watches begun before get
    /// [`EngineError::Compacted`].
    pub fn restart(&self, current: Revision) {
        let recorded = {
            let mut ring = lock(&self.ring);
            ring.first = ring.end() + 1;
            ring.changes.clear();
            ring.bytes = 0;
            ring.complete_after = current;
            ring.end()
        };
        self.recorded.send_replace(recorded);
    }

    /// Watches keys that start with `prefix` for revisions greater than `from`. The watch ends with
    /// [`EngineError::Unavailable`] when the last handle of the log is dropped.
    pub fn watch(&self, prefix: Bytes, from: Revision) -> Result<Box<dyn Watch>, EngineError> {
        let ring = lock(&self.ring);
        if from < ring.complete_after {
            return Err(EngineError::Compacted(from));
        }
        let older = ring.changes.partition_point(|change| change.revision <= from);
        Ok(Box::new(LogWatch {
            prefix,
            from,
            seen: from,
            next: ring.first + older as u64,
            ring: self.ring.clone(),
            recorded: self.recorded.subscribe(),
        }))
    }
}

impl Ring {
    fn push(&mut self, change: Change) {
        self.bytes += weight(&change);
        self.changes.push_back(change);
        while self.changes.len() > CHANGES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.bytes -= weight(&oldest);
            self.first += 1;
            self.complete_after = oldest.revision;
        }
    }

    fn end(&self) -> u64 {
        self.first + self.changes.len() as u64
    }
}

fn weight(change: &Change) -> usize {
    change.key.len() + change.value.as_ref().map_or(0, Bytes::len)
}

fn lock(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

struct LogWatch {
    prefix: Bytes,
    /// Only greater revisions are reported.
    from: Revision,
    /// Revision of the last change considered.
    seen: Revision,
    /// Number of the next change to consider.
    next: u64,
    ring: Arc<Mutex<Ring>>,
    recorded: watch::Receiver<u64>,
}

impl LogWatch {
    /// Returns the next recorded change under the prefix, if any.
    fn advance(&mut self) -> Result<Option<Change>, EngineError> {
        let ring = lock(&self.ring);
        let Some(skip) = self.next.checked_sub(ring.first) else {
            return Err(EngineError::Compacted(self.seen));
        };
        for change in ring.changes.range((skip as usize).min(ring.changes.len())..) {
            self.next += 1;
            self.seen = change.revision;
            if change.revision > self.from && change.key.starts_with(&self.prefix) {
                return Ok(Some(change.clone()));
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl Watch for LogWatch {
    async fn next(&mut self) -> Result<Change, EngineError> {
        loop {
            self.recorded.borrow_and_update();
            if let Some(change) = self.advance()? {
                return Ok(change);
            }
            if self.recorded.changed().await.is_err() {
                return Err(EngineError::Unavailable("the store was closed".to_owned()));
            }
        }
    }
}
