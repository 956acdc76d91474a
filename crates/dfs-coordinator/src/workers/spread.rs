//! How replicas of a chunk are spread over zones and machines. Pure.

use std::collections::{BTreeMap, BTreeSet};

use dfs_metadata::chunk_health::{Cluster, judge};
use dfs_metadata::namespace::{Chunk, ReplicaId};
use dfs_types::{NodeId, Part, ReplicaHealth};

use crate::node_liveness::View;

/// Zones, then machines, of the replicas of a chunk. Greater is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spread {
    zones: usize,
    machines: usize,
}

/// Zone and machine of each node; empty when unknown, in which case a node counts as its own.
#[derive(Debug, Default)]
pub(super) struct Places {
    nodes: BTreeMap<NodeId, Place>,
    /// Known zones with a node that has room.
    open: BTreeSet<String>,
}

#[derive(Debug)]
struct Place {
    zone: String,
    machine: String,
    free: u64,
}

/// A replica and its node.
pub(super) type Held = (NodeId, ReplicaId);

impl Places {
    pub(super) fn new(views: &[View]) -> Self {
        let mut places = Self::default();
        for view in views {
            let (zone, machine) = (view.member.zone.clone(), view.member.host.clone());
            if view.takes_chunks() && !view.is_full && !zone.is_empty() {
                places.open.insert(zone.clone());
            }
            places.nodes.insert(view.node, Place { zone, machine, free: view.free });
        }
        places
    }

    /// Returns the spread of replicas on these nodes.
    pub(super) fn spread(&self, nodes: &BTreeSet<NodeId>) -> Spread {
        let count = |of: fn(&Place) -> &str| {
            let domain = |node: &NodeId| {
                let name = self.nodes.get(node).map(of).unwrap_or_default();
                (name.to_owned(), name.is_empty().then_some(*node))
            };
            nodes.iter().map(domain).collect::<BTreeSet<_>>().len()
        };
        Spread { zones: count(|place| &place.zone), machines: count(|place| &place.machine) }
    }

    /// Returns whether moving a replica makes the spread worse.
    pub(super) fn is_worse(&self, holders: &[Held], from: NodeId, to: NodeId) -> bool {
        let before: BTreeSet<NodeId> = holders.iter().map(|(node, _)| *node).collect();
        let mut after = before.clone();
        after.remove(&from);
        after.insert(to);
        self.spread(&after) < self.spread(&before)
    }

    /// Returns the replica to move to a zone that has none: of the known zone with most of them, on
    /// the node with the least free space. `None` if each zone has at most one, or no other zone has
    /// room.
    pub(super) fn crowding(&self, holders: &[Held]) -> Option<Held> {
        let mut zones: BTreeMap<&str, Vec<(u64, Held)>> = BTreeMap::new();
        for held in holders {
            let place = self.nodes.get(&held.0)?;
            if !place.zone.is_empty() {
                zones.entry(&place.zone).or_default().push((place.free, *held));
            }
        }
        let crowded = zones.values().max_by_key(|held| held.len()).filter(|held| held.len() > 1)?;
        if self.open.iter().all(|zone| zones.contains_key(zone.as_str())) {
            return None;
        }
        crowded.iter().min().map(|(_, held)| *held)
    }
}

/// Returns the replicas of a chunk that stay, if there are as many as wanted and all are good. Chunks
/// with others have their own workers. Doomed replicas do not matter: those on a failed disk wait
/// until it is given up.
pub(super) fn settled(record: &Chunk, cluster: &Cluster) -> Option<Vec<Held>> {
    if record.is_tombstone() {
        return None;
    }
    let health = judge(record, cluster).replicas;
    let replicas = record.replicas.iter().zip(health);
    let staying = replicas.filter(|(replica, _)| !replica.is_doomed());
    let held: Option<Vec<Held>> = staying
        .map(|(replica, health)| {
            let is_good = health == ReplicaHealth::Good && replica.part == Part::WHOLE;
            let node = cluster.node(replica.disk).filter(|_| is_good)?;
            Some((node, ReplicaId::of(replica)))
        })
        .collect();
    held.filter(|held| held.len() == usize::from(record.redundancy.target()))
}

/// Returns the nodes of all replicas of a chunk, doomed ones included: none of them takes another.
pub(super) fn holders(record: &Chunk, cluster: &Cluster) -> BTreeSet<NodeId> {
    record.replicas.iter().filter_map(|replica| cluster.node(replica.disk)).collect()
}

#[cfg(test)]
mod tests {
    use dfs_metadata::chunk_health::{Contact, NodeIntent, NodeLiveness};
    use dfs_metadata::namespace::{NodeDisk, Replica, ReplicaMark};
    use dfs_types::{
        ChunkSeal, Crc32c, DiskId, DiskNumber, Generation, InodeId, NodeState, Redundancy, Sha256,
        Stamp,
    };

    use super::*;
    use crate::workers::repair::view;

    /// Returns nodes 1, 2, … in these zones.
    fn places(zones: &[&str]) -> (Vec<View>, Places) {
        let of = |(index, zone): (usize, &&str)| view(index as u128 + 1, zone, NodeState::Active);
        let views: Vec<View> = zones.iter().enumerate().map(of).collect();
        let places = Places::new(&views);
        (views, places)
    }

    fn held(nodes: &[u128]) -> Vec<Held> {
        let replica = |node| ReplicaId {
            disk: DiskNumber(node as u32),
            part: Part::WHOLE,
            stamp: Stamp(node as u64),
        };
        nodes.iter().map(|node| (NodeId(*node), replica(*node))).collect()
    }

