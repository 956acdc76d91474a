//! `dfs stat`.

use std::ffi::OsString;

use clap::Args;
use dfs_client::{FileStat, Follow};
use dfs_types::FileKind;

use super::ls::kind_letter;
use crate::context::Context;
use crate::error::{Result, remote_path};
use crate::json;
use crate::output::{mode_text, time_text};
use crate::printable::printable;

/// Arguments of `dfs stat`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dfs stat /a.txt
  dfs stat --json /a /b | jq .size")]
pub(crate) struct StatArgs {
    /// Paths to show.
    #[arg(required = true)]
    paths: Vec<OsString>,
    /// Follow a symlink.
    #[arg(short = 'L', long)]
    dereference: bool,
}

pub(crate) async fn run(args: StatArgs, cx: &Context) -> Result<()> {
    let follow = if args.dereference { Follow::Yes } else { Follow::No };
    let mut failures = cx.failures();
    for path in &args.paths {
        let shown = async {
            let path = remote_path(path)?;
            let stat = cx.client.stat(&path, follow).await?;
            if cx.out.is_json {
                cx.out.json(&json::stat(&path, &stat));
                return Ok(());
            }
            let attributes = &stat.attributes;
            cx.out.line(format_args!("  path: {path}"));
            if stat.kind == FileKind::Symlink {
                cx.out.line(format_args!("target: {}", printable(&stat.symlink_target)));
            }
            cx.out.line(format_args!(
                "  kind: {}   size: {} bytes   inode: {}",
                stat.kind.name(),
                stat.size,
                stat.inode
            ));
            cx.out.line(format_args!(
                "  mode: {} ({:04o})   uid: {}   gid: {}",
                mode_text(kind_letter(stat.kind), attributes.mode),
                attributes.mode,
                attributes.uid,
                attributes.gid
            ));
            let nanos = attributes.mtime.nanos();
            cx.out.line(format_args!(
                " mtime: {}.{nanos:09} UTC",
                time_text(attributes.mtime.seconds())
            ));
            cx.out.line(format_args!(
                " ctime: {}.{:09} UTC",
                time_text(stat.ctime.seconds()),
                stat.ctime.nanos()
            ));
            let origin = replication_origin(&stat);
            match stat.kind {
                FileKind::File => cx
                    .out
                    .line(format_args!("replicas wanted: {} ({origin})", stat.replication_factor)),
                FileKind::Directory => cx.out.line(format_args!(
                    "replicas of new files: {} ({origin})",
                    stat.replication_factor
                )),
                _ => {}
            }
            Ok(())
        };
        failures.note(shown.await);
    }
    failures.into_result()
}

/// Returns who decides how many replicas an inode gets.
pub(crate) fn replication_origin(stat: &FileStat) -> &'static str {
    if stat.has_default_replication { "default of the cluster" } else { "set explicitly" }
}
