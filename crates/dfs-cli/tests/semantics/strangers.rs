//! S16 and S17.

use std::process::Command;
use std::time::Duration;

use dfs_testkit::process::{Cluster, wait_until};

use super::{client, put, read, verified_replicas};
use crate::support::{binary, cluster, cluster_on_redb, noise};

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}

/// Returns the ids of the nodes with their states.
fn nodes(cluster: &Cluster) -> Vec<(String, String)> {
    let status = cluster.status().unwrap();
    let nodes = status["nodes"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    nodes.map(|node| (text(&node["id"]), text(&node["state"]))).collect()
}

fn ids(cluster: &Cluster) -> Vec<String> {
    nodes(cluster).into_iter().map(|(id, _)| id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn s16_disks_identify_their_node() {
    let mut cluster = cluster();
    let client = client(&cluster);
    let bytes = noise(500_000, 1);
    put(&client, "/file", bytes.clone()).await.unwrap();
    let before = ids(&cluster);
    // Another address, but the same node.
    let image = cluster.folder().join("image");
    cluster.datanodes[0].kill();
    copy_folder(&cluster.disk(0), &image);
    let old_address = cluster.datanodes[0].address().to_owned();
    cluster.start_datanode(0);
    assert_ne!(cluster.datanodes[0].address(), old_address);
    // Until the next registration the image is equivalent to the disk.
    let is_back = || cluster.datanodes[0].http_get("/readyz").0 == 200;
    assert!(wait_until(Duration::from_secs(20), is_back), "{}", cluster.datanodes[0].log());
    cluster.wait_for_active(3);
    assert_eq!(ids(&cluster), before);
    // The image is older than the disk now, and is refused.
    let mut stranger = cluster.datanode_at(7, &image);
    cluster.start_server(&mut stranger);
    let is_refused = || stranger.log().contains("all of them are older copies");
    assert!(wait_until(Duration::from_secs(20), is_refused), "{}", stranger.log());
    assert_eq!(stranger.http_get("/readyz").0, 503);
    assert_eq!(ids(&cluster), before);
    stranger.kill();
    assert_eq!(verified_replicas(&cluster, "/file"), 3);
    // Empty disks make a new node, and the old one stays known, but down.
    cluster.datanodes[1].kill();
    std::fs::remove_dir_all(cluster.disk(1)).unwrap();
    cluster.start_datanode(1);
    assert!(wait_until(Duration::from_secs(20), || nodes(&cluster).len() == 4));
    cluster.wait_for_full_replication(Duration::from_mins(1));
    assert!(read(&client, "/file").await.unwrap() == bytes);
    // No ghost: the old node's replicas are not counted, and no other node acts for it.
    let is_lost = || nodes(&cluster).iter().filter(|(_, state)| state == "lost").count() == 1;
    assert!(wait_until(Duration::from_secs(20), is_lost), "{:?}", nodes(&cluster));
    cluster.wait_for_full_replication(Duration::from_mins(1));
    assert_eq!(verified_replicas(&cluster, "/file"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn s16_one_of_two_identical_disks_is_refused() {
    let mut cluster = cluster();
    let client = client(&cluster);
    put(&client, "/file", noise(500_000, 1)).await.unwrap();
    cluster.datanodes[0].kill();
    let replica = cluster.folder().join("replica");
    copy_folder(&cluster.disk(0), &replica);
    cluster.start_datanode(0);
    let mut twin = cluster.datanode_at(7, &replica);
    cluster.start_server(&mut twin);
    let ready = |server: &dfs_testkit::process::Server| server.http_get("/readyz").0 == 200;
    let one_is_refused = || ready(&twin) != ready(&cluster.datanodes[0]);
    assert!(wait_until(Duration::from_secs(20), one_is_refused), "{}", twin.log());
    assert_eq!(nodes(&cluster).len(), 3);
    twin.kill();
    cluster.datanodes[0].kill();
    cluster.start_datanode(0);
    assert!(read(&client, "/file").await.unwrap() == noise(500_000, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn s17_empty_metadata_creates_no_cluster_and_deletes_nothing() {
    let mut cluster = cluster_on_redb();
    let client = client(&cluster);
    let bytes = noise(500_000, 1);
    put(&client, "/file", bytes.clone()).await.unwrap();
    cluster.coordinator.kill();
    let (metadata, kept) = (cluster.folder().join("metadata"), cluster.folder().join("kept"));
    std::fs::rename(&metadata, &kept).unwrap();
    let url = format!("redb://{}", metadata.display());
    let secret = cluster.folder().join("join-secret");
    let started = Command::new(binary())
        .args(["coordinator", "--metadata", &url, "--listen", "127.0.0.1:0"])
        .args(["--http-listen", "127.0.0.1:0", "--join-secret-file"])
        .arg(&secret)
        .output()
        .unwrap();
    assert!(!started.status.success());
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(said.contains("dfs coordinator init"), "{said}");
    // Not even a new cluster in its place gets any of the nodes.
    let made = Command::new(binary()).args(["coordinator", "init", "--metadata", &url]).output();
    assert!(made.unwrap().status.success());
    cluster.start_coordinator();
    let refuses = |cluster: &Cluster| {
        cluster.datanodes.iter().all(|node| node.log().contains("was expected, but"))
    };
    assert!(wait_until(Duration::from_secs(30), || refuses(&cluster)), "not refused");
    assert_eq!(nodes(&cluster), []);
    cluster.coordinator.kill();
    std::fs::remove_dir_all(&metadata).unwrap();
    std::fs::rename(&kept, &metadata).unwrap();
    cluster.start_coordinator();
    cluster.wait_for_active(3);
    assert!(read(&client, "/file").await.unwrap() == bytes);
    assert_eq!(verified_replicas(&cluster, "/file"), 3);
}
