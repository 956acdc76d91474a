//! Replicas with bad or unreadable blocks.

use std::time::Duration;

use dfs_chunkstore::ChunkStore as _;
use dfs_proto::v1::build_replica_response::Outcome;
use dfs_proto::wire::{self, WireId as _};
use dfs_proto::{Detail, Failure, v1};
use dfs_types::{
    BLOCK_SIZE, ChunkId, Crc32c, DiskId, ErrorCode, Generation, NodeId, ReadProof, SealKey, Sha256,
};
use tokio::time::sleep;

use crate::cluster::coordinator::KEY;
use crate::cluster::{
    Cluster, Node, build, eventually, last, meant, meta, refused, replica_of, sealed, settings,
};

const BLOCK: u64 = BLOCK_SIZE as u64;
const SOUND: v1::ReplicaCondition = v1::ReplicaCondition::Sound;
const GONE: v1::ReplicaCondition = v1::ReplicaCondition::Gone;
/// A chunk of several reads, whose last block is short.
const LENGTH: u64 = 40 * BLOCK + 7;

fn data() -> Vec<u8> {
    (0..LENGTH).map(|n| (n % 251) as u8).collect()
}

impl Node {
    async fn put(&self, chunk: u128) -> v1::ReplicaRef {
        let ready = self.prepare(v1::ChunkMeta { max_length: LENGTH, ..meta(chunk) }).await;
        replica_of(&self.finish(&ready.unwrap(), &data()).await.unwrap()[0])
    }

    /// Reads from a block on, and returns how many blocks came before the end or the failure.
    async fn read(&self, replica: &v1::ReplicaRef, block: u64) -> (u64, Option<Failure>) {
        let retrieve = v1::RetrieveRequest {
            replica: Some(replica.clone()),
            offset: block * BLOCK,
            ..Default::default()
        };
        let mut frames = match dfs_proto::bulk::retrieve_chunk(self.channel(), retrieve).await {
            Ok(frames) => frames,
            Err(status) => return (0, Some(Failure::from_status(&status))),
        };
        let mut end = block * BLOCK;
        loop {
            match frames.message().await {
                Ok(Some(frame)) => {
                    assert_eq!(frame.offset, end);
                    let wanted = &data()[end as usize..end as usize + frame.data.len()];
                    assert!(frame.data == wanted, "a bad block was served");
                    end += frame.data.len() as u64;
                }
                Ok(None) => return (end.div_ceil(BLOCK) - block, None),
                Err(status) => return (end / BLOCK - block, Some(Failure::from_status(&status))),
            }
        }
    }

    /// Reports a block of a replica as bad. Returns whether the node agrees.
    async fn accuse(&self, replica: &v1::ReplicaRef, block: u64) -> bool {
        let replica = Some(replica.clone());
        let report = v1::CorruptReport { replica, block, ..Default::default() };
        self.client().report_corrupt(report).await.unwrap().into_inner().set_aside
    }

    /// Returns the response to an order to verify a replica at generation 9.
    async fn verify(&self, replica: &v1::ReplicaRef) -> v1::VerifyReplicaResponse {
        let request = verification(self.handle.node_id().0, replica);
        self.client().verify_replica(request).await.unwrap().into_inner()
    }

    async fn is_set_aside(&self, chunk: u128) -> bool {
        self.store.memory.replicas(ChunkId(chunk)).await.unwrap()[0].is_set_aside
    }
}

fn verification(node: u128, replica: &v1::ReplicaRef) -> v1::VerifyReplicaRequest {
    let request = v1::VerifyReplicaRequest {
        replica: Some(replica.clone()),
        length: LENGTH,
        crc32c: Crc32c::of(&data()).0,
        sha256: Sha256::of(&data()).0.to_vec().into(),
        generation: 9,
        node_id: meant(node),
        order: None,
    };
    sealed(node, request)
}

fn bad(block: u64) -> (ErrorCode, Option<Detail>) {
    (ErrorCode::Corrupt, Some(Detail::BadBlock(block)))
}

fn shown(failure: Option<Failure>) -> (ErrorCode, Option<Detail>) {
    let failure = failure.expect("the read ends with an error");
    (failure.code, failure.detail)
}

#[tokio::test(start_paused = true)]
async fn good_blocks_of_a_replica_set_aside_are_served_up_to_each_bad_one() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let replica = node.put(1).await;
    node.store.damage_blocks(&[3, 4, 20]);
    assert!(node.accuse(&replica, 3).await && node.is_set_aside(1).await);
    for (from, blocks, end) in [(0, 3, 3), (3, 0, 3), (4, 0, 4), (5, 15, 20)] {
        let (served, failure) = node.read(&replica, from).await;
        assert_eq!((served, shown(failure)), (blocks, bad(end)), "from block {from}");
    }
    assert_eq!(node.read(&replica, 21).await, (20, None));
}

