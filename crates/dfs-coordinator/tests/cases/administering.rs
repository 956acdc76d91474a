//! Nodes are admitted, put in maintenance, and removed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dfs_coordinator::Settings;
use dfs_metadata::memory::MemoryEngine;
use dfs_proto::{Failure, v1};
use dfs_types::{ChunkId, ErrorCode, NodeId};
use tonic::{Response, Status};

use crate::cluster::datanode::FakeDataNode;
use crate::cluster::{Cluster, HOUR, eventually, refused, settings};

const MINUTE: Duration = Duration::from_mins(1);

pub(super) fn id(node: u128) -> Bytes {
    NodeId(node).to_bytes().to_vec().into()
}

/// Administrative calls to this cluster.
impl Cluster {
    pub(super) async fn id(&self) -> Bytes {
        self.status().await.cluster_id
    }

    async fn admit(&self, node: u128) -> Result<v1::NodeState, Status> {
        let request = v1::AdmitRequest { cluster_id: self.id().await, node_id: id(node) };
        let admitted = self.admin().await.admit(request).await;
        admitted.map(Response::into_inner).map(|admitted| admitted.state())
    }

    async fn safe_to_stop(&self, nodes: &[u128]) -> Result<v1::SafeToStopResponse, Status> {
        let node_ids = nodes.iter().copied().map(id).collect();
        let request = v1::SafeToStopRequest { cluster_id: self.id().await, node_ids };
        self.admin().await.safe_to_stop(request).await.map(Response::into_inner)
    }

    async fn maintenance(
        &self,
        node: u128,
        ttl: Duration,
        require_safe: bool,
    ) -> Result<v1::MaintenanceResponse, Status> {
        let request = v1::MaintenanceRequest {
            cluster_id: self.id().await,
            node_id: id(node),
            ttl_ms: ttl.as_millis() as u64,
            require_safe,
        };
        self.admin().await.maintenance(request).await.map(Response::into_inner)
    }

    /// Announces maintenance, or ends it with a `ttl` of zero, without checking that it is safe.
    async fn maintain(&self, node: u128, ttl: Duration) {
        let answer = self.maintenance(node, ttl, false).await.unwrap();
        assert_eq!(answer, v1::MaintenanceResponse { is_granted: true, safety: None });
    }

    pub(super) async fn deregister(&self, node: u128) -> Result<(), Status> {
        self.send_deregister(node, false).await
    }

    async fn send_deregister(&self, node: u128, is_dry_run: bool) -> Result<(), Status> {
        let (cluster_id, node_id) = (self.id().await, id(node));
        let request = v1::DeregisterRequest { cluster_id, node_id, is_dry_run };
        self.admin().await.deregister(request).await.map(|_| ())
    }

    pub(crate) async fn forget(&self, node: u128) -> Result<(), Status> {
        let response = self.forget_with(node, None).await?;
        assert_eq!(response.loss, None);
        Ok(())
    }

    async fn forget_with(
        &self,
        node: u128,
        accepted: Option<v1::Loss>,
    ) -> Result<v1::ForgetResponse, Status> {
        self.send_forget(node, accepted, false).await
    }

    async fn send_forget(
        &self,
        node: u128,
        accepted: Option<v1::Loss>,
        is_dry_run: bool,
    ) -> Result<v1::ForgetResponse, Status> {
        let (cluster_id, node_id) = (self.id().await, id(node));
        let request = v1::ForgetRequest { cluster_id, node_id, accepted, is_dry_run };
        self.admin().await.forget(request).await.map(Response::into_inner)
    }

    async fn shown(&self, node: u128) -> Option<v1::NodeStatus> {
        let nodes = self.status().await.nodes.into_iter();
        nodes.into_iter().find(|shown| shown.node.as_ref().unwrap().node_id == id(node))
    }

    pub(super) async fn state(&self, node: u128) -> Option<v1::NodeState> {
        self.shown(node).await.map(|shown| shown.node.unwrap().state())
    }

    /// Waits until a silent node is in this state.
    pub(super) async fn until(&self, node: u128, state: v1::NodeState) {
        eventually(&format!("node {node} is {state:?}"), || async {
            self.state(node).await == Some(state)
        })
        .await;
    }

