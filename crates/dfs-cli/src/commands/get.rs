//! `dfs get`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use dfs_client::{DfsPath, ErrorCode, TreeOptions};

use crate::context::Context;
use crate::destination::split_destination;
use crate::error::{Error, Result, remote_path};
use crate::printable::printable;
use crate::tree_report::TreeDisplay;

/// Arguments of `dfs get`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
A file gets its final name only when complete. Modes, mtimes, symlinks and user.* extended
attributes are restored; owner and group only if run as root. A pipe or device given as the
destination is written to.

Examples:
  dfs get /docs/report.pdf .
  dfs get -r /backup restored
  dfs get /backup.tar - | tar t")]
pub(crate) struct GetArgs {
    /// Sources, then the destination: a new name, an existing directory, or `-` for stdout.
    #[arg(required = true, value_name = "SOURCE... DESTINATION")]
    paths: Vec<OsString>,
    /// Copy directories recursively.
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,
    /// Do not replace existing files; each one is an error.
    #[arg(short, long)]
    no_clobber: bool,
    /// Accepted for compatibility: files are replaced without asking.
    #[arg(short, long)]
    force: bool,
    /// Files copied concurrently.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
}

pub(crate) async fn run(mut args: GetArgs, cx: &Context) -> Result<()> {
    let (sources, last) = split_destination(std::mem::take(&mut args.paths))?;
    if last == "-" {
        for source in &sources {
            cx.write_to_stdout(&remote_path(source)?, 0, None).await?;
        }
        return Ok(());
    }
    let destination = PathBuf::from(&last);
    let is_directory = fs::metadata(&destination).is_ok_and(|metadata| metadata.is_dir());
    if !is_directory && (sources.len() > 1 || last.as_bytes().ends_with(b"/")) {
        let shown = printable(last.as_bytes());
        return Err(Error::new(
            ErrorCode::NotADirectory,
            format_args!("{shown} is not a directory"),
        )
        .hint(format_args!("`mkdir -p {shown}` creates one")));
    }
    let display = TreeDisplay::start(cx, "get");
    let mut trees = Vec::new();
    for source in &sources {
        match remote_path(source) {
            Ok(path) => {
                let local = local_path(&path, &destination, is_directory);
                trees.push((path, local));
            }
            Err(error) => display.note(Err(error)),
        }
    }
    let options = TreeOptions::default()
        .recursive(args.recursive)
        .create_only(args.no_clobber)
        .parallel(args.parallel.into())
        .observer(display.clone());
    let report = cx.client.get_tree(trees, options).await?;
    display.finish("got", &report)
}

/// Returns the destination of a source.
fn local_path(path: &DfsPath, destination: &Path, is_directory: bool) -> PathBuf {
    match path.split_last() {
        Some((_, name)) if is_directory => destination.join(OsStr::from_bytes(name.as_bytes())),
        // The directory named by the user may be a symlink; everything below comes from the tree.
        _ if is_directory => {
            fs::canonicalize(destination).unwrap_or_else(|_| destination.to_owned())
        }
        _ => destination.to_owned(),
    }
}
