//! Making symlinks.

use bytes::Bytes;
use dfs_types::{Access, Attributes, DfsPath, FileKind, Scope};

use super::delete::Restorable;
use super::mutation::Mutation;
use super::resolve::{Last, Place, resolve};
use super::transaction::Transaction;
use super::{FileStat, Namespace, Repeat};
use crate::records::answer::{Answer, stat_of};
use crate::records::inode::{Content, Entry, Inode};
use crate::{Error, keys};

/// As Linux has it.
const TARGET_LEN_MAX: usize = 4_095;

/// Makes a symlink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MakeSymlink {
    /// Where.
    pub path: DfsPath,
    /// What it points to: 1 to 4,095 bytes without NUL.
    pub target: Bytes,
    /// Owner, group, mtime.
    pub attributes: Attributes,
    /// Replaces a file or symlink of that name, never a directory.
    pub replace: bool,
}

impl Namespace {
    /// Makes a symlink.
    pub async fn make_symlink(
        &self,
        scope: &Scope,
        request: &MakeSymlink,
        repeat: Option<&Repeat>,
    ) -> Result<FileStat, Error> {
        scope.require(Access::Write)?;
        let len = request.target.len();
        if !(1..=TARGET_LEN_MAX).contains(&len) || request.target.contains(&0) {
            let what = format!(
                "the target of a symlink has 1 to {TARGET_LEN_MAX} bytes without NUL, not {len}"
            );
            return Err(Error::Invalid { what });
        }
        stat_of(self.carry_out(Mutation::MakeSymlink(request), repeat).await?)
    }

    pub(super) async fn try_make_symlink(
        &self,
        tx: &mut Transaction,
        request: &MakeSymlink,
    ) -> Result<Answer, Error> {
        let place = resolve(tx, &request.path, Last::Keep).await?;
        let Place::Named(named) = place else {
            return Err(Error::AlreadyExists { path: request.path.clone() });
        };
        let named = named.in_parent()?;
        let now = self.now();
        if let Some(entry) = named.entry {
            let path = request.path.clone();
            if !request.replace {
                return Err(Error::AlreadyExists { path });
            }
            if entry.kind == FileKind::Directory {
                return Err(Error::IsADirectory { path });
            }
            self.unlink(tx, &named, entry, Restorable::ForAWhile, now).await?;
        }
        tx.grow(named.parent, &named.path, now).await?;
        let inode = self.next_inode().await?;
        let record = Inode {
            attributes: Attributes { mode: 0o777, ..request.attributes },
            ctime: now,
            content: Content::Symlink { target: request.target.clone() },
        };
        tx.put(named.key(), &Entry { inode, kind: FileKind::Symlink });
        tx.put(keys::inode(inode), &record);
        Ok(Answer::Stat(super::stat::describe(inode, &record, None)))
    }
}
