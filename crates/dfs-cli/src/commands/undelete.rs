//! `dfs undelete`.

use std::ffi::OsString;

use clap::Args;
use dfs_types::ErrorCode;
use serde_json::json;

use crate::context::Context;
use crate::error::{Error, Result, remote_path};
use crate::printable::printable;

/// Arguments of `dfs undelete`.
#[derive(Debug, Args)]
#[command(after_help = "\
Of several entries with the same name, the last one deleted or replaced is restored. --to restores it
to another path, for example because its former one is in use.

Examples:
  dfs undelete /report.txt
  dfs undelete /report.txt --to /report-before.txt")]
pub(crate) struct UndeleteArgs {
    /// Its former path.
    path: OsString,
    /// Path to restore it to; the former one by default.
    #[arg(long, value_name = "PATH")]
    to: Option<OsString>,
}

pub(crate) async fn run(args: UndeleteArgs, cx: &Context) -> Result<()> {
    let path = remote_path(&args.path)?;
    let to = args.to.as_deref().map(remote_path).transpose()?;
    let restored = cx.client.undelete(&path, to.as_ref().map(Into::into)).await;
    restored.map_err(|error| match error.code() {
        ErrorCode::AlreadyExists => Error::from(error).hint("--to restores it to another path"),
        _ => error.into(),
    })?;
    cx.out.done(&json!({ "path": printable(to.as_ref().unwrap_or(&path).as_bytes()) }));
    cx.out.say(format_args!("restored {}", to.as_ref().unwrap_or(&path)));
    Ok(())
}
