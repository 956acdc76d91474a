//! Trees, and every kind of name in them.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{assert_same_tree, cluster, exit_code, noise_file, stderr};

/// Creates a tree with every kind of entry.
fn odd_tree(top: &Path) {
    fs::create_dir_all(top.join("sub/empty")).unwrap();
    let long = "n".repeat(255);
    for name in [
        "with space",
        "new\nline",
        "ünï",
        "-dash",
        ".hidden",
        "*",
        "\u{1f980}",
        "back\\slash",
        &long,
    ] {
        noise_file(&top.join(name), name.len() * 1_000, 1);
    }
    noise_file(&top.join(OsStr::from_bytes(b"not \xff\xfe utf-8")), 10, 2);
    noise_file(&top.join("sub/executable"), 100_000, 3);
    fs::set_permissions(top.join("sub/executable"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(top.join("sub/empty"), fs::Permissions::from_mode(0o1750)).unwrap();
    symlink("sub/executable", top.join("relative")).unwrap();
    symlink("/nowhere/at/all", top.join("dangling")).unwrap();
    symlink(OsStr::from_bytes(b"\xff"), top.join("odd link")).unwrap();
}

#[test]
fn tree_with_odd_names_survives_a_round_trip() {
    let cluster = cluster();
    let (tree, back) = (cluster.folder().join("tree"), cluster.folder().join("back"));
    odd_tree(&tree);
    cluster.dfs_ok(["put".as_ref(), "-r".as_ref(), tree.as_os_str(), "/tree".as_ref()]);
    cluster.dfs_ok(["get".as_ref(), "-r".as_ref(), "/tree".as_ref(), back.as_os_str()]);
    assert_same_tree(&tree, &back);
    // Again, onto existing files, like `cp -r dir/. there`.
    let dot = tree.join(".");
    cluster.dfs_ok(["put".as_ref(), "-r".as_ref(), dot.as_os_str(), "/tree".as_ref()]);
    let again = cluster.folder().join("again");
    cluster.dfs_ok(["get".as_ref(), "-r".as_ref(), "/tree".as_ref(), again.as_os_str()]);
    assert_same_tree(&tree, &again);
    // No temporary file is left.
    assert!(
        fs::read_dir(&back)
            .unwrap()
            .all(|e| { !e.unwrap().file_name().as_bytes().starts_with(b".dfs-") })
    );
}

#[test]
fn losses_are_reported() {
    let cluster = cluster();
    let tree = cluster.folder().join("tree");
    fs::create_dir(&tree).unwrap();
    noise_file(&tree.join("one"), 10, 1);
    fs::hard_link(tree.join("one"), tree.join("two")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    // More than an inode of dfs can hold.
    let flags = rustix::fs::XattrFlags::empty();
    for number in 0..65 {
        let set = rustix::fs::setxattr(tree.join("one"), format!("user.{number}"), b"", flags);
        set.unwrap();
    }
    let put = cluster.dfs(["put".as_ref(), "-r".as_ref(), tree.as_os_str(), "/tree".as_ref()]);
    assert!(put.status.success());
    let said = stderr(&put);
    assert!(said.contains("2 entries lost some of their extended attributes"), "{said}");
    assert!(said.contains("2 hard-linked names became separate files"), "{said}");
    assert!(said.contains("1 device, socket or pipe was skipped"), "{said}");
    let one = cluster.dfs(["cat", "/tree/one"]).stdout;
    assert_eq!(one, cluster.dfs(["cat", "/tree/two"]).stdout);
}

#[test]
fn get_does_not_leave_the_tree_through_a_symlink() {
    let cluster = cluster();
    let (outside, back) = (cluster.folder().join("outside"), cluster.folder().join("back"));
    fs::create_dir(&outside).unwrap();
    let local = cluster.folder().join("file");
    noise_file(&local, 10, 1);
    cluster.dfs_ok(["mkdir", "/tree"]);
    cluster.dfs_ok(["ln".as_ref(), "-s".as_ref(), outside.as_os_str(), "/tree/a".as_ref()]);
    cluster.dfs_ok(["get".as_ref(), "-r".as_ref(), "/tree".as_ref(), back.as_os_str()]);
    // The symlink is replaced by a directory.
    cluster.dfs_ok(["rm", "/tree/a"]);
    cluster.dfs_ok(["mkdir", "/tree/a"]);
    cluster.dfs_ok(["put".as_ref(), local.as_os_str(), "/tree/a/file".as_ref()]);
    let from = OsStr::new("/tree/.");
    let again = cluster.dfs(["get".as_ref(), "-r".as_ref(), from, back.as_os_str()]);
    let into = cluster.dfs(["get".as_ref(), "-r".as_ref(), "/tree/a".as_ref(), back.as_os_str()]);
    assert!(!again.status.success() || !into.status.success());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "a file was written outside");
    // A path named by the user may be a symlink.
    let named = cluster.folder().join("named");
    symlink(&outside, &named).unwrap();
    let mut named = named.into_os_string();
    named.push("/");
    cluster.dfs_ok(["get".as_ref(), "/tree/a/file".as_ref(), named.as_os_str()]);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn directory_of_several_pages_survives_a_round_trip() {
    // A page of a listing has at most 1,000 entries.
    const FILES: u64 = 2_100;
    let cluster = cluster();
    let (tree, back) = (cluster.folder().join("tree"), cluster.folder().join("back"));
    fs::create_dir(&tree).unwrap();
    for n in 0..FILES {
        noise_file(&tree.join(format!("{n:05}")), 4_096, n);
    }
    cluster.dfs_ok(["put".as_ref(), "-r".as_ref(), tree.as_os_str(), "/tree".as_ref()]);
    let listed = cluster.dfs_ok(["ls", "/tree"]);
    let names: Vec<_> = (0..FILES).map(|n| format!("{n:05}")).collect();
    assert!(listed.lines().eq(names.iter().map(String::as_str)), "the listing is not complete");
    cluster.dfs_ok(["get".as_ref(), "-r".as_ref(), "/tree".as_ref(), back.as_os_str()]);
    assert_same_tree(&tree, &back);
}

#[test]
fn paths_are_limited_to_4096_bytes() {
    let cluster = cluster();
    let directory = format!("/{}", "d".repeat(254)).repeat(16);
    assert_eq!(directory.len(), 4_080);
    let longest = format!("{directory}/{}", "f".repeat(15));
    assert_eq!(longest.len(), 4_096);
    let local = cluster.folder().join("file");
    noise_file(&local, 10, 1);
    cluster.dfs_ok(["mkdir", "-p", &directory]);
    cluster.dfs_ok(["put".as_ref(), local.as_os_str(), longest.as_ref()]);
    assert_eq!(cluster.dfs(["cat", &longest]).stdout, fs::read(&local).unwrap());
    let refused =
        cluster.dfs(["put".as_ref(), local.as_os_str(), OsStr::new(&format!("{longest}f"))]);
    assert_eq!(exit_code(&refused), 2);
    assert!(stderr(&refused).contains("at most 4096 bytes, not 4097"), "{}", stderr(&refused));
}

/// Counts the entries of a tree, up to about `limit`.
fn entries(top: &Path, limit: usize) -> usize {
    let mut count = 0;
    let mut pending = vec![top.to_owned()];
    while let Some(directory) = pending.pop().filter(|_| count <= limit) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            count += 1;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(entry.path());
            }
        }
    }
    count
}

