//! What disks hold is compared with the records.

use std::sync::Arc;

use dfs_coordinator::Settings;
use dfs_metadata::memory::MemoryEngine;
use dfs_proto::v1;
use dfs_types::ErrorCode;

use crate::cluster::{Cluster, HOUR, eventually, refused, settings};

impl Cluster {
    async fn check_request(&self, check: u64) -> v1::CheckReplicasRequest {
        let cluster_id = self.status().await.cluster_id;
        v1::CheckReplicasRequest { cluster_id, check, order: None }
    }

    /// Compares all disks with the records, from now on, and returns what was found.
    pub(crate) async fn check(&self) -> v1::CheckReplicasResponse {
        let mut admin = self.admin().await;
        let mut request = self.check_request(0).await;
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            match admin.check_replicas(request.clone()).await.map(tonic::Response::into_inner) {
                Ok(found) if found.is_done => return found,
                Ok(found) => request.check = found.check,
                // No coordinator holds the lease yet.
                Err(error) => assert!(request.check == 0, "{error}"),
            }
            assert!(tokio::time::Instant::now() < deadline, "not done in time");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

/// Settings under which only requests begin a comparison.
fn on_request() -> Settings {
    Settings { reconcile_settle_ms: 3_600_000, ..settings() }
}

pub(crate) async fn started(nodes: u128) -> Cluster {
    let replication_factor = u8::try_from(nodes).ok();
    let settings = Settings { replication_factor, ..on_request() };
    Cluster::with(settings, Arc::new(MemoryEngine::new()), nodes).await
}

async fn is_whole(cluster: &Cluster) -> bool {
    cluster.replication().await.is_some_and(|status| {
        (status.under_replicated, status.missing, status.bad_replicas) == (0, 0, 0)
    })
}

/// D3.
#[tokio::test]
async fn d3_vanished_replicas_are_found_and_repaired() {
    let cluster = started(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    let other = cluster.put("/other", b"other", &[1, 2, 3]).await;
    let clean = cluster.check().await;
    assert_eq!((clean.records, clean.gone, clean.skipped, clean.orphans), (2, 0, 0, 0));
    for id in [1, 2] {
        cluster.node(id).lose(chunk);
    }
    let found = cluster.check().await;
    assert_eq!((found.gone, found.missing_chunks, found.degraded_chunks), (2, 0, 1));
    assert_eq!(found.damaged.len(), 1);
    assert_eq!(found.damaged[0].chunk_id, chunk.to_bytes()[..]);
    eventually("repaired", || async {
        [1, 2, 3].iter().all(|id| cluster.node(*id).holds(chunk).is_some())
            && is_whole(&cluster).await
    })
    .await;
    assert_eq!(cluster.check().await.gone, 0);
    assert!(cluster.node(1).holds(other).is_some());
}

/// Only a chunk that no disk holds may be deleted as lost.
#[tokio::test]
async fn chunk_on_a_disk_that_was_not_compared_is_missing_but_not_lost() {
    let settings = Settings { replication_factor: Some(1), ..on_request() };
    let cluster = Cluster::with(settings, Arc::new(MemoryEngine::new()), 2).await;
    let lost = cluster.put("/lost", b"data", &[1]).await;
    cluster.put("/silent", b"data", &[2]).await;
    cluster.node(1).lose(lost);
    let found = cluster.check().await;
    assert_eq!((found.gone, found.missing_chunks, found.skipped), (1, 1, 0));
    assert!(!found.damaged[0].is_lost, "just found");
    cluster.node(2).silence();
    eventually("it is lost", || async {
        cluster.replication().await.is_some_and(|status| status.missing == 2)
    })
    .await;
    let found = cluster.check().await;
    assert_eq!((found.missing_chunks, found.damaged.len()), (2, 2));
    assert!(found.skipped > 0);
    for damaged in &found.damaged {
        assert!(damaged.is_missing);
        assert_eq!(damaged.is_lost, damaged.chunk_id[..] == lost.to_bytes());
    }
}

#[tokio::test]
async fn registration_of_a_node_begins_a_comparison() {
    let settings = Settings { reconcile_settle_ms: 50, ..settings() };
    let cluster = Cluster::with(settings, Arc::new(MemoryEngine::new()), 3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    let second = cluster.node(2).clone();
    second.silence();
    second.lose(chunk);
    second.register("secret").await.unwrap();
    second.beat().await;
    eventually("its replica is built again", || async { second.holds(chunk).is_some() }).await;
}

#[tokio::test]
async fn replica_that_shows_up_again_counts_again() {
    let cluster = started(1).await;
    let chunk = cluster.put("/file", b"data", &[1]).await;
    let lost = cluster.node(1).lose(chunk);
    let found = cluster.check().await;
    assert_eq!((found.gone, found.missing_chunks), (1, 1));
    cluster.node(1).find(chunk, lost);
    let found = cluster.check().await;
    assert_eq!((found.back, found.missing_chunks), (1, 0));
    assert_eq!(cluster.check().await.back, 0);
}

#[tokio::test]
async fn incomplete_list_or_failed_disk_proves_nothing() {
    let cluster = started(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    let (first, third) = (cluster.node(1).clone(), cluster.node(3).clone());
    first.lose(chunk);
    first.list_incompletely(true);
    let found = cluster.check().await;
    assert_eq!((found.gone, found.skipped), (0, 1));
    assert!(cluster.replicas("/file").await.values().all(|bad| !bad));
    first.list_incompletely(false);
    assert_eq!(cluster.check().await.gone, 1);
    third.set_failed_disk(true);
    third.lose(chunk);
    eventually("the fault is known", || async {
        let mut nodes = cluster.status().await.nodes.into_iter();
        nodes.any(|node| node.disks[0].state() == v1::DiskState::Failed)
    })
    .await;
    let found = cluster.check().await;
    assert_eq!((found.gone, found.skipped), (0, 1));
}

#[tokio::test]
async fn comparison_of_another_holder_is_not_known() {
    let cluster = started(1).await;
    cluster.check().await;
    let request = cluster.check_request(77).await;
    let asked = cluster.admin().await.check_replicas(request).await;
    assert_eq!(refused(asked), ErrorCode::Stale);
}

#[tokio::test]
async fn comparison_is_forwarded_to_the_holder_of_the_lease() {
    let cluster = started(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    cluster.check().await;
    let another = cluster.another().await;
    cluster.node(1).lose(chunk);
    assert_eq!(another.check().await.gone, 1);
}

/// Leaves a sealed chunk on some nodes, as an upload does whose client has vanished.
async fn abandoned(cluster: &Cluster) -> dfs_types::ChunkId {
    cluster.write("/never-confirmed", b"lost", &[1, 2, 3]).await.1
}

fn holders(cluster: &Cluster, chunk: dfs_types::ChunkId) -> usize {
    cluster.nodes.values().filter(|node| node.holds(chunk).is_some()).count()
}

/// D4.
#[tokio::test]
async fn d4_chunks_of_interrupted_uploads_disappear_after_two_proofs() {
    let settings = Settings { orphan_age_ms: 0, ..on_request() };
    let cluster = Cluster::with(settings, Arc::new(MemoryEngine::new()), 3).await;
    let kept = cluster.put("/file", b"data", &[1, 2, 3]).await;
    let chunk = abandoned(&cluster).await;
    // Its plan may still be confirmed.
    let found = cluster.check().await;
    assert_eq!((found.orphans, found.deleted_orphans), (0, 0));
    cluster.clock.advance(HOUR * 2);
    let found = cluster.check().await;
    assert_eq!((found.orphans, found.orphan_bytes, found.deleted_orphans), (3, 12, 0));
    assert_eq!(holders(&cluster, chunk), 3);
    let found = cluster.check().await;
    assert_eq!((found.orphans, found.deleted_orphans), (3, 3));
    assert_eq!((holders(&cluster, chunk), holders(&cluster, kept)), (0, 3));
    assert_eq!(cluster.check().await.orphans, 0);
}

#[tokio::test]
async fn orphan_is_kept_until_it_is_old_enough() {
    let cluster = started(3).await;
    let chunk = abandoned(&cluster).await;
    cluster.clock.advance(HOUR * 2);
    for _ in 0..3 {
        assert_eq!(cluster.check().await.deleted_orphans, 0);
    }
    assert_eq!(holders(&cluster, chunk), 3);
    cluster.clock.advance(HOUR * 24);
    assert_eq!(cluster.check().await.deleted_orphans, 3);
}

#[tokio::test]
async fn first_proofs_of_orphans_survive_the_holder_of_the_lease() {
    let mut cluster = started(3).await;
    let chunk = abandoned(&cluster).await;
    cluster.clock.advance(HOUR * 2);
    assert_eq!(cluster.check().await.orphans, 3);
    let status = gc_status(&cluster, 2).await;
    assert_eq!((status.unneeded, status.unneeded_bytes, status.replicas.len()), (3, 12, 2));
    for (listed, node) in status.replicas.iter().zip(1..) {
        assert_eq!(listed.chunk_id, chunk.to_bytes()[..]);
        assert_eq!(listed.node_id, dfs_types::NodeId(node).to_bytes()[..]);
        assert_eq!((listed.bytes, &listed.path[..]), (4, &b"/origin"[..]));
    }
    cluster.stop().await;
    cluster.start_again(cluster.engine.clone()).await;
    for node in cluster.nodes.values() {
        node.silence();
        node.beat().await;
    }
    cluster.clock.advance(HOUR * 24);
    let found = cluster.check().await;
    assert_eq!((found.orphans, found.deleted_orphans, holders(&cluster, chunk)), (3, 3, 0));
    assert_eq!(gc_status(&cluster, 2).await.unneeded, 0);
}

/// Returns the state of deletion, with this many unneeded replicas.
async fn gc_status(cluster: &Cluster, list: u32) -> v1::GcStatusResponse {
    let mut admin = cluster.admin().await;
    admin.gc_status(v1::GcStatusRequest { list }).await.unwrap().into_inner()
}

/// K2.
#[tokio::test]
async fn orphans_are_kept_once_a_disk_proves_that_commits_were_lost() {
    let settings = Settings { orphan_age_ms: 0, ..on_request() };
    let cluster = Cluster::with(settings, Arc::new(MemoryEngine::new()), 3).await;
    let chunk = abandoned(&cluster).await;
    cluster.clock.advance(HOUR * 2);
    assert_eq!(cluster.check().await.orphans, 3);
    // It registered after the state to which the metadata was set back.
    let third = cluster.node(3);
    third.silence();
    third.set_registration(40);
    third.register("secret").await.unwrap();
    third.beat().await;
    let found = cluster.check().await;
    assert_eq!((found.orphans, found.deleted_orphans, holders(&cluster, chunk)), (3, 0, 3));
    let mut admin = cluster.admin().await;
    let status = gc_status(&cluster, 10).await;
    assert!(status.hold != 0 && status.hold_reason.contains("registration 40"), "{status:?}");
    let cluster_id = cluster.status().await.cluster_id;
    let acknowledge = |hold| v1::AcknowledgeGcRequest {
        cluster_id: cluster_id.clone(),
        incarnation: status.incarnation,
        hold,
    };
    let blind = admin.acknowledge_gc(acknowledge(0)).await;
    assert_eq!(refused(blind), ErrorCode::InvalidArgument);
    admin.acknowledge_gc(acknowledge(status.hold)).await.unwrap();
    assert_eq!(cluster.check().await.deleted_orphans, 3);
}

/// Returns a cluster of four nodes, and a chunk with three replicas on 1, 2 and 3, and one more on 4
/// that its record does not name.
async fn with_surplus() -> (Cluster, dfs_types::ChunkId) {
    let settings = Settings {
        orphan_age_ms: 0,
        replication_factor: Some(3),
        // A silent node is not given up within a test.
        lost_after_ms: 3_600_000,
        ..on_request()
    };
    let cluster = Cluster::with(settings, Arc::new(MemoryEngine::new()), 4).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    cluster.node(4).write(chunk, b"data");
    let found = cluster.check().await;
    assert_eq!((found.surplus, found.deleted_surplus, holders(&cluster, chunk)), (1, 0, 4));
    (cluster, chunk)
}

/// K6.
#[tokio::test]
async fn surplus_replica_is_deleted_after_two_proofs_once_another_was_read() {
    let (cluster, chunk) = with_surplus().await;
    let verified = || cluster.nodes.values().flat_map(|node| node.verified()).count();
    assert_eq!(verified(), 0);
    let found = cluster.check().await;
    assert_eq!((found.surplus, found.deleted_surplus, verified()), (1, 1, 1));
    assert_eq!((holders(&cluster, chunk), cluster.node(4).holds(chunk)), (3, None));
    assert_eq!(cluster.check().await.surplus, 0);
}

#[tokio::test]
async fn surplus_replica_is_kept_when_the_others_prove_bad() {
    let (cluster, chunk) = with_surplus().await;
    for id in [1, 2, 3] {
        cluster.node(id).rot(chunk);
    }
    assert_eq!(cluster.check().await.deleted_surplus, 0);
    assert!(cluster.node(4).holds(chunk).is_some());
    eventually("it counts", || async {
        cluster.check().await;
        cluster.replicas("/file").await.get(&4) == Some(&false)
    })
    .await;
}

#[tokio::test]
async fn surplus_replica_is_kept_while_a_node_is_silent() {
    let (cluster, chunk) = with_surplus().await;
    cluster.node(1).silence();
    eventually("the silence is noticed", || async {
        let mut nodes = cluster.status().await.nodes.into_iter();
        nodes.any(|node| node.node.unwrap().state() == v1::NodeState::Suspect)
    })
    .await;
    let found = cluster.check().await;
    assert_eq!((found.surplus, found.deleted_surplus), (1, 0));
    assert!(cluster.node(4).holds(chunk).is_some());
}

#[tokio::test]
async fn nothing_is_deleted_after_a_restore_before_it_is_acknowledged() {
    let settings = Settings { orphan_age_ms: 0, ..on_request() };
    let mut cluster = Cluster::with(settings, Arc::new(MemoryEngine::new()), 3).await;
    let chunk = abandoned(&cluster).await;
    let deleted = cluster.put("/file", b"data", &[1, 2, 3]).await;
    cluster.restore().await;
    let request = v1::DeleteRequest {
        target: Some(v1::Target::of_path("/file")),
        now: true,
        ..v1::DeleteRequest::default()
    };
    cluster.client().await.delete(request).await.unwrap();
    cluster.clock.advance(HOUR * 2);
    for _ in 0..3 {
        let found = cluster.check().await;
        assert_eq!((found.orphans, found.deleted_orphans), (3, 0));
    }
    assert_eq!((holders(&cluster, chunk), holders(&cluster, deleted)), (3, 3));
    let mut admin = cluster.admin().await;
    let status = gc_status(&cluster, 10).await;
    assert_eq!((status.incarnation, status.acknowledged), (2, 1));
    let cluster_id = cluster.status().await.cluster_id;
    let stale =
        v1::AcknowledgeGcRequest { cluster_id: cluster_id.clone(), incarnation: 1, hold: 0 };
    assert_eq!(refused(admin.acknowledge_gc(stale).await), ErrorCode::InvalidArgument);
    let current = v1::AcknowledgeGcRequest { cluster_id, incarnation: 2, hold: 0 };
    admin.acknowledge_gc(current).await.unwrap();
    eventually("the deleted file is gone", || async { holders(&cluster, deleted) == 0 }).await;
    cluster.check().await;
    assert_eq!(holders(&cluster, chunk), 0);
}

/// Returns the state of the disk of a node.
async fn disk_state(cluster: &Cluster, id: u128) -> v1::DiskState {
    let id = dfs_types::NodeId(id).to_bytes();
    let nodes = cluster.status().await.nodes.into_iter();
    let mut nodes = nodes.filter(|node| node.node.as_ref().unwrap().node_id == id[..]);
    nodes.next().unwrap().disks[0].state()
}

/// D1.
#[tokio::test]
async fn d1_disk_that_returns_is_compared_and_then_settled() {
    // Registrations begin no comparison.
    let cluster = started(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    let third = cluster.node(3).clone();
    // It is an old image, which lacks a replica.
    third.lose(chunk);
    third.list_incompletely(true);
    third.return_disk();
    eventually("it is returning", || async {
        disk_state(&cluster, 3).await == v1::DiskState::Returning
    })
    .await;
    assert_eq!(cluster.check().await.gone, 0);
    assert_eq!(third.settlements(), [] as [bool; 0], "not compared");
    assert!(!cluster.replicas("/file").await[&3], "nothing is known of it");
    third.list_incompletely(false);
    eventually("it is settled", || async {
        disk_state(&cluster, 3).await == v1::DiskState::Healthy
    })
    .await;
    assert_eq!(third.settlements(), [true], "its list was read before");
    eventually("what it lost is built again", || async { third.holds(chunk).is_some() }).await;
}
