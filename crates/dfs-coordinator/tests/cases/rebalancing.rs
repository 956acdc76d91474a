//! Nodes are filled evenly, and replicas are spread over zones.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use dfs_coordinator::Settings;
use dfs_metadata::memory::MemoryEngine;
use dfs_proto::v1;
use dfs_proto::v1::set_worker_request::Change;
use dfs_types::{ChunkId, move_cost};

use super::administering::id;
use crate::cluster::{Cluster, HOUR, eventually, settings};

const CAPACITY: u64 = 100_000;
const FILE: u64 = 1_000;

fn pause(time: Duration) -> Change {
    Change::PauseMs(time.as_millis() as u64)
}

impl Cluster {
    /// Starts nodes with disks of a known size. Nothing is moved until rebalancing is resumed.
    async fn with_capacities(capacities: &[u64]) -> Self {
        let settings = Settings { reconcile_settle_ms: 50, ..settings() };
        let nodes = capacities.len() as u128;
        let cluster = Self::with(settings, Arc::new(MemoryEngine::new()), nodes).await;
        eventually("there is a lease holder", || async {
            cluster.set_worker("rebalance", pause(HOUR)).await.is_ok()
        })
        .await;
        for (index, capacity) in capacities.iter().enumerate() {
            cluster.node(index as u128 + 1).set_capacity(*capacity);
        }
        cluster
    }

    /// Resumes rebalancing once heartbeats report the nodes as they are.
    async fn rebalance(&self) {
        for id in self.nodes.keys() {
            let node = self.node(id.0);
            let before = node.orders();
            eventually("it is heard", || async { node.orders() > before + 2 }).await;
        }
        self.set_worker("rebalance", pause(Duration::ZERO)).await.unwrap();
    }

    async fn put_files(&self, count: usize, nodes: &[u128]) -> Vec<(String, ChunkId)> {
        let mut files = Vec::new();
        for number in 0..count {
            let path = format!("/file-{number}");
            let chunk = self.put(&path, &[number as u8; FILE as usize], nodes).await;
            files.push((path, chunk));
        }
        files
    }

    /// Waits until each file has three replicas, on the nodes that are recorded and no others, and
    /// the files that each node holds are within these bounds.
    async fn wait_for(&self, files: &[(String, ChunkId)], bounds: RangeInclusive<u64>) {
        eventually("all replicas are in their places", || async {
            let is_within = |used: &u64| bounds.contains(&(used / FILE));
            if !self.used().iter().all(is_within) {
                return false;
            }
            for (path, chunk) in files {
                let recorded: BTreeSet<u128> = self.replicas(path).await.into_keys().collect();
                let nodes = self.nodes.values().filter(|node| node.holds(*chunk).is_some());
                let held: BTreeSet<u128> = nodes.map(|node| node.id.0).collect();
                if recorded.len() != 3 || held != recorded {
                    return false;
                }
            }
            true
        })
        .await;
    }

    fn used(&self) -> Vec<u64> {
        self.nodes.values().map(|node| node.used()).collect()
    }

    async fn moves(&self, reason: &str) -> u64 {
        let metrics = crate::cluster::http_get(&self.handle, "/metrics").await;
        let name = format!("dfs_coordinator_moves_total{{reason=\"{reason}\"}} ");
        let moves = metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok());
        moves.unwrap_or_default()
    }

    async fn detail(&self) -> v1::WorkerStatus {
        self.worker("rebalance").await
    }
}

#[tokio::test]
async fn nodes_are_filled_evenly_after_others_have_joined() {
    let mut cluster = Cluster::with_capacities(&[CAPACITY; 3]).await;
    let files = cluster.put_files(50, &[1, 2, 3]).await;
    for id in [4, 5] {
        cluster.add_node(id).await.set_capacity(CAPACITY);
    }
    cluster.rebalance().await;
    // 30 % on average.
    cluster.wait_for(&files, 27..=33).await;
    eventually("it is over", || async {
        cluster.detail().await.state.contains("about as full as the mean, 30 %")
    })
    .await;
    // No replica was moved twice.
    let moves = cluster.moves("rebalance").await;
    let taken: usize = [4, 5].iter().map(|id| cluster.node(*id).chunks()).sum();
    assert_eq!(moves, taken as u64);
}

#[tokio::test]
async fn replicas_that_cannot_be_moved_stay_and_status_says_why() {
    let cluster = Cluster::with_capacities(&[CAPACITY, CAPACITY, CAPACITY / 2]).await;
    let files = cluster.put_files(40, &[1, 2, 3]).await;
    cluster.rebalance().await;
    eventually("it says why", || async {
        let state = cluster.detail().await.state;
        state.contains(&cluster.node(3).id.to_string())
            && state
                .contains("80 % full and the mean is 48 %, but none of its replicas can be moved")
    })
    .await;
    cluster.wait_for(&files, 40..=40).await;
    assert!(cluster.nodes.values().all(|node| node.deletes().is_empty()));
}

