//! All chunks of up to four replicas, against a slow model that counts differently.

use dfs_types::{ChunkSeal, Crc32c, Generation, InodeId, Sha256, Stamp};

use super::*;

const NODES: u128 = 4;
const HEALTHS: [DiskHealth; 4] =
    [DiskHealth::Good, DiskHealth::Leaving, DiskHealth::Suspect, DiskHealth::Lost];
const MARKS: [ReplicaMark; 4] =
    [ReplicaMark::Sound, ReplicaMark::Bad, ReplicaMark::Gone, ReplicaMark::Doomed];

/// Returns a cluster of four nodes with a disk of each health; node 1 has two good disks, 0 and 16.
fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    for node in 0..NODES {
        for (number, health) in HEALTHS.into_iter().enumerate() {
            let disk = DiskNumber(node as u32 * 4 + number as u32);
            cluster.disks.insert(disk, (NodeId(node), health));
        }
    }
    cluster.disks.insert(DiskNumber(16), (NodeId(0), DiskHealth::Good));
    cluster
}

fn chunk(redundancy: Redundancy, replicas: Vec<Replica>) -> Chunk {
    Chunk {
        seal: ChunkSeal { length: 1, crc32c: Crc32c(0), sha256: Sha256([0; 32]) },
        redundancy,
        policy: 0,
        replicas,
        generation: Generation::FIRST,
        references: 1,
        inode: InodeId(7),
    }
}

/// The table of the design, cell by cell: durable, readable, stays.
fn row(mark: ReplicaMark, disk: DiskHealth) -> (ReplicaHealth, [bool; 3]) {
    use ReplicaHealth as H;
    let (t, f) = (true, false);
    if mark == ReplicaMark::Doomed {
        return (H::Doomed, [f, f, f]);
    }
    if mark == ReplicaMark::Gone {
        return (H::Gone, [f, f, f]);
    }
    match disk {
        DiskHealth::Lost => (H::Lost, [f, f, f]),
        _ if mark == ReplicaMark::Bad => (H::Bad, [f, f, f]),
        DiskHealth::Suspect => (H::Suspect, [t, f, t]),
        DiskHealth::Leaving => (H::Leaving, [t, t, f]),
        DiskHealth::Good => (H::Good, [t, t, t]),
    }
}

/// Counts distinct parts among the replicas with a column set, by striking out all but one replica
/// of each node or fragment.
fn slow(chunk: &Chunk, cluster: &Cluster, column: usize) -> (usize, usize) {
    let mut left: Vec<(Part, Option<NodeId>, DiskNumber)> = Vec::new();
    for replica in &chunk.replicas {
        let health = cluster.disks.get(&replica.disk).map_or(DiskHealth::Suspect, |(_, h)| *h);
        if !row(replica.mark, health).1[column] {
            continue;
        }
        let node = cluster.disks.get(&replica.disk).map(|(node, _)| *node);
        let is_same = |(part, other, disk): &(Part, Option<NodeId>, DiskNumber)| {
            let same_place = if node.is_some() { *other == node } else { *disk == replica.disk };
            *part == replica.part && (replica.part != Part::WHOLE || same_place)
        };
        if !left.iter().any(is_same) {
            left.push((replica.part, node, replica.disk));
        }
    }
    let wholes = left.iter().filter(|(part, ..)| *part == Part::WHOLE).count();
    (wholes, left.len() - wholes)
}

fn compare(chunk: &Chunk, cluster: &Cluster) {
    let health = judge(chunk, cluster);
    for (replica, found) in chunk.replicas.iter().zip(&health.replicas) {
        let disk = cluster.disks.get(&replica.disk).map_or(DiskHealth::Suspect, |(_, h)| *h);
        assert_eq!(*found, row(replica.mark, disk).0, "{replica:?}");
    }
    for (column, parts) in [health.durable, health.readable, health.stays].into_iter().enumerate() {
        let found = (usize::from(parts.wholes), usize::from(parts.fragments));
        assert_eq!(found, slow(chunk, cluster, column), "column {column} of {chunk:?}");
    }
    let (wholes, fragments) = slow(chunk, cluster, 0);
    let (have, target, spare) = match chunk.redundancy {
        Redundancy::Replicated { copies } => (wholes, copies, wholes as i16 - 1),
        Redundancy::Erasure { k, m, .. } => {
            let coded = fragments as i16 - i16::from(k);
            (fragments, k + m, if coded > wholes as i16 - 1 { coded } else { wholes as i16 - 1 })
        }
    };
    assert_eq!((health.spare(), health.is_missing()), (spare, spare < 0), "{chunk:?}");
    assert_eq!(usize::from(health.lacks()), usize::from(target).saturating_sub(have), "{chunk:?}");
    let bad = health
        .replicas
        .iter()
        .filter(|health| **health == ReplicaHealth::Bad || **health == ReplicaHealth::Gone);
    assert_eq!(usize::from(health.bad), bad.count());
}

/// Returns replicas of one part on every disk with every mark.
fn all_replicas(parts: &[Part], disks: &[u32]) -> Vec<Replica> {
    let mut all = Vec::new();
    for (disk, part) in disks.iter().flat_map(|disk| parts.iter().map(move |part| (*disk, *part))) {
        for mark in MARKS {
            all.push(Replica { mark, ..Replica::new(DiskNumber(disk), part, Stamp(1)) });
        }
    }
    all
}

