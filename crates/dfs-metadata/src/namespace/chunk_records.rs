//! Chunk records and their work keys.
//!
//! Their keys can only be made here, and only [`Transaction::put_chunk`] writes them, so a record
//! and its work keys always agree:
//!
//! - `w/r/<chunk>` exists iff the record is not at rest ([`Chunk::is_at_rest`]);
//! - `w/d/<chunk>` exists iff a replica is waiting for deletion, or the record is a tombstone.
//!
//! A coordinator that takes the worker lease reads `w/` to find the pending work.

use std::ops::Deref;

use bytes::Bytes;
use dfs_types::{Access, ChunkId, Revision, Scope};

use super::transaction::Transaction;
use super::{Chunk, Namespace};
use crate::records::setting::Mark;
use crate::records::work::Deletion;
use crate::{Error, keys};

/// The key of a chunk record or of its work. Not a [`Bytes`], so that no other code can put or
/// delete it.
pub(crate) struct ChunkKey(Bytes);

impl ChunkKey {
    pub(crate) fn record(chunk: ChunkId) -> Self {
        Self::new(keys::CHUNKS, chunk)
    }

    pub(crate) fn repair(chunk: ChunkId) -> Self {
        Self::new(keys::REPAIRS, chunk)
    }

    pub(crate) fn deletion(chunk: ChunkId) -> Self {
        Self::new(keys::DELETIONS, chunk)
    }

    fn new(prefix: &[u8], chunk: ChunkId) -> Self {
        Self(Bytes::from([prefix, &chunk.to_bytes()].concat()))
    }
}

impl Deref for ChunkKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// A record that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Key in printable form.
    pub key: String,
    /// Reason.
    pub why: String,
}

impl Unreadable {
    pub(super) fn new(key: &[u8], error: &Error) -> Self {
        Self { key: keys::show(key), why: error.to_string() }
    }
}

/// Position of a scan over all chunks.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScanCursor(Bytes);

impl ScanCursor {
    /// Returns the position behind a chunk.
    pub fn after(chunk: ChunkId) -> Self {
        Self(ChunkKey::record(chunk).0)
    }

    /// Returns the position behind a key, which may be empty.
    pub(super) fn from_key(key: Bytes) -> Self {
        Self(key)
    }

    /// Returns the key that the position is behind.
    pub(super) fn key(&self) -> Bytes {
        self.0.clone()
    }

    /// Returns whether the scan has passed a chunk.
    pub fn has_passed(&self, chunk: ChunkId) -> bool {
        ChunkKey::record(chunk).0 <= self.0
    }

    /// Returns the lowest chunk that the scan has not passed; `None` at the end of all ids, or for
    /// a damaged key.
    pub fn next_chunk(&self) -> Option<ChunkId> {
        keys::chunk_id(&self.0)?.0.checked_add(1).map(ChunkId)
    }
}

/// A page of chunks in id order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkPage {
    /// Revision of the snapshot.
    pub revision: Revision,
    /// Chunks, tombstones included.
    pub chunks: Vec<(ChunkId, Chunk)>,
    /// Records in the page that cannot be decoded.
    pub unreadable: Vec<Unreadable>,
    /// Start of the next page; `None` after the last.
    pub next: Option<ScanCursor>,
}

/// A page of chunks with work of one kind, in id order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkPage {
    /// Revision of the snapshot.
    pub revision: Revision,
    /// Chunks with their records.
    pub chunks: Vec<(ChunkId, Chunk)>,
    /// Records in the page that cannot be decoded.
    pub unreadable: Vec<Unreadable>,
    /// Start of the next page; `None` after the last.
    pub next: Option<ChunkId>,
}

impl Namespace {
    /// Returns chunks after a cursor: at most `limit`, and at most [`Self::PAGE_LEN_MAX`].
    pub async fn scan_chunks(
        &self,
        scope: &Scope,
        after: Option<&ScanCursor>,
        limit: usize,
    ) -> Result<ChunkPage, Error> {
        scope.require(Access::Admin)?;
        self.begin().await?.chunk_page(after, limit).await
    }

