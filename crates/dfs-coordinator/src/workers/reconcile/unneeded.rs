//! Replicas that no record needs: orphans, whose chunk has no record, and surplus ones, whose chunk
//! has as many others as it wants.
//!
//! The first proof is stored with the metadata, so that it survives a change of the holder of the
//! lease. A later one, after people had time to notice that something is wrong, deletes the replica.
//! The times are confirmed ones, which a short jump of a clock does not move. A surplus replica is
//! deleted only once another replica of its chunk was read end to end, and while as many as wanted
//! are readable.

use std::collections::{BTreeMap, BTreeSet};

use dfs_metadata::chunk_health::judge;
use dfs_metadata::namespace::{ReplicaId, UnneededReplica};
use dfs_types::{ChunkId, DiskNumber, Part, ReplicaRef, Scope, Stamp, Timestamp};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::time::Instant;
use tracing::warn;

use super::Reconcile;
use super::calls::{Name, Range};
use super::compare::{Found, Target};
use crate::Error;
use crate::checks::CheckReport;
use crate::metrics::Reconciled;
use crate::workers::{WORKER_LEASE, orders};

/// Unneeded replicas of a window that are known at most; others are found once these are deleted.
const KNOWN_MAX: usize = 1 << 18;
/// Replicas per order to delete.
const DELETED_AT_ONCE: usize = 1_000;
/// Surplus replicas of a part that are deleted at most: a replica of each chunk is read.
const SURPLUS_MAX: usize = 1_000;
/// Replicas read concurrently.
const READ_AT_ONCE: usize = 4;

/// The unneeded replicas of a window, as known before it was compared.
#[derive(Debug, Default)]
pub(super) struct KnownUnneeded(BTreeMap<(DiskNumber, Name), UnneededReplica>);

impl KnownUnneeded {
    fn new(replicas: Vec<UnneededReplica>) -> Self {
        let key =
            |it: &UnneededReplica| (it.replica.disk, (it.chunk, it.replica.part, it.replica.stamp));
        Self(replicas.into_iter().map(|it| (key(&it), it)).collect())
    }

    /// Returns those on a disk, of a range of chunks.
    fn on(&self, disk: DiskNumber, range: Range) -> impl Iterator<Item = &UnneededReplica> {
        let first = (disk, (range.from, Part::WHOLE, Stamp(0)));
        let from_there = self.0.range(first..).map(|(_, it)| it);
        from_there.take_while(move |it| {
            it.replica.disk == disk && range.to.is_none_or(|to| it.chunk < to)
        })
    }

    /// Returns those on no disk of a set.
    pub(super) fn not_on(&self, disks: &BTreeSet<DiskNumber>) -> Vec<UnneededReplica> {
        self.0.values().filter(|it| !disks.contains(&it.replica.disk)).copied().collect()
    }
}

/// What follows from the proofs of a part of a disk.
#[derive(Debug, Default, PartialEq, Eq)]
struct Proven {
    /// Proven for the first time.
    new: Vec<UnneededReplica>,
    /// Proven again, long enough after.
    ripe: BTreeMap<ReplicaRef, UnneededReplica>,
    /// Needed now, or gone.
    stale: Vec<UnneededReplica>,
}

impl Proven {
    /// Compares proofs with earlier ones. `limit` bounds the new ones.
    fn of<'a>(
        target: &Target,
        known: impl Iterator<Item = &'a UnneededReplica>,
        found: impl Iterator<Item = &'a Found>,
        ripe_at: impl Fn(Timestamp) -> Ripeness,
        (now, limit): (Timestamp, usize),
    ) -> Self {
        let key = |chunk: ChunkId, replica: ReplicaId| (chunk, replica);
        let mut known: BTreeMap<_, _> = known.map(|it| (key(it.chunk, it.replica), *it)).collect();
        let mut proven = Self::default();
        for found in found {
            let ReplicaRef { chunk, part, stamp, .. } = found.replica;
            let replica = ReplicaId { disk: target.number, part, stamp };
            let first = UnneededReplica { chunk, replica, since: now, bytes: found.bytes() };
            match known.remove(&key(chunk, replica)) {
                Some(earlier) => match ripe_at(earlier.since) {
                    Ripeness::Ripe => drop(proven.ripe.insert(found.replica, earlier)),
                    Ripeness::TooEarly => {}
                    Ripeness::Future => proven.new.push(first),
                },
                None if proven.new.len() < limit => proven.new.push(first),
                None => {}
            }
        }
        proven.stale = known.into_values().collect();
        proven
    }
}

/// Age of a first proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ripeness {
    Ripe,
    TooEarly,
    /// A clock was ahead.
    Future,
}

