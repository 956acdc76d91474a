//! Migrations between engines and back.
#![cfg(all(feature = "redb", feature = "etcd"))]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_engines::etcd::{EtcdEngine, Options as EtcdOptions};
use dfs_engines::redb::{Options, RedbEngine};
use dfs_etcd::Settings;
use dfs_etcd::test_server::Cluster;
use dfs_metadata::check::check;
use dfs_metadata::conformance::ForwardingEngine;
use dfs_metadata::engine::lease::{WORKERS, lease_epoch_key, lease_renewal_key};
use dfs_metadata::engine::{Commit, Engine, EngineError, Snapshot, Write};

use dfs_metadata::memory::MemoryEngine;
use dfs_metadata::migrate::{MigrateError, Migrated, migrate};
use dfs_metadata::namespace::{InitOptions, init};
use dfs_types::{ClusterId, Random as _, Replication, SeededRandom, SystemClock};
use tokio::sync::Notify;

type Keys = BTreeMap<Bytes, Bytes>;

async fn all(engine: &dyn Engine) -> Keys {
    let found = engine.snapshot().await.unwrap().range(&[], &[], 1_000_000).await.unwrap();
    found.into_iter().map(|(key, found)| (key, found.value)).collect()
}

/// Creates a cluster with `keys` extra keys.
async fn source(seed: u64, keys: u64) -> MemoryEngine {
    let (engine, random) = (MemoryEngine::new(), SeededRandom::new(seed));
    let replication = Replication { factor: 3, min_write: None };
    let options = InitOptions { cluster: ClusterId::random(&random), replication };
    init(&engine, &options, &SystemClock, &random).await.unwrap();
    for _ in 0..keys {
        let mut key = vec![b"dikortux"[random.below(8) as usize], b'/'];
        key.extend((0..random.below(30)).map(|_| random.below(256) as u8));
        let len = if random.below(100) == 0 { 60_000 } else { random.below(200) as usize };
        let mut value = vec![0; len];
        random.fill(&mut value);
        let writes = vec![Write::Put(key.into(), value.into())];
        engine.commit_batch(vec![Commit { conditions: vec![], writes }]).await.unwrap();
    }
    engine
}

/// A target that hangs from one of its snapshots on.
struct Stopping {
    inner: Arc<dyn Engine>,
    snapshots_left: AtomicUsize,
    reached: Notify,
}

#[async_trait]
impl ForwardingEngine for Stopping {
    fn inner(&self) -> &dyn Engine {
        &*self.inner
    }

    async fn forward_snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        if self.snapshots_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.reached.notify_one();
            std::future::pending::<()>().await;
        }
        self.inner.snapshot().await
    }
}

/// Migrates, interrupted one step later each time until it completes. Also returns the number of
/// attempts.
async fn migrate_in_pieces(source: &dyn Engine, target: &Arc<dyn Engine>) -> (Migrated, usize) {
    for pieces in 1.. {
        let (inner, snapshots_left) = (target.clone(), AtomicUsize::new(pieces));
        let stopping = Stopping { inner, snapshots_left, reached: Notify::new() };
        tokio::select! {
            () = stopping.reached.notified() => {}
            copied = migrate(source, &stopping, &|_| ()) => return (copied.unwrap(), pieces),
        }
    }
    unreachable!("the migration completes")
}

/// Returns what a target has in common with its source: all but leases and the incarnation.
fn comparable(mut keys: Keys) -> Keys {
    keys.remove(&lease_renewal_key(WORKERS));
    keys.remove(&lease_epoch_key(WORKERS));
    let cluster = keys.get_mut(&b"s/cluster"[..]).unwrap();
    // Format, id, incarnation, key.
    let incarnation = cluster[17];
    let mut without = cluster.to_vec();
    without[17] = 0;
    assert!(incarnation < 0x80, "it takes one byte");
    *cluster = without.into();
    keys
}

