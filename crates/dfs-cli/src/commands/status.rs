//! `dfs status`.

use std::time::Duration;

use clap::Args;
use dfs_client::ReplicationStatus;
use serde_json::json;

use crate::commands::worker;
use crate::context::Context;
use crate::error::Result;
use crate::output::size_text;

/// What `dfs status` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dfs status
  dfs status --json | jq .replication.under_replicated")]
pub(crate) struct StatusArgs {}

pub(crate) async fn run(_args: StatusArgs, cx: &Context) -> Result<()> {
    let status = cx.client.admin().status().await?;
    if cx.out.is_json {
        let nodes = status.nodes.iter().map(|node| {
            json!({
                "id": node.id.to_string(),
                "address": node.address,
                "zone": node.zone,
                "host": node.host,
                "state": node.state.to_string(),
                "last_heard_ms": node.last_heard.map(|d| d.as_millis() as u64),
                "version": node.version,
                "refuses_chunks": node.refuses_chunks,
                "sessions": node.sessions,
                "maintenance_left_ms": node.maintenance_left.map(|d| d.as_millis() as u64),
                "disks": node.disks.iter().map(|disk| json!({
                    "id": disk.id.to_string(),
                    "capacity": disk.capacity,
                    "free": disk.free,
                    "chunks": disk.chunks,
                    "is_failed": disk.is_failed,
                })).collect::<Vec<_>>(),
            })
        });
        let counts = status.replication.as_ref();
        let count = |of: fn(&ReplicationStatus) -> u64| counts.map(of);
        cx.out.json(&json!({
            "cluster": status.cluster.to_string(),
            "incarnation": status.incarnation.0,
            "revision": status.revision.0,
            "version": status.version,
            "replication_factor": status.replication_factor,
            "min_write_replicas": status.min_write_replicas,
            "worker_lease_holder": status.worker_lease_holder,
            "nodes": nodes.collect::<Vec<_>>(),
            "replication": {
                "is_known": counts.is_some(),
                "chunks": count(|counts| counts.chunks),
                "under_replicated": count(|counts| counts.under_replicated),
                "missing": count(|counts| counts.missing),
                "bad_replicas": count(|counts| counts.bad_replicas),
                "repairing": count(|counts| counts.repairing),
            },
            "workers": status.workers.iter().map(worker::document).collect::<Vec<_>>(),
        }));
        return Ok(());
    }
    let out = cx.out;
    out.line(format_args!("cluster {}  dfs {}", status.cluster, status.version));
    out.line(format_args!(
        "replicas of new files: {}, durable before a write is acknowledged: {}",
        status.replication_factor, status.min_write_replicas
    ));
    if let Some(replication) = &status.replication {
        out.line(format_args!(
            "chunks: {}  under-replicated: {}  missing: {}  bad replicas: {}  repairing: {}",
            replication.chunks,
            replication.under_replicated,
            replication.missing,
            replication.bad_replicas,
            replication.repairing
        ));
    } else {
        out.line("chunks: not known yet, the coordinator is still counting");
    }
    out.line("");
    // Names in Kubernetes are longer than addresses.
    let wide = status.nodes.iter().map(|node| node.address.len()).fold(21, usize::max);
    out.line(format_args!(
        "{:<32} {:<wide$} {:<11} {:>9} {:>9}  heard",
        "node", "address", "state", "free", "chunks"
    ));
    for node in &status.nodes {
        let free: u64 = node.disks.iter().map(|disk| disk.free).sum();
        let chunks: u64 = node.disks.iter().map(|disk| disk.chunks).sum();
        let heard = node.last_heard.map_or_else(|| "never".to_owned(), ago);
        let left = node.maintenance_left.map(|left| format!("  for {} more", span(left)));
        let left = left.unwrap_or_default();
        let note = if node.refuses_chunks { "  takes no new chunks" } else { "" };
        out.line(format_args!(
            "{:<32} {:<wide$} {:<11} {:>9} {chunks:>9}  {heard}{left}{note}",
            node.id.to_string(),
            node.address,
            node.state.to_string(),
            size_text(free, true),
        ));
    }
    out.line("");
    for worker in &status.workers {
        out.line(format_args!(
            "worker {}: {}  done {}  failed {}  queued {}",
            worker.name, worker.state, worker.done, worker.failed, worker.queued
        ));
    }
    Ok(())
}

fn ago(elapsed: Duration) -> String {
    match elapsed.as_secs() {
        0 => "now".to_owned(),
        _ => format!("{} ago", span(elapsed)),
    }
}

fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}
