//! `dfs get`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{fs, io};

use clap::Args;
use dfs_client::{Entry, FileStat, Follow, GetOptions};
use dfs_types::{Attributes, ByteSize, DfsPath, ErrorCode, FileKind};
use serde_json::json;
use tokio::task::JoinSet;

use crate::context::{Context, Failures};
use crate::destination::split_destination;
use crate::error::{Error, Result, blocking, remote_path};
use crate::local_tree::{PendingFile, apply_attributes, apply_symlink_attributes};
use crate::progress::Progress;

/// What `dfs get` takes.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
A file gets its final name only when it is whole. Modes, mtimes and symlinks are restored; owner
and group too when root asks.

Examples:
  dfs get /docs/report.pdf .
  dfs get -r /backup restored
  dfs get /backup.tar - | tar t")]
pub(crate) struct GetArgs {
    /// What to copy, then where to: a new name, a directory that is there, or `-` for stdout.
    #[arg(required = true, value_name = "SOURCE... DESTINATION")]
    paths: Vec<OsString>,
    /// Directories with all that is below them.
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,
    /// Replace nothing: a file that is there is an error.
    #[arg(short, long)]
    no_clobber: bool,
    /// Accepted for the habit of it: files are replaced without asking.
    #[arg(short, long)]
    force: bool,
    /// Files to copy at the same time.
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
        let shown = crate::printable::printable(last.as_bytes());
        return Err(Error::new(
            ErrorCode::NotADirectory,
            format_args!("{shown} is not a directory"),
        )
        .hint(format_args!("`mkdir -p {shown}` makes one")));
    }
    let mut copy = Copy {
        started: Instant::now(),
        progress: Progress::start(cx.out, "get"),
        cx: cx.clone(),
        args,
        tally: Tally::default(),
        running: JoinSet::new(),
        directories: Vec::new(),
        failures: cx.failures(),
    };
    for source in &sources {
        let result = copy.source(source, &destination, is_directory).await;
        copy.failures.note(result);
    }
    copy.finish().await
}

/// What was done.
#[derive(Debug, Default)]
struct Tally {
    files: u64,
    directories: u64,
    symlinks: u64,
    bytes: u64,
}

struct Copy {
    args: GetArgs,
    cx: Context,
    progress: Progress,
    tally: Tally,
    running: JoinSet<Result<u64>>,
    /// Made, to get their attributes once nothing changes in them any more.
    directories: Vec<(PathBuf, Attributes)>,
    failures: Failures,
    started: Instant,
}

impl Copy {
    async fn source(&mut self, source: &OsStr, destination: &Path, into: bool) -> Result<()> {
        let path = remote_path(source)?;
        let follow = if self.args.recursive { Follow::No } else { Follow::Yes };
        let stat = self.cx.client.stat(&path, follow).await?;
        if stat.kind == FileKind::Directory && !self.args.recursive {
            return Err(Error::new(
                ErrorCode::IsADirectory,
                format_args!("cannot get {path}: it is a directory"),
            )
            .hint("-r copies it with all that is below it"));
        }
        match path.split_last() {
            Some((_, name)) if into => {
                let target = destination.join(OsStr::from_bytes(name.as_bytes()));
                self.tree(path, stat, target, false).await
            }
            // Where the user points to may be a symlink; what lies below is of this tree alone.
            _ => self.tree(path, stat, destination.to_owned(), true).await,
        }
    }

    async fn tree(
        &mut self,
        path: DfsPath,
        stat: FileStat,
        target: PathBuf,
        mut may_be_symlink: bool,
    ) -> Result<()> {
        if stat.kind != FileKind::Directory {
            self.leaf(path, stat, target).await;
            return Ok(());
        }
        let mut pending = vec![(path, stat, target)];
        while let Some((directory, stat, target)) = pending.pop() {
            let made = self.directory(&stat, &target, std::mem::take(&mut may_be_symlink)).await;
            if let Err(error) = made {
                self.failures.note(Err(error));
                continue;
            }
            let mut listing = self.cx.client.list(&directory);
            loop {
                let Entry { name, stat } = match listing.next().await {
                    Ok(Some(entry)) => entry,
                    Ok(None) => break,
                    Err(error) => {
                        self.failures.note(Err(error.into()));
                        break;
                    }
                };
                let below = target.join(OsStr::from_bytes(name.as_bytes()));
                match directory.join(&name) {
                    Err(error) => {
                        let error = format_args!("cannot get {name} in {directory}: {error}");
                        self.failures.note(Err(Error::new(ErrorCode::NameTooLong, error)));
                    }
                    Ok(child) if stat.kind == FileKind::Directory => {
                        pending.push((child, stat, below));
                    }
                    Ok(child) => self.leaf(child, stat, below).await,
                }
            }
        }
        Ok(())
    }

