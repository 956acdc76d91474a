//! Code shared by these tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use dfs_testkit::process::{Cluster, Metadata, Settings};
use dfs_types::{Random as _, SeededRandom};

/// Returns the binary under test: the one built with the tests, unless `DFS_TEST_PROGRAM` names
/// another.
pub(crate) fn binary() -> PathBuf {
    env::var_os("DFS_TEST_PROGRAM")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_dfs")), PathBuf::from)
}

/// Starts a coordinator and three datanodes.
pub(crate) fn cluster() -> Cluster {
    Cluster::start(binary(), Settings::default())
}

/// Starts the same with its metadata in `metadata` in its directory, for tests that access it.
pub(crate) fn cluster_on_redb() -> Cluster {
    Cluster::start(binary(), Settings { metadata: Metadata::Own, ..Settings::default() })
}

/// Returns noise that differs between seeds.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    SeededRandom::new(seed).fill(&mut bytes);
    bytes
}

/// Writes a file of noise.
pub(crate) fn noise_file(path: &Path, length: usize, seed: u64) {
    fs::write(path, noise(length, seed)).expect("a file can be written");
}

/// Asserts that two trees are equal: content, symlinks, kinds, modes, mtimes and targets.
pub(crate) fn assert_same_tree(left: &Path, right: &Path) {
    let diff = Command::new("diff").args(["-r", "--no-dereference"]).args([left, right]).output();
    let diff = diff.expect("diff runs");
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    let (left, right) = (metadata_of(left), metadata_of(right));
    for (left, right) in left.split(|b| *b == 0).zip(right.split(|b| *b == 0)) {
        assert_eq!(String::from_utf8_lossy(left), String::from_utf8_lossy(right));
    }
    assert_eq!(left.len(), right.len());
}

fn metadata_of(tree: &Path) -> Vec<u8> {
    let found = Command::new("find")
        .arg(tree)
        .args(["-mindepth", "1", "-printf", "%P %y %m %T@ %l\\0"])
        .output()
        .expect("find runs");
    let mut entries: Vec<_> = found.stdout.split(|b| *b == 0).collect();
    entries.sort_unstable();
    entries.join(&0)
}

/// Returns the exit code of a command that was not killed.
pub(crate) fn exit_code(output: &std::process::Output) -> i32 {
    output.status.code().expect("it was not killed")
}

/// Returns stderr as text.
pub(crate) fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
