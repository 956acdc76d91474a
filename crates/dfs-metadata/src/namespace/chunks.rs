//! The records of chunks, for those who keep their replicas well.

use bytes::Bytes;
use dfs_types::{Access, ChunkId, Generation, NodeId, Receipt, Revision, Scope, Stamp};

use super::transaction::{Attempt, Transaction};
use super::{Chunk, Namespace, Node, Replica, TRIES};
use crate::engine::Condition;
use crate::{Error, keys};

/// Some chunks in id order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkPage {
    /// Of the snapshot.
    pub revision: Revision,
    /// The chunks, tombstones included.
    pub chunks: Vec<(ChunkId, Chunk)>,
    /// Whether there are more after the last of these.
    pub has_more: bool,
}

/// Names a replica of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplicaId {
    /// The node.
    pub node: NodeId,
    /// Which replica there.
    pub stamp: Stamp,
}

impl Namespace {
    /// Chunks with ids greater than `after`, at most `limit` and [`Self::PAGE_LEN_MAX`].
    pub async fn scan_chunks(
        &self,
        scope: &Scope,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<ChunkPage, Error> {
        scope.require(Access::Admin)?;
        let tx = self.begin().await?;
        let limit = limit.clamp(1, Self::PAGE_LEN_MAX);
        let after = after.map_or_else(Bytes::new, keys::chunk);
        let mut found = tx.range::<Chunk>(keys::CHUNKS, &after, limit + 1).await?;
        let has_more = found.len() > limit;
        found.truncate(limit);
        let chunks = found.into_iter().map(with_id).collect::<Result<_, _>>()?;
        Ok(ChunkPage { revision: tx.revision(), chunks, has_more })
    }

    /// The records of these chunks, in this order; `None` for those without.
    pub async fn chunks(
        &self,
        scope: &Scope,
        ids: &[ChunkId],
    ) -> Result<Vec<Option<Chunk>>, Error> {
        scope.require(Access::Admin)?;
        let keys: Vec<Bytes> = ids.iter().copied().map(keys::chunk).collect();
        self.begin().await?.peek_many(&keys).await
    }

    /// Adds replicas that nodes vouch for and removes others, in one commit, provided that the
    /// record is still of `generation` and `fence` holds. Returns the new record.
    ///
    /// Refuses to leave the chunk without a good replica, forged receipts, and nodes that do not
    /// take part.
    pub async fn swap_replicas(
        &self,
        scope: &Scope,
        chunk: ChunkId,
        generation: Generation,
        add: &[Receipt],
        remove: &[ReplicaId],
        fence: Option<&Condition>,
    ) -> Result<Chunk, Error> {
        scope.require(Access::Admin)?;
        for receipt in add {
            self.check_receipt(chunk, receipt)?;
        }
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin_fenced(fence).await?;
            let key = keys::chunk(chunk);
            let record = tx.get::<Chunk>(&key).await?;
            let mut record =
                record.filter(|record| !record.is_tombstone()).ok_or(Error::UnknownChunk(chunk))?;
            if record.generation != generation {
                return Err(Error::ChunkChanged(chunk));
            }
            for receipt in add {
                if receipt.length != record.seal.length || receipt.crc32c != record.seal.crc32c {
                    let what = "it is for other bytes";
                    return Err(Error::BadReceipt { chunk, node: receipt.node, what });
                }
                if !tx.counts(receipt).await? {
                    let what = "the node does not take part";
                    return Err(Error::BadReceipt { chunk, node: receipt.node, what });
                }
                record.replicas.retain(|replica| replica.node != receipt.node);
                record.replicas.push(Replica::of(receipt));
            }
            record.replicas.retain(|replica| !remove.contains(&ReplicaId::of(replica)));
            if record.good_replicas().next().is_none() {
                return Err(Error::LastReplica(chunk));
            }
            record.generation = generation.next();
            tx.put(key, &record);
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(record);
            }
        }
        Err(Error::Conflict { what: "the replicas of a chunk", tries: TRIES })
    }

    /// Notes that a replica is bad or gone. Returns the record, or `None` when there is no such replica
    /// (any more); either way the replica is no longer counted. A node that says so of its own replica
    /// needs no `fence`.
    pub async fn mark_bad(
        &self,
        scope: &Scope,
        chunk: ChunkId,
        replica: ReplicaId,
        fence: Option<&Condition>,
    ) -> Result<Option<Chunk>, Error> {
        scope.require(Access::Admin)?;
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = match fence {
                Some(_) => self.begin_fenced(fence).await?,
                None => self.begin().await?,
            };
            let key = keys::chunk(chunk);
            let Some(mut record) = tx.get::<Chunk>(&key).await? else { return Ok(None) };
            let Some(bad) =
                record.replicas.iter_mut().find(|found| ReplicaId::of(found) == replica)
            else {
                return Ok(None);
            };
            if bad.is_bad {
                return Ok(Some(record));
            }
            bad.is_bad = true;
            record.generation = record.generation.next();
            tx.put(key, &record);
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(Some(record));
            }
        }
        Err(Error::Conflict { what: "the replicas of a chunk", tries: TRIES })
    }

    /// Notes that replicas of a tombstone were deleted. What a reaper returned and could not order
    /// stays in the tombstone until then, and is found by [`Self::scan_chunks`].
    pub async fn forget_replicas(
        &self,
        scope: &Scope,
        chunk: ChunkId,
        replicas: &[ReplicaId],
        fence: Option<&Condition>,
    ) -> Result<(), Error> {
        scope.require(Access::Admin)?;
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin_fenced(fence).await?;
            let key = keys::chunk(chunk);
            let Some(mut record) = tx.get::<Chunk>(&key).await? else { return Ok(()) };
            let before = record.replicas.len();
            record.replicas.retain(|replica| !replicas.contains(&ReplicaId::of(replica)));
            if !record.is_tombstone() || record.replicas.len() == before {
                return Ok(());
            }
            record.generation = record.generation.next();
            tx.put(key, &record);
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(());
            }
        }
        Err(Error::Conflict { what: "the replicas of a chunk", tries: TRIES })
    }

    /// Refuses a receipt that is not the word of the node it names for this chunk.
    pub(super) fn check_receipt(&self, chunk: ChunkId, receipt: &Receipt) -> Result<(), Error> {
        let node = receipt.node;
        if receipt.chunk != chunk {
            return Err(Error::BadReceipt { chunk, node, what: "it is for another chunk" });
        }
        if !receipt.is_genuine(&self.inner.key) {
            return Err(Error::BadReceipt { chunk, node, what: "the node did not seal it" });
        }
        Ok(())
    }
}

impl ReplicaId {
    /// Which replica that is.
    pub fn of(replica: &Replica) -> Self {
        Self { node: replica.node, stamp: replica.stamp }
    }
}

impl Transaction {
    /// Whether the node of a receipt takes part, now and when the commit takes place.
    pub(super) async fn counts(&mut self, receipt: &Receipt) -> Result<bool, Error> {
        let node = self.get::<Node>(&keys::node(receipt.node)).await?;
        let newest = |node: &Node| node.pending.max(node.confirmed);
        let is_known = |node: &Node| receipt.registration <= newest(node);
        // A disk that the node has no longer holds nothing.
        let has_disk = |node: &Node| node.disks.contains(&receipt.disk);
        Ok(node.is_some_and(|node| node.may_hold_replicas() && is_known(&node) && has_disk(&node)))
    }
}

pub(super) fn with_id((key, chunk): (Bytes, Chunk)) -> Result<(ChunkId, Chunk), Error> {
    let damaged = || Error::Damaged { key: keys::show(&key), what: "a key of no chunk" };
    Ok((keys::chunk_id(&key).ok_or_else(damaged)?, chunk))
}
