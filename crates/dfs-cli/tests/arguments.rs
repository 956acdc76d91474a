//! Wrong arguments and wrong states: exit codes and messages.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use dfs_testkit::process::{Cluster, Settings};

use crate::support::{binary, cluster, exit_code, noise_file, stderr};

#[test]
fn mistakes_are_reported_with_their_exit_code() {
    let cluster = cluster();
    let local = cluster.folder().join("file").display().to_string();
    noise_file(local.as_ref(), 10, 1);
    cluster.dfs_ok(["mkdir", "-p", "/dir/sub"]);
    cluster.dfs_ok(["put", &local, "/file"]);
    cluster.dfs_ok(["ln", "-s", "loop-b", "/loop-a"]);
    cluster.dfs_ok(["ln", "-s", "loop-a", "/loop-b"]);
    let long_name = format!("/{}", "n".repeat(256));
    let nobody = "7".repeat(32);
    let table: &[(&[&str], i32, &str)] = &[
        (&["stat", "file"], 2, "a path must start with a slash"),
        (&["stat", "/dir/../file"], 2, "a name must not be \".\" or \"..\""),
        (&["stat", "/dir//sub"], 2, "a name must not be empty"),
        (&["stat", &long_name], 2, "at most 255 bytes"),
        (&["stat", "-L", "/loop-a"], 2, "too many levels of symbolic links"),
        (&["stat", "/nothing"], 3, "/nothing"),
        (&["cat", "/nothing"], 3, "/nothing"),
        (&["cat", "/dir"], 4, "directory"),
        (&["stat", "/file/below"], 4, "not a directory"),
        (&["put", &local, "/file/below"], 4, "not a directory"),
        (&["put", &local, "/missing/file"], 3, "/missing"),
        (&["put", "/no/such/local", "/x"], 3, "/no/such/local"),
        (&["put", &local, "/new/"], 4, "mkdir -p"),
        (&["put", &local, &local, "/file"], 4, "not a directory"),
        (&["put", "--chunk-size", "0", &local, "/x"], 2, "chunk_size"),
        (&["put", "--chunk-size", "1TiB", &local, "/x"], 2, "chunk_size"),
        (&["put", "--chunk-size", "65537", &local, "/x"], 2, "chunk_size"),
        (&["put", "--chunk-size", "many", &local, "/x"], 2, "is not a size"),
        (&["put", "--replication-factor", "0", &local, "/x"], 2, "replication"),
        (&["put", "-n", &local, "/file"], 4, "/file"),
        (&["mkdir", "/dir"], 4, "/dir"),
        (&["mkdir", "/file"], 4, "/file"),
        (&["rm", "/dir"], 4, "-r"),
        (&["rm", "-d", "/dir"], 4, "not empty"),
        (&["rm", "-r", "/"], 2, "root"),
        (&["mv", "/dir", "/dir/sub/deeper"], 4, "inside it"),
        (&["mv", "/file", "/dir/sub/"], 0, ""),
        (&["mv", "/dir/sub/file", "/file"], 0, ""),
        (&["mv", "/nothing", "/x"], 3, "/nothing"),
        (&["ln", "/file", "/hard"], 1, "no hard links"),
        (&["get", "/dir", "/tmp"], 4, "-r"),
        (&["undelete", "/never"], 3, "/never"),
        (&["node", "admit"], 2, "required"),
        (&["node", "admit", "127.0.0.1:9"], 3, "no datanode 127.0.0.1:9"),
        (&["node", "forget", &nobody], 3, "is not known"),
        (&["node", "maintenance", "--for", "25h", "a"], 2, "at most 24 h"),
        (&["node", "maintenance", "--end", "--require-safe", "a"], 2, "cannot be used with"),
        (&["frobnicate"], 2, "frobnicate"),
        (&["put"], 2, "required"),
    ];
    for (args, code, text) in table {
        let output = cluster.dfs(*args);
        assert_eq!(exit_code(&output), *code, "dfs {args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(text), "dfs {args:?} said: {}", stderr(&output));
    }
}

#[test]
fn every_kind_of_mistake_has_its_error_code() {
    let cluster = cluster();
    let local = cluster.folder().join("file").display().to_string();
    noise_file(local.as_ref(), 10, 1);
    cluster.dfs_ok(["mkdir", "-p", "/dir/sub", "/dir/file"]);
    cluster.dfs_ok(["put", &local, "/plain"]);
    let long = format!("/{}", "n".repeat(256));
    let table: &[(&[&str], i32, &str)] = &[
        (&["stat", "no/slash"], 2, "INVALID_ARGUMENT"),
        (&["stat", "/a/../b"], 2, "INVALID_ARGUMENT"),
        (&["stat", &long], 2, "NAME_TOO_LONG"),
        (&["stat", "/nothing"], 3, "NOT_FOUND"),
        (&["put", &local, "/plain/below"], 4, "NOT_A_DIRECTORY"),
        (&["put", "-n", &local, "/plain"], 4, "ALREADY_EXISTS"),
        // A directory is in the place of the file.
        (&["put", &local, "/dir"], 4, "IS_A_DIRECTORY"),
        (&["rm", "-d", "/dir"], 4, "NOT_EMPTY"),
        (&["mv", "/dir", "/dir/sub/deeper"], 4, "WOULD_CYCLE"),
        (&["put", "--chunk-size", "0", &local, "/x"], 2, "INVALID_ARGUMENT"),
        (&["put", "--chunk-size", "1TiB", &local, "/x"], 2, "INVALID_ARGUMENT"),
        (&["ln", "/plain", "/hard"], 1, "UNIMPLEMENTED"),
    ];
    for (args, exit, code) in table {
        let output = cluster.dfs(args.iter().copied().chain(["--json"]));
        let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(
            (exit_code(&output), &error["error"]["code"]),
            (*exit, &(*code).into()),
            "{args:?}"
        );
    }
}

#[test]
fn unreachable_coordinator_is_reported() {
    let dfs = |coordinator: &str| {
        std::process::Command::new(crate::support::binary())
            .args(["stat", "/x", "--timeout", "1s", "--coordinator", coordinator])
            .output()
            .unwrap()
    };
    let output = dfs("http://127.0.0.1:9");
    assert_eq!(exit_code(&output), 5, "{}", stderr(&output));
    assert!(stderr(&output).contains("127.0.0.1:9"), "{}", stderr(&output));
    let output = dfs("ftp://x");
    assert_eq!(exit_code(&output), 2, "{}", stderr(&output));
}

#[test]
fn port_of_another_service_is_reported() {
    let cluster = cluster();
    let url = format!("http://{}", cluster.coordinator.http_address());
    let output = cluster.dfs(["stat", "/", "--timeout", "2s", "--coordinator", &url]);
    assert_eq!(exit_code(&output), 5, "{}", stderr(&output));
    assert!(stderr(&output).contains(cluster.coordinator.http_address()), "{}", stderr(&output));
}

#[test]
fn too_few_datanodes_are_reported_with_their_number() {
    let mut cluster = cluster();
    for node in &mut cluster.datanodes[1..] {
        node.kill();
    }
    let local = cluster.folder().join("file").display().to_string();
    noise_file(local.as_ref(), 10, 1);
    let output = cluster.dfs(["put", &local, "/file", "--timeout", "5s"]);
    assert_eq!(exit_code(&output), 5, "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("can take a chunk: 1 of the 2 needed (3 known"), "{said}");
    assert!(said.contains("`dfs status`"), "{said}");
    let output = cluster.dfs(["stat", "/file"]);
    assert_eq!(exit_code(&output), 3, "a refused file does not exist");
}

#[test]
fn cluster_without_datanodes_is_reported() {
    let cluster = Cluster::start(binary(), Settings { datanodes: 0, ..Settings::default() });
    let local = cluster.folder().join("file").display().to_string();
    noise_file(local.as_ref(), 10, 1);
    let output = cluster.dfs(["put", &local, "/file", "--timeout", "2s"]);
    assert_eq!(exit_code(&output), 5, "{}", stderr(&output));
    assert!(stderr(&output).contains("start datanodes"), "{}", stderr(&output));
}

#[test]
fn disk_folder_may_be_a_bare_name() {
    let cluster = cluster();
    let mut node = cluster
        .command(["datanode", "--data-dir", "disk", "--join-secret-file", "join-secret"])
        .args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
        .current_dir(cluster.folder())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(node.stdout.take().unwrap()).read_line(&mut line).unwrap();
    node.kill().unwrap();
    node.wait().unwrap();
    assert!(line.starts_with("ready datanode"), "printed {line:?}");
}