#[tokio::test(start_paused = true)]
async fn unreadable_blocks_are_unavailable_and_condemn_nothing() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let replica = node.put(1).await;
    node.store.hide_blocks(&[5]);
    let (served, failure) = node.read(&replica, 0).await;
    let unreadable = (ErrorCode::Unavailable, Some(Detail::BadBlock(5)));
    assert_eq!((served, shown(failure)), (5, unreadable));
    assert_eq!(node.read(&replica, 6).await, (35, None));
    let report =
        v1::CorruptReport { replica: Some(replica.clone()), block: 5, ..Default::default() };
    assert_eq!(refused(node.client().report_corrupt(report).await), ErrorCode::Unavailable);
    assert!(!node.is_set_aside(1).await);
    node.store.hide_blocks(&[]);
    assert_eq!(node.read(&replica, 0).await, (41, None));
}

/// K3: one unreadable read proves nothing, one that is repeated minutes later does.
#[tokio::test(start_paused = true)]
async fn k03_sector_that_stays_unreadable_makes_its_replica_bad() {
    let cluster = Cluster::start().await;
    cluster.coordinator.make_beats_rare();
    let node = cluster.node(1, settings()).await;
    let replica = node.put(1).await;
    node.store.hide_blocks(&[5]);
    assert_eq!(node.read(&replica, 0).await.0, 5);
    sleep(Duration::from_mins(4)).await;
    let order = verification(1, &replica);
    assert_eq!(refused(node.client().verify_replica(order).await), ErrorCode::Unavailable);
    assert!(!node.is_set_aside(1).await, "too soon");
    sleep(Duration::from_mins(2)).await;
    assert!(node.is_set_aside(1).await);
    let [verdict] = &cluster.coordinator.verdicts(NodeId(1))[..] else { panic!("only one") };
    assert_eq!(verdict.condition(), v1::ReplicaCondition::Bad);
    // A coordinator that has the last replica read again gets the same answer.
    let again = node.verify(&replica).await.verdict.unwrap();
    assert_eq!(again.condition(), v1::ReplicaCondition::Bad);
    assert_eq!(node.read(&replica, 6).await, (35, None), "its other blocks are served");
    node.store.hide_blocks(&[]);
    cluster.coordinator.settle_verdicts();
    assert_eq!(node.verify(&replica).await.verdict.unwrap().condition(), SOUND);
    eventually("it is used again", || async { !node.is_set_aside(1).await }).await;
}

#[tokio::test(start_paused = true)]
async fn k03_sector_that_becomes_readable_in_time_condemns_nothing() {
    let cluster = Cluster::start().await;
    cluster.coordinator.make_beats_rare();
    let node = cluster.node(1, settings()).await;
    let replica = node.put(1).await;
    for _ in 0..3 {
        node.store.hide_blocks(&[5]);
        assert_eq!(node.read(&replica, 0).await.0, 5);
        sleep(Duration::from_mins(4)).await;
        node.store.hide_blocks(&[]);
        sleep(Duration::from_mins(2)).await;
    }
    assert!(!node.is_set_aside(1).await && cluster.coordinator.verdicts(NodeId(1)).is_empty());
}

/// K3: when the storage of a node returns nothing for a while, no replica is at fault.
#[tokio::test(start_paused = true)]
async fn k03_disk_that_returns_nothing_condemns_no_replica() {
    let cluster = Cluster::start().await;
    cluster.coordinator.make_beats_rare();
    let node = cluster.node(1, settings()).await;
    let mut replicas = Vec::new();
    // As many as fail a disk that returns other bytes.
    for chunk in 1..=16 {
        replicas.push(node.put(chunk).await);
    }
    node.store.set_dark(true);
    for replica in &replicas {
        assert_eq!(node.read(replica, 0).await.1.unwrap().code, ErrorCode::Unavailable);
    }
    sleep(Duration::from_mins(20)).await;
    assert!(cluster.coordinator.verdicts(NodeId(1)).is_empty());
    node.store.set_dark(false);
    for (chunk, replica) in (1..).zip(&replicas) {
        assert!(!node.is_set_aside(chunk).await);
        assert_eq!(node.read(replica, 0).await, (41, None));
    }
    // A replica that was set aside is not condemned again by a dark disk either.
    node.store.damage_blocks(&[3]);
    assert!(node.accuse(&replicas[0], 3).await);
    node.store.set_dark(true);
    let order = verification(1, &replicas[0]);
    assert_eq!(refused(node.client().verify_replica(order).await), ErrorCode::Unavailable);
}

