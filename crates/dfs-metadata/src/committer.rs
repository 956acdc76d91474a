//! Group commit: many callers, one durable engine commit at a time.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::engine::{Commit, Engine, EngineError, Outcome, Write};

/// Length of the queue; additional callers wait for room.
const QUEUE_LEN: usize = 1024;
/// Maximum number of commits per batch.
const BATCH_LEN_MAX: usize = 256;
/// Bytes of keys and values after which a batch takes no more commits.
const BATCH_BYTES: usize = 4 << 20;

/// Queues the commits of many callers for one task that passes them to the engine in batches.
///
/// The next batch collects while one is in flight, so the number of engine commits depends on the
/// speed of the disk and not on the number of callers. Commits are applied in the order of the
/// queue; a conflict of one never fails another. A cheap handle; clones share the queue.
#[derive(Debug, Clone)]
pub struct Committer {
    queue: mpsc::Sender<Queued>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    batches: AtomicU64,
}

#[derive(Debug)]
struct Queued {
    commit: Commit,
    answer: oneshot::Sender<Result<Outcome, EngineError>>,
}

impl Committer {
    /// Creates a committer and the task that serves it, to be spawned once.
    ///
    /// The task ends when `shutdown` is ready, after it has applied everything queued until then,
    /// or when the last handle is dropped. Afterwards, commits fail with
    /// [`EngineError::Unavailable`].
    pub fn new(
        engine: Arc<dyn Engine>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        Self::with_batches(engine, BATCH_LEN_MAX, shutdown)
    }

    /// Creates a committer with a limit on batches; 1 turns group commit off, for comparison.
    pub fn with_batches(
        engine: Arc<dyn Engine>,
        batch_len_max: usize,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, queued) = mpsc::channel(QUEUE_LEN);
        let counters = Arc::<Counters>::default();
        let len_max = batch_len_max.clamp(1, BATCH_LEN_MAX);
        let task = serve(engine, queued, len_max, counters.clone(), shutdown);
        (Self { queue, counters }, task)
    }

    /// Commits, and returns the outcome once it is durable.
    ///
    /// A commit above the limits is refused with [`EngineError::TooLarge`] before it is queued.
    /// When the future is dropped, the commit may or may not take effect. After an error,
    /// [`EngineError::OutcomeUnknown`] and [`EngineError::Damaged`] leave open whether it took
    /// effect; with any other nothing was changed.
    pub async fn commit(&self, commit: Commit) -> Result<Outcome, EngineError> {
        commit.check_limits()?;
        let stopped = || EngineError::Unavailable("the committer has stopped".to_owned());
        let (answer, outcome) = oneshot::channel();
        self.queue.send(Queued { commit, answer }).await.map_err(|_| stopped())?;
        // The task replies to everything it took from the queue, unless it was killed.
        outcome.await.unwrap_or_else(|_| {
            Err(EngineError::OutcomeUnknown("the committer was killed during a commit".to_owned()))
        })
    }

    /// Returns how many commits were passed to the engine so far.
    pub fn commits(&self) -> u64 {
        self.counters.commits.load(Ordering::Relaxed)
    }

    /// Returns how many durable engine commits, one per batch, they took.
    pub fn engine_commits(&self) -> u64 {
        self.counters.batches.load(Ordering::Relaxed)
    }
}

async fn serve(
    engine: Arc<dyn Engine>,
    mut queued: mpsc::Receiver<Queued>,
    len_max: usize,
    counters: Arc<Counters>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    tokio::pin!(shutdown);
    let mut closing = false;
    loop {
        let first = tokio::select! {
            biased;
            () = &mut shutdown, if !closing => {
                queued.close();
                closing = true;
                continue;
            }
            first = queued.recv() => first,
        };
        let Some(first) = first else { return };
        let batch = collect(first, &mut queued, len_max);
        counters.commits.fetch_add(batch.len() as u64, Ordering::Relaxed);
        counters.batches.fetch_add(1, Ordering::Relaxed);
        commit_queued(&*engine, batch).await;
    }
}

/// Takes what is already queued, up to the bounds of a batch.
fn collect(first: Queued, queued: &mut mpsc::Receiver<Queued>, len_max: usize) -> Vec<Queued> {
    let mut bytes = weight(&first.commit);
    let mut batch = vec![first];
    while batch.len() < len_max && bytes < BATCH_BYTES {
        let Ok(next) = queued.try_recv() else { break };
        bytes += weight(&next.commit);
        batch.push(next);
    }
    batch
}

fn weight(commit: &Commit) -> usize {
    commit.writes.iter().map(Write::bytes).sum()
}

async fn commit_queued(engine: &dyn Engine, batch: Vec<Queued>) {
    let (commits, answers): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|queued| (queued.commit, queued.answer)).unzip();
    let result = engine.commit_batch(commits).await;
    for (index, answer) in answers.into_iter().enumerate() {
        let own = match &result {
            Ok(outcomes) => outcomes.get(index).copied().ok_or_else(|| {
                EngineError::OutcomeUnknown("the engine gave too few outcomes".to_owned())
            }),
            Err(error) => Err(error.clone()),
        };
        // The caller may have gone away.
        let _ = answer.send(own);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::future::join_all;

    use super::*;
    use crate::memory::MemoryEngine;

    #[tokio::test]
    async fn batches_respect_the_limit() {
        for (most, batches) in [(1, 10), (4, 3), (usize::MAX, 1), (0, 10)] {
            let engine = Arc::new(MemoryEngine::new());
            let (committer, serving) =
                Committer::with_batches(engine, most, std::future::pending());
            let commit = |n: u8| {
                let writes = vec![Write::Put(Bytes::from(vec![n]), Bytes::new())];
                committer.commit(Commit { conditions: vec![], writes })
            };
            // All are queued before the first is applied.
            let waiting = join_all((0..10).map(commit));
            let (outcomes, ()) = tokio::join!(waiting, async {
                tokio::spawn(serving);
            });
            assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
            assert_eq!((committer.commits(), committer.engine_commits()), (10, batches), "{most}");
        }
    }
}
