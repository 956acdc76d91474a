//! Copies of trees, and the calls that they take.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dfs_client::{Error, ErrorCode, OnError, TreeObserver, TreeOptions};
use tokio::time::Instant;

use crate::fake::{Clients as _, Cluster};
use crate::{bytes, get, path, put};

struct GoOn;

impl TreeObserver for GoOn {
    fn failed(&self, _: &Error) -> OnError {
        OnError::Continue
    }
}

/// Creates a directory with `full` directories of one file each, and `empty` empty ones.
fn tree(top: &Path, full: usize, empty: usize) -> PathBuf {
    let tree = top.join("tree");
    for number in 0..full {
        let directory = tree.join(format!("full{number:02}"));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("file"), format!("{number}")).unwrap();
    }
    for number in 0..empty {
        fs::create_dir_all(tree.join(format!("empty{number:02}"))).unwrap();
    }
    tree
}

#[tokio::test(start_paused = true)]
async fn directories_of_a_tree_are_made_in_parallel_with_one_call_each() {
    let folder = tempfile::tempdir().unwrap();
    let tree = tree(folder.path(), 32, 16);
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    cluster.state().latency = Duration::from_millis(100);
    let before = Instant::now();
    let report = client.put_tree([(tree, path("/t"))], TreeOptions::default()).await.unwrap();
    assert_eq!((report.directories, report.files, report.failed), (49, 32, 0));
    // Sequentially, making the directories alone would take 4.9 s.
    let elapsed = before.elapsed();
    assert!(elapsed < Duration::from_millis(2_500), "{elapsed:?}");
    let state = cluster.state();
    assert_eq!(state.done("MakeDirectory"), 49);
    assert_eq!(state.done("SetAttributes"), 33, "empty ones were complete when created");
    assert_eq!(state.done("Stat"), 0);
}

#[tokio::test(start_paused = true)]
async fn files_of_a_tree_are_opened_by_inode() {
    let folder = tempfile::tempdir().unwrap();
    let tree = tree(folder.path(), 5, 1);
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    client.put_tree([(tree, path("/t"))], TreeOptions::default()).await.unwrap();
    let back = folder.path().join("back");
    let report =
        client.get_tree([(path("/t"), back.clone())], TreeOptions::default()).await.unwrap();
    assert_eq!((report.directories, report.files, report.failed), (7, 5, 0));
    assert_eq!(fs::read(back.join("full03/file")).unwrap(), b"3");
    let state = cluster.state();
    assert_eq!((state.done("OpenFile"), state.done("OpenFile by path")), (5, 0));
    assert_eq!(state.done("Stat"), 1, "of the top");
}

#[tokio::test(start_paused = true)]
async fn report_counts_what_was_copied_and_the_observer_decides_on_errors() {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for name in ["a", "b", "c"] {
        fs::write(tree.join(name), name).unwrap();
    }
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    client.make_directory(&path("/t"), dfs_client::MakeDirectoryOptions::default()).await.unwrap();
    put(&client, "/t/b", &bytes(5)).await;
    let options = TreeOptions::default().create_only(true);
    let sources = || [(tree.clone(), path("/t"))];
    let report =
        client.put_tree(sources(), options.clone().observer(Arc::new(GoOn))).await.unwrap();
    assert_eq!((report.files, report.bytes, report.failed), (2, 2, 1));
    assert_eq!(get(&client, "/t/b").await.unwrap(), bytes(5));
    let stopped = client.put_tree(sources(), options).await.unwrap_err();
    assert_eq!(stopped.code(), ErrorCode::AlreadyExists);
    let missing =
        [(path("/nothing"), folder.path().join("x")), (path("/t/a"), folder.path().join("y"))];
    let options = TreeOptions::default().observer(Arc::new(GoOn));
    let report = client.get_tree(missing, options).await.unwrap();
    assert_eq!((report.files, report.bytes, report.failed), (1, 1, 1));
    assert_eq!(fs::read(folder.path().join("y")).unwrap(), b"a");
}

#[tokio::test(start_paused = true)]
async fn named_source_is_read_to_its_end_regardless_of_its_size() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let content = bytes(3 << 20);
    let writer = std::thread::spawn({
        let (pipe, content) = (pipe.clone(), content.clone());
        move || fs::write(pipe, content).unwrap()
    });
    let put = |from: PathBuf, to| client.put_tree([(from, path(to))], TreeOptions::default());
    let report = put(pipe, "/pipe").await.unwrap();
    assert_eq!((report.files, report.bytes, report.skipped), (1, 3 << 20, 0));
    writer.join().unwrap();
    assert!(get(&client, "/pipe").await.unwrap() == content);
    put("/proc/version".into(), "/version").await.unwrap();
    let version = fs::read("/proc/version").unwrap();
    assert!(!version.is_empty() && get(&client, "/version").await.unwrap() == version);
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    put(socket, "/socket").await.unwrap_err();
    put(folder.path().join("missing"), "/missing").await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn special_files_within_a_tree_are_skipped_and_counted() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let folder = tempfile::tempdir().unwrap();
    let tree = tree(folder.path(), 1, 0);
    let _listener = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    let report = client.put_tree([(tree, path("/t"))], TreeOptions::default()).await.unwrap();
    assert_eq!((report.files, report.skipped, report.failed), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn dropped_get_leaves_no_temporary_file() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, "/f", &bytes(4 << 20)).await;
    cluster.world.nodes.iter().for_each(|node| node.fault(|faults| faults.hangs_reads = true));
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("f");
    let getting = client.get_tree([(path("/f"), local)], TreeOptions::default());
    assert!(tokio::time::timeout(Duration::from_millis(200), getting).await.is_err());
    client.settled().await;
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
