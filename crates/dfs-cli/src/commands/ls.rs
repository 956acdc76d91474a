//! `dfs ls`.

use std::ffi::OsString;

use clap::Args;
use dfs_client::{Entry, FileStat, Follow};
use dfs_types::{DfsPath, FileKind};

use crate::context::Context;
use crate::error::{Result, remote_path};
use crate::json;
use crate::output::{mode_text, size_text, time_text};
use crate::printable::printable;

/// Arguments of `dfs ls`.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Examples:
  dfs ls /
  dfs ls -lh /logs
  dfs ls -R --json / | jq .path"
)]
pub(crate) struct LsArgs {
    /// Paths to list.
    #[arg(default_value = "/")]
    paths: Vec<OsString>,
    /// Print one line each, with mode, owner, group, size and time (UTC).
    #[arg(short, long)]
    long: bool,
    /// Include names that start with a dot.
    #[arg(short, long)]
    all: bool,
    /// List directories themselves, not their entries.
    #[arg(short, long)]
    directory: bool,
    /// List recursively.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Print sizes as KiB, MiB, GiB.
    #[arg(short = 'h', long)]
    human_readable: bool,
    /// Print help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

pub(crate) async fn run(args: LsArgs, cx: &Context) -> Result<()> {
    let mut failures = cx.failures();
    let has_titles = args.paths.len() > 1 || args.recursive;
    for path in &args.paths {
        failures.note(list(path, has_titles, &args, cx).await);
    }
    failures.into_result()
}

async fn list(path: &OsString, has_titles: bool, args: &LsArgs, cx: &Context) -> Result<()> {
    let path = remote_path(path)?;
    let follow = if args.long || args.directory { Follow::No } else { Follow::Yes };
    let stat = cx.client.stat(&path, follow).await?;
    if stat.kind != FileKind::Directory || args.directory {
        show(&path, path.as_bytes(), &stat, args, cx);
        return Ok(());
    }
    let mut pending = vec![path];
    let mut is_first = true;
    while let Some(directory) = pending.pop() {
        if has_titles && !cx.out.is_json {
            if !is_first {
                cx.out.line("");
            }
            cx.out.line(format_args!("{directory}:"));
        }
        is_first = false;
        let mut below = Vec::new();
        let mut listing = cx.client.list(&directory);
        while let Some(Entry { name, stat }) = listing.next().await? {
            if name.as_bytes().starts_with(b".") && !args.all {
                continue;
            }
            let child = directory.join(&name);
            if let Ok(child) = &child {
                show(child, name.as_bytes(), &stat, args, cx);
            }
            if args.recursive && stat.kind == FileKind::Directory {
                below.extend(child);
            }
        }
        pending.extend(below.into_iter().rev());
    }
    Ok(())
}

fn show(path: &DfsPath, name: &[u8], stat: &FileStat, args: &LsArgs, cx: &Context) {
    if cx.out.is_json {
        cx.out.json(&json::stat(path, stat));
        return;
    }
    let name = printable(name);
    if !args.long {
        cx.out.line(name);
        return;
    }
    let attributes = &stat.attributes;
    let size = size_text(stat.size, args.human_readable);
    let target = match stat.kind {
        FileKind::Symlink => format!(" -> {}", printable(&stat.symlink_target)),
        _ => String::new(),
    };
    cx.out.line(format_args!(
        "{} {:>5} {:>5} {size:>10} {} {name}{target}",
        mode_text(kind_letter(stat.kind), attributes.mode),
        attributes.uid,
        attributes.gid,
        time_text(attributes.mtime.seconds()),
    ));
}

/// Returns the letter with which `ls -l` starts a line.
pub(crate) fn kind_letter(kind: FileKind) -> char {
    match kind {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
        FileKind::CharacterDevice => 'c',
        FileKind::BlockDevice => 'b',
    }
}
