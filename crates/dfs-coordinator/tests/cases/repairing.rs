//! Replicas are made again.

use std::sync::Arc;

use dfs_coordinator::Settings;
use dfs_metadata::memory::MemoryEngine;
use dfs_proto::v1;

use crate::cluster::{Cluster, eventually, settings};

async fn is_whole(cluster: &Cluster) -> bool {
    cluster.replication().await.is_some_and(|status| {
        (status.under_replicated, status.missing, status.bad_replicas) == (0, 0, 0)
    })
}

async fn state(cluster: &Cluster, id: u128) -> v1::NodeState {
    let status = cluster.status().await;
    let id = dfs_types::NodeId(id).to_bytes();
    let node = status.nodes.into_iter().find_map(|node| node.node.filter(|n| n.node_id == id[..]));
    node.unwrap().state()
}

#[tokio::test]
async fn what_a_lost_node_held_is_made_again_and_its_own_replica_goes_when_it_is_back() {
    let mut cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    eventually("all is well", || is_whole(&cluster)).await;
    cluster.node(3).silence();
    eventually("the loss is seen", || async {
        cluster.replication().await.is_some_and(|status| status.under_replicated == 1)
    })
    .await;
    let fourth = cluster.add_node(4).await;
    eventually("three replicas again", || is_whole(&cluster)).await;
    let replicas: Vec<u128> = cluster.replicas("/file").await.into_keys().collect();
    assert_eq!(replicas, [1, 2, 4]);
    assert!(fourth.holds(chunk).is_some());
    // Nothing is asked of who does not answer; once it does, its replica is one too many.
    let third = cluster.node(3).clone();
    let stamp = third.holds(chunk).unwrap().stamp;
    assert!(third.deletes().is_empty());
    third.beat().await;
    eventually("the old replica goes", || async { third.holds(chunk).is_none() }).await;
    assert_eq!(third.deletes(), [(chunk, stamp)]);
}

#[tokio::test]
async fn what_a_replaced_disk_held_is_made_again_though_its_node_answers() {
    let cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    eventually("all is well", || is_whole(&cluster)).await;
    let third = cluster.node(3).clone();
    let lost = third.holds(chunk).unwrap().stamp;
    // Back within its time, so that the node itself is never lost.
    third.silence();
    third.replace_disk();
    third.register("secret").await.unwrap();
    third.beat().await;
    // No other node is there to take the replica.
    eventually("it is made again on the new disk", || async {
        third.holds(chunk).is_some_and(|replica| replica.stamp != lost)
    })
    .await;
    eventually("all is well again", || is_whole(&cluster)).await;
    assert_eq!(cluster.replicas("/file").await.into_values().filter(|is_bad| !is_bad).count(), 3);
}

#[tokio::test]
async fn a_chunk_out_of_reach_is_missing_until_a_holder_is_back() {
    let mut cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    for id in 1..=3 {
        cluster.node(id).silence();
    }
    eventually("it is missed", || async {
        cluster
            .replication()
            .await
            .is_some_and(|status| (status.missing, status.under_replicated) == (1, 0))
    })
    .await;
    assert_eq!(cluster.replicas("/file").await.len(), 3, "nothing is forgotten");
    cluster.add_node(4).await;
    cluster.node(2).beat().await;
    eventually("what can be made again is", || async {
        cluster.node(4).holds(chunk).is_some()
            && cluster.replication().await.is_some_and(|status| status.missing == 0)
    })
    .await;
}

#[tokio::test]
async fn replicas_that_a_file_was_written_without_are_made() {
    let cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2]).await;
    eventually("three replicas", || is_whole(&cluster)).await;
    assert_eq!(cluster.replicas("/file").await.len(), 3);
    assert!(cluster.node(3).holds(chunk).is_some());
    let repair = &cluster.status().await.workers[0];
    assert_eq!((&repair.name[..], repair.done, repair.queued), ("repair", 1, 0));
}

