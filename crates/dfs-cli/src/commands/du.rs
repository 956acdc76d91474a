//! `dfs du`.

use std::ffi::OsString;

use clap::Args;
use dfs_client::Usage;
use futures_util::TryStreamExt as _;
use serde_json::json;

use crate::context::Context;
use crate::error::{Result, remote_path};
use crate::output::size_text;
use crate::printable::printable;

/// Arguments of `dfs du`.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Sizes are file sizes: replicas are not counted.

Examples:
  dfs du -sh /home
  dfs du -d 1 /"
)]
pub(crate) struct DuArgs {
    /// Paths to sum up.
    #[arg(default_value = "/")]
    paths: Vec<OsString>,
    /// Print only the total of each path.
    #[arg(short, long)]
    summarize: bool,
    /// Print directories down to this depth.
    #[arg(short = 'd', long, value_name = "N")]
    max_depth: Option<usize>,
    /// Print sizes as KiB, MiB, GiB.
    #[arg(short = 'h', long)]
    human_readable: bool,
    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

pub(crate) async fn run(args: DuArgs, cx: &Context) -> Result<()> {
    let mut failures = cx.failures();
    for path in &args.paths {
        failures.note(sum_up(path, &args, cx).await);
    }
    failures.into_result()
}

async fn sum_up(path: &OsString, args: &DuArgs, cx: &Context) -> Result<()> {
    let depth_max = if args.summarize { 0 } else { args.max_depth.unwrap_or(usize::MAX) };
    let mut usage = cx.client.du(&remote_path(path)?);
    while let Some(Usage { path, depth, bytes, entries, .. }) = usage.try_next().await? {
        if depth > depth_max {
            continue;
        }
        if cx.out.is_json {
            let path = printable(path.as_bytes());
            cx.out.json(&json!({ "path": path, "bytes": bytes, "entries": entries }));
        } else {
            cx.out.line(format_args!("{:<10} {path}", size_text(bytes, args.human_readable)));
        }
    }
    Ok(())
}
