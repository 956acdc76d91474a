//! Output of each command, for people and for programs.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use dfs_testkit::process::Cluster;
use serde_json::Value;

use crate::json_page;
use crate::support::{binary, cluster, exit_code, noise_file, stderr};

/// Parses the documents of an output, one per line.
fn documents(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).expect("one document per line")).collect()
}

/// Runs subcommands of a command one after another, and checks one value of each document, and the
/// document itself against its page.
fn check_documents(cluster: &Cluster, command: &str, table: &[(&[&str], &str, Value)]) {
    for (args, pointer, wanted) in table {
        let found = documents(&cluster.dfs_ok([command, "--json"].iter().chain(*args)));
        assert_eq!(found[0].pointer(pointer), Some(wanted), "{args:?}: {}", found[0]);
        json_page::check(&format!("{command} {}", args[0]), &found[0]);
    }
}

#[test]
fn every_command_reports_its_result_as_json() {
    let cluster = cluster();
    let local = cluster.folder().join("file").display().to_string();
    noise_file(local.as_ref(), 100_000, 1);
    let back = cluster.folder().join("back").display().to_string();
    let table: &[(&[&str], &str, Value)] = &[
        (&["mkdir", "/d"], "/path", "/d".into()),
        (&["put", &local, "/d/f"], "/bytes", 100_000.into()),
        (&["get", "/d/f", &back], "/files", 1.into()),
        (&["ls", "/d"], "/path", "/d/f".into()),
        (&["stat", "/d/f"], "/size", 100_000.into()),
        (&["du", "/d"], "/bytes", 100_000.into()),
        (&["tree", "/d"], "/path", "/d".into()),
        (&["explain", "/d/f"], "/chunks/0/length", 100_000.into()),
        (&["mv", "/d/f", "/d/g"], "/to", "/d/g".into()),
        (&["ln", "-s", "g", "/d/l"], "/target", "g".into()),
        (&["rm", "/d/g"], "/restorable", true.into()),
        (&["undelete", "/d/g"], "/path", "/d/g".into()),
        (&["version"], "/client", env!("CARGO_PKG_VERSION").into()),
        (&["status"], "/nodes/0/state", "active".into()),
    ];
    for (args, pointer, wanted) in table {
        let output = cluster.dfs(args.iter().copied().chain(["--json"]));
        assert_eq!(exit_code(&output), 0, "{args:?}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{args:?} prints messages despite --json");
        let found = documents(&String::from_utf8(output.stdout).unwrap());
        assert_eq!(found[0].pointer(pointer), Some(wanted), "{args:?}: {}", found[0]);
        json_page::check(args[0], &found[0]);
    }
    let df = documents(&cluster.dfs_ok(["df", "--json"]));
    assert!(df[0]["free"].as_u64() > Some(0), "{}", df[0]);
    let node = cluster.status().unwrap()["nodes"][0]["id"].as_str().unwrap().to_owned();
    let table: &[(&[&str], &str, Value)] = &[
        (&["admit", &node], "/state", "active".into()),
        (&["safe-to-stop", &node], "/is_safe", true.into()),
        (&["maintenance", &node], "/left_ms", 3_600_000.into()),
        (&["maintenance", "--end", &node], "/left_ms", 0.into()),
    ];
    check_documents(&cluster, "node", table);
}

#[test]
fn xattr_values_are_written_as_they_are() {
    let cluster = cluster();
    let local = cluster.folder().join("file").display().to_string();
    noise_file(local.as_ref(), 100, 1);
    cluster.dfs_ok(["put", &local, "/f"]);
    let value = OsStr::from_bytes(b"\xff\n\x01");
    let set = ["xattr", "set", "/f", "user.a"].map(OsStr::new);
    cluster.dfs_ok(set.into_iter().chain([value]));
    assert_eq!(cluster.dfs(["xattr", "get", "/f", "user.a"]).stdout, value.as_bytes());
    let table: &[(&[&str], &str, Value)] = &[
        (&["get", "/f", "user.a"], "/value", "/woB".into()),
        (&["set", "/f", "user.b", "text"], "/name", "user.b".into()),
        (&["get", "/f", "user.b"], "/value", "text".into()),
        (&["list", "/f"], "/name", "user.a".into()),
        (&["remove", "/f", "user.b"], "/path", "/f".into()),
    ];
    check_documents(&cluster, "xattr", table);
    let upgrade = documents(&cluster.dfs_ok(["upgrade", "status", "--json"]));
    json_page::check("upgrade status", &upgrade[0]);
}

#[test]
fn workers_are_listed_paused_and_rate_limited() {
    let cluster = cluster();
    let table: &[(&[&str], &str, Value)] = &[
        (&["pause", "repair", "--for", "2h"], "/name", "repair".into()),
        (&["rate", "repair", "50MiB"], "/rate", (50 << 20).into()),
        (&["rate", "delete", "unlimited"], "/rate", Value::Null),
        (&["list"], "/workers/0/rate", (50 << 20).into()),
        (&["list"], "/workers/1/name", "drain".into()),
        (&["rate", "repair", "default"], "/rate", (200 << 20).into()),
        (&["resume", "repair"], "/pause_left_ms", Value::Null),
    ];
    check_documents(&cluster, "worker", table);
    assert!(cluster.dfs_ok(["worker", "list"]).contains("repair"));
    let unknown = cluster.dfs(["worker", "resume", "gardener"]);
    assert_eq!(exit_code(&unknown), 2);
    assert!(stderr(&unknown).contains("rebalance, reaper, delete"), "{}", stderr(&unknown));
}

