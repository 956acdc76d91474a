//! Gets trees.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dfs_types::{DfsPath, ErrorCode, FileKind, XattrName};
use futures_util::StreamExt as _;

use super::local_entry::{apply_attributes, apply_symlink_attributes};
use super::local_xattrs::apply_xattrs;
use super::temporary_file::TemporaryFile;
use super::{Copying, Done, TreeOptions, TreeReport};
use crate::in_progress::InProgressGuard;
use crate::local::{blocking, failure};
use crate::{Client, Error, FileStat, Follow, GetOptions, Target};

/// A directory whose attributes are set once its entries are complete.
struct Unfinished {
    path: DfsPath,
    local: PathBuf,
    stat: FileStat,
}

/// Destination of the bytes of a file.
enum Place {
    /// A new file, which replaces the existing one.
    Pending(TemporaryFile),
    /// An existing pipe or device.
    Special(File),
}

impl Client {
    /// Copies files and trees from the cluster to the local disk, each to the path paired with it.
    ///
    /// A file appears under its name only when complete; it is not synced. Modes, mtimes, symlinks
    /// and extended attributes of the namespace `user.` are restored, owners and groups when the
    /// process is root; entries whose extended attributes the local file system cannot hold are
    /// counted. Existing files are replaced; existing directories are filled. A file that is named
    /// is written as `cp` does: through a symlink, and into a pipe or device. Within a tree no
    /// symlink is followed, and a pipe or device in the way is an error.
    ///
    /// Without a [`crate::TreeObserver`] the first error ends the copy; with one that returns
    /// [`crate::OnError::Continue`] each entry that fails is counted and the others are copied.
    /// Dropping the future removes incomplete files; complete ones stay. Leftovers of a killed
    /// process are removed when the same file is copied again.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = dfs_fake::Cluster::start(3).await;
    /// # let client = dfs_fake::client!(cluster);
    /// use dfs_client::{DfsPath, TreeOptions};
    /// # use dfs_client::{MakeDirectoryOptions, PutOptions, PutSource};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let local = folder.path().join("notes");
    /// # client.make_directory(&DfsPath::new("/notes")?, MakeDirectoryOptions::default()).await?;
    /// # client.put(&DfsPath::new("/notes/today")?, PutSource::bytes("buy milk"), PutOptions::default()).await?;
    /// let notes = DfsPath::new("/notes")?;
    /// let report = client.get_tree([(notes, local.clone())], TreeOptions::default()).await?;
    /// assert_eq!((report.directories, report.files, report.bytes), (1, 1, 8));
    /// assert_eq!(std::fs::read(local.join("today"))?, b"buy milk");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_tree(
        &self,
        sources: impl IntoIterator<Item = (DfsPath, PathBuf)>,
        options: TreeOptions,
    ) -> Result<TreeReport, Error> {
        let mut copying = Copying::new(self, options);
        let mut unfinished = Vec::new();
        let follow = if copying.options.recursive { Follow::No } else { Follow::Yes };
        for (path, local) in sources {
            match self.stat(&path, follow).await {
                Ok(stat) => Box::pin(copying.fetch(path, stat, local, &mut unfinished)).await?,
                Err(error) => copying.fail(error),
            }
            copying.go_on()?;
        }
        copying.settle().await?;
        copying.restore_directories(unfinished).await?;
        Ok(copying.report)
    }
}