    /// Returns the records of these chunks, in this order; `None` for those without.
    pub async fn chunks(
        &self,
        scope: &Scope,
        ids: &[ChunkId],
    ) -> Result<Vec<Option<Chunk>>, Error> {
        scope.require(Access::Admin)?;
        self.begin().await?.peek_chunks(ids).await
    }

    /// Returns the records of these chunks, in this order; `None` for those without. Unreadable ones
    /// fail no others.
    pub async fn readable_chunks(
        &self,
        scope: &Scope,
        ids: &[ChunkId],
    ) -> Result<Vec<Result<Option<Chunk>, Unreadable>>, Error> {
        scope.require(Access::Admin)?;
        let found = self.begin().await?.try_peek_many::<Chunk>(&record_keys(ids)).await?;
        let unreadable =
            |(id, error): (&ChunkId, Error)| Unreadable::new(&ChunkKey::record(*id), &error);
        let records = ids.iter().zip(found);
        Ok(records.map(|(id, found)| found.map_err(|error| unreadable((id, error)))).collect())
    }

    /// Returns chunks after `after` that are not at rest: at most `limit`, and at most
    /// [`Self::PAGE_LEN_MAX`].
    pub async fn chunks_to_repair(
        &self,
        scope: &Scope,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<WorkPage, Error> {
        scope.require(Access::Admin)?;
        self.begin().await?.repair_page(after, limit).await
    }

    /// Returns chunks after `after` that are tombstones or have replicas whose deletion may begin.
    /// Considers at most `limit` and [`Self::PAGE_LEN_MAX`] chunks.
    pub async fn chunks_to_delete(
        &self,
        scope: &Scope,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<WorkPage, Error> {
        scope.require(Access::Admin)?;
        let tx = self.begin().await?;
        let now = self.now();
        let after = after.map(ChunkKey::deletion);
        let after = after.as_deref().unwrap_or(&[]);
        let found = tx.range::<Deletion>(keys::DELETIONS, after, page(limit)).await?;
        let is_full = found.len() == page(limit);
        let next = found.last().and_then(|(key, _)| keys::deletion_chunk(key));
        let due = found.into_iter().filter(|(_, deletion)| deletion.not_before <= now);
        let ids: Vec<_> = due.filter_map(|(key, _)| keys::deletion_chunk(&key)).collect();
        let work = tx.work_page(ids, usize::MAX).await?;
        Ok(WorkPage { next: next.filter(|_| is_full), ..work })
    }
}

fn page(limit: usize) -> usize {
    limit.clamp(1, Namespace::PAGE_LEN_MAX)
}

impl Transaction {
    /// Reads a chunk; the commit requires its record to be unchanged.
    pub(super) async fn chunk(&mut self, chunk: ChunkId) -> Result<Option<Chunk>, Error> {
        self.get(&ChunkKey::record(chunk).0).await
    }

    /// Reads a chunk without a condition.
    pub(super) async fn peek_chunk(&self, chunk: ChunkId) -> Result<Option<Chunk>, Error> {
        self.peek(&ChunkKey::record(chunk).0).await
    }

    /// Reads chunks without a condition, in this order.
    pub(super) async fn peek_chunks(
        &self,
        chunks: &[ChunkId],
    ) -> Result<Vec<Option<Chunk>>, Error> {
        self.peek_many(&record_keys(chunks)).await
    }

    /// Returns chunks after a cursor.
    pub(super) async fn chunk_page(
        &self,
        after: Option<&ScanCursor>,
        limit: usize,
    ) -> Result<ChunkPage, Error> {
        let limit = page(limit);
        let after = after.map_or(&[][..], |cursor| &cursor.0);
        let found = self.try_range::<Chunk>(keys::CHUNKS, after, limit).await?;
        let last = found.last().filter(|_| found.len() == limit);
        let next = last.map(|(key, _)| ScanCursor(key.clone()));
        let (mut chunks, mut unreadable) = (Vec::with_capacity(found.len()), Vec::new());
        for (key, record) in found {
            let record = record.and_then(|record| {
                let what = "not the key of a chunk";
                let damaged = || Error::Damaged { key: keys::show(&key), what };
                Ok((keys::chunk_id(&key).ok_or_else(damaged)?, record))
            });
            match record {
                Ok(record) => chunks.push(record),
                Err(error) => unreadable.push(Unreadable::new(&key, &error)),
            }
        }
        Ok(ChunkPage { revision: self.revision(), chunks, unreadable, next })
    }

    async fn work_page(&self, ids: Vec<ChunkId>, limit: usize) -> Result<WorkPage, Error> {
        let next = ids.last().copied().filter(|_| ids.len() == limit);
        let keys = record_keys(&ids);
        let records = self.try_peek_many::<Chunk>(&keys).await?;
        let (mut chunks, mut unreadable) = (Vec::with_capacity(ids.len()), Vec::new());
        for ((id, key), record) in ids.into_iter().zip(&keys).zip(records) {
            match record {
                Ok(record) => chunks.extend(record.map(|record| (id, record))),
                Err(error) => unreadable.push(Unreadable::new(key, &error)),
            }
        }
        Ok(WorkPage { revision: self.revision(), chunks, unreadable, next })
    }

    /// Returns chunks after `after` that are not at rest.
    pub(super) async fn repair_page(
        &self,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<WorkPage, Error> {
        let after = after.map(ChunkKey::repair);
        let found = self.range::<Mark>(keys::REPAIRS, after.as_deref().unwrap_or(&[]), page(limit));
        let ids = found.await?.into_iter().filter_map(|(key, _)| keys::repair_chunk(&key));
        self.work_page(ids.collect(), page(limit)).await
    }

    /// Changes a chunk record from `old`, as read with [`Self::chunk`], to `new`; `None` for no
    /// record. Maintains its work keys in the same commit: up to two keys besides the record, none
    /// for a chunk created with all its replicas.
    pub(super) fn put_chunk(&mut self, chunk: ChunkId, old: Option<&Chunk>, new: Option<&Chunk>) {
        let record = ChunkKey::record(chunk).0;
        match new {
            Some(new) => self.put(record, new),
            None => self.delete(record),
        }
        let needs_repair = |chunk: Option<&Chunk>| chunk.is_some_and(|chunk| !chunk.is_at_rest());
        match (needs_repair(old), needs_repair(new)) {
            (false, true) => self.put(ChunkKey::repair(chunk).0, &Mark),
            (true, false) => self.delete(ChunkKey::repair(chunk).0),
            _ => {}
        }
        let awaits_deletion = |chunk: Option<&Chunk>| chunk.is_some_and(Chunk::awaits_deletion);
        match (awaits_deletion(old), awaits_deletion(new)) {
            (false, true) => self.put(ChunkKey::deletion(chunk).0, &Deletion::default()),
            (true, false) => self.delete(ChunkKey::deletion(chunk).0),
            _ => {}
        }
    }

    /// Removes a damaged record that was read with [`Self::chunk`], and its work keys.
    pub(super) fn drop_unreadable_chunk(&mut self, chunk: ChunkId) {
        let keys = [ChunkKey::record(chunk), ChunkKey::repair(chunk), ChunkKey::deletion(chunk)];
        for key in keys {
            self.delete(key.0);
        }
    }
}

/// Returns the keys of chunk records, to read.
pub(super) fn record_keys(chunks: &[ChunkId]) -> Vec<Bytes> {
    chunks.iter().map(|chunk| ChunkKey::record(*chunk).0).collect()
}
