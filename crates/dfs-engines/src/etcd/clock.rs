//! The current revision, at which snapshots are taken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfs_etcd::Client;
use dfs_etcd::etcdserverpb::RangeRequest;
use dfs_metadata::engine::EngineError;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;

use super::failure::engine_error;
use super::keys::Keys;
use super::requests::revision_of;

/// Maximum number of concurrent reads of the revision.
const READS_MAX: usize = 4;

type Read = Shared<BoxFuture<'static, Result<i64, EngineError>>>;

/// Reads the current revision for many callers. Callers that arrive while all reads are in flight
/// share the next one, which is sent after they asked.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    client: Client,
    keys: Keys,
    turns: Arc<Semaphore>,
    /// The read that is not sent yet.
    waiting: Arc<Mutex<Option<Read>>>,
}

impl Clock {
    pub(super) fn new(client: Client, keys: Keys) -> Self {
        Self { client, keys, turns: Arc::new(Semaphore::new(READS_MAX)), waiting: Arc::default() }
    }

    /// Returns a revision that includes everything acknowledged before the call, through any
    /// handle.
    pub(super) async fn now(&self) -> Result<i64, EngineError> {
        let read = lock(&self.waiting).get_or_insert_with(|| self.read()).clone();
        read.await
    }

    /// Starts a read in a task of its own: its callers may not be polled for a long time, for
    /// example while they are in a set of futures whose owner waits for another read.
    fn read(&self) -> Read {
        let Self { client, keys, turns, waiting } = self.clone();
        let read = tokio::spawn(async move {
            let turn = turns.acquire().await;
            // Sent now: later callers need a later read.
            lock(&waiting).take();
            let request = RangeRequest { key: keys.nothing(), count_only: true, ..<_>::default() };
            let answer = client.range(request).await;
            drop(turn);
            Ok(revision_of(answer.map_err(engine_error)?.header.as_ref()))
        });
        let interrupted = |_| Err(EngineError::Unavailable("the read was interrupted".to_owned()));
        read.map(move |read| read.unwrap_or_else(interrupted)).boxed().shared()
    }
}

fn lock(waiting: &Mutex<Option<Read>>) -> MutexGuard<'_, Option<Read>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