impl Copying {
    /// Copies the named entry.
    async fn fetch(
        &mut self,
        path: DfsPath,
        stat: FileStat,
        local: PathBuf,
        unfinished: &mut Vec<Unfinished>,
    ) -> Result<(), Error> {
        if stat.kind != FileKind::Directory {
            return self.fetch_leaf(path, stat, local, true).await;
        }
        if !self.options.recursive {
            let message = format!("cannot get {path}: it is a directory");
            self.fail(Error::new(ErrorCode::IsADirectory, path.to_string(), message));
            return Ok(());
        }
        let above = path.names().count();
        let mut walk = self.client.walk_from(path, stat);
        while let Some(entry) = walk.next().await {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.fail(error);
                    self.go_on()?;
                    continue;
                }
            };
            let names = entry.path.names().skip(above);
            let local = names
                .fold(local.clone(), |local, name| local.join(OsStr::from_bytes(name.as_bytes())));
            if entry.stat.kind != FileKind::Directory {
                self.fetch_leaf(entry.path, entry.stat, local, false).await?;
                continue;
            }
            let made = local.clone();
            match blocking(move || make_directory(&made)).await {
                Ok(()) => unfinished.push(Unfinished { path: entry.path, local, stat: entry.stat }),
                Err(error) => {
                    walk.skip_below(&entry);
                    self.fail(error);
                    self.go_on()?;
                }
            }
        }
        Ok(())
    }

    async fn fetch_leaf(
        &mut self,
        path: DfsPath,
        stat: FileStat,
        local: PathBuf,
        is_named: bool,
    ) -> Result<(), Error> {
        let client = self.client.clone();
        let create_only = self.options.create_only;
        if stat.kind == FileKind::Symlink {
            // Local file systems do not support the namespace `user.` for symlinks.
            let some_xattrs_lost = stat.xattrs > 0;
            return self
                .start(Box::pin(async move {
                    let target = local.clone();
                    blocking(move || {
                        write_symlink(&target, &stat, create_only)
                            .map_err(|error| failure("make the symlink", &target, &error))
                    })
                    .await?;
                    Ok(Some(done(local, path, FileKind::Symlink, 0, some_xattrs_lost)))
                }))
                .await;
        }
        self.found(stat.size);
        let options = GetOptions { progress: self.progress(), ..GetOptions::default() };
        self.start(Box::pin(async move {
            let (target, live) = (local.clone(), client.inner.in_progress.enter());
            let place = blocking(move || {
                place(&target, create_only, is_named, live)
                    .map_err(|error| failure("write", &target, &error))
            });
            let place = place.await?;
            let (bytes, some_xattrs_lost) =
                client.fetch_file(&path, &stat, options, &local, place).await?;
            Ok(Some(done(local, path, FileKind::File, bytes, some_xattrs_lost)))
        }))
        .await
    }

    /// Sets the attributes of directories, the deepest first: a parent may become inaccessible.
    async fn restore_directories(&mut self, unfinished: Vec<Unfinished>) -> Result<(), Error> {
        for directory in unfinished.into_iter().rev() {
            let Unfinished { path, local, stat } = directory;
            match self.client.restore_directory(&local, stat).await {
                Ok(some_xattrs_lost) => {
                    self.done(&done(local, path, FileKind::Directory, 0, some_xattrs_lost));
                }
                Err(error) => self.fail(error),
            }
            self.go_on()?;
        }
        Ok(())
    }
}

impl Client {
    /// Sets the attributes of a directory. Returns true if some extended attributes are lost.
    async fn restore_directory(&self, local: &Path, stat: FileStat) -> Result<bool, Error> {
        let xattrs = self.xattrs_of(&stat).await?;
        let local = local.to_owned();
        blocking(move || {
            let applied = apply_xattrs(&local, &xattrs)
                .and_then(|lost| apply_attributes(&local, &stat.attributes).map(|()| lost));
            applied.map_err(|error| failure("restore the attributes of", &local, &error))
        })
        .await
    }

    /// Reads the extended attributes of an inode, without a call when there are none.
    async fn xattrs_of(&self, stat: &FileStat) -> Result<BTreeMap<XattrName, Bytes>, Error> {
        match stat.xattrs {
            0 => Ok(BTreeMap::new()),
            _ => self.xattr_values(Target::Inode(stat.inode), Follow::No).await,
        }
    }