    /// Writes a file with one replica.
    async fn put_sole(&self, node: u128) -> ChunkId {
        self.make_directory("/one").await;
        self.replicate(Some("/one"), 1).await.unwrap();
        self.put("/one/sole", b"data", &[node]).await
    }

    async fn is_whole(&self) -> bool {
        self.replication().await.is_some_and(|status| {
            (status.under_replicated, status.missing, status.bad_replicas) == (0, 0, 0)
        })
    }
}

pub(super) fn refusal<T: std::fmt::Debug>(result: Result<T, Status>, code: ErrorCode) -> String {
    let failure = Failure::from_status(&result.expect_err("the call should have been refused"));
    assert_eq!(failure.code, code, "{failure:?}");
    failure.message
}

#[tokio::test]
async fn joining_node_takes_chunks_once_admitted() {
    let settings = Settings { auto_admit: false, ..settings() };
    let cluster = Cluster::with(settings, Arc::new(MemoryEngine::new()), 1).await;
    assert_eq!(cluster.state(1).await, Some(v1::NodeState::Joining));
    assert_eq!(cluster.node(1).node_state(), v1::NodeState::Joining);
    for _ in 0..2 {
        assert_eq!(cluster.admit(1).await.unwrap(), v1::NodeState::Active);
    }
    assert_eq!(cluster.state(1).await, Some(v1::NodeState::Active), "at once");
    eventually("the node learns its state", || async {
        cluster.node(1).node_state() == v1::NodeState::Active
    })
    .await;
    // It returns in its stored state.
    cluster.node(1).register("secret").await.unwrap();
    assert_eq!(cluster.state(1).await, Some(v1::NodeState::Active));
    refusal(cluster.admit(9).await, ErrorCode::NotFound);
    // Even before its first heartbeat.
    let early = FakeDataNode::serve(2, &cluster.address(), &cluster.neighbours).await;
    early.register("secret").await.unwrap();
    assert_eq!(cluster.admit(2).await.unwrap(), v1::NodeState::Active);
    early.beat().await;
    assert_eq!(cluster.state(2).await, Some(v1::NodeState::Active));
    cluster.deregister(2).await.unwrap();
    let text = refusal(cluster.admit(2).await, ErrorCode::PermissionDenied);
    assert!(text.contains("was removed"), "{text}");
}

#[tokio::test]
async fn calls_for_another_cluster_or_no_node_are_refused() {
    let cluster = Cluster::start(1).await;
    let (ours, other) = (cluster.id().await, Bytes::from(vec![7; 16]));
    let mut admin = cluster.admin().await;
    for (cluster_id, node_id, code) in [
        (other, id(1), ErrorCode::WrongCluster),
        (Bytes::new(), id(1), ErrorCode::InvalidArgument),
        (Bytes::from(vec![7; 15]), id(1), ErrorCode::InvalidArgument),
        (ours.clone(), Bytes::new(), ErrorCode::InvalidArgument),
        (ours.clone(), id(9), ErrorCode::NotFound),
    ] {
        let (cluster_id, node_id) = (|| cluster_id.clone(), || node_id.clone());
        let request = v1::AdmitRequest { cluster_id: cluster_id(), node_id: node_id() };
        assert_eq!(refused(admin.admit(request).await), code);
        let request = v1::SafeToStopRequest { cluster_id: cluster_id(), node_ids: vec![node_id()] };
        assert_eq!(refused(admin.safe_to_stop(request).await), code);
        for require_safe in [false, true] {
            let request = v1::MaintenanceRequest {
                cluster_id: cluster_id(),
                node_id: node_id(),
                ttl_ms: 1,
                require_safe,
            };
            assert_eq!(refused(admin.maintenance(request).await), code);
        }
        let request = v1::DeregisterRequest {
            cluster_id: cluster_id(),
            node_id: node_id(),
            is_dry_run: false,
        };
        assert_eq!(refused(admin.deregister(request).await), code);
        let (cluster_id, node_id) = (cluster_id(), node_id());
        let request = v1::ForgetRequest { cluster_id, node_id, ..v1::ForgetRequest::default() };
        assert_eq!(refused(admin.forget(request).await), code);
    }
    for node_ids in [vec![], vec![id(1); 101]] {
        let request = v1::SafeToStopRequest { cluster_id: ours.clone(), node_ids };
        assert_eq!(refused(admin.safe_to_stop(request).await), ErrorCode::InvalidArgument);
    }
    let longer = cluster.maintenance(1, HOUR * 24 + Duration::from_millis(1), false).await;
    assert_eq!(refused(longer), ErrorCode::InvalidArgument);
    let request = v1::SetReplicationRequest {
        cluster_id: vec![7; 16].into(),
        replication_factor: 1,
        ..Default::default()
    };
    let text = refusal(admin.set_replication(request).await, ErrorCode::WrongCluster);
    assert!(text.contains(&"07".repeat(16)), "{text}");
}

