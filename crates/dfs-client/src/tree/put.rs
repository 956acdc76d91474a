//! Puts trees.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use dfs_types::{Attributes, DfsPath, ErrorCode, FileKind, Name};
use tokio::sync::{mpsc, watch};

use super::local_entry::{Kind, LocalEntry};
use super::local_xattrs::LocalXattrs;
use super::{Copying, Done, TreeOptions, TreeReport};
use crate::local::{blocking, failure, printable};
use crate::{
    AttributeChanges, Client, Error, Follow, MakeDirectoryOptions, Precondition, PutOptions,
    PutSource, SymlinkOptions, XattrMode,
};

/// Maximum number of steps that the walk is ahead of the copying.
const WALK_AHEAD: usize = 1_024;

/// Closed once the directory was created, or could not be.
type Made = watch::Receiver<()>;

/// A step of the walk through a local tree, in order.
enum Step {
    /// A directory, before its entries. Dropping `made` lets them proceed.
    Directory {
        entry: LocalEntry,
        target: DfsPath,
        is_empty: bool,
        parent: Option<Made>,
        made: watch::Sender<()>,
    },
    /// A file or symlink.
    Leaf { entry: LocalEntry, target: DfsPath, parent: Option<Made> },
    /// An entry that cannot be read.
    Failed(Error),
    /// An entry within a tree that dfs cannot store.
    Special(PathBuf, &'static str),
}

/// A directory whose attributes are set once its entries are complete.
struct Unfinished {
    depth: usize,
    entry: LocalEntry,
    target: DfsPath,
}

impl Client {
    /// Copies local files and trees into the cluster, each to the path paired with it, whose parent
    /// must exist.
    ///
    /// Modes, owners, groups, mtimes, symlinks and extended attributes of the namespace `user.` are
    /// kept. Existing files are replaced, each atomically; existing directories are filled, and
    /// keep extended attributes of other names. A named path is copied or is an error: pipes,
    /// devices and files whose size is meaningless are read to their end. Within a tree, devices,
    /// sockets and pipes are skipped and counted.
    ///
    /// Without a [`crate::TreeObserver`] the first error ends the copy; with one that returns
    /// [`crate::OnError::Continue`] each entry that fails is counted and the others are copied.
    /// Dropping the future aborts the files in flight; those copied stay. A repeated copy completes
    /// what is missing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = dfs_fake::Cluster::start(3).await;
    /// # let client = dfs_fake::client!(cluster);
    /// use dfs_client::{DfsPath, TreeOptions};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let local = folder.path().join("notes");
    /// # std::fs::create_dir(&local)?;
    /// # std::fs::write(local.join("today"), "buy milk")?;
    /// let notes = DfsPath::new("/notes")?;
    /// let report = client.put_tree([(local, notes)], TreeOptions::default()).await?;
    /// assert_eq!((report.directories, report.files, report.bytes), (1, 1, 8));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put_tree(
        &self,
        sources: impl IntoIterator<Item = (PathBuf, DfsPath)>,
        options: TreeOptions,
    ) -> Result<TreeReport, Error> {
        let mut copying = Copying::new(self, options);
        let mut unfinished = Vec::new();
        for (source, target) in sources {
            let recursive = copying.options.recursive;
            let read = blocking(move || named(&source, recursive)).await;
            match read {
                Ok(entry) => Box::pin(copying.tree(entry, target, &mut unfinished)).await?,
                Err(error) => copying.fail(error),
            }
            copying.go_on()?;
        }
        copying.settle().await?;
        Box::pin(copying.finish_directories(unfinished)).await?;
        Ok(copying.report)
    }
}

/// Reads an entry named by the caller.
fn named(path: &Path, recursive: bool) -> Result<LocalEntry, Error> {
    let read = if recursive { LocalEntry::read } else { LocalEntry::read_following };
    let entry = read(path).map_err(|error| failure("read", path, &error))?;
    if entry.kind == Kind::Directory && !recursive {
        let shown = printable(path);
        let message = format!("cannot put {shown}: it is a directory");
        return Err(Error::new(ErrorCode::IsADirectory, shown, message));
    }
    Ok(entry)
}

