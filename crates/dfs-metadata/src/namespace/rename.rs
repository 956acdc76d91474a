//! Renames.

use dfs_types::{Access, FileKind, InodeId, PlantedBug, Precondition, Scope, Target};

use super::mutation::Mutation;
use super::resolve::{Last, Named, resolve};
use super::transaction::Transaction;
use super::trash::Restorable;
use super::{Namespace, Repeat};
use crate::records::answer::Answer;
use crate::records::entry::Entry;
use crate::records::inode::{Directory, Inode, Link, Times};
use crate::records::policy::PolicyLabel;
use crate::records::setting::Mark;
use crate::{Error, keys};

/// Renames a file, symlink or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    /// Source of the rename; a symlink itself, not its target.
    pub from: Target,
    /// New name.
    pub to: Target,
    /// Precondition on the new name.
    pub precondition: Option<Precondition>,
    /// Swaps both names instead of replacing the target.
    pub exchange: bool,
}

impl Namespace {
    /// Renames atomically, replacing like rename(2): a file by a file, an empty directory by a
    /// directory. Renaming onto itself does nothing. A replaced inode can be restored for a while.
    /// With `exchange`, swaps two names of any kind.
    pub async fn rename(
        &self,
        scope: &Scope,
        request: &Rename,
        repeat: Option<&Repeat>,
    ) -> Result<(), Error> {
        scope.require(Access::Write)?;
        self.apply(Mutation::Rename(request), repeat).await.map(|_| ())
    }

    pub(super) async fn try_rename(
        &self,
        tx: &mut Transaction,
        request: &Rename,
    ) -> Result<Answer, Error> {
        let from = resolve(tx, &request.from, Last::Keep).await?.named()?;
        let moved = from.taken()?;
        let to = resolve(tx, &request.to, Last::Keep).await?.named()?.in_parent()?;
        let is_directory = moved.kind == FileKind::Directory;
        tx.refuse_cycle(request, moved, &from, &to).await?;
        tx.require(request.precondition, &request.to, to.entry).await?;
        if request.exchange {
            return self.exchange(tx, request, &from, &to).await;
        }
        if PlantedBug::LostRename.is_planted() {
            return Ok(Answer::Done);
        }
        let now = self.now();
        if let Some(replaced) = to.entry {
            if replaced.inode == moved.inode {
                return Ok(Answer::Done);
            }
            let target = || request.to.clone();
            match (is_directory, replaced.kind == FileKind::Directory) {
                (true, true) => tx.must_be_empty(replaced.inode, &request.to).await?,
                (true, false) => return Err(Error::NotADirectory { target: target() }),
                (false, true) => return Err(Error::IsADirectory { target: target() }),
                (false, false) => {}
            }
            self.unlink(tx, to.parent, &to.name, replaced, Restorable::ForAWhile, now).await?;
        }
        tx.grow(to.parent, &to.target, now).await?;
        tx.put(keys::times(from.parent), &Times::now(now));
        tx.delete(from.key());
        tx.put(to.key(), &moved);
        let policy = tx.policy_kept(moved, from.parent).await?;
        if is_directory && from.parent != to.parent {
            tx.set_parent(moved.inode, to.parent, policy).await?;
        } else if let Some(policy) = policy {
            tx.set_label(moved.inode, policy).await?;
        }
        if moved.kind != FileKind::File {
            tx.put(keys::NAMES, &Mark);
        }
        Ok(Answer::Done)
    }

    /// Swaps two names, neither of which is inside the other.
    async fn exchange(
        &self,
        tx: &mut Transaction,
        request: &Rename,
        from: &Named,
        to: &Named,
    ) -> Result<Answer, Error> {
        let (one, other) = (from.taken()?, to.taken()?);
        if one.inode == other.inode {
            return Ok(Answer::Done);
        }
        tx.refuse_cycle(request, other, to, from).await?;
        for (moved, old, new) in [(one, from, to), (other, to, from)] {
            let policy = tx.policy_kept(moved, old.parent).await?;
            if moved.kind == FileKind::Directory && old.parent != new.parent {
                tx.set_parent(moved.inode, new.parent, policy).await?;
            } else if let Some(policy) = policy {
                tx.set_label(moved.inode, policy).await?;
            }
            if moved.kind != FileKind::File {
                tx.put(keys::NAMES, &Mark);
            }
            tx.put(new.key(), &moved);
            tx.grow(new.parent, &new.target, self.now()).await?;
        }
        Ok(Answer::Done)
    }
}

impl Transaction {
    /// Refuses to move a directory into itself.
    async fn refuse_cycle(
        &self,
        request: &Rename,
        moved: Entry,
        old: &Named,
        new: &Named,
    ) -> Result<(), Error> {
        let changes_parent = moved.kind == FileKind::Directory && old.parent != new.parent;
        if changes_parent && self.lies_within(new.parent, moved.inode).await? {
            let (from, to) = (request.from.clone(), request.to.clone());
            return Err(Error::WouldCycle { from, to });
        }
        Ok(())
    }

    /// Gives a directory another parent, and a policy. Such moves are serialized in the whole cluster, so that
    /// what was read of the directories above the new parent holds: no two moves can form a cycle
    /// together.
    pub(super) async fn set_parent(
        &mut self,
        directory: InodeId,
        parent: InodeId,
        policy: Option<PolicyLabel>,
    ) -> Result<(), Error> {
        self.get::<Mark>(&keys::MOVES).await?;
        self.put(keys::MOVES, &Mark);
        let key = keys::inode(directory);
        let record = self.get::<Inode>(&key).await?;
        let damaged = || Error::Damaged { key: keys::show(&key), what: "no directory" };
        let record = record.filter(|record| record.directory().is_some()).ok_or_else(damaged)?;
        let policy = policy.unwrap_or(record.policy);
        let moved = record.with_directory(Directory { parent, link: Link::Linked });
        self.put(key, &Inode { policy, ..moved });
        Ok(())
    }
}
