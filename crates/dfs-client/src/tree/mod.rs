//! Copying trees between the local disk and the cluster.

mod get;
mod local_entry;
mod local_xattrs;
mod pending;
mod put;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_types::{DfsPath, ErrorCode, FileKind};
use futures_util::future::BoxFuture;
use tokio::task::{JoinError, JoinSet};

use crate::{Client, Error, ProgressObserver};

/// Entries that are copied at the same time, when nothing else is asked for.
const PARALLEL: usize = 16;
/// Bound of that number.
const PARALLEL_MAX: usize = 1_024;

/// Options of [`Client::put_tree`] and [`Client::get_tree`].
#[derive(Clone)]
#[non_exhaustive]
pub struct TreeOptions {
    /// Whether directories are copied with everything below them.
    pub recursive: bool,
    /// Whether an existing file or symlink is an error instead of being replaced.
    pub create_only: bool,
    /// Number of entries copied at the same time.
    pub parallel: usize,
    /// Replicas of each byte that is put; the cluster's default when not set.
    pub replication_factor: Option<u32>,
    /// Greatest length of a chunk that is put, in bytes; 64 MiB when not set.
    pub chunk_size: Option<u64>,
    /// Learns what becomes of each entry.
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
    /// Copies directories with everything below them, and a symlink that is named as a symlink.
    /// Without it a directory is an error, and a symlink that is named stands for its target. Set
    /// by default.
    pub fn recursive(mut self, recursive: bool) -> Self {
        self.recursive = recursive;
        self
    }

    /// Makes an existing file or symlink an error instead of replacing it. Existing directories
    /// are filled in any case.
    pub fn create_only(mut self, create_only: bool) -> Self {
        self.create_only = create_only;
        self
    }

    /// Sets the number of entries copied at the same time, 1 to 1,024; 16 by default.
    pub fn parallel(mut self, entries: usize) -> Self {
        self.parallel = entries.clamp(1, PARALLEL_MAX);
        self
    }

    /// Sets the replicas of each byte that is put; `None` stands for the cluster's default.
    pub fn replication_factor(mut self, replicas: impl Into<Option<u32>>) -> Self {
        self.replication_factor = replicas.into();
        self
    }

    /// Sets the greatest length of a chunk that is put; `None` stands for 64 MiB.
    pub fn chunk_size(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.chunk_size = bytes.into();
        self
    }

    /// Sets what learns of each entry, and decides what an error means for the others.
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

/// Whether the other entries are copied after one of them failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// They are.
    Continue,
    /// The copy ends with the error.
    Stop,
}

/// What learns of the progress of a tree. Its methods are called from the task that copies, and
/// must not block for long.
pub trait TreeObserver: Send + Sync {
    /// A file with so many bytes was found.
    fn found(&self, bytes: u64) {
        let _ = bytes;
    }

    /// So many bytes have moved since the last call.
    fn moved(&self, bytes: u64) {
        let _ = bytes;
    }

    /// An entry was copied.
    fn copied(&self, entry: &Copied<'_>) {
        let _ = entry;
    }

    /// A device, socket or pipe within a tree was left out.
    fn skipped(&self, path: &Path, what: &'static str) {
        let _ = (path, what);
    }

    /// An entry was not copied.
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
    /// What it is.
    pub kind: FileKind,
    /// Bytes of a file; 0 for others.
    pub bytes: u64,
}

/// What was done to a tree: only what was completed is counted as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TreeReport {
    /// Files copied.
    pub files: u64,
    /// Directories made, or found, and given their attributes.
    pub directories: u64,
    /// Symlinks copied.
    pub symlinks: u64,
    /// Bytes of the files copied.
    pub bytes: u64,
    /// Names, among the files copied, that share a local file with others and now have a file of
    /// their own.
    pub hard_links: u64,
    /// Entries copied without some of the extended attributes that they have: those outside of the
    /// namespace `user.`, and those that the other side cannot hold.
    pub extended_attributes: u64,
    /// Devices, sockets and pipes within trees, which are left out.
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

/// What both directions share: a bounded number of entries under way, and what became of others.
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

    /// Starts to copy an entry, as soon as there is room for it. `None` is a step of an entry that
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

    /// Waits for everything under way.
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

    /// The callback for the bytes of one file.
    fn progress(&self) -> Option<ProgressObserver> {
        let observer = self.options.observer.clone()?;
        Some(Arc::new(move |bytes| observer.moved(bytes)))
    }

    fn go_on(&mut self) -> Result<(), Error> {
        self.stopped.take().map_or(Ok(()), Err)
    }
}
