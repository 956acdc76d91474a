//! Nodes and disks are emptied.

use std::collections::BTreeSet;
use std::sync::Arc;

use dfs_coordinator::Settings;
use dfs_metadata::memory::MemoryEngine;
use dfs_proto::v1;
use dfs_types::{ErrorCode, NodeId, move_cost};
use tonic::{Response, Status};

use super::administering::{id, refusal};
use super::workers::rate;
use crate::cluster::{Cluster, eventually, settings};

impl Cluster {
    pub(super) async fn drain(
        &self,
        node: u128,
        is_dry_run: bool,
    ) -> Result<v1::DrainResponse, Status> {
        let (cluster_id, node_id) = (self.id().await, id(node));
        let request =
            v1::DrainRequest { cluster_id, node_id, is_dry_run, ..v1::DrainRequest::default() };
        self.admin().await.drain(request).await.map(Response::into_inner)
    }

    /// Returns the plan of draining a node together with others.
    async fn plan_drain(&self, node: u128, others: &[u128]) -> v1::MovePlan {
        let request = v1::DrainRequest {
            cluster_id: self.id().await,
            node_id: id(node),
            is_dry_run: true,
            others: others.iter().map(|other| id(*other)).collect(),
        };
        self.admin().await.drain(request).await.unwrap().into_inner().plan.unwrap()
    }

    async fn undrain(&self, node: u128) -> v1::NodeState {
        let (cluster_id, node_id) = (self.id().await, id(node));
        let request = v1::UndrainRequest { cluster_id, node_id };
        self.admin().await.undrain(request).await.unwrap().into_inner().state()
    }

    async fn retire(&self, node: u128, is_undo: bool) -> Option<v1::MovePlan> {
        let disk_id = self.node(node).disk.to_bytes().to_vec().into();
        let request = v1::RetireDiskRequest {
            cluster_id: self.id().await,
            node_id: id(node),
            disk_id,
            is_undo,
            is_dry_run: false,
        };
        self.admin().await.retire_disk(request).await.unwrap().into_inner().plan
    }

    async fn drain_detail(&self) -> String {
        let workers = self.status().await.workers;
        workers.into_iter().find(|worker| worker.name == "drain").unwrap().state
    }

    async fn holders(&self, path: &str) -> BTreeSet<u128> {
        self.replicas(path).await.into_keys().collect()
    }
}

#[tokio::test]
async fn drained_nodes_are_empty_and_can_be_deregistered() {
    let cluster = Cluster::start(5).await;
    let mut files = Vec::new();
    for number in 0..20 {
        let nodes = [[1, 2, 4], [1, 4, 5], [2, 3, 5], [3, 4, 5]][number % 4];
        let path = format!("/file-{number}");
        let chunk = cluster.put(&path, b"data", &nodes).await;
        files.push((path, chunk));
    }
    let plan = cluster.drain(4, true).await.unwrap();
    assert_eq!(plan.state(), v1::NodeState::Active, "a dry run changes nothing");
    let plan = plan.plan.unwrap();
    assert_eq!((plan.targets, plan.blockers.len()), (4, 0), "{plan:?}");
    for node in [4, 5] {
        assert_eq!(cluster.drain(node, false).await.unwrap().state(), v1::NodeState::Draining);
    }
    // Files written meanwhile go to the other nodes.
    cluster.put("/written-meanwhile", b"data", &[1, 2, 3]).await;
    for node in [4, 5] {
        cluster.until(node, v1::NodeState::Drained).await;
        assert_eq!(cluster.node(node).chunks(), 0, "truly empty");
    }
    for (path, chunk) in &files {
        assert_eq!(cluster.holders(path).await, BTreeSet::from([1, 2, 3]), "{path}");
        assert!((1..=3).all(|node| cluster.node(node).holds(*chunk).is_some()), "{path}");
    }
    let metrics = crate::cluster::http_get(&cluster.handle, "/metrics").await;
    let moves = metrics.lines().find_map(|line| {
        line.strip_prefix("dfs_coordinator_moves_total{reason=\"drain\"} ")?.parse::<u64>().ok()
    });
    assert!(moves >= Some(30), "{metrics}");
    for node in [4, 5] {
        cluster.deregister(node).await.unwrap();
        assert_eq!(cluster.state(node).await, None);
    }
}

