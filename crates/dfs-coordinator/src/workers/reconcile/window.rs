//! One pass over the chunk records of a window.

use std::collections::{BTreeMap, BTreeSet};

use dfs_metadata::chunk_health::{Cluster, judge};
use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::{Chunk, Namespace, ReplicaMark, ScanCursor};
use dfs_types::{ChunkId, DiskNumber, ReplicaDigest, ReplicaHealth, Scope};
use dfs_workers::Handle;
use tokio::time::Instant;

use super::calls::Range;
use crate::Error;
use crate::checks::{CheckReport, DamagedChunk};
use crate::core::Core;
use crate::workers::WORKER_LEASE;
use crate::workers::spread::{Places, settled};

/// Records per window: with three replicas of each on three nodes, a list of a disk has as many
/// entries.
const WINDOW: u64 = 1 << 16;

/// Digests of the records of a range.
pub(super) struct Window {
    pub(super) range: Range,
    pub(super) disks: BTreeMap<DiskNumber, ReplicaDigest>,
    /// Position after it; `None` at the end.
    pub(super) next: Option<ScanCursor>,
}

/// Reads a window from a position on, and notes its damaged chunks in the report. Records that do
/// not follow the policy of their file, which no change should leave, are changed.
pub(super) async fn read(
    (core, lease, handle): (&Core, &LeaseGrant, &Handle),
    cycle: u64,
    (from, after): (ChunkId, Option<ScanCursor>),
    cluster: &Cluster,
    report: &mut CheckReport,
) -> Result<Window, Error> {
    let mut disks: BTreeMap<DiskNumber, ReplicaDigest> = BTreeMap::new();
    let places = Places::new(&core.registry().views(Instant::now()));
    let (mut after, mut records) = (after, 0);
    loop {
        let page =
            core.namespace.scan_chunks(Scope::internal(), after.as_ref(), Namespace::PAGE_LEN_MAX);
        let page = page.await.map_err(Error::metadata("reading chunk records"))?;
        let count = (page.chunks.len() + page.unreadable.len()) as u64;
        handle.take(count).await;
        let fence = lease.fence(WORKER_LEASE);
        let followed =
            core.namespace.follow_policies(Scope::internal(), &page.chunks, Some(&fence)).await;
        followed.map_err(Error::metadata("comparing chunk records with policies"))?;
        for (chunk, record) in &page.chunks {
            let named = record.replicas.iter().filter(|it| it.mark != ReplicaMark::Gone);
            for replica in named {
                let digest = disks.entry(replica.disk).or_default();
                digest.add(cycle, *chunk, replica.part, replica.stamp);
            }
            if let Some(damage) = damage(record, cluster) {
                report.add_damage(*chunk, damage);
            }
            let crowding = settled(record, cluster).and_then(|held| places.crowding(&held));
            report.crowded += u64::from(crowding.is_some());
        }
        records += count;
        report.records += count;
        let to = page.next.as_ref().and_then(ScanCursor::next_chunk);
        // A window ends at a chunk.
        if page.next.is_none() || records >= WINDOW && to.is_some() {
            return Ok(Window { range: Range { from, to }, disks, next: page.next });
        }
        after = page.next;
    }
}

/// Returns the damage of a chunk: whether it is missing, or lacks replicas.
pub(super) fn damage(record: &Chunk, cluster: &Cluster) -> Option<DamagedChunk> {
    if record.is_tombstone() {
        return None;
    }
    let health = judge(record, cluster);
    let is_missing = health.is_missing();
    let is_gone =
        |health: &ReplicaHealth| matches!(health, ReplicaHealth::Gone | ReplicaHealth::Doomed);
    let is_lost = is_missing && health.replicas.iter().all(is_gone);
    let damage = DamagedChunk { inode: record.inode, is_missing, is_lost };
    health.needs_repair().then_some(damage)
}

/// Reads the records of a window again, and returns those with replicas on these disks.
pub(super) async fn records_of(
    core: &Core,
    handle: &Handle,
    (range, after): (Range, Option<ScanCursor>),
    disks: &BTreeSet<DiskNumber>,
) -> Result<BTreeMap<ChunkId, Chunk>, Error> {
    let mut records = BTreeMap::new();
    let mut after = after;
    loop {
        let page =
            core.namespace.scan_chunks(Scope::internal(), after.as_ref(), Namespace::PAGE_LEN_MAX);
        let page = page.await.map_err(Error::metadata("reading chunk records"))?;
        handle.take(page.chunks.len() as u64).await;
        let is_past = |chunk: ChunkId| range.to.is_some_and(|to| chunk >= to);
        let has_passed = page.chunks.last().is_some_and(|(chunk, _)| is_past(*chunk));
        let of_disks = page.chunks.into_iter().filter(|(chunk, record)| {
            !is_past(*chunk) && record.replicas.iter().any(|it| disks.contains(&it.disk))
        });
        records.extend(of_disks);
        match page.next {
            Some(next) if !has_passed => after = Some(next),
            _ => return Ok(records),
        }
    }
}
