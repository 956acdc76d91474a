//! `dfs disk`: the disks of datanodes.

use clap::{Args, Subcommand};
use dfs_client::{ClusterStatus, DiskStatus, NodeStatus};
use dfs_types::{DiskId, DiskState, ErrorCode};
use serde_json::json as document;

use super::plan::Subject;
use super::{emptying, plan};
use crate::confirmation::Confirmation;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json;
use crate::output::size_text;

/// Arguments of `dfs disk`.
#[derive(Debug, Args)]
#[command(after_help = "\
A DISK is the id of a disk, or a unique prefix of it; `dfs disk list` shows them.

Examples:
  dfs disk list
  dfs disk retire 7c41")]
pub(crate) struct DiskArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the disks of all datanodes
    #[command(after_help = "\
Examples:
  dfs disk list
  dfs disk list --json | jq '.disks[].state'")]
    List,
    /// Move everything away from a disk, so that it can be removed
    Retire(RetireArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
A retiring disk gets no new replicas, and its replicas are moved to other datanodes in the
background. `dfs disk list` shows what is left. Exits with 2 when nobody can confirm.

Examples:
  dfs disk retire 7c41
  dfs disk retire 7c41 --yes --wait
  dfs disk retire 7c41 --undo")]
struct RetireArgs {
    /// The disk.
    #[arg(value_name = "DISK")]
    disk: String,
    #[command(flatten)]
    confirmation: Confirmation,
    /// Wait until it is empty and can be removed.
    #[arg(long)]
    wait: bool,
    /// Use the disk again.
    #[arg(long, conflicts_with_all = ["yes", "wait"])]
    undo: bool,
}

pub(crate) async fn run(args: DiskArgs, cx: &Context) -> Result<()> {
    let status = cx.client.admin().status().await?;
    match args.action {
        Action::List => {
            list(&status, cx);
            Ok(())
        }
        Action::Retire(args) => retire(&args, &status, cx).await,
    }
}

fn list(status: &ClusterStatus, cx: &Context) {
    if cx.out.is_json {
        let disks = status.nodes.iter().flat_map(|node| {
            node.disks.iter().map(move |disk| {
                let mut shown = json::disk(disk);
                shown["node"] = node.id.to_string().into();
                shown
            })
        });
        cx.out.json(&document!({ "disks": disks.collect::<Vec<_>>() }));
        return;
    }
    cx.out.line(format_args!(
        "{:<32} {:<32} {:<9} {:>10} {:>10} {:>9}",
        "disk", "node", "state", "capacity", "free", "chunks"
    ));
    for node in &status.nodes {
        for disk in &node.disks {
            cx.out.line(format_args!(
                "{:<32} {:<32} {:<9} {:>10} {:>10} {:>9}  {}",
                disk.id.to_string(),
                node.id.to_string(),
                disk.state.name(),
                size_text(disk.capacity, true),
                size_text(disk.free, true),
                disk.chunks,
                disk.reason,
            ));
        }
    }
}

async fn retire(args: &RetireArgs, status: &ClusterStatus, cx: &Context) -> Result<()> {
    let (node, disk) = find(status, &args.disk)?;
    let (admin, cluster, node, disk) = (cx.client.admin(), status.cluster, node.id, disk.id);
    if args.undo {
        admin.unretire_disk(cluster, node, disk).await?;
        cx.out.done(&document!({
            "disk": disk.to_string(),
            "node": node.to_string(),
            "is_retiring": false,
            "can_be_removed": false,
            "plan": null,
        }));
        cx.out.say(format_args!("disk {disk} of node {node} is used again"));
        return Ok(());
    }
    let moves = admin.plan_retire(cluster, node, disk).await?;
    let what = format!("disk {disk} of node {node}");
    for line in (Subject { what: &what, own: Some(node), status }).move_lines(&moves) {
        cx.out.say(line);
    }
    args.confirmation.ask("Retire this disk?", cx).await?;
    admin.retire_disk(cluster, node, disk).await?;
    if args.wait {
        wait_until_empty(disk, cx).await?;
    }
    cx.out.done(&document!({
        "disk": disk.to_string(),
        "node": node.to_string(),
        "is_retiring": true,
        "can_be_removed": args.wait,
        "plan": plan::document(&moves),
    }));
    cx.out.say(if args.wait {
        format!("disk {disk} is empty and can be removed")
    } else {
        format!("disk {disk} is being emptied; `dfs disk list` shows what is left")
    });
    Ok(())
}

/// Waits until a retiring disk is empty.
async fn wait_until_empty(disk: DiskId, cx: &Context) -> Result<()> {
    emptying::wait(&disk.to_string(), cx, |status| is_empty(status, disk)).await
}

/// Returns `Some` once a retiring disk is empty.
fn is_empty(status: &ClusterStatus, disk: DiskId) -> Result<Option<()>> {
    let found = status.nodes.iter().flat_map(|node| &node.disks).find(|found| found.id == disk);
    let why = match found {
        Some(found) if found.can_be_removed => return Ok(Some(())),
        Some(found) => match found.state {
            DiskState::Healthy => "no longer being retired".to_owned(),
            // Nothing can be moved from it.
            state @ (DiskState::Failed | DiskState::Missing) => format!(
                "{} ({}); what it held is rebuilt elsewhere once it counts as lost",
                state.name(),
                found.reason
            ),
            _ => return Ok(None),
        },
        None => "no longer reported by its datanode".to_owned(),
    };
    Err(Error::new(ErrorCode::Conflict, format_args!("disk {disk} is {why}")))
}

/// Returns the disk that the user means, with its node.
fn find<'a>(status: &'a ClusterStatus, text: &str) -> Result<(&'a NodeStatus, &'a DiskStatus)> {
    let beginning = text.to_ascii_lowercase();
    let all = status.nodes.iter().flat_map(|node| node.disks.iter().map(move |disk| (node, disk)));
    let is_meant =
        |disk: &DiskStatus| !beginning.is_empty() && disk.id.to_string().starts_with(&beginning);
    let found: Vec<_> = all.filter(|(_, disk)| is_meant(disk)).collect();
    match found[..] {
        [disk] => Ok(disk),
        [] => Err(Error::new(ErrorCode::NotFound, format_args!("no disk {text}"))
            .hint("`dfs disk list` shows the disks")),
        _ => Err(Error::usage(format_args!("{text} matches {} disks", found.len()))
            .hint("use a longer prefix of the id")),
    }
}