    fn crowding(places: &Places, nodes: &[u128]) -> Option<u128> {
        places.crowding(&held(nodes)).map(|(node, _)| node.0)
    }

    #[test]
    fn replica_in_a_crowded_zone_moves_if_another_zone_has_room() {
        let (mut views, all) = places(&["a", "a", "b", "c"]);
        assert_eq!(crowding(&all, &[1, 2]), Some(1));
        assert_eq!(crowding(&all, &[1, 2, 3]), Some(1), "c has none");
        assert_eq!(crowding(&all, &[1, 3]), None, "each has its zone");
        assert_eq!(crowding(&all, &[1, 3, 4]), None);
        views[1].free = 1;
        assert_eq!(crowding(&Places::new(&views), &[1, 2]), Some(2), "the fuller one");
        views[2].is_full = true;
        assert_eq!(crowding(&Places::new(&views), &[1, 2]), Some(2), "c has room");
        views[3].state = NodeState::Draining;
        assert_eq!(crowding(&Places::new(&views), &[1, 2]), None, "no other zone has room");
    }

    #[test]
    fn unknown_zones_are_not_crowded_and_no_targets() {
        let (_, unknown) = places(&["", "", ""]);
        assert_eq!(crowding(&unknown, &[1, 2]), None);
        let (_, partly) = places(&["a", "a", ""]);
        assert_eq!(crowding(&partly, &[1, 2]), None);
        let (_, partly) = places(&["", "", "a"]);
        assert_eq!(crowding(&partly, &[1, 2]), None);
    }

    #[test]
    fn move_within_a_zone_or_to_another_one_is_not_worse() {
        let (_, places) = places(&["a", "a", "b", "b", "c"]);
        let is_worse =
            |nodes: &[u128], from, to| places.is_worse(&held(nodes), NodeId(from), NodeId(to));
        assert!(!is_worse(&[1, 3], 1, 2), "same zone");
        assert!(!is_worse(&[1, 3], 1, 5), "another zone");
        assert!(is_worse(&[1, 3], 1, 4), "the zone of the other replica");
        assert!(!is_worse(&[1, 2], 1, 3), "better");
        assert!(is_worse(&[1, 3, 5], 5, 2));
    }

    #[test]
    fn machines_count_where_zones_are_equal() {
        let (mut views, _) = places(&["", "", "", ""]);
        for (view, host) in views.iter_mut().zip(["x", "x", "y", "z"]) {
            view.member.host = host.to_owned();
        }
        let places = Places::new(&views);
        assert!(places.is_worse(&held(&[1, 3]), NodeId(3), NodeId(2)));
        assert!(!places.is_worse(&held(&[1, 3]), NodeId(3), NodeId(4)));
    }

    /// Returns a cluster of nodes with a disk of the same number each, some of which are lost.
    fn cluster(nodes: u32, lost: &[u32]) -> Cluster {
        let mut cluster = Cluster::default();
        for number in 1..=nodes {
            let contact = if lost.contains(&number) { Contact::Lost } else { Contact::Responsive };
            let liveness = NodeLiveness { contact, ..NodeLiveness::default() };
            let intent =
                NodeIntent { state: NodeState::Active, is_leaving: false, in_maintenance: false };
            let disk = NodeDisk::new(DiskNumber(number), DiskId(number.into()));
            cluster.add_node(NodeId(number.into()), intent, &[disk], &liveness);
        }
        cluster
    }

    /// Returns a record of two copies on disks with these marks.
    fn record(replicas: &[(u32, ReplicaMark)]) -> Chunk {
        let replica = |(disk, mark): &(u32, ReplicaMark)| {
            let id = (DiskNumber(*disk), Part::WHOLE, Stamp(u64::from(*disk)));
            Replica { mark: *mark, ..Replica::new(id.0, id.1, id.2) }
        };
        Chunk {
            seal: ChunkSeal { length: 5, crc32c: Crc32c(1), sha256: Sha256([0; 32]) },
            redundancy: Redundancy::Replicated { copies: 2 },
            policy: 0,
            replicas: replicas.iter().map(replica).collect(),
            generation: Generation::FIRST,
            references: 1,
            inode: InodeId::ROOT,
        }
    }

    #[test]
    fn chunk_with_doomed_replicas_on_a_lost_disk_is_settled() {
        use ReplicaMark::{Doomed, Sound};
        let cluster = cluster(4, &[3]);
        let repaired = record(&[(1, Sound), (2, Sound), (3, Doomed)]);
        assert_eq!(settled(&repaired, &cluster), Some(held(&[1, 2])));
        let all = BTreeSet::from([NodeId(1), NodeId(2), NodeId(3)]);
        assert_eq!(holders(&repaired, &cluster), all, "node 3 takes no other one");
        for (replicas, why) in [
            (&[(1, Sound), (3, Doomed)][..], "one is missing"),
            (&[(1, Sound), (3, Sound)], "one is lost"),
            (&[(1, Sound), (2, Sound), (3, Sound)], "one is lost, and surplus"),
            (&[(1, Sound), (2, Sound), (4, Sound)], "one is surplus"),
            (&[(1, Sound), (2, ReplicaMark::Bad), (4, Sound)], "one is bad"),
        ] {
            assert_eq!(settled(&record(replicas), &cluster), None, "{why}");
        }
    }
}