/// K3: replicas that stay unreadable are the fault of their disk if they are many.
#[tokio::test(start_paused = true)]
async fn k03_disk_with_many_unreadable_replicas_fails() {
    let cluster = Cluster::start().await;
    cluster.coordinator.make_beats_rare();
    let node = cluster.node(1, settings()).await;
    let mut replicas = Vec::new();
    for chunk in 1..=16 {
        replicas.push(node.put(chunk).await);
    }
    node.store.hide_blocks(&[5]);
    for replica in &replicas {
        assert_eq!(node.read(replica, 0).await.0, 5);
    }
    sleep(Duration::from_mins(12)).await;
    let report = cluster.coordinator.last_report(NodeId(1)).unwrap();
    assert_eq!(report.disks[0].state(), v1::DiskState::Failed);
    let reason = &report.disks[0].reason;
    assert!(reason.contains("replace the disk") && reason.contains("restart the node"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn unreadable_replicas_of_a_failed_disk_are_forgotten() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let replica = node.put(1).await;
    node.store.hide_blocks(&[5]);
    assert_eq!(node.read(&replica, 0).await.0, 5);
    sleep(Duration::from_mins(1)).await;
    node.store.set_failed(true);
    sleep(Duration::from_mins(6)).await;
    // Only to see whether the replica is still checked: a disk that failed never returns.
    node.store.set_failed(false);
    let verified = node.store.verified();
    assert_eq!(verified, 1, "after the read that failed");
    sleep(Duration::from_mins(12)).await;
    assert_eq!(node.store.verified(), verified);
}

/// An I/O error while heads are read at the start says nothing about their replicas, nor does the
/// list of such a disk.
#[tokio::test(start_paused = true)]
async fn replica_whose_head_was_not_read_is_not_gone() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let replica = node.put(1).await;
    node.store.lose_heads(&[ChunkId(1)], true);
    assert_eq!(node.read(&replica, 0).await.1.unwrap().code, ErrorCode::Unavailable);
    let order = verification(1, &replica);
    assert_eq!(refused(node.client().verify_replica(order).await), ErrorCode::Unavailable);
    sleep(Duration::from_mins(1)).await;
    assert!(cluster.coordinator.verdicts(NodeId(1)).is_empty());
    // It stays unreadable.
    node.store.lose_heads(&[ChunkId(1)], false);
    assert_eq!(node.verify(&replica).await.verdict.unwrap().condition(), GONE);
}

#[tokio::test(start_paused = true)]
async fn replica_that_is_not_there_is_reported_gone_at_once() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let replica = node.put(1).await;
    let elsewhere = v1::ReplicaRef { disk_id: DiskId(99).to_wire(), ..replica.clone() };
    node.store.set_failed(true);
    assert_eq!(node.read(&replica, 0).await.1.unwrap().code, ErrorCode::Unavailable);
    node.store.set_failed(false);
    assert_eq!(node.read(&elsewhere, 0).await.1.unwrap().code, ErrorCode::Unavailable);
    let older = v1::ReplicaRef { stamp: 0, ..replica.clone() };
    assert_eq!(node.read(&older, 0).await.1.unwrap().code, ErrorCode::NotFound);
    eventually("it is reported", || async { !cluster.coordinator.verdicts(NodeId(1)).is_empty() })
        .await;
    let [verdict] = &cluster.coordinator.verdicts(NodeId(1))[..] else { panic!("only one") };
    assert_eq!(verdict.replica.as_ref(), Some(&older));
    assert_eq!(verdict.condition(), v1::ReplicaCondition::Gone);
    assert!(verdict.number > replica.stamp);
    // A delete order that finds nothing is no reason for a verdict.
    let other = v1::ReplicaRef { stamp: 7_000, ..replica.clone() };
    let delete = v1::DeleteChunksRequest {
        replicas: vec![other],
        lease_epoch: 1,
        node_id: meant(1),
        order: None,
    };
    node.client().delete_chunks(sealed(1, delete)).await.unwrap();
    cluster.coordinator.settle_verdicts();
    eventually("it is settled", || async { cluster.coordinator.verdicts(NodeId(1)).is_empty() })
        .await;
}