#[tokio::test]
async fn node_in_maintenance_is_neither_repaired_nor_planned_on() {
    let cluster = Cluster::start(5).await;
    let kept = cluster.put("/kept", b"data", &[1, 2, 3]).await;
    let lost = cluster.put("/lost", b"data", &[1, 2, 5]).await;
    eventually("fully replicated", || cluster.is_whole()).await;
    cluster.maintain(3, MINUTE).await;
    let shown = cluster.shown(3).await.unwrap();
    assert_eq!(shown.node.unwrap().state(), v1::NodeState::Maintenance);
    assert!((30_000..=60_000).contains(&shown.maintenance_left_ms.unwrap()));
    for _ in 0..20 {
        let plan = cluster.plan("/new", 1).await;
        assert!(plan.chunks[0].nodes.iter().all(|node| node.node_id != id(3)));
    }
    cluster.node(3).silence();
    cluster.node(5).silence();
    // By then the other would have been lost long ago, too.
    eventually("the lost node's replica is rebuilt", || async {
        cluster.state(5).await == Some(v1::NodeState::Lost)
            && cluster.is_whole().await
            && !cluster.replicas("/lost").await.contains_key(&5)
    })
    .await;
    assert_eq!(cluster.state(3).await, Some(v1::NodeState::Maintenance));
    assert_eq!(cluster.replicas("/kept").await.into_keys().collect::<Vec<_>>(), [1, 2, 3]);
    assert!(cluster.nodes.values().all(|node| !node.replicated().contains(&kept)));
    assert!(cluster.nodes.values().any(|node| node.replicated().contains(&lost)));
    // It ends by itself.
    cluster.clock.advance(MINUTE);
    eventually("its replica is rebuilt", || async {
        !cluster.replicas("/kept").await.contains_key(&3) && cluster.is_whole().await
    })
    .await;
    assert_eq!(cluster.state(3).await, Some(v1::NodeState::Lost));
}

#[tokio::test]
async fn returning_node_stays_in_maintenance_until_its_end() {
    let cluster = Cluster::start(3).await;
    cluster.maintain(3, MINUTE).await;
    let node = cluster.node(3).clone();
    node.silence();
    node.register("secret").await.unwrap();
    node.beat().await;
    assert_eq!(cluster.state(3).await, Some(v1::NodeState::Maintenance));
    eventually("it learns its state", || async { node.node_state() == v1::NodeState::Maintenance })
        .await;
    cluster.maintain(3, MINUTE * 2).await;
    cluster.clock.advance(MINUTE);
    let left = cluster.shown(3).await.unwrap().maintenance_left_ms;
    assert!((30_000..=60_000).contains(&left.expect("renewed")), "{left:?}");
    cluster.maintain(3, Duration::ZERO).await;
    let shown = cluster.shown(3).await.unwrap();
    assert_eq!(shown.node.unwrap().state(), v1::NodeState::Active);
    assert_eq!(shown.maintenance_left_ms, None);
    cluster.maintain(3, MINUTE).await;
    cluster.clock.advance(MINUTE);
    assert_eq!(cluster.state(3).await, Some(v1::NodeState::Active), "the maintenance is over");
}

