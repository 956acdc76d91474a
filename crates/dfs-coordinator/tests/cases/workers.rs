//! Background workers are listed, paused and throttled through any coordinator.

use std::sync::Arc;
use std::time::Duration;

use dfs_coordinator::Settings;
use dfs_metadata::memory::MemoryEngine;
use dfs_proto::v1;
use dfs_proto::v1::set_worker_request::Change;
use dfs_types::{ErrorCode, move_cost};
use tokio::time::Instant;
use tonic::{Response, Status};

use crate::cluster::{Cluster, HOUR, eventually, refused, settings};

impl Cluster {
    async fn workers(&self) -> v1::WorkersResponse {
        let request = v1::WorkersRequest::default();
        self.admin().await.workers(request).await.unwrap().into_inner()
    }

    pub(crate) async fn worker(&self, name: &str) -> v1::WorkerStatus {
        let workers = self.workers().await.workers;
        workers.into_iter().find(|worker| worker.name == name).unwrap()
    }

    pub(super) async fn set_worker(
        &self,
        name: &str,
        change: Change,
    ) -> Result<v1::WorkerStatus, Status> {
        let request = v1::SetWorkerRequest {
            cluster_id: self.status().await.cluster_id,
            name: name.to_owned(),
            change: Some(change),
            order: None,
        };
        let set = self.admin().await.set_worker(request).await;
        set.map(Response::into_inner).map(|set| set.worker.unwrap())
    }

    async fn holds_the_lease(&self) {
        eventually("it holds the lease", || async {
            self.workers().await.lease_holder == self.address()
        })
        .await;
    }
}

pub(super) fn rate(per_second: impl Into<Option<u64>>) -> Change {
    Change::Rate(v1::WorkerRate { per_second: per_second.into() })
}

fn pause(time: Duration) -> Change {
    Change::PauseMs(time.as_millis() as u64)
}

#[tokio::test]
async fn pause_takes_effect_at_once_and_survives_the_holder() {
    let mut first = Cluster::start(3).await;
    first.holds_the_lease().await;
    let mut second = first.another().await;
    let set = second.set_worker("repair", pause(HOUR)).await.unwrap();
    assert!(set.pause_left_ms.is_some_and(|left| left > 3_500_000), "{set:?}");
    second.set_worker("repair", rate(1_000)).await.unwrap();
    for cluster in [&first, &second] {
        assert_eq!(cluster.workers().await.lease_holder, first.address());
        let shown = cluster.worker("repair").await;
        assert_eq!(
            (shown.rate, shown.budget, shown.unit()),
            (1_000, 200 << 20, v1::WorkerUnit::Bytes)
        );
        assert!(shown.pause_left_ms.is_some());
    }
    first.put("/file", b"data", &[1, 2]).await;
    // Chunks that are not repaired are still counted.
    let is_paused = async |cluster: &Cluster| {
        let repair = cluster.worker("repair").await;
        repair.activity() == v1::WorkerActivity::Paused && repair.queued == 1
    };
    eventually("it is paused", || is_paused(&second)).await;
    first.stop().await;
    second.holds_the_lease().await;
    eventually("it is still paused", || is_paused(&second)).await;
    assert_eq!(second.replicas("/file").await.len(), 2);
    assert_eq!(second.worker("repair").await.rate, 1_000);

    let resumed = second.set_worker("repair", pause(Duration::ZERO)).await.unwrap();
    assert_eq!(resumed.pause_left_ms, None);
    eventually("it is repaired", || async { second.replicas("/file").await.len() == 3 }).await;
    let reset = second.set_worker("repair", rate(None)).await.unwrap();
    assert_eq!(reset.rate, reset.budget);
    second.stop().await;
}

#[tokio::test]
async fn invalid_worker_settings_are_refused_by_name() {
    let cluster = Cluster::start(0).await;
    cluster.holds_the_lease().await;
    let unknown = cluster.set_worker("unheard-of", rate(1)).await;
    let message = unknown.as_ref().unwrap_err().message();
    assert!(
        message.contains("repair, drain, policy, trim, rebalance, reaper, delete"),
        "{message}"
    );
    assert_eq!(refused(unknown), ErrorCode::InvalidArgument);
    let for_ever = cluster.set_worker("repair", pause(HOUR * 24 * 8)).await;
    assert_eq!(refused(for_ever), ErrorCode::InvalidArgument);
    let request = v1::SetWorkerRequest {
        cluster_id: vec![9; 16].into(),
        name: "repair".to_owned(),
        change: Some(rate(1)),
        order: None,
    };
    let elsewhere = cluster.admin().await.set_worker(request).await;
    assert_eq!(refused(elsewhere), ErrorCode::WrongCluster);
}

#[tokio::test]
async fn without_a_lease_holder_nothing_runs_or_is_set() {
    let engine: Arc<dyn dfs_metadata::engine::Engine> = Arc::new(MemoryEngine::new());
    engine.lease("workers", "127.0.0.1:1", HOUR, None).await.unwrap().unwrap();
    let cluster = Cluster::with(settings(), engine, 0).await;
    let shown = cluster.workers().await;
    assert_eq!(shown.lease_holder, "");
    assert!(shown.workers.iter().all(|w| w.activity() == v1::WorkerActivity::Stopped), "{shown:?}");
    let set = cluster.set_worker("repair", rate(1)).await;
    assert_eq!(refused(set), ErrorCode::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn repair_keeps_its_rate() {
    const FILES: u64 = 5;
    const BYTES: u64 = 1_000;
    const PER_SECOND: u64 = 128 << 10;
    // Time jumps while all tasks are idle; no node may be lost by that.
    let settings = Settings {
        suspect_after_ms: 3_600_000,
        lost_after_ms: 3_600_000,
        worker_lease_ms: 3_600_000,
        ..settings()
    };
    let cluster = Cluster::with(settings, Arc::new(MemoryEngine::new()), 3).await;
    cluster.holds_the_lease().await;
    cluster.set_worker("repair", rate(PER_SECOND)).await.unwrap();
    let started = Instant::now();
    for file in 0..FILES {
        cluster.put(&format!("/{file}"), &[1; BYTES as usize], &[1, 2]).await;
    }
    eventually("three replicas each", || async { cluster.node(3).chunks() as u64 == FILES }).await;
    // The last one may begin once those before it are paid for.
    let least = Duration::from_secs((FILES - 1) * move_cost(BYTES) / PER_SECOND);
    assert!(started.elapsed() >= least, "{:?}", started.elapsed());
}
