//! `put` and `get` with sources and destinations of every kind: content, summaries, and leftovers
//! after an interrupt.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use dfs_testkit::process::{Cluster, wait_until};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{cluster, exit_code, noise, noise_file, stderr};

/// Longer than any step takes, even on a busy machine.
const WITHIN: Duration = Duration::from_mins(1);

fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

/// Parses the summary of a command with `--json`.
fn summary(stdout: &[u8]) -> serde_json::Value {
    serde_json::from_slice(stdout).expect("one document")
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Returns the exit code and stderr of a command that was signalled.
fn ended(child: Child) -> (i32, String) {
    let output = child.wait_with_output().unwrap();
    (exit_code(&output), stderr(&output))
}

/// Returns the number of replicas on all disks, as reported by the datanodes.
fn replicas(cluster: &Cluster) -> u64 {
    let status = cluster.status().unwrap_or_default();
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    let disks = nodes.iter().flat_map(|node| node["disks"].as_array().cloned().unwrap_or_default());
    disks.map(|disk| disk["chunks"].as_u64().unwrap_or_default()).sum()
}

/// F10.
#[test]
fn f10_named_source_of_any_kind_is_copied() {
    let cluster = cluster();
    let from = cluster.folder().join("pipe");
    pipe(&from);
    let content = noise(3_000_000, 1);
    let writer = std::thread::spawn({
        let (from, content) = (from.clone(), content.clone());
        move || fs::write(from, content).unwrap()
    });
    let put = cluster.dfs(["put".as_ref(), "--json".as_ref(), from.as_os_str(), "/pipe".as_ref()]);
    assert_eq!(exit_code(&put), 0, "{}", stderr(&put));
    let done = summary(&put.stdout);
    assert_eq!((done["files"].as_u64(), done["bytes"].as_u64()), (Some(1), Some(3_000_000)));
    // Only now: a writer whose pipe nobody reads waits forever.
    writer.join().unwrap();
    assert!(cluster.dfs(["cat", "/pipe"]).stdout == content);
    cluster.dfs_ok(["put", "/proc/version", "/version"]);
    assert_eq!(cluster.dfs(["cat", "/version"]).stdout, fs::read("/proc/version").unwrap());
    let mut put = cluster.command(["put", "/dev/stdin", "/stdin"]);
    let mut put = put.stdin(Stdio::piped()).spawn().unwrap();
    put.stdin.take().unwrap().write_all(b"by hand").unwrap();
    assert!(put.wait().unwrap().success());
    assert_eq!(cluster.dfs(["cat", "/stdin"]).stdout, b"by hand");
    let socket = cluster.folder().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let refused = cluster.dfs(["put".as_ref(), socket.as_os_str(), "/socket".as_ref()]);
    assert_ne!(exit_code(&refused), 0);
}

/// F10.
#[test]
fn f10_named_special_destination_is_written_to() {
    let cluster = cluster();
    let folder = cluster.folder();
    let local = folder.join("file");
    noise_file(&local, 300_000, 1);
    cluster.dfs_ok(["put".as_ref(), local.as_os_str(), "/file".as_ref()]);
    let to = folder.join("pipe");
    pipe(&to);
    let reader = std::thread::spawn({
        let to = to.clone();
        move || {
            let mut content = Vec::new();
            fs::File::open(to).unwrap().read_to_end(&mut content).unwrap();
            content
        }
    });
    cluster.dfs_ok(["get".as_ref(), "/file".as_ref(), to.as_os_str()]);
    assert!(!fs::symlink_metadata(&to).unwrap().is_file(), "the pipe was replaced");
    assert!(reader.join().unwrap() == fs::read(&local).unwrap());
    cluster.dfs_ok(["get", "/file", "/dev/null"]);
    assert!(!fs::symlink_metadata("/dev/null").unwrap().is_file(), "the device was replaced");
    let (target, link) = (folder.join("target"), folder.join("link"));
    fs::write(&target, b"old").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    cluster.dfs_ok(["get".as_ref(), "/file".as_ref(), link.as_os_str()]);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "the symlink was replaced");
    assert!(fs::read(&target).unwrap() == fs::read(&local).unwrap());
}

#[test]
fn summary_counts_completed_entries() {
    let cluster = cluster();
    let tree = cluster.folder().join("t");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("a"), b"a").unwrap();
    fs::write(tree.join("b"), b"b").unwrap();
    cluster.dfs_ok(["mkdir", "-p", "/x/t/b"]);
    let put = ["put".as_ref(), "-r".as_ref(), "--json".as_ref(), tree.as_os_str(), "/x/".as_ref()];
    let put = cluster.dfs(put);
    assert_eq!(exit_code(&put), 4);
    let done = summary(&put.stdout);
    assert_eq!((done["files"].as_u64(), done["failed"].as_u64()), (Some(1), Some(1)), "{done}");
    // A directory is in the place of a file.
    let back = cluster.folder().join("back");
    fs::create_dir_all(back.join("t/a")).unwrap();
    let get = ["get".as_ref(), "-r".as_ref(), "--json".as_ref(), "/x/t".as_ref()];
    let get = cluster.dfs(get.into_iter().chain([back.as_os_str()]));
    assert_eq!(exit_code(&get), 4, "{}", stderr(&get));
    let done = summary(&get.stdout);
    let counts = ["files", "directories", "bytes", "failed"].map(|name| done[name].as_u64());
    assert_eq!(counts, [0, 2, 0, 1].map(Some), "{done}");
}

#[test]
fn interrupted_get_leaves_no_temporary_file_and_the_next_reuses_those_of_killed_ones() {
    let cluster = cluster();
    let folder = cluster.folder();
    let (local, back) = (folder.join("file"), folder.join("back"));
    noise_file(&local, 3_000_000, 1);
    fs::create_dir(&back).unwrap();
    cluster.dfs_ok(["put".as_ref(), local.as_os_str(), "/file".as_ref()]);
    let names = || fs::read_dir(&back).unwrap().count();
    let start = || {
        let mut get = cluster.command(["get".as_ref(), "/file".as_ref(), back.as_os_str()]);
        let get = get.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        assert!(wait_until(WITHIN, || names() > 0), "no temporary file appears");
        get
    };
    let of_datanodes = |what| cluster.datanodes.iter().for_each(|node| node.signal(what));
    of_datanodes(Signal::STOP);
    for (sent, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let get = start();
        signal(&get, sent);
        let (ended_with, said) = ended(get);
        assert_eq!(ended_with, code, "{said}");
        assert_eq!(names(), 0, "left by {code}");
    }
    let mut killed = start();
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(names(), 1);
    of_datanodes(Signal::CONT);
    cluster.dfs_ok(["get".as_ref(), "/file".as_ref(), back.as_os_str()]);
    assert_eq!(names(), 1);
    assert!(fs::read(back.join("file")).unwrap() == fs::read(&local).unwrap());
}

#[test]
fn interrupted_put_aborts_its_upload() {
    let cluster = cluster();
    let mut put = cluster.command(["put", "--chunk-size", "1MiB", "-", "/file"]);
    let mut put = put.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = put.stdin.take().unwrap();
    stdin.write_all(&noise(4_500_000, 1)).unwrap();
    assert!(wait_until(WITHIN, || replicas(&cluster) == 12), "{} replicas", replicas(&cluster));
    signal(&put, Signal::TERM);
    let (code, said) = ended(put);
    assert_eq!(code, 143, "{said}");
    drop(stdin);
    assert_eq!(cluster.dfs_ok(["ls", "/"]), "");
    assert!(wait_until(WITHIN, || replicas(&cluster) == 0), "{} replicas", replicas(&cluster));
}