#[tokio::test]
async fn equal_fill_takes_no_zone_away_from_a_chunk() {
    let mut cluster = Cluster::with_capacities(&[CAPACITY; 3]).await;
    for (id, zone) in [(1, "a"), (2, "b"), (3, "c")] {
        cluster.node(id).set_zone(zone).await;
    }
    let files = cluster.put_files(50, &[1, 2, 3]).await;
    for id in [4, 5] {
        let node = cluster.add_node(id).await;
        node.set_capacity(CAPACITY);
        node.set_zone("a").await;
    }
    cluster.rebalance().await;
    // The state may be that of a moment before: a walk ended while reports were outstanding.
    eventually("the rest cannot be moved", || async {
        cluster.used()[0] <= 33 * FILE
            && cluster.detail().await.state.contains("none of its replicas can be moved")
    })
    .await;
    cluster.wait_for(&files, 5..=50).await;
    assert_eq!(cluster.used()[1..3], [50 * FILE; 2]);
}

#[tokio::test]
async fn moves_continue_on_the_next_lease_holder() {
    let mut first = Cluster::with_capacities(&[CAPACITY; 3]).await;
    let files = first.put_files(50, &[1, 2, 3]).await;
    first.add_node(4).await.set_capacity(CAPACITY);
    let second = first.another().await;
    first.set_worker("rebalance", super::workers::rate(10 * move_cost(0))).await.unwrap();
    first.rebalance().await;
    eventually("some are moved", || async { first.node(4).chunks() >= 3 }).await;
    first.stop().await;
    assert!(second.node(4).chunks() < 30, "it was stopped half-way");
    eventually("the next one has the lease", || async {
        second.set_worker("rebalance", super::workers::rate(0)).await.is_ok()
    })
    .await;
    // 37.5 % on average.
    second.wait_for(&files, 35..=40).await;
}

/// Old replicas are not deleted, so the nodes that gave them look as full as before.
#[tokio::test]
async fn next_lease_holder_knows_what_waits_for_deletion() {
    let mut first = Cluster::with_capacities(&[CAPACITY; 3]).await;
    first.put_files(50, &[1, 2, 3]).await;
    first.add_node(4).await.set_capacity(CAPACITY);
    for node in first.nodes.values() {
        node.refuse_deletes();
    }
    let second = first.another().await;
    first.rebalance().await;
    let waits = async |cluster: &Cluster| {
        let state = cluster.detail().await.state;
        cluster.node(4).chunks() >= 15 && state.starts_with("waiting for the deletion of")
    };
    eventually("replicas wait", || waits(&first)).await;
    first.stop().await;
    eventually("the next one waits for them, too", || async {
        let state = second.detail().await.state;
        state.contains("about as full as") || state.starts_with("waiting for the deletion of")
    })
    .await;
    // The first one ends with 26, which the next one may complete.
    let held = second.node(4).chunks();
    assert!(held <= 30, "{held}: moved because of bytes that wait for deletion");
}

#[tokio::test]
async fn pause_and_repair_hold_moves() {
    let mut cluster = Cluster::with_capacities(&[CAPACITY; 3]).await;
    let mut files = cluster.put_files(50, &[1, 2, 3]).await;
    cluster.set_worker("repair", super::workers::rate(1)).await.unwrap();
    cluster.add_node(4).await.set_capacity(CAPACITY);
    let mut short = Vec::new();
    for path in ["/short", "/short-too"] {
        let chunk = cluster.put(path, &[1; FILE as usize], &[1, 2]).await;
        short.push((path.to_owned(), chunk));
    }
    assert_eq!(cluster.detail().await.activity(), v1::WorkerActivity::Paused);
    assert_eq!(cluster.moves("rebalance").await, 0);
    cluster.rebalance().await;
    eventually("it waits for repair", || async {
        cluster.detail().await.state == "waiting until repair is done"
    })
    .await;
    assert_eq!(cluster.moves("rebalance").await, 0);
    cluster.set_worker("repair", super::workers::rate(0)).await.unwrap();
    files.extend(short);
    cluster.wait_for(&files, 36..=42).await;
}

#[tokio::test]
async fn nothing_is_moved_while_deletion_is_on_hold() {
    let mut cluster = Cluster::with_capacities(&[CAPACITY; 3]).await;
    let files = cluster.put_files(50, &[1, 2, 3]).await;
    cluster.add_node(4).await.set_capacity(CAPACITY);
    cluster.restore().await;
    eventually("there is a lease holder", || async {
        cluster.set_worker("rebalance", pause(Duration::ZERO)).await.is_ok()
    })
    .await;
    eventually("it says what it waits for", || async {
        cluster.detail().await.state.contains("dfs gc acknowledge")
    })
    .await;
    assert_eq!((cluster.node(4).chunks(), cluster.moves("rebalance").await), (0, 0));
    let cluster_id = cluster.id().await;
    let request = v1::AcknowledgeGcRequest { cluster_id, incarnation: 2, hold: 0 };
    cluster.admin().await.acknowledge_gc(request).await.unwrap();
    cluster.wait_for(&files, 35..=40).await;
}

