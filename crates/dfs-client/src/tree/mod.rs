//! Copies trees between the local disk and the cluster.

mod get;
mod local_entry;
mod local_xattrs;
mod put;
mod temporary_file;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_types::{DfsPath, ErrorCode, FileKind};
use futures_util::future::BoxFuture;
use tokio::task::{JoinError, JoinSet};

use crate::{Client, Error, ProgressObserver};

/// Default number of entries copied concurrently.
const PARALLEL: usize = 16;
/// Maximum of that number.
const PARALLEL_MAX: usize = 1_024;

/// Options of [`Client::put_tree`] and [`Client::get_tree`].
#[derive(Clone)]
#[non_exhaustive]
pub struct TreeOptions {
    /// True to copy directories with everything below them.
    pub recursive: bool,
    /// True to report an existing file or symlink as an error instead of replacing it.
    pub create_only: bool,
    /// Number of entries copied concurrently.
    pub parallel: usize,
    /// Replicas of each byte put; the cluster's default when not set.
    pub replication_factor: Option<u32>,
    /// Maximum length of a chunk put, in bytes; 64 MiB when not set.
    pub chunk_size: Option<u64>,
    /// Notified of the result of each entry.
    pub observer: Option<Arc<dyn TreeObserver>>,
}

impl Default for TreeOptions {
    fn default() -> Self {
        Self {
            recursive: true,
            create_only: false,
            parallel: PARALLEL,
            replication_factor: None,
            chunk_size: None,
            observer: None,
        }
    }
}

impl TreeOptions {
    /// Copies directories with everything below them, and a named symlink as a symlink. Otherwise a
    /// directory is an error, and a named symlink is followed. Set by default.
    pub fn recursive(mut self, recursive: bool) -> Self {
        self.recursive = recursive;
        self
    }

    /// Reports an existing file or symlink as an error instead of replacing it. Existing
    /// directories are filled in any case.
    pub fn create_only(mut self, create_only: bool) -> Self {
        self.create_only = create_only;
        self
    }

    /// Sets the number of entries copied concurrently, 1 to 1,024; 16 by default.
    pub fn parallel(mut self, entries: usize) -> Self {
        self.parallel = entries.clamp(1, PARALLEL_MAX);
        self
    }

    /// Sets the replicas of each byte put; `None` for the cluster's default.
    pub fn replication_factor(mut self, replicas: impl Into<Option<u32>>) -> Self {
        self.replication_factor = replicas.into();
        self
    }

    /// Sets the maximum length of a chunk put; `None` for 64 MiB.
    pub fn chunk_size(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.chunk_size = bytes.into();
        self
    }

    /// Sets the observer, which is notified of each entry and decides whether errors end the copy.
    pub fn observer(mut self, observer: Arc<dyn TreeObserver>) -> Self {
        self.observer = Some(observer);
        self
    }
}

impl fmt::Debug for TreeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeOptions")
            .field("recursive", &self.recursive)
            .field("create_only", &self.create_only)
            .field("parallel", &self.parallel)
            .finish_non_exhaustive()
    }
}

/// Reaction to the error of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The other entries are copied.
    Continue,
    /// The copy ends with the error.
    Stop,
}

/// Observer of the progress of a tree. Its methods are called from the copying task, and must not
/// block for long.
pub trait TreeObserver: Send + Sync {
    /// A file of `bytes` bytes was found.
    fn found(&self, bytes: u64) {
        let _ = bytes;
    }

    /// `bytes` more bytes were moved.
    fn moved(&self, bytes: u64) {
        let _ = bytes;
    }

    /// An entry was copied.
    fn copied(&self, entry: &Copied<'_>) {
        let _ = entry;
    }

    /// A device, socket or pipe within a tree was skipped.
    fn skipped(&self, path: &Path, what: &'static str) {
        let _ = (path, what);
    }

    /// An entry failed.
    fn failed(&self, error: &Error) -> OnError {
        let _ = error;
        OnError::Stop
    }
}

/// An entry that was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied<'a> {
    /// Its path on the local disk.
    pub local: &'a Path,
    /// Its path in the cluster.
    pub path: &'a DfsPath,
    /// Its kind.
    pub kind: FileKind,
    /// Bytes of a file; 0 for others.
    pub bytes: u64,
}

