//! Several coordinators on one metadata store.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_coordinator::Settings;
use dfs_metadata::conformance::ForwardingEngine;
use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::engine::{Condition, Engine, EngineError, Versioned};
use dfs_metadata::memory::MemoryEngine;
use dfs_metadata::namespace::Coordinator;
use dfs_proto::v1;
use dfs_types::{CoordinatorId, ErrorCode, Level, Scope};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::cluster::{Cluster, eventually, refused, settings};

/// Returns lease holder, health of the chunks, and states of the workers.
async fn picture(cluster: &Cluster) -> (String, Option<v1::ReplicationStatus>, Vec<String>) {
    let status = cluster.status().await;
    let workers = status.workers.into_iter().map(|worker| worker.state).collect();
    let replication = status.replication.filter(|replication| replication.is_known);
    (status.worker_lease_holder, replication, workers)
}

#[tokio::test]
async fn any_coordinator_reports_what_the_lease_holder_knows() {
    // The holder keeps its lease even on a busy machine.
    let settings = Settings { worker_lease_ms: 3_000, ..settings() };
    let mut first = Cluster::with(settings, Arc::new(MemoryEngine::new()), 3).await;
    eventually("the chunks are known", || async { first.replication().await.is_some() }).await;
    let mut second = first.another().await;
    // Changes through one coordinator are in the next status of the same one, whichever repairs.
    for number in 1..=20 {
        second.put(&format!("/{number}"), b"data", &[1, 2, 3]).await;
        let (holder, replication, workers) = picture(&second).await;
        assert_eq!(holder, first.address());
        let replication = replication.expect("the holder answered");
        assert_eq!((replication.chunks, replication.under_replicated), (number, 0));
        let here = first.status().await;
        assert_eq!(workers.len(), here.workers.len());
        assert_eq!(here.worker_lease_holder, first.address());
    }
    // To another coordinator, it reports only its own state.
    let alone = second.own_status().await;
    assert_eq!(alone.worker_lease_holder, "");
    assert!(!alone.replication.unwrap().is_known);
    // The holder stops, and the other takes over.
    first.stop().await;
    eventually("the other has taken over", || async {
        let (holder, replication, _) = picture(&second).await;
        holder == second.address() && replication.is_some_and(|known| known.chunks == 20)
    })
    .await;
    second.stop().await;
}

/// Records the names under which leases are requested.
#[derive(Default)]
struct LeaseLog {
    inner: MemoryEngine,
    askers: Mutex<BTreeMap<String, u32>>,
}

#[async_trait]
impl ForwardingEngine for LeaseLog {
    fn inner(&self) -> &dyn Engine {
        &self.inner
    }

    async fn forward_lease(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
        condition: Option<&Condition>,
    ) -> Result<Option<LeaseGrant>, EngineError> {
        *self.askers.lock().unwrap().entry(holder.to_owned()).or_default() += 1;
        self.inner.lease(name, holder, ttl, condition).await
    }
}

/// F5: both listen on 0.0.0.0:7070 and advertise nothing.
#[tokio::test]
async fn f05_one_of_two_coordinators_with_the_same_address_runs_the_workers() {
    let address = "127.0.0.1:7";
    let advertise = address.to_owned();
    let settings = Settings { advertise, worker_lease_ms: 1_500, ..settings() };
    let engine = Arc::new(LeaseLog::default());
    let first = Cluster::with(settings, engine.clone(), 1).await;
    eventually("the first holds the lease", || async {
        first.status().await.worker_lease_holder == address
    })
    .await;
    let before = lease_epoch(&*engine).await;
    let second = first.another().await;
    eventually("each requested the lease under its own name", || async {
        let askers = engine.askers.lock().unwrap();
        askers.len() == 2 && askers.values().all(|times| *times >= 3)
    })
    .await;
    let alone = second.own_status().await;
    assert_eq!(alone.worker_lease_holder, "", "it took the lease over from itself");
    assert_eq!(lease_epoch(&*engine).await, before);
}

async fn lease_epoch(engine: &dyn Engine) -> Bytes {
    let key = dfs_metadata::engine::lease::lease_epoch_key("workers");
    engine.snapshot().await.unwrap().get(&key).await.unwrap().unwrap().value
}

#[tokio::test]
async fn node_joined_through_another_coordinator_is_known_when_needed() {
    let mut first = Cluster::start(2).await;
    let second = first.another().await;
    // It reports only to the first, and the second read the records before it joined.
    let node = first.add_node(3).await;
    first.put("/f", b"data", &[1, 2, 3]).await;
    let request =
        v1::OpenRequest { target: Some(v1::Target::of_path("/f")), ..v1::OpenRequest::default() };
    let opened = second.client().await.open_file(request).await.unwrap().into_inner();
    let addresses: Vec<_> = opened.nodes.iter().map(|node| node.address.as_str()).collect();
    assert!(addresses.contains(&node.address.as_str()), "{addresses:?}");
    let shown = second.status().await.nodes;
    let states = shown.iter().map(|node| node.node.as_ref().unwrap().state());
    // This coordinator has no heartbeats of it, which does not make it Joining.
    assert!(states.clone().all(|state| state != v1::NodeState::Joining), "{:?}", states.last());
}

