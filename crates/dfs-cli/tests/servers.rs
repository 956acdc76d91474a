//! The roles as processes: settings, health, signals.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use dfs_testkit::process::{Settings, wait_until};

use crate::support::{binary, cluster, exit_code, noise, noise_file, stderr};

const MIB: usize = 1 << 20;
/// Logs of dfs without those of its dependencies.
const LOG: &str = "info,dfs_client=debug,dfs_transport=debug,dfs_datanode=debug";

#[test]
fn unknown_setting_is_named_and_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    fs::write(&config, "listen: 127.0.0.1:0\nbogus: 1\n").unwrap();
    for role in ["coordinator", "datanode"] {
        let refused = Command::new(binary()).args([role, "--config"]).arg(&config).output();
        let refused = refused.unwrap();
        assert_eq!(exit_code(&refused), 2, "{role}: {}", stderr(&refused));
        assert!(stderr(&refused).contains("bogus"), "{role}: {}", stderr(&refused));
    }
}

#[test]
fn every_server_reports_its_health() {
    let cluster = cluster();
    for server in cluster.datanodes.iter().chain([&cluster.coordinator]) {
        assert_eq!(server.http_get("/healthz").0, 200);
        let is_ready = || server.http_get("/readyz").0 == 200;
        assert!(wait_until(Duration::from_secs(10), is_ready), "{}", server.log());
        let (code, page) = server.http_get("/metrics");
        assert!(code == 200 && page.contains("process_resident_memory_bytes"), "{page}");
        assert_eq!(server.http_get("/nothing").0, 404);
    }
}

#[test]
fn terminated_datanode_exits_in_time_and_a_put_continues() {
    let mut cluster = cluster();
    let local = cluster.folder().join("file").display().to_string();
    noise_file(local.as_ref(), 100 * MIB, 1);
    let mut put = cluster.command(["put", &local, "/file"]).spawn().unwrap();
    let has_begun = |cluster: &dfs_testkit::process::Cluster| {
        let disk = cluster.disk(0);
        walk(&disk) > 4 << 20
    };
    assert!(wait_until(Duration::from_secs(30), || has_begun(&cluster)), "nothing arrived");
    assert_eq!(cluster.datanodes[0].terminate(Duration::from_secs(40)), Some(0));
    assert!(put.wait().unwrap().success());
    let back = cluster.dfs(["cat", "/file"]);
    assert!(back.stdout == noise(100 * MIB, 1));
}

#[test]
fn terminated_coordinator_exits_with_zero() {
    let mut cluster = cluster();
    cluster.dfs_ok(["mkdir", "/d"]);
    let started = Instant::now();
    assert_eq!(cluster.coordinator.terminate(Duration::from_secs(40)), Some(0));
    assert!(started.elapsed() < Duration::from_secs(30));
    cluster.start_coordinator();
    cluster.dfs_ok(["stat", "/d"]);
}

/// Returns the bytes below a directory.
fn walk(folder: &std::path::Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => walk(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}

#[test]
fn request_id_is_logged_from_the_command_to_the_replicas() {
    let cluster = dfs_testkit::process::Cluster::start(
        binary(),
        Settings { log: LOG.to_owned(), ..Settings::default() },
    );
    let local = cluster.folder().join("file").display().to_string();
    noise_file(local.as_ref(), 100_000, 1);
    let put = cluster.dfs(["put", &local, "/file", "--log", LOG]);
    assert!(put.status.success());
    let said = stderr(&put);
    let line = said.lines().find(|line| line.contains("a chunk is durable"));
    let id = line.and_then(|line| line.split("request{id=").nth(1)?.get(..32));
    let id = id.unwrap_or_else(|| panic!("no request id is logged: {said}"));
    for server in cluster.datanodes.iter().chain([&cluster.coordinator]) {
        let has_it = || server.log().contains(id);
        assert!(wait_until(Duration::from_secs(5), has_it), "{id} is not in {}", server.log());
    }
}
