//! Repair of replicas.

use std::sync::Arc;
use std::time::Duration;

use dfs_coordinator::Settings;
use dfs_metadata::memory::MemoryEngine;
use dfs_metadata::namespace::NodeDiskState;
use dfs_proto::v1;
use dfs_proto::v1::set_worker_request::Change;
use dfs_types::{NodeId, Scope};
use tonic::Status;

use super::administering::id;
use crate::cluster::{Cluster, eventually, http_get, settings};

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
async fn lost_replica_is_rebuilt_and_the_old_one_deleted_on_return() {
    let mut cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    eventually("fully replicated", || is_whole(&cluster)).await;
    cluster.node(3).silence();
    eventually("the loss is noticed", || async {
        cluster.replication().await.is_some_and(|status| status.under_replicated == 1)
    })
    .await;
    let fourth = cluster.add_node(4).await;
    eventually("three replicas again", || is_whole(&cluster)).await;
    let replicas: Vec<u128> = cluster.replicas("/file").await.into_keys().collect();
    assert_eq!(replicas, [1, 2, 4]);
    assert!(fourth.holds(chunk).is_some());
    // A silent node gets no orders; once it returns, its replica is surplus.
    let third = cluster.node(3).clone();
    let stamp = third.holds(chunk).unwrap().stamp;
    assert!(third.deletes().is_empty());
    third.beat().await;
    eventually("the old replica is deleted", || async { third.holds(chunk).is_none() }).await;
    assert_eq!(third.deletes(), [(chunk, stamp)]);
}

#[tokio::test]
async fn small_replicas_are_ordered_together_and_those_left_out_by_themselves() {
    let mut cluster = Cluster::start(3).await;
    let mut chunks = Vec::new();
    for number in 0..20 {
        chunks.push(cluster.put(&format!("/file-{number}"), b"data", &[1, 2, 3]).await);
    }
    eventually("fully replicated", || is_whole(&cluster)).await;
    let unlimited = Change::Rate(v1::WorkerRate { per_second: Some(0) });
    eventually("the rate is set", || async {
        cluster.set_worker("repair", unlimited).await.is_ok()
    })
    .await;
    // Nothing can be repaired until a new node comes.
    cluster.node(3).silence();
    eventually("the loss is noticed", || async {
        cluster.replication().await.is_some_and(|status| status.under_replicated == 20)
    })
    .await;
    let fourth = cluster.add_node_with(4, |node| node.build_small_without([chunks[7]])).await;
    eventually("three replicas again", || is_whole(&cluster)).await;
    assert!(chunks.iter().all(|chunk| fourth.holds(*chunk).is_some()));
    let ordered = fourth.small_orders();
    assert!(ordered.iter().sum::<usize>() >= 20, "{ordered:?}");
    assert!(ordered.len() <= 5, "{ordered:?}");
    let repair = &cluster.status().await.workers[0];
    assert_eq!((&repair.name[..], repair.done, repair.failed), ("repair", 20, 0));
}

#[tokio::test]
async fn small_replicas_whose_node_breaks_off_are_not_ordered_there_at_once_by_themselves() {
    let mut cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    eventually("fully replicated", || is_whole(&cluster)).await;
    cluster.node(3).silence();
    let fourth = cluster
        .add_node_with(4, |node| {
            node.build_small_without([]);
            node.break_off_small_builds(true);
        })
        .await;
    eventually("the failure is counted", || async { cluster.status().await.workers[0].failed > 0 })
        .await;
    assert!(fourth.holds(chunk).is_none(), "it would hang as long again");
    fourth.break_off_small_builds(false);
    eventually("three replicas again", || is_whole(&cluster)).await;
    assert!(fourth.small_orders().len() >= 2);
}

