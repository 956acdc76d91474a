//! `dfs local`: a permanent file system, and the tour.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use dfs_etcd::test_server;
use dfs_testkit::process::wait_until;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{binary, exit_code, noise, noise_file, stderr};

/// A running `dfs local` and its address.
struct Local {
    child: Child,
    url: String,
}

impl Local {
    fn start(folder: &Path) -> Self {
        Self::from(local(folder))
    }

    fn from(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split_whitespace().nth(3).expect("a line with its address");
        Self { url: format!("http://{address}"), child }
    }

    fn dfs(&self, args: &[&str]) -> Output {
        Command::new(binary()).args(args).env("DFS_COORDINATOR", &self.url).output().unwrap()
    }

    fn terminate(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let mut code = None;
        let has_ended = wait_until(Duration::from_secs(30), || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        assert!(has_ended, "still running");
        code.and_then(|status| status.code())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn local(folder: &Path) -> Command {
    let mut command = Command::new(binary());
    command.args(["local", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    command.arg("--data-dir").arg(folder).stdin(Stdio::null());
    command
}

#[test]
fn folder_is_reusable_but_used_by_one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = folder.path().join("file");
    noise_file(&file, 3_000_000, 1);
    let first = Local::start(&data);
    let put = first.dfs(&["put", &file.display().to_string(), "/kept"]);
    assert!(put.status.success(), "{}", stderr(&put));
    let second = local(&data).output().unwrap();
    assert_eq!(exit_code(&second), 5, "{}", stderr(&second));
    assert!(stderr(&second).contains("another `dfs local` is running in"), "{}", stderr(&second));
    assert_eq!(first.terminate(), Some(0));
    let again = Local::start(&data);
    let back = again.dfs(&["cat", "/kept"]);
    assert!(back.status.success() && back.stdout == noise(3_000_000, 1), "{}", stderr(&back));
    let status = again.dfs(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3);
}

/// F13 and F14.
#[test]
fn f13_f14_local_stores_with_any_number_of_datanodes_and_counts_its_disk_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = folder.path().join("file");
    noise_file(&file, 300_000, 1);
    let file = file.display().to_string();
    let start = |datanodes: &str| {
        let mut command = local(&data);
        command.args(["--datanodes", datanodes]);
        Local::from(command)
    };
    let status = |local: &Local| -> serde_json::Value {
        serde_json::from_slice(&local.dfs(&["status", "--json"]).stdout).unwrap()
    };
    let capacity = |local: &Local| {
        let mut capacities = Vec::new();
        let are_heard = wait_until(Duration::from_secs(30), || {
            let status = status(local);
            let nodes = status["nodes"].as_array().unwrap();
            let disks = nodes.iter().flat_map(|node| node["disks"].as_array().unwrap());
            capacities = disks.filter_map(|disk| disk["capacity"].as_u64()).collect();
            capacities.len() == nodes.len() && !capacities.contains(&0)
        });
        assert!(are_heard, "{capacities:?}");
        capacities.iter().sum::<u64>()
    };
    let mut before = None;
    for (number, factor, min) in [("1", 1, 1), ("2", 2, 2), ("4", 3, 2)] {
        let local = start(number);
        let put = local.dfs(&["put", "--timeout", "30s", &file, &format!("/{number}")]);
        assert!(put.status.success(), "{number}: {}", stderr(&put));
        let status = status(&local);
        assert_eq!(status["replication_factor"], factor);
        assert_eq!(status["min_write_replicas"], min);
        // The disk of this machine may fill up or empty slightly meanwhile.
        let capacity = capacity(&local);
        let first = *before.get_or_insert(capacity);
        assert!(capacity < first + first / 4, "{number} datanodes: {capacity}, one had {first}");
        assert_eq!(local.terminate(), Some(0));
    }
    let refused = local(&data).args(["--datanodes", "2"]).output().unwrap();
    assert_eq!(exit_code(&refused), 2, "{}", stderr(&refused));
    assert!(stderr(&refused).contains("holds 4 datanodes"), "{}", stderr(&refused));
}

#[test]
fn wildcard_listen_address_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.args(["local", "--insecure", "--listen", "0.0.0.0:0", "--data-dir"]);
    let refused = command.arg(folder.path()).output().unwrap();
    assert_eq!(exit_code(&refused), 2, "{}", stderr(&refused));
    assert!(stderr(&refused).contains("name one address"), "{}", stderr(&refused));
}

fn tour(files: Option<&Path>) {
    let mut command = Command::new(binary());
    command.args(["local", "--demo"]).args(files).stdin(Stdio::null());
    // Settings for other commands have no effect here.
    command.env("DFS_LISTEN", "127.0.0.1:1").env("DFS_DATA_DIR", "/nowhere/at/all");
    let output = command.output().unwrap();
    assert_eq!(exit_code(&output), 0, "{}", stderr(&output));
    for step in 1..=8 {
        let title = format!("\n{step}. ");
        assert!(step == 1 || stderr(&output).contains(&title), "step {step} is missing");
    }
    assert!(stderr(&output).contains("every byte came back intact"), "{}", stderr(&output));
}

#[test]
fn tour_succeeds_with_generated_files() {
    tour(None);
}

#[test]
fn tour_succeeds_with_own_files() {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::create_dir(tree.join("empty folder")).unwrap();
    tour(Some(&tree));
    noise_file(&tree.join(std::ffi::OsStr::from_bytes(b"\xff largest")), 100_000, 1);
    tour(Some(&tree));
    tour(Some(&tree.join(std::ffi::OsStr::from_bytes(b"\xff largest"))));
}

#[test]
fn several_coordinators_require_shared_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let refused = local(folder.path()).args(["--coordinators", "3"]).output().unwrap();
    assert_eq!(exit_code(&refused), 2, "{}", stderr(&refused));
    assert!(stderr(&refused).contains("--metadata etcd://"), "{}", stderr(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_coordinators_share_an_etcd() {
    let etcd = test_server::Cluster::start(1).await;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let start = |log: &Path| {
        let mut command = local(&data);
        let metadata = format!("etcd://{}/try", etcd.authority());
        command.args(["--coordinators", "3", "--metadata", &metadata]);
        command.stderr(fs::File::create(log).unwrap());
        Local::from(command)
    };
    let file = folder.path().join("file");
    noise_file(&file, 300_000, 1);
    let log = folder.path().join("log");
    let first = start(&log);
    let put = first.dfs(&["put", &file.display().to_string(), "/file"]);
    assert_eq!(exit_code(&put), 0, "{}", stderr(&put));
    let said = fs::read_to_string(&log).unwrap();
    let urls = said.lines().find_map(|line| line.trim().strip_prefix("dfs --coordinator "));
    let urls = urls.and_then(|urls| urls.strip_suffix(" status")).unwrap_or_default();
    assert_eq!(urls.split(',').count(), 3, "{said}");
    for url in urls.split(',') {
        let cat = Command::new(binary()).args(["cat", "/file", "--coordinator", url]).output();
        let cat = cat.unwrap();
        assert!(cat.stdout == noise(300_000, 1), "{url}: {}", stderr(&cat));
        let mut seen = String::new();
        let are_active = wait_until(Duration::from_secs(30), || {
            let status = Command::new(binary()).args(["status", "--coordinator", url]).output();
            seen = String::from_utf8_lossy(&status.unwrap().stdout).into_owned();
            seen.matches("active").count() == 3
        });
        assert!(are_active, "{url}: {seen}");
    }
    assert_eq!(first.terminate(), Some(0));
    let again = start(&log);
    let cat = again.dfs(&["cat", "/file"]);
    assert!(cat.stdout == noise(300_000, 1), "{}", stderr(&cat));
    assert_eq!(again.terminate(), Some(0));
}