#[tokio::test]
async fn drain_without_another_node_says_so_and_can_be_taken_back() {
    let mut cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    let plan = cluster.drain(3, false).await.unwrap().plan.unwrap();
    assert_eq!((plan.targets, plan.checked, plan.stuck), (0, 1, 1), "{plan:?}");
    assert!(plan.blockers[0].starts_with("nothing can take them: "), "{plan:?}");
    assert!(plan.blockers[0].contains("add datanodes"), "{plan:?}");
    eventually("it says what is missing", || async {
        cluster.drain_detail().await.contains("1 cannot be placed on another node: add datanodes")
    })
    .await;
    assert_eq!(cluster.undrain(3).await, v1::NodeState::Active);
    assert_eq!(cluster.state(3).await, Some(v1::NodeState::Active));
    assert!(cluster.node(3).holds(chunk).is_some() && cluster.node(3).deletes().is_empty());
    eventually("it is over", || async { cluster.drain_detail().await == "nothing to drain" }).await;
    // With another node it works.
    cluster.drain(3, false).await.unwrap();
    cluster.add_node(4).await;
    cluster.until(3, v1::NodeState::Drained).await;
    assert_eq!(cluster.holders("/file").await, BTreeSet::from([1, 2, 4]));
    assert_eq!(cluster.undrain(3).await, v1::NodeState::Active);
}

#[tokio::test]
async fn drain_taken_back_half_way_keeps_every_replica() {
    let cluster = Cluster::start(4).await;
    let mut chunks = Vec::new();
    for number in 0..30 {
        chunks.push(cluster.put(&format!("/file-{number}"), &[7; 100], &[1, 2, 3]).await);
    }
    cluster.set_worker("drain", rate(10 * move_cost(0))).await.unwrap();
    cluster.drain(3, false).await.unwrap();
    eventually("some are moved", || async { cluster.node(4).chunks() >= 3 }).await;
    assert_eq!(cluster.undrain(3).await, v1::NodeState::Active);
    eventually("it is over", || async { cluster.drain_detail().await == "nothing to drain" }).await;
    eventually("what was moved is deleted", || async {
        (1..=4).map(|node| cluster.node(node).chunks()).sum::<usize>() == 90
    })
    .await;
    assert!(cluster.node(3).chunks() > 0, "it was taken back half-way");
    for (number, chunk) in chunks.iter().enumerate() {
        let holders = cluster.holders(&format!("/file-{number}")).await;
        assert_eq!(holders.len(), 3, "{holders:?}");
        assert!(holders.iter().all(|node| cluster.node(*node).holds(*chunk).is_some()));
    }
    assert!(cluster.plan("/new", 1).await.chunks[0].nodes.len() == 3);
    // It takes chunks again, and can be drained again.
    cluster.set_worker("drain", rate(0)).await.unwrap();
    cluster.drain(3, false).await.unwrap();
    cluster.until(3, v1::NodeState::Drained).await;
    assert_eq!(cluster.node(3).chunks(), 0);
}

#[tokio::test]
async fn chunk_that_is_not_confirmed_yet_keeps_a_node_from_being_drained() {
    let cluster = Cluster::start(4).await;
    let (request, chunk) = cluster.write("/file", b"data", &[1, 2, 3]).await;
    cluster.drain(3, false).await.unwrap();
    eventually("it waits", || async { cluster.drain_detail().await.contains("1 waiting for") })
        .await;
    assert_eq!(cluster.state(3).await, Some(v1::NodeState::Draining));
    cluster.client().await.confirm_upload(request).await.unwrap();
    cluster.until(3, v1::NodeState::Drained).await;
    assert_eq!(cluster.holders("/file").await, BTreeSet::from([1, 2, 4]));
    assert!(cluster.node(3).holds(chunk).is_none());
}

