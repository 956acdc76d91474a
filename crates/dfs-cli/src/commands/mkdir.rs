//! `dfs mkdir`.

use std::ffi::OsString;

use clap::Args;
use dfs_client::MakeDirectoryOptions;
use dfs_types::Attributes;
use serde_json::json;

use crate::context::Context;
use crate::error::{Error, Result, remote_path};
use crate::printable::printable;

/// Arguments of `dfs mkdir`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dfs mkdir /a /b
  dfs mkdir -p -m 750 /deep/down/here")]
pub(crate) struct MkdirArgs {
    /// The directories.
    #[arg(required = true)]
    paths: Vec<OsString>,
    /// Create missing parents too, and accept existing directories.
    #[arg(short, long)]
    parents: bool,
    /// Permission bits, in octal; the umask of the shell is not applied.
    #[arg(short, long, value_name = "MODE", default_value = "755", value_parser = octal)]
    mode: u32,
}

/// Parses octal permission bits, as `chmod` does.
pub(crate) fn octal(text: &str) -> std::result::Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= Attributes::MODE_MASK)
        .ok_or_else(|| "expected octal permission bits up to 7777, such as 755".to_owned())
}

pub(crate) async fn run(args: MkdirArgs, cx: &Context) -> Result<()> {
    let mut failures = cx.failures();
    for path in &args.paths {
        let made = async {
            let path = remote_path(path)?;
            let attributes = Attributes { mode: args.mode, ..Context::own_attributes() };
            cx.client
                .make_directory(
                    &path,
                    MakeDirectoryOptions::default().attributes(attributes).parents(args.parents),
                )
                .await
                .map_err(Error::from)?;
            cx.out.done(&json!({ "path": printable(path.as_bytes()) }));
            Ok(())
        };
        failures.note(made.await);
    }
    failures.into_result()
}
