//! Creating symlinks.

use bytes::Bytes;
use dfs_types::{Access, Attributes, FileKind, Scope, Target};

use super::mutation::Mutation;
use super::resolve::{Last, Place, resolve};
use super::transaction::Transaction;
use super::trash::Restorable;
use super::{FileStat, Namespace, Repeat};
use crate::records::answer::{Answer, stat_of};
use crate::records::entry::Entry;
use crate::records::inode::{Content, Inode};
use crate::{Error, keys};

/// The limit of Linux.
const TARGET_LEN_MAX: usize = 4_095;

/// Creates a symlink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MakeSymlink {
    /// Where to create it.
    pub target: Target,
    /// Target: 1 to 4,095 bytes without NUL.
    pub symlink_target: Bytes,
    /// Owner, group, mtime.
    pub attributes: Attributes,
    /// Replaces a file or symlink of that name, never a directory.
    pub replace: bool,
}

impl Namespace {
    /// Creates a symlink.
    pub async fn make_symlink(
        &self,
        scope: &Scope,
        request: &MakeSymlink,
        repeat: Option<&Repeat>,
    ) -> Result<FileStat, Error> {
        scope.require(Access::Write)?;
        let len = request.symlink_target.len();
        if !(1..=TARGET_LEN_MAX).contains(&len) || request.symlink_target.contains(&0) {
            let what = format!(
                "the target of a symlink has 1 to {TARGET_LEN_MAX} bytes without NUL, not {len}"
            );
            return Err(Error::Invalid { what });
        }
        stat_of(self.apply(Mutation::MakeSymlink(request), repeat).await?)
    }

    pub(super) async fn try_make_symlink(
        &self,
        tx: &mut Transaction,
        request: &MakeSymlink,
    ) -> Result<Answer, Error> {
        let place = resolve(tx, &request.target, Last::Keep).await?;
        if let Place::Root = place {
            return Err(Error::AlreadyExists { target: request.target.clone() });
        }
        let named = place.named()?.in_parent()?;
        let now = self.now();
        if let Some(entry) = named.entry {
            let target = request.target.clone();
            if !request.replace {
                return Err(Error::AlreadyExists { target });
            }
            if entry.kind == FileKind::Directory {
                return Err(Error::IsADirectory { target });
            }
            self.unlink(tx, named.parent, &named.name, entry, Restorable::ForAWhile, now).await?;
        }
        tx.grow(named.parent, &named.target, now).await?;
        let inode = self.next_inode().await?;
        let attributes = Attributes { mode: 0o777, ..request.attributes };
        let content = Content::Symlink { target: request.symlink_target.clone() };
        let record = Inode::new(attributes, now, content);
        tx.put(named.key(), &Entry::new(inode, FileKind::Symlink));
        tx.put(keys::inode(inode), &record);
        Ok(Answer::Stat(tx.describe(inode, &record, None, tx.new_change()).await?))
    }
}
