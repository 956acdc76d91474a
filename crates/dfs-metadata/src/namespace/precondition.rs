//! Preconditions of changes.

use dfs_types::{Change, InodeId, Precondition, Target};

use super::transaction::Transaction;
use crate::records::entry::Entry;
use crate::records::inode::{Inode, Times};
use crate::{Error, keys};

impl Transaction {
    /// Refuses a change of a name whose precondition does not hold, now or at the commit. The
    /// commit is conditioned on the entry already.
    pub(super) async fn require(
        &mut self,
        precondition: Option<Precondition>,
        target: &Target,
        entry: Option<Entry>,
    ) -> Result<(), Error> {
        let Some(precondition) = precondition else { return Ok(()) };
        let Precondition::Inode { inode, change } = precondition else {
            return match entry {
                Some(_) => Err(Error::AlreadyExists { target: target.clone() }),
                None => Ok(()),
            };
        };
        let entry = entry.ok_or_else(|| Error::NotFound { target: target.clone() })?;
        let is_met = entry.inode == inode
            && match change {
                Some(change) => self.expect_change(inode, change).await?,
                None => true,
            };
        if is_met { Ok(()) } else { Err(Error::Changed { target: target.clone() }) }
    }

    /// Returns whether an inode is in that state; the commit requires it to stay so.
    async fn expect_change(&mut self, inode: InodeId, change: Change) -> Result<bool, Error> {
        let key = keys::inode(inode);
        let Some((record, mut newest)) = self.peek_versioned::<Inode>(&key).await? else {
            return Ok(false);
        };
        self.expect(key, Some(newest));
        if record.directory().is_some() {
            let key = keys::times(inode);
            let version = self.peek_versioned::<Times>(&key).await?.map(|(_, version)| version);
            self.expect(key, version);
            newest = newest.max(version.unwrap_or_default());
        }
        Ok(self.change(newest) == change)
    }
}
