//! Tasks that each work on some chunks.

use std::collections::{BTreeSet, HashMap, VecDeque};

use dfs_types::ChunkId;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tracing::error;

/// Tasks with their chunks, of which each ends by itself. Chunks that a task leaves behind as it
/// panics end like any other, so that they neither occupy a place nor stop the others. All tasks are
/// aborted when this is dropped.
#[derive(Debug)]
pub(super) struct Jobs<T> {
    tasks: JoinSet<()>,
    /// Chunks of each task that have not ended.
    chunks: HashMap<Id, BTreeSet<ChunkId>>,
    sender: mpsc::Sender<End<T>>,
    ends: mpsc::Receiver<End<T>>,
    /// Chunks that have ended and were not taken yet.
    ended: VecDeque<(ChunkId, Option<T>)>,
    /// Chunks that were not taken yet.
    count: usize,
}

type End<T> = (Id, ChunkId, T);

/// Where a task sends the results of its chunks.
#[derive(Debug)]
pub(super) struct Results<T>(mpsc::Sender<End<T>>);

impl<T> Results<T> {
    /// Ends a chunk of the present task.
    pub(super) async fn send(&self, chunk: ChunkId, result: T) {
        // There is no receiver any more if the task is about to be aborted.
        let _ = self.0.send((tokio::task::id(), chunk, result)).await;
    }
}

impl<T: Send + 'static> Jobs<T> {
    /// Creates none. So many chunks may have ended before one is taken.
    pub(super) fn new(ahead: usize) -> Self {
        let (sender, ends) = mpsc::channel(ahead);
        let (tasks, chunks, ended) = (JoinSet::new(), HashMap::new(), VecDeque::new());
        Self { tasks, chunks, sender, ends, ended, count: 0 }
    }

    /// Returns how many chunks have not been taken from here yet.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Starts a task that ends each of these chunks.
    pub(super) fn spawn<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        chunks: impl IntoIterator<Item = ChunkId>,
        task: impl FnOnce(Results<T>) -> F,
    ) {
        let chunks: BTreeSet<_> = chunks.into_iter().collect();
        self.count += chunks.len();
        let handle = self.tasks.spawn(task(Results(self.sender.clone())));
        self.chunks.insert(handle.id(), chunks);
    }

    /// Waits for the end of a chunk, and returns its result, which is `None` if its task panicked.
    /// Returns `None` when there is no chunk. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<(ChunkId, Option<T>)> {
        loop {
            if let Some(ended) = self.try_next() {
                return Some(ended);
            }
            if self.count == 0 {
                return None;
            }
            tokio::select! {
                biased;
                Some(end) = self.ends.recv() => self.end(end),
                Some(ended) = self.tasks.join_next_with_id() => self.left_behind(&ended),
            }
        }
    }

    /// Returns what [`Self::next`] would return without waiting.
    pub(super) fn try_next(&mut self) -> Option<(ChunkId, Option<T>)> {
        self.receive();
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.left_behind(&ended);
        }
        let ended = self.ended.pop_front()?;
        self.count -= 1;
        Some(ended)
    }

    fn receive(&mut self) {
        while let Ok(end) = self.ends.try_recv() {
            self.end(end);
        }
    }

    fn end(&mut self, (task, chunk, result): End<T>) {
        if let Some(chunks) = self.chunks.get_mut(&task) {
            chunks.remove(&chunk);
        }
        self.ended.push_back((chunk, Some(result)));
    }

    /// Notes the end of a task.
    fn left_behind(&mut self, ended: &Result<(Id, ()), JoinError>) {
        // What it sent just before.
        self.receive();
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        for chunk in self.chunks.remove(&id).unwrap_or_default() {
            error!(%chunk, "the repair of a chunk panicked");
            self.ended.push_back((chunk, None));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKS: [ChunkId; 3] = [ChunkId(1), ChunkId(2), ChunkId(3)];

    #[tokio::test]
    async fn panic_of_a_task_frees_the_places_of_the_chunks_that_it_left_behind() {
        let mut jobs = Jobs::new(9);
        jobs.spawn(CHUNKS, async |results: Results<u32>| {
            results.send(CHUNKS[1], 7).await;
            panic!("planned")
        });
        assert_eq!((jobs.next().await, jobs.len()), (Some((CHUNKS[1], Some(7))), 2));
        assert_eq!(jobs.next().await, Some((CHUNKS[0], None)));
        assert_eq!((jobs.next().await, jobs.len()), (Some((CHUNKS[2], None)), 0));
        jobs.spawn([CHUNKS[0]], async |results| results.send(CHUNKS[0], 7).await);
        assert_eq!(jobs.next().await, Some((CHUNKS[0], Some(7))));
        assert_eq!((jobs.next().await, jobs.try_next()), (None, None));
    }

    #[tokio::test]
    async fn chunk_that_hangs_delays_neither_those_of_its_task_nor_others() {
        let mut jobs = Jobs::new(9);
        jobs.spawn(CHUNKS, async |results: Results<u32>| {
            results.send(CHUNKS[2], 3).await;
            std::future::pending::<()>().await;
        });
        assert_eq!(jobs.next().await, Some((CHUNKS[2], Some(3))));
        for number in 4..10 {
            let chunk = ChunkId(number.into());
            jobs.spawn([chunk], async move |results| results.send(chunk, number).await);
            assert_eq!(jobs.next().await, Some((chunk, Some(number))));
        }
        assert_eq!((jobs.try_next(), jobs.len()), (None, 2));
    }
}
