//! `dfs node safe-to-stop` and `dfs node maintenance`.

use std::time::Duration;

use clap::Args;
use dfs_client::{ClusterStatus, Maintenance, MaintenanceRequest, StopSafety};
use dfs_metadata::namespace::Node;
use dfs_types::{ErrorCode, NodeId};
use serde_json::json;

use super::node::{each, find};
use crate::confirmation::Confirmation;
use crate::context::Context;
use crate::duration::duration;
use crate::error::{Error, Result};
use crate::output::span_text;

/// Interval of asking again.
const POLL: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(after_help = "\
Safe means that every chunk keeps as many good replicas as a write needs, and at least one fewer
than wanted. Datanodes that are silent or in maintenance count as stopped. Exits with 0 when it is
safe, 5 when it is not safe now.

Examples:
  dfs node safe-to-stop 3f2a
  dfs node safe-to-stop 3f2a 9c01 --json | jq .chunks_below")]
pub(super) struct SafeToStopArgs {
    /// The datanodes.
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Replicas on a datanode in maintenance are not re-replicated, and it gets no new chunks. Maintenance
ends after the given time or with --end, not when the datanode comes back. Announcing it again
renews it. Asks when it is not safe that the datanode stops; exits with 2 when nobody can confirm.
With --require-safe, exits with 5 instead; concurrent requests for datanodes that must not be down
together are never both granted.

Examples:
  dfs node maintenance 3f2a --require-safe && reboot-that-machine
  dfs node maintenance 3f2a --for 10m
  dfs node maintenance 3f2a --end")]
pub(super) struct MaintenanceArgs {
    /// The datanodes, in order.
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
    /// Time after which it ends by itself: a number with s, m, h or d; at most 1d.
    #[arg(long = "for", value_name = "TIME", default_value = "1h", conflicts_with = "end",
          value_parser = ttl)]
    ttl: Duration,
    /// Start the maintenance only if the datanode can stop safely.
    #[arg(long, conflicts_with = "end")]
    require_safe: bool,
    /// End the maintenance now.
    #[arg(long)]
    end: bool,
    #[command(flatten)]
    confirmation: Confirmation,
}

/// Parses the length of a maintenance.
fn ttl(text: &str) -> std::result::Result<Duration, String> {
    let ttl = duration(text)?;
    if ttl > Node::MAINTENANCE_MAX {
        return Err(format!("at most {}", span_text(Node::MAINTENANCE_MAX)));
    }
    Ok(ttl)
}

impl SafeToStopArgs {
    /// Checks whether the nodes can stop at the same time.
    pub(super) async fn run(&self, status: &ClusterStatus, cx: &Context) -> Result<()> {
        let nodes = self.nodes.iter().map(|node| find(status, node)).collect::<Result<Vec<_>>>()?;
        let safety = safety(status, &nodes, cx).await?;
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
}

impl MaintenanceArgs {
    /// Puts each node into maintenance, or ends it.
    pub(super) async fn run(&self, status: &ClusterStatus, cx: &Context) -> Result<()> {
        each(&self.nodes, status, cx, async |node| {
            if self.end { end(status, node, cx).await } else { self.begin(status, node, cx).await }
        })
        .await
    }

    async fn begin(&self, status: &ClusterStatus, node: NodeId, cx: &Context) -> Result<()> {
        let mut wanted = MaintenanceRequest::new(self.ttl);
        if self.require_safe {
            wanted = wanted.require_safe();
        } else if self.confirmation.is_needed() && !is_in_maintenance(status, node) {
            let StopSafety { is_safe, reason, .. } = safety(status, &[node], cx).await?;
            if !is_safe {
                cx.out.say(format_args!("it is not safe to stop node {node}: {reason}"));
                self.confirmation.ask("Put it into maintenance nevertheless?", cx).await?;
            }
        }
        let admin = cx.client.admin();
        let granted = loop {
            match admin.begin_maintenance(status.cluster, node, wanted).await? {
                Maintenance::Refused(safety) if safety.is_pending => {
                    cx.out.say(&safety.reason);
                    tokio::time::sleep(POLL).await;
                }
                granted => break granted,
            }
        };
        match granted {
            Maintenance::Granted => {
                let left_ms = self.ttl.as_millis() as u64;
                cx.out.done(&json!({ "node": node.to_string(), "left_ms": left_ms }));
                let ttl = span_text(self.ttl);
                cx.out.say(format_args!("node {node} is in maintenance for {ttl}"));
                Ok(())
            }
            Maintenance::Refused(StopSafety { reason, .. }) => Err(Error::new(
                ErrorCode::Busy,
                format_args!("it is not safe to stop node {node}: {reason}"),
            )
            .hint("nothing was changed; `dfs status` shows what is being repaired")),
        }
    }
}

/// Returns whether a node may be down already.
fn is_in_maintenance(status: &ClusterStatus, node: NodeId) -> bool {
    status.nodes.iter().any(|found| found.id == node && found.maintenance_left.is_some())
}

/// Ends the maintenance of a node.
async fn end(status: &ClusterStatus, node: NodeId, cx: &Context) -> Result<()> {
    cx.client.admin().end_maintenance(status.cluster, node).await?;
    cx.out.done(&json!({ "node": node.to_string(), "left_ms": 0 }));
    cx.out.say(format_args!("maintenance of node {node} has ended"));
    Ok(())
}

/// Returns whether nodes can stop at the same time, once all chunks are checked.
async fn safety(status: &ClusterStatus, nodes: &[NodeId], cx: &Context) -> Result<StopSafety> {
    loop {
        let safety = cx.client.admin().safe_to_stop(status.cluster, nodes).await?;
        if !safety.is_pending {
            return Ok(safety);
        }
        cx.out.say(&safety.reason);
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maintenance_lasts_at_most_a_day() {
        assert_eq!(ttl("10m"), Ok(Duration::from_mins(10)));
        assert_eq!(ttl("1d"), Ok(Node::MAINTENANCE_MAX));
        assert_eq!(ttl("25h"), Err("at most 24 h".to_owned()));
    }
}
