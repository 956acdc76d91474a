//! `dfs undelete`.

use std::ffi::OsString;

use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::error::{Result, remote_path};
use crate::printable::printable;

/// Arguments of `dfs undelete`.
#[derive(Debug, Args)]
#[command(after_help = "\
Of several entries with the same name, the last one deleted or replaced is restored.

Examples:
  dfs undelete /report.txt
  dfs undelete /report.txt --to /report-before.txt")]
pub(crate) struct UndeleteArgs {
    /// Its former path.
    path: OsString,
    /// New path; the former one by default.
    #[arg(long, value_name = "PATH")]
    to: Option<OsString>,
}

pub(crate) async fn run(args: UndeleteArgs, cx: &Context) -> Result<()> {
    let path = remote_path(&args.path)?;
    let to = args.to.as_deref().map(remote_path).transpose()?;
    cx.client.undelete(&path, to.as_ref().map(Into::into)).await?;
    cx.out.done(&json!({ "path": printable(to.as_ref().unwrap_or(&path).as_bytes()) }));
    cx.out.say(format_args!("restored {}", to.as_ref().unwrap_or(&path)));
    Ok(())
}
