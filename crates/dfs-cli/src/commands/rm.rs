//! `dfs rm`.

use std::ffi::OsString;

use clap::Args;
use dfs_client::DeleteOptions;
use dfs_types::{ErrorCode, FileKind};
use serde_json::json;

use crate::context::Context;
use crate::error::{Error, Result, remote_path};
use crate::printable::printable;

/// Arguments of `dfs rm`.
#[derive(Debug, Args)]
#[command(after_help = "\
Deleted entries can be restored for a while with `dfs undelete`.

Examples:
  dfs rm /old.txt
  dfs rm -r /build /tmp/scratch
  dfs rm --now -rf /huge        # give the space back at once")]
pub(crate) struct RmArgs {
    /// Paths to delete.
    #[arg(required = true)]
    paths: Vec<OsString>,
    /// Delete directories recursively.
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,
    /// Delete empty directories.
    #[arg(short, long)]
    dir: bool,
    /// Ignore missing paths.
    #[arg(short, long)]
    force: bool,
    /// Free the space at once; nothing can be restored.
    #[arg(long)]
    now: bool,
}

pub(crate) async fn run(args: RmArgs, cx: &Context) -> Result<()> {
    let mut failures = cx.failures();
    for path in &args.paths {
        let path = match remote_path(path) {
            Ok(path) => path,
            Err(error) => {
                failures.note(Err(error));
                continue;
            }
        };
        let deleted = async {
            if path.is_root() {
                return Err(Error::usage("the root directory cannot be deleted")
                    .hint("name its entries, e.g. `dfs rm -r /name`"));
            }
            if !args.recursive && !args.dir {
                let stat = cx.client.stat(&path, dfs_client::Follow::No).await?;
                if stat.kind == FileKind::Directory {
                    return Err(Error::new(
                        ErrorCode::IsADirectory,
                        format_args!("cannot delete {path}: it is a directory"),
                    )
                    .hint("-r deletes it recursively, -d deletes it if empty"));
                }
            }
            let options = DeleteOptions::default().recursive(args.recursive).now(args.now);
            let deleted = cx.client.delete(&path, options).await;
            deleted.map_err(|error| match error.code() {
                ErrorCode::NotEmpty => {
                    Error::from(error).hint("-r deletes it with everything below it")
                }
                _ => error.into(),
            })?;
            cx.out.done(&json!({ "path": printable(path.as_bytes()), "restorable": !args.now }));
            Ok(())
        };
        match deleted.await {
            Err(error) if args.force && error.code() == ErrorCode::NotFound => {}
            result => failures.note(result),
        }
    }
    failures.into_result()
}
