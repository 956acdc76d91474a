//! Changing the replicas of chunks.

use std::collections::BTreeSet;

use bytes::Bytes;
use dfs_types::{
    Access, ChunkId, DiskId, DiskNumber, Generation, NodeId, Part, PlantedBug, ReadProof, Receipt,
    RegistrationNumber, ReplicaCondition, ReplicaRef, ReplicaVerdict, Scope, Stamp,
};

use super::chunk_records::record_keys;
use super::transaction::{Attempt, Transaction};
use super::{Chunk, Namespace, Node, Replica, ReplicaMark, TRIES};
use crate::chunk_health::{Cluster, judge};
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

/// Replicas of one part to doom, with the proof that nothing is lost by it. Nothing is doomed on
/// the word of a record alone.
#[derive(Debug, Clone, Copy)]
pub struct Doom<'a> {
    /// The replicas.
    pub replicas: &'a [ReplicaId],
    /// Proof that another replica of the part was read end to end since the generation of the
    /// swap: one of the record, or one that the swap adds.
    pub kept: &'a ReadProof,
}

/// How a verdict came about.
#[derive(Debug, Clone, Copy)]
pub enum Evidence<'a> {
    /// Reported by the node on its own account. Not recorded if no readable replica would be left
    /// in this state of the cluster.
    Reported(&'a Cluster),
    /// Found on the order of a coordinator to read the replica again.
    ReadAgain,
}

/// Result of a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Marked {
    /// The record has this verdict since now.
    Recorded {
        /// The new record.
        record: Chunk,
        /// The mark of the replica before.
        before: ReplicaMark,
    },
    /// The record had this verdict or a later one, or the replica is doomed.
    Known {
        /// The unchanged record.
        record: Chunk,
        /// The mark of the replica.
        mark: ReplicaMark,
    },
    /// No record names the replica.
    Unnamed,
    /// Not recorded, as this replica may be the last readable one: it must be read again first.
    NotProven(ReplicaRef),
}

