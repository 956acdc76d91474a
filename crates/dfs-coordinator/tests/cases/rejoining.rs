//! Nodes of which the metadata has no current records join again.

use std::sync::Arc;

use dfs_coordinator::Settings;
use dfs_metadata::memory::MemoryEngine;
use dfs_proto::v1;
use dfs_types::ErrorCode;
use tonic::Status;

use crate::cases::reconciling::started;
use crate::cluster::datanode::{FakeDataNode, HeldReplica};
use crate::cluster::{Cluster, HOUR, copy_of, eventually, refused, settings};

/// Returns a cluster in which orphans are deleted as soon as they are proven, each file has one
/// replica, and only requests and returning disks begin a comparison.
async fn with_single_replicas(nodes: u128) -> Cluster {
    let settings = Settings {
        replication_factor: Some(1),
        orphan_age_ms: 0,
        reconcile_settle_ms: 3_600_000,
        ..settings()
    };
    Cluster::with(settings, Arc::new(MemoryEngine::new()), nodes).await
}

/// The metadata was set back to a state from before the node was added.
#[tokio::test]
async fn node_added_by_a_lost_commit_joins_and_its_replicas_are_used() {
    let mut cluster = with_single_replicas(2).await;
    let moved = cluster.put("/moved", b"data", &[2]).await;
    let before = copy_of(&*cluster.engine).await;
    let third = cluster.add_node(3).await;
    let old = cluster.node(2).lose(moved);
    third.find(moved, HeldReplica { stamp: third.next_stamp(), ..old });
    let written = cluster.put("/written", b"later", &[3]).await;
    cluster.stop().await;
    cluster.nodes.values().for_each(|node| node.silence());
    cluster.start_again(before).await;
    for node in cluster.nodes.values() {
        node.register("secret").await.unwrap();
        node.beat().await;
    }
    eventually("the disk of the unknown node is compared and settled", || async {
        third.settlements() == [true]
    })
    .await;
    eventually("the replica that was moved there is found", || async {
        cluster.check().await;
        cluster.replicas("/moved").await == [(3, false)].into()
    })
    .await;
    // What was written since is not deleted until an administrator has seen it.
    cluster.clock.advance(HOUR * 2);
    cluster.check().await;
    let found = cluster.check().await;
    assert_eq!((found.orphans, found.deleted_orphans), (1, 0));
    assert!(third.holds(written).is_some());
    let mut admin = cluster.admin().await;
    let status = admin.gc_status(v1::GcStatusRequest { list: 10 }).await.unwrap().into_inner();
    assert!(status.hold_reason.contains(&third.id.to_string()), "{status:?}");
    let acknowledge = v1::AcknowledgeGcRequest {
        cluster_id: cluster.status().await.cluster_id,
        incarnation: status.incarnation,
        hold: status.hold,
    };
    admin.acknowledge_gc(acknowledge).await.unwrap();
    assert_eq!(cluster.check().await.deleted_orphans, 1);
    assert!(third.holds(written).is_none());
    // It takes new chunks again.
    cluster.put("/next", b"next", &[3]).await;
}

async fn readmit(
    cluster: &Cluster,
    is_dry_run: bool,
    registration: u64,
) -> Result<v1::ReadmitResponse, Status> {
    let request = v1::ReadmitRequest {
        cluster_id: cluster.status().await.cluster_id,
        node_id: cluster.node(1).id.to_bytes().to_vec().into(),
        is_dry_run,
        registration,
    };
    cluster.admin().await.readmit(request).await.map(tonic::Response::into_inner)
}

/// D1: the machine of a node was restored from an old copy of its disk.
#[tokio::test]
async fn d1_old_copy_of_a_node_is_readmitted_and_gets_what_it_lacks() {
    let cluster = started(2).await;
    let first = cluster.node(1).clone();
    let kept = cluster.put("/kept", b"kept", &[1, 2]).await;
    let copy = FakeDataNode::serve(1, &cluster.address(), &cluster.neighbours).await;
    copy.copy_disks_of(&first);
    let old = first.registration();
    first.silence();
    first.register("secret").await.unwrap();
    first.beat().await;
    let newest = first.registration();
    let later = cluster.put("/later", b"later", &[1, 2]).await;
    // The node is alive: whatever asks in its name stays out, and it is not cut off.
    assert_eq!(refused(copy.register("secret").await), ErrorCode::WrongCluster);
    let alive = readmit(&cluster, true, 0).await;
    assert_eq!(refused(alive), ErrorCode::NotEmpty);
    assert_eq!(refused(readmit(&cluster, false, old).await), ErrorCode::NotEmpty);
    assert!(!first.must_register());

    first.silence();
    eventually("the copy is refused as one", || async {
        let refusal = copy.register("secret").await.unwrap_err();
        refusal.message().contains(&format!("dfs node readmit {}", first.id))
    })
    .await;
    eventually("the silence of the node is noticed", || async {
        readmit(&cluster, true, 0).await.is_ok()
    })
    .await;
    copy.register("secret").await.unwrap_err();
    let plan = readmit(&cluster, true, 0).await.unwrap();
    assert_eq!((plan.address, plan.registration), (copy.address.clone(), old));
    assert_eq!((plan.registration_in_use, plan.disks[0].chunks), (newest, 1));
    assert!(copy.register("secret").await.is_err(), "it was a dry run");
    assert_eq!(refused(readmit(&cluster, false, old + 1).await), ErrorCode::NotEmpty);
    readmit(&cluster, false, old).await.unwrap();
    let joined = copy.register("secret").await.unwrap();
    assert!(joined.are_disks_returning && joined.registration > newest);
    copy.beat().await;
    eventually("its disk is compared and settled", || async { copy.settlements() == [true] }).await;
    eventually("what it lacks is built", || async { copy.holds(later).is_some() }).await;
    assert!(copy.holds(kept).is_some());
    assert_eq!(cluster.replicas("/later").await, [(1, false), (2, false)].into());
    // The newer disks are the older copy now.
    copy.silence();
    eventually("they are refused", || async {
        refused(first.register("secret").await) == ErrorCode::WrongCluster
    })
    .await;
}

#[tokio::test]
async fn readmission_is_refused_while_several_processes_ask() {
    let cluster = started(1).await;
    let first = cluster.node(1).clone();
    let mut copies = Vec::new();
    for _ in 0..2 {
        let copy = FakeDataNode::serve(1, &cluster.address(), &cluster.neighbours).await;
        copy.copy_disks_of(&first);
        copies.push(copy);
    }
    let old = first.registration();
    first.register("secret").await.unwrap();
    first.silence();
    first.beat().await;
    first.silence();
    eventually("the silence of the node is noticed", || async {
        let refusal = readmit(&cluster, true, 0).await.unwrap_err();
        refusal.message().contains("no process asks")
    })
    .await;
    for copy in &copies {
        assert_eq!(refused(copy.register("secret").await), ErrorCode::WrongCluster);
    }
    let refusal = readmit(&cluster, false, old).await.unwrap_err();
    for copy in &copies {
        assert!(refusal.message().contains(&copy.address), "{refusal}");
    }
}