impl Copying {
    async fn tree(
        &mut self,
        entry: LocalEntry,
        target: DfsPath,
        unfinished: &mut Vec<Unfinished>,
    ) -> Result<(), Error> {
        let (steps, mut walked) = mpsc::channel(WALK_AHEAD);
        let walking = blocking(move || {
            walk(entry, target, &steps);
            Ok(())
        });
        let copying = async {
            while let Some(step) = walked.recv().await {
                match step {
                    Step::Failed(error) => self.fail(error),
                    Step::Special(path, what) => self.skip(&path, what),
                    Step::Directory { entry, target, is_empty, parent, made } => {
                        let depth = target.names().count();
                        let is_whole =
                            is_empty && !entry.has_xattrs && entry.attributes.mode & 0o700 == 0o700;
                        let (made_entry, made_target) = (entry.clone(), target.clone());
                        self.directory(made_entry, made_target, is_whole, parent, made).await?;
                        if !is_whole {
                            unfinished.push(Unfinished { depth, entry, target });
                        }
                    }
                    Step::Leaf { entry, target, parent } => {
                        self.leaf(entry, target, parent).await?;
                    }
                }
                self.go_on()?;
            }
            Ok(())
        };
        let copied = copying.await;
        drop(walked);
        walking.await?;
        copied
    }

