//! `dfs node forget`.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use dfs_client::{ClusterStatus, NodeLoss, NodeStatus};
use dfs_types::{ByteSize, ChunkId, ErrorCode, InodeId, NodeId, counted};
use serde_json::json;

use super::deregister::removal_line;
use super::file_names;
use super::node::{each_confirmed, member};
use crate::confirmation::Confirmation;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::printable::printable;

/// Files that a plan names at most.
const PLANNED_MAX: usize = 100;
/// Files that an error names at most.
const NAMED_MAX: usize = 3;

/// Arguments of `dfs node forget`.
#[derive(Debug, Args)]
#[command(after_help = "\
For datanodes that will never come back: what they held counts as gone. A datanode is forgotten only
when it is lost, and when no chunk has its last good replica there. Its disks are refused from then
on. A datanode that returns meanwhile is not forgotten. Shows what that means first, and asks.

With --accept-loss, chunks may have their last good replica there: shows the files that lose bytes,
too. Afterwards `dfs status` counts these chunks as missing, and `dfs fsck --delete-lost`
deletes the files. Exits with 4 when it is refused, and with 2 when nobody can confirm.

Examples:
  dfs node forget 3f2a
  dfs node forget 3f2a --yes
  dfs node forget 3f2a --accept-loss && dfs fsck --delete-lost")]
pub(super) struct ForgetArgs {
    /// The datanodes.
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
    /// Forget them although bytes of files are lost with them.
    #[arg(long)]
    accept_loss: bool,
    #[command(flatten)]
    confirmation: Confirmation,
}

/// A file that loses bytes.
struct LosingFile {
    path: String,
    /// Chunks that it loses, as far as they are listed.
    chunks: u64,
}

/// What is lost with a node.
struct Plan {
    loss: NodeLoss,
    files: Vec<LosingFile>,
    /// Files without a name.
    deleted: u64,
}

impl ForgetArgs {
    /// Removes lost nodes.
    pub(super) async fn run(&self, status: &ClusterStatus, cx: &Context) -> Result<()> {
        let (admin, cluster) = (cx.client.admin(), status.cluster);
        let plan = async |node: NodeId, all: &[NodeId]| {
            let plan = match admin.plan_forget(cluster, node).await? {
                Some(loss) => Some(Plan::of(loss, cx).await?),
                None => None,
            };
            if let Some(plan) = plan.as_ref().filter(|_| !self.accept_loss) {
                return Err(Error::new(ErrorCode::NotEmpty, plan.refusal(node)).hint(format!(
                    "start it again; if it will never come back, `dfs node forget {node} \
                     --accept-loss` gives up what only it holds"
                )));
            }
            let Some(found) = member(status, node) else {
                let lines = plan.iter().flat_map(|plan| plan.lines(node)).collect();
                return Ok((lines, plan));
            };
            let mut lines = vec![held_line(found)];
            lines.extend(match &plan {
                Some(plan) => plan.lines(node),
                None => vec!["  no chunk has its last good replica there".to_owned()],
            });
            lines.push(removal_line(status, found, all));
            Ok((lines, plan))
        };
        let run = async |node: NodeId, plan: Option<Plan>| {
            let accepted = plan.as_ref().map(|plan| &plan.loss);
            if admin.forget(cluster, node, accepted).await?.is_some() {
                let message = format!(
                    "other chunks than those shown would be lost with node {node} now; nothing was \
                     changed"
                );
                return Err(Error::new(ErrorCode::Conflict, message).hint("run it again"));
            }
            done(node, plan.as_ref(), cx);
            Ok(())
        };
        let asked = (self.confirmation, "Forget");
        each_confirmed((&self.nodes, status), asked, cx, plan, together, run).await
    }
}

/// Returns what is lost with several nodes together.
fn together(plans: &[(NodeId, Option<Plan>)]) -> Vec<String> {
    let losses = plans.iter().filter_map(|(_, plan)| plan.as_ref()).map(|plan| {
        let chunks = plan.loss.listed.iter().map(|needed| needed.chunk).collect();
        (plan.loss.chunks, chunks)
    });
    together_line(&losses.collect::<Vec<_>>()).into_iter().collect()
}

/// Returns a line if nodes share chunks: each was counted as if only it held them. `losses` are the
/// numbers of chunks, and those that are listed.
fn together_line(losses: &[(u64, Vec<ChunkId>)]) -> Option<String> {
    let sum: u64 = losses.iter().map(|(chunks, _)| chunks).sum();
    let listed: BTreeSet<ChunkId> = losses.iter().flat_map(|(_, listed)| listed).copied().collect();
    let are_all_listed = losses.iter().all(|(chunks, listed)| *chunks == listed.len() as u64);
    match (losses.len(), are_all_listed, listed.len() as u64) {
        (..2, ..) => None,
        (_, true, chunks) if chunks == sum => None,
        (_, true, chunks) => {
            Some(format!("with all of them together, {} are lost", counted(chunks, "chunk")))
        }
        _ => Some(format!("with all of them together, at most {} are lost", counted(sum, "chunk"))),
    }
}

