//! The health of chunks: one pure function for repair, status, read order, and every check that a
//! node can stop or leave.

use std::collections::{BTreeMap, BTreeSet};

use dfs_types::{
    DiskId, DiskNumber, DiskState, NodeId, NodeState, Part, Redundancy, ReplicaHealth,
};

use crate::records::chunk::{Chunk, Replica, ReplicaMark};
use crate::records::node::NodeDisk;
pub use crate::records::node::NodeIntent;

/// Liveness of a node, as a coordinator learned it from heartbeats.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeLiveness {
    /// Silence of the node.
    pub contact: Contact,
    /// Disks that were not reported as healthy.
    pub disks: BTreeMap<DiskId, DiskFault>,
}

/// Silence of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Contact {
    /// Sent a heartbeat recently, and is not about to stop.
    Responsive,
    /// No heartbeat yet, silent within the grace period, or about to stop.
    #[default]
    Silent,
    /// Silent beyond the grace period.
    Lost,
}

/// A fault of a disk on a node that sends heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// Operations take unusually long.
    Slow,
    /// Being emptied.
    Retiring,
    /// Missed a registration of its node, and is not reconciled yet.
    Returning,
    /// Hung, missing, not reported or not read further, for less than the grace period.
    Unavailable,
    /// Failed, or unavailable for longer than the grace period.
    Lost,
}

impl DiskFault {
    /// Returns the fault of a disk in `state`, if any. `is_overdue` tells whether it has been
    /// unavailable for longer than the grace period.
    pub fn of(state: DiskState, is_overdue: bool) -> Option<Self> {
        match state {
            DiskState::Healthy => None,
            DiskState::Slow => Some(Self::Slow),
            DiskState::Retiring => Some(Self::Retiring),
            DiskState::Returning => Some(Self::Returning),
            DiskState::Failed => Some(Self::Lost),
            DiskState::Starting | DiskState::Hung | DiskState::Missing if is_overdue => {
                Some(Self::Lost)
            }
            DiskState::Starting | DiskState::Hung | DiskState::Missing => Some(Self::Unavailable),
        }
    }
}

/// Reliability of replicas on a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DiskHealth {
    /// Fully.
    Good,
    /// For now; the disk is to be emptied.
    Leaving,
    /// Unknown: nothing proves that the replicas are gone.
    #[default]
    Suspect,
    /// Not at all.
    Lost,
}

/// Node and health of every disk that records may name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    disks: BTreeMap<DiskNumber, (NodeId, DiskHealth)>,
    /// Good disks that are read last.
    slow: BTreeSet<DiskNumber>,
    /// Disks of nodes that were removed for good.
    removed: BTreeSet<DiskNumber>,
    /// Health of all other disks.
    unknown: DiskHealth,
}

impl Cluster {
    /// Adds the disks of a node.
    pub fn add_node(
        &mut self,
        node: NodeId,
        intent: NodeIntent,
        disks: &[NodeDisk],
        liveness: &NodeLiveness,
    ) {
        for disk in disks {
            let health = disk_health(intent, liveness, disk);
            self.disks.insert(disk.number, (node, health));
            if liveness.disks.get(&disk.id) == Some(&DiskFault::Slow) {
                self.slow.insert(disk.number);
            }
            if intent.state == NodeState::Removed {
                self.removed.insert(disk.number);
            }
        }
    }

    /// Returns whether a disk is slow: as reliable as any other, but read last.
    pub fn is_slow(&self, disk: DiskNumber) -> bool {
        self.slow.contains(&disk)
    }

    /// Returns whether the node of a disk was removed for good: nothing on it comes back.
    fn is_removed(&self, disk: DiskNumber) -> bool {
        self.removed.contains(&disk)
    }

    /// Returns the node of a disk; `None` for an unknown disk.
    pub fn node(&self, disk: DiskNumber) -> Option<NodeId> {
        self.disks.get(&disk).map(|(node, _)| *node)
    }

