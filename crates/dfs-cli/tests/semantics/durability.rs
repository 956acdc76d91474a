//! S1 to S5.

use std::time::Duration;

use dfs_client::{Client, PutOptions, PutSource};
use dfs_testkit::process::{Cluster, Settings, wait_until};

use super::{client, path, put, read, shared, spawn, verified_replicas};
use crate::support::{binary, cluster, noise};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn s01_acknowledged_put_survives_kill_of_all_processes() {
    let mut cluster = cluster();
    let client = client(&cluster);
    let files: Vec<Vec<u8>> = (0..20).map(|n| noise(1 + n * 150_000, n as u64)).collect();
    for (number, bytes) in files.iter().enumerate() {
        put(&client, &format!("/{number}"), bytes.clone()).await.unwrap();
    }
    // Immediately, before anything is written back or closed.
    cluster.coordinator.kill();
    for node in &mut cluster.datanodes {
        node.kill();
    }
    cluster.start_coordinator();
    (0..3).for_each(|index| cluster.start_datanode(index));
    cluster.wait_for_active(3);
    for (number, bytes) in files.iter().enumerate() {
        let at = format!("/{number}");
        assert!(read(&client, &at).await.unwrap() == *bytes, "{at} differs");
        assert!(verified_replicas(&cluster, &at) >= 2, "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s02_files_are_complete_or_absent_after_a_coordinator_kill() {
    let mut cluster = cluster();
    for seed in 0..3_u64 {
        // One that waits for the coordinator to come back, and one that gives up.
        let patient = client(&cluster);
        let hasty = Client::builder().coordinator(cluster.coordinator_url());
        let hasty = hasty.deadline(Duration::from_millis(200)).connect_lazy().unwrap();
        let mut puts = Vec::new();
        for number in 0..100_u64 {
            let client = if number % 2 == 0 { patient.clone() } else { hasty.clone() };
            let at = format!("/{seed}-{number}");
            puts.push(spawn(async move {
                let result = put(&client, &at, noise(10_000, number)).await;
                (at, number, result)
            }));
            if number == 30 + 20 * seed {
                cluster.coordinator.kill();
                cluster.start_coordinator();
            }
        }
        for put in puts {
            let (at, number, result) = put.await.unwrap();
            if number % 2 == 0 {
                result.as_ref().unwrap();
            }
            match read(&patient, &at).await {
                Ok(bytes) => assert!(bytes == noise(10_000, number), "{at} is not whole"),
                Err(error) => {
                    assert_eq!(error.code(), dfs_types::ErrorCode::NotFound, "{at}: {error}");
                    assert!(result.is_err(), "{at} was acknowledged");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s03_puts_and_gets_survive_a_killed_datanode() {
    let mut cluster = cluster();
    let client = client(&cluster);
    let bytes = noise(60 * MIB, 1);
    for victim in 0..3 {
        let at = format!("/{victim}");
        let moved = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let (sum, own, at_put) = (moved.clone(), client.clone(), at.clone());
        let source = PutSource::bytes(bytes.clone());
        let progress: dfs_client::ProgressObserver = std::sync::Arc::new(move |moved| {
            sum.fetch_add(moved, std::sync::atomic::Ordering::Relaxed);
        });
        let options = PutOptions::default().progress(progress);
        let putting = spawn(async move { own.put(&path(&at_put), source, options).await });
        let is_under_way = || moved.load(std::sync::atomic::Ordering::Relaxed) > 10 << 20;
        wait_until(Duration::from_secs(20), || is_under_way() || putting.is_finished());
        cluster.datanodes[victim].kill();
        putting.await.unwrap().unwrap();
        assert!(verified_replicas(&cluster, &at) >= 2);
        assert!(read(&client, &at).await.unwrap() == bytes);
        cluster.start_datanode(victim);
        cluster.wait_for_active(3);

        let mut reader = client.get(&path(&at), dfs_client::GetOptions::default()).await.unwrap();
        let mut got = reader.next().await.unwrap().unwrap().to_vec();
        cluster.datanodes[victim].kill();
        while let Some(part) = reader.next().await.unwrap() {
            got.extend_from_slice(&part);
        }
        assert!(got == bytes);
        cluster.start_datanode(victim);
        cluster.wait_for_active(3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s04_missing_replicas_are_rereplicated() {
    let mut cluster = Cluster::start(binary(), Settings { datanodes: 3, ..Settings::default() });
    let client = client(&cluster);
    // Written while a node is down.
    cluster.datanodes[0].kill();
    put(&client, "/few", noise(MIB, 1)).await.unwrap();
    assert_eq!(verified_replicas(&cluster, "/few"), 2);
    cluster.start_datanode(0);
    cluster.wait_for_full_replication(Duration::from_secs(30));
    assert_eq!(verified_replicas(&cluster, "/few"), 3);
    // Lost with a node that does not come back.
    cluster.add_datanode();
    cluster.wait_for_active(4);
    cluster.datanodes[1].kill();
    let is_repaired = || verified_replicas(&cluster, "/few") == 3;
    assert!(wait_until(Duration::from_mins(1), is_repaired), "{:?}", cluster.status());
}

#[tokio::test(flavor = "multi_thread")]
async fn s05_last_replica_is_kept_while_its_node_is_down() {
    let mut cluster = cluster();
    let client = client(&cluster);
    let bytes = noise(300_000, 1);
    let options = PutOptions::default().replication_factor(1);
    client.put(&path("/one"), PutSource::bytes(bytes.clone()), options).await.unwrap();
    let holder = (0..3)
        .find(|index| cluster.datanodes[*index].metric("dfs_datanode_sealed_total", "") > 0.0);
    let holder = holder.unwrap();
    cluster.datanodes[holder].kill();
    let is_missing = || cluster.status().is_some_and(|s| s["replication"]["missing"] == 1);
    assert!(wait_until(Duration::from_secs(30), is_missing), "{:?}", cluster.status());
    let at = shared("/one");
    let hasty = Client::builder().coordinator(cluster.coordinator_url());
    let hasty = hasty.deadline(Duration::from_millis(500)).connect_lazy().unwrap();
    assert!(read(&hasty, &at).await.unwrap_err().is_retryable());
    cluster.start_datanode(holder);
    cluster.wait_for_active(3);
    assert!(read(&client, &at).await.unwrap() == bytes);
}
