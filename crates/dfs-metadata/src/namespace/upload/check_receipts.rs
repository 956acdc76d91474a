//! What proves that a chunk was written: enough receipts of planned nodes.

use std::collections::BTreeSet;

use dfs_types::{ChunkId, Generation, InodeId, Part, Redundancy, Replication};

use super::stage::Plans;
use super::token::Plan;
use super::{Namespace, WrittenChunk};
use crate::Error;
use crate::namespace::transaction::Transaction;
use crate::namespace::{Chunk, Replica};

impl Namespace {
    /// Refuses chunks that were not planned or not proven.
    pub(super) fn check_written(
        &self,
        plans: &Plans,
        chunks: &[WrittenChunk],
    ) -> Result<(), Error> {
        let mut ids = BTreeSet::new();
        for written in chunks {
            let id = written.chunk;
            let bad = |what: String| Err(Error::BadChunk { chunk: id, what });
            if !ids.insert(id) {
                return bad("given twice".to_owned());
            }
            let Some(planned) = plans.chunk(id) else {
                return bad("not in the plan of this upload".to_owned());
            };
            if written.file_offset != planned.file_offset {
                let (at, wanted) = (written.file_offset, planned.file_offset);
                return bad(format!("planned at offset {wanted}, not {at}"));
            }
            if !(1..=planned.max_length).contains(&written.seal.length) {
                let (len, max) = (written.seal.length, planned.max_length);
                return bad(format!("planned with 1 to {max} bytes, not {len}"));
            }
            let mut nodes = BTreeSet::new();
            for receipt in &written.receipts {
                self.check_receipt(id, receipt)?;
                let node = receipt.node;
                let lie = |what| Err(Error::BadReceipt { chunk: id, node, what });
                if receipt.part != Part::WHOLE {
                    return lie("uploads write whole chunks");
                }
                if receipt.length != written.seal.length || receipt.crc32c != written.seal.crc32c {
                    return lie("receipt of other bytes");
                }
                if !planned.nodes.contains(&node) {
                    return lie("the chunk was not planned for this node");
                }
                if !nodes.insert(node) {
                    return lie("given twice");
                }
            }
            let wanted = usize::from(plans.first().min_replicas);
            if nodes.len() < wanted {
                return bad(format!("{} receipts, but at least {wanted} are needed", nodes.len()));
            }
        }
        Ok(())
    }
}

impl Transaction {
    /// Creates the record of a chunk with this policy. Returns `false` when this upload registered it already;
    /// refuses a chunk that was abandoned since, or may have been collected.
    pub(super) async fn register_chunk(
        &mut self,
        plan: &Plan,
        (policy, replication): (u32, Replication),
        written: &WrittenChunk,
    ) -> Result<bool, Error> {
        let id: ChunkId = written.chunk;
        let inode: InodeId = plan.inode;
        if let Some(known) = self.chunk(id).await? {
            return match known {
                _ if known.is_tombstone() => Err(Error::DeletedSince { name: plan.name.clone() }),
                _ if known.inode == inode && known.seal == written.seal => Ok(false),
                _ => Err(Error::ConfirmedOtherwise { name: plan.name.clone() }),
            };
        }
        if id < self.floor().await? {
            return Err(Error::BelowFloor(id));
        }
        let mut replicas = Vec::with_capacity(written.receipts.len());
        for receipt in &written.receipts {
            if let Some((_, disk)) = self.holder(receipt).await? {
                replicas.push(Replica::new(disk, Part::WHOLE, receipt.stamp));
            }
        }
        let wanted = usize::from(plan.min_replicas);
        if replicas.len() < wanted {
            return Err(Error::ReplicasGone { chunk: id, have: replicas.len(), wanted });
        }
        let chunk = Chunk {
            seal: written.seal,
            redundancy: Redundancy::Replicated { copies: replication.factor },
            policy,
            replicas,
            generation: Generation::FIRST,
            references: 1,
            inode,
        };
        self.put_chunk(id, None, Some(&chunk));
        Ok(true)
    }
}