/// Returns what a lost node held, by its last heartbeat.
fn held_line(node: &NodeStatus) -> String {
    let NodeStatus { id, address, state, .. } = node;
    let held = match node.last_heard {
        Some(_) => format!(
            "what it held counts as gone: {}, up to {}",
            counted(node.chunks(), "replica"),
            ByteSize(node.used())
        ),
        None => "what it held, which is not known here, counts as gone".to_owned(),
    };
    format!("node {id} at {address} is {state}; {held}")
}

impl Plan {
    async fn of(loss: NodeLoss, cx: &Context) -> Result<Self> {
        let mut chunks: BTreeMap<InodeId, u64> = BTreeMap::new();
        for needed in &loss.listed {
            *chunks.entry(needed.inode).or_default() += 1;
        }
        let inodes: BTreeSet<InodeId> = chunks.keys().copied().collect();
        let named = file_names::find(cx, inodes).await?;
        let deleted = (chunks.len() - named.len()) as u64;
        let file = |entry: &dfs_client::WalkEntry| LosingFile {
            path: printable(entry.path.as_bytes()),
            chunks: chunks.get(&entry.stat.inode).copied().unwrap_or(0),
        };
        let files = named.iter().map(file).collect();
        Ok(Self { loss, files, deleted })
    }

    /// Returns how much is lost.
    fn amount(&self) -> String {
        format!("{} ({})", counted(self.loss.chunks, "chunk"), ByteSize(self.loss.bytes))
    }

    fn refusal(&self, node: NodeId) -> String {
        let named = self.files.iter().take(NAMED_MAX).map(|file| file.path.clone());
        let mut names: Vec<String> = named.collect();
        let others = self.files.len().saturating_sub(NAMED_MAX) as u64 + self.deleted;
        if others > 0 {
            names.push(counted(others, "other file"));
        }
        let (amount, names, note) = (self.amount(), names.join(", "), &self.loss.note);
        format!("node {node} may hold the last good replica of {amount}, needed by {names}{note}")
    }

    fn lines(&self, node: NodeId) -> Vec<String> {
        let mut lines =
            vec![format!("with node {node}, {} are lost{}", self.amount(), self.loss.note)];
        for LosingFile { path, chunks } in self.files.iter().take(PLANNED_MAX) {
            lines.push(format!("  {path}: {}", counted(*chunks, "chunk")));
        }
        let others = self.files.len().saturating_sub(PLANNED_MAX) as u64;
        if others > 0 {
            lines.push(format!("  {}", counted(others, "other file")));
        }
        if self.deleted > 0 {
            let deleted = counted(self.deleted, "deleted file");
            lines.push(format!("  {deleted} that could be restored until now"));
        }
        if (self.loss.listed.len() as u64) < self.loss.chunks {
            let listed = self.loss.listed.len();
            lines.push(format!("  only the files of the first {listed} chunks are counted here"));
        }
        lines
    }
}

/// Reports that a node was removed.
fn done(node: NodeId, plan: Option<&Plan>, cx: &Context) {
    let files = plan.map_or(&[][..], |plan| &plan.files);
    cx.out.done(&json!({
        "node": node.to_string(),
        "state": "removed",
        "lost_chunks": plan.map_or(0, |plan| plan.loss.chunks),
        "lost_bytes": plan.map_or(0, |plan| plan.loss.bytes),
        "lost_files": files.iter().map(|file| &file.path).collect::<Vec<_>>(),
    }));
    cx.out.say(format_args!("removed node {node} from the cluster"));
    if plan.is_some() {
        cx.out.say("`dfs fsck --delete-lost` deletes the files that lost bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_lost_with_several_nodes_are_counted_once() {
        let loss =
            |chunks: u64, listed: &[u128]| (chunks, listed.iter().map(|id| ChunkId(*id)).collect());
        assert_eq!(together_line(&[loss(3, &[1])]), None, "one node is described alone");
        assert_eq!(together_line(&[loss(2, &[1, 2]), loss(1, &[3])]), None, "nothing is shared");
        let shared = together_line(&[loss(2, &[1, 2]), loss(2, &[2, 3])]).unwrap();
        assert!(shared.contains("3 chunks"), "{shared}");
        let unlisted = together_line(&[loss(9, &[1, 2]), loss(2, &[2, 3])]).unwrap();
        assert!(unlisted.contains("at most 11 chunks"), "{unlisted}");
    }
}
