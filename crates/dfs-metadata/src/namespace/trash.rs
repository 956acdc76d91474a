//! Taking an inode's name away, and until when it can be restored: the trash.

use dfs_types::{FileKind, InodeId, Name, Timestamp};

use super::Namespace;
use super::transaction::Transaction;
use crate::records::entry::Entry;
use crate::records::inode::{Directory, Inode, Link};
use crate::records::setting::Mark;
use crate::records::unlinked::Unlinked;
use crate::{Error, keys};

/// Restorability of an unlinked inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restorable {
    ForAWhile,
    No,
}

/// The expiry of what cannot be restored; sorts first.
pub(super) const AT_ONCE: Timestamp = Timestamp::EPOCH;

impl Namespace {
    /// Records that an inode has lost its name, which the caller removes or reuses. Returns until
    /// when it can be restored.
    pub(super) async fn unlink(
        &self,
        tx: &mut Transaction,
        parent: InodeId,
        name: &Name,
        entry: Entry,
        restorable: Restorable,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Error> {
        let until = match restorable {
            Restorable::ForAWhile => Some(now.plus(self.inner.options.restorable)),
            Restorable::No => None,
        };
        let not_before = until.unwrap_or(AT_ONCE);
        let unlinked = Unlinked::new(entry.kind, parent, name.clone(), now);
        if entry.kind == FileKind::Directory {
            tx.set_link(entry.inode, Link::Unlinked).await?;
        }
        tx.put(keys::unlinked(not_before, entry.inode), &unlinked);
        if entry.kind != FileKind::File {
            tx.put(keys::NAMES, &Mark);
        }
        Ok(until)
    }
}

impl Transaction {
    /// Changes the link of a directory.
    pub(super) async fn set_link(&mut self, directory: InodeId, link: Link) -> Result<(), Error> {
        let key = keys::inode(directory);
        let record = self.get::<Inode>(&key).await?;
        let found = record.as_ref().and_then(Inode::directory).zip(record.as_ref());
        let damaged = || Error::Damaged { key: keys::show(&key), what: "no directory" };
        let (place, record) = found.ok_or_else(damaged)?;
        let changed = record.with_directory(Directory { link, ..place });
        self.put(key, &changed);
        Ok(())
    }
}
