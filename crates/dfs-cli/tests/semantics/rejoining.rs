//! S30, S31 and S34: datanodes that join again without current records, or never again.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dfs_testkit::process::{Cluster, Metadata, Settings, wait_until};
use serde_json::Value;

use super::{client, put, read, verified_replicas};
use crate::json_page;
use crate::support::{binary, exit_code, noise, stderr};

const MINUTE: Duration = Duration::from_mins(1);

/// Copies a directory, in place of another one.
fn copy(from: &Path, to: &Path) {
    drop(fs::remove_dir_all(to));
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Returns the status of the node at the address of a process.
fn node_at(cluster: &Cluster, index: usize) -> Option<Value> {
    let address = cluster.datanodes[index].address();
    let status = cluster.status()?;
    let mut nodes = status["nodes"].as_array()?.iter();
    nodes.find(|node| node["address"] == address).cloned()
}

/// Returns the output of `explain`, even if it reports a problem.
fn explained(cluster: &Cluster, path: &str) -> String {
    String::from_utf8_lossy(&cluster.dfs(["explain", "--json", path]).stdout).into_owned()
}

fn is_healthy(node: &Value) -> bool {
    node["state"] == "active" && node["disks"][0]["state"] == "healthy"
}

/// D1, S30.
#[tokio::test(flavor = "multi_thread")]
async fn s30_node_restored_from_an_old_copy_of_its_disk_joins_once_it_is_readmitted() {
    let mut cluster = Cluster::start(binary(), Settings::default());
    let client = client(&cluster);
    put(&client, "/early", noise(3_000_000, 1)).await.unwrap();
    cluster.wait_for_full_replication(MINUTE);
    let id = node_at(&cluster, 0).unwrap()["id"].as_str().unwrap().to_owned();
    cluster.datanodes[0].terminate(MINUTE);
    let (disk, image) = (cluster.disk(0), cluster.folder().join("image"));
    copy(&disk, &image);
    cluster.start_datanode(0);
    cluster.wait_for_active(3);
    put(&client, "/late", noise(3_000_000, 2)).await.unwrap();
    cluster.wait_for_full_replication(MINUTE);
    let newest = cluster.folder().join("newest");
    cluster.datanodes[0].kill();
    copy(&disk, &newest);
    copy(&image, &disk);
    cluster.start_datanode(0);
    let command = format!("dfs node readmit {id}");
    let is_refused = || cluster.datanodes[0].log().contains(&command);
    assert!(wait_until(MINUTE, is_refused), "{}", cluster.datanodes[0].log());
    // The plan, which nobody confirms.
    let planned = || {
        let planned = cluster.dfs(["node", "readmit", &id]);
        exit_code(&planned) == 2 && stderr(&planned).contains("1 chunk")
    };
    assert!(wait_until(MINUTE, planned), "{}", stderr(&cluster.dfs(["node", "readmit", &id])));
    assert_ne!(node_at(&cluster, 0).map(|node| is_healthy(&node)), Some(true));
    let examined = cluster.dfs(["doctor"]);
    let found = String::from_utf8_lossy(&examined.stdout).into_owned();
    assert_eq!(exit_code(&examined), 7, "a person is needed: {found}");
    assert!(found.contains("node-refused") && found.contains(&command), "{found}");
    let done = cluster.dfs_ok(["node", "readmit", &id, "--yes", "--json"]);
    json_page::check("node readmit", &serde_json::from_str(&done).unwrap());
    let is_back = || node_at(&cluster, 0).is_some_and(|node| is_healthy(&node));
    assert!(wait_until(MINUTE, is_back), "{:?}", cluster.status());
    cluster.wait_for_full_replication(MINUTE);
    for (file, seed) in [("/early", 1), ("/late", 2)] {
        assert!(read(&client, file).await.unwrap() == noise(3_000_000, seed), "{file}");
        assert_eq!(verified_replicas(&cluster, file), 3, "{file}");
    }
    // The newer disk is the older copy now.
    let mut late = cluster.datanode_at(8, &newest);
    cluster.start_server(&mut late);
    assert!(wait_until(MINUTE, || late.log().contains(&command)), "{}", late.log());
    late.kill();
}

/// S30.
#[tokio::test(flavor = "multi_thread")]
async fn s30_second_node_with_the_same_disk_image_stays_out_while_the_first_lives() {
    let cluster = Cluster::start(binary(), Settings::default());
    let client = client(&cluster);
    put(&client, "/file", noise(1_000_000, 1)).await.unwrap();
    cluster.wait_for_full_replication(MINUTE);
    let first = node_at(&cluster, 0).unwrap();
    let image = cluster.folder().join("image");
    copy(&cluster.disk(0), &image);
    let mut second = cluster.datanode_at(9, &image);
    cluster.start_server(&mut second);
    // The first registers again, which makes the image an older one.
    let id = first["id"].as_str().unwrap();
    let command = format!("dfs node readmit {id}");
    assert!(wait_until(MINUTE, || second.log().contains(&command)), "{}", second.log());
    // A coordinator that has just started does not know yet.
    let readmit = || cluster.dfs(["node", "readmit", id, "--yes"]);
    let is_refused = || {
        let refused = readmit();
        exit_code(&refused) == 4 && stderr(&refused).contains("sends heartbeats")
    };
    assert!(wait_until(MINUTE, is_refused), "{}", stderr(&readmit()));
    put(&client, "/another", noise(1_000_000, 2)).await.unwrap();
    cluster.wait_for_full_replication(MINUTE);
    let is_the_first =
        || node_at(&cluster, 0).is_some_and(|now| is_healthy(&now) && now["id"] == first["id"]);
    assert!(wait_until(MINUTE, is_the_first), "{:?}", cluster.status());
    second.kill();
}

/// S31: the metadata was set back to a state from before the node was added.
#[tokio::test(flavor = "multi_thread")]
async fn s31_node_that_restored_metadata_does_not_know_joins_and_nothing_is_deleted() {
    let Settings { coordinator, .. } = Settings::default();
    let coordinator = format!("{coordinator}orphan_age_ms: 0\n");
    let init = vec!["--replication-factor=1".to_owned()];
    let settings = Settings {
        coordinator,
        datanodes: 1,
        init,
        metadata: Metadata::Own,
        ..Settings::default()
    };
    let mut cluster = Cluster::start(binary(), settings);
    let client = client(&cluster);
    put(&client, "/early", noise(100_000, 1)).await.unwrap();
    cluster.coordinator.terminate(MINUTE);
    let (metadata, backup) = (cluster.folder().join("metadata"), cluster.folder().join("backup"));
    copy(&metadata, &backup);
    cluster.start_coordinator();
    cluster.add_datanode();
    cluster.wait_for_active(2);
    for file in 0..20 {
        put(&client, &format!("/{file}"), noise(100_000, file)).await.unwrap();
    }
    let chunks_at = |node| node_at(&cluster, node).and_then(|n| n["disks"][0]["chunks"].as_u64());
    let all = || chunks_at(0).zip(chunks_at(1)).is_some_and(|(one, two)| one + two == 21);
    assert!(wait_until(MINUTE, all), "heartbeats report every chunk: {:?}", cluster.status());
    let held = chunks_at(1);
    assert!(held > Some(0), "some of them are on the second node");
    cluster.coordinator.terminate(MINUTE);
    copy(&backup, &metadata);
    cluster.start_coordinator();
    let is_back = || node_at(&cluster, 1).is_some_and(|node| is_healthy(&node));
    assert!(wait_until(MINUTE, is_back), "{:?}", cluster.status());
    for _ in 0..3 {
        let found: Value = serde_json::from_slice(&cluster.dfs(["fsck", "--json"]).stdout).unwrap();
        assert_eq!(found["deleted_orphans"], 0, "{found}");
    }
    let chunks = || node_at(&cluster, 1).and_then(|node| node["disks"][0]["chunks"].as_u64());
    assert_eq!(chunks(), held);
    assert!(cluster.dfs_ok(["gc", "status"]).contains("is not in the metadata"));
    assert!(read(&client, "/early").await.unwrap() == noise(100_000, 1));
}

/// S34.
#[tokio::test(flavor = "multi_thread")]
async fn s34_lost_node_with_last_replicas_is_forgotten_once_the_loss_is_accepted() {
    let init = vec!["--replication-factor=1".to_owned()];
    let Settings { coordinator, .. } = Settings::default();
    let coordinator = format!("{coordinator}restorable_ms: 200\n");
    let settings = Settings { coordinator, datanodes: 2, init, ..Settings::default() };
    let mut cluster = Cluster::start(binary(), settings);
    let client = client(&cluster);
    let files: Vec<String> = (0..20).map(|file| format!("/{file}")).collect();
    for (seed, file) in (0..).zip(&files) {
        put(&client, file, noise(50_000, seed)).await.unwrap();
    }
    let id = node_at(&cluster, 1).unwrap()["id"].as_str().unwrap().to_owned();
    let is_there = |file: &&String| explained(&cluster, file).contains(&id);
    let held: Vec<&String> = files.iter().filter(is_there).collect();
    assert!(!held.is_empty() && held.len() < files.len(), "{held:?}");
    cluster.datanodes[1].kill();
    let refused = || {
        let refused = cluster.dfs(["node", "forget", &id]);
        (exit_code(&refused), stderr(&refused))
    };
    let names_the_loss = || {
        let (code, text) = refused();
        let is_named = held.iter().any(|file| text.contains(file.as_str()));
        code == 4 && is_named && text.contains("--accept-loss")
    };
    assert!(wait_until(MINUTE, names_the_loss), "{:?}", refused());
    let planned = cluster.dfs(["node", "forget", &id, "--accept-loss"]);
    assert_eq!(exit_code(&planned), 2, "nobody can confirm");
    assert!(held.iter().all(|file| stderr(&planned).contains(&format!("{file}: 1 chunk"))));
    let done = cluster.dfs_ok(["node", "forget", &id, "--accept-loss", "--yes", "--json"]);
    let done: Value = serde_json::from_str(&done).unwrap();
    json_page::check("node forget", &done);
    assert_eq!(done["lost_files"].as_array().map(Vec::len), Some(held.len()), "{done}");
    let missing = || Some(cluster.status()?["replication"]["missing"].as_u64()? as usize);
    assert!(wait_until(MINUTE, || missing() == Some(held.len())), "{:?}", cluster.status());
    let deleted = || {
        let deleted = cluster.dfs(["fsck", "--delete-lost", "--yes"]);
        exit_code(&deleted) == 0
    };
    assert!(wait_until(MINUTE, deleted), "{}", stderr(&cluster.dfs(["fsck"])));
    for (seed, file) in (0..).zip(&files) {
        let is_lost = held.contains(&file);
        let found = read(&client, file).await;
        assert_eq!(found.is_err(), is_lost, "{file}");
        assert!(found.is_err() || found.is_ok_and(|bytes| bytes == noise(50_000, seed)), "{file}");
    }
    assert!(wait_until(MINUTE, || missing() == Some(0)), "{:?}", cluster.status());
    // The same disks do not come back.
    cluster.start_datanode(1);
    let log = || cluster.datanodes[1].log();
    assert!(wait_until(MINUTE, || log().contains("was removed")), "{}", log());
}
