//! `dfs du`.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::Args;
use dfs_client::{Entry, Follow};
use dfs_types::{DfsPath, FileKind};
use serde_json::json;

use crate::context::Context;
use crate::error::{Result, remote_path};
use crate::output::size_text;

/// What `dfs du` takes.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Sizes are those of the files, one copy counted.

Examples:
  dfs du -sh /home
  dfs du -d 1 /"
)]
pub(crate) struct DuArgs {
    /// What to sum up.
    #[arg(default_value = "/")]
    paths: Vec<OsString>,
    /// Only the totals of what is named.
    #[arg(short, long)]
    summarize: bool,
    /// Directories down to this depth.
    #[arg(short = 'd', long, value_name = "N")]
    max_depth: Option<usize>,
    /// Sizes as KiB, MiB, GiB.
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
    let top = remote_path(path)?;
    let stat = cx.client.stat(&top, Follow::No).await?;
    let depth_max = if args.summarize { 0 } else { args.max_depth.unwrap_or(usize::MAX) };
    let depth_of = |path: &DfsPath| path.names().count() - top.names().count();
    // Only directories that are shown are kept, so the memory is bounded by what is printed.
    let mut sums = BTreeMap::from([(top.clone(), (stat.size, 1_u64))]);
    let mut pending = Vec::from_iter((stat.kind == FileKind::Directory).then(|| top.clone()));
    while let Some(directory) = pending.pop() {
        let mut listing = cx.client.list(&directory);
        while let Some(Entry { name, stat }) = listing.next().await? {
            let Ok(child) = directory.join(&name) else { continue };
            let mut above = Some(directory.clone());
            while let Some(ancestor) = above.filter(|a| a.starts_with(&top)) {
                if let Some((bytes, entries)) = sums.get_mut(&ancestor) {
                    *bytes += stat.size;
                    *entries += 1;
                }
                above = ancestor.split_last().map(|(parent, _)| parent);
            }
            if stat.kind == FileKind::Directory {
                if depth_of(&child) <= depth_max {
                    sums.insert(child.clone(), (0, 1));
                }
                pending.push(child);
            }
        }
    }
    for (path, (bytes, entries)) in sums.iter().rev() {
        if cx.out.is_json {
            let path = crate::printable::printable(path.as_bytes());
            cx.out.json(&json!({ "path": path, "bytes": bytes, "entries": entries }));
        } else {
            cx.out.line(format_args!("{:<10} {path}", size_text(*bytes, args.human_readable)));
        }
    }
    Ok(())
}
