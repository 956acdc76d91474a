//! Migrations that finish at once, after many interruptions, or not at all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use dfs_types::{Clock, ClusterId, Level, Random, Replication, SeededRandom, Timestamp};

use super::*;
use crate::Committer;
use crate::conformance::ForwardingEngine;
use crate::engine::lease::{lease_epoch_key, lease_renewal_key};
use crate::engine::{EngineError, Snapshot};
use crate::memory::MemoryEngine;
use crate::namespace::{ClusterIdentity, Components, InitOptions, Namespace, Options, init};

struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_000)
    }
}

type Keys = BTreeMap<Bytes, Bytes>;

async fn all(engine: &dyn Engine) -> Keys {
    let found = engine.snapshot().await.unwrap().range(&[], &[], 1_000_000).await.unwrap();
    found.into_iter().map(|(key, found)| (key, found.value)).collect()
}

async fn put(engine: &dyn Engine, key: &Bytes, value: impl Into<Bytes>) {
    let writes = vec![Write::Put(key.clone(), value.into())];
    engine.commit_batch(vec![Commit { conditions: vec![], writes }]).await.unwrap();
}

async fn delete(engine: &dyn Engine, key: &Bytes) {
    let writes = vec![Write::Delete(key.clone())];
    engine.commit_batch(vec![Commit { conditions: vec![], writes }]).await.unwrap();
}

/// Creates a cluster with this many extra keys, some of the largest size.
async fn source(seed: u64, keys: u64) -> MemoryEngine {
    let engine = MemoryEngine::new();
    let random = SeededRandom::new(seed);
    let replication = Replication { factor: 3, min_write: None };
    let options = InitOptions { cluster: ClusterId::random(&random), replication };
    init(&engine, &options, &StoppedClock, &random).await.unwrap();
    for _ in 0..keys {
        let mut key = vec![b"dikortux"[random.below(8) as usize], b'/'];
        key.extend((0..random.below(30)).map(|_| random.below(256) as u8));
        let len = if random.below(40) == 0 { 60_000 } else { random.below(50) as usize };
        put(&engine, &key.into(), vec![7; len]).await;
    }
    engine
}

/// Returns the expected content of a target.
async fn expected(source: &dyn Engine) -> Keys {
    let mut keys = all(source).await;
    keys.remove(&lease_renewal_key(WORKERS));
    let cluster = Cluster::decode(b"", &keys[&keys::CLUSTER], Level::NEWEST).unwrap();
    let incarnation = cluster.incarnation.next();
    keys.insert(keys::CLUSTER, Cluster { incarnation, ..cluster }.encode(Level::FIRST).into());
    keys
}

async fn migrate_quietly(
    source: &dyn Engine,
    target: &dyn Engine,
) -> Result<Migrated, MigrateError> {
    migrate(source, target, &|_| ()).await
}

async fn open(engine: &MemoryEngine) -> Result<ClusterIdentity, Error> {
    let engine: Arc<dyn Engine> = Arc::new(engine.clone());
    let (committer, _) = Committer::new(engine.clone(), std::future::pending());
    let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
    let components = Components { engine, committer, clock: Arc::new(StoppedClock), random };
    Ok(Namespace::open(components, Options::default(), None).await?.identity())
}

/// Point at which a batch fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nothing takes effect.
    Before,
    /// All takes effect, but the reply is lost.
    After,
    /// Only the first commit takes effect.
    Between,
}

/// An engine one of whose batches fails.
struct Failing {
    inner: MemoryEngine,
    /// Batches before the failure.
    left: AtomicU64,
    fault: Fault,
    /// A key written after this many reads, as by a coordinator that should not run.
    on_read: Mutex<Option<(u64, Bytes)>>,
}

impl Failing {
    fn new(inner: &MemoryEngine, left: u64, fault: Fault) -> Self {
        let (left, on_read) = (AtomicU64::new(left), Mutex::default());
        Self { inner: inner.clone(), left, fault, on_read }
    }
}

#[async_trait]
impl ForwardingEngine for Failing {
    fn inner(&self) -> &dyn Engine {
        &self.inner
    }

    async fn forward_snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        let due = {
            let mut on_read = self.on_read.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((left, _)) = on_read.as_mut() {
                *left = left.saturating_sub(1);
            }
            on_read.take_if(|(left, _)| *left == 0)
        };
        if let Some((_, key)) = due {
            put(&self.inner, &key, "changed").await;
        }
        self.inner.snapshot().await
    }

    async fn forward_commits(&self, commits: Vec<Commit>) -> Result<Vec<Outcome>, EngineError> {
        let failed = || EngineError::OutcomeUnknown("injected by the test".to_owned());
        if self.left.fetch_sub(1, Ordering::Relaxed) == 0 {
            let done = match self.fault {
                Fault::Before => 0,
                Fault::Between => 1,
                Fault::After => commits.len(),
            };
            self.inner.commit_batch(commits.into_iter().take(done).collect()).await?;
            return Err(failed());
        }
        self.inner.commit_batch(commits).await
    }
}

