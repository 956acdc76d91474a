use dfs_metadata::chunk_health::{Contact, DiskFault, NodeIntent, NodeLiveness};
use dfs_metadata::namespace::{NodeDisk, Replica, ReplicaMark};
use dfs_types::{
    ChunkSeal, Crc32c, DiskId, DiskNumber, Generation, InodeId, NodeState, Part, Redundancy,
    Sha256, Stamp,
};

use super::*;

const DELAY: Duration = Duration::from_secs(2);

fn record() -> Chunk {
    let seal = ChunkSeal { length: 10, crc32c: Crc32c(0), sha256: Sha256([0; 32]) };
    Chunk {
        seal,
        redundancy: Redundancy::Replicated { copies: 1 },
        policy: 0,
        replicas: vec![Replica::new(DiskNumber(1), Part::WHOLE, Stamp(1))],
        generation: Generation::FIRST,
        references: 1,
        inode: InodeId(1),
    }
}

fn moved(chunk: u128) -> Move {
    let record = record();
    let replica = ReplicaId::of(&record.replicas[0]);
    Move { chunk: ChunkId(chunk), record, replica, from: NodeId(1), to: NodeId(2) }
}

/// Returns the last reports of nodes 1 and 2, which take part.
fn reports(heard: [Option<Instant>; 2]) -> Reports {
    let report = |at| Report { at, takes_part: true };
    Reports([1, 2].map(NodeId).into_iter().zip(heard.map(report)).collect())
}

fn both() -> BTreeSet<NodeId> {
    [1, 2].map(NodeId).into()
}

/// Returns what node 1 uses at least, and node 2 at most, given that each reported 100.
fn used(unreported: &Unreported) -> (u64, u64) {
    let (giver, taker) = (unreported.used(NodeId(1), 100), unreported.used(NodeId(2), 100));
    assert_eq!((giver.1, taker.0), (100, 100), "a report may include a move already");
    (giver.0, taker.1)
}

#[test]
fn moves_count_until_they_are_reported() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let heard = |one, two| reports([Some(at(one)), Some(at(two))]);
    let mut unreported = Unreported::default();
    unreported.add(&moved(1), at(10));
    unreported.add(&moved(2), at(10));
    assert_eq!(used(&unreported), (80, 120));
    // A heartbeat that was on its way proves nothing.
    unreported.settle(&heard(11, 11), &Cluster::default(), DELAY);
    assert_eq!(used(&unreported), (80, 120));
    // That of the taker includes its new replicas, but the old ones are not deleted yet.
    unreported.settle(&heard(12, 12), &Cluster::default(), DELAY);
    assert_eq!(used(&unreported), (80, 100));
    assert_eq!(unreported.undeleted(), [ChunkId(1), ChunkId(2)]);
    let mut doomed = record();
    doomed.replicas[0].mark = ReplicaMark::Doomed;
    let records = BTreeMap::from([(ChunkId(1), None), (ChunkId(2), Some(doomed))]);
    unreported.note_records(&records, at(20));
    assert_eq!(unreported.undeleted(), [ChunkId(2)]);
    assert_eq!(
        unreported.describe(&both()).unwrap(),
        "waiting for the deletion of 1 moved replica"
    );
    assert_eq!(unreported.describe(&BTreeSet::from([NodeId(2)])), None, "it gave none");
    unreported.settle(&heard(21, 21), &Cluster::default(), DELAY);
    assert_eq!(used(&unreported), (80, 100));
    unreported.settle(&heard(22, 22), &Cluster::default(), DELAY);
    assert_eq!(used(&unreported), (90, 100));
    let mut deleted = record();
    deleted.replicas[0].stamp = Stamp(2);
    unreported.note_records(&BTreeMap::from([(ChunkId(2), Some(deleted))]), at(30));
    assert_eq!(unreported.describe(&both()).unwrap(), "waiting for reports of what was moved");
    unreported.settle(&heard(32, 32), &Cluster::default(), DELAY);
    assert_eq!(unreported.describe(&both()), None);
    assert!(unreported.left.is_empty() && unreported.arrived.is_empty());
}

/// A node is silent for a while, and reports what it has not deleted yet when it is back.
#[test]
fn moves_of_a_silent_node_count_until_it_reports_them_and_those_of_a_removed_node_do_not() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut unreported = Unreported::default();
    unreported.add(&moved(1), at(10));
    let mut silent = reports([Some(at(9)), None]);
    silent.0.get_mut(&NodeId(1)).unwrap().takes_part = false;
    let mut lost = Cluster::default();
    lost = lost.without_unknown();
    for cluster in [Cluster::default(), lost] {
        unreported.settle(&silent, &cluster, DELAY);
        assert_eq!(used(&unreported), (90, 110));
    }
    unreported.settle(&reports([Some(at(99)), Some(at(99))]), &Cluster::default(), DELAY);
    assert_eq!(used(&unreported), (90, 100), "not deleted yet");
    unreported.settle(&Reports::default(), &Cluster::default(), DELAY);
    assert!(unreported.left.is_empty() && unreported.arrived.is_empty());
}

#[test]
fn undeleted_replicas_are_bounded_for_each_node_and_checked_in_turn() {
    let mut unreported = Unreported::default();
    for chunk in 0..WAITING_MAX {
        assert!(!unreported.is_full(NodeId(1)));
        unreported.add(&moved(chunk as u128), Instant::now());
    }
    assert!(unreported.is_full(NodeId(1)) && !unreported.is_full(NodeId(3)));
    for chunk in 0..10 {
        let from = NodeId(3);
        unreported.add(&Move { from, ..moved(5_000 + chunk) }, Instant::now());
    }
    let first = unreported.undeleted();
    assert_eq!(first.len(), CHECKED_MAX);
    let second = unreported.undeleted();
    let all: BTreeSet<ChunkId> = first.into_iter().chain(second).collect();
    assert_eq!(all.len(), WAITING_MAX + 10);
}

#[test]
fn replicas_on_lost_disks_do_not_wait_for_deletion() {
    let now = Instant::now();
    let mut unreported = Unreported::default();
    let elsewhere = ReplicaId { disk: DiskNumber(2), ..moved(2).replica };
    unreported.add(&moved(1), now);
    unreported.add(&Move { replica: elsewhere, ..moved(2) }, now);
    let mut cluster = Cluster::default();
    let disks = [1, 2].map(|number| NodeDisk::new(DiskNumber(number), DiskId(number.into())));
    let disks_at = BTreeMap::from([(DiskId(1), DiskFault::Lost), (DiskId(2), DiskFault::Slow)]);
    let liveness = NodeLiveness { contact: Contact::Responsive, disks: disks_at };
    let state = NodeState::Active;
    let intent = NodeIntent { state, is_leaving: false, in_maintenance: false };
    cluster.add_node(NodeId(1), intent, &disks, &liveness);
    unreported.settle(&reports([Some(now), None]), &cluster, DELAY);
    assert_eq!(unreported.undeleted(), [ChunkId(2)]);
}