    /// Returns the health of a disk; [`DiskHealth::Suspect`] for an unknown disk, unless unknown
    /// disks were [excluded](Self::without_unknown).
    pub fn disk(&self, disk: DiskNumber) -> DiskHealth {
        self.disks.get(&disk).map_or(self.unknown, |(_, health)| *health)
    }

    /// Returns the disks whose replicas do not count.
    pub fn lost(&self) -> LostDisks {
        let is_lost = |(_, (_, health)): &(_, &(_, DiskHealth))| *health == DiskHealth::Lost;
        LostDisks {
            known: self.disks.iter().filter(is_lost).map(|(disk, _)| *disk).collect(),
            and_unknown: self.unknown == DiskHealth::Lost,
        }
    }

    /// Returns whether a disk is lost now that was not before, or was not known.
    pub fn has_lost_since(&self, before: &Self) -> bool {
        let was_lost =
            |disk| before.disks.get(disk).is_some_and(|(_, health)| *health == DiskHealth::Lost);
        let mut disks = self.disks.keys().chain(before.disks.keys());
        disks.any(|disk| self.disk(*disk) == DiskHealth::Lost && !was_lost(disk))
    }

    /// Returns the cluster with all unknown disks lost, for decisions that must not rely on them.
    #[must_use]
    pub fn without_unknown(self) -> Self {
        Self { unknown: DiskHealth::Lost, ..self }
    }

    /// Returns the cluster with the disks of some nodes lost.
    #[must_use]
    pub fn without(mut self, nodes: &BTreeSet<NodeId>) -> Self {
        for (node, health) in self.disks.values_mut() {
            if nodes.contains(node) {
                *health = DiskHealth::Lost;
            }
        }
        self
    }
}

/// The disks whose replicas do not count. Chunks at rest can need repair when they change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LostDisks {
    /// Lost disks of known nodes.
    pub known: BTreeSet<DiskNumber>,
    /// Whether every disk of no known node is one.
    pub and_unknown: bool,
}

impl LostDisks {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && !self.and_unknown
    }
}

/// Returns the first health that applies: lost, suspect, leaving, good.
fn disk_health(intent: NodeIntent, liveness: &NodeLiveness, disk: &NodeDisk) -> DiskHealth {
    let is_member =
        matches!(intent.state, NodeState::Active | NodeState::Draining | NodeState::Drained);
    let fault = liveness.disks.get(&disk.id);
    // Silence during maintenance is expected, and a node that never joined holds nothing.
    let is_expected_silent = intent.in_maintenance || !is_member;
    if intent.state == NodeState::Removed
        || fault == Some(&DiskFault::Lost)
        || liveness.contact == Contact::Lost && !is_expected_silent
    {
        DiskHealth::Lost
    } else if is_expected_silent
        || liveness.contact != Contact::Responsive
        || matches!(fault, Some(DiskFault::Returning | DiskFault::Unavailable))
    {
        DiskHealth::Suspect
    } else if intent.is_leaving
        || intent.state != NodeState::Active
        || disk.is_retiring
        || fault == Some(&DiskFault::Retiring)
    {
        DiskHealth::Leaving
    } else {
        DiskHealth::Good
    }
}

fn replica_health(replica: &Replica, cluster: &Cluster) -> ReplicaHealth {
    match (replica.mark, cluster.disk(replica.disk)) {
        (ReplicaMark::Doomed, _) => ReplicaHealth::Doomed,
        (ReplicaMark::Gone, _) => ReplicaHealth::Gone,
        // So that it is dropped once there are enough others.
        _ if cluster.is_removed(replica.disk) => ReplicaHealth::Gone,
        (_, DiskHealth::Lost) => ReplicaHealth::Lost,
        (ReplicaMark::Bad, _) => ReplicaHealth::Bad,
        (ReplicaMark::Sound, DiskHealth::Suspect) => ReplicaHealth::Suspect,
        (ReplicaMark::Sound, DiskHealth::Leaving) => ReplicaHealth::Leaving,
        (ReplicaMark::Sound, DiskHealth::Good) => ReplicaHealth::Good,
    }
}

