//! S12, without a reader.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dfs_testkit::process::wait_until;
use serde_json::Value;

use super::integrity::flip_bit;
use super::{client, put, verified_replicas};
use crate::support::{cluster, noise};

/// Returns the files of large chunks.
fn chunk_files(disk: &Path) -> Vec<PathBuf> {
    let shards = fs::read_dir(disk.join("chunks")).unwrap();
    let files = shards.flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn s12_scrub_finds_damage_that_nobody_reads_and_it_is_repaired() {
    let cluster = cluster();
    let client = client(&cluster);
    let (large, small) = (noise(3_000_000, 1), noise(4_096, 2));
    put(&client, "/removed", large).await.unwrap();
    put(&client, "/flipped", small.clone()).await.unwrap();
    let [file] = &chunk_files(&cluster.disk(0))[..] else { panic!("not one large chunk") };
    fs::remove_file(file).unwrap();
    assert!(flip_bit(&cluster.disk(1), &small[1_000..1_040]));

    let report = cluster.dfs_ok(["fsck", "--read"]);
    assert!(report.contains("compared 2 chunks with the disks"), "{report}");
    let found =
        |node: usize| cluster.datanodes[node].metric("dfs_datanode_scrub_errors_total", "") as u64;
    let are_found = || (found(0), found(1), found(2)) == (1, 1, 0);
    assert!(wait_until(Duration::from_secs(30), are_found), "{} {}", found(0), found(1));
    for name in ["/removed", "/flipped"] {
        let is_replaced = || verified_replicas(&cluster, name) == 3;
        assert!(wait_until(Duration::from_secs(30), is_replaced), "{:?}", cluster.status());
    }
    cluster.wait_for_full_replication(Duration::from_secs(30));

    let mut seen = String::new();
    let is_summed_up = wait_until(Duration::from_secs(30), || {
        let listed = cluster.dfs_ok(["worker", "list", "--json"]);
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let workers = listed["workers"].as_array().unwrap();
        let scrub = workers.iter().find(|worker| worker["name"] == "scrub").unwrap();
        scrub["message"].as_str().unwrap().clone_into(&mut seen);
        seen.contains("on 3 disks in this pass")
            && seen.contains("last whole pass ended on each disk")
    });
    assert!(is_summed_up, "{seen}");
    let errors = |node: &Value| node["disks"][0]["scrub"]["last_errors"].as_u64().unwrap();
    let are_reported = || {
        let status = cluster.status().unwrap();
        status["nodes"].as_array().unwrap().iter().map(errors).sum::<u64>() == 2
    };
    assert!(wait_until(Duration::from_secs(30), are_reported), "{:?}", cluster.status());
}
