//! User workloads with the metadata in etcd, through one coordinator and through three.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dfs_etcd::test_server;
use dfs_testkit::process::{Cluster, Metadata, Settings, wait_until};

use crate::kills::{moment, repeats};
use crate::support::{assert_same_tree, binary, exit_code, noise, noise_file, stderr};

/// Files put while a coordinator is killed.
const PUTS: u64 = 50;
/// Number of kills of a coordinator while clients repeat their calls.
const KILLS: u64 = 4;
/// Clients that repeat their calls.
const CLIENTS: u8 = 4;
/// Time limit for the puts once the coordinators are back.
const PUTS_WITHIN: Duration = Duration::from_mins(1);

/// A cluster on an etcd, which outlives it.
struct OnEtcd {
    cluster: Cluster,
    _etcd: test_server::Cluster,
}

impl OnEtcd {
    /// Starts `coordinators` coordinators on as many members.
    async fn start(coordinators: usize) -> Self {
        let etcd = test_server::Cluster::start(coordinators).await;
        let metadata = Metadata::Url(format!("etcd://{}/test", etcd.authority()));
        let settings = Settings { coordinators, metadata, ..Settings::default() };
        Self { cluster: Cluster::start(binary(), settings), _etcd: etcd }
    }
}

/// Puts, gets, lists, moves and removes a small tree.
fn check_tree_round_trip(cluster: &Cluster) {
    let at = |name: &str| cluster.folder().join(name);
    let text = |path: &Path| path.display().to_string();
    fs::create_dir_all(at("tree/deep/er")).unwrap();
    for (number, name) in ["a", "deep/b", "deep/er/c"].into_iter().enumerate() {
        noise_file(&at("tree").join(name), 100_000 * number, number as u64);
    }
    std::os::unix::fs::symlink("deep/b", at("tree/link")).unwrap();
    cluster.dfs_ok(["put", "-r", &text(&at("tree")), "/tree"]);
    assert_eq!(cluster.dfs_ok(["ls", "/tree"]), "a\ndeep\nlink\n");
    cluster.dfs_ok(["mv", "/tree/deep", "/deep"]);
    assert_eq!(cluster.dfs_ok(["ls", "/tree"]), "a\nlink\n");
    cluster.dfs_ok(["mv", "/deep", "/tree/deep"]);
    cluster.dfs_ok(["get", "-r", "/tree", &text(&at("back"))]);
    assert_same_tree(&at("tree"), &at("back"));
    assert_eq!(exit_code(&cluster.dfs(["rm", "/tree"])), 4, "not empty");
    cluster.dfs_ok(["rm", "-r", "/tree"]);
    assert_eq!(exit_code(&cluster.dfs(["stat", "/tree"])), 3, "gone");
}

/// Kills the first coordinator while files are put. If it is the only one, it comes back before the
/// last put.
fn check_puts_survive_a_coordinator(cluster: &mut Cluster) {
    let folder = cluster.folder().to_owned();
    let content = |n: u64| noise(1_000 + n as usize * 37, n);
    for n in 0..PUTS {
        fs::write(folder.join(format!("file-{n}")), content(n)).unwrap();
    }
    cluster.dfs_ok(["mkdir", "/puts"]);
    let put = |n: u64| {
        let mut command = cluster.command(["put"]);
        command.arg(folder.join(format!("file-{n}"))).arg(format!("/puts/{n}"));
        command
    };
    let commands: Vec<_> = (0..PUTS).map(put).collect();
    let begun = Arc::new(AtomicU64::new(0));
    let counted = begun.clone();
    let puts = std::thread::spawn(move || {
        let run = |mut put: Command| {
            counted.fetch_add(1, Ordering::Relaxed);
            put.output().unwrap()
        };
        commands.into_iter().map(run).collect::<Vec<_>>()
    });
    let is_amid = || begun.load(Ordering::Relaxed) > PUTS / 3;
    assert!(wait_until(PUTS_WITHIN, is_amid), "puts hang");
    cluster.coordinator.kill();
    if cluster.further_coordinators.is_empty() {
        cluster.start_coordinator();
    }
    assert!(wait_until(PUTS_WITHIN, || puts.is_finished()), "puts hang");
    for output in puts.join().unwrap() {
        assert_eq!(exit_code(&output), 0, "{}", stderr(&output));
    }
    for n in 0..PUTS {
        let back = cluster.dfs(["cat", &format!("/puts/{n}")]);
        assert!(back.status.success() && back.stdout == content(n), "/puts/{n} differs");
    }
    if !cluster.coordinator.is_running() {
        cluster.start_coordinator();
    }
    cluster.wait_for_active(3);
    cluster.dfs_ok(["rm", "-r", "/puts"]);
}

/// Kills one coordinator after the other while clients repeat each call, even after a reply and
/// through another coordinator.
async fn check_repeats_survive_coordinators(cluster: &mut Cluster) {
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|client| tokio::spawn(repeats(cluster.coordinator_urls(), client, stop.clone())))
        .collect();
    let coordinators = cluster.coordinators().count();
    for seed in 0..KILLS {
        let after = moment(seed, Duration::from_millis(400));
        let started = Instant::now();
        wait_until(after, || started.elapsed() >= after);
        let victim = seed as usize % coordinators;
        cluster.coordinator_at(victim).kill();
        cluster.start_coordinator_at(victim);
    }
    stop.store(true, Ordering::Relaxed);
    let mut wanted = Vec::new();
    for client in clients {
        wanted.extend(client.await.unwrap());
    }
    wanted.sort();
    let listed = cluster.dfs_ok(["ls", "/"]);
    assert!(!wanted.is_empty());
    assert!(listed.lines().eq(wanted.iter().map(String::as_str)), "want {wanted:?}, got {listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_coordinator_on_one_member_survives_kills() {
    let mut system = OnEtcd::start(1).await;
    check_tree_round_trip(&system.cluster);
    check_puts_survive_a_coordinator(&mut system.cluster);
    check_repeats_survive_coordinators(&mut system.cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_coordinators_on_three_members_survive_kills() {
    let mut system = OnEtcd::start(3).await;
    check_tree_round_trip(&system.cluster);
    check_puts_survive_a_coordinator(&mut system.cluster);
    check_repeats_survive_coordinators(&mut system.cluster).await;
}