#[cfg(test)]
mod tests {
    use dfs_types::{ClusterId, NodeId, NodeState};

    use super::*;

    #[test]
    fn retired_disk_is_waited_for_until_it_can_be_removed() {
        let mut status = ClusterStatus::new(ClusterId(1));
        let found = |status: &ClusterStatus| is_empty(status, DiskId(2)).map_err(|e| e.code());
        assert_eq!(found(&status), Err(ErrorCode::Conflict), "it is not reported");
        let mut node = NodeStatus::new(NodeId(1), "a:7080", NodeState::Active);
        node.disks = vec![DiskStatus::new(DiskId(1), 10), DiskStatus::new(DiskId(2), 10)];
        node.disks[1].state = DiskState::Retiring;
        status.nodes = vec![node];
        assert_eq!(found(&status), Ok(None));
        status.nodes[0].disks[1].state = DiskState::Failed;
        assert_eq!(found(&status), Err(ErrorCode::Conflict), "nothing can be moved from it");
        status.nodes[0].disks[1].can_be_removed = true;
        assert_eq!(found(&status), Ok(Some(())));
        status.nodes[0].disks[1] = DiskStatus::new(DiskId(2), 10);
        assert_eq!(found(&status), Err(ErrorCode::Conflict), "it was taken back");
    }
}