#[tokio::test]
async fn migrated_store_differs_only_in_incarnation() {
    for seed in 0..20 {
        let (source, target) = (source(seed, seed * 100).await, MemoryEngine::new());
        let copied = migrate_quietly(&source, &target).await.unwrap();
        let expected = expected(&source).await;
        assert_eq!(all(&target).await, expected, "seed {seed}");
        let bytes = |(key, value): (&Bytes, &Bytes)| (key.len() + value.len()) as u64;
        assert_eq!(copied.keys, expected.len() as u64);
        assert_eq!(copied.bytes, expected.iter().map(bytes).sum::<u64>());
        assert_eq!((copied.written, copied.is_resumed), (copied.keys, false));
        let (old, new) = (open(&source).await.unwrap(), open(&target).await.unwrap());
        assert_eq!((new.cluster, new.incarnation), (old.cluster, old.incarnation.next()));
        assert_eq!((copied.cluster, copied.incarnation), (new.cluster, new.incarnation));
        let again = MemoryEngine::new();
        let back = migrate_quietly(&target, &again).await.unwrap();
        assert_ne!(copied.checksum, back.checksum, "another incarnation has another sum");
    }
}

#[tokio::test]
async fn epochs_are_migrated_and_renewals_are_not() {
    let (source, target) = (source(1, 10).await, MemoryEngine::new());
    let ttl = Duration::from_millis(1);
    let before = source.lease(WORKERS, HOLDER, ttl, None).await.unwrap().unwrap();
    let other = source.lease("other", "somebody", ttl, None).await.unwrap().unwrap();
    migrate_quietly(&source, &target).await.unwrap();
    assert!(!all(&target).await.contains_key(&lease_renewal_key("other")));
    assert!(all(&target).await.contains_key(&lease_epoch_key("other")));
    let after = target.lease(WORKERS, "a coordinator", ttl, None).await.unwrap().unwrap();
    assert!(after.epoch > before.epoch, "{after:?} after {before:?}");
    let after = target.lease("other", "a coordinator", ttl, None).await.unwrap().unwrap();
    assert!(after.epoch > other.epoch, "{after:?} after {other:?}");
}

#[tokio::test]
async fn interrupted_migration_is_resumed() {
    let mut interrupted = 0;
    for (seed, fault) in [(1, Fault::Before), (2, Fault::Between), (3, Fault::After)] {
        let source = source(seed, 2_300).await;
        for fails_at in 0.. {
            let target = MemoryEngine::new();
            let failing = Failing::new(&target, fails_at, fault);
            let Err(error) = migrate_quietly(&source, &failing).await else { break };
            assert_eq!(error.code(), ErrorCode::OutcomeUnknown, "{error}");
            interrupted += 1;
            let is_marked = all(&target).await.contains_key(&keys::MIGRATION);
            match open(&target).await {
                // Only the reply to the very last commit was lost.
                Ok(_) => assert!(!is_marked && fault != Fault::Before, "{fault:?} {fails_at}"),
                Err(Error::UnfinishedMigration(_)) => assert!(is_marked),
                Err(error) => assert!(matches!(error, Error::NotInitialised), "{error}"),
            }
            if is_marked {
                let copied = migrate_quietly(&source, &target).await.unwrap();
                assert!(copied.is_resumed);
                assert!(fails_at < 2 || copied.written < copied.keys, "{copied:?}");
            } else if open(&target).await.is_err() {
                migrate_quietly(&source, &target).await.unwrap();
            }
            assert_eq!(all(&target).await, expected(&source).await, "{fault:?} {fails_at}");
        }
    }
    assert!(interrupted > 15, "only {interrupted} batches");
}

#[tokio::test]
async fn unfinished_copy_is_neither_a_store_nor_a_source() {
    let source = source(1, 1_200).await;
    let target = MemoryEngine::new();
    migrate_quietly(&source, &Failing::new(&target, 2, Fault::Before)).await.unwrap_err();
    let error = open(&target).await.unwrap_err();
    assert!(matches!(error, Error::UnfinishedMigration(_)), "{error}");
    assert_eq!(error.start_code(), ErrorCode::WrongCluster);
    // Its cluster record was not copied yet.
    assert!(!all(&target).await.contains_key(&keys::CLUSTER));
    let replication = Replication { factor: 3, min_write: None };
    let options = InitOptions { cluster: ClusterId(9), replication };
    let made = init(&target, &options, &StoppedClock, &SeededRandom::new(9)).await;
    assert!(matches!(made, Err(Error::UnfinishedMigration(_))), "{made:?}");
    let error = migrate_quietly(&target, &MemoryEngine::new()).await.unwrap_err();
    assert!(matches!(error, MigrateError::Source(Error::UnfinishedMigration(_))), "{error}");
}

#[tokio::test]
async fn source_changed_between_attempts_is_migrated_as_it_is_now() {
    let source = source(1, 1_200).await;
    let target = MemoryEngine::new();
    migrate_quietly(&source, &Failing::new(&target, 2, Fault::Before)).await.unwrap_err();
    let there: Vec<Bytes> = all(&target).await.into_keys().collect();
    delete(&source, &there[0]).await;
    put(&source, &there[1], "changed").await;
    put(&source, &Bytes::from_static(b"a"), "new").await;
    migrate_quietly(&source, &target).await.unwrap();
    assert_eq!(all(&target).await, expected(&source).await);
}

