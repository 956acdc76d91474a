//! Disks whose replicas are given up: what the sweep found about them, and what is committed.
//!
//! A failed disk of a responsive node is committed as *lost* before its first turn of the sweep, so
//! that no receipt that names it counts any more. A turn that finds no record with a replica on it,
//! except replicas to be deleted, commits it as *clear*. The disks of a removed node, which has no
//! receipts, only become clear. Those of a silent node keep their state: it may come back.

use std::collections::{BTreeMap, BTreeSet};

use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::{Chunk, Emptied, NodeDisk, NodeDiskState, NodeVersion};
use dfs_types::{DiskId, DiskNumber, NodeId, NodeState, Scope};
use tokio::time::Instant;
use tracing::info;

use crate::Error;
use crate::core::Core;
use crate::node_liveness::{DiskReport, View};
use crate::workers::WORKER_LEASE;

/// Pause between turns that look for the replicas of a disk, as a multiple of the last turn and of
/// the heartbeat interval.
const REST_FACTOR: u32 = 10;

/// A disk that was given up.
#[derive(Debug)]
struct GivenUp {
    node: NodeId,
    disk: DiskId,
    /// The record of the node since it says that the disk is lost; `None` for a silent node.
    version: Option<NodeVersion>,
    /// Records found in the present turn that name a replica on it.
    named: u64,
    /// Set if the last turn found none.
    is_empty: bool,
    /// When its last turn began.
    began: Instant,
    /// When another turn may look for it; `None` while one does.
    rested: Option<Instant>,
}

impl GivenUp {
    fn begin_turn(&mut self, now: Instant) {
        (self.named, self.began, self.rested) = (0, now, None);
    }
}

/// All disks that were given up, by number.
#[derive(Debug, Default)]
pub(super) struct GivenUpDisks(BTreeMap<DiskNumber, GivenUp>);

impl GivenUpDisks {
    /// Gives disks up that were lost while these nodes were responsive. Returns those to look for in
    /// all chunks.
    pub(super) async fn add(
        &mut self,
        core: &Core,
        lease: &LeaseGrant,
        responsive: &BTreeSet<NodeId>,
        lost: impl IntoIterator<Item = DiskNumber>,
    ) -> Result<Vec<DiskNumber>, Error> {
        let nodes = core.namespace.nodes(Scope::internal()).await;
        let nodes = nodes.map_err(Error::metadata("reading the records of nodes"))?.nodes;
        let mut joining = Vec::new();
        for number in lost {
            let is_it = |disk: &&NodeDisk| disk.number == number;
            let found = nodes.iter().find_map(|(node, record)| {
                Some((*node, record.state, *record.disks.iter().find(is_it)?))
            });
            let Some((node, state, disk)) = found else {
                joining.push(number);
                continue;
            };
            // Its node did not list any, but records may still name replicas that vanished from it.
            if disk.state == NodeDiskState::Clear {
                joining.push(number);
                continue;
            }
            let version = if responsive.contains(&node) || state == NodeState::Removed {
                lose(core, lease, node, disk.id).await?
            } else {
                None
            };
            let given_up = GivenUp {
                node,
                disk: disk.id,
                version,
                named: 0,
                is_empty: false,
                began: Instant::now(),
                rested: None,
            };
            self.0.insert(number, given_up);
            joining.push(number);
        }
        Ok(joining)
    }

    /// Commits the loss of disks whose nodes returned without them, or were removed. Returns those to
    /// look for in all chunks once more.
    pub(super) async fn commit_losses(
        &mut self,
        core: &Core,
        lease: &LeaseGrant,
        responsive: &BTreeSet<NodeId>,
        views: &[View],
    ) -> Result<Vec<DiskNumber>, Error> {
        // Views are of nodes that are not removed.
        let is_removed = |node: NodeId| views.iter().all(|view| view.node != node);
        let mut joining = Vec::new();
        for (number, given_up) in &mut self.0 {
            let node = given_up.node;
            if given_up.version.is_some() || !responsive.contains(&node) && !is_removed(node) {
                continue;
            }
            given_up.version = lose(core, lease, node, given_up.disk).await?;
            if given_up.version.is_some() {
                given_up.begin_turn(Instant::now());
                joining.push(*number);
            }
        }
        Ok(joining)
    }

    /// Forgets disks that returned.
    pub(super) fn remove(&mut self, disk: DiskNumber) {
        self.0.remove(&disk);
    }

    /// Looks for the disks in a record.
    pub(super) fn look_in(&mut self, chunk: &Chunk) {
        if self.0.is_empty() || chunk.is_tombstone() {
            return;
        }
        for replica in chunk.replicas.iter().filter(|replica| !replica.is_doomed()) {
            if let Some(given_up) = self.0.get_mut(&replica.disk) {
                given_up.named += 1;
            }
        }
    }

