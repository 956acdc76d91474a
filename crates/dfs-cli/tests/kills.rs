//! Processes killed at seeded moments.

use std::fs;
use std::time::Duration;

use dfs_testkit::process::{Cluster, Settings, wait_until};

use crate::support::{binary, cluster, exit_code, noise, noise_file, stderr};

const MIB: usize = 1 << 20;

/// How often a kill is tried in one test run; `DFS_KILLS` sets it.
fn kills() -> u64 {
    std::env::var("DFS_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(4)
}

/// The moment of a kill: after so much of the time a whole run takes.
fn moment(seed: u64, whole: Duration) -> Duration {
    let part = u64::from_le_bytes(noise(8, seed)[..8].try_into().unwrap()) % 1_000;
    whole.mul_f64(part as f64 / 1_000.0)
}

/// Every chunk of a file has so many copies that verify from end to end.
fn assert_copies(cluster: &Cluster, path: &str, at_least: u64) {
    // It ends with 1 when a copy cannot be looked at, as one of a killed node.
    let output = cluster.dfs(["explain", "--verify", "--json", path]);
    let explained: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for chunk in explained["chunks"].as_array().unwrap() {
        let good = chunk["copies"].as_array().unwrap();
        let good = good.iter().filter(|copy| copy["verified"] == true).count() as u64;
        assert!(good >= at_least, "{path} has a chunk with {good} verified copies: {chunk}");
    }
}

fn timed_put(cluster: &Cluster, local: &str) -> Duration {
    let started = std::time::Instant::now();
    cluster.dfs_ok(["put", local, "/timed"]);
    started.elapsed()
}

#[test]
fn a_put_rides_over_a_killed_datanode() {
    let mut cluster = cluster();
    let local = cluster.folder().join("file").display().to_string();
    noise_file(local.as_ref(), 150 * MIB, 1);
    let whole = timed_put(&cluster, &local);
    for seed in 0..kills() {
        let victim = (seed % 3) as usize;
        let path = format!("/put-{seed}");
        let mut put = cluster.command(["put", &local, &path]).spawn().unwrap();
        let after = moment(seed, whole);
        let started = std::time::Instant::now();
        wait_until(after, || started.elapsed() >= after);
        cluster.datanodes[victim].kill();
        assert!(put.wait().unwrap().success(), "seed {seed}: the put failed");
        assert_copies(&cluster, &path, 2);
        let back = cluster.dfs(["cat", &path]);
        assert!(back.stdout == fs::read(&local).unwrap(), "seed {seed}: bytes differ");
        cluster.start_datanode(victim);
        cluster.wait_for_active(3);
    }
}

#[test]
fn a_get_rides_over_a_killed_datanode() {
    let mut cluster = cluster();
    let local = cluster.folder().join("file").display().to_string();
    let back = cluster.folder().join("back");
    noise_file(local.as_ref(), 150 * MIB, 1);
    cluster.dfs_ok(["put", &local, "/file"]);
    let started = std::time::Instant::now();
    cluster.dfs_ok(["get".as_ref(), "/file".as_ref(), back.as_os_str()]);
    let whole = started.elapsed();
    for seed in 0..kills() {
        let victim = (seed % 3) as usize;
        let mut get = cluster.command(["get", "/file"]).arg(&back).spawn().unwrap();
        let after = moment(seed, whole);
        let started = std::time::Instant::now();
        wait_until(after, || started.elapsed() >= after);
        cluster.datanodes[victim].kill();
        assert!(get.wait().unwrap().success(), "seed {seed}: the get failed");
        assert!(fs::read(&back).unwrap() == fs::read(&local).unwrap(), "seed {seed}: bytes differ");
        cluster.start_datanode(victim);
        cluster.wait_for_active(3);
    }
}

#[test]
fn copies_of_a_lost_node_are_made_again() {
    let mut cluster = Cluster::start(binary(), Settings { datanodes: 4, ..Settings::default() });
    let local = cluster.folder().join("file").display().to_string();
    noise_file(local.as_ref(), 20 * MIB, 1);
    for n in 0..8 {
        cluster.dfs_ok(["put", &local, &format!("/file-{n}")]);
    }
    cluster.datanodes[0].kill();
    let gone = |cluster: &Cluster| {
        let status = cluster.status();
        status.is_some_and(|status| {
            let nodes = status["nodes"].as_array().unwrap();
            nodes.iter().any(|node| node["state"] == "lost")
        })
    };
    assert!(wait_until(Duration::from_secs(30), || gone(&cluster)), "nobody is lost");
    cluster.wait_for_full_replication(Duration::from_mins(1));
    for n in 0..8 {
        assert_copies(&cluster, &format!("/file-{n}"), 3);
    }
}

#[test]
fn acknowledged_files_survive_a_killed_coordinator() {
    let mut cluster = cluster();
    let bytes: Vec<_> = (0..200).map(|n| noise(1_000 + n as usize * 37, n)).collect();
    for (n, bytes) in bytes.iter().enumerate() {
        fs::write(cluster.folder().join(format!("{n}")), bytes).unwrap();
    }
    let folder = cluster.folder().to_owned();
    let started = std::time::Instant::now();
    cluster.dfs_ok(["mkdir", "/timed"]);
    for n in 0..200 / 4 {
        cluster.dfs_ok(["put".as_ref(), folder.join(n.to_string()).as_os_str(), "/timed".as_ref()]);
    }
    let whole = started.elapsed() * 4;
    for seed in 0..kills() {
        let top = format!("/round-{seed}");
        cluster.dfs_ok(["mkdir", &top]);
        let after = moment(seed, whole);
        let commands: Vec<_> = (0..200)
            .map(|n| {
                let mut command = cluster.command(["put"]);
                command.arg(folder.join(n.to_string())).arg(&top);
                command
            })
            .collect();
        let puts = std::thread::spawn(move || {
            commands.into_iter().map(|mut put| put.output().unwrap()).collect::<Vec<_>>()
        });
        let started = std::time::Instant::now();
        wait_until(after, || started.elapsed() >= after || puts.is_finished());
        cluster.coordinator.kill();
        cluster.start_coordinator();
        let outputs = puts.join().unwrap();
        cluster.wait_for_active(3);
        for (n, output) in outputs.iter().enumerate() {
            let path = format!("{top}/{n}");
            assert_eq!(exit_code(output), 0, "seed {seed}, {path}: {}", stderr(output));
            let back = cluster.dfs(["cat", &path]);
            assert!(
                back.status.success() && back.stdout == bytes[n],
                "seed {seed}: {path} differs"
            );
        }
    }
}
