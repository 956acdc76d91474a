//! Bytes that are lost for good.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use dfs_testkit::process::{Cluster, Settings};

use crate::support::{binary, exit_code, noise_file, stderr};

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
