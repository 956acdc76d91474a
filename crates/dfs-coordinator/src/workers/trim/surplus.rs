//! Which replicas of a chunk to drop. Pure.

use std::collections::{BTreeMap, BTreeSet};

use dfs_metadata::chunk_health::{Cluster, judge};
use dfs_metadata::namespace::{Chunk, Replica, ReplicaId};
use dfs_types::{DiskNumber, NodeId, Part, Redundancy, ReplicaHealth};

use crate::node_liveness::View;
use crate::workers::spread::Places;

/// Spread of nodes, and used thousandths of disks.
#[derive(Debug, Default)]
pub(super) struct Situation {
    places: Places,
    fullness: BTreeMap<DiskNumber, u64>,
}

/// Replicas that a chunk can do without.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Surplus {
    pub(super) doomed: Vec<ReplicaId>,
    /// The good ones that are kept, one of which is read before.
    pub(super) kept: Vec<ReplicaId>,
}

impl Situation {
    pub(super) fn of(views: &[View]) -> Self {
        let mut fullness = BTreeMap::new();
        for view in views {
            for disk in &view.member.disks {
                if let Some(report) = view.disks.iter().find(|report| report.disk == disk.id) {
                    let used = report.capacity.saturating_sub(report.free);
                    let used = used.saturating_mul(1_000) / report.capacity.max(1);
                    fullness.insert(disk.number, used);
                }
            }
        }
        Self { places: Places::new(views), fullness }
    }
}

/// Returns the replicas that a chunk can do without: none unless as many as wanted, on distinct
/// nodes, are good without them.
///
/// First those that are not known to be readable now or are about to leave. Then, of the good ones, a
/// second one of a node; of the others, one without which the rest is spread best over zones and
/// machines, on a slow disk if there is one, and else on the fullest.
pub(super) fn surplus(record: &Chunk, cluster: &Cluster, situation: &Situation) -> Option<Surplus> {
    let Redundancy::Replicated { copies } = record.redundancy else { return None };
    if record.is_tombstone() {
        return None;
    }
    let wanted = usize::from(copies.max(1));
    let health = judge(record, cluster).replicas;
    let of = |which: fn(ReplicaHealth) -> bool| {
        let replicas = record.replicas.iter().zip(&health);
        let replicas =
            replicas.filter(move |(it, health)| it.part == Part::WHOLE && which(**health));
        replicas.map(|(replica, _)| replica)
    };
    let mut good: Vec<(NodeId, &Replica)> = of(|health| health == ReplicaHealth::Good)
        .filter_map(|replica| Some((cluster.node(replica.disk)?, replica)))
        .collect();
    if nodes(good.iter()).len() < wanted {
        return None;
    }
    let is_unsure = |health| matches!(health, ReplicaHealth::Suspect | ReplicaHealth::Leaving);
    let mut doomed: Vec<ReplicaId> = of(is_unsure).map(ReplicaId::of).collect();
    loop {
        let droppable = (0..good.len()).filter(|index| {
            let others = good.iter().enumerate().filter(|(other, _)| other != index);
            nodes(others.map(|(_, it)| it)).len() >= wanted
        });
        let least_useful = droppable.max_by_key(|index| {
            let (node, replica) = good[*index];
            let disk = replica.disk;
            let others = good.iter().enumerate().filter(|(other, _)| other != index);
            let rest = nodes(others.map(|(_, it)| it));
            let is_second = rest.contains(&node);
            let fullness = situation.fullness.get(&disk).copied().unwrap_or_default();
            let spread = situation.places.spread(&rest);
            (is_second, spread, cluster.is_slow(disk), fullness, disk)
        });
        let Some(index) = least_useful else { break };
        doomed.push(ReplicaId::of(good.remove(index).1));
    }
    if doomed.is_empty() {
        return None;
    }
    // A slow disk is read last.
    good.sort_by_key(|(_, replica)| cluster.is_slow(replica.disk));
    Some(Surplus { doomed, kept: good.into_iter().map(|(_, it)| ReplicaId::of(it)).collect() })
}

fn nodes<'a>(replicas: impl Iterator<Item = &'a (NodeId, &'a Replica)>) -> BTreeSet<NodeId> {
    replicas.map(|(node, _)| *node).collect()
}

#[cfg(test)]
mod tests {
    use dfs_metadata::chunk_health::{Contact, DiskFault, NodeIntent, NodeLiveness};
    use dfs_metadata::namespace::{NodeDisk, ReplicaMark};
    use dfs_types::{
        ChunkSeal, Crc32c, DiskId, Generation, InodeId, NodeState, Random as _, SeededRandom,
        Sha256, Stamp,
    };

    use super::*;
    use crate::workers::repair::view;

