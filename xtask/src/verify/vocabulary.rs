//! Keeps retired words and phrases from returning to their old places.

use std::path::Path;

use anyhow::{Result, bail};

use super::tree;

/// A retired word, the directory it must not return to, and its replacement.
struct Retired {
    below: &'static str,
    word: &'static str,
    instead: &'static str,
}

const fn retired(below: &'static str, word: &'static str, instead: &'static str) -> Retired {
    Retired { below, word, instead }
}

/// Names of files, as the end of a path.
const FILES: &[Retired] = &[
    retired("", "standing.rs", "node_intent.rs"),
    retired("", "stopping.rs", "safe_to_stop.rs"),
    retired("", "ways.rs", "routes.rs"),
    retired("", "pass_through.rs", "relay/"),
    retired("", "passing.rs", "relay/"),
    retired("", "mend.rs", "repair/chunk.rs"),
    retired("", "ledger.rs", "repair/queue.rs"),
    retired("crates/dfs-metadata", "src/copy/mod.rs", "migrate/"),
    retired("crates/dfs-client", "src/copy.rs", "replica_read.rs"),
    retired("crates/dfs-streamer", "replica.rs", "downstream.rs"),
    retired("crates/dfs-operator", "same.rs", "drift.rs"),
    retired("crates/dfs-operator", "fence.rs", "network_policy.rs"),
    retired("crates/dfs-chunkstore", "disk/one.rs", "disk/volume.rs"),
    retired("crates/dfs-coordinator", "waiting.rs", "bootstrap.rs"),
];

/// Identifiers, as whole words.
const IDENTIFIERS: &[Retired] = &[
    retired("crates", "Standing", "NodeIntentVersion, Reachability, Membership, VersionSupport"),
    retired("crates", "STANDING", "NODE_INTENT"),
    retired("", "s/standing", "s/node-intent"),
    retired("crates", "Ways", "NodeRoutes"),
    retired("crates/dfs-client", "Way", "Route"),
    retired("crates/dfs-cli", "Way", "ClusterTarget"),
    retired("crates/dfs-metadata", "Way", "PathWalk"),
    retired("crates", "Detour", "RelayRoute"),
    retired("crates", "Passage", "RelayedCall"),
    retired("crates", "Drawn", "RequestBody"),
    retired("crates", "Pushed", "ResponseBody"),
    retired("", "pass_through", "relay"),
    retired("", "passed_on", "relayed"),
    retired("", "passThroughStreams", "relayStreams"),
    retired("crates", "Mender", "ChunkRepair"),
    retired("crates", "Mended", "RepairResult"),
    retired("crates/dfs-coordinator", "Ending", "RepairOutcome"),
    retired("crates/dfs-coordinator", "Ledger", "RepairQueue"),
    retired("crates/dfs-coordinator", "Tally", "ReplicationCounts"),
    retired("crates/dfs-metadata/src/namespace", "CopyId", "ReplicaId"),
    retired("crates", "DoomedCopy", "ReplicaRef"),
    retired("crates", "CopyToDelete", "ReplicaRef"),
    retired("", "copies_wanted", "replicas_wanted"),
    retired("", "bad_copies", "bad_replicas"),
    retired("", "min_copies", "min_replicas"),
    retired("crates/dfs-client", "Trouble", "ReadError"),
    retired("crates/dfs-datanode", "Trouble", "MembershipError"),
    retired("crates", "CopyError", "MigrateError"),
    retired("crates", "Wish", "PlacementRequest"),
    retired("crates", "Patience", "LivenessTimeouts, RetryBudget"),
    retired("crates", "Census", "NodeCounts"),
    retired("crates", "Speaker", "HeartbeatSource"),
    retired("crates/dfs-coordinator/src", "fn heard", "record_heartbeat"),
    retired("crates/dfs-coordinator/src", "fn meet", "ensure_known"),
    retired("crates/dfs-coordinator/src", "fn answering", "responsive"),
    retired("crates/dfs-operator", "Picture", "ClusterSnapshot"),
    retired("crates/dfs-operator", "Hearing", "WatchHealth"),
    retired("crates/dfs-operator", "deaf", "stalled"),
    retired("crates", "Traced", "ClientChannel, TraceService"),
    retired("crates/dfs-metadata", "bring_in", "register_chunk"),
    retired("crates/dfs-metadata", "take_apart", "reap_inode"),
    retired("crates", "is_told", "has_warned, is_reported"),
    retired("crates/dfs-operator", "fence", "NetworkPolicy"),
    retired("charts", "fence", "NetworkPolicy"),
];

