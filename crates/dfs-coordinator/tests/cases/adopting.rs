//! Intact replicas that no record names are adopted.

use dfs_types::ChunkId;

use crate::cases::reconciling::started;
use crate::cluster::datanode::HeldReplica;
use crate::cluster::{Cluster, eventually};

/// Returns a cluster of one node, and a chunk whose only replica was replaced there by one that was
/// built from it, but never named.
async fn unnamed() -> (Cluster, ChunkId, HeldReplica) {
    let cluster = started(1).await;
    let chunk = cluster.put("/file", b"data", &[1]).await;
    let node = cluster.node(1);
    let old = node.lose(chunk);
    let found = cluster.check().await;
    assert_eq!((found.gone, found.missing_chunks), (1, 1));
    let built = HeldReplica { stamp: node.next_stamp(), ..old };
    node.find(chunk, built);
    (cluster, chunk, built)
}

#[tokio::test]
async fn chunk_whose_last_replica_lost_its_commit_comes_back() {
    let (cluster, chunk, built) = unnamed().await;
    let found = cluster.check().await;
    assert_eq!((found.adopted, found.missing_chunks, found.damaged.len()), (1, 0, 0));
    let adopted = cluster.node(1).holds(chunk).unwrap();
    assert!(adopted.stamp > built.stamp, "a late order may name the old stamp");
    assert_eq!(cluster.replicas("/file").await, [(1, false)].into());
    let found = cluster.check().await;
    assert_eq!((found.adopted, found.gone, found.surplus), (0, 0, 0));
    assert_eq!(cluster.node(1).holds(chunk), Some(adopted));
}

/// One comparison finds that the named replica is gone, and the one to adopt in its place.
#[tokio::test]
async fn adoption_outlasts_the_verdict_on_the_replica_that_it_replaces() {
    let cluster = started(1).await;
    let chunk = cluster.put("/file", b"data", &[1]).await;
    let node = cluster.node(1);
    node.rot(chunk);
    node.accuse(chunk);
    eventually("it is recorded as bad", || async {
        cluster.replication().await.is_some_and(|counts| counts.bad_replicas == 1)
    })
    .await;
    let old = node.lose(chunk);
    node.find(chunk, HeldReplica { stamp: node.next_stamp(), ..old });
    let found = cluster.check().await;
    assert_eq!((found.gone, found.adopted, found.missing_chunks, found.skipped), (1, 1, 0, 0));
}

/// A replica that was not needed before the named one was found to be gone.
#[tokio::test]
async fn chunk_found_missing_just_now_is_not_lost_and_the_next_comparison_adopts_what_is_left() {
    let cluster = started(1).await;
    let chunk = cluster.put("/file", b"data", &[1]).await;
    let node = cluster.node(1);
    let old = node.lose(chunk);
    node.find(chunk, HeldReplica { stamp: node.next_stamp(), ..old });
    let found = cluster.check().await;
    assert_eq!((found.gone, found.adopted, found.surplus, found.missing_chunks), (1, 0, 1, 1));
    assert!(!found.damaged[0].is_lost);
    let found = cluster.check().await;
    assert_eq!((found.adopted, found.missing_chunks), (1, 0));
}

#[tokio::test]
async fn adoption_whose_reply_is_lost_is_repeated() {
    let (cluster, chunk, _) = unnamed().await;
    let node = cluster.node(1);
    node.lose_adoptions(true);
    let found = cluster.check().await;
    assert_eq!((found.adopted, found.missing_chunks, found.skipped), (0, 1, 1));
    let left = node.holds(chunk).unwrap();
    node.lose_adoptions(false);
    let found = cluster.check().await;
    assert_eq!((found.adopted, found.missing_chunks), (1, 0));
    assert!(node.holds(chunk).unwrap().stamp > left.stamp);
}

#[tokio::test]
async fn bad_replica_is_not_adopted() {
    let (cluster, chunk, built) = unnamed().await;
    cluster.node(1).rot(chunk);
    let found = cluster.check().await;
    assert_eq!((found.adopted, found.missing_chunks), (0, 1));
    assert_eq!(cluster.node(1).holds(chunk), Some(built), "it may have the last good blocks");
}
