//! `dfs put`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use dfs_client::{MakeDirectoryOptions, PutOptions, PutSource, SymlinkOptions};
use dfs_types::{ByteSize, DfsPath, ErrorCode, Name};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::context::{Context, Failures};
use crate::destination::{Destination, split_destination};
use crate::error::{Error, Result, blocking};
use crate::local_tree::{Entry, Kind};
use crate::printable::printable;
use crate::progress::Progress;

/// What `dfs put` takes.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Files that are there are replaced, each in one step. Modes, mtimes and symlinks are kept, owner and
group too. Hard links become files of their own; extended attributes, devices, sockets and pipes
are left out: the summary counts them.

Examples:
  dfs put report.pdf /docs/
  dfs put -r src Cargo.toml /backup
  dfs put -r project/. /project       what lies in it, not the folder itself
  tar c . | dfs put - /backup.tar")]
pub(crate) struct PutArgs {
    /// What to copy (`-` is stdin), then where to: a new name, or a directory that is there.
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
    /// Copies of each byte; the cluster's number when not given.
    #[arg(long, value_name = "N")]
    replication_factor: Option<u32>,
    /// Bytes a chunk holds at most: a multiple of 64KiB, 64KiB to 1GiB.
    #[arg(long, value_name = "SIZE")]
    chunk_size: Option<ByteSize>,
    /// Files to copy at the same time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
}

/// What the walk through the local tree comes across, in order.
enum Step {
    /// A directory, before anything in it.
    Directory(Entry, DfsPath),
    /// A file or symlink.
    Leaf(Entry, DfsPath),
    /// The next step is about something with extended attributes.
    ExtendedAttributes,
    /// Something that cannot be read or is left out.
    Failed(Error),
    /// Something that dfs cannot keep.
    Special(PathBuf, &'static str),
}

/// What was done, and what was not.
#[derive(Debug, Default)]
struct Tally {
    files: u64,
    directories: u64,
    symlinks: u64,
    bytes: u64,
    hard_linked: u64,
    extended_attributes: u64,
    special: u64,
}

/// Steps that the walk may be ahead of the copying.
const WALK_AHEAD: usize = 1_024;

pub(crate) async fn run(mut args: PutArgs, cx: &Context) -> Result<()> {
    let (sources, last) = split_destination(std::mem::take(&mut args.paths))?;
    let destination = Destination::look_up(&last, sources.len(), cx).await?;
    let started = Instant::now();
    let progress = Progress::start(cx.out, "put");
    let mut copy = Copy {
        args,
        cx: cx.clone(),
        progress,
        tally: Tally::default(),
        running: JoinSet::new(),
        directories: Vec::new(),
        failures: cx.failures(),
    };
    for source in sources {
        let result = copy.source(source, &destination).await;
        copy.failures.note(result);
    }
    copy.finish(started).await
}

struct Copy {
    args: PutArgs,
    cx: Context,
    progress: Progress,
    tally: Tally,
    running: JoinSet<Result<u64>>,
    /// Made, to get their attributes once nothing changes in them any more.
    directories: Vec<(DfsPath, Entry)>,
    failures: Failures,
}

impl Copy {
    async fn source(&mut self, source: OsString, destination: &Destination) -> Result<()> {
        if source == "-" {
            return self.stdin(destination).await;
        }
        let path = PathBuf::from(&source);
        let read = if self.args.recursive { Entry::read } else { Entry::read_following };
        let looked = path.clone();
        let entry = blocking(move || read(looked))
            .await?
            .map_err(|error| Error::local("read", &path, &error))?;
        let target = match own_name(&source) {
            Some(name) => destination.of_name(name)?,
            // `dir/.` and `..` have no name of their own: their content goes to the destination.
            None => match destination {
                Destination::Into(path) | Destination::Named(path) => path.clone(),
            },
        };
        match &entry.kind {
            Kind::Directory if !self.args.recursive => Err(Error::new(
                ErrorCode::IsADirectory,
                format_args!("cannot put {}: it is a directory", printable(source.as_bytes())),
            )
            .hint("-r copies it with all that is below it")),
            _ => self.tree(entry, target).await,
        }
    }