    /// State of a disk, which is named by its number.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum On {
        Good,
        Slow,
        Silent,
        Draining,
        Lost,
    }

    /// Returns a cluster of disks, each of a node: (disk, node, state).
    fn cluster(disks: &[(u32, u128, On)]) -> Cluster {
        let mut cluster = Cluster::default();
        for (number, node, on) in disks {
            let disk = NodeDisk::new(DiskNumber(*number), DiskId((*number).into()));
            let mut liveness =
                NodeLiveness { contact: Contact::Responsive, ..NodeLiveness::default() };
            let mut state = NodeState::Active;
            match on {
                On::Good => {}
                On::Slow => drop(liveness.disks.insert(disk.id, DiskFault::Slow)),
                On::Silent => liveness.contact = Contact::Silent,
                On::Draining => state = NodeState::Draining,
                On::Lost => liveness.contact = Contact::Lost,
            }
            let intent = NodeIntent { state, is_leaving: false, in_maintenance: false };
            cluster.add_node(NodeId(*node), intent, &[disk], &liveness);
        }
        cluster
    }

    fn record(copies: u8, disks: &[u32]) -> Chunk {
        Chunk {
            seal: ChunkSeal { length: 5, crc32c: Crc32c(1), sha256: Sha256([0; 32]) },
            redundancy: Redundancy::Replicated { copies },
            policy: 0,
            replicas: disks
                .iter()
                .map(|disk| Replica::new(DiskNumber(*disk), Part::WHOLE, Stamp(7)))
                .collect(),
            generation: Generation(1),
            references: 1,
            inode: InodeId::ROOT,
        }
    }

    fn dropped(record: &Chunk, cluster: &Cluster, places: &Situation) -> Vec<u32> {
        let found = surplus(record, cluster, places);
        found.map_or(Vec::new(), |found| found.doomed.iter().map(|it| it.disk.0).collect())
    }

    /// Returns disks (number, zone, fullness), each of the node of its number.
    fn places(of: &[(u32, &str, u64)]) -> Situation {
        let node =
            |(disk, zone, _): &(u32, &str, u64)| view(u128::from(*disk), zone, NodeState::Active);
        let views: Vec<View> = of.iter().map(node).collect();
        let fullness = of.iter().map(|(disk, _, fullness)| (DiskNumber(*disk), *fullness));
        Situation { places: Places::new(&views), fullness: fullness.collect() }
    }

    const THREE: [(u32, u128, On); 3] = [(1, 1, On::Good), (2, 2, On::Good), (3, 3, On::Good)];

    #[test]
    fn nothing_is_dropped_while_no_more_than_wanted_are_good() {
        let all = places(&[]);
        assert_eq!(dropped(&record(3, &[1, 2, 3]), &cluster(&THREE), &all), Vec::<u32>::new());
        for on in [On::Silent, On::Draining, On::Lost] {
            let cluster = cluster(&[(1, 1, On::Good), (2, 2, on), (3, 3, on)]);
            assert_eq!(
                dropped(&record(2, &[1, 2, 3]), &cluster, &all),
                Vec::<u32>::new(),
                "{on:?}"
            );
        }
        let mut bad = record(2, &[1, 2, 3]);
        bad.replicas[0].mark = ReplicaMark::Bad;
        assert_eq!(dropped(&bad, &cluster(&THREE), &all), Vec::<u32>::new());
        let mut tombstone = record(1, &[1, 2, 3]);
        tombstone.references = 0;
        assert_eq!(dropped(&tombstone, &cluster(&THREE), &all), Vec::<u32>::new());
    }

    #[test]
    fn replicas_that_may_not_be_readable_or_are_leaving_go_first() {
        for on in [On::Silent, On::Draining] {
            let cluster = cluster(&[(1, 1, On::Good), (2, 2, on), (3, 3, On::Good)]);
            let fullest = places(&[(1, "", 900)]);
            assert_eq!(dropped(&record(2, &[1, 2, 3]), &cluster, &fullest), [2], "{on:?}");
        }
        let slow = cluster(&[(1, 1, On::Slow), (2, 2, On::Good), (3, 3, On::Good)]);
        let found = surplus(&record(2, &[1, 2, 3]), &slow, &places(&[(3, "", 900)])).unwrap();
        assert_eq!(found.doomed[0].disk, DiskNumber(1));
        assert_eq!(found.kept.len(), 2);
    }

    #[test]
    fn zones_stay_spread_and_the_fullest_disk_of_a_zone_loses_its_replica() {
        let zones = places(&[(1, "a", 100), (2, "b", 900), (3, "a", 200)]);
        assert_eq!(dropped(&record(2, &[1, 2, 3]), &cluster(&THREE), &zones), [3]);
        assert_eq!(dropped(&record(1, &[1, 2, 3]), &cluster(&THREE), &zones), [3, 2]);
    }

    #[test]
    fn second_replica_of_a_node_goes_first() {
        let cluster = cluster(&[(1, 1, On::Good), (2, 1, On::Good), (3, 3, On::Good)]);
        let fullest = places(&[(2, "", 10), (3, "", 900)]);
        assert_eq!(dropped(&record(2, &[1, 2, 3]), &cluster, &fullest), [2]);
    }

    /// As many as wanted stay good, on distinct nodes, and every other replica that counts is
    /// dropped.
    #[test]
    fn exactly_the_wanted_number_of_good_replicas_is_kept() {
        let random = SeededRandom::new(1);
        let states = [On::Good, On::Good, On::Good, On::Slow, On::Silent, On::Draining, On::Lost];
        for _ in 0..5_000 {
            let count = 1 + random.below(6) as u32;
            let nodes = 1 + random.below(6);
            let disks: Vec<_> = (1..=count)
                .map(|disk| {
                    let on = states[random.below(states.len() as u64) as usize];
                    (disk, u128::from(random.below(nodes)), on)
                })
                .collect();
            let copies = 1 + random.below(4) as u8;
            let record = record(copies, &(1..=count).collect::<Vec<_>>());
            let cluster = cluster(&disks);
            let before = judge(&record, &cluster);
            let Some(found) = surplus(&record, &cluster, &places(&[])) else { continue };
            let mut after = record.clone();
            after.replicas.retain(|it| !found.doomed.contains(&ReplicaId::of(it)));
            let judged = judge(&after, &cluster);
            assert_eq!(judged.stays.wholes, copies, "{disks:?}");
            assert_eq!(judged.durable, judged.stays, "{disks:?}");
            assert!(before.stays.wholes >= copies && found.kept.len() == usize::from(copies));
        }
    }
}
