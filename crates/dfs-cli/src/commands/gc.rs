//! `dfs gc`: permission to delete after the metadata was restored, migrated or set back.

use clap::{Args, Subcommand};
use dfs_client::{ClusterStatus, GcStatus, UnneededReplica};
use dfs_types::{ByteSize, counted};
use serde_json::{Value, json};

use crate::confirmation::Confirmation;
use crate::context::Context;
use crate::error::Result;
use crate::printable::printable;

/// Unneeded replicas that are listed.
const LISTED: u32 = 1_000;

/// Arguments of `dfs gc`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dfs gc status
  dfs gc acknowledge")]
pub(crate) struct GcArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show whether anything is deleted, and which replicas wait for it
    #[command(after_help = "\
Examples:
  dfs gc status
  dfs gc status --json | jq .unneeded_bytes")]
    Status,
    /// Permit deletion after the metadata was restored, migrated or set back
    Acknowledge(AcknowledgeArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Restored metadata does not know files that were written since, and names files that were deleted
since. The same is true of metadata that was set back to an older copy, which shows when a datanode
has registrations that the metadata does not know. Nothing is deleted until you permit it: `dfs
fsck` counts the replicas that no file needs. After this command they are deleted for good.

Examples:
  dfs gc acknowledge
  dfs gc acknowledge --yes")]
struct AcknowledgeArgs {
    #[command(flatten)]
    confirmation: Confirmation,
}

pub(crate) async fn run(args: GcArgs, cx: &Context) -> Result<()> {
    let admin = cx.client.admin();
    let cluster = admin.status().await?;
    let status = admin.gc_status(LISTED).await?;
    match args.action {
        Action::Status => {
            if cx.out.is_json {
                cx.out.json(&document(&status));
            } else {
                for line in &lines(&cluster, &status) {
                    cx.out.line(line);
                }
            }
        }
        Action::Acknowledge(AcknowledgeArgs { confirmation }) => {
            if !status.may_delete() {
                for line in &lines(&cluster, &status) {
                    cx.out.say(line);
                }
                confirmation.ask("permit deletion?", cx).await?;
                admin.acknowledge_gc(cluster.cluster, &status).await?;
            }
            let status = admin.gc_status(0).await?;
            cx.out.done(&document(&status));
            cx.out.say("deletion is permitted");
        }
    }
    Ok(())
}

fn document(status: &GcStatus) -> Value {
    let replica = |it: &UnneededReplica| {
        json!({
            "chunk": it.chunk.to_string(),
            "node": it.node.map(|node| node.to_string()),
            "bytes": it.bytes,
            "since_ms": it.since.millis(),
            "path": it.path.as_ref().map(|path| printable(path)),
        })
    };
    json!({
        "may_delete": status.may_delete(),
        "incarnation": status.incarnation.0,
        "acknowledged": status.acknowledged.0,
        "hold": status.hold.as_ref().map(|hold| &hold.reason),
        "doomed": status.doomed,
        "doomed_bytes": status.doomed_bytes,
        "unneeded": status.unneeded,
        "unneeded_bytes": status.unneeded_bytes,
        "replicas": status.replicas.iter().map(replica).collect::<Vec<_>>(),
    })
}

fn lines(cluster: &ClusterStatus, status: &GcStatus) -> Vec<String> {
    let found = &cluster.reconciliation;
    let mut lines = Vec::new();
    if status.acknowledged < status.incarnation {
        lines.push("deletion is on hold: the metadata was restored or migrated".to_owned());
    }
    if let Some(hold) = &status.hold {
        lines.push(format!("deletion is on hold, as commits were lost: {}", hold.reason));
    }
    let next = "run `dfs gc acknowledge` to permit it";
    let may_delete = if status.may_delete() { "deletion is permitted" } else { next };
    lines.push(may_delete.to_owned());
    let mut waits = |replicas: u64, bytes: u64, what: &str| {
        lines.push(format!("{} ({}) {what}", counted(replicas, "replica"), ByteSize(bytes)));
    };
    waits(status.doomed, status.doomed_bytes, "of deleted files, or replaced by others");
    match found.last_whole {
        Some(_) => waits(status.unneeded, status.unneeded_bytes, "that no file needs"),
        None => lines.push("replicas that no file needs: `dfs fsck` finds them".to_owned()),
    }
    for it in &status.replicas {
        let (chunk, bytes) = (it.chunk, ByteSize(it.bytes));
        let node = it.node.map_or_else(|| "unknown".to_owned(), |node| node.to_string());
        let path = it.path.as_ref().map_or_else(|| "-".to_owned(), |path| printable(path));
        lines.push(format!("{chunk}  {bytes}  {node}  {path}"));
    }
    let more = status.unneeded.saturating_sub(status.replicas.len() as u64);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}