/// Someone removed its file; the index still has it.
#[tokio::test(start_paused = true)]
async fn replica_whose_file_a_read_does_not_find_is_reported_gone_at_once() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let replica = node.put(1).await;
    node.store.lose(ChunkId(1));
    assert_eq!(node.read(&replica, 0).await.1.unwrap().code, ErrorCode::NotFound);
    eventually("it is reported", || async { !cluster.coordinator.verdicts(NodeId(1)).is_empty() })
        .await;
    let [verdict] = &cluster.coordinator.verdicts(NodeId(1))[..] else { panic!("only one") };
    assert_eq!(verdict.replica.as_ref(), Some(&replica));
    assert_eq!(verdict.condition(), GONE);
    assert!(verdict.number > replica.stamp);
}

#[tokio::test(start_paused = true)]
async fn verified_replica_is_sound_again_and_its_proof_names_the_generation() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let replica = node.put(1).await;
    // Orders to verify need no lease.
    let delete =
        v1::DeleteChunksRequest { lease_epoch: 5, node_id: meant(1), ..Default::default() };
    node.client().delete_chunks(sealed(1, delete)).await.unwrap();
    node.store.damage_blocks(&[2]);
    let first = node.verify(&replica).await;
    let verdict = first.verdict.unwrap();
    assert_eq!((verdict.condition(), verdict.block), (v1::ReplicaCondition::Bad, 2));
    assert!(first.proof.is_none() && node.is_set_aside(1).await);
    eventually("it is reported", || async {
        cluster.coordinator.verdicts(NodeId(1)) == [verdict.clone()]
    })
    .await;
    node.store.damage_blocks(&[]);
    let second = node.verify(&replica).await;
    let again = second.verdict.unwrap();
    assert_eq!(again.condition(), v1::ReplicaCondition::Sound);
    assert!(again.number > verdict.number);
    let proof = wire::read_proof("proof", second.proof.unwrap()).unwrap();
    let key = SealKey::from_slice(&KEY).unwrap();
    assert_eq!(proof, ReadProof { generation: Generation(9), ..proof }.sealed(&key));
    eventually("it is reported", || async {
        cluster.coordinator.verdicts(NodeId(1)) == [again.clone()]
    })
    .await;
    assert!(node.is_set_aside(1).await, "until the record says so, too");
    cluster.coordinator.settle_verdicts();
    eventually("it is used again", || async { !node.is_set_aside(1).await }).await;
    let gone = v1::ReplicaRef { stamp: replica.stamp + 999, ..replica.clone() };
    let verdict = node.verify(&gone).await.verdict.unwrap();
    assert_eq!(verdict.condition(), v1::ReplicaCondition::Gone);
    node.store.hide_blocks(&[0]);
    let unreadable = node.client().verify_replica(verification(1, &replica)).await;
    assert_eq!(refused(unreadable), ErrorCode::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn replica_is_built_from_the_good_blocks_of_bad_ones_and_takes_the_place_of_one() {
    let cluster = Cluster::start().await;
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(cluster.node(id, settings()).await);
    }
    let mut replicas = Vec::new();
    for (node, blocks) in nodes.iter().zip([[0, 9], [1, 20], [2, 40]]) {
        let replica = node.put(1).await;
        node.store.damage_blocks(&blocks);
        // The second one does not know yet.
        if node.handle.node_id() != NodeId(2) {
            assert!(node.accuse(&replica, blocks[0]).await);
        }
        replicas.push(replica);
    }
    let [first, second, third] = &nodes[..] else { unreachable!() };
    let order = build(first, 1, &data(), &[second, third]).await;
    let order = v1::BuildReplicaRequest { replaces: vec![replicas[0].clone()], ..order };
    let request = sealed(1, order.clone());
    let built = last(first.client().build_replica(request).await).await.unwrap();
    let Some(Outcome::Built(receipt)) = &built.outcome else { panic!("{built:?}") };
    let proof = wire::read_proof("proof", built.proof.clone().unwrap()).unwrap();
    assert_eq!((proof.generation, proof.replica.stamp.0), (Generation(1), receipt.stamp));
    assert!(receipt.stamp > replicas[0].stamp && !first.is_set_aside(1).await);
    first.store.damage_blocks(&[]);
    assert_eq!(first.read(&replica_of(receipt), 0).await, (41, None));
    // Blocks that are bad everywhere: nothing is kept, and the old replica stays.
    for node in [first, second, third] {
        node.store.damage_blocks(&[7]);
    }
    let order = build(second, 1, &data(), &[first, third]).await;
    let order = v1::BuildReplicaRequest { replaces: vec![replicas[1].clone()], ..order };
    let request = sealed(2, order);
    let failed = last(second.client().build_replica(request).await).await.unwrap();
    assert!(failed.outcome.is_none() && failed.failed.len() == 3, "{failed:?}");
    let kept = second.store.memory.replicas(ChunkId(1)).await.unwrap()[0];
    assert_eq!(kept.stamp.0, replicas[1].stamp);
}
