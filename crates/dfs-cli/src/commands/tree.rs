//! `dfs tree`.

use std::ffi::OsString;

use clap::Args;
use dfs_client::{Entry, Follow};
use dfs_types::{DfsPath, FileKind, counted};

use crate::context::Context;
use crate::error::{Result, remote_path};
use crate::printable::printable;

/// Arguments of `dfs tree`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dfs tree /
  dfs tree -L 2 /home")]
pub(crate) struct TreeArgs {
    /// Top of the tree.
    #[arg(default_value = "/")]
    path: OsString,
    /// Maximum depth.
    #[arg(short = 'L', long, value_name = "N")]
    level: Option<usize>,
    /// Include names that start with a dot.
    #[arg(short, long)]
    all: bool,
}

/// A directory whose entries are being printed.
struct Level {
    path: DfsPath,
    entries: std::vec::IntoIter<Entry>,
}

pub(crate) async fn run(args: TreeArgs, cx: &Context) -> Result<()> {
    let top = remote_path(&args.path)?;
    let stat = cx.client.stat(&top, Follow::Yes).await?;
    if cx.out.is_json {
        cx.out.json(&crate::json::stat(&top, &stat));
    } else {
        cx.out.line(&top);
    }
    let (mut directories, mut files) = (0_u64, 0_u64);
    let mut levels = Vec::new();
    if stat.kind == FileKind::Directory {
        levels.push(read_level(top, &args, cx).await?);
    }
    while let Some(level) = levels.last_mut() {
        let Some(Entry { name, stat }) = level.entries.next() else {
            levels.pop();
            continue;
        };
        let path = level.path.join(&name);
        match stat.kind {
            FileKind::Directory => directories += 1,
            _ => files += 1,
        }
        if cx.out.is_json {
            if let Ok(path) = &path {
                cx.out.json(&crate::json::stat(path, &stat));
            }
        } else {
            cx.out.line(branch(&levels, name.as_bytes(), &stat.symlink_target));
        }
        if let (FileKind::Directory, Ok(path)) = (stat.kind, path)
            && args.level.is_none_or(|max| levels.len() < max)
        {
            levels.push(read_level(path, &args, cx).await?);
        }
    }
    let (directories, files) = (counted(directories, "directory"), counted(files, "file"));
    cx.out.say(format_args!("\n{directories}, {files}"));
    Ok(())
}

async fn read_level(path: DfsPath, args: &TreeArgs, cx: &Context) -> Result<Level> {
    let mut entries = Vec::new();
    let mut listing = cx.client.list(&path);
    while let Some(entry) = listing.next().await? {
        if args.all || !entry.name.as_bytes().starts_with(b".") {
            entries.push(entry);
        }
    }
    Ok(Level { path, entries: entries.into_iter() })
}

fn branch(levels: &[Level], name: &[u8], target: &[u8]) -> String {
    let mut line = String::new();
    for (depth, level) in levels.iter().enumerate() {
        let (is_last_level, has_more) = (depth + 1 == levels.len(), level.entries.len() > 0);
        line.push_str(match (is_last_level, has_more) {
            (true, true) => "├── ",
            (true, false) => "└── ",
            (false, true) => "│   ",
            (false, false) => "    ",
        });
    }
    line.push_str(&printable(name));
    if !target.is_empty() {
        line.push_str(" -> ");
        line.push_str(&printable(target));
    }
    line
}
