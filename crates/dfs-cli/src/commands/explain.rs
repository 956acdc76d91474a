//! `dfs explain`.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::Args;
use dfs_client::{ClusterStatus, ExplainedChunk, ExplainedReplica, Explanation, NodeStatus};
use dfs_types::{ByteSize, DfsPath, ErrorCode, NodeId, NodeState, ReplicaHealth, counted};

use super::stat::replication_origin;
use crate::context::Context;
use crate::error::{Error, Result, remote_path};
use crate::json;
use crate::output::span_text;

/// Arguments of `dfs explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exits with 1 if a replica has a problem. The replicas of a datanode that does not respond are
rebuilt once it is lost. Until then `dfs status` shows it as suspect, and does not count its chunks
as under-replicated.

Examples:
  dfs explain /logs/today
  dfs explain --verify --json /logs/today | jq .problems")]
pub(crate) struct ExplainArgs {
    /// The files.
    #[arg(required = true)]
    paths: Vec<OsString>,
    /// Read every replica completely and verify each block; otherwise nodes are only asked.
    #[arg(long)]
    verify: bool,
}

pub(crate) async fn run(args: ExplainArgs, cx: &Context) -> Result<()> {
    let mut failures = cx.failures();
    for path in &args.paths {
        failures.note(explain(path, args.verify, cx).await);
    }
    failures.into_result()
}

async fn explain(path: &OsString, verify: bool, cx: &Context) -> Result<()> {
    let path = remote_path(path)?;
    let found = cx.client.explain(&path, verify).await?;
    if cx.out.is_json {
        cx.out.json(&json::explanation(&path, &found));
    } else {
        show(&path, &found, verify, cx);
    }
    if found.problems.is_empty() {
        return Ok(());
    }
    let silent = not_asked(&found);
    if !silent.is_empty()
        && !cx.out.is_json
        && let Ok(status) = cx.client.admin().status().await
    {
        for line in waits(&silent, &status) {
            cx.out.line(line);
        }
    }
    let count = counted(found.problems.len() as u64, "problem");
    Err(Error::new(ErrorCode::Corrupt, format_args!("{path} has {count}"))
        .hint("`dfs status` shows whether it is being repaired"))
}

/// Returns the nodes that could not be asked.
fn not_asked(found: &Explanation) -> BTreeSet<NodeId> {
    let replicas = found.chunks.iter().flat_map(|chunk| &chunk.replicas);
    let not_asked = replicas.filter(|it| it.problem.is_some() && it.verified.is_none());
    not_asked.map(|replica| replica.node).collect()
}

/// Returns what the repair of replicas on silent nodes waits for.
fn waits(silent: &BTreeSet<NodeId>, status: &ClusterStatus) -> Vec<String> {
    let nodes = status.nodes.iter().filter(|node| silent.contains(&node.id));
    nodes.filter_map(wait).chain(status.repair_held.clone()).collect()
}

fn wait(node: &NodeStatus) -> Option<String> {
    let NodeStatus { id, state, .. } = node;
    if let Some(left) = node.maintenance_left {
        let left = span_text(left);
        return Some(format!(
            "node {id} is in maintenance for {left} more: repair waits for its end"
        ));
    }
    if *state == NodeState::Lost {
        return Some(format!("node {id} is lost: its replicas are rebuilt on other nodes"));
    }
    // Any other responds to the coordinators.
    let lost_in = span_text(node.lost_in.filter(|_| *state == NodeState::Suspect)?);
    let heard = match node.last_heard {
        Some(ago) => format!("last heartbeat {} ago", span_text(ago)),
        None => "no heartbeat yet".to_owned(),
    };
    Some(format!(
        "node {id} is {state}, {heard}: repair begins once it is lost, in {lost_in} if it stays \
         silent"
    ))
}

fn show(path: &DfsPath, found: &Explanation, verify: bool, cx: &Context) {
    let out = cx.out;
    let (size, wanted) = (ByteSize(found.stat.size), found.stat.replication_factor);
    let chunks = counted(found.chunks.len() as u64, "chunk");
    out.line(format_args!(
        "{path}: inode {}, {} bytes ({size}), {chunks}, replicas wanted: {wanted} ({})",
        found.stat.inode,
        found.stat.size,
        replication_origin(&found.stat),
    ));
    for chunk in &found.chunks {
        let end = chunk.file_offset + chunk.length;
        let change = under_way(chunk, wanted).unwrap_or_default();
        out.line(format_args!("{}..{end}  chunk {}{change}", chunk.file_offset, chunk.chunk));
        for replica in &chunk.replicas {
            out.line(format_args!(
                "    node {}  {}  {}",
                replica.node,
                place(replica),
                word(replica, verify)
            ));
        }
    }
    for problem in &found.problems {
        out.line(format_args!("problem: {problem}"));
    }
}

/// Returns what is under way for a chunk of a file that wants so many replicas.
fn under_way(chunk: &ExplainedChunk, wanted: u32) -> Option<String> {
    let counting = chunk.replicas.iter().filter(|replica| replica.health.is_durable()).count();
    if chunk.wanted != wanted {
        return Some(format!("  (still {} wanted; being changed)", chunk.wanted));
    }
    let is_over = counting > chunk.wanted as usize;
    is_over.then(|| format!("  ({counting} replicas; being trimmed)"))
}

fn place(replica: &ExplainedReplica) -> String {
    match replica.state {
        Some(state) => format!("{} ({state})", replica.address),
        None => "at no known address".to_owned(),
    }
}

fn word(replica: &ExplainedReplica, verify: bool) -> String {
    match (&replica.problem, verify) {
        _ if replica.health == ReplicaHealth::Doomed => "waiting for deletion".to_owned(),
        // The error of its node follows, once for all chunks.
        (Some(_), _) if replica.verified.is_none() => "PROBLEM: not checked".to_owned(),
        (Some(problem), _) => format!("PROBLEM: {problem}"),
        (None, true) => "every block verified".to_owned(),
        (None, false) => "there".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dfs_types::ClusterId;

    use super::*;

    #[test]
    fn repair_of_a_silent_node_waits_until_it_is_lost() {
        let mut status = ClusterStatus::new(ClusterId(1));
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let mut node = NodeStatus::new(NodeId(1), "a:7080", NodeState::Suspect);
        (node.last_heard, node.lost_in) = (seconds(12), seconds(18));
        let mut other = node.clone();
        other.id = NodeId(2);
        status.nodes = vec![node, other];
        let silent = BTreeSet::from([NodeId(1)]);
        let said = |status: &ClusterStatus| waits(&silent, status).join("\n");
        let text = said(&status);
        for part in ["is suspect, last heartbeat 12 s ago", "once it is lost, in 18 s"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains(&NodeId(2).to_string()), "it was asked: {text}");
        status.nodes[0].state = NodeState::Active;
        assert_eq!(said(&status), "", "the coordinators hear from it");
        status.nodes[0].maintenance_left = seconds(600);
        assert!(said(&status).contains("in maintenance for 10 min more"), "{}", said(&status));
        (status.nodes[0].maintenance_left, status.nodes[0].lost_in) = (None, None);
        status.nodes[0].state = NodeState::Lost;
        status.repair_held = Some("repair is held".to_owned());
        let text = said(&status);
        assert!(text.contains("is lost") && text.ends_with("repair is held"), "{text}");
    }
}
