//! `dfs node deregister`.

use clap::Args;
use dfs_client::{ClusterStatus, NodeStatus};
use dfs_types::{ByteSize, ErrorCode, NodeId, NodeState, counted};
use serde_json::json;

use super::node::{each_confirmed, member};
use crate::confirmation::Confirmation;
use crate::context::Context;
use crate::error::{Error, Result};

/// Arguments of `dfs node deregister`.
#[derive(Debug, Args)]
#[command(after_help = "\
A datanode is removed only when it reports that it holds nothing, and no chunk is recorded there.
Its disks are refused from then on; once emptied, they can join as a new datanode. Exits with 4 when
it is refused, and with 2 when nobody can confirm.

Examples:
  dfs node deregister 3f2a
  dfs node deregister 3f2a --yes")]
pub(super) struct DeregisterArgs {
    /// The datanodes.
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
    #[command(flatten)]
    confirmation: Confirmation,
}

impl DeregisterArgs {
    /// Removes empty nodes.
    pub(super) async fn run(&self, status: &ClusterStatus, cx: &Context) -> Result<()> {
        let (admin, cluster) = (cx.client.admin(), status.cluster);
        let plan = async |node: NodeId, all: &[NodeId]| {
            admin.plan_deregister(cluster, node).await.map_err(refused)?;
            let Some(found) = member(status, node) else { return Ok((Vec::new(), ())) };
            let NodeStatus { address, state, .. } = found;
            let mut lines = vec![format!("node {node} at {address} is {state}, and holds nothing")];
            lines.push(removal_line(status, found, all));
            Ok::<_, Error>((lines, ()))
        };
        let run = async |node: NodeId, ()| {
            admin.deregister(cluster, node).await.map_err(refused)?;
            cx.out.done(&json!({ "node": node.to_string(), "state": "removed" }));
            cx.out.say(format_args!("removed node {node} from the cluster"));
            Ok::<_, Error>(())
        };
        let (asked, together) = ((self.confirmation, "Remove"), |_: &[_]| Vec::new());
        each_confirmed((&self.nodes, status), asked, cx, plan, together, run).await
    }
}

fn refused(error: dfs_client::Error) -> Error {
    let error = Error::from(error);
    match error.code() {
        ErrorCode::NotEmpty => error.hint("`dfs status` shows what each datanode holds"),
        _ => error,
    }
}

/// Returns what the removal of a node means, besides its replicas, if all of these are removed.
pub(super) fn removal_line(
    status: &ClusterStatus,
    node: &NodeStatus,
    removed: &[NodeId],
) -> String {
    let is_left =
        |other: &&NodeStatus| !removed.contains(&other.id) && other.state == NodeState::Active;
    let left = status.nodes.iter().filter(is_left);
    let free = left.clone().map(NodeStatus::free).fold(0, u64::saturating_add);
    let left = counted(left.count() as u64, "active datanode");
    let disks = counted(node.disks.len() as u64, "disk");
    let free = ByteSize(free);
    format!("  its {disks} are refused from then on; {left} with {free} free are left")
}

#[cfg(test)]
mod tests {
    use dfs_client::DiskStatus;
    use dfs_types::{ClusterId, DiskId};

    use super::*;

    #[test]
    fn plan_says_what_is_left_of_the_cluster() {
        let node = |id, state| {
            let mut node = NodeStatus::new(NodeId(id), "a:7080", state);
            node.disks = vec![DiskStatus::new(DiskId(id), 1 << 30)];
            node
        };
        let mut status = ClusterStatus::new(ClusterId(1));
        let states = [NodeState::Drained, NodeState::Active, NodeState::Active, NodeState::Lost];
        status.nodes = (1..).zip(states).map(|(id, state)| node(id, state)).collect();
        let line = |removed: &[NodeId]| removal_line(&status, &status.nodes[0], removed);
        let alone = line(&[NodeId(1)]);
        assert!(alone.contains("2 active datanodes with 2GiB free are left"), "{alone}");
        let both = line(&[NodeId(1), NodeId(2)]);
        assert!(both.contains("1 active datanode with 1GiB free"), "{both}");
    }
}
