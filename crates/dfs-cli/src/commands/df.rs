//! `dfs df`.

use clap::Args;
use dfs_client::ClusterStatus;
use serde_json::json;

use crate::context::Context;
use crate::error::Result;
use crate::output::size_text;

/// What `dfs df` takes.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Bytes on disks: a file takes its size times its copies.

Examples:
  dfs df -h
  dfs df --json | jq .free"
)]
pub(crate) struct DfArgs {
    /// Sizes as KiB, MiB, GiB.
    #[arg(short = 'h', long)]
    human_readable: bool,
    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

pub(crate) async fn run(args: DfArgs, cx: &Context) -> Result<()> {
    let status = cx.client.admin().status().await?;
    let (capacity, free) = totals(&status);
    let used = capacity.saturating_sub(free);
    let copies = u64::from(status.replication_factor.max(1));
    if cx.out.is_json {
        cx.out.json(&json!({
            "capacity": capacity,
            "used": used,
            "free": free,
            "free_for_new_files": free / copies,
            "replication_factor": status.replication_factor,
        }));
        return Ok(());
    }
    let size = |bytes| size_text(bytes, args.human_readable);
    cx.out
        .line(format_args!("{:>14} {:>14} {:>14} {:>5}  node", "capacity", "used", "free", "use"));
    let line = |capacity: u64, free: u64, name: &str| {
        let used = capacity.saturating_sub(free);
        let percent = (used * 100).div_ceil(capacity.max(1));
        let (capacity, used, free) = (size(capacity), size(used), size(free));
        cx.out.line(format_args!("{capacity:>14} {used:>14} {free:>14} {percent:>4}%  {name}"));
    };
    for node in &status.nodes {
        let capacity = node.disks.iter().map(|disk| disk.capacity).sum();
        let free = node.disks.iter().map(|disk| disk.free).sum();
        line(capacity, free, &format!("{} {} {}", node.id, node.address, node.state));
    }
    line(capacity, free, "all");
    cx.out.line(format_args!(
        "room for about {} of new files with {copies} copies each",
        size(free / copies)
    ));
    Ok(())
}

/// Capacity and free bytes of all disks that are in use.
fn totals(status: &ClusterStatus) -> (u64, u64) {
    let disks = status.nodes.iter().flat_map(|node| &node.disks).filter(|disk| !disk.is_failed);
    disks.fold((0, 0), |(capacity, free), disk| (capacity + disk.capacity, free + disk.free))
}
