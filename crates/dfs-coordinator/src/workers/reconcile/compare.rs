//! Comparison of one disk with the records, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use dfs_metadata::chunk_health::Cluster;
use dfs_metadata::namespace::{Chunk, ReplicaId, ReplicaMark};
use dfs_metadata::replica_findings::{Finding, Listed, RecordAfter, Sighting};
use dfs_types::{ChunkId, DiskId, DiskNumber, NodeId, ReplicaRef, Scope};
use tracing::debug;

use super::calls::{ListOutcome, Listing, Name, Range};
use super::parts::Parts;
use super::unneeded::KnownUnneeded;
use super::{Reconcile, calls};
use crate::Error;
use crate::checks::CheckReport;

/// Records read at once.
const RECORDS_AT_ONCE: usize = 500;

/// A disk to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) node: NodeId,
    pub(super) disk: DiskId,
    pub(super) number: DiskNumber,
}

/// What disks are compared with.
pub(super) struct Context<'a> {
    /// The records of a window, read before any disk is listed.
    pub(super) before: &'a BTreeMap<ChunkId, Chunk>,
    pub(super) range: Range,
    /// The floor, committed before that.
    pub(super) floor: ChunkId,
    pub(super) cluster: &'a Cluster,
}

/// What was found about one replica.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) replica: ReplicaRef,
    pub(super) listed: Option<Listed>,
}

/// A replica that its chunk lacks, and the record of the chunk.
#[derive(Debug)]
pub(super) struct Adoptable {
    pub(super) replica: ReplicaRef,
    pub(super) record: Chunk,
}

/// All findings of a part of a disk.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Number of the verdicts that follow.
    pub(super) verdict: u64,
    pub(super) gone: Vec<Found>,
    pub(super) back: Vec<Found>,
    pub(super) orphans: Vec<Found>,
    pub(super) adoptable: Vec<Adoptable>,
    pub(super) surplus: Vec<Found>,
}

impl Found {
    /// Returns the bytes of a listed replica.
    pub(super) fn bytes(&self) -> u64 {
        self.listed.map_or(0, |listed| listed.length)
    }
}

impl Target {
    pub(super) fn replica(&self, (chunk, part, stamp): Name) -> (ReplicaRef, ReplicaId) {
        let Self { disk, number, .. } = *self;
        let id = ReplicaId { disk: number, part, stamp };
        (ReplicaRef { chunk, part, disk, stamp }, id)
    }
}

/// Returns the replicas of a part for which list and records may differ.
fn candidates(
    target: &Target,
    before: &BTreeMap<ChunkId, Chunk>,
    part: Range,
    listing: &Listing,
) -> BTreeSet<Name> {
    let mut candidates = BTreeSet::new();
    let end = part.to.map_or(Bound::Unbounded, Bound::Excluded);
    for (chunk, record) in before.range((Bound::Included(part.from), end)) {
        let here = record.replicas.iter().filter(|it| it.disk == target.number);
        for replica in here.filter(|it| it.mark != ReplicaMark::Gone) {
            let name = (*chunk, replica.part, replica.stamp);
            if !listing.replicas.contains_key(&name) {
                candidates.insert(name);
            }
        }
    }
    for name in listing.replicas.keys() {
        let (_, id) = target.replica(*name);
        let named = before.get(&name.0).filter(|record| !record.is_tombstone());
        let named = named.and_then(|it| it.replicas.iter().find(|it| ReplicaId::of(it) == id));
        let is_consistent =
            named.is_some_and(|it| matches!(it.mark, ReplicaMark::Sound | ReplicaMark::Bad));
        if !is_consistent {
            candidates.insert(*name);
        }
    }
    candidates
}

impl Reconcile {
    /// Compares a disk with the records of a window, and settles the differences, in parts if it
    /// holds many replicas. Returns `false` if it could not be compared in full.
    pub(super) async fn compare(
        &self,
        target: &Target,
        context: &Context<'_>,
        known: &KnownUnneeded,
        report: &mut CheckReport,
    ) -> Result<bool, Error> {
        let mut parts = Parts::new(context.range);
        loop {
            let (part, disk) = (parts.part(), (target.node, target.disk));
            let listing = match calls::list(&self.core, &self.lease, disk, part).await {
                Ok(ListOutcome::Complete(listing)) => listing,
                Ok(ListOutcome::TooLong(before)) => {
                    parts.cut(before);
                    continue;
                }
                Ok(ListOutcome::Incomplete) => return Ok(false),
                Err(failure) => {
                    let Target { node, disk, .. } = *target;
                    debug!(%node, %disk, %failure, "a disk could not be listed");
                    return Ok(false);
                }
            };
            let findings = self.judge(target, context, part, &listing).await?;
            drop(listing);
            self.settle(target, findings, (part, known), report).await?;
            if !parts.advance() {
                return Ok(true);
            }
        }
    }

    /// Compares the list of a part with the records read before it, and again after it.
    async fn judge(
        &self,
        target: &Target,
        context: &Context<'_>,
        part: Range,
        listing: &Listing,
    ) -> Result<Findings, Error> {
        let Context { before, floor, cluster, .. } = *context;
        let mut findings = Findings { verdict: listing.verdict, ..Findings::default() };
        let candidates: Vec<Name> = candidates(target, before, part, listing).into_iter().collect();
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
                    listed: listed.as_ref(),
                    after: match &after {
                        Err(_) => RecordAfter::Unreadable,
                        Ok(None) => RecordAfter::Absent,
                        Ok(Some(record)) => RecordAfter::Chunk(record),
                    },
                    is_moving: moving.contains(&name.0),
                    floor,
                };
                match (sighting.finding(cluster), after) {
                    (Finding::Adoptable, Ok(Some(record))) => {
                        findings.adoptable.push(Adoptable { replica, record });
                    }
                    (finding, _) => findings.add(finding, Found { replica, listed }),
                }
            }
        }
        Ok(findings)
    }
}

impl Findings {
    fn add(&mut self, finding: Finding, found: Found) {
        let list = match finding {
            // What is to be deleted is in the queue of deletions as long as its record names it.
            Finding::Consistent | Finding::Undeleted | Finding::Adoptable => return,
            Finding::Gone => &mut self.gone,
            Finding::Back => &mut self.back,
            Finding::Orphan => &mut self.orphans,
            Finding::Surplus => &mut self.surplus,
        };
        list.push(found);
    }
}
