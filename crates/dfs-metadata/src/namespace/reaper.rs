//! Reaping of unlinked inodes and expired uploads.

use std::collections::BTreeMap;

use bytes::Bytes;
use dfs_types::{Access, ChunkId, FileKind, InodeId, Scope, Timestamp};
use futures_util::stream::{self, StreamExt as _};

use super::transaction::{Attempt, Transaction};
use super::trash::AT_ONCE;
use super::{Namespace, Unreadable};
use crate::engine::Condition;
use crate::records::entry::Entry;
use crate::records::extent::Extent;
use crate::records::inode::{Content, Inode, Link};
use crate::records::unlinked::Unlinked;
use crate::records::upload::Upload;
use crate::{Error, keys};

/// Bounds of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReapLimits {
    /// Number of unlinked inodes, or uploads, to consider.
    pub items: usize,
    /// Also reaps what could still be restored, as space has run out.
    pub pressure: bool,
}

/// Result of one step, all of it committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Chunks that became tombstones; the deletion of their replicas may begin.
    pub tombstones: usize,
    /// Inodes and uploads reaped completely.
    pub finished: usize,
    /// Set if more is due now.
    pub has_more: bool,
    /// Items with unreadable records, which cannot be reaped: the first [`Self::UNREADABLE_MAX`].
    /// They do not block the others.
    pub unreadable: Vec<Unreadable>,
}

impl Reaped {
    /// Maximum number of unreadable records reported.
    pub const UNREADABLE_MAX: usize = 100;