/// Runs a system program and returns its duration.
fn timed(program: &str, arguments: &[&OsStr]) -> Duration {
    let start = Instant::now();
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    start.elapsed()
}

#[test]
fn real_tree_of_a_thousand_entries_survives_a_round_trip() {
    const WANTED: usize = 1_000;
    const LIMIT: usize = 200_000;
    let tops = ["/usr/local/go", "/usr/share", "/usr/lib", "/usr"].map(PathBuf::from);
    let inside = tops.iter().flat_map(fs::read_dir).flatten().flatten();
    let inside = inside.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let (size, tree) = inside
        .map(|entry| entry.path())
        .chain(tops.iter().cloned())
        .map(|top| (entries(&top, LIMIT), top))
        .filter(|(size, _)| (WANTED..LIMIT).contains(size))
        .min()
        .expect("a directory below /usr has a thousand entries");
    let tree = &*tree;
    let cluster = cluster();
    let folder = cluster.folder();
    let back = folder.join("back");
    let tar = folder.join("tree.tar");
    let of_tar = timed("tar", &["cf".as_ref(), tar.as_ref(), tree.as_ref()]);
    let copied = folder.join("copied");
    let of_cp = timed("cp", &["-a".as_ref(), tree.as_ref(), copied.as_ref()]);
    let start = Instant::now();
    cluster.dfs_ok(["put".as_ref(), "-r".as_ref(), tree.as_os_str(), "/tree".as_ref()]);
    let of_put = start.elapsed();
    let start = Instant::now();
    cluster.dfs_ok(["get".as_ref(), "-r".as_ref(), "/tree".as_ref(), back.as_os_str()]);
    let of_get = start.elapsed();
    // To the terminal even if the test succeeds.
    let written = writeln!(
        std::io::stderr(),
        "{} with {size} entries: tar {of_tar:.1?}, cp -a {of_cp:.1?}, put -r {of_put:.1?}, \
         get -r {of_get:.1?}",
        tree.display(),
    );
    written.unwrap();
    assert_same_tree(tree, &back);
}