#[tokio::test]
async fn replicas_are_spread_over_zones_that_appear_later() {
    let mut cluster = Cluster::with_capacities(&[1 << 40; 3]).await;
    for id in 1..=3 {
        cluster.node(id).set_zone(["a", "a", "b"][id as usize - 1]).await;
    }
    let files = cluster.put_files(40, &[1, 2, 3]).await;
    let fourth = cluster.add_node(4).await;
    fourth.set_capacity(1 << 40);
    fourth.set_zone("c").await;
    cluster.rebalance().await;
    eventually("each file has a replica there", || async {
        files.iter().all(|(_, chunk)| fourth.holds(*chunk).is_some())
    })
    .await;
    cluster.wait_for(&files, 0..=40).await;
    for (path, _) in &files {
        let holders: BTreeSet<u128> = cluster.replicas(path).await.into_keys().collect();
        assert!(holders.contains(&3), "the only one in zone b stays: {holders:?}");
    }
    assert_eq!(cluster.moves("zone").await, 40);
    assert_eq!(cluster.moves("rebalance").await, 0);
}

#[tokio::test]
async fn node_where_builds_fail_backs_off_is_named_and_takes_its_share_later() {
    let mut cluster = Cluster::with_capacities(&[CAPACITY; 3]).await;
    let files = cluster.put_files(50, &[1, 2, 3]).await;
    for id in [4, 5] {
        cluster.add_node(id).await.set_capacity(CAPACITY);
    }
    cluster.node(4).fail_builds(true);
    cluster.rebalance().await;
    eventually("the other one is filled", || async { cluster.node(5).chunks() >= 20 }).await;
    let name = cluster.node(4).id.to_string();
    eventually("the failing one is named", || async {
        let state = cluster.detail().await.state;
        state.contains(&format!("moves to node {name} fail")) && state.contains("the logs of the")
    })
    .await;
    eventually("it is reported as one where builds fail", || async {
        let failing = cluster.status().await.replication.unwrap().failing_targets;
        failing.iter().any(|it| it.node_id == id(4) && it.rests_ms > 0 && !it.reaches_no_source)
    })
    .await;
    let tried = cluster.node(4).failed_builds();
    assert!(tried < 20, "{tried} builds in a few seconds");
    cluster.node(4).fail_builds(false);
    cluster.wait_for(&files, 27..=33).await;
}

#[tokio::test]
async fn paused_deletion_is_named_and_holds_moves() {
    let mut cluster = Cluster::with_capacities(&[CAPACITY; 3]).await;
    let files = cluster.put_files(50, &[1, 2, 3]).await;
    cluster.add_node(4).await.set_capacity(CAPACITY);
    cluster.set_worker("delete", pause(HOUR)).await.unwrap();
    cluster.rebalance().await;
    eventually("it says what it waits for", || async {
        cluster.detail().await.state.contains("dfs worker resume delete")
    })
    .await;
    assert_eq!(cluster.moves("rebalance").await, 0);
    cluster.set_worker("delete", pause(Duration::ZERO)).await.unwrap();
    cluster.wait_for(&files, 35..=40).await;
}

/// Drain is limited to a replica in a quarter of an hour.
#[tokio::test]
async fn slow_drain_holds_moves_that_were_chosen_before_it_began() {
    let mut cluster = Cluster::with_capacities(&[CAPACITY; 4]).await;
    cluster.put_files(50, &[1, 2, 3]).await;
    for path in ["/a", "/b", "/c"] {
        cluster.put(path, &[1; FILE as usize], &[1, 2, 4]).await;
    }
    cluster.add_node(5).await.set_capacity(CAPACITY);
    cluster.set_worker("drain", super::workers::rate(1)).await.unwrap();
    cluster.set_worker("rebalance", super::workers::rate(move_cost(FILE))).await.unwrap();
    cluster.rebalance().await;
    eventually("a move is made", || async { cluster.moves("rebalance").await >= 1 }).await;
    cluster.drain(4, false).await.unwrap();
    eventually("drain works", || async { cluster.moves("drain").await == 1 }).await;
    let before = cluster.moves("rebalance").await;
    eventually("it waits for drain", || async {
        cluster.detail().await.state == "waiting until drain is done"
    })
    .await;
    let moves = cluster.moves("rebalance").await;
    assert!(moves <= before + 1, "{moves} moves, {before} before drain began");
    for worker in ["drain", "rebalance"] {
        cluster.set_worker(worker, super::workers::rate(0)).await.unwrap();
    }
    eventually("one node is empty, and the others are equally full", || async {
        let used = cluster.used();
        used[3] == 0 && [0, 1, 2, 4].iter().all(|nth| (36..=43).contains(&(used[*nth] / FILE)))
    })
    .await;
}
