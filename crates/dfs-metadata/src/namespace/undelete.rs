//! Restoring deleted and replaced inodes; `unlink` decides until when.

use bytes::Bytes;
use dfs_types::{Access, FileKind, Scope, Target, Timestamp};

use super::mutation::Mutation;
use super::resolve::{Last, Named, resolve};
use super::transaction::Transaction;
use super::{FileStat, Namespace, Repeat};
use crate::records::answer::{Answer, stat_of};
use crate::records::entry::Entry;
use crate::records::unlinked::Unlinked;
use crate::{Error, keys};

/// Restores a deleted or replaced inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelete {
    /// Former name. Of several deleted there, the last one.
    pub target: Target,
    /// Where to restore it; the former name when not set.
    pub to: Option<Target>,
}

impl Namespace {
    /// Restores it with its contents. Never replaces anything.
    pub async fn undelete(
        &self,
        scope: &Scope,
        request: &Undelete,
        repeat: Option<&Repeat>,
    ) -> Result<FileStat, Error> {
        scope.require(Access::Write)?;
        stat_of(self.apply(Mutation::Undelete(request), repeat).await?)
    }

    pub(super) async fn try_undelete(
        &self,
        tx: &mut Transaction,
        request: &Undelete,
    ) -> Result<Answer, Error> {
        let was = resolve(tx, &request.target, Last::Keep).await?.named()?.in_parent()?;
        let nothing = || Error::NothingToRestore { target: request.target.clone() };
        let now = self.now();
        let (key, found) = last_unlinked(tx, &was, self.expiry_now()).await?.ok_or_else(nothing)?;
        let (_, inode) = keys::unlinked_parts(&key).ok_or_else(nothing)?;
        // Reaping may have begun since.
        let still = tx.get::<Unlinked>(&key).await?.filter(|still| !still.reaping);
        still.ok_or_else(nothing)?;
        let to = match &request.to {
            Some(to) => resolve(tx, to, Last::Keep).await?.named()?.in_parent()?,
            None => was,
        };
        if to.entry.is_some() {
            return Err(Error::AlreadyExists { target: to.target.clone() });
        }
        tx.grow(to.parent, &to.target, now).await?;
        tx.delete(key);
        tx.put(to.key(), &Entry::new(inode, found.kind));
        let mut stat = tx.stat(inode).await?.ok_or_else(nothing)?;
        if found.kind == FileKind::Directory {
            // The target can be inside a directory that was deleted with it.
            if tx.lies_within(to.parent, inode).await? {
                let (from, to) = (request.target.clone(), to.target);
                return Err(Error::WouldCycle { from, to });
            }
            tx.set_parent(inode, to.parent, None).await?;
            stat.change = tx.new_change();
        }
        Ok(Answer::Stat(stat))
    }
}

/// Unlinked inodes considered in one step.
const STEP: usize = 1_000;

/// Returns the inode that lost its name here last and can still be restored.
async fn last_unlinked(
    tx: &Transaction,
    was: &Named,
    now: Timestamp,
) -> Result<Option<(Bytes, Unlinked)>, Error> {
    let mut after = keys::unlinked_after(now);
    let mut last: Option<(Bytes, Unlinked)> = None;
    loop {
        let page = tx.range::<Unlinked>(keys::UNLINKED, &after, STEP).await?;
        let is_last = page.len() < STEP;
        for (key, found) in page {
            after = key.clone();
            let is_it = found.parent == was.parent && found.name == was.name && !found.reaping;
            if is_it && last.as_ref().is_none_or(|(_, last)| last.time <= found.time) {
                last = Some((key, found));
            }
        }
        if is_last {
            return Ok(last);
        }
    }
}
