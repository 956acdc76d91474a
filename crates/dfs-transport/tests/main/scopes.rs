//! Places that create a scope. A scope decides how far a call reaches, so each place is listed here
//! and reviewed when the list changes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Files, or directories with everything in them, in which the cluster acts for no caller.
const INTERNAL: &[&str] = &[
    // A coordinator's knowledge of its nodes, and its own start.
    "dfs-coordinator/src/core.rs",
    "dfs-coordinator/src/rechecks.rs",
    "dfs-coordinator/src/service.rs",
    "dfs-coordinator/src/workers",
    // Calls of a coordinator to the holder of the worker lease.
    "dfs-coordinator/src/grpc/holder.rs",
    // Methods of the namespace that use others.
    "dfs-metadata/src/namespace/cluster.rs",
    "dfs-metadata/src/namespace/deletion_hold.rs",
    "dfs-metadata/src/namespace/gc_floor.rs",
    // Tests run by other crates.
    "dfs-metadata/src/conformance",
    // The simulation, which is never shipped.
    "dfs-testkit/src/sim",
];

/// Files that create the scopes of callers.
const OF_CALLER: &[&str] = &["dfs-transport/src/gate/caller.rs"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // Tests, examples and benches are not shipped.
            let name = path.file_name().unwrap();
            if !["tests", "examples", "benches", "target"].iter().any(|skipped| name == *skipped) {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// Returns the shipped files that contain `text`, by path below `crates/`.
fn users(text: &str) -> BTreeSet<String> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    sources(crates, &mut files);
    let uses = |path: &PathBuf| fs::read_to_string(path).unwrap().contains(text);
    let name = |path: PathBuf| path.strip_prefix(crates).unwrap().to_string_lossy().into_owned();
    let mut users: BTreeSet<String> = files.into_iter().filter(uses).map(name).collect();
    users.remove("dfs-types/src/scope.rs");
    users
}

fn check(text: &str, listed: &[&str]) {
    let users = users(text);
    let is_listed = |user: &&String| !listed.iter().any(|place| Path::new(user).starts_with(place));
    let unlisted: Vec<_> = users.iter().filter(is_listed).collect();
    assert!(unlisted.is_empty(), "{text} in a file that is not listed: {unlisted:?}");
    for place in listed {
        let is_used = users.iter().any(|user| Path::new(user).starts_with(place));
        assert!(is_used, "{place} is listed, but has no {text}");
    }
}

#[test]
fn internal_scopes_are_created_only_in_listed_places() {
    check("Scope::internal", INTERNAL);
}

#[test]
fn caller_scopes_are_created_only_by_the_gate() {
    check("Scope::of_caller", OF_CALLER);
}
