//! Datanodes and disks are emptied while files are written and read.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, thread};

use dfs_testkit::process::{Cluster, Settings, wait_until};
use serde_json::Value;

use crate::support::{binary, cluster, noise, noise_file};

const KIB: usize = 1 << 10;

/// Returns the length of a numbered file: mostly packed into segments, some in files of their own.
fn length(number: usize) -> usize {
    if number.is_multiple_of(5) { 2_500 * KIB } else { 20 * KIB + number }
}

fn put(cluster: &Cluster, number: usize) {
    let local = cluster.folder().join(format!("local-{number}"));
    noise_file(&local, length(number), number as u64);
    cluster.dfs_ok(["put".as_ref(), local.as_os_str(), format!("/file-{number}").as_ref()]);
    fs::remove_file(local).unwrap();
}

fn assert_readable(cluster: &Cluster, number: usize) {
    let path = format!("/file-{number}");
    let read = cluster.dfs(["cat", &path]);
    assert!(read.stdout == noise(length(number), number as u64), "{path}: {read:?}");
}

/// Writes and reads files until `done`, and asserts that nothing fails. Returns the number of files.
fn write_and_read(cluster: &Cluster, existing: usize, done: impl FnOnce() + Send) -> usize {
    let (is_done, written) = (AtomicBool::new(false), AtomicUsize::new(existing));
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                put(cluster, written.load(Ordering::Relaxed));
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
        let reader = scope.spawn(|| {
            let mut number = 0;
            while !is_done.load(Ordering::Relaxed) {
                assert_readable(cluster, number % written.load(Ordering::Relaxed));
                number += 7;
            }
        });
        let changes = scope.spawn(done);
        let result = changes.join();
        is_done.store(true, Ordering::Relaxed);
        for thread in [writer, reader] {
            thread.join().unwrap();
        }
        result.unwrap();
    });
    written.into_inner()
}

/// Returns the entry of a datanode in `dfs node list`.
fn node(cluster: &Cluster, id: &str) -> Value {
    let list: Value = serde_json::from_str(&cluster.dfs_ok(["node", "list", "--json"])).unwrap();
    let nodes = list["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["id"] == id).cloned().unwrap_or_default()
}

fn chunks(node: &Value) -> u64 {
    let disks = node["disks"].as_array().unwrap();
    disks.iter().map(|disk| disk["chunks"].as_u64().unwrap()).sum()
}

fn id_of_first_node(cluster: &Cluster) -> String {
    let address = cluster.datanodes[0].address();
    let status = cluster.status().unwrap();
    let nodes = status["nodes"].as_array().unwrap();
    let found = nodes.iter().find(|node| node["address"] == *address);
    found.unwrap()["id"].as_str().unwrap().to_owned()
}

#[test]
fn s28_drained_node_is_truly_empty_while_files_are_written_and_read() {
    let mut cluster = cluster();
    for number in 0..20 {
        put(&cluster, number);
    }
    cluster.add_datanode();
    cluster.wait_for_active(4);
    let drained = id_of_first_node(&cluster);
    let has_all = || chunks(&node(&cluster, &drained)) >= 20;
    assert!(wait_until(Duration::from_secs(30), has_all), "{}", node(&cluster, &drained));
    let files = write_and_read(&cluster, 20, || {
        cluster.dfs_ok(["node", "drain", &drained, "--yes", "--wait"]);
        let node = node(&cluster, &drained);
        assert_eq!((&node["state"], chunks(&node)), (&"drained".into(), 0), "{node}");
    });
    let node = node(&cluster, &drained);
    assert_eq!(chunks(&node), 0, "nothing was written to it afterwards: {node}");
    cluster.wait_for_full_replication(Duration::from_secs(30));
    cluster.dfs_ok(["node", "deregister", &drained, "--yes"]);
    cluster.datanodes[0].kill();
    for number in 0..files {
        assert_readable(&cluster, number);
    }
}

#[test]
fn s28_retired_disk_is_emptied_onto_the_other_disk_of_its_node() {
    let second = tempfile::tempdir().unwrap();
    let flags = ["--data-dir", second.path().to_str().unwrap()].map(str::to_owned).to_vec();
    let settings = Settings { datanode_flags: vec![flags], ..Settings::default() };
    let cluster = Cluster::start(binary(), settings);
    cluster.wait_for_active(3);
    for number in 0..20 {
        put(&cluster, number);
    }
    let disks =
        || -> Value { serde_json::from_str(&cluster.dfs_ok(["disk", "list", "--json"])).unwrap() };
    // Each file has three replicas: only the node with two disks can take one of its own.
    let mut listed = Value::Null;
    let are_reported = wait_until(Duration::from_secs(30), || {
        listed = disks();
        let disks = listed["disks"].as_array().unwrap().iter();
        disks.filter_map(|disk| disk["chunks"].as_u64()).sum::<u64>() == 60
    });
    assert!(are_reported, "{listed}");
    let listed = listed["disks"].as_array().unwrap();
    let on_one_node =
        |disk: &&Value| listed.iter().filter(|other| other["node"] == disk["node"]).count() == 2;
    let retired = listed.iter().filter(on_one_node).max_by_key(|disk| disk["chunks"].as_u64());
    let retired = retired.unwrap();
    assert!(retired["chunks"].as_u64() > Some(0), "{retired}");
    let id = retired["id"].as_str().unwrap();
    let files = write_and_read(&cluster, 20, || {
        let done = cluster.dfs_ok(["disk", "retire", id, "--yes", "--wait", "--json"]);
        let done: Value = serde_json::from_str(&done).unwrap();
        let plan = (&done["plan"]["target_nodes"][0], &done["plan"]["stuck"]);
        assert_eq!(
            plan,
            (&retired["node"], &0.into()),
            "only its other disk can take them: {done}"
        );
        let disks = disks();
        let retired = disks["disks"].as_array().unwrap().iter().find(|disk| disk["id"] == id);
        let retired = retired.unwrap();
        assert_eq!((&retired["chunks"], &retired["can_be_removed"]), (&0.into(), &true.into()));
        assert!(retired["reason"].as_str().unwrap().contains("can be removed"), "{retired}");
    });
    cluster.wait_for_full_replication(Duration::from_secs(30));
    for number in 0..files {
        assert_readable(&cluster, number);
    }
}
