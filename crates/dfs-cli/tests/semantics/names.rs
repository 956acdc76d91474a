//! S18 to S21.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use dfs_client::{DeleteOptions, Follow, MakeDirectoryOptions, PutOptions, PutSource};
use dfs_testkit::process::wait_until;
use dfs_types::{DfsPath, ErrorCode, Name};

use super::{attributes, client, forgetful, path, put, read};
use crate::support::{assert_same_tree, cluster, noise, noise_file};

#[tokio::test(flavor = "multi_thread")]
async fn s18_names_are_bytes() {
    let cluster = cluster();
    let client = client(&cluster);
    let mut names: Vec<Vec<u8>> =
        (1..=255_u8).filter(|byte| !b"/.".contains(byte)).map(|byte| vec![byte]).collect();
    names.extend([
        b"...".to_vec(),
        b" ".repeat(255),
        vec![0xff; 255],
        "é".into(),
        "e\u{301}".into(),
    ]);
    for name in &names {
        let at = DfsPath::root().join(&Name::new(name.clone()).unwrap()).unwrap();
        let source = PutSource::bytes(name.clone());
        client.put(&at, source, PutOptions::default()).await.unwrap();
    }
    let mut listing = client.list(DfsPath::root());
    let mut listed = Vec::new();
    while let Some(entry) = listing.next().await.unwrap() {
        let at = DfsPath::root().join(&entry.name).unwrap();
        assert_eq!(client.read_range(&at, 0, 1_000).await.unwrap(), entry.name.to_bytes());
        listed.push(entry.name.as_bytes().to_vec());
    }
    names.sort();
    assert_eq!(listed, names);
}

#[test]
fn s19_attributes_survive_a_round_trip() {
    let cluster = cluster();
    let (tree, back) = (cluster.folder().join("tree"), cluster.folder().join("back"));
    std::fs::create_dir(&tree).unwrap();
    for (number, mode) in [0o600, 0o755, 0o4711, 0o444, 0o1777].into_iter().enumerate() {
        let file = tree.join(number.to_string());
        noise_file(&file, number * 1_000, number as u64);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let time =
            std::time::UNIX_EPOCH + Duration::new(1_000_000_000 + number as u64, 123_456_789);
        std::fs::File::open(&file).unwrap().set_modified(time).unwrap();
    }
    std::os::unix::fs::symlink("0", tree.join("link")).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(tree.join("1"), Some(12), Some(34)).unwrap();
    }
    cluster.dfs_ok(["put".as_ref(), "-r".as_ref(), tree.as_os_str(), "/tree".as_ref()]);
    cluster.dfs_ok(["get".as_ref(), "-r".as_ref(), "/tree".as_ref(), back.as_os_str()]);
    assert_same_tree(&tree, &back);
    if rustix::process::geteuid().is_root() {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(back.join("1")).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (12, 34));
    }
}

#[test]
fn s19_user_xattrs_survive_put_and_get() {
    let cluster = cluster();
    let (tree, back) = (cluster.folder().join("tree"), cluster.folder().join("back"));
    std::fs::create_dir_all(tree.join("empty")).unwrap();
    for name in ["large", "read-only", "none"] {
        noise_file(&tree.join(name), 1_000, 1);
    }
    noise_file(&tree.join("nothing"), 0, 1);
    let given = [
        ("", "user.of-the-tree", b"\0\xff".to_vec()),
        ("empty", "user.a", b"of a directory".to_vec()),
        ("large", "user.small", b"".to_vec()),
        // Larger than fits into an inode record.
        ("large", "user.large", vec![7; 2_000]),
        ("nothing", "user.a", b"of an empty file".to_vec()),
        ("read-only", "user.a", b"b".to_vec()),
    ];
    for (file, name, value) in &given {
        let flags = rustix::fs::XattrFlags::empty();
        if let Err(error) = rustix::fs::setxattr(tree.join(file), *name, value, flags) {
            assert!(std::env::var_os("CI").is_none(), "no extended attributes here: {error}");
            eprintln!("skipped: the test directory does not support extended attributes: {error}");
            return;
        }
    }
    let read_only = std::fs::Permissions::from_mode(0o444);
    std::fs::set_permissions(tree.join("read-only"), read_only).unwrap();
    cluster.dfs_ok(["put".as_ref(), "-r".as_ref(), tree.as_os_str(), "/tree".as_ref()]);
    assert_eq!(cluster.dfs(["xattr", "get", "/tree/read-only", "user.a"]).stdout, b"b");
    let get = ["get".as_ref(), "-r".as_ref(), "/tree".as_ref(), back.as_os_str()];
    cluster.dfs_ok(get);
    // Again, over existing files.
    cluster.dfs_ok(["get".as_ref(), "/tree/large".as_ref(), back.join("none").as_os_str()]);
    let xattrs = |path: &std::path::Path| {
        let mut names = vec![0; 4_096];
        let length = rustix::fs::listxattr(path, &mut names).unwrap();
        let mut found = std::collections::BTreeMap::new();
        for name in names[..length].split(|b| *b == 0).filter(|name| name.starts_with(b"user.")) {
            let mut value = vec![0; 4_096];
            let length = rustix::fs::getxattr(path, name, &mut value).unwrap();
            found.insert(name.to_vec(), value[..length].to_vec());
        }
        found
    };
    for (file, of) in [
        ("", ""),
        ("empty", "empty"),
        ("large", "large"),
        ("nothing", "nothing"),
        ("read-only", "read-only"),
        ("none", "large"),
    ] {
        assert_eq!(xattrs(&back.join(file)), xattrs(&tree.join(of)), "{file}");
    }
    // A file that replaces another has only its own.
    cluster.dfs_ok(["put".as_ref(), tree.join("none").as_os_str(), "/tree/large".as_ref()]);
    assert_eq!(cluster.dfs(["xattr", "list", "/tree/large"]).stdout, b"");
}

