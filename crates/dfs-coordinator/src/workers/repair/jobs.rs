//! Tasks that each work on one chunk.

use std::collections::HashMap;

use dfs_types::ChunkId;
use tokio::task::{Id, JoinSet};
use tracing::error;

/// Tasks by chunk. A task that panics ends like any other, so that it neither occupies a place nor
/// stops the others. All are aborted when this is dropped.
#[derive(Debug)]
pub(super) struct Jobs<T> {
    tasks: JoinSet<T>,
    chunks: HashMap<Id, ChunkId>,
}

impl<T: Send + 'static> Jobs<T> {
    pub(super) fn new() -> Self {
        Self { tasks: JoinSet::new(), chunks: HashMap::new() }
    }

    /// Returns how many have not been taken from here yet.
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn spawn(&mut self, chunk: ChunkId, task: impl Future<Output = T> + Send + 'static) {
        let handle = self.tasks.spawn(task);
        self.chunks.insert(handle.id(), chunk);
    }

    /// Waits for the end of a task, and returns its chunk and its result, which is `None` if it
    /// panicked. Returns `None` when there is no task. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<(ChunkId, Option<T>)> {
        let ended = self.tasks.join_next_with_id().await?;
        self.take(ended)
    }

    /// Returns what [`Self::next`] would return without waiting.
    pub(super) fn try_next(&mut self) -> Option<(ChunkId, Option<T>)> {
        let ended = self.tasks.try_join_next_with_id()?;
        self.take(ended)
    }

    fn take(
        &mut self,
        ended: Result<(Id, T), tokio::task::JoinError>,
    ) -> Option<(ChunkId, Option<T>)> {
        let (id, result) = match ended {
            Ok((id, result)) => (id, Some(result)),
            // Nothing aborts a task, so it panicked.
            Err(failure) => (failure.id(), None),
        };
        let chunk = self.chunks.remove(&id)?;
        if result.is_none() {
            error!(%chunk, "the repair of a chunk panicked");
        }
        Some((chunk, result))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panic_of_a_task_frees_its_place_and_names_its_chunk() {
        let mut jobs = Jobs::new();
        jobs.spawn(ChunkId(1), async { panic!("planned") });
        assert_eq!((jobs.next().await, jobs.len()), (Some((ChunkId(1), None)), 0));
        jobs.spawn(ChunkId(1), async { 7 });
        assert_eq!(jobs.next().await, Some((ChunkId(1), Some(7))));
        assert_eq!((jobs.next().await, jobs.try_next(), jobs.chunks.len()), (None, None, 0));
    }

    #[tokio::test]
    async fn task_that_hangs_does_not_delay_the_others() {
        let mut jobs = Jobs::new();
        jobs.spawn(ChunkId(1), std::future::pending());
        for number in 2..10 {
            jobs.spawn(ChunkId(number), async move { number });
            assert_eq!(jobs.next().await, Some((ChunkId(number), Some(number))));
        }
        assert_eq!(jobs.len(), 1);
    }
}
