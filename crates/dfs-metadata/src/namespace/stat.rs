//! Stat and directory listings.

use std::collections::BTreeMap;

use bytes::Bytes;
use dfs_types::{Access, Change, FileKind, InodeId, Name, Replication, Scope, Target};

use super::resolve::{Last, resolve};
use super::transaction::Transaction;
use super::{FileStat, Namespace};
use crate::records::entry::Entry;
use crate::records::inode::{Content, Directory, Inode, Times};
use crate::{Error, keys};

/// A name in a directory and its inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name.
    pub name: Name,
    /// Inode; a symlink is not followed.
    pub stat: FileStat,
}

/// A page of a directory, in name order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryPage {
    /// The directory, to request further pages.
    pub directory: InodeId,
    /// The entries.
    pub entries: Vec<DirectoryEntry>,
    /// Set if there are more entries after these.
    pub has_more: bool,
}

impl Namespace {
    /// Maximum number of entries per page.
    pub const PAGE_LEN_MAX: usize = 1_000;

    /// Describes an inode; with `follow`, the target of a symlink at the end of a path. An inode
    /// addressed by number is described even after it was unlinked, until it is reaped; then
    /// [`Error::Stale`].
    pub async fn stat(
        &self,
        scope: &Scope,
        target: &Target,
        follow: bool,
    ) -> Result<FileStat, Error> {
        scope.require(Access::Read)?;
        let mut tx = self.begin().await?;
        let last = if follow { Last::Follow } else { Last::Keep };
        let inode = resolve(&mut tx, target, last).await?.inode()?;
        tx.stat(inode).await?.ok_or_else(|| gone(target, inode))
    }

    /// Lists entries of a directory with names greater than `after`: at most `limit`, and at most
    /// [`Self::PAGE_LEN_MAX`]. An entry that exists throughout a paged listing is listed exactly
    /// once.
    pub async fn list_directory(
        &self,
        scope: &Scope,
        directory: &Target,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<DirectoryPage, Error> {
        scope.require(Access::Read)?;
        let mut tx = self.begin().await?;
        let target = directory;
        let directory = resolve(&mut tx, target, Last::Follow).await?.inode()?;
        let record = tx.peek::<Inode>(&keys::inode(directory)).await?;
        if record.ok_or_else(|| gone(target, directory))?.directory().is_none() {
            return Err(Error::NotADirectory { target: target.clone() });
        }
        let after = after.map_or_else(Bytes::new, |name| keys::entry(directory, name));
        let limit = limit.clamp(1, Self::PAGE_LEN_MAX);
        let prefix = keys::entries(directory);
        let mut found = tx.range::<Entry>(&prefix, &after, limit + 1).await?;
        let has_more = found.len() > limit;
        found.truncate(limit);
        let entries = tx.described(found).await?;
        Ok(DirectoryPage { directory, entries, has_more })
    }
}

impl Transaction {
    /// Reads a directory; `None` when the inode is not a directory, or is gone.
    pub(super) async fn directory(&self, inode: InodeId) -> Result<Option<Directory>, Error> {
        let found = self.peek::<Inode>(&keys::inode(inode)).await?;
        Ok(found.and_then(|inode| inode.directory()))
    }

    /// Describes an inode; `None` when it is gone.
    pub(super) async fn stat(&mut self, inode: InodeId) -> Result<Option<FileStat>, Error> {
        let known = vec![keys::inode(inode), keys::times(inode), keys::REPLICATION];
        self.read_ahead(known).await?;
        let Some((record, mut revision)) =
            self.peek_versioned::<Inode>(&keys::inode(inode)).await?
        else {
            return Ok(None);
        };
        let mut times = None;
        if record.directory().is_some()
            && let Some((found, version)) =
                self.peek_versioned::<Times>(&keys::times(inode)).await?
        {
            times = Some(found);
            revision = revision.max(version);
        }
        Ok(Some(self.describe(inode, &record, times, self.change(revision)).await?))
    }

    /// Converts an inode to its public form.
    pub(super) async fn describe(
        &self,
        inode: InodeId,
        record: &Inode,
        times: Option<Times>,
        change: Change,
    ) -> Result<FileStat, Error> {
        let replication = match record.content {
            Content::File(_) | Content::Directory(_) => {
                self.replication_of([record.policy.number].into()).await?
            }
            _ => BTreeMap::new(),
        };
        Ok(describe(inode, record, times, change, &replication))
    }

    async fn described(&self, found: Vec<(Bytes, Entry)>) -> Result<Vec<DirectoryEntry>, Error> {
        let inodes: Vec<Bytes> = found.iter().map(|(_, entry)| keys::inode(entry.inode)).collect();
        let records = self.peek_many_versioned::<Inode>(&inodes).await?;
        let is_directory = |entry: &Entry| entry.kind == FileKind::Directory;
        let directories = found.iter().map(|(_, entry)| entry).filter(|entry| is_directory(entry));
        let times: Vec<Bytes> = directories.map(|entry| keys::times(entry.inode)).collect();
        let mut times = self.peek_many_versioned::<Times>(&times).await?.into_iter();
        let labels = records.iter().flatten().map(|(record, _)| record.policy.number);
        let replication = self.replication_of(labels.collect()).await?;
        let mut entries = Vec::with_capacity(found.len());
        for ((key, entry), record) in found.into_iter().zip(records) {
            let damaged = |what| Error::Damaged { key: keys::show(&key), what };
            let missing = || damaged("an entry without its inode");
            let (record, version) = record.ok_or_else(missing)?;
            let name = keys::entry_name(&key).ok_or_else(|| damaged("not the key of an entry"))?;
            let times = if is_directory(&entry) { times.next().flatten() } else { None };
            let (times, times_version) = times.unzip();
            let change = self.change(version.max(times_version.unwrap_or_default()));
            let stat = describe(entry.inode, &record, times, change, &replication);
            entries.push(DirectoryEntry { name, stat });
        }
        Ok(entries)
    }
}

/// Converts an inode to its public form, given what its policy says. Directory times are those of the last change of entries.
pub(super) fn describe(
    inode: InodeId,
    record: &Inode,
    times: Option<Times>,
    change: Change,
    replication: &BTreeMap<u32, Replication>,
) -> FileStat {
    let (size, symlink_target) = match &record.content {
        Content::File(file) => (file.size, Bytes::new()),
        Content::Symlink { target } => (target.len() as u64, target.clone()),
        _ => (0, Bytes::new()),
    };
    let policy = record.policy.number;
    let replication_factor = match record.content {
        Content::File(_) | Content::Directory(_) => {
            replication.get(&policy).map_or(0, |found| found.factor)
        }
        _ => 0,
    };
    let mut attributes = record.attributes;
    let mut ctime = record.ctime;
    if let Some(times) = times {
        attributes.mtime = times.mtime;
        ctime = ctime.max(times.ctime);
    }
    let kind = record.kind();
    FileStat {
        inode,
        kind,
        size,
        attributes,
        ctime,
        born: record.born,
        nlink: record.links,
        rdev: record.rdev(),
        symlink_target,
        replication_factor,
        policy,
        change,
        xattrs: record.xattrs.0.len() as u32,
    }
}

/// Returns the error for a missing inode: one known by number was reaped.
pub(super) fn gone(target: &Target, inode: InodeId) -> Error {
    match target {
        Target::Inode(_) => Error::Stale(inode),
        _ => Error::NotFound { target: target.clone() },
    }
}