#[tokio::test]
async fn silent_node_is_not_drained_until_it_returns() {
    let settings = Settings { lost_after_ms: 600_000, ..settings() };
    let cluster = Cluster::with(settings, Arc::new(MemoryEngine::new()), 4).await;
    cluster.put("/file", b"data", &[1, 2, 3]).await;
    cluster.node(3).silence();
    cluster.until(3, v1::NodeState::Suspect).await;
    let plan = cluster.drain(3, false).await.unwrap().plan.unwrap();
    assert!(plan.blockers.iter().any(|why| why.contains("once it responds")), "{plan:?}");
    cluster.node(3).beat().await;
    cluster.until(3, v1::NodeState::Drained).await;
    assert_eq!(cluster.holders("/file").await, BTreeSet::from([1, 2, 4]));
}

#[tokio::test]
async fn retired_disk_is_emptied() {
    let cluster = Cluster::start(4).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    assert!(cluster.retire(3, false).await.is_some());
    eventually("it is empty", || async { cluster.node(3).holds(chunk).is_none() }).await;
    assert_eq!(cluster.holders("/file").await, BTreeSet::from([1, 2, 4]));
    assert_eq!(cluster.state(3).await, Some(v1::NodeState::Active));
    let can_be_removed = || async {
        let nodes = cluster.status().await.nodes;
        nodes.iter().flat_map(|node| &node.disks).filter(|disk| disk.can_be_removed).count() == 1
    };
    eventually("that is recorded", can_be_removed).await;
    assert_eq!(cluster.retire(3, true).await, None, "no plan when it is taken back");
    let request = v1::RetireDiskRequest {
        cluster_id: cluster.id().await,
        node_id: id(3),
        disk_id: vec![9; 16].into(),
        ..v1::RetireDiskRequest::default()
    };
    let refused = cluster.admin().await.retire_disk(request).await;
    let text = refusal(refused, ErrorCode::NotFound);
    assert!(text.contains(&NodeId(3).to_string()), "{text}");
}

#[tokio::test]
async fn plan_of_a_drain_names_only_nodes_that_can_take_replicas_and_stay() {
    let cluster = Cluster::start(4).await;
    cluster.put("/a", b"data", &[1, 2, 3]).await;
    cluster.put("/b", b"data", &[2, 3, 4]).await;
    let found =
        |plan: v1::MovePlan| (plan.target_nodes, plan.checked, plan.stuck, plan.blockers.len());
    assert_eq!(found(cluster.plan_drain(3, &[]).await), (vec![id(1), id(4)], 2, 0, 0));
    assert_eq!(found(cluster.plan_drain(3, &[4]).await), (vec![id(1)], 2, 1, 1));
    let plan = cluster.plan_drain(3, &[1, 4]).await;
    assert_eq!((plan.room, plan.targets, plan.stuck), (0, 0, 2), "{plan:?}");
    assert_eq!(plan.blockers.len(), 1, "{plan:?}");
}

#[tokio::test]
async fn only_disk_of_a_node_gets_no_builds_while_it_retires() {
    let mut cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    // It may take until the next heartbeat until its node knows, or longer.
    cluster.node(3).ignore_retiring();
    let plan = cluster.retire(3, false).await.unwrap();
    assert_eq!((plan.targets, plan.stuck), (0, 1), "{plan:?}");
    assert!(plan.blockers[0].starts_with("nothing can take them: "), "{plan:?}");
    eventually("it says what is missing", || async {
        cluster.drain_detail().await.contains("1 cannot be placed on another node: add datanodes")
    })
    .await;
    assert_eq!(cluster.node(3).build_orders(chunk), 0);
    cluster.add_node(4).await;
    eventually("it is moved", || async {
        cluster.holders("/file").await == BTreeSet::from([1, 2, 4])
    })
    .await;
}