#[tokio::test]
async fn absent_nodes_count_as_stopped() {
    // The absent node stays suspect.
    let settings = Settings { lost_after_ms: 600_000, ..settings() };
    let cluster = Cluster::with(settings, Arc::new(MemoryEngine::new()), 4).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    let safe = cluster.safe_to_stop(&[1]).await.unwrap();
    assert!(safe.is_safe && safe.revision > 0, "{safe:?}");
    assert_eq!((safe.chunks_below, safe.chunks_unreadable, &safe.reason[..]), (0, 0, ""));
    let two = cluster.safe_to_stop(&[1, 2]).await.unwrap();
    assert_eq!((two.is_safe, two.chunks_below, two.chunks_unreadable), (false, 1, 0));
    assert!(two.reason.contains(&chunk.to_string()), "{}", two.reason);
    cluster.node(2).silence();
    cluster.until(2, v1::NodeState::Suspect).await;
    let one = cluster.safe_to_stop(&[1]).await.unwrap();
    assert_eq!((one.is_safe, one.chunks_below), (false, 1));
    let named = format!("{} (suspect)", NodeId(2));
    assert!(one.reason.contains(&named), "{}", one.reason);
    assert!(cluster.safe_to_stop(&[4]).await.unwrap().is_safe, "it holds nothing");
    cluster.node(2).beat().await;
    cluster.until(2, v1::NodeState::Active).await;
    assert!(cluster.safe_to_stop(&[1]).await.unwrap().is_safe);
    cluster.maintain(2, MINUTE).await;
    let one = cluster.safe_to_stop(&[1]).await.unwrap();
    assert!(!one.is_safe && one.reason.contains("(maintenance)"), "{}", one.reason);
}

#[tokio::test]
async fn concurrent_maintenance_requests_grant_only_one() {
    let first = Cluster::start(3).await;
    first.put("/file", b"data", &[1, 2, 3]).await;
    let second = first.another().await;
    for round in 0..20 {
        let other = if round % 2 == 0 { &first } else { &second };
        let answers =
            tokio::join!(first.maintenance(1, MINUTE, true), other.maintenance(2, MINUTE, true),);
        let answers = [answers.0.unwrap(), answers.1.unwrap()];
        let granted = answers.iter().filter(|answer| answer.is_granted).count();
        assert_eq!(granted, 1, "round {round}: {answers:?}");
        for answer in &answers {
            assert_eq!(answer.safety.as_ref().unwrap().is_safe, answer.is_granted);
        }
        let (node, refused) = if answers[0].is_granted { (1, 2) } else { (2, 1) };
        assert!(!second.maintenance(refused, MINUTE, true).await.unwrap().is_granted);
        // Renewing one's own maintenance needs no check.
        let renewed = second.maintenance(node, MINUTE, true).await.unwrap();
        assert_eq!(renewed, v1::MaintenanceResponse { is_granted: true, safety: None });
        first.maintain(node, Duration::ZERO).await;
    }
}

