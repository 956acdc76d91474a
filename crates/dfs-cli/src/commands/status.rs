//! `dfs status`.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::Args;
use dfs_client::{ClusterStatus, DiskStatus, RefusedNode};
use dfs_types::{DiskState, ErrorCode, NodeState};
use tokio::time::sleep;

use crate::context::Context;
use crate::duration::duration;
use crate::error::{Error, Result};
use crate::json;
use crate::output::{size_text, span_text};

/// Arguments of `dfs status`.
#[derive(Debug, Args)]
#[command(after_help = "\
With --watch, shows the status again and again until it is interrupted: a terminal is cleared each
time, and with --json each status is one line. A cluster that does not respond is waited for.

Examples:
  dfs status
  dfs status --watch
  dfs status --json | jq .replication.under_replicated")]
pub(crate) struct StatusArgs {
    /// Show it repeatedly, until interrupted.
    #[arg(long)]
    watch: bool,
    /// Time between two updates: a number with s, m, h or d.
    #[arg(long, value_name = "TIME", default_value = "2s", requires = "watch",
          value_parser = duration)]
    every: Duration,
}

/// Clears a terminal and moves to its top.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(crate) async fn run(args: StatusArgs, cx: &Context) -> Result<()> {
    let is_terminal = !cx.out.is_json && io::stdout().is_terminal();
    loop {
        match cx.client.admin().status().await.map_err(Error::from) {
            Ok(status) => show(&status, args.watch && is_terminal, cx),
            Err(error) if args.watch && is_passing(error.code()) => cx.out.say(error),
            Err(error) => return Err(error),
        }
        if !args.watch {
            return Ok(());
        }
        sleep(args.every).await;
    }
}

/// Returns whether a later attempt may succeed.
fn is_passing(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Unavailable | ErrorCode::Busy | ErrorCode::OutcomeUnknown)
}

fn show(status: &ClusterStatus, clears: bool, cx: &Context) {
    if cx.out.is_json {
        cx.out.json(&json::status(status));
        return;
    }
    let mut text = lines(status).join("\n");
    if clears {
        text.insert_str(0, CLEAR);
    }
    cx.out.line(text);
}

/// Returns the lines of the status for people.
fn lines(status: &ClusterStatus) -> Vec<String> {
    let mut lines = vec![
        format!("cluster {}  dfs {}", status.cluster, status.version),
        format!(
            "replicas of files by default: {}, durable before a write is acknowledged: {}",
            status.replication_factor, status.min_write_replicas
        ),
    ];
    if let Some(replication) = &status.replication {
        lines.push(format!(
            "chunks: {}  under-replicated: {}  missing: {}  bad replicas: {}  repairing: {}",
            replication.chunks,
            replication.under_replicated,
            replication.missing,
            replication.bad_replicas,
            replication.repairing
        ));
        if replication.without_spare > 0 {
            let sole = replication.without_spare;
            lines.push(format!("chunks that are lost if one more replica is: {sole}"));
        }
        if replication.missing > 0 {
            lines.push("`dfs fsck` names the files that need missing chunks".to_owned());
        }
        if replication.unreadable_records > 0 {
            lines.push(format!(
                "metadata records that cannot be read: {}, one of them {}; run `dfs metadata check`",
                replication.unreadable_records, replication.unreadable_example
            ));
        }
    } else {
        lines.push("chunks: not counted yet".to_owned());
    }
    let reconciliation = &status.reconciliation;
    if let Some(elapsed) = reconciliation.last_whole {
        let orphans = match reconciliation.orphans {
            0 => String::new(),
            orphans => {
                let bytes = size_text(reconciliation.orphan_bytes, true);
                format!("  replicas of no file: {orphans} ({bytes})")
            }
        };
        lines.push(format!("disks compared with the metadata: {}{orphans}", ago(elapsed)));
    }
    lines.extend(status.repair_held.clone());
    for RefusedNode { node, address } in &status.refused_nodes {
        lines.push(format!(
            "refused: {address} has older copies of the disks of node {node}; `dfs node readmit` lets \
             it join"
        ));
    }
    lines.push(String::new());
    lines.extend(nodes(status));
    lines.push(String::new());
    for worker in &status.workers {
        let pause = worker.pause_left.map(|left| format!("paused for {} more, ", span_text(left)));
        lines.push(format!(
            "worker {}: {}{}  done {}  failed {}  queued {}",
            worker.name,
            pause.unwrap_or_default(),
            worker.state,
            worker.done,
            worker.failed,
            worker.queued
        ));
    }
    lines
}

/// Returns the table of nodes.
pub(super) fn nodes(status: &ClusterStatus) -> Vec<String> {
    // Names in Kubernetes are longer than addresses.
    let wide = status.nodes.iter().map(|node| node.address.len()).fold(21, usize::max);
    let mut lines = vec![format!(
        "{:<32} {:<wide$} {:<11} {:>9} {:>9}  heard",
        "node", "address", "state", "free", "chunks"
    )];
    for node in &status.nodes {
        let (free, chunks) = (node.free(), node.chunks());
        let heard = node.last_heard.map_or_else(|| "never".to_owned(), ago);
        let left = node.maintenance_left.map(|left| format!("  for {} more", span_text(left)));
        let left = left.or_else(|| {
            let is_suspect = node.state == NodeState::Suspect;
            let lost_in = node.lost_in.filter(|_| is_suspect).map(span_text)?;
            Some(format!("  repair begins in {lost_in}, once it is lost"))
        });
        let left = left.unwrap_or_default();
        let mut note = match node.faulty_disks().count() {
            0 => String::new(),
            faulty => format!("  {faulty} of {} disks not healthy", node.disks.len()),
        };
        if let Some(percent) = node.read_percent() {
            note = format!("  starting, {percent} % of its disks read");
        }
        if node.refuses_chunks {
            note.push_str("  accepts no new chunks");
        }
        lines.push(format!(
            "{:<32} {:<wide$} {:<11} {:>9} {chunks:>9}  {heard}{left}{note}",
            node.id.to_string(),
            node.address,
            node.state.to_string(),
            size_text(free, true),
        ));
        // A healthy disk may have a reason not to know all its replicas.
        let is_shown =
            |disk: &&DiskStatus| disk.state != DiskState::Healthy || !disk.reason.is_empty();
        for disk in node.disks.iter().filter(is_shown) {
            lines.push(format!("  disk {} is {}: {}", disk.id, disk.state, disk.reason));
        }
    }
    lines
}