/// Shows every multiset of at most `most` of these, in both orders.
fn each(all: &[Replica], most: usize, show: &mut dyn FnMut(Vec<Replica>)) {
    fn more(
        all: &[Replica],
        from: usize,
        most: usize,
        chosen: &mut Vec<Replica>,
        show: &mut dyn FnMut(Vec<Replica>),
    ) {
        show(chosen.clone());
        show(chosen.iter().rev().copied().collect());
        if chosen.len() == most {
            return;
        }
        for at in from..all.len() {
            chosen.push(all[at]);
            more(all, at, most, chosen, show);
            chosen.pop();
        }
    }
    more(all, 0, most, &mut Vec::new(), show);
}

#[test]
fn judge_equals_a_slow_model_up_to_four_replicas() {
    let cluster = cluster();
    let mut seen = 0_u64;
    // All four healths and a second good disk on node 0, a good and a lost disk on node 1, an
    // unknown disk; with each mark, 32 replicas.
    for copies in [1, 3] {
        let all = all_replicas(&[Part::WHOLE], &[0, 1, 2, 3, 16, 4, 7, 99]);
        each(&all, 4, &mut |replicas| {
            seen += 1;
            compare(&chunk(Redundancy::Replicated { copies }, replicas), &cluster);
        });
    }
    let coded = Redundancy::Erasure { codec: 1, k: 2, m: 1, blocks: 1, crcs: vec![Crc32c(0); 3] };
    let all = all_replicas(&[Part::WHOLE, Part(1), Part(2), Part(3)], &[0, 6]);
    each(&all, 4, &mut |replicas| {
        seen += 1;
        compare(&chunk(coded.clone(), replicas), &cluster);
    });
    assert!(seen > 300_000, "{seen}");
}

#[test]
fn disk_health_follows_intent_then_liveness() {
    let (disk, other) = (DiskId(1), DiskId(2));
    let stored = NodeDisk::new(DiskNumber(1), disk);
    let retiring = NodeDisk { is_retiring: true, ..stored };
    let active = NodeIntent { state: NodeState::Active, is_leaving: false, in_maintenance: false };
    let heard = NodeLiveness { contact: Contact::Responsive, ..NodeLiveness::default() };
    let silent = NodeLiveness::default();
    let lost = NodeLiveness { contact: Contact::Lost, ..NodeLiveness::default() };
    let with = |liveness: &NodeLiveness, disk, fault| {
        let disks = BTreeMap::from([(disk, fault)]);
        NodeLiveness { disks, ..liveness.clone() }
    };
    let in_state = |state| NodeIntent { state, ..active };
    let maintained = NodeIntent { in_maintenance: true, ..active };
    let leaving = NodeIntent { is_leaving: true, ..active };
    for (intent, liveness, health) in [
        (active, heard.clone(), DiskHealth::Good),
        (active, with(&heard, other, DiskFault::Lost), DiskHealth::Good),
        (active, silent.clone(), DiskHealth::Suspect),
        (active, lost.clone(), DiskHealth::Lost),
        (active, with(&heard, disk, DiskFault::Unavailable), DiskHealth::Suspect),
        (active, with(&heard, disk, DiskFault::Returning), DiskHealth::Suspect),
        (active, with(&heard, disk, DiskFault::Retiring), DiskHealth::Leaving),
        (active, with(&heard, disk, DiskFault::Slow), DiskHealth::Good),
        (active, with(&silent, disk, DiskFault::Slow), DiskHealth::Suspect),
        (active, with(&heard, disk, DiskFault::Lost), DiskHealth::Lost),
        (leaving, heard.clone(), DiskHealth::Leaving),
        (leaving, silent.clone(), DiskHealth::Suspect),
        (in_state(NodeState::Draining), heard.clone(), DiskHealth::Leaving),
        (in_state(NodeState::Drained), heard.clone(), DiskHealth::Leaving),
        (in_state(NodeState::Drained), lost.clone(), DiskHealth::Lost),
        (in_state(NodeState::Joining), heard.clone(), DiskHealth::Suspect),
        (in_state(NodeState::Removed), heard.clone(), DiskHealth::Lost),
        (maintained, heard, DiskHealth::Suspect),
        (maintained, lost.clone(), DiskHealth::Suspect),
        (maintained, with(&silent, disk, DiskFault::Lost), DiskHealth::Lost),
    ] {
        assert_eq!(disk_health(intent, &liveness, &stored), health, "{intent:?} {liveness:?}");
        let leaves = if health == DiskHealth::Good { DiskHealth::Leaving } else { health };
        assert_eq!(disk_health(intent, &liveness, &retiring), leaves, "{intent:?} {liveness:?}");
    }
}

#[test]
fn unknown_disk_is_suspect_and_never_lost() {
    let replicas = vec![Replica::new(DiskNumber(99), Part::WHOLE, Stamp(1))];
    let health = judge(&chunk(Redundancy::Replicated { copies: 1 }, replicas), &cluster());
    assert_eq!(health.replicas, [ReplicaHealth::Suspect]);
    assert!(!health.is_missing() && health.lacks() == 0);
}

#[test]
fn replica_on_a_removed_node_is_gone_so_that_it_is_dropped_beside_enough_others() {
    let mut cluster = cluster();
    let disks = [0, 4, 8, 15].map(DiskNumber);
    cluster.disks.insert(disks[3], (NodeId(3), DiskHealth::Lost));
    let replicas = disks.map(|disk| Replica::new(disk, Part::WHOLE, Stamp(1))).to_vec();
    let chunk = chunk(Redundancy::Replicated { copies: 3 }, replicas);
    let health = judge(&chunk, &cluster);
    assert_eq!((health.lacks(), health.bad), (0, 0), "a lost node may return");
    cluster.removed.insert(disks[3]);
    let health = judge(&chunk, &cluster);
    assert_eq!(health.replicas[3], ReplicaHealth::Gone);
    assert_eq!((health.lacks(), health.bad), (0, 1));
}
