//! S22 and S23.

use std::time::Duration;

use dfs_client::DeleteOptions;
use dfs_testkit::process::{Cluster, Settings, peak_memory_of};
use dfs_types::ErrorCode;

use super::{client, path, put, read, verified_replicas};
use crate::support::{binary, cluster, noise, noise_file};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn s22_full_disk_refuses_writes_and_others_take_over() {
    let small = vec!["--capacity".to_owned(), "24MiB".to_owned()];
    let settings =
        Settings { datanodes: 4, datanode_flags: vec![small.clone()], ..Settings::default() };
    let cluster = Cluster::start(binary(), settings);
    let roomy = client(&cluster);
    for number in 0..12 {
        let at = format!("/{number}");
        put(&roomy, &at, noise(8 * MIB, number)).await.unwrap();
        assert_eq!(verified_replicas(&cluster, &at), 3, "{at}");
    }
    drop(cluster);

    let settings = Settings { datanode_flags: vec![small; 3], ..Settings::default() };
    let cluster = Cluster::start(binary(), settings);
    let full = client(&cluster);
    let mut stored = 0;
    let error = loop {
        match put(&full, &format!("/{stored}"), noise(4 * MIB, stored)).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 10, "24 MiB hold no more than five of these");
    };
    assert_eq!(error.code(), ErrorCode::NoSpace, "{error}");
    assert!(stored > 0);
    for number in 0..stored {
        let bytes = read(&full, &format!("/{number}")).await.unwrap();
        assert!(bytes == noise(4 * MIB, number), "{number} differs");
    }
    // A delete works on a full disk, and frees space.
    for number in 0..stored {
        let now = DeleteOptions::default().now(true);
        full.delete(&path(&format!("/{number}")), now).await.unwrap();
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while let Err(error) = put(&full, "/again", noise(4 * MIB, 99)).await {
        assert!(std::time::Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[test]
fn s23_64_concurrent_puts_stay_within_256_mib_per_process() {
    let cluster = cluster();
    let tree = cluster.folder().join("tree");
    std::fs::create_dir(&tree).unwrap();
    for n in 0..64 {
        noise_file(&tree.join(n.to_string()), 64 * MIB, n);
    }
    let mut put = cluster.command(["put", "-r", "--parallel", "64"]);
    let put = put.args([tree.as_os_str(), "/tree".as_ref()]);
    let peak = peak_memory_of(put, Duration::from_mins(5)) as usize;
    assert!(peak < 256 * MIB, "the client took {} MiB", peak / MIB);
    for server in cluster.datanodes.iter().chain([&cluster.coordinator]) {
        let peak = server.peak_memory() as usize;
        assert!(peak < 256 * MIB, "a server took {} MiB", peak / MIB);
    }
}