impl Namespace {
    /// Adds replicas proven by receipts and dooms others, in one commit, on the condition that the
    /// record is still at `generation` and `fence` holds. Returns the new record. Idempotent for
    /// replicas that are already doomed.
    ///
    /// A node keeps one replica of a part: its other replicas of an added part are doomed, too, and
    /// the receipt is the proof. A bad replica is doomed only if all replicas wanted are sound, as
    /// others may lack its good blocks. Fails when the chunk would be left without a sound replica, or
    /// with fewer of them than it has and should have,
    /// a receipt or proof is forged or of another replica, or a node is not a member.
    pub async fn swap_replicas(
        &self,
        scope: &Scope,
        chunk: ChunkId,
        generation: Generation,
        add: &[Receipt],
        doom: Option<Doom<'_>>,
        fence: Option<&Condition>,
    ) -> Result<Chunk, Error> {
        scope.require(Access::Admin)?;
        for receipt in add {
            self.check_receipt(chunk, receipt)?;
        }
        if let Some(Doom { kept, .. }) = &doom {
            self.check_proof(chunk, generation, kept)?;
        }
        let nodes = add.iter().map(|receipt| receipt.node);
        let nodes: BTreeSet<NodeId> = nodes.chain(doom.iter().map(|doom| doom.kept.node)).collect();
        let known = nodes.into_iter().map(keys::node).chain(record_keys(&[chunk]));
        let known: Vec<Bytes> = known.collect();
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin_fenced(fence).await?;
            tx.read_ahead(known.clone()).await?;
            let old = tx.chunk(chunk).await?;
            let old = old.filter(|old| !old.is_tombstone()).ok_or(Error::UnknownChunk(chunk))?;
            if old.generation != generation && !PlantedBug::SwapWithoutCompare.is_planted() {
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
            if let Some(doom) = &doom {
                tx.doom(chunk, &mut new, doom).await?;
            }
            let (had, has) = (old.sound_replicas().count(), new.sound_replicas().count());
            if has == 0 {
                return Err(Error::LastReplica(chunk));
            }
            if has < had.min(old.redundancy.target().into()) {
                return Err(Error::ReplicaNeeded(chunk));
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

    /// Records a verdict on exactly this replica of a node. A verdict not greater than the recorded
    /// one changes nothing, and no verdict revives a doomed replica.
    ///
    /// A node reporting its own replica needs no `fence`.
    pub async fn mark_replica(
        &self,
        scope: &Scope,
        node: NodeId,
        verdict: ReplicaVerdict,
        evidence: Evidence<'_>,
        fence: Option<&Condition>,
    ) -> Result<Marked, Error> {
        scope.require(Access::Admin)?;
        let ReplicaVerdict { replica: reported, number, condition, block: _ } = verdict;
        let ReplicaRef { chunk, part, disk, stamp } = reported;
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin_fenced(fence).await?;
            let Some(old) = tx.chunk(chunk).await? else { return Ok(Marked::Unnamed) };
            let holder = tx.peek::<Node>(&keys::node(node)).await?;
            let Some(holder) = holder else { return Ok(Marked::Unnamed) };
            let mut new = old.clone();
            let is_older = |it: &Replica| stamp == Stamp(0) && it.stamp.0 < number;
            let is_named = |it: &&mut Replica| {
                (it.stamp == stamp || is_older(it) && !it.is_doomed())
                    && it.part == part
                    && holder.is_disk(it.disk, disk)
            };
            let Some(replica) = new.replicas.iter_mut().find(is_named) else {
                return Ok(Marked::Unnamed);
            };
            let before = replica.mark;
            let is_late = number <= replica.verdict && !PlantedBug::VerdictOutOfOrder.is_planted();
            if replica.is_doomed() || is_late {
                return Ok(Marked::Known { record: old, mark: before });
            }
            let named = replica.stamp;
            replica.mark = condition.into();
            replica.verdict = number;
            if let (Evidence::Reported(cluster), false) = (evidence, replica.is_sound()) {
                let health = judge(&new, cluster);
                if health.spare_of(health.readable) < 0 {
                    return Ok(Marked::NotProven(ReplicaRef { stamp: named, ..reported }));
                }
            }
            new.generation = old.generation.next();
            tx.put_chunk(chunk, Some(&old), Some(&new));
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(Marked::Recorded { record: new, before });
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

    /// Refuses a proof that its node did not seal for this chunk and generation.
    fn check_proof(
        &self,
        chunk: ChunkId,
        generation: Generation,
        proof: &ReadProof,
    ) -> Result<(), Error> {
        let refused = |what| Error::BadProof { chunk, node: proof.node, what };
        if proof.replica.chunk != chunk {
            return Err(refused("proof of another chunk"));
        }
        if !proof.is_genuine(&self.inner.keys) {
            return Err(refused("proof not sealed by the node"));
        }
        // Of a later generation too: it was read before the order, and this swap fails.
        if proof.generation != generation {
            return Err(refused("the replica was read at another generation"));
        }
        Ok(())
    }
}

impl From<ReplicaCondition> for ReplicaMark {
    fn from(condition: ReplicaCondition) -> Self {
        match condition {
            ReplicaCondition::Sound => Self::Sound,
            ReplicaCondition::Bad => Self::Bad,
            ReplicaCondition::Gone => Self::Gone,
        }
    }
}

impl ReplicaMark {
    /// Returns the condition that the mark records; `None` if the replica is doomed.
    pub fn condition(self) -> Option<ReplicaCondition> {
        match self {
            Self::Sound => Some(ReplicaCondition::Sound),
            Self::Bad => Some(ReplicaCondition::Bad),
            Self::Gone => Some(ReplicaCondition::Gone),
            Self::Doomed => None,
        }
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
    /// Dooms replicas of `new` for which the proof of the kept one is valid.
    async fn doom(
        &mut self,
        chunk: ChunkId,
        new: &mut Chunk,
        doom: &Doom<'_>,
    ) -> Result<(), Error> {
        let Doom { replicas, kept: ReadProof { replica, node, registration, .. } } = *doom;
        let refused = |what| Error::BadProof { chunk, node: *node, what };
        let holder = self.holder_under(*node, *registration, replica.disk).await?;
        let (_, disk) = holder.ok_or_else(|| refused("the node is not a member"))?;
        let kept = ReplicaId { disk, part: replica.part, stamp: replica.stamp };
        let is_sound = |it: &Replica| it.is_sound() && ReplicaId::of(it) == kept;
        if !new.replicas.iter().any(is_sound) {
            return Err(refused("the replica read is not a sound one of the record"));
        }
        let mut any_bad = false;
        for doomed in &mut new.replicas {
            let id = ReplicaId::of(doomed);
            if !replicas.contains(&id) {
                continue;
            }
            if id == kept || id.part != kept.part {
                return Err(refused("the replica read is not another one of the part"));
            }
            any_bad |= doomed.mark == ReplicaMark::Bad;
            doomed.mark = ReplicaMark::Doomed;
        }
        if any_bad && new.sound_replicas().count() < usize::from(new.redundancy.target()) {
            return Err(Error::BadReplicaNeeded(chunk));
        }
        Ok(())
    }

    /// Returns the node of a receipt and its disk number; `None` when the receipt does not count.
    /// The commit requires both to be unchanged.
    pub(super) async fn holder(
        &mut self,
        receipt: &Receipt,
    ) -> Result<Option<(Node, DiskNumber)>, Error> {
        self.holder_under(receipt.node, receipt.registration, receipt.disk).await
    }

    /// Returns a node and the number of its disk; `None` unless its statements under this
    /// registration count. The commit requires both to be unchanged.
    async fn holder_under(
        &mut self,
        node: NodeId,
        registration: RegistrationNumber,
        disk: DiskId,
    ) -> Result<Option<(Node, DiskNumber)>, Error> {
        let node = match self.get::<Node>(&keys::node(node)).await {
            // The disks of the node are unknown.
            Err(Error::Damaged { .. }) => None,
            node => node?,
        };
        let counts = |node: &Node| node.counts_under(registration);
        let Some(node) = node.filter(counts) else { return Ok(None) };
        // A disk missing from the node's last registration does not count.
        Ok(node.disk_number(disk).map(|disk| (node, disk)))
    }
}