#[tokio::test]
async fn target_with_data_is_never_overwritten() {
    let theirs = source(2, 0).await;
    let source = source(1, 900).await;
    let before = all(&theirs).await;
    let error = migrate_quietly(&source, &theirs).await.unwrap_err();
    assert!(matches!(error, MigrateError::TargetNotEmpty { .. }), "{error}");
    assert_eq!((error.code(), all(&theirs).await), (ErrorCode::NotEmpty, before));

    let foreign = MemoryEngine::new();
    put(&foreign, &Bytes::from_static(b"z"), "something").await;
    let error = migrate_quietly(&source, &foreign).await.unwrap_err();
    assert!(error.to_string().contains("the key z"), "{error}");

    // An unfinished copy of another cluster, or of another incarnation.
    let half = MemoryEngine::new();
    migrate_quietly(&theirs, &Failing::new(&half, 1, Fault::Before)).await.unwrap_err();
    let before = all(&half).await;
    let error = migrate_quietly(&source, &half).await.unwrap_err();
    assert!(matches!(error, MigrateError::OtherCopy { .. }), "{error}");
    let newer = MemoryEngine::new();
    migrate_quietly(&theirs, &newer).await.unwrap();
    let error = migrate_quietly(&newer, &half).await.unwrap_err();
    assert!(matches!(error, MigrateError::OtherCopy { .. }), "{error}");
    assert_eq!(all(&half).await, before);
}

#[tokio::test]
async fn source_in_use_is_not_migrated() {
    let source = source(1, 10).await;
    let held =
        source.lease(WORKERS, "coordinator-1:7070", Duration::from_mins(1), None).await.unwrap();
    assert!(held.is_some());
    let target = MemoryEngine::new();
    let error = migrate_quietly(&source, &target).await.unwrap_err();
    assert!(matches!(error, MigrateError::SourceInUse), "{error}");
    assert_eq!((error.code(), all(&target).await), (ErrorCode::Busy, Keys::new()));
    let error = migrate_quietly(&MemoryEngine::new(), &target).await.unwrap_err();
    assert!(matches!(error, MigrateError::Source(Error::NotInitialised)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn lost_source_lease_ends_the_migration() {
    let source = source(1, 1_200).await;
    let target = MemoryEngine::new();
    let thief = Mutex::new(Some(source.clone()));
    let observe = |_| {
        // A coordinator takes the lease while this process is frozen.
        if let Some(source) = thief.lock().unwrap().take() {
            tokio::task::spawn(async move {
                tokio::time::advance(LEASE_TTL * 2).await;
                let taken = source.lease(WORKERS, "coordinator-1:7070", LEASE_TTL, None).await;
                assert!(taken.unwrap().is_some());
            });
        }
    };
    let error = migrate(&Yielding(source.clone()), &target, &observe).await.unwrap_err();
    assert!(matches!(error, MigrateError::SourceInUse), "{error}");
    assert!(open(&target).await.is_err());
}

/// Yields to other tasks before each snapshot.
struct Yielding(MemoryEngine);

#[async_trait]
impl ForwardingEngine for Yielding {
    fn inner(&self) -> &dyn Engine {
        &self.0
    }

    async fn forward_snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        self.0.snapshot().await
    }
}

#[tokio::test]
async fn change_of_the_source_is_detected() {
    let source = source(1, 1_200).await;
    let first = all(&source).await.into_keys().next().unwrap();
    // Snapshots: the cluster, three or four pages, then the pages again.
    let changing = Failing::new(&source, u64::MAX, Fault::Before);
    *changing.on_read.lock().unwrap() = Some((4, first.clone()));
    let target = MemoryEngine::new();
    let error = migrate_quietly(&changing, &target).await.unwrap_err();
    assert!(matches!(&error, MigrateError::SourceChanged { key } if *key == keys::show(&first)));
    assert!(matches!(open(&target).await, Err(Error::UnfinishedMigration(_))));
    migrate_quietly(&source, &target).await.unwrap();
    assert_eq!(all(&target).await, expected(&source).await);
}

#[tokio::test]
async fn only_the_later_of_two_migrations_continues() {
    let source = source(1, 1_200).await;
    let target = MemoryEngine::new();
    let other = Mutex::new(Some((source.clone(), target.clone())));
    let observe = |_| {
        if let Some((source, target)) = other.lock().unwrap().take() {
            // Another process resumes the migration, taking it for a dead one.
            let mark = futures_util::FutureExt::now_or_never(async {
                let (cluster, _) = source_cluster(&source).await?;
                set_mark(&target, &cluster).await
            });
            assert!(matches!(mark, Some(Ok((_, true)))), "the memory engine never waits");
        }
    };
    let error = migrate(&source, &target, &observe).await.unwrap_err();
    assert!(matches!(error, MigrateError::TargetTaken), "{error}");
}
