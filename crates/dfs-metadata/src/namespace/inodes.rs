//! Numbers of new inodes, in blocks reserved by each coordinator.

use std::ops::Range;

use dfs_types::InodeId;
use tokio::sync::Mutex;

use super::transaction::Attempt;
use super::{Namespace, TRIES};
use crate::records::setting::NextInode;
use crate::{Error, keys};

/// Numbers reserved at a time. The rest of a block is wasted when the process ends.
const BLOCK: u64 = 4_096;

/// The unused numbers of the newest block.
#[derive(Debug, Default)]
pub(super) struct Inodes(Mutex<Range<u64>>);

impl Namespace {
    /// Returns a number that no inode of this cluster ever had.
    pub(super) async fn next_inode(&self) -> Result<InodeId, Error> {
        let mut left = self.inner.inodes.0.lock().await;
        if left.is_empty() {
            *left = self.take_block().await?;
        }
        let number = left.start;
        left.start += 1;
        Ok(InodeId(number))
    }

    async fn take_block(&self) -> Result<Range<u64>, Error> {
        for _ in 0..TRIES {
            let mut tx = self.begin().await?;
            let missing = || Error::Damaged { key: keys::show(&keys::INODES), what: "missing" };
            let NextInode(InodeId(start)) = tx.get(&keys::INODES).await?.ok_or_else(missing)?;
            tx.put(keys::INODES, &NextInode(InodeId(start + BLOCK)));
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(start..start + BLOCK);
            }
        }
        Err(Error::Conflict { what: "the counter of inodes", tries: TRIES })
    }
}