/// Phrases, anywhere and however they are wrapped.
const PHRASES: &[Retired] = &[
    retired("", "faster mode to be forgotten on", "no unsafe fast mode to leave on by accident"),
    retired(
        "",
        "as long as it is down, the names are",
        "while it is down, the namespace is unavailable",
    ),
    retired("", "can be looked over", "can be checked"),
    retired("", "the data stands it that", "whether these nodes can stop"),
    retired("", "that no node was wished otherwise", "only if no desired state has changed since"),
    retired("", "what a node shall be", "desired state"),
    retired("", "frames go on as they come", "frames are forwarded as they arrive"),
    retired("", "leads to the detour", "the relay is used only when connecting fails"),
    retired(
        "",
        "told yes who must not be down together",
        "conflicting requests are never both granted",
    ),
    retired("", "is not made again elsewhere", "is not re-replicated"),
    retired("", "a commit whose answer is lost is found out", "the outcome is determined"),
    retired("", "all chunks are as they should be", "no chunk needs repair"),
    retired("", "say nothing but errors", "print errors only"),
    retired("", "directories with all that is below them", "copy directories recursively"),
];

/// The file with the list itself.
const SELF: &str = "xtask/src/verify/vocabulary.rs";
const EXTENSIONS: [&str; 7] = ["rs", "proto", "md", "yaml", "tpl", "txt", "toml"];

pub(super) fn check(root: &Path) -> Result<()> {
    let mut found = Vec::new();
    for file in tree::files(root)? {
        if file == SELF || file.contains("/generated/") {
            continue;
        }
        for retired in FILES {
            if file.starts_with(retired.below) && ends_with_path(&file, retired.word) {
                found.push(format!("{file}: the file is now named {}", retired.instead));
            }
        }
        if !EXTENSIONS.iter().any(|extension| file.ends_with(&format!(".{extension}"))) {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(root.join(&file)) else { continue };
        found.extend(retired_in(&file, &text));
    }
    if found.is_empty() {
        return Ok(());
    }
    let count = found.len();
    bail!("{count} retired words:\n  {}", found.join("\n  "))
}

fn retired_in(file: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let applies = |retired: &&Retired| file.starts_with(retired.below);
    for retired in IDENTIFIERS.iter().filter(applies) {
        let lines = text.lines().enumerate().filter(|(_, line)| has_word(line, retired.word));
        found.extend(lines.map(|(line, _)| {
            format!("{file}:{}: `{}` is now {}", line + 1, retired.word, retired.instead)
        }));
    }
    let prose = unwrapped(text);
    for retired in PHRASES.iter().filter(applies) {
        if prose.contains(retired.word) {
            found.push(format!("{file}: \"{}\": say \"{}\"", retired.word, retired.instead));
        }
    }
    found
}

fn ends_with_path(file: &str, end: &str) -> bool {
    file.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
}

/// Returns true if a line contains a word that is not part of a longer identifier.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// Returns the text in lower case on one line, without comment marks.
fn unwrapped(text: &str) -> String {
    let lines =
        text.lines().map(|line| line.trim().trim_start_matches(['/', '!', '#', '*']).trim());
    lines.collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retired_words_are_found_as_whole_words_and_across_lines() {
        let found = |file, text| retired_in(file, text).len();
        assert_eq!(found("crates/dfs-client/src/a.rs", "struct Ways;"), 1);
        assert_eq!(found("crates/dfs-client/src/a.rs", "struct Always; // by other ways"), 0);
        assert_eq!(found("docs/a.md", "It is not made\nagain elsewhere."), 1);
        assert_eq!(found("crates/a/src/a.rs", "/// All chunks are as\n/// they should be."), 1);
        assert!(ends_with_path("crates/a/ways.rs", "ways.rs"));
        assert!(!ends_with_path("crates/a/always.rs", "ways.rs"));
    }
}
