//! `dfs ln`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use clap::Args;
use dfs_client::SymlinkOptions;
use dfs_types::ErrorCode;
use serde_json::json;

use crate::context::Context;
use crate::destination::Destination;
use crate::error::{Error, Result};
use crate::printable::printable;

/// Arguments of `dfs ln`.
#[derive(Debug, Args)]
#[command(after_help = "\
The target is stored as typed: relative to the link, or absolute within dfs.

Examples:
  dfs ln -s /data/2026 /current
  dfs ln -sf ../shared/config /app/config")]
pub(crate) struct LnArgs {
    /// The target of the link.
    target: OsString,
    /// The link, or a directory to create it in.
    link: OsString,
    /// Create a symbolic link, the only kind supported.
    #[arg(short, long)]
    symbolic: bool,
    /// Replace an existing file or link.
    #[arg(short, long)]
    force: bool,
}

pub(crate) async fn run(args: LnArgs, cx: &Context) -> Result<()> {
    if !args.symbolic {
        return Err(Error::new(ErrorCode::Unimplemented, "dfs has no hard links")
            .hint("use `dfs ln -s TARGET LINK` for a symbolic link"));
    }
    let destination = Destination::look_up(&args.link, 1, cx).await?;
    let target = args.target.as_bytes();
    let end = target.iter().rposition(|b| *b != b'/').map_or(target.len(), |last| last + 1);
    let name = target[..end].rsplit(|b| *b == b'/').next().unwrap_or_default();
    let link = destination.of_name(name)?;
    let options =
        SymlinkOptions::default().attributes(Context::own_attributes()).replace(args.force);
    cx.client.make_symlink(&link, args.target.clone().into_vec(), options).await?;
    cx.out.done(&json!({ "path": printable(link.as_bytes()), "target": printable(target) }));
    Ok(())
}