#[tokio::test]
async fn the_chunk_with_the_fewest_replicas_comes_first() {
    let settings = Settings { repair_concurrency: 1, ..settings() };
    let mut cluster = Cluster::with(settings, Arc::new(MemoryEngine::new()), 5).await;
    for name in 0..5 {
        cluster.put(&format!("/two-left-{name}"), b"data", &[1, 2, 4]).await;
    }
    let worst = cluster.put("/one-left", b"data", &[1, 4, 5]).await;
    // Nobody can take a replica until a new node comes.
    for node in cluster.nodes.values() {
        node.set_refuses(true);
    }
    eventually("nobody takes chunks", || async {
        cluster.status().await.nodes.iter().all(|node| node.refuses_chunks)
    })
    .await;
    cluster.node(4).silence();
    cluster.node(5).silence();
    eventually("both are lost", || async {
        state(&cluster, 4).await == v1::NodeState::Lost
            && state(&cluster, 5).await == v1::NodeState::Lost
            && cluster.replication().await.is_some_and(|status| status.under_replicated == 6)
    })
    .await;
    cluster.add_node(6).await;
    let first = cluster.node(1).clone();
    let second = cluster.node(2).clone();
    eventually("each gets a replica", || async { cluster.node(6).chunks() == 6 }).await;
    assert_eq!(first.replicated().len() + second.replicated().len(), 6);
    assert_eq!(first.replicated()[0], worst);
}

#[tokio::test]
async fn a_node_that_is_back_in_time_is_not_copied() {
    let settings = Settings { lost_after_ms: 600_000, ..settings() };
    let cluster = Cluster::with(settings, Arc::new(MemoryEngine::new()), 4).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    eventually("all is well", || is_whole(&cluster)).await;
    cluster.node(3).silence();
    eventually("it is missed", || async { state(&cluster, 3).await == v1::NodeState::Suspect })
        .await;
    // Repair is at work meanwhile.
    cluster.put("/other", b"data", &[1, 2]).await;
    eventually("the other is repaired", || async { cluster.replicas("/other").await.len() == 3 })
        .await;
    cluster.node(3).beat().await;
    eventually("all is well again", || is_whole(&cluster)).await;
    assert_eq!(state(&cluster, 3).await, v1::NodeState::Active);
    assert!(cluster.node(4).holds(chunk).is_none());
    assert!(cluster.nodes.values().all(|node| !node.replicated().contains(&chunk)));
}

#[tokio::test]
async fn a_bad_replica_is_replaced_on_another_node() {
    let cluster = Cluster::start(4).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    let third = cluster.node(3).clone();
    let stamp = third.holds(chunk).unwrap().stamp;
    third.spoil(chunk);
    eventually("it is noted", || async { third.confirmed_bad() == [(chunk, stamp)] }).await;
    eventually("it is replaced", || is_whole(&cluster)).await;
    let replicas = cluster.replicas("/file").await;
    assert_eq!(replicas.into_iter().collect::<Vec<_>>(), [(1, false), (2, false), (4, false)]);
    eventually("it is deleted", || async { third.deletes() == [(chunk, stamp)] }).await;
    assert!(third.replicated().is_empty(), "nothing is copied from a bad replica");
}

#[tokio::test]
async fn a_bad_replica_is_replaced_in_its_place_when_there_is_no_other() {
    let cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    let third = cluster.node(3).clone();
    let stamp = third.holds(chunk).unwrap().stamp;
    third.spoil(chunk);
    eventually("a new replica is there", || async {
        third.holds(chunk).is_some_and(|replica| replica.stamp != stamp)
    })
    .await;
    eventually("it counts", || is_whole(&cluster)).await;
    assert_eq!(cluster.replicas("/file").await.len(), 3);
    assert_eq!(third.deletes(), [(chunk, stamp)]);
}

#[tokio::test]
async fn a_replica_that_nothing_counts_makes_room() {
    let cluster = Cluster::start(3).await;
    let (request, chunk) = cluster.write("/file", b"data", &[1, 2]).await;
    // Left by a session or a repair that was cut off.
    let left = cluster.node(3).write(chunk, b"data").stamp;
    cluster.client().await.confirm_upload(request).await.unwrap();
    eventually("three replicas", || is_whole(&cluster)).await;
    assert_eq!(cluster.replicas("/file").await.len(), 3);
    assert_eq!(cluster.node(3).deletes(), [(chunk, left)]);
}
