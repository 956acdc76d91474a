//! Reading: where the bytes of a file lie.

use std::ops::Range;

use bytes::Bytes;
use dfs_types::{Access, ChunkId, DfsPath, InodeId, Scope};

use super::resolve::{Last, resolve};
use super::transaction::Transaction;
use super::{Chunk, FileStat, Namespace, Target};
use crate::records::inode::{Content, Extent, File, Inode};
use crate::{Error, keys};

/// Asks where bytes of a file lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFile {
    /// The file.
    pub target: Target,
    /// First byte of interest.
    pub offset: u64,
    /// Bytes of interest; to the end when 0.
    pub length: u64,
    /// Extents in one answer; 0, or above [`Namespace::EXTENTS_MAX`], for that many.
    pub max_extents: usize,
}

/// Where bytes of a file lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPlan {
    /// The file.
    pub stat: FileStat,
    /// Those that touch the range, in file order.
    pub extents: Vec<ReadExtent>,
    /// Where the next page starts; `None` when this was the last.
    pub next_offset: Option<u64>,
}

/// A piece of a file in a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadExtent {
    /// Where in the file it starts.
    pub file_offset: u64,
    /// Its bytes.
    pub length: u64,
    /// The chunk.
    pub chunk_id: ChunkId,
    /// Where in the chunk it starts.
    pub chunk_offset: u64,
    /// What is known of the chunk.
    pub chunk: Chunk,
}

impl Namespace {
    /// Extents that one answer has at most.
    pub const EXTENTS_MAX: usize = 256;

    /// Says where the bytes of a file lie. A file that was opened before is readable by its
    /// number until it is taken apart; then [`Error::Stale`].
    pub async fn open_file(&self, scope: &Scope, request: &OpenFile) -> Result<ReadPlan, Error> {
        scope.require(Access::Read)?;
        let mut tx = self.begin().await?;
        let inode = match &request.target {
            Target::Path(path) => resolve(&mut tx, path, Last::Follow).await?.inode()?,
            Target::Inode(inode) => *inode,
        };
        let record = tx.peek::<Inode>(&keys::inode(inode)).await?.ok_or(Error::Stale(inode))?;
        let path = || match &request.target {
            Target::Path(path) => path.clone(),
            Target::Inode(_) => DfsPath::root(),
        };
        let file = match &record.content {
            Content::File(file) => file,
            Content::Directory(_) => return Err(Error::IsADirectory { path: path() }),
            Content::Symlink { .. } => return Err(Error::IsASymlink { path: path() }),
        };
        let stat = super::stat::describe(inode, &record, None);
        let end = match request.length {
            0 => file.size,
            length => request.offset.saturating_add(length).min(file.size),
        };
        let limit = match request.max_extents {
            0 => Self::EXTENTS_MAX,
            wanted => wanted.min(Self::EXTENTS_MAX),
        };
        let mut extents = extents_within(&tx, inode, file, request.offset..end, limit + 1).await?;
        let next_offset = extents.get(limit).map(|(file_offset, _)| *file_offset);
        extents.truncate(limit);
        let chunks: Vec<Bytes> = extents.iter().map(|(_, e)| keys::chunk(e.chunk)).collect();
        let chunks = tx.peek_many::<Chunk>(&chunks).await?;
        let mut read = Vec::with_capacity(extents.len());
        for ((file_offset, extent), chunk) in extents.into_iter().zip(chunks) {
            let key = || keys::show(&keys::chunk(extent.chunk));
            let damaged = || Error::Damaged { key: key(), what: "no chunk, but an extent in it" };
            let chunk = chunk.ok_or_else(damaged)?;
            let Extent { length, chunk: chunk_id, chunk_offset } = extent;
            read.push(ReadExtent { file_offset, length, chunk_id, chunk_offset, chunk });
        }
        Ok(ReadPlan { stat, extents: read, next_offset })
    }
}

/// The extents of a file that touch a range, in file order, at most `limit` of them.
async fn extents_within(
    tx: &Transaction,
    inode: InodeId,
    file: &File,
    range: Range<u64>,
    limit: usize,
) -> Result<Vec<(u64, Extent)>, Error> {
    let touches = |at: u64, extent: &Extent| at < range.end && at + extent.length > range.start;
    if range.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(extent) = file.single {
        return Ok(touches(0, &extent).then_some((0, extent)).into_iter().collect());
    }
    // No extent is longer than the chunk size, so none that starts so far before is touched.
    let before = range.start.checked_sub(file.chunk_size);
    let after = before.map_or_else(Bytes::new, |before| keys::extent(inode, before));
    let found = tx.range::<Extent>(&keys::extents(inode), &after, limit + 1).await?;
    let mut extents = Vec::with_capacity(found.len());
    for (key, extent) in found {
        let damaged = || Error::Damaged { key: keys::show(&key), what: "a key of no extent" };
        extents.push((keys::extent_offset(&key).ok_or_else(damaged)?, extent));
    }
    extents.retain(|(at, extent)| touches(*at, extent));
    extents.truncate(limit);
    Ok(extents)
}
