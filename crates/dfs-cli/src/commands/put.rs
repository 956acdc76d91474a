//! `dfs put`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use clap::Args;
use dfs_client::{
    ByteSize, DfsPath, ErrorCode, Precondition, PutOptions, PutSource, TreeOptions, TreeReport,
};

use crate::context::Context;
use crate::destination::{Destination, split_destination};
use crate::error::{Error, Result, blocking};
use crate::printable::printable;
use crate::tree_report::TreeDisplay;

/// Arguments of `dfs put`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Existing files are replaced, each atomically. Modes, owners, groups, mtimes, symlinks and user.*
extended attributes are kept. Hard links become separate files. The content of a pipe or device
given as a source is copied; within a directory, devices, sockets and pipes are skipped and counted.

Examples:
  dfs put report.pdf /docs/
  dfs put -r src Cargo.toml /backup
  dfs put -r project/. /project       # its content, not the folder itself
  tar c . | dfs put - /backup.tar")]
pub(crate) struct PutArgs {
    /// Sources (`-` is stdin), then the destination: a new name, or an existing directory.
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
    /// Replicas of each byte; the cluster's default when not given.
    #[arg(long, value_name = "N")]
    replication_factor: Option<u32>,
    /// Maximum bytes of a chunk: a multiple of 64KiB, 64KiB to 1GiB.
    #[arg(long, value_name = "SIZE")]
    chunk_size: Option<ByteSize>,
    /// Files copied concurrently.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
}

pub(crate) async fn run(mut args: PutArgs, cx: &Context) -> Result<()> {
    let (sources, last) = split_destination(std::mem::take(&mut args.paths))?;
    let destination = Destination::look_up(&last, sources.len(), cx).await?;
    let display = TreeDisplay::start(cx, "put");
    let mut report = TreeReport::default();
    let mut trees = Vec::new();
    for source in sources {
        let target = if source == "-" {
            put_stdin(&args, &destination, &display, cx).await.map(|bytes| {
                report.files += 1;
                report.bytes += bytes;
                None
            })
        } else {
            target_of(&args, &source, &destination)
                .await
                .map(|target| Some((PathBuf::from(source), target)))
        };
        match target {
            Ok(tree) => trees.extend(tree),
            Err(error) => display.note(Err(error)),
        }
    }
    let options = TreeOptions::default()
        .recursive(args.recursive)
        .create_only(args.no_clobber)
        .parallel(args.parallel.into())
        .replication_factor(args.replication_factor)
        .chunk_size(args.chunk_size.map(|size| size.0))
        .observer(display.clone());
    let of_stdin = report;
    report = cx.client.put_tree(trees, options).await?;
    report.files += of_stdin.files;
    report.bytes += of_stdin.bytes;
    display.finish("put", &report)
}

/// Returns the destination of a source.
async fn target_of(
    args: &PutArgs,
    source: &OsString,
    destination: &Destination,
) -> Result<DfsPath> {
    if !args.recursive {
        let path = PathBuf::from(source);
        if blocking(move || std::fs::metadata(path)).await?.is_ok_and(|found| found.is_dir()) {
            let shown = printable(source.as_bytes());
            let message = format_args!("cannot put {shown}: it is a directory");
            return Err(
                Error::new(ErrorCode::IsADirectory, message).hint("-r copies it recursively")
            );
        }
    }
    match own_name(source) {
        Some(name) => destination.of_name(name),
        // `dir/.` and `..` have no name: their content is copied to the destination.
        None => match destination {
            Destination::Into(path) | Destination::Named(path) => Ok(path.clone()),
        },
    }
}

async fn put_stdin(
    args: &PutArgs,
    destination: &Destination,
    display: &TreeDisplay,
    cx: &Context,
) -> Result<u64> {
    let Destination::Named(path) = destination else {
        return Err(Error::usage("stdin requires a file name in dfs, not a directory"));
    };
    let options = PutOptions::default()
        .attributes(Context::own_attributes())
        .replication_factor(args.replication_factor)
        .chunk_size(args.chunk_size.map(|size| size.0))
        .precondition(args.no_clobber.then_some(Precondition::Absent))
        .progress(display.progress().observer());
    let stat = cx.client.put(path, PutSource::reader(tokio::io::stdin()), options).await?;
    Ok(stat.size)
}

/// Returns the last name of a source; none for `.`, `..`, `/` and paths that end in them.
fn own_name(source: &OsString) -> Option<&[u8]> {
    let bytes = source.as_bytes();
    let end = bytes.iter().rposition(|b| *b != b'/')? + 1;
    let name = bytes[..end].rsplit(|b| *b == b'/').next()?;
    (!matches!(name, b"" | b"." | b"..")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_keep_their_last_name() {
        for (source, name) in [
            ("a", Some("a")),
            ("a/b/", Some("b")),
            ("/a//", Some("a")),
            (".", None),
            ("a/.", None),
            ("..", None),
            ("/", None),
        ] {
            assert_eq!(own_name(&source.into()), name.map(str::as_bytes), "{source}");
        }
    }
}