/// Result of copying a tree: counts only what was completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TreeReport {
    /// Files copied.
    pub files: u64,
    /// Directories created or found, with their attributes set.
    pub directories: u64,
    /// Symlinks copied.
    pub symlinks: u64,
    /// Bytes of the files copied.
    pub bytes: u64,
    /// Names, among the files copied, that shared a local file with others and are now separate
    /// files.
    pub hard_links: u64,
    /// Entries copied without some of their extended attributes: those outside the namespace
    /// `user.`, and those that the destination cannot hold.
    pub extended_attributes: u64,
    /// Devices, sockets and pipes skipped within trees.
    pub skipped: u64,
    /// Entries that failed.
    pub failed: u64,
}

/// An entry whose copy is complete.
struct Done {
    local: PathBuf,
    path: DfsPath,
    kind: FileKind,
    bytes: u64,
    is_hard_linked: bool,
    some_xattrs_lost: bool,
}

/// State shared by both directions: a bounded number of entries in flight, and the results.
struct Copying {
    client: Client,
    options: TreeOptions,
    report: TreeReport,
    running: JoinSet<Result<Option<Done>, Error>>,
    stopped: Option<Error>,
}

impl Copying {
    fn new(client: &Client, options: TreeOptions) -> Self {
        Self {
            client: client.clone(),
            options,
            report: TreeReport::default(),
            running: JoinSet::new(),
            stopped: None,
        }
    }

    /// Starts to copy an entry as soon as there is room for it. `None` is a step of an entry that
    /// is counted elsewhere. Fails once the copy is to stop.
    async fn start(
        &mut self,
        work: BoxFuture<'static, Result<Option<Done>, Error>>,
    ) -> Result<(), Error> {
        while self.running.len() >= self.options.parallel {
            let ended = self.running.join_next().await;
            self.take(ended)?;
        }
        self.running.spawn(self.client.in_request(work));
        self.go_on()
    }

    /// Waits for all entries in flight.
    async fn settle(&mut self) -> Result<(), Error> {
        while !self.running.is_empty() {
            let ended = self.running.join_next().await;
            self.take(ended)?;
        }
        self.go_on()
    }

    fn take(
        &mut self,
        ended: Option<Result<Result<Option<Done>, Error>, JoinError>>,
    ) -> Result<(), Error> {
        match ended {
            Some(Ok(Ok(Some(done)))) => self.done(&done),
            Some(Ok(Err(error))) => self.fail(error),
            Some(Err(error)) => {
                self.fail(Error::new(ErrorCode::Internal, "an entry", error.to_string()));
            }
            Some(Ok(Ok(None))) | None => {}
        }
        self.go_on()
    }

    fn done(&mut self, done: &Done) {
        let report = &mut self.report;
        match done.kind {
            FileKind::File => report.files += 1,
            FileKind::Directory => report.directories += 1,
            FileKind::Symlink => report.symlinks += 1,
            _ => {}
        }
        report.bytes += done.bytes;
        report.hard_links += u64::from(done.is_hard_linked);
        report.extended_attributes += u64::from(done.some_xattrs_lost);
        if let Some(observer) = &self.options.observer {
            let Done { local, path, kind, bytes, .. } = done;
            observer.copied(&Copied { local, path, kind: *kind, bytes: *bytes });
        }
    }

    fn fail(&mut self, error: Error) {
        self.report.failed += 1;
        let observer = self.options.observer.as_ref();
        if observer.is_none_or(|observer| observer.failed(&error) == OnError::Stop) {
            self.stopped.get_or_insert(error);
        }
    }

    fn skip(&mut self, path: &Path, what: &'static str) {
        self.report.skipped += 1;
        if let Some(observer) = &self.options.observer {
            observer.skipped(path, what);
        }
    }

    fn found(&self, bytes: u64) {
        if let Some(observer) = &self.options.observer {
            observer.found(bytes);
        }
    }

    /// Returns the callback for the bytes of one file.
    fn progress(&self) -> Option<ProgressObserver> {
        let observer = self.options.observer.clone()?;
        Some(Arc::new(move |bytes| observer.moved(bytes)))
    }

    fn go_on(&mut self) -> Result<(), Error> {
        self.stopped.take().map_or(Ok(()), Err)
    }
}