async fn open_etcd(cluster: &Cluster, prefix: &str) -> Arc<dyn Engine> {
    let settings = Settings { members: cluster.addresses(), ..Settings::default() };
    Arc::new(EtcdEngine::open(&settings, prefix, EtcdOptions::default()).await.unwrap())
}

#[tokio::test]
async fn store_migrates_from_memory_to_redb_to_etcd_and_back() {
    let members = Cluster::start(1).await;
    for (seed, keys) in [(1, 0), (2, 30), (3, 2_600)] {
        let folder = tempfile::tempdir().unwrap();
        let memory = source(seed, keys).await;
        let redb: Arc<dyn Engine> =
            Arc::new(RedbEngine::open(folder.path(), Options::default()).await.unwrap());
        let etcd = open_etcd(&members, &format!("copy-{seed}")).await;
        let back: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
        let before = comparable(all(&memory).await);
        let mut incarnation = 1;
        let hops: [(&dyn Engine, _); 3] = [(&memory, &redb), (&*redb, &etcd), (&*etcd, &back)];
        for (from, to) in hops {
            let (copied, pieces) = migrate_in_pieces(from, to).await;
            incarnation += 1;
            assert_eq!((copied.incarnation.0, copied.is_resumed), (incarnation, pieces > 2));
            assert_eq!(comparable(all(&**to).await), before, "seed {seed}");
            assert_eq!(copied.keys, all(&**to).await.len() as u64);
            assert!(pieces as u64 > 2 * keys / 500, "interrupted only {pieces} times");
            // The migration is complete: the target can be opened, and not be migrated into again.
            let again = migrate(from, &**to, &|_| ()).await;
            assert!(matches!(again, Err(MigrateError::TargetNotEmpty { .. })), "{again:?}");
        }
    }
}

#[tokio::test]
async fn etcd_store_in_use_is_not_migrated() {
    let members = Cluster::start(1).await;
    let coordinator = open_etcd(&members, "used").await;
    migrate(&source(1, 20).await, &*coordinator, &|_| ()).await.unwrap();
    let ttl = Duration::from_secs(2);
    assert!(coordinator.lease(WORKERS, "coordinator-1:7070", ttl, None).await.unwrap().is_some());
    let (other, target) = (open_etcd(&members, "used").await, MemoryEngine::new());
    let refused = migrate(&*other, &target, &|_| ()).await;
    assert!(matches!(refused, Err(MigrateError::SourceInUse)), "{refused:?}");
    assert!(all(&target).await.is_empty());
    // The holder ended silently: etcd expires the lease.
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    while let Err(error) = migrate(&*other, &target, &|_| ()).await {
        assert!(matches!(error, MigrateError::SourceInUse), "{error}");
        assert!(tokio::time::Instant::now() < deadline, "the lease never ends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn check_works_on_every_engine() {
    let members = Cluster::start(1).await;
    let folder = tempfile::tempdir().unwrap();
    let memory = source(1, 0).await;
    let redb = RedbEngine::open(folder.path(), Options::default()).await.unwrap();
    let etcd = open_etcd(&members, "checked").await;
    migrate(&memory, &redb, &|_| ()).await.unwrap();
    migrate(&redb, &*etcd, &|_| ()).await.unwrap();
    for engine in [&memory as &dyn Engine, &redb, &*etcd] {
        let clean = check(engine, &|_| ()).await.unwrap();
        assert!(clean.is_clean(), "{:?}", clean.problems);
        for n in 0..1_200_u32 {
            let writes = vec![Write::Put(Bytes::from(format!("y/{n}")), Bytes::new())];
            engine.commit_batch(vec![Commit { conditions: vec![], writes }]).await.unwrap();
        }
        let found = check(engine, &|_| ()).await.unwrap();
        assert_eq!((found.problem_count, found.keys), (1_200, clean.keys + 1_200));
        assert_eq!(found.problems.len(), 1_000, "a report is bounded");
    }
}