    /// Ends the turn of a disk, and commits that it is clear if nothing was found.
    pub(super) async fn end_turn(
        &mut self,
        core: &Core,
        lease: &LeaseGrant,
        number: DiskNumber,
    ) -> Result<(), Error> {
        let Some(given_up) = self.0.get_mut(&number) else { return Ok(()) };
        given_up.is_empty = given_up.named == 0;
        let rest = given_up.began.elapsed().max(core.settings.heartbeat_interval());
        given_up.rested = Some(Instant::now() + rest * REST_FACTOR);
        let (node, disk) = (given_up.node, given_up.disk);
        let Some(version) = given_up.version.filter(|_| given_up.is_empty) else { return Ok(()) };
        let (fence, emptied) = (lease.fence(WORKER_LEASE), [disk]);
        let emptied = Emptied::Disks(&emptied);
        let (namespace, scope) = (&core.namespace, Scope::internal());
        let set = namespace.set_emptied(scope, node, version, emptied, Some(&fence)).await;
        match set.map_err(Error::metadata("recording that a disk is clear"))? {
            Some(stored) => {
                info!(%node, %disk, "no record names a replica on this disk any more");
                core.take_members(&[(node, stored)]);
                self.0.remove(&number);
            }
            // The node was changed: another turn decides.
            None => given_up.version = lose(core, lease, node, disk).await?,
        }
        Ok(())
    }

    /// Returns disks that may be clear by now, and begins their next turn.
    pub(super) fn begin_turns(&mut self, now: Instant) -> Vec<DiskNumber> {
        let mut joining = Vec::new();
        for (number, given_up) in &mut self.0 {
            let can_become_clear = given_up.version.is_some() || !given_up.is_empty;
            if can_become_clear && given_up.rested.is_some_and(|rested| rested <= now) {
                given_up.begin_turn(now);
                joining.push(*number);
            }
        }
        joining
    }

    /// Returns whether everything that a node held was rebuilt, as far as its disks were looked for.
    pub(super) fn is_rebuilt(&self, view: &View) -> bool {
        view.member.disks.iter().all(|disk| {
            disk.state == NodeDiskState::Clear
                || self.0.get(&disk.number).is_some_and(|given_up| given_up.is_empty)
        })
    }
}

/// Commits that a disk is lost. Returns the version of the record; `None` when it is not lost any
/// more.
async fn lose(
    core: &Core,
    lease: &LeaseGrant,
    node: NodeId,
    disk: DiskId,
) -> Result<Option<NodeVersion>, Error> {
    let (namespace, scope) = (&core.namespace, Scope::internal());
    let fence = lease.fence(WORKER_LEASE);
    let lost = namespace.set_disks_lost(scope, node, &[disk], true, Some(&fence)).await;
    let lost = lost.map_err(Error::metadata("recording that a disk is lost"))?;
    core.take_members(&[(node, lost)]);
    let found = namespace.node_versioned(scope, node).await;
    let found = found.map_err(Error::metadata("reading the record of a node"))?;
    let is_lost = |known: &&NodeDisk| known.id == disk && known.state == NodeDiskState::Lost;
    Ok(found.and_then(|(known, version)| known.disks.iter().find(is_lost).map(|_| version)))
}

/// Takes the loss of disks back that are in service again without having registered again.
pub(super) async fn revive(
    core: &Core,
    lease: &LeaseGrant,
    responsive: &BTreeSet<NodeId>,
    views: &[View],
) -> Result<(), Error> {
    for view in views.iter().filter(|view| responsive.contains(&view.node)) {
        let is_back = |disk: &&NodeDisk| {
            let is_given_up = disk.state == NodeDiskState::Lost
                || disk.state == NodeDiskState::Clear && !disk.is_retiring;
            let works = |report: &DiskReport| report.disk == disk.id && report.state.takes_chunks();
            is_given_up && view.disks.iter().any(works)
        };
        let back: Vec<DiskId> =
            view.member.disks.iter().filter(is_back).map(|disk| disk.id).collect();
        if back.is_empty() {
            continue;
        }
        let (namespace, fence) = (&core.namespace, lease.fence(WORKER_LEASE));
        let (scope, node) = (Scope::internal(), view.node);
        let stored = namespace.set_disks_lost(scope, node, &back, false, Some(&fence)).await;
        let stored = stored.map_err(Error::metadata("recording that a disk is back"))?;
        info!(%node, disks = back.len(), "disks that were lost are in service again");
        core.take_members(&[(node, stored)]);
    }
    Ok(())
}
