//! Walks everything below a directory.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use dfs_types::{DfsPath, ErrorCode, FileKind};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Stream, StreamExt as _};

use crate::{Client, Error, FileStat, Follow, Listing};

/// An entry found by a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalkEntry {
    /// Its path.
    pub path: DfsPath,
    /// Number of directories between it and the top of the walk, which has depth 0.
    pub depth: usize,
    /// Its attributes.
    pub stat: FileStat,
}

/// A path and everything below it, depth first and in name order: each directory comes before its
/// entries. Symlinks are not followed.
///
/// A directory that cannot be listed yields an error in its place, and the walk continues after it.
/// Memory is bounded by one page of each ancestor directory, regardless of the size of the tree.
pub struct Walk {
    client: Client,
    /// The top, until it is resolved.
    top: Option<BoxFuture<'static, Result<WalkEntry, Error>>>,
    /// Ancestors of the current position.
    levels: Vec<Level>,
}

struct Level {
    path: DfsPath,
    listing: Listing,
}

impl Client {
    /// Walks a path and everything below it.
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
    /// let mut walk = client.walk(&DfsPath::new("/music")?);
    /// let mut found = Vec::new();
    /// while let Some(entry) = walk.try_next().await? {
    ///     found.push(entry.path.to_string());
    /// }
    /// assert_eq!(found, ["/music", "/music/song"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn walk(&self, path: &DfsPath) -> Walk {
        self.walk_top(path, Follow::No)
    }

    /// Walks a path and everything below it. If the path itself is a symlink, its target is the top,
    /// under the name of the symlink.
    pub fn walk_resolved(&self, path: &DfsPath) -> Walk {
        self.walk_top(path, Follow::Yes)
    }

    fn walk_top(&self, path: &DfsPath, follow: Follow) -> Walk {
        let (client, path) = (self.clone(), path.clone());
        let top = async move {
            let stat = client.stat(&path, follow).await?;
            Ok(WalkEntry { path, depth: 0, stat })
        };
        Walk { client: self.clone(), top: Some(top.boxed()), levels: Vec::new() }
    }

    /// Walks an entry whose path and inode are known.
    pub(crate) fn walk_from(&self, path: DfsPath, stat: FileStat) -> Walk {
        let top = std::future::ready(Ok(WalkEntry { path, depth: 0, stat }));
        Walk { client: self.clone(), top: Some(top.boxed()), levels: Vec::new() }
    }
}

impl Walk {
    /// Skips the entries of the last directory returned.
    pub fn skip_below(&mut self, entry: &WalkEntry) {
        if self.levels.last().is_some_and(|level| level.path == entry.path) {
            self.levels.pop();
        }
    }

    /// Descends into an entry, if it is a directory.
    fn enter(&mut self, entry: WalkEntry) -> WalkEntry {
        if entry.stat.kind == FileKind::Directory {
            let listing = self.client.list(&entry.path);
            self.levels.push(Level { path: entry.path.clone(), listing });
        }
        entry
    }
}

impl Stream for Walk {
    type Item = Result<WalkEntry, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let walk = self.get_mut();
        if let Some(top) = &mut walk.top {
            let top = ready!(top.poll_unpin(cx));
            walk.top = None;
            return Poll::Ready(Some(top.map(|entry| walk.enter(entry))));
        }
        loop {
            let depth = walk.levels.len();
            let Some(level) = walk.levels.last_mut() else { return Poll::Ready(None) };
            let entry = match ready!(level.listing.poll_next_unpin(cx)) {
                None => {
                    walk.levels.pop();
                    continue;
                }
                Some(Err(error)) => {
                    walk.levels.pop();
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(entry)) => entry,
            };
            let path = match level.path.join(&entry.name) {
                Ok(path) => path,
                Err(error) => {
                    let at = format!("{} in {}", entry.name, level.path);
                    let error = Error::new(ErrorCode::NameTooLong, at, error.to_string());
                    return Poll::Ready(Some(Err(error)));
                }
            };
            let entry = WalkEntry { path, depth, stat: entry.stat };
            return Poll::Ready(Some(Ok(walk.enter(entry))));
        }
    }
}

impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.levels.last().map(|level| &level.path);
        f.debug_struct("Walk").field("at", &at).finish_non_exhaustive()
    }
}