    /// Writes a file to its place. Returns its length, and true if some extended attributes are
    /// lost.
    async fn fetch_file(
        &self,
        path: &DfsPath,
        stat: &FileStat,
        options: GetOptions,
        local: &Path,
        place: Place,
    ) -> Result<(u64, bool), Error> {
        let mut pending = match place {
            Place::Special(file) => {
                let bytes = self.copy_in_order(path, options, local, file).await?;
                return Ok((bytes, false));
            }
            Place::Pending(pending) => pending,
        };
        let failed = |error: io::Error| failure("write", local, &error);
        let file = pending.file().map_err(failed)?;
        let inode = Target::Inode(stat.inode);
        let stat = match self.get_to_path(inode, options.clone(), file, local).await {
            // The listed version is gone; the path may have another one.
            Err(error) if matches!(error.code(), ErrorCode::Stale | ErrorCode::NotFound) => {
                let shown = local.to_owned();
                pending = blocking(move || {
                    let cleared = pending.file().and_then(|file| file.set_len(0));
                    cleared.map_err(|error| failure("write", &shown, &error))?;
                    Ok(pending)
                })
                .await?;
                let file = pending.file().map_err(failed)?;
                self.get_to_path(path, options, file, local).await?
            }
            got => got?,
        };
        let xattrs = self.xattrs_of(&stat).await?;
        let shown = local.to_owned();
        let some_xattrs_lost = blocking(move || {
            // Before the mode, which may forbid it.
            let kept = apply_xattrs(pending.path(), &xattrs).and_then(|lost| {
                apply_attributes(pending.path(), &stat.attributes)?;
                pending.keep()?;
                Ok(lost)
            });
            kept.map_err(|error| failure("write", &shown, &error))
        })
        .await?;
        Ok((stat.size, some_xattrs_lost))
    }

    /// Writes a file to a destination that accepts bytes only in order.
    async fn copy_in_order(
        &self,
        path: &DfsPath,
        options: GetOptions,
        local: &Path,
        file: File,
    ) -> Result<u64, Error> {
        let mut reader = self.get(path, options).await?;
        let file = Arc::new(file);
        let mut written = 0;
        while let Some(bytes) = reader.next().await? {
            written += bytes.len() as u64;
            let (file, shown) = (file.clone(), local.to_owned());
            blocking(move || {
                (&*file).write_all(&bytes).map_err(|error| failure("write", &shown, &error))
            })
            .await?;
        }
        Ok(written)
    }
}

fn done(local: PathBuf, path: DfsPath, kind: FileKind, bytes: u64, some_xattrs_lost: bool) -> Done {
    Done { local, path, kind, bytes, is_hard_linked: false, some_xattrs_lost }
}

/// Prepares the destination of a file. Blocks on a pipe until it has a reader.
fn place(
    target: &Path,
    create_only: bool,
    is_named: bool,
    live: InProgressGuard,
) -> io::Result<Place> {
    refuse_to_replace(target, create_only)?;
    let named = fs::symlink_metadata(target).ok().map(|metadata| metadata.file_type());
    // A named symlink is followed to its target.
    let is_symlink = is_named && named.is_some_and(|kind| kind.is_symlink());
    let target = if is_symlink { &fs::canonicalize(target)? } else { target };
    let kind = fs::symlink_metadata(target).ok().map(|metadata| metadata.file_type());
    match kind {
        Some(kind) if kind.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Some(kind) if !kind.is_file() && !kind.is_symlink() => {
            if is_named && !kind.is_socket() {
                // This may block indefinitely, and leaves nothing behind.
                drop(live);
                return Ok(Place::Special(File::options().write(true).open(target)?));
            }
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is a pipe, device or socket"))
        }
        _ => Ok(Place::Pending(TemporaryFile::create(target, live)?)),
    }
}

fn make_directory(path: &Path) -> Result<(), Error> {
    let made = match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Through a symlink the copy would escape its directory.
            match fs::symlink_metadata(path) {
                Ok(metadata) if metadata.is_dir() => Ok(()),
                _ => Err(error),
            }
        }
        made => made,
    };
    made.map_err(|error| failure("make the directory", path, &error))
}

fn refuse_to_replace(target: &Path, create_only: bool) -> io::Result<()> {
    if create_only && fs::symlink_metadata(target).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    Ok(())
}

fn write_symlink(target: &Path, stat: &FileStat, create_only: bool) -> io::Result<()> {
    refuse_to_replace(target, create_only)?;
    if fs::symlink_metadata(target).is_ok_and(|metadata| !metadata.is_dir()) {
        fs::remove_file(target)?;
    }
    std::os::unix::fs::symlink(OsStr::from_bytes(&stat.symlink_target), target)?;
    apply_symlink_attributes(target, &stat.attributes)
}