    async fn stdin(&mut self, destination: &Destination) -> Result<()> {
        let Destination::Named(path) = destination else {
            return Err(Error::usage("stdin needs a file name in dfs, not a directory"));
        };
        let source = PutSource::reader(tokio::io::stdin());
        let options = self.options(Context::own_attributes());
        let stat = self.cx.client.put(path, source, options).await?;
        self.tally.files += 1;
        self.tally.bytes += stat.size;
        Ok(())
    }

    fn options(&self, attributes: dfs_types::Attributes) -> PutOptions {
        PutOptions::default()
            .attributes(attributes)
            .replication_factor(self.args.replication_factor)
            .chunk_size(self.args.chunk_size.map(|size| size.0))
            .create_only(self.args.no_clobber)
            .progress(self.progress.observer())
    }

    async fn tree(&mut self, entry: Entry, target: DfsPath) -> Result<()> {
        let (steps, mut walked) = mpsc::channel(WALK_AHEAD);
        let walk = tokio::task::spawn_blocking(move || walk(entry, target, &steps));
        while let Some(step) = walked.recv().await {
            match step {
                Step::Failed(error) => self.failures.note(Err(error)),
                Step::Special(path, what) => {
                    self.tally.special += 1;
                    let path = printable(path.as_os_str().as_bytes());
                    self.cx.out.say(format_args!("skipped {path}: a {what}"));
                }
                Step::ExtendedAttributes => self.tally.extended_attributes += 1,
                Step::Directory(entry, target) => self.directory(entry, target).await,
                Step::Leaf(entry, target) => self.leaf(entry, target).await,
            }
        }
        walk.await.map_err(|error| Error::new(ErrorCode::Internal, error))
    }

    async fn directory(&mut self, entry: Entry, target: DfsPath) {
        // Open to its owner until the end, whatever its mode will be.
        let attributes =
            dfs_types::Attributes { mode: entry.attributes.mode | 0o700, ..entry.attributes };
        let made = self
            .cx
            .client
            .make_directory(&target, MakeDirectoryOptions::default().attributes(attributes))
            .await;
        match made {
            Ok(_) => {}
            Err(error) if error.code() == ErrorCode::AlreadyExists => {
                match self.cx.client.stat(&target, dfs_client::Follow::Yes).await {
                    Ok(stat) if stat.kind == dfs_types::FileKind::Directory => {}
                    Ok(_) | Err(_) => return self.failures.note(Err(error.into())),
                }
            }
            Err(error) => return self.failures.note(Err(error.into())),
        }
        self.tally.directories += 1;
        self.directories.push((target, entry));
    }

