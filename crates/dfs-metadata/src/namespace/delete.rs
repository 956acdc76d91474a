//! Deletion.

use dfs_types::{Access, FileKind, InodeId, Precondition, Scope, Target, Timestamp};

use super::mutation::Mutation;
use super::resolve::{Last, resolve};
use super::transaction::Transaction;
use super::trash::Restorable;
use super::{Namespace, Repeat};
use crate::records::answer::Answer;
use crate::records::entry::Entry;
use crate::records::inode::Times;
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
}

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
}
