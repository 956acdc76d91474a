//! Datanodes that join a cluster with data are filled like the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dfs_client::Client;
use dfs_testkit::process::{Cluster, Settings, wait_until};

use crate::semantics::{client, put, read, verified_replicas};
use crate::support::{binary, noise};

/// Files before the nodes join, each of one chunk: half of the capacity of three nodes.
const FILES: u64 = 96;
const LENGTH: usize = 256 << 10;
const CAPACITY: &str = "32MiB";

/// Returns how many percentage points each node is off the mean fill of all nodes.
fn offsets(cluster: &Cluster) -> Vec<f64> {
    let status = cluster.status().unwrap();
    let sum = |node: &serde_json::Value, field: &str| -> f64 {
        let disks = node["disks"].as_array().unwrap();
        disks.iter().map(|disk| disk[field].as_f64().unwrap()).sum()
    };
    let nodes = status["nodes"].as_array().unwrap().iter();
    let nodes: Vec<_> = nodes.map(|it| (sum(it, "capacity"), sum(it, "free"))).collect();
    let fill = |(capacity, free)| 100.0 * (1.0 - free / capacity);
    let total = nodes.iter().fold((0.0, 0.0), |(c, f), (capacity, free)| (c + capacity, f + free));
    nodes.into_iter().map(|node| fill(node) - fill(total)).collect()
}

/// Returns the replicas on each node, as last reported.
fn replicas(cluster: &Cluster) -> Vec<(String, u64)> {
    let status = cluster.status().unwrap();
    let nodes = status["nodes"].as_array().unwrap().iter();
    let count = |node: &serde_json::Value| {
        let disks = node["disks"].as_array().unwrap();
        disks.iter().map(|disk| disk["chunks"].as_u64().unwrap()).sum()
    };
    nodes.map(|node| (node["zone"].as_str().unwrap().to_owned(), count(node))).collect()
}

fn worst(cluster: &Cluster) -> f64 {
    offsets(cluster).into_iter().map(f64::abs).fold(0.0, f64::max)
}

/// Writes small files and reads all of them until stopped. Returns how many it wrote.
async fn work(client: Client, is_over: Arc<AtomicBool>) -> u64 {
    let mut written = 0;
    while !is_over.load(Ordering::Relaxed) {
        put(&client, &format!("/new-{written}"), noise(10_000, 1_000 + written)).await.unwrap();
        written += 1;
        for seed in [written % FILES, (written * 7) % FILES] {
            assert!(read(&client, &format!("/{seed}")).await.unwrap() == noise(LENGTH, seed));
        }
    }
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn s32_nodes_that_join_are_filled_while_files_are_written_and_read() {
    let mut cluster = Cluster::start(
        binary(),
        Settings {
            init: vec!["--replication-factor=2".to_owned()],
            datanode_flags: vec![vec!["--capacity".to_owned(), CAPACITY.to_owned()]; 5],
            ..Settings::default()
        },
    );
    let user = client(&cluster);
    for seed in 0..FILES {
        put(&user, &format!("/{seed}"), noise(LENGTH, seed)).await.unwrap();
    }
    for _ in 0..2 {
        cluster.add_datanode();
    }
    cluster.wait_for_active(5);
    let is_over = Arc::new(AtomicBool::new(false));
    let working = tokio::spawn(work(client(&cluster), is_over.clone()));
    let is_even = wait_until(Duration::from_secs(40), || worst(&cluster) <= 3.0);
    let workers = cluster.dfs_ok(["worker", "list"]);
    assert!(is_even, "{:?}\n{workers}", offsets(&cluster));
    is_over.store(true, Ordering::Relaxed);
    let written = working.await.unwrap();
    assert!(written > 0);
    let is_over = wait_until(Duration::from_secs(20), || {
        let replicas: u64 = replicas(&cluster).into_iter().map(|(_, count)| count).sum();
        let list = cluster.dfs_ok(["worker", "list"]);
        replicas == 2 * (FILES + written) && list.contains("all datanodes are about as full")
    });
    assert!(is_over, "{}", cluster.dfs_ok(["worker", "list"]));
    // A file that was written meanwhile may have changed it a little.
    assert!(worst(&cluster) <= 4.0, "{:?}", offsets(&cluster));
    for seed in 0..FILES {
        assert!(read(&user, &format!("/{seed}")).await.unwrap() == noise(LENGTH, seed), "{seed}");
    }
    for number in 0..written {
        let path = format!("/new-{number}");
        assert!(read(&user, &path).await.unwrap() == noise(10_000, 1_000 + number), "{path}");
    }
    for path in ["/0", "/50", "/95"] {
        assert_eq!(verified_replicas(&cluster, path), 2, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s32_replicas_are_spread_over_a_zone_that_appears_later() {
    let mut cluster = Cluster::start(
        binary(),
        Settings {
            datanodes: 2,
            zones: ["a", "a", "b"].map(str::to_owned).to_vec(),
            init: vec!["--replication-factor=2".to_owned()],
            ..Settings::default()
        },
    );
    let user = client(&cluster);
    for seed in 0..20 {
        put(&user, &format!("/{seed}"), noise(50_000, seed)).await.unwrap();
    }
    cluster.add_datanode();
    cluster.wait_for_active(3);
    cluster.dfs_ok(["fsck"]);
    let is_spread = wait_until(Duration::from_secs(40), || {
        let replicas = replicas(&cluster);
        let in_b = replicas.iter().any(|(zone, count)| zone == "b" && *count == 20);
        in_b && replicas.iter().map(|(_, count)| count).sum::<u64>() == 40
    });
    assert!(is_spread, "{:?}\n{}", replicas(&cluster), cluster.dfs_ok(["worker", "list"]));
    for seed in 0..20 {
        let path = format!("/{seed}");
        assert!(read(&user, &path).await.unwrap() == noise(50_000, seed), "{path}");
        assert_eq!(verified_replicas(&cluster, &path), 2, "{path}");
    }
}
