//! Changing attributes.

use dfs_types::{Access, Attributes, FileTime, Scope, Target};

use super::mutation::Mutation;
use super::resolve::{Last, resolve};
use super::stat::gone;
use super::transaction::Transaction;
use super::{FileStat, Namespace, Repeat};
use crate::records::answer::{Answer, stat_of};
use crate::records::inode::{Inode, Times};
use crate::{Error, keys};

/// Changes attributes; those not set stay as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAttributes {
    /// Inode to change.
    pub target: Target,
    /// Follows a symlink at the end of the path.
    pub follow: bool,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Time of the last change of content.
    pub mtime: Option<FileTime>,
}

impl Namespace {
    /// Changes attributes and returns the changed inode.
    pub async fn set_attributes(
        &self,
        scope: &Scope,
        request: &SetAttributes,
        repeat: Option<&Repeat>,
    ) -> Result<FileStat, Error> {
        scope.require(Access::Write)?;
        stat_of(self.apply(Mutation::SetAttributes(request), repeat).await?)
    }

    pub(super) async fn try_set_attributes(
        &self,
        tx: &mut Transaction,
        request: &SetAttributes,
    ) -> Result<Answer, Error> {
        let last = if request.follow { Last::Follow } else { Last::Keep };
        let inode = resolve(tx, &request.target, last).await?.inode()?;
        let key = keys::inode(inode);
        let found = tx.get::<Inode>(&key).await?;
        let mut record = found.ok_or_else(|| gone(&request.target, inode))?;
        let now = self.now();
        let old = record.attributes;
        record.attributes = Attributes {
            mode: request.mode.unwrap_or(old.mode) & Attributes::MODE_MASK,
            uid: request.uid.unwrap_or(old.uid),
            gid: request.gid.unwrap_or(old.gid),
            mtime: request.mtime.unwrap_or(old.mtime),
        };
        record.ctime = now;
        let mut times = None;
        if record.directory().is_some() {
            times = match request.mtime {
                Some(mtime) => {
                    let times = Times { mtime, ctime: now };
                    tx.put(keys::times(inode), &times);
                    Some(times)
                }
                None => tx.peek(&keys::times(inode)).await?,
            };
        }
        tx.put(key, &record);
        Ok(Answer::Stat(tx.describe(inode, &record, times, tx.new_change()).await?))
    }
}
