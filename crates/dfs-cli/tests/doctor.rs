//! What `dfs doctor` says of real clusters, and of metadata stores without one.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use dfs_testkit::process::{Cluster, Settings, wait_until};
use serde_json::Value;

use crate::json_page;
use crate::support::{binary, cluster, cluster_on_redb, exit_code, noise_file, stderr};

/// Time within which servers notice what happened.
const WITHIN: Duration = Duration::from_secs(30);
/// The exit code when a person is needed.
const PERSON_NEEDED: i32 = 7;

/// Returns the findings of `dfs doctor`, each by its code, and its exit code.
fn findings(output: &Output) -> (Vec<(String, Value)>, i32) {
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    json_page::check("doctor", &document);
    let found = document["findings"].as_array().unwrap();
    let found = found.iter().map(|it| (it["code"].as_str().unwrap().to_owned(), it.clone()));
    let code = exit_code(output);
    assert_eq!(document["needs_person"] == true, code == PERSON_NEEDED, "{document}");
    (found.collect(), code)
}

fn doctor(cluster: &Cluster) -> (Vec<(String, Value)>, i32) {
    findings(&cluster.dfs(["doctor", "--json"]))
}

/// Waits until a code is found, and returns that finding and the exit code.
fn found(cluster: &Cluster, code: &str) -> (Value, i32) {
    let mut last = None;
    wait_until(WITHIN, || {
        let (found, exit) = doctor(cluster);
        last = found.iter().find(|(name, _)| name == code).map(|(_, it)| (it.clone(), exit));
        last.is_some()
    });
    last.unwrap_or_else(|| panic!("no {code}: {:?}", doctor(cluster)))
}

fn put(cluster: &Cluster, path: &str) {
    let file = cluster.folder().join("file");
    noise_file(&file, 3_000_000, 1);
    cluster.dfs_ok(["put", &file.display().to_string(), path]);
}

#[test]
fn nothing_is_wrong_with_a_healthy_cluster_once_it_has_been_compared() {
    let cluster = cluster();
    cluster.wait_for_active(3);
    put(&cluster, "/file");
    cluster.dfs_ok(["fsck"]);
    let is_fine = || doctor(&cluster) == (Vec::new(), 0);
    assert!(wait_until(WITHIN, is_fine), "{:?}", doctor(&cluster));
    assert_eq!(cluster.dfs_ok(["doctor"]), "nothing is wrong\n");
}

#[test]
fn killed_datanode_is_waited_for_and_then_rebuilt_without_a_person() {
    let coordinator = "heartbeat_interval_ms: 100\nsuspect_after_ms: 1000\nlost_after_ms: 8000\n\
                       confirm_clock_ms: 500\n";
    let settings =
        Settings { datanodes: 4, coordinator: coordinator.to_owned(), ..Settings::default() };
    let mut cluster = Cluster::start(binary(), settings);
    cluster.wait_for_active(4);
    put(&cluster, "/file");
    cluster.datanodes[0].kill();
    let (silent, exit) = found(&cluster, "node-suspect");
    assert!(silent["doing"].as_str().unwrap().contains("once it is lost, in "), "{silent}");
    assert!(silent["what"].as_str().unwrap().contains(cluster.datanodes[0].address()), "{silent}");
    assert_eq!((exit, &silent["needs_person"]), (0, &false.into()), "{silent}");
    let (lost, exit) = found(&cluster, "node-lost");
    assert_eq!(exit, 0, "{lost}");
    let is_rebuilt = || {
        let (lost, exit) = found(&cluster, "node-lost");
        exit == 0 && lost["doing"].as_str().unwrap().contains("has been rebuilt elsewhere")
    };
    assert!(wait_until(WITHIN, is_rebuilt), "{:?}", doctor(&cluster));
}