#[tokio::test]
async fn replicas_of_a_replaced_disk_are_rebuilt() {
    let cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    eventually("fully replicated", || is_whole(&cluster)).await;
    let third = cluster.node(3).clone();
    let lost = third.holds(chunk).unwrap().stamp;
    // Back within its grace period, so that the node itself is never lost.
    third.silence();
    third.replace_disk();
    third.register("secret").await.unwrap();
    third.beat().await;
    // No other node can take the replica.
    eventually("it is rebuilt on the new disk", || async {
        third.holds(chunk).is_some_and(|replica| replica.stamp != lost)
    })
    .await;
    eventually("fully replicated again", || is_whole(&cluster)).await;
    assert_eq!(cluster.replicas("/file").await.into_values().filter(|is_bad| !is_bad).count(), 3);
}

#[tokio::test]
async fn unreachable_chunk_is_missing_until_a_holder_returns() {
    let mut cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    for id in 1..=3 {
        cluster.node(id).silence();
    }
    eventually("its silence is noticed", || async {
        cluster
            .replication()
            .await
            .is_some_and(|status| (status.missing, status.under_replicated) == (1, 0))
    })
    .await;
    assert_eq!(cluster.replicas("/file").await.len(), 3, "no replica is forgotten");
    cluster.add_node(4).await;
    cluster.node(2).beat().await;
    eventually("rebuilt as far as possible", || async {
        cluster.node(4).holds(chunk).is_some()
            && cluster.replication().await.is_some_and(|status| status.missing == 0)
    })
    .await;
}

#[tokio::test]
async fn file_written_short_of_replicas_is_completed() {
    let cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2]).await;
    eventually("three replicas", || is_whole(&cluster)).await;
    assert_eq!(cluster.replicas("/file").await.len(), 3);
    assert!(cluster.node(3).holds(chunk).is_some());
    let repair = &cluster.status().await.workers[0];
    assert_eq!((&repair.name[..], repair.done, repair.queued), ("repair", 1, 0));
}