#[tokio::test]
async fn deregister_needs_a_node_that_reports_itself_empty() {
    let settings = Settings { lost_after_ms: 600_000, ..settings() };
    let mut cluster = Cluster::with(settings, Arc::new(MemoryEngine::new()), 5).await;
    cluster.put("/file", b"data", &[1, 2, 3]).await;
    let text = refusal(cluster.deregister(1).await, ErrorCode::NotEmpty);
    assert!(text.contains("1 chunk"), "{text}");
    assert_eq!(cluster.state(1).await, Some(v1::NodeState::Active));
    // Its disk is a new one, but the records still name the old one.
    cluster.put_sole(4).await;
    let fourth = cluster.node(4).clone();
    fourth.silence();
    fourth.replace_disk();
    fourth.register("secret").await.unwrap();
    fourth.beat().await;
    let text = refusal(cluster.deregister(4).await, ErrorCode::NotEmpty);
    assert!(text.contains("names 1 chunk on node"), "{text}");
    let taken = || async {
        let plan = cluster.plan("/new", 1).await;
        plan.chunks[0].nodes[0].node_id == id(4)
    };
    eventually("it takes chunks again", taken).await;
    let fifth = cluster.node(5).clone();
    fifth.silence();
    cluster.until(5, v1::NodeState::Suspect).await;
    let text = refusal(cluster.deregister(5).await, ErrorCode::NotEmpty);
    assert!(text.contains("forget"), "{text}");
    fifth.beat().await;
    for node in [1, 4] {
        refusal(cluster.send_deregister(node, true).await, ErrorCode::NotEmpty);
    }
    cluster.send_deregister(5, true).await.unwrap();
    assert_eq!(cluster.state(5).await, Some(v1::NodeState::Active), "a dry run changes nothing");
    for _ in 0..2 {
        cluster.deregister(5).await.unwrap();
    }
    cluster.send_deregister(5, true).await.unwrap();
    assert_eq!(cluster.state(5).await, None);
    eventually("it learns its state", || async { fifth.node_state() == v1::NodeState::Removed })
        .await;
    refusal(fifth.register("secret").await, ErrorCode::PermissionDenied);
    // It is removed for all callers.
    refusal(cluster.maintenance(5, MINUTE, true).await, ErrorCode::PermissionDenied);
    refusal(cluster.safe_to_stop(&[5]).await, ErrorCode::PermissionDenied);
    // A node that never joined holds nothing.
    let new = FakeDataNode::serve(6, &cluster.address(), &cluster.neighbours).await;
    new.register("secret").await.unwrap();
    cluster.deregister(6).await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn forget_needs_a_lost_node_without_last_replicas() {
    let mut cluster = Cluster::start(3).await;
    cluster.put("/file", b"data", &[1, 2, 3]).await;
    let sole = cluster.put_sole(2).await;
    let text = refusal(cluster.forget(3).await, ErrorCode::NotEmpty);
    assert!(text.contains("is active"), "{text}");
    cluster.maintain(3, MINUTE).await;
    cluster.node(2).silence();
    cluster.node(3).silence();
    cluster.until(2, v1::NodeState::Lost).await;
    let text = refusal(cluster.forget(3).await, ErrorCode::NotEmpty);
    assert!(text.contains("in maintenance"), "{text}");
    let needed = cluster.forget_with(2, None).await.unwrap().loss.unwrap();
    assert_eq!(cluster.send_forget(2, None, true).await.unwrap().loss.as_ref(), Some(&needed));
    assert_eq!(needed.listed[0].chunk_id, sole.to_bytes()[..]);
    assert_eq!(needed.loss.map(|loss| (loss.chunks, loss.bytes)), Some((1, 4)));
    assert_eq!(cluster.state(2).await, Some(v1::NodeState::Lost));
    cluster.maintain(3, Duration::ZERO).await;
    cluster.until(3, v1::NodeState::Lost).await;
    assert_eq!(cluster.send_forget(3, None, true).await.unwrap().loss, None);
    assert_eq!(cluster.state(3).await, Some(v1::NodeState::Lost), "a dry run changes nothing");
    for _ in 0..2 {
        cluster.forget(3).await.unwrap();
    }
    assert_eq!(cluster.state(3).await, None);
    // Its replicas are lost, and rebuilt.
    cluster.node(2).beat().await;
    cluster.add_node(4).await;
    eventually("three replicas again", || async {
        cluster.replicas("/file").await.into_keys().collect::<Vec<_>>() == [1, 2, 4]
    })
    .await;
    refusal(cluster.node(3).register("secret").await, ErrorCode::PermissionDenied);
}

#[tokio::test]
async fn accepted_loss_is_exactly_what_is_forgotten() {
    let settings = Settings { replication_factor: Some(1), ..settings() };
    let cluster = Cluster::with(settings, Arc::new(MemoryEngine::new()), 2).await;
    cluster.put("/first", b"data", &[2]).await;
    cluster.node(2).silence();
    cluster.until(2, v1::NodeState::Lost).await;
    let shown = cluster.forget_with(2, None).await.unwrap().loss.unwrap();
    // It returns, and is given another chunk.
    cluster.node(2).beat().await;
    cluster.put("/second", b"more", &[2]).await;
    let text = refusal(cluster.forget_with(2, shown.loss).await, ErrorCode::NotEmpty);
    assert!(text.contains("is active"), "{text}");
    cluster.node(2).silence();
    cluster.until(2, v1::NodeState::Lost).await;
    let now = cluster.forget_with(2, shown.loss).await.unwrap().loss.unwrap();
    assert_eq!((now.loss.unwrap().chunks, now.listed.len()), (2, 2));
    assert_eq!(cluster.state(2).await, Some(v1::NodeState::Lost), "nothing was changed");
    assert_eq!(cluster.forget_with(2, now.loss).await.unwrap().loss, None);
    assert_eq!(cluster.state(2).await, None);
    eventually("status says what is lost", || async {
        cluster.replication().await.is_some_and(|counts| counts.missing == 2)
    })
    .await;
    let found = cluster.check().await;
    assert_eq!((found.skipped, found.missing_chunks), (0, 2));
    assert!(found.damaged.iter().all(|chunk| chunk.is_lost), "no disk holds them any more");
}
