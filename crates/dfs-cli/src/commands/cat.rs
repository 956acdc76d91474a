//! `dfs cat`.

use std::ffi::OsString;

use clap::Args;

use crate::context::Context;
use crate::error::{Result, remote_path};

/// Arguments of `dfs cat`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dfs cat /logs/today
  dfs cat /a /b > both
  dfs cat --offset 1MiB --length 64KiB /disk.img | xxd")]
pub(crate) struct CatArgs {
    /// The files, in order.
    #[arg(required = true)]
    paths: Vec<OsString>,
    /// Start at this byte.
    #[arg(long, default_value = "0")]
    offset: dfs_types::ByteSize,
    /// Write at most this many bytes.
    #[arg(long)]
    length: Option<dfs_types::ByteSize>,
}

pub(crate) async fn run(args: CatArgs, cx: &Context) -> Result<()> {
    for path in &args.paths {
        let length = args.length.map(|l| l.0);
        cx.write_to_stdout(&remote_path(path)?, args.offset.0, length).await?;
    }
    Ok(())
}
