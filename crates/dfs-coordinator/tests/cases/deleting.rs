//! Deleted files free their space, and nothing else does.

use std::sync::Arc;

use dfs_coordinator::{Error, Service, Settings, init};
use dfs_metadata::engine::Engine;
use dfs_metadata::memory::MemoryEngine;
use dfs_proto::v1;
use dfs_types::{ChunkId, ErrorCode, SeededRandom};

use crate::cluster::{
    CHUNK, Cluster, HOUR, components, eventually, refused, settings, upload_request,
};

async fn delete(cluster: &Cluster, path: &str, now: bool) -> u64 {
    let target = Some(v1::Target::of_path(path.to_owned()));
    let request = v1::DeleteRequest { target, now, ..v1::DeleteRequest::default() };
    let answer = cluster.client().await.delete(request).await.unwrap();
    answer.into_inner().restorable_until_ms
}

fn holders(cluster: &Cluster, chunk: ChunkId) -> usize {
    cluster.nodes.values().filter(|node| node.holds(chunk).is_some()).count()
}

#[tokio::test]
async fn deleted_bytes_are_freed_at_once_or_when_not_restorable() {
    let cluster = Cluster::start(3).await;
    let kept = cluster.put("/kept", b"kept", &[1, 2, 3]).await;
    let later = cluster.put("/later", b"later", &[1, 2, 3]).await;
    let at_once = cluster.put("/at-once", b"at once", &[1, 2, 3]).await;
    assert!(delete(&cluster, "/later", false).await > 0);
    assert_eq!(delete(&cluster, "/at-once", true).await, 0);
    eventually("deleted without delay", || async { holders(&cluster, at_once) == 0 }).await;
    assert_eq!(holders(&cluster, later), 3);
    cluster.clock.advance(HOUR * 2);
    eventually("no longer restorable", || async { holders(&cluster, later) == 0 }).await;
    assert_eq!(holders(&cluster, kept), 3);
    for node in cluster.nodes.values() {
        assert_eq!(node.deletes().len(), 2);
    }
    eventually("the count is right", || async {
        cluster.replication().await.is_some_and(|status| status.chunks == 1)
    })
    .await;
}

#[tokio::test]
async fn deleted_file_can_be_restored_in_time() {
    let cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    delete(&cluster, "/file", false).await;
    let mut client = cluster.client().await;
    let undelete = v1::UndeleteRequest {
        target: Some(v1::Target::of_path("/file")),
        ..v1::UndeleteRequest::default()
    };
    client.undelete(undelete).await.unwrap();
    cluster.clock.advance(HOUR * 2);
    // A second file shows that the reaper has run.
    let other = cluster.put("/other", b"data", &[1, 2, 3]).await;
    delete(&cluster, "/other", true).await;
    eventually("the second file is gone", || async { holders(&cluster, other) == 0 }).await;
    assert_eq!((holders(&cluster, chunk), cluster.replicas("/file").await.len()), (3, 3));
}

#[tokio::test]
async fn deleted_files_are_not_kept_when_space_runs_out() {
    let cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    assert!(delete(&cluster, "/file", false).await > 0);
    assert_eq!(holders(&cluster, chunk), 3);
    for node in cluster.nodes.values() {
        node.set_free(1 << 30);
    }
    eventually("its space is freed", || async { holders(&cluster, chunk) == 0 }).await;
}

#[tokio::test]
async fn delete_frees_space_on_a_full_node_at_once() {
    let cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    assert!(delete(&cluster, "/file", false).await > 0);
    // Most of the cluster is free, but one node is full.
    cluster.node(2).set_refuses(true);
    eventually("its space is freed", || async { holders(&cluster, chunk) == 0 }).await;
}

