//! Files of sizes around every boundary.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use crate::support::{cluster, noise, noise_file};

const MIB: usize = 1 << 20;

#[test]
fn files_of_boundary_sizes_round_trip() {
    let cluster = cluster();
    let local = cluster.folder().join("file");
    let back = cluster.folder().join("back");
    for (seed, size) in
        [0, 1, 65_535, 65_536, 65_537, 64 * MIB - 1, 64 * MIB, 64 * MIB + 1, 200 * MIB + 3]
            .into_iter()
            .enumerate()
    {
        noise_file(&local, size, seed as u64);
        cluster.dfs_ok(["put".as_ref(), local.as_os_str(), "/file".as_ref()]);
        cluster.dfs_ok(["get".as_ref(), "/file".as_ref(), back.as_os_str()]);
        assert!(fs::read(&local).unwrap() == fs::read(&back).unwrap(), "{size} bytes differ");
        let stat: serde_json::Value =
            serde_json::from_str(&cluster.dfs_ok(["stat", "--json", "/file"])).unwrap();
        assert_eq!(stat["size"], size);
    }
}

#[test]
fn stdin_of_unknown_length_is_stored_completely() {
    let cluster = cluster();
    for (seed, size) in [0, 1, 65_537, 20 * MIB + 3].into_iter().enumerate() {
        let bytes = noise(size, seed as u64);
        let mut put = cluster.command(["put", "-", "/stdin"]);
        let mut put = put.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = put.stdin.take().unwrap();
        // In pieces that match no block, as from a pipe.
        bytes.chunks(7_777).for_each(|piece| stdin.write_all(piece).unwrap());
        drop(stdin);
        assert!(put.wait().unwrap().success());
        let back = cluster.dfs(["cat", "/stdin"]);
        assert!(back.status.success() && back.stdout == bytes, "{size} bytes differ");
    }
}

#[test]
fn ranges_start_and_end_as_requested() {
    let cluster = cluster();
    let local = cluster.folder().join("file");
    let bytes = noise(3 * MIB + 5, 1);
    fs::write(&local, &bytes).unwrap();
    let put = ["put", "--chunk-size", "1MiB"].map(AsRef::as_ref);
    cluster.dfs_ok(put.into_iter().chain([local.as_os_str(), "/file".as_ref()]));
    for (offset, length) in [
        (0, 1),
        (65_535, 2),
        (MIB - 1, 2),
        (MIB, MIB),
        (1, 3 * MIB + 4),
        (3 * MIB, 100),
        (3 * MIB + 5, 1),
    ] {
        let (from, count) = (offset.to_string(), length.to_string());
        let range = cluster.dfs(["cat", "--offset", &from, "--length", &count, "/file"]);
        let end = (offset + length).min(bytes.len());
        assert!(range.status.success());
        assert!(range.stdout == bytes[offset..end], "{length} bytes at {offset} differ");
    }
}
