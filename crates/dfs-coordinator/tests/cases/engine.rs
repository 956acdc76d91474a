//! Engine commits and reads per call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use dfs_coordinator::Settings;
use dfs_metadata::conformance::ForwardingEngine;
use dfs_metadata::engine::{Commit, Engine, EngineError, Outcome, Snapshot};
use dfs_metadata::memory::MemoryEngine;
use dfs_proto::v1;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, eventually, http_get, settings};

/// An engine that counts commits and can hold them back.
struct Gated {
    inner: MemoryEngine,
    is_open: watch::Sender<bool>,
    snapshots: AtomicUsize,
    commits: AtomicUsize,
}

#[async_trait]
impl ForwardingEngine for Gated {
    fn inner(&self) -> &dyn Engine {
        &self.inner
    }

    async fn forward_snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        self.snapshots.fetch_add(1, Ordering::Relaxed);
        self.inner.snapshot().await
    }

    async fn forward_commits(&self, commits: Vec<Commit>) -> Result<Vec<Outcome>, EngineError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.is_open.subscribe().wait_for(|is_open| *is_open).await.unwrap();
        self.inner.commit_batch(commits).await
    }
}

#[tokio::test]
async fn concurrent_create_calls_share_engine_commits() {
    let engine = Arc::new(Gated {
        inner: MemoryEngine::new(),
        is_open: watch::Sender::new(true),
        snapshots: AtomicUsize::new(0),
        commits: AtomicUsize::new(0),
    });
    // Background work runs so rarely that it does not count.
    let settings = Settings {
        heartbeat_interval_ms: 60_000,
        suspect_after_ms: 600_000,
        lost_after_ms: 600_000,
        worker_lease_ms: 600_000,
        ..settings()
    };
    let cluster = Cluster::with(settings, engine.clone(), 0).await;
    let client = cluster.client().await;
    let create = |name: usize| {
        let mut client = client.clone();
        let target = Some(v1::Target::of_path(format!("/{name}")));
        let attributes = Some(v1::Attributes { mode: 0o755, ..v1::Attributes::default() });
        let request =
            v1::MakeDirectoryRequest { target, attributes, ..v1::MakeDirectoryRequest::default() };
        async move { client.make_directory(request).await.map(drop) }
    };
    create(100).await.unwrap();
    let count =
        || (engine.snapshots.load(Ordering::Relaxed), engine.commits.load(Ordering::Relaxed));
    let before = count();
    engine.is_open.send_replace(false);
    let mut creates = JoinSet::new();
    for name in 0..16 {
        creates.spawn(create(name));
    }
    eventually("all have begun", || async { count().0 >= before.0 + 16 }).await;
    engine.is_open.send_replace(true);
    while let Some(created) = creates.join_next().await {
        created.unwrap().unwrap();
    }
    let commits = count().1 - before.1;
    assert!((1..16).contains(&commits), "16 creates took {commits} engine commits");
}

/// An engine that stops responding to reads.
#[derive(Default)]
struct Hanging {
    inner: MemoryEngine,
    hangs: AtomicBool,
}

#[async_trait]
impl ForwardingEngine for Hanging {
    fn inner(&self) -> &dyn Engine {
        &self.inner
    }

    async fn forward_snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.inner.snapshot().await
    }
}

#[tokio::test]
async fn f06_silent_node_becomes_lost_while_metadata_hangs() {
    let engine = Arc::new(Hanging::default());
    // Longer than the interval of reading the members; such a read hangs by then.
    let settings = Settings { lost_after_ms: 6_000, ..settings() };
    let cluster = Cluster::with(settings, engine.clone(), 1).await;
    let shows = async |state: &str| {
        let line = format!("dfs_coordinator_datanodes{{state=\"{state}\"}} 1");
        http_get(&cluster.handle, "/metrics").await.contains(&line)
    };
    eventually("it is active", || shows("active")).await;
    engine.hangs.store(true, Ordering::SeqCst);
    cluster.node(1).silence();
    eventually("it is lost", || shows("lost")).await;
}
