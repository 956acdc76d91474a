//! Power loss: unlike after a kill, the content of the page cache is gone. Requires root.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dfs_client::Client;
use dfs_testkit::drills::powercut;
use dfs_testkit::process::{Cluster, Metadata, PowerDisk, Settings};
use dfs_types::ErrorCode;

use crate::semantics::{client, put, read, verified_replicas};
use crate::support::{binary, noise};

/// Length of a file for each chunk layout of the store.
const SMALL: usize = 3_000;
const LARGE: usize = (3 << 20) + 5;

/// Returns so many disks whose power can be cut.
fn disks(count: usize) -> Option<Vec<PowerDisk>> {
    let disks = (0..count).map(|_| PowerDisk::new()).collect();
    or_skip(disks, "power cuts, which require root")
}

/// Returns a prerequisite of a test. Without it, prints so past the capture of output, and fails
/// where tests must be complete.
fn or_skip<T>(wanted: Result<T, String>, what: &str) -> Option<T> {
    let why = match wanted {
        Ok(had) => return Some(had),
        Err(why) => format!("NOT TESTED: {what}: {why}"),
    };
    assert!(std::env::var_os("CI").is_none(), "{why}");
    drop(io::stderr().write_all(format!("\n{why}\n").as_bytes()));
    None
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", said.trim())) }
}

/// A cluster with one disk per machine. Dropped before its disks.
struct Machines {
    cluster: Cluster,
    disks: Vec<PowerDisk>,
}

impl Machines {
    fn start() -> Option<Self> {
        let disks = self::disks(4)?;
        let settings = Settings {
            metadata: Metadata::Folder(disks[0].root().join("metadata")),
            disks: disks[1..].iter().map(|disk| disk.root().join("datanode")).collect(),
            ..Settings::default()
        };
        Some(Self { cluster: Cluster::start(binary(), settings), disks })
    }

    /// Cuts the power of all machines, and restores it.
    fn cut_power(&mut self) {
        let (cluster, disks) = (&mut self.cluster, &self.disks);
        std::thread::scope(|scope| {
            for disk in disks {
                scope.spawn(|| disk.cut_power().unwrap());
            }
        });
        cluster.coordinator.kill();
        cluster.datanodes.iter_mut().for_each(dfs_testkit::process::Server::kill);
        for disk in disks {
            disk.restore_power().unwrap();
        }
        cluster.start_coordinator();
        (0..cluster.datanodes.len()).for_each(|index| cluster.start_datanode(index));
        cluster.wait_for_active(cluster.datanodes.len());
    }