impl Reconcile {
    /// Returns the unneeded replicas of a window that are known.
    pub(super) async fn known_unneeded(&self, range: Range) -> Result<KnownUnneeded, Error> {
        let (scope, range) = (Scope::internal(), (range.from, range.to));
        let found = self.core.namespace.unneeded_in(scope, range, KNOWN_MAX).await;
        found.map(KnownUnneeded::new).map_err(Error::metadata("reading unneeded replicas"))
    }

    /// Forgets the unneeded replicas of a disk that is exactly as recorded.
    pub(super) async fn forget_unneeded(
        &self,
        target: &Target,
        range: Range,
        known: &KnownUnneeded,
    ) -> Result<(), Error> {
        self.forget(known.on(target.number, range).copied().collect()).await
    }

    /// Forgets unneeded replicas.
    pub(super) async fn forget(&self, replicas: Vec<UnneededReplica>) -> Result<(), Error> {
        self.change(&[], &replicas).await
    }

    async fn change(
        &self,
        add: &[UnneededReplica],
        forget: &[UnneededReplica],
    ) -> Result<(), Error> {
        let (scope, fence) = (Scope::internal(), self.lease.fence(WORKER_LEASE));
        let changed = self.core.namespace.change_unneeded(scope, add, forget, Some(&fence)).await;
        changed.map_err(Error::metadata("recording unneeded replicas"))
    }

    /// Records the unneeded replicas of a part of a disk, and deletes those that were recorded long
    /// enough ago.
    pub(super) async fn collect(
        &self,
        target: &Target,
        (part, known): (Range, &KnownUnneeded),
        (orphans, surplus): (Vec<Found>, Vec<Found>),
        report: &mut CheckReport,
    ) -> Result<(), Error> {
        report.orphans += orphans.len() as u64;
        report.orphan_bytes += orphans.iter().map(Found::bytes).sum::<u64>();
        report.surplus += surplus.len() as u64;
        let Some(now) = self.core.namespace.confirmed_now() else { return Ok(()) };
        let age = self.core.settings.orphan_age();
        let ripeness = |since: Timestamp| match since {
            since if since > now => Ripeness::Future,
            since if now.since(since) >= age => Ripeness::Ripe,
            _ => Ripeness::TooEarly,
        };
        let limit = KNOWN_MAX.saturating_sub(known.0.len());
        let found = orphans.iter().chain(&surplus);
        let known = known.on(target.number, part);
        let Proven { new, mut ripe, stale } =
            Proven::of(target, known, found, ripeness, (now, limit));
        self.change(&new, &stale).await?;
        let mut ripe_surplus = Vec::new();
        for found in surplus {
            if let Some(it) = ripe.remove(&found.replica) {
                ripe_surplus.push((found.replica, it));
            }
        }
        let orphans: Vec<_> = ripe.into_iter().collect();
        report.deleted_orphans += self.delete(target, &orphans).await?;
        ripe_surplus.truncate(SURPLUS_MAX);
        // Deleted right after they were checked: other replicas may fail while more are read.
        for few in ripe_surplus.chunks(READ_AT_ONCE) {
            let spare = self.spare(few.to_vec()).await?;
            report.deleted_surplus += self.delete(target, &spare).await?;
        }
        Ok(())
    }

    /// Deletes replicas that were just proven to be unneeded; the commit that authorises the
    /// deletion follows the proofs. Returns how many were deleted.
    async fn delete(
        &self,
        target: &Target,
        ripe: &[(ReplicaRef, UnneededReplica)],
    ) -> Result<u64, Error> {
        let (node, namespace) = (target.node, &self.core.namespace);
        if ripe.is_empty() {
            return Ok(0);
        }
        let fence = self.lease.fence(WORKER_LEASE);
        match namespace.authorise_deletion(Scope::internal(), Some(&fence)).await {
            Err(dfs_metadata::Error::DeletionHeld(_)) => return Ok(0),
            authorised => {
                authorised.map_err(Error::metadata("authorising the deletion of replicas"))?;
            }
        }
        let mut deleted = Vec::new();
        for batch in ripe.chunks(DELETED_AT_ONCE) {
            let names: Vec<ReplicaRef> = batch.iter().map(|(replica, _)| *replica).collect();
            let failed = match orders::delete(&self.core, &self.lease, node, &names).await {
                Ok(failed) => failed,
                Err(failure) => {
                    let replicas = names.len();
                    warn!(%node, %failure, replicas, "unneeded replicas were not deleted");
                    self.handle.add_failed(1);
                    break;
                }
            };
            let failed: BTreeSet<ReplicaRef> = failed.iter().map(|it| it.replica).collect();
            let done = batch.iter().filter(|(replica, _)| !failed.contains(replica));
            deleted.extend(done.map(|(_, it)| *it));
        }
        let count = deleted.len() as u64;
        self.core.counts.reconciled(Reconciled::Deleted, count);
        self.forget(deleted).await?;
        Ok(count)
    }

