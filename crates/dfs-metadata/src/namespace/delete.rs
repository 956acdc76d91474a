//! Deletion.

use dfs_types::{Access, FileKind, InodeId, Name, Precondition, Scope, Target, Timestamp};

use super::mutation::Mutation;
use super::resolve::{Last, resolve};
use super::transaction::Transaction;
use super::{Namespace, Repeat};
use crate::records::answer::Answer;
use crate::records::entry::Entry;
use crate::records::inode::{Directory, Inode, Link, Times};
use crate::records::setting::Mark;
use crate::records::unlinked::Unlinked;
use crate::{Error, keys};

/// Deletes a file, symlink, directory or tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// Target of the deletion; a symlink itself, not its target.
    pub target: Target,
    /// Deletes a directory with its contents; otherwise it must be empty.
    pub recursive: bool,
    /// Skips the period in which it could be restored.
    pub now: bool,
    /// Precondition on the name.
    pub precondition: Option<Precondition>,
}

impl Namespace {
    /// Unlinks in one commit, whatever the size of the tree. Returns until when it can be restored;
    /// `None` with `now`.
    pub async fn delete(
        &self,
        scope: &Scope,
        request: &Delete,
        repeat: Option<&Repeat>,
    ) -> Result<Option<Timestamp>, Error> {
        scope.require(Access::Write)?;
        match self.apply(Mutation::Delete(request), repeat).await? {
            Answer::RestorableUntil(until) => Ok(until),
            _ => Err(Error::Damaged { key: "r/".to_owned(), what: "an answer to another call" }),
        }
    }

    pub(super) async fn try_delete(
        &self,
        tx: &mut Transaction,
        request: &Delete,
    ) -> Result<Answer, Error> {
        let named = resolve(tx, &request.target, Last::Keep).await?.named()?;
        let entry = named.taken()?;
        tx.require(request.precondition, &request.target, named.entry).await?;
        if entry.kind == FileKind::Directory && !request.recursive {
            tx.must_be_empty(entry.inode, &request.target).await?;
        }
        let now = self.now();
        let restorable = if request.now { Restorable::No } else { Restorable::ForAWhile };
        let until = self.unlink(tx, named.parent, &named.name, entry, restorable, now).await?;
        tx.put(keys::times(named.parent), &Times::now(now));
        tx.delete(named.key());
        Ok(Answer::RestorableUntil(until))
    }

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

/// Restorability of an unlinked inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restorable {
    ForAWhile,
    No,
}

/// The expiry of what cannot be restored; sorts first.
pub(super) const AT_ONCE: Timestamp = Timestamp::EPOCH;

impl Transaction {
    /// Refuses a directory with entries, now or at the commit.
    pub(super) async fn must_be_empty(
        &mut self,
        directory: InodeId,
        target: &Target,
    ) -> Result<(), Error> {
        let prefix = keys::entries(directory);
        if !self.range::<Entry>(&prefix, &[], 1).await?.is_empty() {
            return Err(Error::NotEmpty { target: target.clone() });
        }
        self.expect_empty(prefix);
        Ok(())
    }

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