/// Numbers of distinct parts of a chunk. Wholes are distinguished by node, fragments by number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Parts {
    /// Nodes with a whole replica.
    pub wholes: u8,
    /// Fragments.
    pub fragments: u8,
}

/// The health of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Health of each replica, in the order of the record.
    pub replicas: Vec<ReplicaHealth>,
    /// Parts kept, as far as is known.
    pub durable: Parts,
    /// Parts certainly readable now.
    pub readable: Parts,
    /// Parts kept once everything leaving is gone.
    pub stays: Parts,
    /// Replicas known to be bad or gone.
    pub bad: u8,
    /// Parts wanted.
    pub target: u8,
    /// Parts from which the chunk can be read: 1 whole, or k fragments.
    least: u8,
    is_coded: bool,
}

/// Judges the replicas of a chunk. Pure; a tombstone is judged like any other record.
pub fn judge(chunk: &Chunk, cluster: &Cluster) -> Health {
    let replicas: Vec<_> =
        chunk.replicas.iter().map(|replica| replica_health(replica, cluster)).collect();
    let parts = |counts: fn(ReplicaHealth) -> bool| {
        let (mut nodes, mut disks) = (BTreeSet::new(), BTreeSet::new());
        let mut fragments = BTreeSet::new();
        for (replica, health) in chunk.replicas.iter().zip(&replicas) {
            match replica.part {
                _ if !counts(*health) => {}
                // Unknown disks may be of any node.
                Part::WHOLE => match cluster.node(replica.disk) {
                    Some(node) => drop(nodes.insert(node)),
                    None => drop(disks.insert(replica.disk)),
                },
                fragment => drop(fragments.insert(fragment)),
            }
        }
        Parts { wholes: small(nodes.len() + disks.len()), fragments: small(fragments.len()) }
    };
    let is_bad =
        |health: &&ReplicaHealth| matches!(health, ReplicaHealth::Bad | ReplicaHealth::Gone);
    let (least, is_coded) = match chunk.redundancy {
        Redundancy::Replicated { .. } => (1, false),
        Redundancy::Erasure { k, .. } => (k, true),
    };
    Health {
        durable: parts(ReplicaHealth::is_durable),
        readable: parts(ReplicaHealth::is_readable),
        stays: parts(ReplicaHealth::stays),
        bad: small(replicas.iter().filter(is_bad).count()),
        target: chunk.redundancy.target(),
        least,
        is_coded,
        replicas,
    }
}

fn small(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX)
}

impl Health {
    /// Counts the parts of the kind that the redundancy uses.
    pub fn count(&self, parts: Parts) -> u8 {
        if self.is_coded { parts.fragments } else { parts.wholes }
    }

    /// Returns how many durable parts can be lost before the chunk is; negative when it is missing.
    pub fn spare(&self) -> i16 {
        self.spare_of(self.durable)
    }

    /// Returns [`Self::spare`] for these parts.
    pub fn spare_of(&self, parts: Parts) -> i16 {
        let of = |have: u8, least: u8| i16::from(have) - i16::from(least);
        let wholes = of(parts.wholes, 1);
        if self.is_coded { wholes.max(of(parts.fragments, self.least)) } else { wholes }
    }

    /// Returns whether too few durable replicas are left to read the chunk.
    pub fn is_missing(&self) -> bool {
        self.spare() < 0
    }

    /// Returns how many durable parts it is short of the target.
    pub fn lacks(&self) -> u8 {
        self.target.saturating_sub(self.count(self.durable))
    }

    /// Returns whether replicas have to be added or replaced.
    pub fn needs_repair(&self) -> bool {
        self.lacks() > 0 || self.bad > 0
    }

    /// Returns the urgency of its repair, smallest first: spare parts, then parts that stay.
    pub fn urgency(&self) -> (i16, i16) {
        (self.spare(), i16::from(self.count(self.stays)) - i16::from(self.target))
    }
}

#[cfg(test)]
mod tests;