    /// Returns the surplus replicas whose chunks can spare them.
    async fn spare(
        &self,
        surplus: Vec<(ReplicaRef, UnneededReplica)>,
    ) -> Result<Vec<(ReplicaRef, UnneededReplica)>, Error> {
        let checks = surplus.into_iter().map(|(replica, it)| {
            async move { Ok(self.can_spare(replica.chunk).await?.then_some((replica, it))) }.boxed()
        });
        let checks: Vec<BoxFuture<'_, Result<_, Error>>> = checks.collect();
        let mut checks = stream::iter(checks).buffer_unordered(READ_AT_ONCE);
        let mut spare = Vec::new();
        while let Some(checked) = checks.next().await {
            spare.extend(checked?);
        }
        Ok(spare)
    }

    /// Returns whether the record of a chunk names as many readable replicas as it wants, and one of
    /// them has just been read end to end.
    async fn can_spare(&self, chunk: ChunkId) -> Result<bool, Error> {
        let (namespace, scope) = (&self.core.namespace, Scope::internal());
        let read = namespace.chunks(scope, &[chunk]).await;
        let read = read.map_err(Error::metadata("reading the record of a chunk"))?;
        let is_live = |record: &dfs_metadata::namespace::Chunk| !record.is_tombstone();
        let Some(record) = read.into_iter().flatten().next().filter(is_live) else {
            return Ok(false);
        };
        let health = judge(&record, &self.core.registry().cluster(Instant::now()));
        if health.count(health.readable) < health.target {
            return Ok(false);
        }
        let disks = namespace.disks_of([&record]).await;
        let disks = disks.map_err(Error::metadata("reading the disks of a chunk"))?;
        let readable = record.replicas.iter().zip(health.replicas);
        let readable = readable.filter(|(_, health)| health.is_readable()).map(|(it, _)| it);
        for replica in readable {
            let Some(at) = disks.get(replica.disk) else { continue };
            let name = orders::replica_ref(chunk, ReplicaId::of(replica), at.disk);
            match orders::verify(&self.core, at.node, name, &record).await {
                Ok((_, Some(_))) => return Ok(true),
                Ok((verdict, None)) => {
                    self.mark_one(at.node, verdict).await?;
                    return Ok(false);
                }
                Err(failure) => {
                    let node = at.node;
                    warn!(%chunk, %node, %failure, "a replica could not be verified");
                }
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use dfs_metadata::replica_findings::Listed;
    use dfs_types::{Crc32c, DiskId, NodeId};

    use super::*;

    const TARGET: Target = Target { node: NodeId(1), disk: DiskId(2), number: DiskNumber(3) };
    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn found(chunk: u128) -> Found {
        let listed = Listed { length: 9, crc32c: Crc32c(1), is_set_aside: false };
        let (replica, _) = TARGET.replica((ChunkId(chunk), Part::WHOLE, Stamp(7)));
        Found { replica, listed: Some(listed) }
    }

    fn known(chunk: u128, disk: u32, since: u64) -> UnneededReplica {
        let replica = ReplicaId { disk: DiskNumber(disk), part: Part::WHOLE, stamp: Stamp(7) };
        let since = Timestamp::from_millis(since);
        UnneededReplica { chunk: ChunkId(chunk), replica, since, bytes: 9 }
    }

    fn ripeness(since: Timestamp) -> Ripeness {
        match since.millis() {
            0..=100 => Ripeness::Ripe,
            101..=1_000 => Ripeness::TooEarly,
            _ => Ripeness::Future,
        }
    }

    #[test]
    fn replica_is_ripe_after_two_proofs_and_its_age() {
        let earlier = [known(2, 3, 50), known(3, 3, 500), known(4, 3, 5_000), known(5, 3, 50)];
        let found = [found(1), found(2), found(3), found(4), found(6)];
        let proven = Proven::of(&TARGET, earlier.iter(), found.iter(), ripeness, (NOW, 2));
        assert_eq!(proven.new, [known(1, 3, 1_000), known(4, 3, 1_000)], "within the limit");
        assert_eq!(proven.ripe, [(found[1].replica, earlier[0])].into());
        assert_eq!(proven.stale, [earlier[3]], "it was not proven again");
    }

    #[test]
    fn only_replicas_of_the_part_and_disk_are_forgotten() {
        let all = [known(1, 3, 1), known(2, 3, 1), known(5, 3, 1), known(2, 4, 1), known(2, 2, 1)];
        let known = KnownUnneeded::new(all.to_vec());
        let range = |from, to: Option<u128>| Range { from: ChunkId(from), to: to.map(ChunkId) };
        let on = |range| known.on(DiskNumber(3), range).copied().collect::<Vec<_>>();
        assert_eq!(on(range(0, None)), all[..3]);
        assert_eq!(on(range(2, Some(5))), all[1..2]);
        assert_eq!(known.not_on(&[DiskNumber(3), DiskNumber(4)].into()), all[4..]);
    }
}
