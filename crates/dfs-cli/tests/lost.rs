//! Bytes that are lost for good.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use dfs_testkit::process::{Cluster, Settings};
use serde_json::Value;

use crate::json_page;
use crate::support::{binary, cluster, exit_code, noise_file, stderr};

#[test]
fn delete_lost_deletes_exactly_the_files_without_bytes_once_confirmed() {
    let init = vec!["--replication-factor".to_owned(), "1".to_owned()];
    let settings = Settings { datanodes: 1, init, ..Settings::default() };
    let mut cluster = Cluster::start(binary(), settings);
    let file = cluster.folder().join("file");
    // A chunk in a file of its own, and one in a segment.
    for (path, length) in [("/lost", 3_000_000), ("/kept", 100)] {
        noise_file(&file, length, 1);
        cluster.dfs_ok(["put", &file.display().to_string(), path]);
    }
    cluster.datanodes[0].terminate(Duration::from_secs(20));
    for shard in fs::read_dir(cluster.disk(0).join("chunks")).unwrap() {
        fs::remove_dir_all(shard.unwrap().path()).unwrap();
    }
    cluster.start_datanode(0);
    cluster.wait_for_active(1);
    let delete = || cluster.dfs(["fsck", "--delete-lost", "--yes"]);
    let first = delete();
    assert_eq!(exit_code(&first), 1, "{}", stderr(&first));
    assert!(stderr(&first).contains("nothing is deleted yet: run it again"), "{}", stderr(&first));
    let found = cluster.dfs(["fsck"]);
    let text = String::from_utf8_lossy(&found.stdout).into_owned();
    assert_eq!(exit_code(&found), 1, "{text} {}", stderr(&found));
    assert!(text.contains("/lost: 1 chunk without a replica"), "{text}");
    let unconfirmed = cluster.command(["fsck", "--delete-lost"]).stdin(Stdio::null()).output();
    let unconfirmed = unconfirmed.unwrap();
    assert!(stderr(&unconfirmed).contains("will delete /lost"), "{}", stderr(&unconfirmed));
    assert!(!unconfirmed.status.success());
    cluster.dfs_ok(["stat", "/lost"]);
    let deleted = delete();
    assert_eq!(exit_code(&deleted), 0, "{}", stderr(&deleted));
    assert!(!cluster.dfs(["stat", "/lost"]).status.success());
    assert_eq!(cluster.dfs(["cat", "/kept"]).stdout.len(), 100);
    // It can be restored like any deleted file, though not its bytes.
    cluster.dfs_ok(["undelete", "/lost"]);
}

#[test]
fn repair_is_waited_for_and_what_keeps_it_is_named_with_the_path() {
    let mut cluster = cluster();
    cluster.wait_for_active(3);
    cluster.dfs_ok(["worker", "pause", "repair"]);
    let file = cluster.folder().join("file");
    noise_file(&file, 3_000_000, 1);
    cluster.dfs_ok(["put", &file.display().to_string(), "/file"]);
    cluster.datanodes[0].terminate(Duration::from_secs(20));
    for shard in fs::read_dir(cluster.disk(0).join("chunks")).unwrap() {
        fs::remove_dir_all(shard.unwrap().path()).unwrap();
    }
    cluster.start_datanode(0);
    cluster.wait_for_active(3);
    let paused = cluster.dfs(["fsck", "--repair", "--json"]);
    assert_eq!(exit_code(&paused), 5, "{}", stderr(&paused));
    let found: Value = serde_json::from_slice(&paused.stdout).unwrap();
    json_page::check("fsck", &found);
    let damaged = &found["damaged"][0];
    assert_eq!((&damaged["path"], &damaged["unrepaired_chunks"]), (&"/file".into(), &1.into()));
    assert!(damaged["why"].as_str().unwrap().contains("`dfs worker resume repair`"), "{damaged}");
    assert!(stderr(&paused).contains("repair is paused"), "{}", stderr(&paused));
    let in_time = cluster.dfs(["fsck", "--repair", "--for", "1s"]);
    assert_eq!(exit_code(&in_time), 5, "{}", stderr(&in_time));
    cluster.dfs_ok(["worker", "resume", "repair"]);
    cluster.dfs_ok(["fsck", "--repair"]);
    cluster.dfs_ok(["explain", "/file"]);
}
