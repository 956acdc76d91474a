//! The engine on etcd, which several coordinators can share.
//!
//! Revisions are etcd's; the version of a key is the revision of its last write. Conditions are
//! compares, and a batch becomes as few transactions as its commits allow. Every call to etcd ends
//! in bounded time, whatever its members do, and the outcome of a commit is determined even if a
//! reply is lost.
//!
//! ```text
//!  tasks ── snapshot(): one linearizable read, shared with others ──► Clock
//!        ── get, range: reads at that revision ──► EtcdSnapshot
//!        ── commit_batch ──► one batch at a time ──► Writer ── Group, marker ──► transactions
//!        ── watch: streams that are reopened ──► EtcdWatch
//!        ── lease: keys attached to leases of etcd ──► Leases
//!  own tasks: keeping the lease of the marker alive, compaction
//! ```
//!
//! Prefixes and histories are walked by etcd: a `PrefixEmpty` that does not hold costs it a walk of
//! the whole prefix, so callers check first.

mod clock;
mod commit_group;
mod compaction;
mod counters;
mod failure;
mod keys;
mod leases;
mod requests;
mod snapshot;
pub(crate) mod url;
mod watch;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_etcd::etcdserverpb::{RangeRequest, TxnRequest};
use dfs_etcd::{Client, Error, RetryBudget, Settings};
use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::engine::{Commit, Condition, Engine, EngineError, Outcome, Snapshot, Watch};
use dfs_types::{OsRandom, Random as _, Revision};
use tokio::sync::{Mutex, watch as channel};
use tokio::task::AbortHandle;

use self::clock::Clock;
use self::failure::engine_error;
use self::keys::Keys;
use self::leases::Leases;
use self::requests::{is_absent, put};
use self::snapshot::EtcdSnapshot;
use self::watch::EtcdWatch;
use self::writer::{MARKER_TTL, Writer};

/// Format that this release writes, and the newest it reads.
const FORMAT: u32 = 1;
/// Time limit of opening or creating the store.
const OPEN_BUDGET: Duration = Duration::from_secs(10);
/// Pause after a failure to keep the marker's lease alive.
const KEEP_RETRY: Duration = Duration::from_secs(5);

/// Options of the engine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Time between compactions. Overwritten and removed values stay readable for once to twice
    /// this time: a snapshot must not be used for longer.
    pub compaction_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { compaction_interval: Duration::from_mins(5) }
    }
}

/// The engine on etcd. A cheap handle; clones commit one batch after another. Its tasks end with
/// the last clone.
#[derive(Debug, Clone)]
pub struct EtcdEngine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    keys: Keys,
    clock: Clock,
    writer: Arc<Mutex<Writer>>,
    leases: Leases,
    tasks: [AbortHandle; 2],
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl EtcdEngine {
    /// Opens the store under `prefix`, or creates an empty one. The prefix is a single word without
    /// a slash. Fails within bounded time when etcd is unreachable or denies access.
    pub async fn open(
        settings: &Settings,
        prefix: &str,
        options: Options,
    ) -> Result<Self, EngineError> {
        let first = OsRandom.below(settings.members.len() as u64) as usize;
        let client = Client::new(settings, first).map_err(engine_error)?;
        let keys = Keys::new(prefix);
        check_format(&client, &keys).await?;
        let (writer, leases) = Writer::new(client.clone(), keys.clone());
        let interval = options.compaction_interval;
        let compacting = compaction::run(client.clone(), keys.clone(), interval);
        let tasks = [
            tokio::spawn(keep_alive(client.clone(), leases)).abort_handle(),
            tokio::spawn(compacting).abort_handle(),
        ];
        Ok(Self {
            shared: Arc::new(Shared {
                clock: Clock::new(client.clone(), keys.clone()),
                writer: Arc::new(Mutex::new(writer)),
                leases: Leases::new(client.clone(), keys.clone()),
                client,
                keys,
                tasks,
            }),
        })
    }
}

/// Refuses a store of a newer release, and marks a new one.
async fn check_format(client: &Client, keys: &Keys) -> Result<(), EngineError> {
    let key = keys.format();
    let mut budget = RetryBudget::new(OPEN_BUDGET);
    loop {
        let request = RangeRequest { key: key.clone(), ..<_>::default() };
        let answer = client.range(request).await.map_err(engine_error)?;
        if let Some(found) = answer.kvs.first() {
            let text = String::from_utf8_lossy(&found.value);
            return match text.parse::<u32>() {
                Ok(FORMAT) => Ok(()),
                Ok(found) if found > FORMAT => {
                    Err(EngineError::NewerFormat { found, supported: FORMAT })
                }
                _ => Err(EngineError::Damaged("its format is unreadable".to_owned())),
            };
        }
        let request = TxnRequest {
            compare: vec![is_absent(key.clone(), Bytes::new())],
            success: vec![put(key.clone(), Bytes::from(FORMAT.to_string()), 0)],
            failure: vec![],
        };
        match client.txn(request, &mut budget).await {
            Err(error @ (Error::NoAnswer(_) | Error::Unreachable(_))) => {
                if !budget.pause(client.members()).await {
                    return Err(engine_error(error));
                }
            }
            result => drop(result.map_err(engine_error)?),
        }
    }
}

/// Keeps the current lease of the marker alive.
async fn keep_alive(client: Client, mut leases: channel::Receiver<i64>) {
    loop {
        let lease = *leases.borrow_and_update();
        if lease != 0 {
            let pause = match client.keep_lease(lease).await {
                Ok(()) => MARKER_TTL / 3,
                // The next commit notices, and creates another.
                Err(Error::LeaseGone) => MARKER_TTL,
                Err(_) => KEEP_RETRY,
            };
            if matches!(tokio::time::timeout(pause, leases.changed()).await, Ok(Err(_))) {
                return;
            }
        } else if leases.changed().await.is_err() {
            return;
        }
    }
}

#[async_trait]
impl Engine for EtcdEngine {
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        let revision = self.shared.clock.now().await?;
        let (client, keys) = (self.shared.client.clone(), self.shared.keys.clone());
        Ok(Box::new(EtcdSnapshot { client, keys, revision }))
    }

    async fn commit_batch(&self, commits: Vec<Commit>) -> Result<Vec<Outcome>, EngineError> {
        commits.iter().try_for_each(Commit::check_limits)?;
        let mut writer = self.shared.writer.clone().lock_owned().await;
        // In a separate task: a caller that goes away must not leave a batch half done.
        let batch = tokio::spawn(async move { writer.commit_batch(&commits).await });
        batch.await.unwrap_or_else(|_| {
            let why = "the process is shutting down, or hit a defect".to_owned();
            Err(EngineError::OutcomeUnknown(why))
        })
    }

    async fn watch(&self, prefix: Bytes, from: Revision) -> Result<Box<dyn Watch>, EngineError> {
        let (client, keys) = (self.shared.client.clone(), self.shared.keys.clone());
        let watch = EtcdWatch::open(client, keys, prefix, from.0 as i64).await?;
        Ok(Box::new(watch))
    }

    async fn lease(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
        condition: Option<&Condition>,
    ) -> Result<Option<LeaseGrant>, EngineError> {
        self.shared.leases.lease(name, holder, ttl, condition).await
    }
}
