//! `dfs df`.

use clap::Args;
use dfs_types::counted;

use crate::context::Context;
use crate::error::Result;
use crate::json;
use crate::output::size_text;

/// Arguments of `dfs df`.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Sizes are bytes on disk: a file takes its size times its replicas. The free space of a file system
is counted once, and lost datanodes do not count.

Examples:
  dfs df -h
  dfs df --json | jq .free"
)]
pub(crate) struct DfArgs {
    /// Print sizes as KiB, MiB, GiB.
    #[arg(short = 'h', long)]
    human_readable: bool,
    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

pub(crate) async fn run(args: DfArgs, cx: &Context) -> Result<()> {
    let status = cx.client.admin().status().await?;
    if cx.out.is_json {
        cx.out.json(&json::capacity(&status));
        return Ok(());
    }
    let replicas = u64::from(status.replication_factor.max(1));
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
        line(node.capacity(), node.free(), &format!("{} {} {}", node.id, node.address, node.state));
    }
    line(status.capacity(), status.free(), "all");
    cx.out.line(format_args!(
        "room for about {} of new files with {} each",
        size(status.free() / replicas),
        counted(replicas, "replica")
    ));
    Ok(())
}