#[tokio::test]
async fn hanging_lease_holder_leaves_chunk_health_unknown() {
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let holder = Coordinator {
        id: CoordinatorId(9),
        level: Level::NEWEST,
        seen: 0,
        address: hanging.local_addr().unwrap().to_string(),
        version: String::new(),
    };
    let lease = Duration::from_hours(1);
    let lease = engine.lease("workers", &holder.id.to_string(), lease, None).await.unwrap();
    assert!(lease.is_some());
    let cluster = Cluster::with(settings(), engine, 1).await;
    let namespace = cluster.namespace().await;
    namespace.enter_coordinator(Scope::internal(), &holder).await.unwrap();
    let asked = Instant::now();
    let (holder, replication, _) = picture(&cluster).await;
    assert_eq!((holder.as_str(), replication), ("", None));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    // The holder was called.
    let accepted = tokio::time::timeout(Duration::from_secs(10), hanging.accept()).await;
    accepted.expect("the holder was dialled").unwrap();
}

/// An engine whose user sleeps at times and then continues with an old grant, like a process frozen
/// just after it checked its clock.
#[derive(Default)]
struct Sleeper {
    inner: MemoryEngine,
    grant: Mutex<Option<LeaseGrant>>,
    is_asleep: AtomicBool,
}

#[async_trait]
impl ForwardingEngine for Sleeper {
    fn inner(&self) -> &dyn Engine {
        &self.inner
    }

    async fn forward_lease(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
        condition: Option<&Condition>,
    ) -> Result<Option<LeaseGrant>, EngineError> {
        if self.is_asleep.load(Ordering::SeqCst) {
            return Ok(*self.grant.lock().unwrap());
        }
        let grant = self.inner.lease(name, holder, ttl, condition).await?;
        *self.grant.lock().unwrap() = grant;
        Ok(grant)
    }
}

/// Returns everything stored.
async fn everything(engine: &dyn Engine) -> Vec<(Bytes, Versioned)> {
    let snapshot = engine.snapshot().await.unwrap();
    snapshot.range(b"", b"", 10_000).await.unwrap()
}

#[tokio::test]
async fn coordinator_waking_after_its_lease_changes_nothing() {
    let engine = Arc::new(Sleeper::default());
    let cluster = Cluster::with(settings(), engine.clone(), 4).await;
    let kept = cluster.put("/kept", b"data", &[1, 2, 3]).await;
    cluster.put("/gone", b"data", &[1, 2, 3]).await;
    eventually("it holds the lease", || async { cluster.replication().await.is_some() }).await;
    engine.is_asleep.store(true, Ordering::SeqCst);
    eventually("another one takes the lease", || async {
        let taken = engine.inner.lease("workers", "another", Duration::from_hours(1), None).await;
        taken.unwrap().is_some()
    })
    .await;

    // Work for the reaper and for repair, which the earlier holder would do.
    let gone = v1::DeleteRequest {
        target: Some(v1::Target::of_path("/gone")),
        now: true,
        ..v1::DeleteRequest::default()
    };
    cluster.client().await.delete(gone).await.unwrap();
    cluster.node(3).silence();
    let before = everything(&engine.inner).await;
    eventually("each of its workers was refused", || async {
        let status = cluster.own_status().await;
        let failed = |name: &str| {
            status.workers.iter().any(|worker| worker.name == name && worker.failed >= 2)
        };
        failed("repair") && failed("reaper")
    })
    .await;
    assert_eq!(everything(&engine.inner).await, before);
    assert!(cluster.nodes.values().all(|node| node.deletes().is_empty()), "bytes were deleted");
    assert_eq!(cluster.replicas("/kept").await.len(), 3);
    assert_eq!(cluster.node(1).holds(kept).map(|_| ()), Some(()));
}

#[tokio::test]
async fn only_coordinators_get_the_own_status() {
    let cluster = Cluster::start(0).await;
    let order = v1::Order { issued_ms: 0, coordinator: 1, seal: vec![0; 32].into() };
    let request = v1::ClusterStatusRequest { min_revision: 0, order: Some(order) };
    let refused = refused(cluster.admin().await.cluster_status(request).await);
    assert_eq!(refused, ErrorCode::Unauthenticated);
    // A request sealed long ago is refused, too.
    let request = cluster.peer_request().await;
    cluster.clock.advance(Duration::from_secs(61));
    let refused = crate::cluster::refused(cluster.admin().await.cluster_status(request).await);
    assert_eq!(refused, ErrorCode::Unauthenticated);
}
