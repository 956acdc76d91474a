//! Renaming.

use dfs_types::{Access, DfsPath, FileKind, InodeId, Scope};

use super::delete::Restorable;
use super::mutation::Mutation;
use super::resolve::{Last, resolve};
use super::transaction::Transaction;
use super::{Namespace, Repeat};
use crate::records::answer::Answer;
use crate::records::inode::{Directory, Inode, Link, Times};
use crate::records::setting::Mark;
use crate::{Error, keys};

/// Renames a file, symlink or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    /// What; a symlink itself.
    pub from: DfsPath,
    /// Its new path.
    pub to: DfsPath,
    /// Refuses to replace anything.
    pub no_replace: bool,
}

impl Namespace {
    /// Renames in one step, replacing as rename(2) does: a file by a file, an empty directory by
    /// a directory. Onto itself it does nothing. What was replaced can be restored for a while.
    pub async fn rename(
        &self,
        scope: &Scope,
        request: &Rename,
        repeat: Option<&Repeat>,
    ) -> Result<(), Error> {
        scope.require(Access::Write)?;
        self.carry_out(Mutation::Rename(request), repeat).await.map(|_| ())
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
        if is_directory && to.above.contains(&moved.inode) {
            let (from, to) = (request.from.clone(), request.to.clone());
            return Err(Error::WouldCycle { from, to });
        }
        let now = self.now();
        if let Some(replaced) = to.entry {
            if request.no_replace {
                return Err(Error::AlreadyExists { path: request.to.clone() });
            }
            if replaced.inode == moved.inode {
                return Ok(Answer::Done);
            }
            match (is_directory, replaced.kind == FileKind::Directory) {
                (true, true) => tx.must_be_empty(replaced.inode, &request.to).await?,
                (true, false) => return Err(Error::NotADirectory { path: request.to.clone() }),
                (false, true) => return Err(Error::IsADirectory { path: request.to.clone() }),
                (false, false) => {}
            }
            self.unlink(tx, &to, replaced, Restorable::ForAWhile, now).await?;
        }
        tx.grow(to.parent, &to.path, now).await?;
        tx.put(keys::times(from.parent), &Times::now(now));
        tx.delete(from.key());
        tx.put(to.key(), &moved);
        if is_directory && from.parent != to.parent {
            move_directory(tx, moved.inode, to.parent).await?;
        }
        if moved.kind != FileKind::File {
            tx.put(keys::NAMES, &Mark);
        }
        Ok(Answer::Done)
    }
}

/// Gives a directory another parent. Such moves are serial in the whole cluster, so that what was
/// read of the directories above the new parent holds: no two moves can make a cycle together.
async fn move_directory(
    tx: &mut Transaction,
    directory: InodeId,
    parent: InodeId,
) -> Result<(), Error> {
    tx.get::<Mark>(&keys::MOVES).await?;
    tx.put(keys::MOVES, &Mark);
    let key = keys::inode(directory);
    let record = tx.get::<Inode>(&key).await?;
    let damaged = || Error::Damaged { key: keys::show(&key), what: "no directory" };
    let record = record.filter(|record| record.directory().is_some()).ok_or_else(damaged)?;
    tx.put(key, &record.with_directory(Directory { parent, link: Link::Linked }));
    Ok(())
}