    async fn leaf(&mut self, entry: Entry, target: DfsPath) {
        while self.running.len() >= usize::from(self.args.parallel) {
            self.take_finished().await;
        }
        let (client, options) = (self.cx.client.clone(), self.options(entry.attributes));
        match entry.kind {
            Kind::File { size, is_hard_linked } => {
                self.tally.files += 1;
                self.tally.hard_linked += u64::from(is_hard_linked);
                self.progress.expect(size);
                self.running.spawn(async move {
                    let source = PutSource::file(entry.path.clone());
                    Ok(client.put(&target, source, options).await?.size)
                });
            }
            Kind::Symlink(to) => {
                self.tally.symlinks += 1;
                let replace = !self.args.no_clobber;
                self.running.spawn(async move {
                    let options =
                        SymlinkOptions::default().attributes(entry.attributes).replace(replace);
                    client.make_symlink(&target, to, options).await?;
                    Ok(0)
                });
            }
            Kind::Directory | Kind::Special(_) => {}
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

    async fn finish(mut self, started: Instant) -> Result<()> {
        while !self.running.is_empty() {
            self.take_finished().await;
        }
        // The deepest first: giving attributes to a directory leaves those above it alone, but
        // those above may take the right to look into it.
        for (target, entry) in std::mem::take(&mut self.directories).into_iter().rev() {
            let changes = dfs_client::AttributeChanges::all(&entry.attributes);
            while self.running.len() >= usize::from(self.args.parallel) {
                self.take_finished().await;
            }
            let client = self.cx.client.clone();
            self.running.spawn(async move {
                client.set_attributes(&target, changes, dfs_client::Follow::Yes).await?;
                Ok(0)
            });
        }
        while !self.running.is_empty() {
            self.take_finished().await;
        }
        self.progress.finish();
        self.report(started);
        self.failures.into_result()
    }

    fn report(&self, started: Instant) {
        let (tally, seconds) = (&self.tally, started.elapsed().as_secs_f64());
        if self.cx.out.is_json {
            self.cx.out.json(&json!({
                "files": tally.files,
                "directories": tally.directories,
                "symlinks": tally.symlinks,
                "bytes": tally.bytes,
                "hard_links_made_files": tally.hard_linked,
                "extended_attributes_left": tally.extended_attributes,
                "special_files_skipped": tally.special,
                "failed": self.failures.count(),
                "seconds": seconds,
            }));
            return;
        }
        let rate = ByteSize((tally.bytes as f64 / seconds.max(1e-6)) as u64);
        self.cx.out.say(format_args!(
            "put {} files, {} directories, {} symlinks, {} in {seconds:.1} s ({rate}/s)",
            tally.files,
            tally.directories,
            tally.symlinks,
            ByteSize(tally.bytes),
        ));
        for (count, what) in [
            (tally.hard_linked, "hard-linked names became files of their own"),
            (tally.extended_attributes, "entries lost their extended attributes"),
            (tally.special, "devices, sockets or pipes were skipped"),
            (self.failures.count(), "entries failed"),
        ] {
            if count > 0 {
                self.cx.out.say(format_args!("{count} {what}"));
            }
        }
    }
}

/// The name that a source brings along; none for `.`, `..`, `/` and what ends in them.
fn own_name(source: &OsString) -> Option<&[u8]> {
    let bytes = source.as_bytes();
    let end = bytes.iter().rposition(|b| *b != b'/')? + 1;
    let name = bytes[..end].rsplit(|b| *b == b'/').next()?;
    (!matches!(name, b"" | b"." | b"..")).then_some(name)
}

/// Runs in a thread that may block. Ends early when nobody listens any more.
fn walk(top: Entry, target: DfsPath, steps: &mpsc::Sender<Step>) {
    let mut pending = vec![Ok((top, target))];
    while let Some(next) = pending.pop() {
        let (entry, target) = match next {
            Ok(next) => next,
            Err(error) => {
                if steps.blocking_send(Step::Failed(error)).is_err() {
                    return;
                }
                continue;
            }
        };
        let mut below = Vec::new();
        if entry.kind == Kind::Directory {
            match entry.children() {
                Ok(paths) => below.extend(paths.into_iter().map(|path| look_at(&path, &target))),
                Err(error) => below.push(Err(Error::local("list", &entry.path, &error))),
            }
        }
        if entry.has_extended_attributes() && steps.blocking_send(Step::ExtendedAttributes).is_err()
        {
            return;
        }
        let step = match entry.kind {
            Kind::Directory => Step::Directory(entry, target),
            Kind::Special(what) => Step::Special(entry.path, what),
            Kind::File { .. } | Kind::Symlink(_) => Step::Leaf(entry, target),
        };
        if steps.blocking_send(step).is_err() {
            return;
        }
        pending.extend(below.into_iter().rev());
    }
}

fn look_at(path: &Path, parent: &DfsPath) -> Result<(Entry, DfsPath)> {
    let name = path.file_name().unwrap_or_default().to_owned().into_vec();
    let target = Name::new(name).and_then(|name| parent.join(&name)).map_err(|error| {
        let code =
            if error.is_too_long() { ErrorCode::NameTooLong } else { ErrorCode::InvalidArgument };
        let shown = printable(path.as_os_str().as_bytes());
        Error::new(code, format_args!("cannot put {shown} below {parent}: {error}"))
    })?;
    let entry = Entry::read(path.to_owned()).map_err(|e| Error::local("read", path, &e))?;
    Ok((entry, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_bring_their_last_name_along() {
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
