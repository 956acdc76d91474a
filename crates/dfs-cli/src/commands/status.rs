//! `dfs status`.

use std::time::Duration;

use clap::Args;

use crate::context::Context;
use crate::error::Result;
use crate::json;
use crate::output::size_text;

/// Arguments of `dfs status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dfs status
  dfs status --json | jq .replication.under_replicated")]
pub(crate) struct StatusArgs {}

pub(crate) async fn run(_args: StatusArgs, cx: &Context) -> Result<()> {
    let status = cx.client.admin().status().await?;
    if cx.out.is_json {
        cx.out.json(&json::status(&status));
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
        if replication.unreadable_records > 0 {
            out.line(format_args!(
                "metadata records that cannot be read: {}, one of them {}; run `dfs metadata check`",
                replication.unreadable_records, replication.unreadable_example
            ));
        }
    } else {
        out.line("chunks: not counted yet");
    }
    out.line("");
    // Names in Kubernetes are longer than addresses.
    let wide = status.nodes.iter().map(|node| node.address.len()).fold(21, usize::max);
    out.line(format_args!(
        "{:<32} {:<wide$} {:<11} {:>9} {:>9}  heard",
        "node", "address", "state", "free", "chunks"
    ));
    for node in &status.nodes {
        let (free, chunks) = (node.free(), node.chunks());
        let heard = node.last_heard.map_or_else(|| "never".to_owned(), ago);
        let left = node.maintenance_left.map(|left| format!("  for {} more", span(left)));
        let left = left.unwrap_or_default();
        let mut note = match node.failed_disks() {
            0 => String::new(),
            failed => format!("  {failed} of {} disks failed", node.disks.len()),
        };
        if node.refuses_chunks {
            note.push_str("  accepts no new chunks");
        }
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