/// F15.
#[test]
fn f15_errors_name_the_local_file_and_suggest_only_flags_that_the_command_has() {
    let cluster = cluster();
    let local = cluster.folder().join("file").display().to_string();
    noise_file(local.as_ref(), 100_000, 1);
    cluster.dfs_ok(["put", &local, "/f"]);
    let full = cluster.dfs(["get", "/f", "/dev/full"]);
    assert_eq!(exit_code(&full), 1, "{}", stderr(&full));
    assert!(stderr(&full).contains("/dev/full"), "{}", stderr(&full));
    // A limit on the size of files stands in for a full disk.
    let back = cluster.folder().join("back").display().to_string();
    let get = cluster.command(["get", "/f", &back]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 10; exec \"$@\"", "sh"]);
    limited.arg(get.get_program()).args(get.get_args());
    for (name, value) in get.get_envs() {
        limited.env(name, value.unwrap_or_default());
    }
    let limited = limited.output().unwrap();
    assert_eq!(exit_code(&limited), 1, "{}", stderr(&limited));
    assert!(stderr(&limited).contains(&back), "{}", stderr(&limited));

    cluster.dfs_ok(["mkdir", "-p", "/a", "/x/a/entry"]);
    let moved = cluster.dfs(["mv", "/a", "/x"]);
    assert_eq!(exit_code(&moved), 4, "{}", stderr(&moved));
    assert!(!stderr(&moved).contains("-r"), "{}", stderr(&moved));
    let removed = cluster.dfs(["rm", "/x"]);
    assert!(stderr(&removed).contains("-r"), "{}", stderr(&removed));
}

#[test]
fn each_failure_is_reported_as_it_happens() {
    let cluster = cluster();
    let output = cluster.dfs(["rm", "--json", "/one", "/two"]);
    assert_eq!(exit_code(&output), 3);
    let reported = documents(&stderr(&output));
    assert_eq!(reported.len(), 2, "{reported:?}");
    for (document, path) in reported.iter().zip(["/one", "/two"]) {
        assert_eq!(document["error"]["code"], "NOT_FOUND");
        assert!(document["error"]["message"].as_str().unwrap().contains(path), "{document}");
    }
    let output = cluster.dfs(["rm", "/one", "/two"]);
    let text = stderr(&output);
    assert_eq!(text, "dfs: there is no /one\ndfs: there is no /two\n");
    let output = cluster.dfs(["put", "--json"]);
    assert_eq!(exit_code(&output), 2);
    assert_eq!(documents(&stderr(&output))[0]["error"]["code"], "INVALID_ARGUMENT");
}

#[test]
fn output_for_people_has_tables_and_trees() {
    let cluster = cluster();
    let local = cluster.folder().join("file").display().to_string();
    noise_file(local.as_ref(), 1_500_000, 1);
    cluster.dfs_ok(["mkdir", "-p", "-m", "700", "/d/deep"]);
    cluster.dfs_ok(["put", &local, "/d/f"]);
    cluster.dfs_ok(["ln", "-s", "f", "/d/l"]);
    let long = cluster.dfs_ok(["ls", "-l", "/d"]);
    let lines: Vec<&str> = long.lines().collect();
    assert_eq!(lines.len(), 3, "{long}");
    assert!(lines[0].starts_with("drwx------") && lines[0].ends_with("deep"), "{long}");
    assert!(lines[1].contains("1500000") && lines[1].ends_with(" f"), "{long}");
    assert!(lines[2].starts_with('l') && lines[2].ends_with("l -> f"), "{long}");
    assert!(cluster.dfs_ok(["ls", "-lh", "/d"]).contains("1.4"), "human sizes");
    let tree = cluster.dfs_ok(["tree", "/"]);
    for name in ["d", "deep", "f", "l -> f"] {
        assert!(tree.contains(name), "{tree}");
    }
    assert!(!cluster.dfs_ok(["tree", "-L", "1", "/"]).contains("deep"));
    assert!(
        cluster.dfs_ok(["du", "/"]).contains("1500001"),
        "a symlink has the size of its target"
    );
    assert!(cluster.dfs_ok(["df", "-h"]).to_lowercase().contains("free"));
    assert!(cluster.dfs_ok(["status"]).contains("active"));
    assert!(cluster.dfs_ok(["version"]).contains(env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        let script = cluster.dfs_ok(["completions", shell]);
        assert!(script.contains("undelete"), "{shell}");
    }
}

#[test]
fn bench_measures_everything_and_cleans_up() {
    let cluster = cluster();
    let args = ["bench", "--files", "20", "--stream-size", "1MiB", "--clients", "4", "--json"];
    let found = documents(&cluster.dfs_ok(args));
    let measures: Vec<&str> = found.iter().map(|row| row["measure"].as_str().unwrap()).collect();
    assert_eq!(measures, ["creates", "reads", "stats", "lists", "stream put", "stream get"]);
    for row in &found {
        json_page::check("bench", row);
        assert!(row["calls"].as_u64() > Some(1) && row["per_second"].as_f64() > Some(0.0), "{row}");
        let percentiles = ["p50_us", "p90_us", "p99_us", "max_us"].map(|key| row[key].as_u64());
        assert!(percentiles.is_sorted() && percentiles[0] > Some(0), "{row}");
    }
    assert!(cluster.dfs_ok(args[..7].iter()).contains("stream get"));
    assert_eq!(cluster.dfs_ok(["ls", "/"]), "");
}

#[test]
fn coordinator_that_is_down_is_skipped() {
    let cluster = cluster();
    let several = format!("http://127.0.0.1:9,{}", cluster.coordinator_url());
    let stat = std::process::Command::new(binary())
        .args(["stat", "/", "--coordinator", &several])
        .output()
        .unwrap();
    assert_eq!(exit_code(&stat), 0, "{}", stderr(&stat));
}
