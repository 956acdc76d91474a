//! The embedded engine: one redb file, for one coordinator.
//!
//! Every commit is durable (two syncs) before it is acknowledged. Two-phase commits that include
//! the allocator state cost a lone writer a third of its rate, and group commits nothing
//! measurable. In return, a store of any size opens at once after a crash, and a failed sync cannot
//! leave a page that is wrongly believed to be on disk.
//!
//! ```text
//!  tasks ── snapshot(): clone of the published view, no hop
//!        ── get, range: one hop to a blocking thread each ──► View (a read transaction)
//!        ── commit_batch ──► one writer at a time ──► Store ──► new View, ChangeLog
//! ```

mod fault;
mod file;
mod overlay;
mod records;
mod store;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::redb::StorageBackend;
use async_trait::async_trait;
use bytes::Bytes;
use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::engine::{
    Commit, Condition, Engine, EngineError, Outcome, Snapshot, Versioned, Watch,
};
use dfs_metadata::local_leases::LocalLeases;
use dfs_types::Revision;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use self::fault::Fault;
use self::file::{DiskFile, SharedBackend};
use self::overlay::Overlay;
use self::records::View;
use self::store::{Published, Store};
use crate::Execution;

/// Maximum number of reads that occupy blocking threads concurrently.
const READERS_MAX: usize = 16;

/// Options of the engine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Maximum bytes of pages cached in memory, in addition to the page cache of the system.
    pub cache_bytes: usize,
    /// Where reads and commits run.
    pub execution: Execution,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 8 << 20, execution: Execution::Blocking }
    }
}

/// The engine on redb. A cheap handle; clones share the store, which closes with the last one.
///
/// Leases are timed by this process and dropped at a restart; watches reach back at most to the
/// start of the process.
#[derive(Clone)]
pub struct RedbEngine {
    execution: Execution,
    store: Arc<Mutex<Store>>,
    published: Arc<Published>,
    readers: Arc<Semaphore>,
    leases: Arc<LocalLeases>,
}

impl RedbEngine {
    /// Opens the store in `folder`, or creates an empty one. The directory is locked: while one
    /// process has it open, others get [`EngineError::InUse`].
    pub async fn open(folder: &Path, options: Options) -> Result<Self, EngineError> {
        let folder = folder.to_owned();
        let open = move || {
            DiskFile::open(&folder, options.cache_bytes)
                .and_then(|file| Store::open(SharedBackend::new(file), options.cache_bytes))
        };
        Self::start(open, options.execution).await
    }

    /// Opens the store in `folder` without changing it: what recovery after a crash would write, and
    /// every commit, stays in memory and is gone with this. `None` if there is no store.
    pub async fn open_unchanged(
        folder: &Path,
        options: Options,
    ) -> Result<Option<Self>, EngineError> {
        let folder = folder.to_owned();
        let opened = options.execution.run(move || Overlay::open(&folder)).await;
        match opened.unwrap_or_else(|| Err(interrupted()))? {
            Some(overlay) => Self::with_backend(overlay, options).await.map(Some),
            None => Ok(None),
        }
    }

    /// Opens the store in `backend`, or creates one when it is empty. The backend is used again
    /// after a failure, so that the engine recovers when the backend does.
    pub async fn with_backend(
        backend: impl StorageBackend,
        options: Options,
    ) -> Result<Self, EngineError> {
        let open = move || Store::open(SharedBackend::new(backend), options.cache_bytes);
        Self::start(open, options.execution).await
    }

    async fn start(
        open: impl FnOnce() -> Result<Store, EngineError> + Send + 'static,
        execution: Execution,
    ) -> Result<Self, EngineError> {
        let store = execution.run(open).await.unwrap_or_else(|| Err(interrupted()))?;
        Ok(Self {
            execution,
            published: store.published(),
            store: Arc::new(Mutex::new(store)),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            leases: Arc::default(),
        })
    }

    /// Runs `work` on the store, after all work requested before.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (store, execution) = (self.store.clone(), self.execution);
        let written = match store.clone().try_lock_owned() {
            Ok(mut store) => execution.run(move || work(&mut store)).await,
            Err(_) => {
                in_own_task(async move {
                    let mut store = store.lock_owned().await;
                    execution.run(move || work(&mut store)).await
                })
                .await
            }
        };
        written.unwrap_or_else(|| Err(EngineError::OutcomeUnknown(interrupted().to_string())))
    }
}

/// Waits for a turn in a task of its own: the caller may not be polled for a long time, and would
/// keep a turn that it got meanwhile. `None` if it was interrupted.
async fn in_own_task<T: Send + 'static>(
    work: impl Future<Output = Option<T>> + Send + 'static,
) -> Option<T> {
    tokio::spawn(work).await.ok().flatten()
}

fn interrupted() -> EngineError {
    EngineError::Unavailable("the process is shutting down, or hit a defect".to_owned())
}

#[async_trait]
impl Engine for RedbEngine {
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        let view = match self.published.view() {
            Some(view) => view,
            None => self.write(Store::view).await?,
        };
        let (readers, published) = (self.readers.clone(), self.published.clone());
        Ok(Box::new(RedbSnapshot { execution: self.execution, readers, published, view }))
    }

    async fn commit_batch(&self, commits: Vec<Commit>) -> Result<Vec<Outcome>, EngineError> {
        commits.iter().try_for_each(Commit::check_limits)?;
        self.write(move |store| store.commit_batch(&commits)).await
    }

    async fn watch(&self, prefix: Bytes, from: Revision) -> Result<Box<dyn Watch>, EngineError> {
        self.published.changes().watch(prefix, from)
    }

    async fn lease(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
        condition: Option<&Condition>,
    ) -> Result<Option<LeaseGrant>, EngineError> {
        self.leases.lease(self, name, holder, ttl, condition).await
    }
}

struct RedbSnapshot {
    execution: Execution,
    readers: Arc<Semaphore>,
    published: Arc<Published>,
    view: Arc<View>,
}

impl RedbSnapshot {
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&View) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (published, view) = (self.published.clone(), self.view.clone());
        let (readers, execution) = (self.readers.clone(), self.execution);
        let read = move |permit: OwnedSemaphorePermit| {
            execution.run(move || {
                let _permit = permit;
                published.read(&view, work)
            })
        };
        let found = match readers.clone().try_acquire_owned() {
            Ok(permit) => read(permit).await,
            Err(_) => {
                in_own_task(async move { read(readers.acquire_owned().await.ok()?).await }).await
            }
        };
        found.unwrap_or_else(|| Err(interrupted()))
    }
}

#[async_trait]
impl Snapshot for RedbSnapshot {
    fn revision(&self) -> Revision {
        self.view.revision()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, EngineError> {
        let key = key.to_vec();
        self.read(move |view| view.records().get(&key)).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Versioned>>, EngineError> {
        let keys = keys.to_vec();
        self.read(move |view| keys.iter().map(|key| view.records().get(key)).collect()).await
    }

    async fn range(
        &self,
        prefix: &[u8],
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Versioned)>, EngineError> {
        let (prefix, after) = (prefix.to_vec(), after.to_vec());
        self.read(move |view| view.records().range(&prefix, &after, limit)).await
    }

    async fn last_before(
        &self,
        prefix: &[u8],
        key: &[u8],
    ) -> Result<Option<(Bytes, Versioned)>, EngineError> {
        let (prefix, key) = (prefix.to_vec(), key.to_vec());
        self.read(move |view| view.records().last_before(&prefix, &key)).await
    }
}
