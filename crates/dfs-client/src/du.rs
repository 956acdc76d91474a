//! Sizes of trees.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use dfs_types::{DfsPath, FileKind};
use futures_util::{Stream, StreamExt as _};

use crate::{Client, Error, Walk};

/// Total of a directory, or of the path asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The directory.
    pub path: DfsPath,
    /// Number of directories between it and the path asked for, which has depth 0.
    pub depth: usize,
    /// Bytes of the files and symlinks, each counted once, regardless of replication.
    pub bytes: u64,
    /// Number of entries, itself included.
    pub entries: u64,
}

/// The usage of every directory below a path, each after the directories it contains; the path
/// asked for comes last. Ends after its first error.
///
/// Memory is bounded by the depth of the tree.
pub struct DiskUsage {
    walk: Walk,
    /// Ancestors of the current position.
    open: Vec<Usage>,
    complete: VecDeque<Usage>,
    has_ended: bool,
}

impl Client {
    /// Sums up the sizes below a path.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = dfs_fake::Cluster::start(3).await;
    /// # let client = dfs_fake::client!(cluster);
    /// use dfs_client::DfsPath;
    /// use futures_util::TryStreamExt as _;
    /// # use dfs_client::{MakeDirectoryOptions, PutOptions, PutSource};
    ///
    /// # let path = DfsPath::new("/music")?;
    /// # client.make_directory(&path, MakeDirectoryOptions::default()).await?;
    /// # client.put(&DfsPath::new("/music/song")?, PutSource::bytes("la"), PutOptions::default()).await?;
    /// let usage: Vec<_> = client.du(&DfsPath::new("/music")?).try_collect().await?;
    /// let total = usage.last().expect("the path itself comes last");
    /// assert_eq!((total.bytes, total.entries), (2, 2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn du(&self, path: &DfsPath) -> DiskUsage {
        DiskUsage {
            walk: self.walk(path),
            open: Vec::new(),
            complete: VecDeque::new(),
            has_ended: false,
        }
    }
}

impl DiskUsage {
    /// Closes the directories at this depth and below, adding them to their parents.
    fn close(&mut self, depth: usize) {
        while self.open.len() > depth {
            let Some(ended) = self.open.pop() else { return };
            if let Some(parent) = self.open.last_mut() {
                parent.bytes += ended.bytes;
                parent.entries += ended.entries;
            }
            self.complete.push_back(ended);
        }
    }
}

impl Stream for DiskUsage {
    type Item = Result<Usage, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let du = self.get_mut();
        loop {
            if let Some(usage) = du.complete.pop_front() {
                return Poll::Ready(Some(Ok(usage)));
            }
            if du.has_ended {
                return Poll::Ready(None);
            }
            let entry = match ready!(du.walk.poll_next_unpin(cx)) {
                None => {
                    du.has_ended = true;
                    du.close(0);
                    continue;
                }
                Some(Err(error)) => {
                    du.has_ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(entry)) => entry,
            };
            du.close(entry.depth);
            match du.open.last_mut() {
                Some(parent) if entry.stat.kind != FileKind::Directory => {
                    parent.bytes += entry.stat.size;
                    parent.entries += 1;
                }
                _ => du.open.push(Usage {
                    path: entry.path,
                    depth: entry.depth,
                    bytes: entry.stat.size,
                    entries: 1,
                }),
            }
        }
    }
}

impl fmt::Debug for DiskUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskUsage").field("walk", &self.walk).finish_non_exhaustive()
    }
}
