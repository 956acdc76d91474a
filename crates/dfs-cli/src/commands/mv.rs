//! `dfs mv`.

use std::ffi::OsString;

use clap::Args;
use dfs_client::{Precondition, RenameOptions};
use serde_json::json;

use crate::context::Context;
use crate::destination::{Destination, split_destination};
use crate::error::{Result, remote_path};
use crate::printable::printable;

/// Arguments of `dfs mv`.
#[derive(Debug, Args)]
#[command(after_help = "\
An existing file is replaced; `dfs undelete` restores it.

Examples:
  dfs mv /a.txt /b.txt
  dfs mv /x /y /archive/        # into a directory")]
pub(crate) struct MvArgs {
    /// Sources, then the destination: a new name, or an existing directory.
    #[arg(required = true, value_name = "SOURCE... DESTINATION")]
    paths: Vec<OsString>,
    /// Do not replace existing files.
    #[arg(short, long)]
    no_clobber: bool,
    /// Accepted for compatibility: files are replaced without asking.
    #[arg(short, long)]
    force: bool,
}

pub(crate) async fn run(args: MvArgs, cx: &Context) -> Result<()> {
    let (sources, last) = split_destination(args.paths)?;
    let destination = Destination::look_up(&last, sources.len(), cx).await?;
    let options =
        RenameOptions::default().precondition(args.no_clobber.then_some(Precondition::Absent));
    let mut failures = cx.failures();
    for source in &sources {
        let moved = async {
            let from = remote_path(source)?;
            let to = destination.of_remote(&from)?;
            cx.client.rename(&from, &to, options).await?;
            let [from, to] = [&from, &to].map(|path| printable(path.as_bytes()));
            cx.out.done(&json!({ "from": from, "to": to }));
            Ok(())
        };
        failures.note(moved.await);
    }
    failures.into_result()
}
