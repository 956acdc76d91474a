//! Changing the replicas of chunks.

use dfs_types::{
    Access, ChunkId, DiskNumber, Generation, NodeId, Part, Receipt, ReplicaRef, Scope, Stamp,
};

use super::transaction::{Attempt, Transaction};
use super::{Chunk, Namespace, Node, Replica, ReplicaMark, TRIES};
use crate::engine::Condition;
use crate::{Error, keys};

/// Identifies a replica of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplicaId {
    /// Disk of the replica.
    pub disk: DiskNumber,
    /// Part that it holds.
    pub part: Part,
    /// Distinguishes it from other replicas of the part there.
    pub stamp: Stamp,
}

/// The result of checking a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Sound, bad or gone.
    pub mark: ReplicaMark,
    /// Orders the verdicts on a replica: only a greater one than the recorded one is accepted.
    /// `None` uses the next number, for reporters whose messages carry none.
    pub number: Option<u64>,
}

impl Namespace {
    /// Adds replicas proven by receipts and dooms others, in one commit, on the condition that the
    /// record is still at `generation` and `fence` holds. Returns the new record. Idempotent for
    /// replicas that are already doomed.
    ///
    /// A node keeps one replica of a part: its other replicas of an added part are doomed, too.
    /// Fails when the chunk would be left without a sound replica, a receipt is forged, or a node
    /// is not a member.
    pub async fn swap_replicas(
        &self,
        scope: &Scope,
        chunk: ChunkId,
        generation: Generation,
        add: &[Receipt],
        doom: &[ReplicaId],
        fence: Option<&Condition>,
    ) -> Result<Chunk, Error> {
        scope.require(Access::Admin)?;
        for receipt in add {
            self.check_receipt(chunk, receipt)?;
        }
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin_fenced(fence).await?;
            let old = tx.chunk(chunk).await?;
            let old = old.filter(|old| !old.is_tombstone()).ok_or(Error::UnknownChunk(chunk))?;
            if old.generation != generation {
                return Err(Error::ChunkChanged(chunk));
            }
            let mut new = old.clone();
            for receipt in add {
                let refused = |what| Error::BadReceipt { chunk, node: receipt.node, what };
                if receipt.part != Part::WHOLE {
                    return Err(refused("receipt of a fragment, not of a whole replica"));
                }
                if receipt.length != old.seal.length || receipt.crc32c != old.seal.crc32c {
                    return Err(refused("receipt of other bytes"));
                }
                let Some((node, disk)) = tx.holder(receipt).await? else {
                    return Err(refused("the node is not a member"));
                };
                let added = Replica::new(disk, Part::WHOLE, receipt.stamp);
                if !add_replica(&mut new.replicas, added, &node) {
                    return Err(refused("the replica is waiting for deletion"));
                }
            }
            let doomed = new.replicas.iter_mut().filter(|it| doom.contains(&ReplicaId::of(it)));
            doomed.for_each(|replica| replica.mark = ReplicaMark::Doomed);
            if new.sound_replicas().next().is_none() {
                return Err(Error::LastReplica(chunk));
            }
            if new == old {
                return Ok(old);
            }
            new.generation = generation.next();
            tx.put_chunk(chunk, Some(&old), Some(&new));
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(new);
            }
        }
        Err(Error::Conflict { what: "the replicas of a chunk", tries: TRIES })
    }

    /// Records a verdict on exactly this replica of a node. Returns the record, or `None` if it does
    /// not name a replica with this disk, part and stamp (any more). A verdict not greater than the
    /// recorded one changes nothing, and no verdict revives a doomed replica.
    ///
    /// A node reporting its own replica needs no `fence`.
    pub async fn mark_replica(
        &self,
        scope: &Scope,
        node: NodeId,
        replica: ReplicaRef,
        verdict: Verdict,
        fence: Option<&Condition>,
    ) -> Result<Option<Chunk>, Error> {
        scope.require(Access::Admin)?;
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin_fenced(fence).await?;
            let ReplicaRef { chunk, part, disk, stamp } = replica;
            let Some(old) = tx.chunk(chunk).await? else { return Ok(None) };
            let Some(holder) = tx.peek::<Node>(&keys::node(node)).await? else { return Ok(None) };
            let mut new = old.clone();
            let is_named = |it: &&mut Replica| {
                it.stamp == stamp && it.part == part && holder.is_disk(it.disk, disk)
            };
            let Some(replica) = new.replicas.iter_mut().find(is_named) else { return Ok(None) };
            let number = verdict.number.unwrap_or(replica.verdict + 1);
            let is_known = verdict.number.is_none() && replica.mark == verdict.mark;
            if replica.is_doomed() || number <= replica.verdict || is_known {
                return Ok(Some(old));
            }
            replica.mark = verdict.mark;
            replica.verdict = number;
            new.generation = old.generation.next();
            tx.put_chunk(chunk, Some(&old), Some(&new));
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(Some(new));
            }
        }
        Err(Error::Conflict { what: "the replicas of a chunk", tries: TRIES })
    }

    /// Removes deleted replicas from the record: doomed ones, and those of a tombstone. A tombstone
    /// without replicas is removed once its id is below the floor.
    pub async fn forget_replicas(
        &self,
        scope: &Scope,
        chunk: ChunkId,
        deleted: &[ReplicaId],
        fence: Option<&Condition>,
    ) -> Result<(), Error> {
        scope.require(Access::Admin)?;
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin_fenced(fence).await?;
            let Some(old) = tx.chunk(chunk).await? else { return Ok(()) };
            let mut new = old.clone();
            new.replicas.retain(|replica| {
                let may_be_removed = replica.is_doomed() || old.is_tombstone();
                !(may_be_removed && deleted.contains(&ReplicaId::of(replica)))
            });
            new.generation = old.generation.next();
            // The floor only rises.
            let is_over = old.is_tombstone() && new.replicas.is_empty();
            if is_over && chunk < tx.peek_floor().await? {
                tx.put_chunk(chunk, Some(&old), None);
            } else if new.replicas.len() < old.replicas.len() {
                tx.put_chunk(chunk, Some(&old), Some(&new));
            } else {
                return Ok(());
            }
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(());
            }
        }
        Err(Error::Conflict { what: "the replicas of a chunk", tries: TRIES })
    }

    /// Refuses a receipt that the node it names did not seal for this chunk.
    pub(super) fn check_receipt(&self, chunk: ChunkId, receipt: &Receipt) -> Result<(), Error> {
        let node = receipt.node;
        if receipt.chunk != chunk {
            return Err(Error::BadReceipt { chunk, node, what: "receipt of another chunk" });
        }
        if !receipt.is_genuine(&self.inner.keys) {
            return Err(Error::BadReceipt { chunk, node, what: "receipt not sealed by the node" });
        }
        Ok(())
    }
}

