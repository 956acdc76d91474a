//! `dfs node`: administration of single datanodes, by people and by the operator.

use clap::{Args, Subcommand};
use dfs_client::{ClusterStatus, MovePlan, NodeStatus};
use dfs_types::{ErrorCode, NodeId, NodeState};
use serde_json::json;

use super::deregister::DeregisterArgs;
use super::forget::ForgetArgs;
use super::maintenance::{MaintenanceArgs, SafeToStopArgs};
use super::plan::Subject;
use super::{emptying, plan, readmit, status};
use crate::confirmation::Confirmation;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::json;

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
    #[command(after_help = "\
Examples:
  dfs node list
  dfs node list --json | jq '.nodes[].state'")]
    List,
    /// Admit joining datanodes to the cluster
    Admit(AdmitArgs),
    /// Check whether datanodes can stop at the same time
    SafeToStop(SafeToStopArgs),
    /// Put datanodes into maintenance, or end it
    Maintenance(MaintenanceArgs),
    /// Move everything away from datanodes
    Drain(DrainArgs),
    /// Use draining or drained datanodes again
    Undrain(UndrainArgs),
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
struct AdmitArgs {
    /// The datanodes.
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A datanode that is being drained, or is drained, becomes active again: it gets new replicas. What
was moved away stays where it is.

Examples:
  dfs node undrain 3f2a
  dfs node undrain 3f2a 9c01")]
struct UndrainArgs {
    /// The datanodes.
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
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
rebuilt elsewhere. One that returns is no longer given up. Shows what is rebuilt first. Exits with 4
when it is refused, and with 2 when nobody can confirm.

Examples:
  dfs node give-up 3f2a 9c01
  dfs node give-up 3f2a 9c01 --yes")]
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

pub(crate) async fn run(args: NodeArgs, cx: &Context) -> Result<()> {
    let status = cx.client.admin().status().await?;
    let cluster = status.cluster;
    match args.action {
        Action::List => {
            list(&status, cx);
            Ok(())
        }
        Action::Drain(args) => drain(&args, &status, cx).await,
        Action::Undrain(UndrainArgs { nodes }) => {
            each(&nodes, &status, cx, async |node| {
                let state = cx.client.admin().undrain(cluster, node).await?;
                cx.out.done(&json!({ "node": node.to_string(), "state": state.to_string() }));
                cx.out.say(state_text(node, state, &status));
                Ok(())
            })
            .await
        }
        Action::Admit(AdmitArgs { nodes }) => {
            each(&nodes, &status, cx, async |node| {
                let state = cx.client.admin().admit(cluster, node).await?;
                cx.out.done(&json!({ "node": node.to_string(), "state": state.to_string() }));
                cx.out.say(format_args!("node {node} is {state}"));
                Ok(())
            })
            .await
        }
        Action::SafeToStop(args) => args.run(&status, cx).await,
        Action::Maintenance(args) => args.run(&status, cx).await,
        Action::GiveUp(args) => give_up(&args, &status, cx).await,
        Action::Readmit(args) => {
            let node = find(&status, &args.node)?;
            readmit::run(args.confirmation, (cluster, node), cx).await
        }
        Action::Deregister(args) => args.run(&status, cx).await,
        Action::Forget(args) => args.run(&status, cx).await,
    }
}

/// Applies a call to each of several nodes, continuing after failures.
pub(super) async fn each(
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

/// Plans an act on each of several nodes, given all of them, asks once, and acts on one after the
/// other. Nothing is changed unless every plan could be made. A plan without lines asks for nothing.
/// `together` describes what the acts mean together, given their plans.
pub(super) async fn each_confirmed<P>(
    (nodes, status): (&[String], &ClusterStatus),
    (confirmation, act): (Confirmation, &str),
    cx: &Context,
    plan: impl AsyncFn(NodeId, &[NodeId]) -> Result<(Vec<String>, P)>,
    together: impl Fn(&[(NodeId, P)]) -> Vec<String>,
    run: impl AsyncFn(NodeId, P) -> Result<()>,
) -> Result<()> {
    let mut failures = cx.failures();
    let mut found = Vec::new();
    for node in nodes {
        match find(status, node) {
            // Naming a node twice is naming it once.
            Ok(node) if found.contains(&node) => {}
            Ok(node) => found.push(node),
            Err(error) => failures.note(Err(error)),
        }
    }
    let mut plans = Vec::new();
    let mut asks = false;
    for node in &found {
        match plan(*node, &found).await {
            Ok((lines, plan)) => {
                asks |= !lines.is_empty();
                for line in lines {
                    cx.out.say(line);
                }
                plans.push((*node, plan));
            }
            Err(error) => failures.note(Err(error)),
        }
    }
    failures.take()?;
    for line in together(&plans) {
        cx.out.say(line);
    }
    if asks {
        let question = match plans.len() {
            1 => format!("{act} this datanode?"),
            several => format!("{act} these {several} datanodes?"),
        };
        confirmation.ask(&question, cx).await?;
    }
    for (node, plan) in plans {
        failures.note(run(node, plan).await);
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
    let plan = async |node: NodeId, all: &[NodeId]| {
        let moves = admin.plan_drain(cluster, node, all).await?;
        let subject = Subject { what: &format!("node {node}"), own: None, status };
        Ok::<_, Error>((subject.move_lines(&moves), moves))
    };
    let together = |plans: &[(NodeId, MovePlan)]| {
        together(status, plans).map_or_else(Vec::new, |(subject, plan)| subject.move_lines(&plan))
    };
    let run = async |node: NodeId, moves: MovePlan| {
        let mut state = admin.drain(cluster, node).await?;
        let mut text = state_text(node, state, status);
        if args.wait {
            state = wait_until_drained(node, cx).await?;
            text = format!("node {node} is {state}");
        }
        cx.out.done(&json!({
            "node": node.to_string(),
            "state": state.to_string(),
            "plan": plan::document(&moves),
        }));
        cx.out.say(text);
        Ok::<_, Error>(())
    };
    let asked = (args.confirmation, "Drain");
    each_confirmed((&args.nodes, status), asked, cx, plan, together, run).await
}

/// Returns the plan of several moves together; `None` for a single one.
fn together<'a>(
    status: &'a ClusterStatus,
    plans: &[(NodeId, MovePlan)],
) -> Option<(Subject<'a>, MovePlan)> {
    let plans: Vec<&MovePlan> = plans.iter().map(|(_, plan)| plan).collect();
    let subject = Subject { what: "all of them together", own: None, status };
    (plans.len() > 1).then(|| (subject, plan::together(status, &plans)))
}

/// Waits until a node is drained.
async fn wait_until_drained(node: NodeId, cx: &Context) -> Result<NodeState> {
    emptying::wait(&node.to_string(), cx, |status| {
        match member(status, node).map_or(NodeState::Removed, |found| found.state) {
            state @ NodeState::Drained => Ok(Some(state)),
            state @ (NodeState::Active | NodeState::Removed) => {
                let message = format_args!("node {node} is {state}, and no longer being drained");
                Err(Error::new(ErrorCode::Conflict, message))
            }
            _ => Ok(None),
        }
    })
    .await
}

async fn give_up(args: &GiveUpArgs, status: &ClusterStatus, cx: &Context) -> Result<()> {
    let plan = async |node: NodeId, _: &[NodeId]| {
        let Some(found) = member(status, node) else {
            return Ok((Vec::new(), MovePlan::default()));
        };
        if found.state != NodeState::Lost {
            let state = found.state;
            let message = format_args!("node {node} is {state}, and only a lost one is given up");
            return Err(Error::new(ErrorCode::NotEmpty, message));
        }
        let rebuild = plan::rebuild(status, found);
        let subject = Subject { what: &format!("node {node}"), own: None, status };
        Ok((subject.rebuild_lines(&rebuild), rebuild))
    };
    let together = |plans: &[(NodeId, MovePlan)]| {
        together(status, plans)
            .map_or_else(Vec::new, |(subject, plan)| subject.rebuild_lines(&plan))
    };
    let run = async |node: NodeId, _| {
        cx.client.admin().give_up(status.cluster, node).await?;
        cx.out.done(&json!({ "node": node.to_string(), "state": "lost" }));
        cx.out.say(format_args!("what node {node} held is rebuilt elsewhere"));
        Ok::<_, Error>(())
    };
    let asked = (args.confirmation, "Give up");
    each_confirmed((&args.nodes, status), asked, cx, plan, together, run).await
}

/// Returns the state that a node was given, and that it is away.
fn state_text(node: NodeId, state: NodeState, status: &ClusterStatus) -> String {
    let observed = member(status, node).map(|found| found.state);
    let is_away = |state: &NodeState| {
        matches!(state, NodeState::Suspect | NodeState::Lost | NodeState::Maintenance)
    };
    match observed.filter(is_away) {
        Some(observed) => format!("node {node} is {state}, but {observed} at present"),
        None => format!("node {node} is {state}"),
    }
}

/// Returns the status of a node; `None` for one that was removed or is not known.
pub(super) fn member(status: &ClusterStatus, node: NodeId) -> Option<&NodeStatus> {
    status.nodes.iter().find(|found| found.id == node)
}

/// Returns the node that the user means. Removed ones are not listed, but can be named in full.
pub(super) fn find(status: &ClusterStatus, text: &str) -> Result<NodeId> {
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
    use dfs_types::ClusterId;

    use super::*;

    fn node(id: u128, address: &str) -> NodeStatus {
        NodeStatus::new(NodeId(id), address, NodeState::Active)
    }

    #[test]
    fn silent_node_is_not_said_to_be_active() {
        let mut status = ClusterStatus::new(ClusterId(1));
        status.nodes = vec![node(1, "a:7080")];
        let text = |status: &ClusterStatus| state_text(NodeId(1), NodeState::Active, status);
        assert_eq!(text(&status), format!("node {} is active", NodeId(1)));
        status.nodes[0].state = NodeState::Suspect;
        assert!(text(&status).ends_with("is active, but suspect at present"));
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