#[test]
fn lost_last_replica_and_an_unreachable_coordinator_need_a_person() {
    let init = vec!["--replication-factor".to_owned(), "1".to_owned()];
    let settings = Settings { datanodes: 1, init, ..Settings::default() };
    let mut cluster = Cluster::start(binary(), settings);
    put(&cluster, "/lost");
    cluster.datanodes[0].terminate(Duration::from_secs(20));
    for shard in fs::read_dir(cluster.disk(0).join("chunks")).unwrap() {
        fs::remove_dir_all(shard.unwrap().path()).unwrap();
    }
    cluster.start_datanode(0);
    cluster.wait_for_active(1);
    let (missing, exit) = found(&cluster, "chunks-missing");
    assert_eq!((exit, &missing["severity"]), (PERSON_NEEDED, &"critical".into()), "{missing}");
    assert!(missing["todo"].as_str().unwrap().contains("`dfs fsck` lists the paths"), "{missing}");

    let url = cluster.coordinator_url();
    let several =
        cluster.dfs(["--coordinator", &format!("http://127.0.0.1:1,{url}"), "doctor", "--json"]);
    let (found, _) = findings(&several);
    let (_, gone) = found.iter().find(|(code, _)| code == "coordinator-unreachable").unwrap();
    assert!(gone["what"].as_str().unwrap().contains("http://127.0.0.1:1 "), "{gone}");
    assert_eq!(gone["needs_person"], false, "the other one replies: {gone}");
    cluster.coordinator.kill();
    let (found, exit) = doctor(&cluster);
    assert_eq!((found.len(), exit, &*found[0].0), (1, PERSON_NEEDED, "coordinator-unreachable"));
    let address = url.trim_start_matches("http://");
    assert!(found[0].1["why"].as_str().unwrap().contains(address), "{found:?}");
}

fn offline(store: &Path, expect: &str) -> Output {
    let url = format!("redb://{}", store.display());
    let mut command = Command::new(binary());
    command.args(["doctor", "--json", "--offline", &url]);
    if !expect.is_empty() {
        command.args(["--expect", expect]);
    }
    command.output().unwrap()
}

/// Returns the code of the only finding about a store, which needs a person; empty for none.
fn judged(store: &Path, expect: &str) -> String {
    let output = offline(store, expect);
    let (found, exit) = findings(&output);
    assert_eq!(exit, if found.is_empty() { 0 } else { PERSON_NEEDED }, "{}", stderr(&output));
    assert!(found.len() <= 1, "{found:?}");
    found.first().map(|(code, _)| code.clone()).unwrap_or_default()
}

#[test]
fn store_is_examined_offline_and_stays_as_it_is() {
    let mut cluster = cluster_on_redb();
    put(&cluster, "/file");
    let id = cluster.status().unwrap()["cluster"].as_str().unwrap().to_owned();
    let store = cluster.folder().join("metadata");
    assert_eq!(judged(&store, ""), "store-in-use");
    // Without a regular end, so that the store needs recovery.
    cluster.coordinator.kill();
    let file = store.join("metadata.redb");
    let before = fs::read(&file).unwrap();
    assert_eq!(judged(&store, ""), "");
    assert_eq!(judged(&store, &id), "");
    assert_eq!(
        judged(&store, &"0".repeat(31).chars().chain(['1']).collect::<String>()),
        "store-of-other-cluster"
    );
    for (content, code) in [
        (&before[..0], "store-damaged"),
        (&before[..before.len() / 2], "store-damaged"),
        (&before[..100], "store-damaged"),
    ] {
        fs::write(&file, content).unwrap();
        assert_eq!(judged(&store, ""), code, "{} bytes", content.len());
        assert!(fs::read(&file).unwrap() == content, "nothing is repaired");
    }
    let absent = cluster.folder().join("absent");
    assert_eq!(judged(&absent, ""), "store-missing");
    assert!(!absent.exists(), "nothing is created");
    fs::write(&file, &before).unwrap();
    cluster.start_coordinator();
    cluster.wait_for_active(3);
}