#[tokio::test]
async fn refused_writer_makes_deleted_files_reapable() {
    // By this bound alone no node would ever be short of space.
    let settings = Settings { pressure_percent: 100, ..settings() };
    let cluster = Cluster::with(settings, Arc::new(MemoryEngine::new()), 3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    let other = cluster.put("/other", b"data", &[1, 2, 3]).await;
    assert!(delete(&cluster, "/file", false).await > 0);
    for node in cluster.nodes.values() {
        node.set_free(1_000);
    }
    eventually("the nodes have reported it", || async {
        cluster.status().await.nodes.iter().all(|node| node.disks[0].free == 1_000)
    })
    .await;
    delete(&cluster, "/other", true).await;
    eventually("the reaper has run", || async { holders(&cluster, other) == 0 }).await;
    assert_eq!(holders(&cluster, chunk), 3, "no space was needed yet");
    let planned = cluster.client().await.upload_file(upload_request("/new", CHUNK)).await;
    assert_eq!(refused(planned), ErrorCode::NoSpace);
    eventually("its space is freed", || async { holders(&cluster, chunk) == 0 }).await;
}

#[tokio::test]
async fn abandoned_upload_is_reaped() {
    let mut cluster = Cluster::start(3).await;
    let (request, chunk) = cluster.write("/file", b"data", &[1, 2, 3]).await;
    let renew = v1::RenewRequest { tokens: request.tokens.clone(), chunks: request.chunks };
    cluster.client().await.renew_upload(renew).await.unwrap();
    cluster.stop().await;
    cluster.clock.advance(HOUR * 2);
    let engine = cluster.engine.clone();
    cluster.start_again(engine).await;
    for node in cluster.nodes.values() {
        node.silence();
        node.beat().await;
    }
    eventually("its chunk is gone", || async { holders(&cluster, chunk) == 0 }).await;
}

#[tokio::test]
async fn silent_node_gets_its_orders_when_it_returns() {
    let cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    let third = cluster.node(3).clone();
    third.silence();
    eventually("its silence is noticed", || async {
        let nodes = cluster.status().await.nodes;
        nodes.iter().any(|node| node.node.as_ref().unwrap().state() != v1::NodeState::Active)
    })
    .await;
    delete(&cluster, "/file", true).await;
    eventually("the others delete", || async { holders(&cluster, chunk) == 1 }).await;
    assert!(third.deletes().is_empty());
    third.beat().await;
    eventually("it deletes too", || async { third.holds(chunk).is_none() }).await;
}

#[tokio::test]
async fn replica_on_a_failed_disk_is_deleted_once_the_disk_is_back() {
    let mut cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    // No other node can take its replica, so the disk is not given up.
    cluster.put("/needs-the-disk", b"data", &[1, 2, 3]).await;
    let third = cluster.node(3).clone();
    third.set_failed_disk(true);
    delete(&cluster, "/file", true).await;
    eventually("the others delete", || async { holders(&cluster, chunk) == 1 }).await;
    eventually("the order is retried", || async { third.deletes().len() > 1 }).await;
    let worker = cluster.worker("delete").await;
    assert_eq!(worker.queued, 1);
    let disk = format!("disk {} of node {}", third.disk, third.id);
    assert!(worker.state.contains(&disk), "{worker:?}");
    // The queue is in the metadata, not in memory.
    cluster.stop().await;
    let engine = cluster.engine.clone();
    cluster.start_again(engine).await;
    third.set_failed_disk(false);
    for node in cluster.nodes.values() {
        node.silence();
        node.beat().await;
    }
    eventually("its replica goes, too", || async { third.holds(chunk).is_none() }).await;
    eventually("nothing is waiting", || async { cluster.worker("delete").await.queued == 0 }).await;
}

#[tokio::test]
async fn replica_on_a_silent_node_is_forgotten_with_its_node() {
    let cluster = Cluster::start(4).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    let third = cluster.node(3).clone();
    third.silence();
    eventually("its silence is noticed", || async {
        let nodes = cluster.status().await.nodes;
        nodes.iter().any(|node| node.node.as_ref().unwrap().state() != v1::NodeState::Active)
    })
    .await;
    delete(&cluster, "/file", true).await;
    eventually("it is waiting", || async { cluster.worker("delete").await.queued == 1 }).await;
    eventually("the node can be forgotten", || async { cluster.forget(3).await.is_ok() }).await;
    eventually("nothing is waiting", || async { cluster.worker("delete").await.queued == 0 }).await;
    assert!(third.holds(chunk).is_some());
}

#[tokio::test]
async fn pending_orders_are_sent_by_the_next_coordinator() {
    let mut cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    let third = cluster.node(3).clone();
    third.silence();
    eventually("its silence is noticed", || async {
        let nodes = cluster.status().await.nodes;
        nodes.iter().any(|node| node.node.as_ref().unwrap().state() != v1::NodeState::Active)
    })
    .await;
    delete(&cluster, "/file", true).await;
    eventually("the others delete", || async { holders(&cluster, chunk) == 1 }).await;
    cluster.stop().await;
    let engine = cluster.engine.clone();
    cluster.start_again(engine).await;
    third.beat().await;
    eventually("the tombstone names it", || async { third.holds(chunk).is_none() }).await;
}

#[tokio::test]
async fn empty_metadata_under_live_nodes_deletes_nothing() {
    let mut cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    cluster.stop().await;

    let empty: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let started = Service::start(settings(), components(&empty, &cluster.clock)).await;
    assert!(matches!(started, Err(Error::NotInitialised)), "{started:?}");
    let snapshot = empty.snapshot().await.unwrap();
    assert!(snapshot.range(b"", b"", 1).await.unwrap().is_empty());

    // Even where a new cluster was created in their place, the nodes do not join it.
    let options = settings().init_options().unwrap();
    init(empty.clone(), &*cluster.clock, &SeededRandom::new(99), options).await.unwrap();
    cluster.start_again(empty).await;
    for node in cluster.nodes.values() {
        node.silence();
        node.beat().await;
        assert!(node.must_register());
        assert_eq!(refused(node.register("secret").await), ErrorCode::WrongCluster);
    }
    assert!(cluster.status().await.nodes.is_empty());
    assert_eq!(holders(&cluster, chunk), 3);
    assert!(cluster.nodes.values().all(|node| node.deletes().is_empty()));
}

#[tokio::test]
async fn cluster_is_created_once() {
    let cluster = Cluster::start(0).await;
    let options = settings().init_options().unwrap();
    let engine = cluster.engine.clone();
    let again = init(engine, &*cluster.clock, &SeededRandom::new(5), options).await;
    let Err(Error::AlreadyInitialised(there)) = again else { panic!("{again:?}") };
    assert_eq!(cluster.status().await.cluster_id, there.to_bytes()[..]);
}