    async fn assert_whole(&self, client: &Client, at: &str, bytes: &[u8]) {
        assert!(read(client, at).await.unwrap() == bytes, "{at} differs");
        let replicas = verified_replicas(&self.cluster, at);
        assert!(replicas >= 2, "{at} has {replicas} replicas that verify");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_puts_survive_a_power_cut() {
    let Some(mut machines) = Machines::start() else { return };
    let client = client(&machines.cluster);
    let mut files = Vec::new();
    // No later sync may help the last file to reach the disk: the bytes of a small chunk, and the
    // name of a large one.
    for last in [SMALL, LARGE] {
        for length in [1, SMALL, 70_000, LARGE, 20 << 20, last] {
            let (at, bytes) = (format!("/{}", files.len()), noise(length, files.len() as u64));
            put(&client, &at, bytes.clone()).await.unwrap();
            files.push((at, bytes));
        }
        machines.cut_power();
        for (at, bytes) in &files {
            machines.assert_whole(&client, at, bytes).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cut_during_puts_leaves_complete_files_or_none() {
    const WORKERS: usize = 6;
    const FILES: usize = 20;
    let Some(mut machines) = Machines::start() else { return };
    let hasty = Client::builder().coordinator(machines.cluster.coordinator_url());
    let hasty = hasty.deadline(Duration::from_secs(1)).connect_lazy().unwrap();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let content = |worker: usize, number: usize| {
        let length = if number.is_multiple_of(3) { LARGE } else { SMALL + worker };
        noise(length, (worker * FILES + number) as u64)
    };
    let workers = (0..WORKERS).map(|worker| {
        let (client, acknowledged) = (hasty.clone(), acknowledged.clone());
        tokio::spawn(async move {
            let mut results = Vec::new();
            for number in 0..FILES {
                let at = format!("/{worker}-{number}");
                let is_acknowledged = put(&client, &at, content(worker, number)).await.is_ok();
                acknowledged.fetch_add(usize::from(is_acknowledged), Ordering::Relaxed);
                results.push(is_acknowledged);
            }
            results
        })
    });
    let workers: Vec<_> = workers.collect();
    let is_time = || acknowledged.load(Ordering::Relaxed) >= WORKERS * FILES / 3;
    assert!(dfs_testkit::process::wait_until(Duration::from_mins(1), is_time));
    machines.cut_power();
    let client = client(&machines.cluster);
    for (worker, results) in workers.into_iter().enumerate() {
        for (number, is_acknowledged) in results.await.unwrap().into_iter().enumerate() {
            let (at, bytes) = (format!("/{worker}-{number}"), content(worker, number));
            match read(&client, &at).await {
                Err(error) if error.code() == ErrorCode::NotFound && !is_acknowledged => {}
                _ => machines.assert_whole(&client, &at, &bytes).await,
            }
        }
    }
}

/// XFS writes the name of a file with the next sync of its content, so that only the system calls
/// show that the directory is synced, as other file systems require.
#[test]
fn names_in_a_new_store_are_synced_in_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().canonicalize().unwrap();
    let log = top.join("calls");
    let calls = "trace=mkdir,mkdirat,rename,renameat,renameat2,fsync";
    let traced = run(Command::new("strace")
        .args(["-f", "-y", "-qq", "-s", "4096", "-e", calls, "-o"])
        .arg(&log)
        .arg(binary())
        .args(["coordinator", "init", "--metadata"])
        .arg(format!("redb://{}", top.join("deep/metadata").display())));
    let Some(()) = or_skip(traced, "tracing of system calls") else { return };
    let log = std::fs::read_to_string(log).unwrap();
    let calls: Vec<_> = log.lines().filter(|line| line.ends_with("= 0")).collect();
    let mut names = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        // The last path of a call is the name that exists afterwards.
        let name = call.split('"').skip(1).step_by(2).last().map(Path::new);
        let Some(name) = name.filter(|name| name.starts_with(&top)) else { continue };
        let synced = format!("<{}>", name.parent().unwrap().display());
        let is_synced = |call: &&str| call.contains("fsync(") && call.contains(&synced);
        assert!(calls[at..].iter().any(is_synced), "{} is not durable:\n{log}", name.display());
        names.push(name.strip_prefix(&top).unwrap().display().to_string());
    }
    assert_eq!(names, ["deep", "deep/metadata", "deep/metadata/metadata.redb"]);
}

#[test]
fn new_store_survives_a_power_cut() {
    let Some(disks) = self::disks(1) else { return };
    let metadata = format!("redb://{}", disks[0].root().join("deep/metadata").display());
    let init = || {
        let mut init = Command::new(binary());
        init.args(["coordinator", "init", "--metadata", &metadata]).output().unwrap()
    };
    assert!(init().status.success());
    disks[0].cut_power().unwrap();
    disks[0].restore_power().unwrap();
    let again = init();
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(!again.status.success() && said.contains("already"), "it is gone: {said}");
}

/// `cargo xtask powercut` runs longer.
#[test]
fn nothing_acknowledged_is_lost_by_power_cuts_of_single_machines_and_of_all() {
    let Some(disks) = disks(powercut::MACHINES) else { return };
    let options = powercut::Options { binary: binary(), rounds: 4, seed: 1 };
    let report = powercut::run(&options, disks).unwrap_or_else(|violation| panic!("{violation}"));
    println!("{report}");
}