    async fn directory(
        &mut self,
        stat: &FileStat,
        target: &Path,
        may_be_symlink: bool,
    ) -> Result<()> {
        let made = target.to_owned();
        blocking(move || match fs::create_dir(&made) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let read = if may_be_symlink { fs::metadata } else { fs::symlink_metadata };
                if read(&made)?.is_dir() { Ok(()) } else { Err(error) }
            }
            result => result,
        })
        .await?
        .map_err(|error| Error::local("make the directory", target, &error))?;
        self.tally.directories += 1;
        self.directories.push((target.to_owned(), stat.attributes));
        Ok(())
    }

    async fn leaf(&mut self, path: DfsPath, stat: FileStat, target: PathBuf) {
        while self.running.len() >= usize::from(self.args.parallel) {
            self.take_finished().await;
        }
        let (cx, no_clobber) = (self.cx.clone(), self.args.no_clobber);
        if stat.kind == FileKind::Symlink {
            self.tally.symlinks += 1;
            self.running.spawn(async move {
                let shown = target.clone();
                blocking(move || write_symlink(&target, &stat, no_clobber))
                    .await?
                    .map_err(|error| Error::local("make the symlink", &shown, &error))?;
                Ok(0)
            });
        } else {
            self.tally.files += 1;
            self.progress.expect(stat.size);
            let options = GetOptions::default().progress(self.progress.observer());
            self.running
                .spawn(async move { write_file(&cx, &path, options, target, no_clobber).await });
        }
    }

    async fn take_finished(&mut self) {
        match self.running.join_next().await {
            Some(Ok(Ok(bytes))) => self.tally.bytes += bytes,
            Some(Ok(Err(error))) => self.failures.note(Err(error)),
            Some(Err(error)) => self.failures.note(Err(Error::new(ErrorCode::Internal, error))),
            None => {}
        }
    }

    async fn finish(mut self) -> Result<()> {
        while !self.running.is_empty() {
            self.take_finished().await;
        }
        let directories = std::mem::take(&mut self.directories);
        // The deepest first, as a directory that loses its rights cannot be entered any more.
        let applied = blocking(move || {
            directories
                .iter()
                .rev()
                .filter_map(|(path, attributes)| {
                    let error = apply_attributes(path, attributes).err()?;
                    Some(Error::local("restore the attributes of", path, &error))
                })
                .collect::<Vec<_>>()
        });
        for error in applied.await? {
            self.failures.note(Err(error));
        }
        self.progress.finish();
        self.report();
        self.failures.into_result()
    }

    fn report(&self) {
        let (tally, seconds) = (&self.tally, self.started.elapsed().as_secs_f64());
        if self.cx.out.is_json {
            self.cx.out.json(&json!({
                "files": tally.files,
                "directories": tally.directories,
                "symlinks": tally.symlinks,
                "bytes": tally.bytes,
                "failed": self.failures.count(),
                "seconds": seconds,
            }));
            return;
        }
        let rate = ByteSize((tally.bytes as f64 / seconds.max(1e-6)) as u64);
        self.cx.out.say(format_args!(
            "got {} files, {} directories, {} symlinks, {} in {seconds:.1} s ({rate}/s)",
            tally.files,
            tally.directories,
            tally.symlinks,
            ByteSize(tally.bytes),
        ));
        if self.failures.count() > 0 {
            self.cx.out.say(format_args!("{} entries failed", self.failures.count()));
        }
    }
}

async fn write_file(
    cx: &Context,
    path: &DfsPath,
    options: GetOptions,
    target: PathBuf,
    no_clobber: bool,
) -> Result<u64> {
    let shown = target.clone();
    let wanted = target.clone();
    let (pending, file) = blocking(move || {
        refuse_to_replace(&wanted, no_clobber)?;
        if fs::metadata(&wanted).is_ok_and(|metadata| metadata.is_dir()) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        PendingFile::create(&wanted)
    })
    .await?
    .map_err(|error| Error::local("write", &shown, &error))?;
    let stat = cx.client.get_to_file(path, options, file).await?;
    blocking(move || {
        apply_attributes(pending.path(), &stat.attributes)?;
        pending.keep()
    })
    .await?
    .map_err(|error| Error::local("write", &shown, &error))?;
    Ok(stat.size)
}

fn refuse_to_replace(target: &Path, no_clobber: bool) -> io::Result<()> {
    if no_clobber && fs::symlink_metadata(target).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    Ok(())
}

fn write_symlink(target: &Path, stat: &FileStat, no_clobber: bool) -> io::Result<()> {
    refuse_to_replace(target, no_clobber)?;
    if fs::symlink_metadata(target).is_ok_and(|metadata| !metadata.is_dir()) {
        fs::remove_file(target)?;
    }
    std::os::unix::fs::symlink(OsStr::from_bytes(&stat.symlink_target), target)?;
    apply_symlink_attributes(target, &stat.attributes)
}