    /// Creates a directory once its parent exists. An empty one is complete then.
    async fn directory(
        &mut self,
        entry: LocalEntry,
        target: DfsPath,
        is_whole: bool,
        parent: Option<Made>,
        made: watch::Sender<()>,
    ) -> Result<(), Error> {
        let client = self.client.clone();
        self.start(Box::pin(async move {
            let _made = made;
            wait_for(parent).await;
            // Accessible to its owner until the end, whatever its final mode.
            let attributes = Attributes { mode: entry.attributes.mode | 0o700, ..entry.attributes };
            let options = MakeDirectoryOptions::default().attributes(attributes);
            let mut exists = false;
            match client.make_directory(&target, options).await {
                Ok(_) => {}
                Err(error) if error.code() == ErrorCode::AlreadyExists => {
                    match client.stat(&target, Follow::Yes).await {
                        Ok(stat) if stat.kind == FileKind::Directory => exists = true,
                        Ok(_) | Err(_) => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
            if !is_whole {
                return Ok(None);
            }
            if exists {
                let changes = AttributeChanges::all(&entry.attributes);
                client.set_attributes(&target, changes, Follow::Yes).await?;
            }
            Ok(Some(directory_done(entry, target, false)))
        }))
        .await
    }

    async fn leaf(
        &mut self,
        entry: LocalEntry,
        target: DfsPath,
        parent: Option<Made>,
    ) -> Result<(), Error> {
        let client = self.client.clone();
        let (attributes, create_only) = (entry.attributes, self.options.create_only);
        let has_xattrs = entry.has_xattrs;
        let local = entry.path;
        let is_hard_linked = match entry.kind {
            Kind::Symlink(to) => {
                return self
                    .start(Box::pin(async move {
                        wait_for(parent).await;
                        let options =
                            SymlinkOptions::default().attributes(attributes).replace(!create_only);
                        client.make_symlink(&target, to, options).await?;
                        Ok(Some(Done {
                            local,
                            path: target,
                            kind: FileKind::Symlink,
                            bytes: 0,
                            is_hard_linked: false,
                            some_xattrs_lost: has_xattrs,
                        }))
                    }))
                    .await;
            }
            Kind::File { size, is_hard_linked } => {
                self.found(size);
                is_hard_linked
            }
            Kind::Directory | Kind::Special(_) => false,
        };
        let mut options = PutOptions::default()
            .attributes(attributes)
            .replication_factor(self.options.replication_factor)
            .chunk_size(self.options.chunk_size)
            .precondition(create_only.then_some(Precondition::Absent));
        options.progress = self.progress();
        self.start(Box::pin(async move {
            wait_for(parent).await;
            let LocalXattrs { kept, some_lost } = local_xattrs(&local, has_xattrs).await?;
            let options = options.xattrs(kept);
            let stat = client.put(&target, PutSource::file(&local), options).await?;
            Ok(Some(Done {
                local,
                path: target,
                kind: FileKind::File,
                bytes: stat.size,
                is_hard_linked,
                some_xattrs_lost: some_lost,
            }))
        }))
        .await
    }

    /// Sets the attributes of directories, the deepest first: a parent may become inaccessible.
    async fn finish_directories(&mut self, mut unfinished: Vec<Unfinished>) -> Result<(), Error> {
        unfinished.sort_by_key(|directory| std::cmp::Reverse(directory.depth));
        let mut depth = usize::MAX;
        for directory in unfinished {
            if directory.depth < depth {
                self.settle().await?;
                depth = directory.depth;
            }
            let Unfinished { entry, target, .. } = directory;
            let client = self.client.clone();
            self.start(Box::pin(async move {
                let xattrs = local_xattrs(&entry.path, entry.has_xattrs).await?;
                for (name, value) in xattrs.kept {
                    client.set_xattr(&target, &name, value, XattrMode::Set, Follow::Yes).await?;
                }
                let changes = AttributeChanges::all(&entry.attributes);
                client.set_attributes(&target, changes, Follow::Yes).await?;
                Ok(Some(directory_done(entry, target, xattrs.some_lost)))
            }))
            .await?;
        }
        self.settle().await
    }
}

/// Reads the extended attributes, if there are any.
async fn local_xattrs(path: &Path, has_xattrs: bool) -> Result<LocalXattrs, Error> {
    if !has_xattrs {
        return Ok(LocalXattrs::default());
    }
    let path = path.to_owned();
    blocking(move || {
        LocalXattrs::read(&path)
            .map_err(|error| failure("read the extended attributes of", &path, &error))
    })
    .await
}

fn directory_done(entry: LocalEntry, target: DfsPath, some_xattrs_lost: bool) -> Done {
    Done {
        some_xattrs_lost,
        local: entry.path,
        path: target,
        kind: FileKind::Directory,
        bytes: 0,
        is_hard_linked: false,
    }
}

async fn wait_for(parent: Option<Made>) {
    if let Some(mut parent) = parent {
        // The channel is never written, only closed.
        drop(parent.changed().await);
    }
}

/// Walks a tree on a blocking thread. Ends early when the receiver is gone.
fn walk(top: LocalEntry, target: DfsPath, steps: &mpsc::Sender<Step>) {
    let mut pending = vec![Ok((top, target, None::<Made>))];
    let mut is_top = true;
    while let Some(next) = pending.pop() {
        let is_named = std::mem::take(&mut is_top);
        let step = match next {
            Err(error) => Step::Failed(error),
            Ok((entry, target, parent)) => match entry.kind {
                Kind::Directory => {
                    let (made, receiver) = watch::channel(());
                    let mut below = children(&entry, &target, &receiver);
                    let is_empty = below.is_empty();
                    below.reverse();
                    pending.append(&mut below);
                    Step::Directory { entry, target, is_empty, parent, made }
                }
                Kind::Special(what) if !is_named => Step::Special(entry.path, what),
                Kind::File { .. } | Kind::Symlink(_) | Kind::Special(_) => {
                    Step::Leaf { entry, target, parent }
                }
            },
        };
        if steps.blocking_send(step).is_err() {
            return;
        }
    }
}

type Found = Result<(LocalEntry, DfsPath, Option<Made>), Error>;

/// Returns the entries of a directory in name order, so that runs are reproducible.
fn children(entry: &LocalEntry, target: &DfsPath, made: &Made) -> Vec<Found> {
    match entry.children() {
        Ok(names) => {
            let found = |name: OsString| {
                let path = entry.path.join(&name);
                let (entry, target) = child(&path, name, target)?;
                Ok((entry, target, Some(made.clone())))
            };
            names.into_iter().map(found).collect()
        }
        Err(error) => vec![Err(failure("list", &entry.path, &error))],
    }
}

fn child(path: &Path, name: OsString, parent: &DfsPath) -> Result<(LocalEntry, DfsPath), Error> {
    let target = Name::new(name.into_vec()).and_then(|name| parent.join(&name));
    let target = target.map_err(|error| {
        let code =
            if error.is_too_long() { ErrorCode::NameTooLong } else { ErrorCode::InvalidArgument };
        let shown = printable(path);
        let message = format!("cannot put {shown} below {parent}: {error}");
        Error::new(code, shown, message)
    })?;
    let entry = LocalEntry::read(path).map_err(|error| failure("read", path, &error))?;
    Ok((entry, target))
}
