//! `dfs explain`.

use std::ffi::OsString;

use clap::Args;
use dfs_client::{ExplainedChunk, ExplainedReplica, Explanation};
use dfs_types::{ByteSize, DfsPath, ErrorCode, ReplicaHealth, counted};

use super::stat::replication_origin;
use crate::context::Context;
use crate::error::{Error, Result, remote_path};
use crate::json;

/// Arguments of `dfs explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exits with 1 if a replica has a problem.

Examples:
  dfs explain /logs/today
  dfs explain --verify --json / | jq .problems")]
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
    let count = counted(found.problems.len() as u64, "problem");
    Err(Error::new(
        ErrorCode::Corrupt,
        format_args!("{path} has {count}, the first: {}", found.problems[0]),
    )
    .hint("`dfs status` shows whether it is being repaired"))
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
        (Some(problem), _) => format!("PROBLEM: {problem}"),
        (None, true) => "every block verified".to_owned(),
        (None, false) => "there".to_owned(),
    }
}
