//! Reading: which extents hold the bytes of a file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use dfs_types::{Access, ChunkId, InodeId, Scope, Target};

use super::resolve::{Last, resolve};
use super::transaction::Transaction;
use super::{Chunk, ChunkKey, Disks, FileStat, Namespace};
use crate::records::extent::Extent;
use crate::records::inode::{Content, File, Inode};
use crate::{Error, keys};

/// Locates bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFile {
    /// The file.
    pub target: Target,
    /// First byte wanted.
    pub offset: u64,
    /// Number of bytes wanted; 0 for all up to the end.
    pub length: u64,
    /// Maximum number of extents per reply; 0, or above [`Namespace::EXTENTS_MAX`], for that many.
    pub max_extents: usize,
}

/// Location of bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPlan {
    /// The file.
    pub stat: FileStat,
    /// Extents that touch the range, in file order, of any length. Bytes of the range between them
    /// are zeros.
    pub extents: Vec<ReadExtent>,
    /// Disks that their chunks name.
    pub disks: Arc<Disks>,
    /// Start of the next page; all bytes before it are covered by this one. `None` on the last
    /// page.
    pub next_offset: Option<u64>,
}

/// A piece of a file in a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadExtent {
    /// Offset in the file.
    pub file_offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// The chunk.
    pub chunk_id: ChunkId,
    /// Offset in the chunk.
    pub chunk_offset: u64,
    /// Record of the chunk.
    pub chunk: Chunk,
}

impl Namespace {
    /// Maximum number of extents per reply.
    pub const EXTENTS_MAX: usize = 256;

    /// Locates bytes of a file. A file already open can be read by inode until it is reaped; then
    /// [`Error::Stale`].
    pub async fn open_file(&self, scope: &Scope, request: &OpenFile) -> Result<ReadPlan, Error> {
        scope.require(Access::Read)?;
        let mut tx = self.begin().await?;
        let target = &request.target;
        let inode = resolve(&mut tx, target, Last::Follow).await?.inode()?;
        tx.read_ahead(vec![keys::inode(inode), keys::REPLICATION]).await?;
        let found = tx.peek_versioned::<Inode>(&keys::inode(inode)).await?;
        let (record, version) = found.ok_or(Error::Stale(inode))?;
        let target = || target.clone();
        let file = match &record.content {
            Content::File(file) => file,
            Content::Directory(_) => return Err(Error::IsADirectory { target: target() }),
            Content::Symlink { .. } => return Err(Error::IsASymlink { target: target() }),
            _ => return Err(Error::IsSpecial { target: target(), kind: record.kind() }),
        };
        let stat = tx.describe(inode, &record, None, tx.change(version)).await?;
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
        // Several extents may share a chunk, which is read once.
        let ids: BTreeSet<ChunkId> = extents.iter().map(|(_, extent)| extent.chunk).collect();
        let ids: Vec<ChunkId> = ids.into_iter().collect();
        let records = tx.peek_chunks(&ids).await?;
        let chunks: BTreeMap<ChunkId, Option<Chunk>> = ids.into_iter().zip(records).collect();
        let mut read = Vec::with_capacity(extents.len());
        for (file_offset, extent) in extents {
            let key = || keys::show(&ChunkKey::record(extent.chunk));
            let damaged = || Error::Damaged { key: key(), what: "an extent without its chunk" };
            let chunk = chunks.get(&extent.chunk).cloned().flatten().ok_or_else(damaged)?;
            let Extent { length, chunk: chunk_id, chunk_offset, .. } = extent;
            read.push(ReadExtent { file_offset, length, chunk_id, chunk_offset, chunk });
        }
        let disks = self.disks_of(read.iter().map(|extent| &extent.chunk)).await?;
        Ok(ReadPlan { stat, extents: read, disks, next_offset })
    }
}

/// Returns the extents of a file that touch a range, in file order, at most `limit`.
async fn extents_within(
    tx: &Transaction,
    inode: InodeId,
    file: &File,
    range: Range<u64>,
    limit: usize,
) -> Result<Vec<(u64, Extent)>, Error> {
    let touches =
        |at: u64, extent: &Extent| at < range.end && at.saturating_add(extent.length) > range.start;
    if range.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(extent) = file.single {
        return Ok(touches(0, &extent).then_some((0, extent)).into_iter().collect());
    }
    // Extents do not overlap, so of those that begin at or before the range only the last can reach
    // into it, however long they are.
    let (prefix, start) = (keys::extents(inode), keys::extent(inode, range.start));
    let first = tx.last_before::<Extent>(&prefix, &keys::extent(inode, range.start + 1)).await?;
    let others = tx.range::<Extent>(&prefix, &start, limit).await?;
    let mut extents = Vec::with_capacity(others.len() + 1);
    for (key, extent) in first.into_iter().chain(others) {
        let damaged = || Error::Damaged { key: keys::show(&key), what: "not the key of an extent" };
        extents.push((keys::extent_offset(&key).ok_or_else(damaged)?, extent));
    }
    extents.retain(|(at, extent)| touches(*at, extent));
    extents.truncate(limit);
    Ok(extents)
}
