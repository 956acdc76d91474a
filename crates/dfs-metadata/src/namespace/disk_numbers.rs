//! The directory of disks: node and disk of each disk number in chunk records.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use dfs_types::{DiskId, DiskNumber, NodeId};

use super::transaction::Transaction;
use super::{Chunk, Namespace, Node};
use crate::records::node::{NodeDisk, NodeDiskState};
use crate::records::setting::NextDisk;
use crate::{Error, keys};

/// Disks by number. Numbers are never reused, so entries never change; only newer numbers may be
/// missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disks(BTreeMap<DiskNumber, DiskLocation>);

/// Node and id of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskLocation {
    /// Node of the disk.
    pub node: NodeId,
    /// Id of the disk.
    pub disk: DiskId,
}

impl Disks {
    /// Collects the disks of these nodes.
    pub fn of(nodes: &[(NodeId, Node)]) -> Self {
        let disks = nodes.iter().flat_map(|(node, record)| {
            let location = |disk: &NodeDisk| DiskLocation { node: *node, disk: disk.id };
            record.disks.iter().map(move |disk| (disk.number, location(disk)))
        });
        Self(disks.collect())
    }

    /// Returns the disk with a number.
    pub fn get(&self, disk: DiskNumber) -> Option<DiskLocation> {
        self.0.get(&disk).copied()
    }

    /// Returns the node of a disk.
    pub fn node(&self, disk: DiskNumber) -> Option<NodeId> {
        self.get(disk).map(|location| location.node)
    }
}

impl Namespace {
    /// Returns the directory of disks with every disk that these chunks name, if its node is
    /// stored. Cached; as large as the `n/` records, which are read again when a number is unknown.
    /// Disks of a node whose record has become unreadable stay in the cache.
    pub async fn disks_of(
        &self,
        chunks: impl IntoIterator<Item = &Chunk>,
    ) -> Result<Arc<Disks>, Error> {
        let named = chunks.into_iter().flat_map(|chunk| &chunk.replicas);
        let disks: Vec<DiskNumber> = named.map(|replica| replica.disk).collect();
        self.locations(&disks).await
    }

    /// Like [`Self::disks_of`], with these disks.
    pub async fn locations(&self, disks: &[DiskNumber]) -> Result<Arc<Disks>, Error> {
        let known = self.disks();
        if disks.iter().all(|disk| known.0.contains_key(disk)) {
            return Ok(known);
        }
        let nodes = super::nodes::all(&self.begin().await?).await?;
        let mut fresh = Disks::of(&nodes.nodes);
        if !nodes.unreadable.is_empty() {
            for (disk, location) in &known.0 {
                fresh.0.entry(*disk).or_insert(*location);
            }
        }
        let fresh = Arc::new(fresh);
        self.inner.disks.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&fresh);
        Ok(fresh)
    }

    fn disks(&self) -> Arc<Disks> {
        self.inner.disks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Transaction {
    /// Returns the disks of a node that registers with `present`: all it ever had, with numbers for
    /// new ones.
    pub(super) async fn number_disks(
        &mut self,
        mut disks: Vec<NodeDisk>,
        present: &[DiskId],
    ) -> Result<Vec<NodeDisk>, Error> {
        for disk in &mut disks {
            disk.state = match disk.state {
                _ if present.contains(&disk.id) => NodeDiskState::Present,
                NodeDiskState::Present => NodeDiskState::Absent,
                state => state,
            };
        }
        let known = |disks: &[NodeDisk], id| disks.iter().any(|disk| disk.id == id);
        if present.iter().all(|id| known(&disks, *id)) {
            return Ok(disks);
        }
        let missing = || Error::Damaged { key: keys::show(&keys::DISKS), what: "nothing" };
        let NextDisk(mut next) = self.get(&keys::DISKS).await?.ok_or_else(missing)?;
        for id in present {
            if !known(&disks, *id) {
                disks.push(NodeDisk::new(next, *id));
                next.0 = next.0.checked_add(1).ok_or(Error::Invalid {
                    what: "the cluster has no disk numbers left".to_owned(),
                })?;
            }
        }
        self.put(keys::DISKS, &NextDisk(next));
        Ok(disks)
    }
}
