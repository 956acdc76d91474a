//! The plan of emptying a node or a disk, as shown before it begins.

use std::collections::BTreeSet;

use dfs_metadata::chunk_health::Cluster;
use dfs_metadata::namespace::{Chunk, Namespace, ReplicaId};
use dfs_proto::wire::WireId as _;
use dfs_proto::{Failure, v1};
use dfs_transport::Caller;
use dfs_types::{ByteSize, DiskId, DiskNumber, NodeId, NodeState, counted};
use dfs_workers::DRAIN;
use tokio::time::Instant;

use crate::core::Core;
use crate::failure;
use crate::node_liveness::{DiskReport, View};
use crate::workers::emptying_targets;

/// Replicas whose chunk records a plan reads, at most.
const CHECKED_MAX: u64 = 1_000;
/// Chunk records that a plan reads to find them, at most.
const READ_MAX: usize = 50_000;

/// What is to be emptied.
pub(super) struct Source {
    pub(super) node: NodeId,
    /// Only this disk of it.
    pub(super) disk: Option<DiskId>,
    /// Nodes that are to be drained together with it.
    pub(super) others: BTreeSet<NodeId>,
}

/// Where the replicas that were checked can go.
#[derive(Debug, Default)]
struct Destinations {
    checked: u64,
    /// Those that no node can take.
    stuck: u64,
    nodes: BTreeSet<NodeId>,
}

/// Returns what has to be moved, and where it can go: the oldest chunks are looked up for that, as the
/// worker looks them up to move them.
pub(super) async fn plan(
    core: &Core,
    caller: &Caller,
    source: &Source,
) -> Result<v1::MovePlan, Failure> {
    let (mut views, cluster) = {
        let (registry, now) = (core.registry(), Instant::now());
        (registry.views(now), registry.cluster(now))
    };
    source.anticipate(&mut views);
    let (numbers, scope) = (source.disk_numbers(&views), caller.scope());
    let (mut found, mut after, mut read) = (Destinations::default(), None, 0);
    loop {
        let limit = Namespace::PAGE_LEN_MAX;
        let page = core.namespace.scan_chunks(&scope, after.as_ref(), limit).await;
        let page = page.map_err(|error| failure::of(&error))?;
        read += page.chunks.len();
        for (_, record) in &page.chunks {
            found.add(record, source, &numbers, (&views, &cluster));
        }
        after = page.next;
        if after.is_none() || read >= READ_MAX || found.checked >= CHECKED_MAX {
            break;
        }
    }
    let rate = core.background.workers.of(&DRAIN).rate();
    Ok(source.plan_of(&views, found, rate))
}

impl Source {
    /// Changes the views to what they will be while it is emptied.
    fn anticipate(&self, views: &mut [View]) {
        for view in views {
            if self.others.contains(&view.node) && view.state.takes_chunks() {
                view.state = NodeState::Draining;
            }
            if let Some(disk) = self.disk.filter(|_| view.node == self.node) {
                view.retire(disk);
            }
        }
    }

    /// Returns the numbers of its disks in chunk records.
    fn disk_numbers(&self, views: &[View]) -> BTreeSet<DiskNumber> {
        let view = views.iter().filter(|view| view.node == self.node);
        let disks = view.flat_map(|view| &view.member.disks);
        let disks = disks.filter(|known| self.disk.is_none_or(|disk| known.id == disk));
        disks.map(|known| known.number).collect()
    }

    fn plan_of(&self, views: &[View], found: Destinations, rate: u64) -> v1::MovePlan {
        let node = self.node;
        let source = views.iter().find(|view| view.node == node);
        let disks: Vec<&DiskReport> = source
            .into_iter()
            .flat_map(|view| &view.disks)
            .filter(|report| self.disk.is_none_or(|disk| report.disk == disk))
            .collect();
        let sum = |of: fn(&DiskReport) -> u64| {
            disks.iter().map(|report| of(report)).fold(0, u64::saturating_add)
        };
        let replicas = sum(|report| report.chunks);
        let bytes = match replicas {
            0 => 0,
            _ => sum(|report| report.capacity.saturating_sub(report.free)),
        };
        let Destinations { checked, stuck, nodes } = found;
        let is_target = |view: &&View| match checked {
            0 => view.takes_chunks() && (view.node != node || self.disk.is_some()),
            _ => nodes.contains(&view.node),
        };
        let targets: Vec<&View> = views.iter().filter(is_target).collect();
        let room = targets.iter().map(|view| view.free).fold(0, u64::saturating_add);
        let mut blockers = Vec::new();
        if !source.is_some_and(|view| view.state.serves_reads()) {
            let state = source.map_or(NodeState::Joining, |view| view.state);
            blockers
                .push(format!("node {node} is {state}: its replicas are moved once it responds"));
        }
        for report in disks.iter().filter(|report| !report.state.is_in_service()) {
            let disk = report.disk;
            blockers.push(format!(
                "disk {disk} is out of service: its replicas are rebuilt, not moved"
            ));
        }
        if stuck > 0 {
            let which = if stuck == checked {
                "nothing can take them".to_owned()
            } else {
                format!("nothing can take {stuck} of {checked} replicas that were checked")
            };
            let what = if self.disk.is_some() { "datanodes or disks" } else { "datanodes" };
            blockers.push(format!(
                "{which}: every other datanode has a replica of the same chunk, takes none or is \
                 full; add {what}, or lower the replication factor"
            ));
        }
        if !targets.is_empty() && bytes > room {
            blockers.push(format!(
                "{} that can take replicas {} {} free, and up to {} are to be moved: add disks or \
                 datanodes",
                counted(targets.len() as u64, "datanode"),
                if targets.len() == 1 { "has" } else { "have" },
                ByteSize(room),
                ByteSize(bytes)
            ));
        }
        v1::MovePlan {
            replicas,
            bytes,
            room,
            targets: targets.len() as u32,
            rate,
            blockers,
            target_nodes: targets.iter().map(|view| view.node.to_wire()).collect(),
            checked,
            stuck,
        }
    }
}

impl Destinations {
    /// Adds the replicas of a chunk that have to go, up to the limit.
    fn add(
        &mut self,
        record: &Chunk,
        source: &Source,
        numbers: &BTreeSet<DiskNumber>,
        (views, cluster): (&[View], &Cluster),
    ) {
        if record.is_tombstone() {
            return;
        }
        let own = source.disk.map(|_| source.node);
        for replica in record.sound_replicas().filter(|it| numbers.contains(&it.disk)) {
            if self.checked == CHECKED_MAX {
                return;
            }
            let targets = emptying_targets((record, ReplicaId::of(replica)), own, views, cluster);
            let open = targets.iter().flatten().filter(|it| it.free > record.seal.length);
            let open: Vec<NodeId> = open.map(|candidate| candidate.node).collect();
            self.checked += 1;
            self.stuck += u64::from(open.is_empty());
            self.nodes.extend(open);
        }
    }
}