    /// Counts the outcome of one item. Returns whether work was done for it.
    fn note(&mut self, key: &Bytes, taken: Result<Taken, Error>) -> Result<bool, Error> {
        match taken {
            Ok(Taken::Whole) => self.finished += 1,
            Ok(Taken::Partly) => self.has_more = true,
            Err(error @ (Error::Damaged { .. } | Error::NewerRecord { .. })) => {
                if self.unreadable.len() < Self::UNREADABLE_MAX {
                    self.unreadable.push(Unreadable::new(key, &error));
                }
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

impl Namespace {
    /// Reaps unlinked inodes that are due by a [confirmed](Self::confirmed_now) time, oldest first.
    /// Nothing while deletion is [not acknowledged](Self::may_delete).
    pub async fn reap(
        &self,
        scope: &Scope,
        limits: &ReapLimits,
        fence: Option<&Condition>,
    ) -> Result<Reaped, Error> {
        scope.require(Access::Admin)?;
        let mut reaped = Reaped::default();
        if !self.may_delete().await? {
            return Ok(reaped);
        }
        let tx = self.begin().await?;
        // What cannot be restored is due at any time.
        let horizon = keys::unlinked_after(self.expiry_now());
        let items = limits.items.clamp(1, Self::PAGE_LEN_MAX);
        let (mut after, mut left) = (Bytes::new(), items.min(STEPS_MAX));
        loop {
            let page = tx.try_range::<Unlinked>(keys::UNLINKED, &after, items).await?;
            let is_last = page.len() < items;
            let (mut due, mut is_over) = (Vec::new(), is_last);
            for (key, unlinked) in page {
                if !limits.pressure && key > horizon {
                    is_over = true;
                    break;
                }
                if unlinked.is_ok() && left == 0 {
                    (reaped.has_more, is_over) = (true, true);
                    break;
                }
                left -= usize::from(unlinked.is_ok());
                after.clone_from(&key);
                due.push((key, unlinked));
            }
            left += self.reap_inodes(due, fence, &mut reaped).await?;
            if is_over {
                return Ok(reaped);
            }
        }
    }

    /// Reaps unlinked inodes, several at once, so that they share commits of the engine. Returns how many
    /// of those with a readable record of their own proved unreadable.
    async fn reap_inodes(
        &self,
        due: Vec<(Bytes, Result<Unlinked, Error>)>,
        fence: Option<&Condition>,
        reaped: &mut Reaped,
    ) -> Result<usize, Error> {
        let reap = |(key, unlinked): (Bytes, Result<Unlinked, Error>)| async move {
            let (mut tombstones, is_readable) = (0, unlinked.is_ok());
            let taken = match unlinked {
                Ok(unlinked) => {
                    let taken = self.reap_inode(&key, fence, &mut tombstones).await;
                    taken.map(|taken| (taken, unlinked.kind))
                }
                Err(error) => Err(error),
            };
            (key, is_readable, taken, tombstones)
        };
        // To the end of all of them, as each may have committed something.
        let results: Vec<_> = stream::iter(due).map(reap).buffered(INODES_AT_ONCE).collect().await;
        let (mut unreadable, mut failure) = (0, None);
        for (key, is_readable, taken, tombstones) in results {
            reaped.tombstones += tombstones;
            // Its entries are now due as well.
            reaped.has_more |= matches!(taken, Ok((_, FileKind::Directory)));
            match reaped.note(&key, taken.map(|(taken, _)| taken)) {
                Ok(is_taken) => unreadable += usize::from(is_readable && !is_taken),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(unreadable), Err)
    }

    /// Reaps staged uploads that have expired by a [confirmed](Self::confirmed_now) time. Nothing while
    /// deletion is [not acknowledged](Self::may_delete).
    pub async fn reap_uploads(
        &self,
        scope: &Scope,
        limits: &ReapLimits,
        fence: Option<&Condition>,
    ) -> Result<Reaped, Error> {
        scope.require(Access::Admin)?;
        let (mut expired, mut reaped) = (Vec::new(), Reaped::default());
        if !self.may_delete().await? {
            return Ok(reaped);
        }
        let tx = self.begin().await?;
        let now = self.expiry_now();
        let mut after = Bytes::new();
        loop {
            let page = tx.try_range::<Upload>(keys::UPLOADS, &after, Self::PAGE_LEN_MAX).await?;
            let is_last = page.len() < Self::PAGE_LEN_MAX;
            for (key, upload) in page {
                after = key.clone();
                match upload {
                    Ok(upload) if upload.reaping || upload.expires <= now => expired.push(key),
                    Ok(_) => {}
                    Err(error) => drop(reaped.note(&key, Err(error))?),
                }
            }
            if is_last || expired.len() > limits.items {
                break;
            }
        }
        drop(tx);
        reaped.has_more = expired.len() > limits.items;
        for key in expired.into_iter().take(limits.items) {
            if reaped.tombstones >= TOMBSTONES_MAX {
                reaped.has_more = true;
                break;
            }
            let taken = self.reap_upload(&key, now, fence, &mut reaped).await;
            reaped.note(&key, taken)?;
        }
        Ok(reaped)
    }

    /// Reaps one unlinked inode, as far as a bounded number of commits allows.
    async fn reap_inode(
        &self,
        key: &Bytes,
        fence: Option<&Condition>,
        tombstones: &mut usize,
    ) -> Result<Taken, Error> {
        let damaged =
            || Error::Damaged { key: keys::show(key), what: "not the key of an unlinked inode" };
        let (_, inode) = keys::unlinked_parts(key).ok_or_else(damaged)?;
        for _ in 0..STEPS_MAX {
            let mut tx = self.begin_fenced(fence).await?;
            let Some(unlinked) = tx.get::<Unlinked>(key).await? else { return Ok(Taken::Whole) };
            let mut added = 0;
            let is_done = match unlinked.kind {
                FileKind::Directory => tx.reap_directory(key, &unlinked, inode).await?,
                _ => tx.reap_file(key, &unlinked, inode, &mut added).await?,
            };
            if is_done {
                tx.delete(key.clone());
            }
            if let Attempt::Committed(_) = self.commit(tx).await? {
                *tombstones += added;
                if is_done {
                    return Ok(Taken::Whole);
                }
            }
        }
        Ok(Taken::Partly)
    }

    async fn reap_upload(
        &self,
        key: &Bytes,
        now: Timestamp,
        fence: Option<&Condition>,
        reaped: &mut Reaped,
    ) -> Result<Taken, Error> {
        let damaged = || Error::Damaged { key: keys::show(key), what: "not the key of an upload" };
        let inode = keys::upload_inode(key).ok_or_else(damaged)?;
        for _ in 0..STEPS_MAX {
            let mut tx = self.begin_fenced(fence).await?;
            let Some(upload) = tx.get::<Upload>(key).await? else { return Ok(Taken::Whole) };
            if !upload.reaping && upload.expires > now {
                return Ok(Taken::Whole);
            }
            let mut tombstones = 0;
            // From this commit on it can be neither staged nor confirmed.
            tx.put(key.clone(), &Upload { reaping: true, ..upload });
            let is_done = tx.drop_extents(inode, &mut tombstones).await?;
            if is_done {
                tx.delete(key.clone());
            }
            if let Attempt::Committed(_) = self.commit(tx).await? {
                reaped.tombstones += tombstones;
                if is_done {
                    return Ok(Taken::Whole);
                }
            }
        }
        Ok(Taken::Partly)
    }
}

/// Maximum number of commits per item, and of items per call.
const STEPS_MAX: usize = 64;
/// Unlinked inodes that are reaped at once.
const INODES_AT_ONCE: usize = 32;
/// Tombstones after which a call ends.
const TOMBSTONES_MAX: usize = 3_000;
/// Extents reaped in one commit, up to four keys each.
const EXTENTS_AT_ONCE: usize = 22;
/// Directory entries removed in one commit, three keys each.
const ENTRIES_AT_ONCE: usize = 28;

enum Taken {
    Whole,
    Partly,
}

impl Transaction {
    /// Takes one step of a file or symlink: first removes its inode, so that nobody starts to read
    /// it, then its extents. Returns whether nothing is left.
    async fn reap_file(
        &mut self,
        key: &Bytes,
        unlinked: &Unlinked,
        inode: InodeId,
        tombstones: &mut usize,
    ) -> Result<bool, Error> {
        let record_key = keys::inode(inode);
        let Some(record) = self.get::<Inode>(&record_key).await? else {
            return self.drop_extents(inode, tombstones).await;
        };
        self.delete(record_key);
        self.delete_xattrs(inode, &record);
        let Content::File(file) = record.content else { return Ok(true) };
        if let Some(extent) = file.single {
            self.drop_references(extent.chunk, 1, tombstones).await?;
            return Ok(true);
        }
        if file.size == 0 {
            return Ok(true);
        }
        self.put(key.clone(), &Unlinked { reaping: true, ..unlinked.clone() });
        Ok(false)
    }

    /// Takes one step of a directory: first closes it to new entries, then unlinks its entries in
    /// batches. Returns whether it was empty and is gone.
    async fn reap_directory(
        &mut self,
        key: &Bytes,
        unlinked: &Unlinked,
        inode: InodeId,
    ) -> Result<bool, Error> {
        if !unlinked.reaping {
            self.set_link(inode, Link::Reaping).await?;
            self.put(key.clone(), &Unlinked { reaping: true, ..unlinked.clone() });
            return Ok(false);
        }
        let prefix = keys::entries(inode);
        let found = self.range::<Entry>(&prefix, &[], ENTRIES_AT_ONCE).await?;
        if found.is_empty() {
            self.expect_empty(prefix);
            let key = keys::inode(inode);
            if let Some(record) = self.get::<Inode>(&key).await? {
                self.delete_xattrs(inode, &record);
            }
            self.delete(key);
            self.delete(keys::times(inode));
            return Ok(true);
        }
        for (entry_key, entry) in found {
            self.get::<Entry>(&entry_key).await?;
            let damaged = || Error::Damaged { key: keys::show(&entry_key), what: "not a name" };
            let name = keys::entry_name(&entry_key).ok_or_else(damaged)?;
            let child = Unlinked::new(entry.kind, inode, name, unlinked.time);
            if entry.kind == FileKind::Directory {
                self.set_link(entry.inode, Link::Unlinked).await?;
            }
            self.put(keys::unlinked(AT_ONCE, entry.inode), &child);
            self.delete(entry_key);
        }
        Ok(false)
    }

    /// Removes some extents of an inode. Returns whether none is left.
    async fn drop_extents(
        &mut self,
        inode: InodeId,
        tombstones: &mut usize,
    ) -> Result<bool, Error> {
        let prefix = keys::extents(inode);
        let mut found = self.range::<Extent>(&prefix, &[], EXTENTS_AT_ONCE + 1).await?;
        let is_last = found.len() <= EXTENTS_AT_ONCE;
        found.truncate(EXTENTS_AT_ONCE);
        // Several extents may share a chunk, whose record is written once.
        let mut references = BTreeMap::<ChunkId, u32>::new();
        for (key, extent) in found {
            *references.entry(extent.chunk).or_default() += 1;
            self.delete(key);
        }
        for (chunk, count) in references {
            self.drop_references(chunk, count, tombstones).await?;
        }
        Ok(is_last)
    }

    /// Drops references to a chunk; without any left it becomes a tombstone.
    async fn drop_references(
        &mut self,
        chunk: ChunkId,
        count: u32,
        tombstones: &mut usize,
    ) -> Result<(), Error> {
        let old = match self.chunk(chunk).await {
            Ok(Some(old)) => old,
            // There is no reference to drop.
            Ok(None) => return Ok(()),
            // Its last file is gone, so the record has no further use. Its replicas on nodes become
            // orphans.
            Err(Error::Damaged { .. }) => {
                self.drop_unreadable_chunk(chunk);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut new = old.clone();
        new.references = old.references.saturating_sub(count);
        new.generation = old.generation.next();
        *tombstones += usize::from(new.is_tombstone() && !old.is_tombstone());
        self.put_chunk(chunk, Some(&old), Some(&new));
        Ok(())
    }
}