#[tokio::test]
async fn chunk_with_the_fewest_replicas_comes_first() {
    let settings = Settings { repair_concurrency: 1, ..settings() };
    let mut cluster = Cluster::with(settings, Arc::new(MemoryEngine::new()), 5).await;
    for name in 0..5 {
        cluster.put(&format!("/two-left-{name}"), b"data", &[1, 2, 4]).await;
    }
    let worst = cluster.put("/one-left", b"data", &[1, 4, 5]).await;
    // Nothing can be repaired until a new node comes.
    for node in cluster.nodes.values() {
        node.set_refuses(true);
    }
    eventually("no node takes chunks", || async {
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
async fn node_back_in_time_is_not_rebuilt() {
    let settings = Settings { lost_after_ms: 600_000, ..settings() };
    let cluster = Cluster::with(settings, Arc::new(MemoryEngine::new()), 4).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    eventually("fully replicated", || is_whole(&cluster)).await;
    cluster.node(3).silence();
    eventually("its silence is noticed", || async {
        state(&cluster, 3).await == v1::NodeState::Suspect
    })
    .await;
    // Repair is running meanwhile.
    cluster.put("/other", b"data", &[1, 2]).await;
    eventually("the other file is repaired", || async {
        cluster.replicas("/other").await.len() == 3
    })
    .await;
    cluster.node(3).beat().await;
    eventually("fully replicated again", || is_whole(&cluster)).await;
    assert_eq!(state(&cluster, 3).await, v1::NodeState::Active);
    assert!(cluster.node(4).holds(chunk).is_none());
    assert!(cluster.nodes.values().all(|node| !node.replicated().contains(&chunk)));
}

#[tokio::test]
async fn bad_replica_is_replaced_on_another_node() {
    let cluster = Cluster::start(4).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    let third = cluster.node(3).clone();
    let stamp = third.holds(chunk).unwrap().stamp;
    third.spoil(chunk);
    eventually("it is recorded", || async { third.settled() == [(chunk, stamp)] }).await;
    eventually("it is replaced", || is_whole(&cluster)).await;
    let replicas = cluster.replicas("/file").await;
    assert_eq!(replicas.into_iter().collect::<Vec<_>>(), [(1, false), (2, false), (4, false)]);
    eventually("it is deleted", || async { third.deletes() == [(chunk, stamp)] }).await;
    assert!(third.replicated().is_empty(), "nothing is copied from a bad replica");
}

#[tokio::test]
async fn bad_replica_is_replaced_in_place_without_another_node() {
    let cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    let third = cluster.node(3).clone();
    let stamp = third.holds(chunk).unwrap().stamp;
    third.spoil(chunk);
    eventually("a new replica exists", || async {
        third.holds(chunk).is_some_and(|replica| replica.stamp != stamp)
    })
    .await;
    eventually("it counts", || is_whole(&cluster)).await;
    assert_eq!(cluster.replicas("/file").await.len(), 3);
    // The delete worker may have ordered it, too.
    assert!(third.deletes().iter().all(|deleted| *deleted == (chunk, stamp)));
}

#[tokio::test]
async fn orphaned_replica_makes_room() {
    let cluster = Cluster::start(3).await;
    let (request, chunk) = cluster.write("/file", b"data", &[1, 2]).await;
    // Left by an interrupted session or repair.
    let left = cluster.node(3).write(chunk, b"data").stamp;
    cluster.client().await.confirm_upload(request).await.unwrap();
    eventually("three replicas", || is_whole(&cluster)).await;
    assert_eq!(cluster.replicas("/file").await.len(), 3);
    // It was replaced by a complete one, and never deleted before.
    assert!(cluster.node(3).holds(chunk).unwrap().stamp > left);
    assert_eq!(cluster.node(3).deletes(), []);
}

/// Makes all nodes full, so that nothing is repaired and marks stay.
async fn refuse_chunks(cluster: &Cluster) {
    for node in cluster.nodes.values() {
        node.set_refuses(true);
    }
    eventually("no node takes chunks", || async {
        cluster.status().await.nodes.iter().all(|node| node.refuses_chunks)
    })
    .await;
}

#[tokio::test]
async fn last_readable_replica_is_read_again_before_it_is_marked() {
    let cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    refuse_chunks(&cluster).await;
    for (id, bad) in [(1, 1), (2, 2)] {
        cluster.node(id).spoil(chunk);
        eventually("it is recorded", || async {
            cluster.replicas("/file").await.into_values().filter(|is_bad| *is_bad).count() == bad
        })
        .await;
        assert!(cluster.node(id).verified().is_empty(), "others are left");
    }
    let third = cluster.node(3);
    third.accuse(chunk);
    eventually("the accusation is settled", || async { !third.settled().is_empty() }).await;
    assert!(!third.verified().is_empty());
    assert!(!cluster.replicas("/file").await[&3], "it was found sound");
    third.spoil(chunk);
    eventually("it is recorded", || async { cluster.replicas("/file").await[&3] }).await;
}

/// K8: each coordinator gets the verdict; one read is enough.
#[tokio::test]
async fn k08_only_the_lease_holder_reads_the_last_replica_again() {
    // It keeps the lease even on a busy machine.
    let settings = Settings { worker_lease_ms: 60_000, ..settings() };
    let first = Cluster::with(settings, Arc::new(MemoryEngine::new()), 2).await;
    eventually("it holds the lease", || async {
        first.status().await.worker_lease_holder == first.address()
    })
    .await;
    let mut second = first.another().await;
    let third = second.add_node(3).await;
    let chunk = second.put("/file", b"data", &[1, 2, 3]).await;
    refuse_chunks(&second).await;
    for id in [1, 2] {
        second.node(id).spoil(chunk);
        eventually("it is recorded", || async { second.replicas("/file").await[&id] }).await;
    }
    third.accuse(chunk);
    let before = third.orders();
    eventually("it repeats its verdict", || async { third.orders() > before + 20 }).await;
    assert!(third.verified().is_empty() && third.settled().is_empty());
    third.beat_at(&first.address()).await;
    eventually("it is settled", || async { !third.settled().is_empty() }).await;
    assert!(!third.verified().is_empty());
}

/// K8: an earlier report does not stand against a later one.
#[tokio::test]
async fn k08_late_verdict_is_settled_with_what_the_record_says() {
    let cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    refuse_chunks(&cluster).await;
    let third = cluster.node(3);
    let settled_as = async |number| {
        eventually("it is settled", || async { third.settled_as(number).is_some() }).await;
        third.settled_as(number).unwrap()
    };
    assert_eq!(settled_as(third.accuse(chunk)).await, v1::ReplicaCondition::Bad);
    assert_eq!(settled_as(third.acquit_late(chunk)).await, v1::ReplicaCondition::Bad);
    assert!(cluster.replicas("/file").await[&3]);
    assert_eq!(settled_as(third.acquit(chunk)).await, v1::ReplicaCondition::Sound);
}

#[tokio::test]
async fn k10_repeated_verdict_is_counted_once() {
    let cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    refuse_chunks(&cluster).await;
    let third = cluster.node(3);
    for times in 1..=3 {
        third.accuse(chunk);
        eventually("it is settled", || async { third.settled().len() == times }).await;
    }
    let shown = http_get(&cluster.handle, "/metrics").await;
    assert!(shown.contains("dfs_coordinator_bad_replicas_total 1\n"), "{shown}");
}

#[tokio::test]
async fn replica_that_is_found_bad_by_mistake_is_used_again() {
    let cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    refuse_chunks(&cluster).await;
    cluster.node(3).accuse(chunk);
    eventually("it is recorded", || async { cluster.replicas("/file").await[&3] }).await;
    cluster.node(3).acquit(chunk);
    eventually("it is revoked", || async { !cluster.replicas("/file").await[&3] }).await;
    eventually("fully replicated again", || is_whole(&cluster)).await;
}

#[tokio::test]
async fn chunk_with_bad_replicas_only_is_rebuilt_from_them() {
    let cluster = Cluster::start(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    let stamps = [1, 2, 3].map(|id| cluster.node(id).holds(chunk).unwrap().stamp);
    for node in cluster.nodes.values() {
        node.spoil(chunk);
    }
    eventually("all are replaced", || async {
        is_whole(&cluster).await
            && [1, 2, 3].iter().zip(stamps).all(|(id, old)| {
                cluster.node(*id).holds(chunk).is_some_and(|held| held.stamp != old)
            })
    })
    .await;
}

/// A node that was lost returns, and its disk is broken.
#[tokio::test]
async fn broken_disk_of_a_node_that_returns_is_cleared() {
    let cluster = Cluster::start(4).await;
    cluster.put("/file", b"data", &[1, 2, 3]).await;
    let state = || async {
        let namespace = cluster.namespace().await;
        let node = namespace.node(Scope::internal(), NodeId(3)).await.unwrap().unwrap();
        node.disks[0].state
    };
    cluster.node(3).silence();
    eventually("rebuilt elsewhere", || async {
        cluster.replicas("/file").await.keys().copied().eq([1, 2, 4])
    })
    .await;
    assert_eq!(state().await, NodeDiskState::Present, "it may come back");
    cluster.node(3).set_failed_disk(true);
    cluster.node(3).beat().await;
    eventually("nothing needs the disk", || async { state().await == NodeDiskState::Clear }).await;
    eventually("nothing waits for its deletion there", || async {
        let namespace = cluster.namespace().await;
        let waiting = namespace.chunks_to_delete(Scope::internal(), None, 10).await.unwrap();
        waiting.chunks.is_empty()
    })
    .await;
    cluster.node(3).set_failed_disk(false);
    eventually("it is used again once it works", || async {
        state().await == NodeDiskState::Present
    })
    .await;
}

impl Cluster {
    async fn give_up(&self, node: u128) -> Result<(), Status> {
        let cluster_id = self.status().await.cluster_id;
        let request = v1::GiveUpRequest { cluster_id, node_id: id(node) };
        self.admin().await.give_up(request).await.map(drop)
    }
}

#[tokio::test]
async fn repair_is_held_while_more_than_a_quarter_of_the_nodes_is_lost_at_once() {
    let cluster = Cluster::start(7).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    // A lost node of which nothing is needed does not count.
    cluster.put("/other", b"data", &[1, 4, 5]).await;
    eventually("fully replicated", || is_whole(&cluster)).await;
    let refused = cluster.give_up(1).await.unwrap_err();
    assert!(refused.message().contains("only a lost one"), "{refused:?}");
    for node in [2, 3, 5] {
        cluster.node(node).silence();
    }
    let held = || async { cluster.status().await.replication.unwrap().held };
    eventually("it is held", || async { held().await.contains("3 of 7 datanodes") }).await;
    eventually("that is counted", || async {
        cluster.replication().await.is_some_and(|counts| counts.under_replicated == 2)
    })
    .await;
    let holders = || cluster.nodes.values().filter(|node| node.holds(chunk).is_some()).count();
    assert_eq!(holders(), 3, "nothing was built");
    let metrics = http_get(&cluster.handle, "/metrics").await;
    assert!(metrics.contains("dfs_coordinator_repair_held 1"), "{metrics}");
    // One that is given up releases it: the other two may fail independently of each other.
    eventually("it is lost", || async { state(&cluster, 5).await == v1::NodeState::Lost }).await;
    cluster.give_up(5).await.unwrap();
    eventually("repair continues", || is_whole(&cluster)).await;
    assert_eq!(holders(), 5, "one here, two silent, two rebuilt");
    assert_eq!(held().await, "");
}

/// Small builds that a fake node allows at a time.
const SMALL_BUILDS: usize = 32;

#[tokio::test]
async fn repair_and_drain_together_build_no_more_at_a_node_than_it_allows() {
    let mut cluster = Cluster::start(4).await;
    for number in 0..60 {
        cluster.put(&format!("/lost-{number}"), b"data", &[1, 2, 3]).await;
        cluster.put(&format!("/drained-{number}"), b"data", &[1, 2, 4]).await;
    }
    eventually("fully replicated", || is_whole(&cluster)).await;
    // The only node that can take what the third one had, and what the fourth one has.
    let fifth = cluster.add_node(5).await;
    fifth.hold_builds();
    cluster.node(3).set_refuses(true);
    let drained = cluster.drain(4, false).await.unwrap();
    assert_eq!(drained.state(), v1::NodeState::Draining);
    eventually("drain occupies it", || async { fifth.building() == SMALL_BUILDS }).await;
    cluster.node(3).silence();
    eventually("the loss is noticed", || async {
        cluster.replication().await.is_some_and(|status| status.under_replicated > 0)
    })
    .await;
    fifth.release_builds();
    eventually("repaired", || is_whole(&cluster)).await;
    cluster.until(4, v1::NodeState::Drained).await;
    assert_eq!((fifth.chunks(), fifth.most_builds()), (120, SMALL_BUILDS));
}

#[tokio::test]
async fn build_that_hangs_and_one_that_fails_delay_no_other() {
    let mut cluster = Cluster::start(3).await;
    let mut chunks = Vec::new();
    for number in 0..100 {
        chunks.push(cluster.put(&format!("/file-{number}"), b"data", &[1, 2, 3]).await);
    }
    eventually("fully replicated", || is_whole(&cluster)).await;
    let fourth = cluster.add_node(4).await;
    fourth.hold_build_of(chunks[0]);
    fourth.fail_builds_of(chunks[1]);
    cluster.node(3).silence();
    eventually("all others are built", || async { fourth.chunks() == 98 }).await;
    eventually("that is counted", || async {
        cluster.replication().await.is_some_and(|status| status.under_replicated == 2)
    })
    .await;
    assert_eq!(fourth.build_orders(chunks[0]), 1, "it is still in progress");
    assert!(fourth.build_orders(chunks[1]) <= 3, "it rests after each failure");
    fourth.release_builds();
    eventually("the one that hung is built", || async { fourth.chunks() == 99 }).await;
}

#[tokio::test]
async fn drain_leaves_half_of_a_node_to_repair() {
    let mut cluster = Cluster::start(4).await;
    for number in 0..4 {
        cluster.put(&format!("/lost-{number}"), b"data", &[1, 2, 3]).await;
    }
    for number in 0..60 {
        cluster.put(&format!("/drained-{number}"), b"data", &[1, 2, 4]).await;
    }
    eventually("fully replicated", || is_whole(&cluster)).await;
    let fifth = cluster.add_node(5).await;
    fifth.hold_builds();
    cluster.node(4).set_refuses(true);
    cluster.node(3).silence();
    eventually("repair works", || async { fifth.building() == 4 }).await;
    cluster.drain(4, false).await.unwrap();
    eventually("drain occupies the rest", || async { fifth.building() == SMALL_BUILDS / 2 }).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(fifth.most_builds(), SMALL_BUILDS / 2);
    fifth.release_builds();
    cluster.until(4, v1::NodeState::Drained).await;
    eventually("repaired", || is_whole(&cluster)).await;
    assert_eq!(fifth.chunks(), 64);
}

#[tokio::test]
async fn node_that_reaches_no_source_rests_is_named_and_builds_later() {
    let mut cluster = Cluster::start(3).await;
    for number in 0..60 {
        cluster.put(&format!("/file-{number}"), b"data", &[1, 2, 3]).await;
    }
    eventually("fully replicated", || is_whole(&cluster)).await;
    let fourth = cluster.add_node(4).await;
    fourth.cut_off_builds(true);
    cluster.node(3).silence();
    let name = format!("builds at node {} fail", fourth.id);
    eventually("it is named", || async {
        let workers = cluster.status().await.workers;
        let repair = workers.into_iter().find(|worker| worker.name == "repair").unwrap().state;
        repair.contains(&name) && repair.contains("it gets a replica from none of the datanodes")
    })
    .await;
    eventually("it is reported with the cause", || async {
        let failing = cluster.status().await.replication.unwrap().failing_targets;
        failing.iter().any(|it| it.node_id == id(4) && it.reaches_no_source)
    })
    .await;
    let tried = fourth.builds_cut_off();
    // The first ones are in progress together.
    assert!(tried < SMALL_BUILDS + 10, "{tried} builds");
    fourth.cut_off_builds(false);
    eventually("it builds", || is_whole(&cluster)).await;
}

#[tokio::test]
async fn chunk_for_which_no_node_is_found_is_reported_until_one_is_added() {
    let mut cluster = Cluster::start(3).await;
    cluster.put("/file", b"data", &[1, 2, 3]).await;
    eventually("fully replicated", || is_whole(&cluster)).await;
    let reported = || async {
        let counts = cluster.status().await.replication.unwrap();
        (counts.is_known, counts.without_target, counts.without_spare, counts.degraded_ms.is_some())
    };
    assert_eq!(reported().await, (true, 0, 0, false));
    cluster.node(3).silence();
    eventually("no node is found", || async { reported().await == (true, 1, 0, true) }).await;
    cluster.node(2).silence();
    eventually("one replica is left", || async { reported().await == (true, 1, 1, true) }).await;
    for id in [4, 5] {
        cluster.add_node(id).await;
    }
    eventually("it is repaired", || is_whole(&cluster)).await;
    let counts = cluster.status().await.replication.unwrap();
    assert_eq!((counts.without_target, counts.without_spare, counts.degraded_ms), (0, 0, None));
}