impl ReplicaId {
    /// Returns the identity of a replica.
    pub fn of(replica: &Replica) -> Self {
        Self { disk: replica.disk, part: replica.part, stamp: replica.stamp }
    }
}

/// Adds a replica on a disk of `node` and dooms the other replicas of its part there. Returns
/// `false` when this very replica is already doomed.
fn add_replica(replicas: &mut Vec<Replica>, added: Replica, node: &Node) -> bool {
    let mut is_there = false;
    for replica in replicas.iter_mut().filter(|it| it.part == added.part && node.has(it.disk)) {
        if ReplicaId::of(replica) != ReplicaId::of(&added) {
            replica.mark = ReplicaMark::Doomed;
        } else if replica.is_doomed() {
            return false;
        } else {
            is_there = true;
        }
    }
    if !is_there {
        replicas.push(added);
    }
    true
}

impl Transaction {
    /// Returns the node of a receipt and its disk number; `None` when the receipt does not count.
    /// The commit requires both to be unchanged.
    pub(super) async fn holder(
        &mut self,
        receipt: &Receipt,
    ) -> Result<Option<(Node, DiskNumber)>, Error> {
        let node = match self.get::<Node>(&keys::node(receipt.node)).await {
            // The disks of the node are unknown.
            Err(Error::Damaged { .. }) => None,
            node => node?,
        };
        let newest = |node: &Node| node.pending.max(node.confirmed);
        let counts = |node: &Node| node.may_hold_replicas() && receipt.registration <= newest(node);
        let Some(node) = node.filter(counts) else { return Ok(None) };
        // A disk missing from the node's last registration does not count.
        Ok(node.disk_number(receipt.disk).map(|disk| (node, disk)))
    }
}