fn ago(elapsed: Duration) -> String {
    match elapsed.as_secs() {
        0 => "now".to_owned(),
        _ => format!("{} ago", span_text(elapsed)),
    }
}

#[cfg(test)]
mod tests {
    use dfs_client::{NodeStatus, ReplicationStatus, WorkerStatus};
    use dfs_types::{ClusterId, DiskId, NodeId};

    use super::*;

    #[test]
    fn node_that_is_starting_shows_how_much_of_its_disks_was_read() {
        let mut status = ClusterStatus::new(ClusterId(1));
        let mut node = NodeStatus::new(NodeId(1), "a:7080", NodeState::Active);
        node.disks = (1..=4).map(|id| DiskStatus::new(DiskId(id), 10)).collect();
        for (disk, percent) in node.disks[1..3].iter_mut().zip([10, 50]) {
            disk.state = DiskState::Starting;
            disk.reason = format!("/{percent}: being read");
            disk.read_percent = Some(percent);
        }
        node.disks[3].state = DiskState::Failed;
        status.nodes = vec![node];
        let shown = nodes(&status).join("\n");
        assert!(shown.contains("starting, 53 % of its disks read"), "{shown}");
        assert!(shown.contains("is starting: /10: being read"), "{shown}");
    }

    #[test]
    fn suspect_node_shows_when_repair_begins() {
        let mut status = ClusterStatus::new(ClusterId(1));
        let mut node = NodeStatus::new(NodeId(1), "a:7080", NodeState::Suspect);
        node.lost_in = Some(Duration::from_secs(18));
        status.nodes = vec![node];
        let shown = nodes(&status).join("\n");
        assert!(shown.contains("repair begins in 18 s, once it is lost"), "{shown}");
        status.nodes[0].state = NodeState::Active;
        assert!(!nodes(&status).join("\n").contains("repair"), "it is not silent");
    }

    /// F15.
    #[test]
    fn f15_failed_disk_and_missing_chunks_are_shown() {
        let mut status = ClusterStatus::new(ClusterId(1));
        let mut node = NodeStatus::new(NodeId(1), "a:7080", NodeState::Active);
        node.disks = vec![DiskStatus::new(DiskId(1), 10), DiskStatus::new(DiskId(2), 10)];
        let shown = |status: &ClusterStatus, text: &str| lines(status).join("\n").contains(text);
        status.nodes = vec![node];
        assert!(!shown(&status, "disk") && shown(&status, "chunks: not counted yet"));
        status.nodes[0].disks[1].state = DiskState::Failed;
        status.nodes[0].disks[1].reason = "/b: no such device".to_owned();
        let mut counts = ReplicationStatus::default();
        counts.missing = 8;
        counts.without_spare = 3;
        counts.unreadable_records = 1;
        counts.unreadable_example = "k/1".to_owned();
        status.replication = Some(counts);
        status.refused_nodes = vec![RefusedNode { node: NodeId(7), address: "x:7080".to_owned() }];
        for text in [
            "lost if one more replica is: 3",
            "refused: x:7080 has older copies",
            "1 of 2 disks not healthy",
            "2 is failed: /b: no such device",
            "missing: 8",
            "cannot be read: 1, one of them k/1",
        ] {
            assert!(shown(&status, text), "{text}: {:?}", lines(&status));
        }
    }

    #[test]
    fn reason_of_a_healthy_disk_is_shown() {
        let mut node = NodeStatus::new(NodeId(1), "a:7080", NodeState::Active);
        node.disks = vec![DiskStatus::new(DiskId(1), 10)];
        node.disks[0].reason = "/a: 2 heads are unread".to_owned();
        let mut status = ClusterStatus::new(ClusterId(1));
        status.nodes = vec![node];
        let text = lines(&status).join("\n");
        assert!(text.contains("is healthy: /a: 2 heads are unread"), "{text}");
        assert!(!text.contains("not healthy"), "{text}");
    }

    #[test]
    fn paused_worker_is_shown_with_the_rest_of_its_pause() {
        let mut worker = WorkerStatus::new("repair");
        worker.state = "no chunk needs repair".to_owned();
        let mut status = ClusterStatus::new(ClusterId(1));
        status.workers = vec![worker];
        let last = |status: &ClusterStatus| lines(status).pop();
        let running = "worker repair: no chunk needs repair  done 0  failed 0  queued 0";
        assert_eq!(last(&status).as_deref(), Some(running));
        status.workers[0].pause_left = Some(Duration::from_mins(50));
        let paused = "worker repair: paused for 50 min more, no chunk needs repair  \
                      done 0  failed 0  queued 0";
        assert_eq!(last(&status).as_deref(), Some(paused));
    }
}
