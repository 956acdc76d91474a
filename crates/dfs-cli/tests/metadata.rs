//! Stores that are migrated and checked, and clusters that run on them afterwards.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use dfs_metadata::engine::{Commit, Write};
use dfs_testkit::process::wait_until;
use serde_json::Value;

use crate::json_page;
use crate::support::{binary, cluster_on_redb, exit_code, noise, noise_file, stderr};

fn metadata<const N: usize>(args: [&str; N]) -> Output {
    Command::new(binary()).arg("metadata").args(args).output().unwrap()
}

fn url(folder: &Path) -> String {
    format!("redb://{}", folder.display())
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn cluster_continues_on_migrated_metadata_and_refuses_the_original() {
    let mut cluster = cluster_on_redb();
    let at = |name: &str| cluster.folder().join(name);
    let (live, copy, original) = (at("metadata"), at("copy"), at("original"));
    let local = at("file").display().to_string();
    noise_file(local.as_ref(), 300_000, 1);
    cluster.dfs_ok(["mkdir", "/d"]);
    cluster.dfs_ok(["put", &local, "/d/file"]);

    // Not while it runs.
    for refused in [
        metadata(["migrate", "--from", &url(&live), "--to", &url(&copy)]),
        metadata(["check", &url(&live)]),
    ] {
        assert_eq!(exit_code(&refused), 5, "{}", stderr(&refused));
        assert!(stderr(&refused).contains("stop it first"), "{}", stderr(&refused));
    }
    assert!(!copy.exists());

    assert_eq!(cluster.coordinator.terminate(Duration::from_secs(40)), Some(0));
    let copied = metadata(["migrate", "--from", &url(&live), "--to", &url(&copy), "--json"]);
    assert_eq!(exit_code(&copied), 0, "{}", stderr(&copied));
    let copied = json(&copied);
    json_page::check("metadata migrate", &copied);
    assert_eq!((&copied["incarnation"], &copied["resumed"]), (&2.into(), &false.into()));
    let again = metadata(["migrate", "--from", &url(&live), "--to", &url(&copy)]);
    assert_eq!(exit_code(&again), 4, "{}", stderr(&again));
    for store in [&live, &copy] {
        let checked = metadata(["check", &url(store), "--json"]);
        assert_eq!(exit_code(&checked), 0, "{}", stderr(&checked));
        let checked = json(&checked);
        json_page::check("metadata check", &checked);
        assert_eq!((&checked["files"], &checked["nodes"]), (&1.into(), &3.into()));
    }

    fs::rename(&live, &original).unwrap();
    fs::rename(&copy, &live).unwrap();
    cluster.start_coordinator();
    cluster.wait_for_active(3);
    assert!(cluster.dfs(["cat", "/d/file"]).stdout == noise(300_000, 1));
    cluster.dfs_ok(["put", &local, "/d/new"]);

    // Now orders of the original are refused.
    assert_eq!(cluster.coordinator.terminate(Duration::from_secs(40)), Some(0));
    fs::rename(&live, &copy).unwrap();
    fs::rename(&original, &live).unwrap();
    cluster.start_coordinator();
    for node in &cluster.datanodes {
        let is_refused = || node.log().contains("incarnation");
        assert!(wait_until(Duration::from_secs(30), is_refused), "{}", node.log());
    }
    let put = cluster.dfs(["put", &local, "/d/newer", "--timeout", "1s"]);
    assert_ne!(exit_code(&put), 0);
}

#[test]
fn check_reports_problems_and_exits_with_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("metadata");
    let none = metadata(["check", &url(&store)]);
    assert_eq!(exit_code(&none), 3, "{}", stderr(&none));
    assert!(!store.exists(), "a check creates nothing");
    let none =
        metadata(["migrate", "--from", &url(&store), "--to", &url(&folder.path().join("to"))]);
    assert_eq!(exit_code(&none), 3, "{}", stderr(&none));

    let init = ["coordinator", "init", "--metadata", &url(&store)];
    assert!(Command::new(binary()).args(init).output().unwrap().status.success());
    let clean = metadata(["check", &url(&store)]);
    assert_eq!(exit_code(&clean), 0, "{}", stderr(&clean));
    assert!(String::from_utf8_lossy(&clean.stdout).contains("no problems"));

    damage(&store);
    let damaged = metadata(["check", &url(&store)]);
    assert_eq!(exit_code(&damaged), 1, "{}", stderr(&damaged));
    let said = String::from_utf8_lossy(&damaged.stdout).into_owned();
    assert!(said.contains("unknown_key: z\\x0a") && said.contains("1 problem"), "{said}");
    let damaged = metadata(["check", &url(&store), "--json"]);
    assert_eq!((exit_code(&damaged), stderr(&damaged)), (1, String::new()));
    assert_eq!(json(&damaged)["problems"][0]["key"], "z\\x0a");
}

#[tokio::main(flavor = "current_thread")]
async fn damage(store: &Path) {
    let engine = dfs_engines::open(&url(store)).await.unwrap();
    let writes = vec![Write::Put("z\n".into(), "x".into())];
    engine.commit_batch(vec![Commit { conditions: vec![], writes }]).await.unwrap();
}