#[test]
fn s20_killed_get_leaves_no_partial_file() {
    let cluster = cluster();
    let (local, target) = (cluster.folder().join("file"), cluster.folder().join("target"));
    noise_file(&local, 100 << 20, 1);
    cluster.dfs_ok(["put".as_ref(), local.as_os_str(), "/file".as_ref()]);
    std::fs::write(&target, "before").unwrap();
    for round in 0..6_u32 {
        let mut get = cluster.command(["get", "/file"]).arg(&target).spawn().unwrap();
        let after = Duration::from_millis(20 * u64::from(round * round));
        let started = std::time::Instant::now();
        wait_until(after, || started.elapsed() >= after);
        get.kill().unwrap();
        get.wait().unwrap();
        let found = std::fs::read(&target).unwrap();
        assert!(found == b"before" || found == std::fs::read(&local).unwrap(), "round {round}");
        std::fs::write(&target, "before").unwrap();
    }
    cluster.dfs_ok(["get".as_ref(), "/file".as_ref(), target.as_os_str()]);
    assert!(std::fs::read(&target).unwrap() == std::fs::read(&local).unwrap());
    for entry in std::fs::read_dir(cluster.folder()).unwrap() {
        let name = entry.unwrap().file_name();
        let name = name.as_bytes();
        assert!(name != b"target.part", "the name of a temporary file is not predictable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s21_deleted_files_are_restorable_until_their_space_is_freed() {
    let cluster = forgetful(Duration::from_mins(10));
    let client = client(&cluster);
    client
        .make_directory(&path("/d"), MakeDirectoryOptions::default().attributes(attributes()))
        .await
        .unwrap();
    put(&client, "/d/file", noise(100_000, 1)).await.unwrap();
    put(&client, "/d/file", noise(200_000, 2)).await.unwrap();
    let recursive = DeleteOptions::default().recursive(true);
    client.delete(&path("/d"), recursive).await.unwrap();
    let stat = client.stat(&path("/d/file"), Follow::Yes).await;
    assert_eq!(stat.unwrap_err().code(), ErrorCode::NotFound);
    client.undelete(&path("/d"), None).await.unwrap();
    assert!(read(&client, "/d/file").await.unwrap() == noise(200_000, 2));
    // A replaced file too, next to its replacement.
    client.undelete(&path("/d/file"), Some(path("/d/old").into())).await.unwrap();
    assert!(read(&client, "/d/old").await.unwrap() == noise(100_000, 1));
    let now = DeleteOptions::default().recursive(true).now(true);
    client.delete(&path("/d"), now).await.unwrap();
    let restored = client.undelete(&path("/d"), None).await;
    assert_eq!(restored.unwrap_err().code(), ErrorCode::NotFound);
    let chunks = || -> f64 {
        cluster.datanodes.iter().map(|node| node.metric("dfs_datanode_disk_chunks", "")).sum()
    };
    assert!(
        wait_until(Duration::from_secs(30), || chunks() == 0.0),
        "{} chunks are left",
        chunks()
    );
}
