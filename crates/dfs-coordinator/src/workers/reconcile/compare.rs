//! Comparison of one disk with the records, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};

use dfs_metadata::chunk_health::Cluster;
use dfs_metadata::namespace::{Chunk, ReplicaId, ReplicaMark};
use dfs_metadata::replica_findings::{Finding, RecordAfter, Sighting};
use dfs_types::{ChunkId, DiskId, DiskNumber, NodeId, ReplicaRef, Scope};

use super::calls::{ListedReplica, Listing, Name, Range};
use super::{Reconcile, calls};
use crate::Error;

/// Records read at once.
const RECORDS_AT_ONCE: usize = 500;

/// A disk to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) node: NodeId,
    pub(super) disk: DiskId,
    pub(super) number: DiskNumber,
}

/// What was found about one replica.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) replica: ReplicaRef,
    pub(super) listed: Option<ListedReplica>,
}

/// All findings of one disk.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Number of the verdicts that follow.
    pub(super) verdict: u64,
    pub(super) gone: Vec<Found>,
    pub(super) back: Vec<Found>,
    pub(super) withheld: Vec<Found>,
    pub(super) orphans: Vec<Found>,
    pub(super) adoptable: Vec<Found>,
    pub(super) surplus: Vec<Found>,
}

impl Found {
    /// Returns the bytes of a listed replica.
    pub(super) fn bytes(&self) -> u64 {
        self.listed.map_or(0, |listed| listed.listed.seal.length)
    }
}

impl Target {
    pub(super) fn replica(&self, (chunk, part, stamp): Name) -> (ReplicaRef, ReplicaId) {
        let Self { disk, number, .. } = *self;
        let id = ReplicaId { disk: number, part, stamp };
        (ReplicaRef { chunk, part, disk, stamp }, id)
    }
}

/// Returns the replicas for which list and records may differ.
fn candidates(
    target: &Target,
    before: &BTreeMap<ChunkId, Chunk>,
    listing: &Listing,
) -> BTreeSet<Name> {
    let mut candidates = BTreeSet::new();
    for (chunk, record) in before {
        let here = record.replicas.iter().filter(|it| it.disk == target.number);
        for replica in here.filter(|it| it.mark != ReplicaMark::Gone) {
            let name = (*chunk, replica.part, replica.stamp);
            if !listing.replicas.contains_key(&name) {
                candidates.insert(name);
            }
        }
    }
    for (name, replica) in &listing.replicas {
        let (_, id) = target.replica(*name);
        let named = before.get(&name.0).filter(|record| !record.is_tombstone());
        let named = named.and_then(|it| it.replicas.iter().find(|it| ReplicaId::of(it) == id));
        let is_consistent =
            named.is_some_and(|it| matches!(it.mark, ReplicaMark::Sound | ReplicaMark::Bad));
        if !is_consistent || replica.quarantined.is_some() {
            candidates.insert(*name);
        }
    }
    candidates
}

impl Reconcile {
    /// Compares the list of a disk with the records read before it, and again after it. `None` if
    /// the disk cannot be listed completely.
    pub(super) async fn compare(
        &self,
        target: &Target,
        before: &BTreeMap<ChunkId, Chunk>,
        range: Range,
        (floor, cluster): (ChunkId, &Cluster),
    ) -> Result<Option<Findings>, Error> {
        let listed = calls::list(&self.core, &self.lease, (target.node, target.disk), range).await;
        let listing = match listed {
            Ok(Some(listing)) => listing,
            Ok(None) => return Ok(None),
            Err(failure) => {
                let Target { node, disk, .. } = *target;
                tracing::debug!(%node, %disk, %failure, "a disk could not be listed");
                return Ok(None);
            }
        };
        let mut findings = Findings { verdict: listing.verdict, ..Findings::default() };
        let candidates: Vec<Name> = candidates(target, before, &listing).into_iter().collect();
        for names in candidates.chunks(RECORDS_AT_ONCE) {
            // Between the list and the records after it.
            let moving = self.core.background.moving();
            let ids: Vec<ChunkId> = names.iter().map(|(chunk, ..)| *chunk).collect();
            let after = self.core.namespace.readable_chunks(Scope::internal(), &ids).await;
            let after = after.map_err(Error::metadata("reading chunk records"))?;
            for (name, after) in names.iter().zip(after) {
                let (replica, id) = target.replica(*name);
                let listed = listing.replicas.get(name).copied();
                let sighting = Sighting {
                    chunk: name.0,
                    replica: id,
                    before: before.get(&name.0),
                    listed: listed.as_ref().map(|listed| &listed.listed),
                    after: match &after {
                        Err(_) => RecordAfter::Unreadable,
                        Ok(None) => RecordAfter::Absent,
                        Ok(Some(record)) => RecordAfter::Chunk(record),
                    },
                    is_moving: moving.contains(&name.0),
                    floor,
                };
                let finding = sighting.finding(cluster);
                findings.add(finding, Found { replica, listed });
            }
        }
        Ok(Some(findings))
    }
}

impl Findings {
    fn add(&mut self, finding: Finding, found: Found) {
        let list = match finding {
            // What is to be deleted is in the queue of deletions as long as its record names it.
            Finding::Consistent | Finding::Undeleted => return,
            Finding::Gone => &mut self.gone,
            Finding::Back => &mut self.back,
            Finding::Withheld => &mut self.withheld,
            Finding::Orphan => &mut self.orphans,
            Finding::Adoptable => &mut self.adoptable,
            Finding::Surplus => &mut self.surplus,
        };
        list.push(found);
    }
}
