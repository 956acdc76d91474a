//! `dfs node`: administration of single datanodes, by people and by the operator.

use std::time::Duration;

use clap::{Args, Subcommand};
use dfs_client::{ClusterStatus, Maintenance, MaintenanceRequest, StopSafety};
use dfs_types::{ErrorCode, NodeId, NodeState};
use serde_json::json;

use super::forget::ForgetArgs;
use super::{plan, readmit, status};
use crate::confirmation::Confirmation;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json;

/// Interval of asking again.
const POLL: Duration = Duration::from_secs(1);

/// Arguments of `dfs node`.
#[derive(Debug, Args)]
#[command(after_help = "\
A NODE is the id of a datanode, a unique prefix of it, or its HOST:PORT;
`dfs status` shows both.

Examples:
  dfs node list
  dfs node maintenance 3f2a --require-safe
  dfs node drain 3f2a --wait && dfs node deregister 3f2a")]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the datanodes
    List,
    /// Admit joining datanodes to the cluster
    Admit(NodesArgs),
    /// Check whether datanodes can stop at the same time
    SafeToStop(SafeToStopArgs),
    /// Put datanodes into maintenance, or end it
    Maintenance(MaintenanceArgs),
    /// Move everything away from datanodes
    Drain(DrainArgs),
    /// Use draining or drained datanodes again
    Undrain(NodesArgs),
    /// Rebuild the replicas of lost datanodes although many are lost at once
    GiveUp(GiveUpArgs),
    /// Let a datanode join with older copies of its disks
    Readmit(ReadmitArgs),
    /// Remove empty datanodes from the cluster, permanently
    Deregister(DeregisterArgs),
    /// Remove lost datanodes from the cluster, permanently
    Forget(ForgetArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
With `auto_admit: false` on coordinators, a new datanode stays joining until it is admitted.

Examples:
  dfs node admit 10.0.0.7:7080
  dfs node admit 3f2a 9c01")]
struct NodesArgs {
    /// The datanodes.
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Safe means that every chunk keeps as many good replicas as a write needs, and at least one fewer
than wanted. Datanodes that are silent or in maintenance count as stopped. Exits with 0 when it is
safe, 5 when it is not safe now.

Examples:
  dfs node safe-to-stop 3f2a
  dfs node safe-to-stop 3f2a 9c01 --json | jq .chunks_below")]
struct SafeToStopArgs {
    /// The datanodes.
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Replicas on a datanode in maintenance are not re-replicated, and it gets no new chunks. Maintenance
ends after the given time or with --end, not when the datanode comes back. Announcing it again
renews it. With --require-safe, exits with 5 when it is not safe now; concurrent requests for
datanodes that must not be down together are never both granted.

Examples:
  dfs node maintenance 3f2a --require-safe && reboot-that-machine
  dfs node maintenance 3f2a --seconds 600
  dfs node maintenance 3f2a --end")]
struct MaintenanceArgs {
    /// The datanodes, in order.
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
    /// Seconds after which it ends by itself; at most a day.
    #[arg(long, value_name = "N", default_value_t = 3_600, conflicts_with = "end",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Start the maintenance only if the datanode can stop safely.
    #[arg(long, conflicts_with = "end")]
    require_safe: bool,
    /// End the maintenance now.
    #[arg(long)]
    end: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A draining datanode gets no new replicas, still serves reads, and its replicas are moved to other
datanodes in the background; then it is drained, and can be deregistered. `dfs worker list` shows
the progress and what it waits for. Exits with 2 when nobody can confirm.

Examples:
  dfs node drain 3f2a
  dfs node drain 3f2a --yes --wait && dfs node deregister 3f2a")]
struct DrainArgs {
    /// The datanodes.
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
    #[command(flatten)]
    confirmation: Confirmation,
    /// Wait until they are drained.
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
When more than a quarter of the datanodes are lost at once, repair is held: more likely a network is
at fault than all these machines. Datanodes that are given up do not count; their replicas are
rebuilt elsewhere. One that returns is no longer given up. Exits with 2 when nobody can confirm.

Examples:
  dfs node give-up 3f2a 9c01")]
struct GiveUpArgs {
    /// The datanodes.
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
    #[command(flatten)]
    confirmation: Confirmation,
}

#[derive(Debug, Args)]
#[command(after_help = "\
For a datanode that is refused because all its disks are older copies, such as those of a machine
that was restored from a backup. It has to run and ask to join. What its disks hold is shown first.
The datanode joins within seconds, and its disks are returning until they have been compared with the
metadata: what they lack is re-replicated, and what was deleted since is deleted there.

Refused while another process sends heartbeats as this datanode. Once the older copies have joined,
the newer disks are refused, if they still exist. Exits with 4 when it is refused, and with 2 when
nobody can confirm.

Examples:
  dfs node readmit 3f2a
  dfs node readmit 3f2a --yes")]
struct ReadmitArgs {
    /// The datanode.
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    confirmation: Confirmation,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A datanode is removed only when it reports that it holds nothing, and no chunk is recorded there.
Its disks are refused from then on; once emptied, they can join as a new datanode.

Examples:
  dfs node deregister 3f2a")]
struct DeregisterArgs {
    /// The datanodes.
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

pub(crate) async fn run(args: NodeArgs, cx: &Context) -> Result<()> {
    let status = cx.client.admin().status().await?;
    let cluster = status.cluster;
    match args.action {
        Action::List => {
            list(&status, cx);
            Ok(())
        }
        Action::Drain(args) => drain(&args, &status, cx).await,
        Action::Undrain(NodesArgs { nodes }) => {
            each(&nodes, &status, cx, async |node| {
                let state = cx.client.admin().undrain(cluster, node).await?;
                cx.out.done(&json!({ "node": node.to_string(), "state": state.to_string() }));
                cx.out.say(format_args!("node {node} is {state}"));
                Ok(())
            })
            .await
        }
        Action::Admit(NodesArgs { nodes }) => {
            each(&nodes, &status, cx, async |node| {
                let state = cx.client.admin().admit(cluster, node).await?;
                cx.out.done(&json!({ "node": node.to_string(), "state": state.to_string() }));
                cx.out.say(format_args!("node {node} is {state}"));
                Ok(())
            })
            .await
        }
        Action::SafeToStop(args) => safe_to_stop(&args.nodes, &status, cx).await,
        Action::Maintenance(args) => {
            each(&args.nodes, &status, cx, async |node| maintenance(&args, &status, node, cx).await)
                .await
        }
        Action::GiveUp(args) => {
            args.confirmation.ask("Rebuild what these datanodes held elsewhere?", cx).await?;
            each(&args.nodes, &status, cx, async |node| {
                cx.client.admin().give_up(cluster, node).await?;
                cx.out.done(&json!({ "node": node.to_string(), "state": "lost" }));
                cx.out.say(format_args!("what node {node} held is rebuilt elsewhere"));
                Ok(())
            })
            .await
        }
        Action::Readmit(args) => {
            let node = find(&status, &args.node)?;
            readmit::run(args.confirmation, (cluster, node), cx).await
        }
        Action::Deregister(DeregisterArgs { nodes }) => {
            each(&nodes, &status, cx, async |node| {
                let out = cx.client.admin().deregister(cluster, node).await;
                is_out(node, out, cx)
            })
            .await
        }
        Action::Forget(args) => {
            each(&args.nodes, &status, cx, async |node| args.run((cluster, node), cx).await).await
        }
    }
}

/// Applies a call to each of several nodes, continuing after failures.
async fn each(
    nodes: &[String],
    status: &ClusterStatus,
    cx: &Context,
    act: impl AsyncFn(NodeId) -> Result<()>,
) -> Result<()> {
    let mut failures = cx.failures();
    for node in nodes {
        let done = match find(status, node) {
            Ok(node) => act(node).await,
            Err(error) => Err(error),
        };
        failures.note(done);
    }
    failures.into_result()
}

fn list(status: &ClusterStatus, cx: &Context) {
    if cx.out.is_json {
        let nodes = status.nodes.iter().map(json::node).collect::<Vec<_>>();
        cx.out.json(&json!({ "nodes": nodes }));
    } else {
        for line in status::nodes(status) {
            cx.out.line(line);
        }
    }
}

async fn drain(args: &DrainArgs, status: &ClusterStatus, cx: &Context) -> Result<()> {
    let (admin, cluster) = (cx.client.admin(), status.cluster);
    let nodes = args.nodes.iter().map(|node| find(status, node)).collect::<Result<Vec<_>>>()?;
    let mut plans = Vec::new();
    for node in nodes {
        let moves = admin.plan_drain(cluster, node).await?;
        for line in plan::lines(&format!("node {node}"), &moves) {
            cx.out.say(line);
        }
        plans.push((node, moves));
    }
    let question = match plans.len() {
        1 => "Drain this datanode?".to_owned(),
        several => format!("Drain these {several} datanodes?"),
    };
    args.confirmation.ask(&question, cx).await?;
    let mut failures = cx.failures();
    for (node, moves) in plans {
        let drained = async {
            let mut state = admin.drain(cluster, node).await?;
            if args.wait {
                state = wait_until_drained(node, cx).await?;
            }
            cx.out.done(&json!({
                "node": node.to_string(),
                "state": state.to_string(),
                "plan": plan::document(&moves),
            }));
            cx.out.say(format_args!("node {node} is {state}"));
            Ok(())
        };
        failures.note(drained.await);
    }
    failures.into_result()
}

/// Waits until a node is drained, and shows what the worker does meanwhile.
async fn wait_until_drained(node: NodeId, cx: &Context) -> Result<NodeState> {
    let mut shown = String::new();
    loop {
        let status = cx.client.admin().status().await?;
        let found = status.nodes.iter().find(|found| found.id == node);
        let state = found.map_or(NodeState::Removed, |found| found.state);
        match state {
            NodeState::Drained => return Ok(state),
            NodeState::Active | NodeState::Removed => {
                let message = format_args!("node {node} is {state}, and no longer being drained");
                return Err(Error::new(ErrorCode::Conflict, message));
            }
            _ => {}
        }
        let worker = status.workers.iter().find(|worker| worker.name == "drain");
        if let Some(worker) = worker.filter(|worker| worker.state != shown) {
            cx.out.say(&worker.state);
            shown.clone_from(&worker.state);
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn safe_to_stop(nodes: &[String], status: &ClusterStatus, cx: &Context) -> Result<()> {
    let nodes = nodes.iter().map(|node| find(status, node)).collect::<Result<Vec<_>>>()?;
    let safety = loop {
        let safety = cx.client.admin().safe_to_stop(status.cluster, &nodes).await?;
        if !safety.is_pending {
            break safety;
        }
        cx.out.say(&safety.reason);
        tokio::time::sleep(POLL).await;
    };
    let StopSafety { is_safe, chunks_below, chunks_unreadable, reason, revision, .. } = safety;
    if cx.out.is_json {
        cx.out.json(&json!({
            "nodes": nodes.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "is_safe": is_safe,
            "chunks_below": chunks_below,
            "chunks_unreadable": chunks_unreadable,
            "reason": reason,
            "revision": revision.0,
        }));
    } else if is_safe {
        cx.out.line("safe to stop");
    } else {
        cx.out.line(format_args!("not safe to stop: {reason}"));
    }
    if !cx.out.is_json && chunks_unreadable > 0 {
        cx.out.line(format_args!("chunks unreadable meanwhile: {chunks_unreadable}"));
    }
    if is_safe { Ok(()) } else { Err(Error::new(ErrorCode::Busy, reason).reported()) }
}

async fn maintenance(
    args: &MaintenanceArgs,
    status: &ClusterStatus,
    node: NodeId,
    cx: &Context,
) -> Result<()> {
    let (admin, cluster) = (cx.client.admin(), status.cluster);
    if args.end {
        admin.end_maintenance(cluster, node).await?;
        cx.out.done(&json!({ "node": node.to_string(), "left_ms": 0 }));
        cx.out.say(format_args!("maintenance of node {node} has ended"));
        return Ok(());
    }
    let seconds = args.seconds;
    let mut wanted = MaintenanceRequest::new(Duration::from_secs(seconds));
    if args.require_safe {
        wanted = wanted.require_safe();
    }
    let granted = loop {
        match admin.begin_maintenance(cluster, node, wanted).await? {
            Maintenance::Refused(safety) if safety.is_pending => {
                cx.out.say(&safety.reason);
                tokio::time::sleep(POLL).await;
            }
            granted => break granted,
        }
    };
    match granted {
        Maintenance::Granted => {
            cx.out.done(&json!({ "node": node.to_string(), "left_ms": seconds * 1_000 }));
            cx.out.say(format_args!("node {node} is in maintenance for {seconds} s"));
            Ok(())
        }
        Maintenance::Refused(StopSafety { reason, .. }) => Err(Error::new(
            ErrorCode::Busy,
            format_args!("it is not safe to stop node {node}: {reason}"),
        )
        .hint("nothing was changed; `dfs status` shows what is being repaired")),
    }
}

/// Reports that a node was removed, or why not.
fn is_out(
    node: NodeId,
    done: std::result::Result<(), dfs_client::Error>,
    cx: &Context,
) -> Result<()> {
    if let Err(error) = done {
        let error = Error::from(error);
        return Err(match error.code() {
            ErrorCode::NotEmpty => error.hint("`dfs status` shows what each datanode holds"),
            _ => error,
        });
    }
    cx.out.done(&json!({ "node": node.to_string(), "state": "removed" }));
    cx.out.say(format_args!("removed node {node} from the cluster"));
    Ok(())
}

/// Returns the node that the user means. Removed ones are not listed, but can be named in full.
fn find(status: &ClusterStatus, text: &str) -> Result<NodeId> {
    if let Ok(node) = text.parse() {
        return Ok(node);
    }
    let beginning = text.to_ascii_lowercase();
    let is_meant = |id: NodeId, address: &str| {
        address == text || (!text.is_empty() && id.to_string().starts_with(&beginning))
    };
    let nodes = status.nodes.iter().filter(|node| is_meant(node.id, &node.address));
    let found: Vec<NodeId> = nodes.map(|node| node.id).collect();
    match found[..] {
        [node] => Ok(node),
        [] => Err(Error::new(ErrorCode::NotFound, format_args!("no datanode {text}"))
            .hint("`dfs status` shows the datanodes")),
        _ => Err(Error::usage(format_args!("{text} matches {} datanodes", found.len()))
            .hint("use a longer prefix of the id")),
    }
}

#[cfg(test)]
mod tests {
    use dfs_client::NodeStatus;
    use dfs_types::ClusterId;

    use super::*;

    fn node(id: u128, address: &str) -> NodeStatus {
        NodeStatus::new(NodeId(id), address, NodeState::Active)
    }

    #[test]
    fn node_is_found_by_unique_prefix_or_address() {
        let (first, second) = (0xab00 << 112, 0xabcd << 112);
        let mut status = ClusterStatus::new(ClusterId(1));
        status.nodes = vec![node(first, "a:7080"), node(second, "b:7080")];
        let found = |text: &str| find(&status, text).map_err(|error| error.code());
        assert_eq!(found("ab0"), Ok(NodeId(first)));
        assert_eq!(found("ABC"), Ok(NodeId(second)));
        assert_eq!(found("b:7080"), Ok(NodeId(second)));
        assert_eq!(found(&NodeId(first).to_string()), Ok(NodeId(first)));
        assert_eq!(found(&NodeId(7).to_string()), Ok(NodeId(7)), "it may be removed");
        assert_eq!(found("ab"), Err(ErrorCode::InvalidArgument));
        assert_eq!(found("b:70"), Err(ErrorCode::NotFound));
        assert_eq!(found(""), Err(ErrorCode::NotFound));
    }
}
