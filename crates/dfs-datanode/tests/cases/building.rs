//! Replicas built from those of other nodes.

use std::time::Duration;

use dfs_chunkstore::{ChunkStore as _, FullSpeed};
use dfs_datanode::Settings;
use dfs_proto::v1;
use dfs_proto::v1::build_replica_response::Outcome;
use dfs_proto::wire::WireId as _;
use dfs_types::{
    BLOCK_SIZE, BUILD_WEIGHT_MAX, ChunkId, DiskId, ErrorCode, Generation, InodeId, NodeId, Receipt,
    SMALL_BUILD_MAX, SMALL_BUILDS_MAX, SealKey,
};
use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
use tonic::Status;

use crate::cluster::coordinator::KEY;
use crate::cluster::{
    Cluster, Hang, Node, TestStore, build, eventually, last, meta, refused, sealed, settings,
};

/// Returns the bytes of a chunk of several frames, whose last block is short.
fn long() -> Vec<u8> {
    (0..(5 << 19) + 7).map(|n: u32| (n % 251) as u8).collect()
}

impl Node {
    async fn write_long(&self, chunk: u128) {
        let ready = self.prepare(v1::ChunkMeta { max_length: 4 << 20, ..meta(chunk) }).await;
        self.finish(&ready.unwrap(), &long()).await.unwrap();
    }

    async fn build(
        &self,
        chunk: u128,
        data: &[u8],
        sources: &[&Node],
    ) -> Result<v1::BuildReplicaResponse, Status> {
        self.order(build(self, chunk, data, sources).await).await
    }

    async fn order(
        &self,
        request: v1::BuildReplicaRequest,
    ) -> Result<v1::BuildReplicaResponse, Status> {
        let request = sealed(self.handle.node_id().0, request);
        last(self.client().build_replica(request).await).await
    }

    async fn holds(&self, chunk: u128) -> bool {
        !self.store.memory.replicas(ChunkId(chunk)).await.unwrap().is_empty()
    }
}

/// Returns the receipt of the replica built.
fn built(response: &v1::BuildReplicaResponse) -> Receipt {
    match response.outcome.clone() {
        Some(Outcome::Built(receipt)) => dfs_proto::wire::receipt("built", receipt).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn failed(response: &v1::BuildReplicaResponse) -> Vec<(u128, &str)> {
    let node = |failed: &v1::DroppedReplica| NodeId::from_slice(&failed.node_id).unwrap().0;
    response.failed.iter().map(|failed| (node(failed), &failed.code[..])).collect()
}

#[tokio::test(start_paused = true)]
async fn built_replica_equals_its_source_and_has_a_receipt() {
    let cluster = Cluster::start().await;
    let (source, target) = (cluster.node(1, settings()).await, cluster.node(2, settings()).await);
    source.write_long(1).await;
    let response = target.build(1, &long(), &[&source]).await.unwrap();
    let receipt = built(&response);
    assert_eq!(receipt, receipt.sealed(&SealKey::from_slice(&KEY).unwrap()));
    assert_eq!((receipt.node, receipt.length), (NodeId(2), long().len() as u64));
    assert_eq!(failed(&response), []);
    let (from, to) = (&source.store.memory, &target.store.memory);
    let replica_in = async |store: &dfs_chunkstore::MemoryStore| {
        store.replicas(ChunkId(1)).await.unwrap()[0].replica()
    };
    let header = to.header(replica_in(to).await).await.unwrap();
    assert_eq!(header.path, "/file");
    assert_eq!(header.inode, from.header(replica_in(from).await).await.unwrap().inode);
    for offset in (0..long().len() as u64).step_by(1 << 20) {
        let read = async |store: &dfs_chunkstore::MemoryStore| {
            store.read(replica_in(store).await, offset, 1 << 20).await.unwrap()
        };
        assert_eq!(read(from).await, read(to).await);
    }
}

#[tokio::test(start_paused = true)]
async fn repeated_order_returns_the_existing_replica() {
    let cluster = Cluster::start().await;
    let (source, target) = (cluster.node(1, settings()).await, cluster.node(2, settings()).await);
    source.write_long(1).await;
    let first = built(&target.build(1, &long(), &[&source]).await.unwrap());
    let again = target.build(1, &long(), &[&source]).await.unwrap();
    let Some(Outcome::Existing(existing)) = again.outcome else { panic!("{again:?}") };
    let found = existing.replica.unwrap();
    assert_eq!((found.stamp, existing.is_set_aside), (first.stamp.0, false));
    assert_eq!(DiskId::from_slice(&found.disk_id), Some(first.disk));
    assert_eq!(target.store.sealed().await[0].stamp, first.stamp);
}

#[tokio::test(start_paused = true)]
async fn dead_source_and_source_without_the_chunk_are_skipped() {
    let cluster = Cluster::start().await;
    let (source, target) = (cluster.node(1, settings()).await, cluster.node(2, settings()).await);
    let (dead, empty) = (cluster.node(3, settings()).await, cluster.node(4, settings()).await);
    source.write_long(1).await;
    dead.running.abort();
    let mut request = build(&target, 1, &long(), &[&dead, &empty, &source]).await;
    request.sources[0].node.as_mut().unwrap().address = "nobody:1".to_owned();
    let response = target.order(request).await.unwrap();
    assert_eq!(built(&response).node, NodeId(2));
    assert_eq!(failed(&response), [(3, "UNAVAILABLE"), (4, "NOT_FOUND")]);
}

#[tokio::test(start_paused = true)]
async fn corrupt_block_is_reported_and_the_build_continues_from_another_source() {
    let cluster = Cluster::start().await;
    let (bad, good) = (cluster.node(1, settings()).await, cluster.node(2, settings()).await);
    let target = cluster.node(3, settings()).await;
    bad.write_long(1).await;
    good.write_long(1).await;
    bad.store.damage_from(1 << 20);
    let response = target.build(1, &long(), &[&bad, &good]).await.unwrap();
    assert_eq!(built(&response).node, NodeId(3));
    assert_eq!(failed(&response), [(1, "CHECKSUM_MISMATCH")]);
    let block = (1 << 20) / BLOCK_SIZE;
    assert!(response.failed[0].message.contains(&format!("block {block}")), "{response:?}");
    let built = target.store.sealed().await[0].replica();
    assert_eq!(target.store.memory.verify(built, &FullSpeed).await.unwrap(), None);
    eventually("the source has set its replica aside", || async {
        bad.store.memory.replicas(ChunkId(1)).await.unwrap()[0].is_set_aside
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_without_a_good_source() {
    let cluster = Cluster::start().await;
    let (source, target) = (cluster.node(1, settings()).await, cluster.node(2, settings()).await);
    source.write_long(1).await;
    source.store.damage_from(1 << 20);
    let response = target.build(1, &long(), &[&source]).await.unwrap();
    assert_eq!(
        (response.outcome.clone(), failed(&response)),
        (None, vec![(1, "CHECKSUM_MISMATCH")])
    );
    assert!(!target.holds(1).await);
    // A good replica, but not of the bytes named by the order.
    let other = cluster.node(3, settings()).await;
    other.write(2, b"other").await;
    let response = target.build(2, b"data!", &[&other]).await.unwrap();
    assert_eq!(
        (response.outcome.clone(), failed(&response)),
        (None, vec![(3, "CHECKSUM_MISMATCH")])
    );
    assert!(!target.holds(2).await);
}

#[tokio::test(start_paused = true)]
async fn full_target_refuses_builds() {
    let cluster = Cluster::start().await;
    let source = cluster.node(1, settings()).await;
    let target = cluster.node_on(TestStore::with_capacity(NodeId(2), 1), settings()).await;
    source.write(1, b"data").await;
    assert_eq!(refused(target.build(1, b"data", &[&source]).await), ErrorCode::NoSpace);
}

#[tokio::test(start_paused = true)]
async fn builds_are_limited_and_a_cut_off_build_leaves_nothing() {
    let cluster = Cluster::start().await;
    let one = Settings { builds: 1, ..settings() };
    let (source, target) = (cluster.node(1, settings()).await, cluster.node(2, one).await);
    let small = u128::from(BUILD_WEIGHT_MAX);
    for chunk in 1..=small + 1 {
        source.write_long(chunk).await;
    }
    target.store.hang(Hang::Write);
    let (long, sources) = (long(), [&source]);
    let mut hanging = join_all((1..=small).map(|chunk| target.build(chunk, &long, &sources)));
    let another = async {
        eventually("all are in progress", || async { target.store.stuck() == small as usize })
            .await;
        target.build(small + 1, &long, &[&source]).await
    };
    let another = tokio::select! {
        _ = &mut hanging => panic!("they hang"),
        another = another => another,
    };
    assert_eq!(refused(another), ErrorCode::Busy);
    drop(hanging);
    target.store.go_on();
    eventually("there is room again", || async {
        target.build(small + 1, &long, &[&source]).await.is_ok()
    })
    .await;
    assert!(!target.holds(1).await && !target.holds(2).await);
    assert_eq!(built(&target.build(1, &long, &[&source]).await.unwrap()).node, NodeId(2));
}

#[tokio::test(start_paused = true)]
async fn nodes_with_one_slot_build_from_each_other() {
    let one = || Settings {
        builds: 1,
        sessions: 1,
        replica_sessions: 1,
        replication_streams: 1,
        reads: 1,
        ..settings()
    };
    let cluster = Cluster::start().await;
    let (first, second) = (cluster.node(1, one()).await, cluster.node(2, one()).await);
    first.write_long(1).await;
    second.write_long(2).await;
    let long = long();
    let (sources_of_1, sources_of_2) = ([&first], [&second]);
    let (at_second, at_first) =
        tokio::join!(second.build(1, &long, &sources_of_1), first.build(2, &long, &sources_of_2));
    assert_eq!(built(&at_second.unwrap()).node, NodeId(2));
    assert_eq!(built(&at_first.unwrap()).node, NodeId(1));
}

#[tokio::test(start_paused = true)]
async fn builds_respect_the_rate_of_their_node() {
    let cluster = Cluster::start().await;
    let source = cluster.node(1, settings()).await;
    let slow = Settings { move_bytes_per_second: 1 << 20, ..settings() };
    let target = cluster.node(2, slow).await;
    source.write_long(1).await;
    let started = Instant::now();
    built(&target.build(1, &long(), &[&source]).await.unwrap());
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
}

/// Returns the result of an order, how long it took, and the longest time without a message.
async fn timed(
    target: &Node,
    request: v1::BuildReplicaRequest,
) -> (v1::BuildReplicaResponse, Duration, Duration) {
    let request = sealed(target.handle.node_id().0, request);
    let began = Instant::now();
    let (mut heard, mut silence, mut last) = (began, Duration::ZERO, None);
    let mut messages = target.client().build_replica(request).await.unwrap().into_inner();
    while let Some(message) = messages.message().await.unwrap() {
        silence = silence.max(heard.elapsed());
        heard = Instant::now();
        last = Some(message);
    }
    (last.unwrap(), began.elapsed(), silence)
}

/// Both nodes build from each other, so that each build has half of the rate.
#[tokio::test(start_paused = true)]
async fn builds_at_the_lowest_rate_show_progress_until_they_end() {
    let cluster = Cluster::start().await;
    let slow = || Settings { move_bytes_per_second: 1 << 20, ..settings() };
    let (first, second) = (cluster.node(1, slow()).await, cluster.node(2, slow()).await);
    let empty = cluster.node(3, slow()).await;
    let large = vec![7; 32 << 20];
    for (node, chunk) in [(&first, 1), (&second, 2)] {
        let meta = v1::ChunkMeta { max_length: 32 << 20, ..meta(chunk) };
        node.finish(&node.prepare(meta).await.unwrap(), &large).await.unwrap();
    }
    let at_second = build(&second, 1, &large, &[&empty, &first]).await;
    let at_first = build(&first, 2, &large, &[&empty, &second]).await;
    let (at_second, at_first) = tokio::join!(timed(&second, at_second), timed(&first, at_first));
    for (response, took, silence) in [at_second, at_first] {
        assert_eq!(built(&response).length, 32 << 20);
        assert_eq!(failed(&response), [(3, "NOT_FOUND")]);
        assert!(took > Duration::from_secs(55), "{took:?}");
        assert!(silence < Duration::from_secs(20), "{silence:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn build_on_a_hanging_disk_shows_no_progress() {
    let cluster = Cluster::start().await;
    let (source, target) = (cluster.node(1, settings()).await, cluster.node(2, settings()).await);
    source.write_long(1).await;
    target.store.hang(Hang::Write);
    let request = sealed(2, build(&target, 1, &long(), &[&source]).await);
    let mut messages = target.client().build_replica(request).await.unwrap().into_inner();
    // The frames before the one that cannot be written.
    messages.message().await.unwrap();
    assert!(timeout(Duration::from_mins(10), messages.message()).await.is_err());
    target.store.go_on();
    messages.message().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn node_with_the_lowest_rate_reports_and_takes_one_build_at_a_time() {
    let cluster = Cluster::start().await;
    let slow = Settings { move_bytes_per_second: 1 << 20, ..settings() };
    let (source, target) = (cluster.node(1, settings()).await, cluster.node(2, slow).await);
    let reported = |node| cluster.coordinator.last_report(node).unwrap().build_weight;
    assert_eq!((reported(NodeId(1)), reported(NodeId(2))), (2 * BUILD_WEIGHT_MAX, 1));
    source.write_long(1).await;
    source.write_long(2).await;
    let (long, sources) = (long(), [&source]);
    target.store.hang(Hang::Write);
    let first = target.build(1, &long, &sources);
    let second = async {
        target.store.is_stuck().await;
        let second = target.build(2, &long, &sources).await;
        target.store.go_on();
        second
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((built(&first.unwrap()).node, refused(second)), (NodeId(2), ErrorCode::Busy));
}

/// Returns an order to build small replicas, each of these bytes from one source.
async fn small_order(
    target: &Node,
    builds: &[(u128, &[u8], &Node)],
) -> v1::BuildSmallReplicasRequest {
    let mut small = Vec::new();
    for (chunk, data, source) in builds {
        let order = build(target, *chunk, data, &[source]).await;
        small.push(v1::SmallReplicaBuild {
            chunk_id: order.chunk_id,
            length: order.length,
            crc32c: order.crc32c,
            sha256: order.sha256,
            source: order.sources.into_iter().next(),
            generation: order.generation,
        });
    }
    let (lease_epoch, node_id) = (1, target.handle.node_id().to_wire());
    let request =
        v1::BuildSmallReplicasRequest { builds: small, lease_epoch, node_id, order: None };
    sealed(target.handle.node_id().0, request)
}

/// Returns the small replicas that a node builds.
async fn build_small(target: &Node, builds: &[(u128, &[u8], &Node)]) -> Vec<v1::BuiltReplica> {
    let order = small_order(target, builds).await;
    let mut messages = target.client().build_small_replicas(order).await.unwrap().into_inner();
    let mut built = Vec::new();
    while let Some(message) = messages.message().await.unwrap() {
        built.extend(message.built);
    }
    built
}

fn chunks_of(built: &[v1::BuiltReplica]) -> Vec<u128> {
    let receipts = built.iter().map(|built| built.receipt.as_ref().unwrap());
    let mut chunks: Vec<_> =
        receipts.map(|it| ChunkId::from_slice(&it.chunk_id).unwrap().0).collect();
    chunks.sort_unstable();
    chunks
}

#[tokio::test(start_paused = true)]
async fn small_replicas_are_built_together_and_equal_their_sources() {
    let cluster = Cluster::start().await;
    let (one, two) = (cluster.node(1, settings()).await, cluster.node(2, settings()).await);
    let target = cluster.node(3, settings()).await;
    let short: &[u8] = b"a short one";
    let whole = vec![7; BLOCK_SIZE];
    for chunk in [1, 2] {
        one.write(chunk, short).await;
    }
    two.write(3, &whole).await;
    let builds: [(u128, &[u8], &Node); 3] = [(1, short, &one), (2, short, &one), (3, &whole, &two)];
    let built = build_small(&target, &builds).await;
    assert_eq!(chunks_of(&built), [1, 2, 3]);
    let key = SealKey::from_slice(&KEY).unwrap();
    for v1::BuiltReplica { receipt, proof } in built {
        let receipt = dfs_proto::wire::receipt("built", receipt.unwrap()).unwrap();
        assert_eq!(receipt, receipt.sealed(&key));
        let proof = dfs_proto::wire::read_proof("proof", proof.unwrap()).unwrap();
        assert_eq!((proof, proof.generation), (proof.sealed(&key), Generation(1)));
        assert_eq!((proof.replica.stamp, proof.node), (receipt.stamp, NodeId(3)));
        let held = target.store.memory.replicas(receipt.chunk).await.unwrap();
        assert_eq!((held.len(), held[0].replica()), (1, proof.replica));
        let header = target.store.memory.header(held[0].replica()).await.unwrap();
        assert_eq!((header.path, header.inode), ("/file".into(), InodeId(5)));
        assert_eq!(target.store.memory.verify(held[0].replica(), &FullSpeed).await.unwrap(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_plain_is_left_out_of_small_builds() {
    let cluster = Cluster::start().await;
    let (good, bad) = (cluster.node(1, settings()).await, cluster.node(2, settings()).await);
    let (dead, target) = (cluster.node(3, settings()).await, cluster.node(4, settings()).await);
    let data: &[u8] = b"some bytes";
    for node in [&good, &bad, &dead] {
        for chunk in 1..=6 {
            node.write(chunk, data).await;
        }
    }
    target.write(2, data).await;
    bad.store.damage_from(0);
    let builds: [(u128, &[u8], &Node); 7] = [
        (1, data, &good),
        // It is here already.
        (2, data, &good),
        // Its source has other bytes, bad ones, or none.
        (3, b"some other", &good),
        (4, data, &bad),
        (7, data, &good),
        (5, data, &dead),
        (6, data, &good),
    ];
    let order = small_order(&target, &builds).await;
    dead.running.abort();
    let mut messages = target.client().build_small_replicas(order).await.unwrap().into_inner();
    let mut built = Vec::new();
    while let Some(message) = messages.message().await.unwrap() {
        built.extend(message.built);
    }
    assert_eq!(chunks_of(&built), [1, 6]);
    for chunk in [3, 4, 5, 7] {
        assert!(!target.holds(chunk).await, "{chunk}");
    }
    // By itself, each of them is built after all, or the reason is named.
    assert_eq!(built_by_itself(&target, 4, data, &[&bad, &good]).await, NodeId(4));
    let response = target.build(7, data, &[&good]).await.unwrap();
    assert_eq!((response.outcome.clone(), failed(&response)), (None, vec![(1, "NOT_FOUND")]));
}

async fn built_by_itself(target: &Node, chunk: u128, data: &[u8], from: &[&Node]) -> NodeId {
    built(&target.build(chunk, data, from).await.unwrap()).node
}

#[tokio::test(start_paused = true)]
async fn small_builds_refuse_large_chunks_and_too_many() {
    let cluster = Cluster::start().await;
    let (source, target) = (cluster.node(1, settings()).await, cluster.node(2, settings()).await);
    let large = vec![0; (SMALL_BUILD_MAX + 1) as usize];
    let order = small_order(&target, &[(1, &large, &source)]).await;
    let refusal = refused(target.client().build_small_replicas(order).await);
    assert_eq!(refusal, ErrorCode::InvalidArgument);
    let many: Vec<(u128, &[u8], &Node)> =
        (0..=SMALL_BUILDS_MAX as u128).map(|chunk| (chunk, &b"x"[..], &source)).collect();
    let order = small_order(&target, &many).await;
    let refusal = refused(target.client().build_small_replicas(order).await);
    assert_eq!(refusal, ErrorCode::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn source_that_hangs_ends_its_small_builds_and_delays_no_others() {
    let cluster = Cluster::start().await;
    let (good, hung) = (cluster.node(1, settings()).await, cluster.node(2, settings()).await);
    let target = cluster.node(3, settings()).await;
    let data: &[u8] = b"some bytes";
    good.write(1, data).await;
    hung.write(2, data).await;
    hung.store.hang(Hang::Everything);
    let order = small_order(&target, &[(1, data, &good), (2, data, &hung)]).await;
    let began = Instant::now();
    let mut messages = target.client().build_small_replicas(order).await.unwrap().into_inner();
    let first = messages.message().await.unwrap().unwrap();
    assert_eq!((chunks_of(&first.built), began.elapsed().as_secs()), (vec![1], 0));
    assert_eq!(messages.message().await.unwrap(), None);
    assert_eq!(began.elapsed().as_secs(), 2, "it left its replica out");
}

#[tokio::test(start_paused = true)]
async fn small_builds_end_and_free_their_places_although_the_reply_is_not_read() {
    let cluster = Cluster::start().await;
    let settings = Settings { builds: 1, ..settings() };
    let (source, target) =
        (cluster.node(1, settings.clone()).await, cluster.node(2, settings).await);
    let data: &[u8] = b"some bytes";
    let chunks = 1..=u128::from(BUILD_WEIGHT_MAX);
    for chunk in chunks.clone() {
        source.write(chunk, data).await;
    }
    let builds: Vec<(u128, &[u8], &Node)> =
        chunks.clone().map(|chunk| (chunk, data, &source)).collect();
    let order = small_order(&target, &builds).await;
    let unread = target.client().build_small_replicas(order).await.unwrap();
    eventually("all are built", || async {
        let held = chunks.clone().map(|chunk| target.holds(chunk));
        join_all(held).await.into_iter().all(|is_held| is_held)
    })
    .await;
    source.write(99, data).await;
    assert_eq!(built(&target.build(99, data, &[&source]).await.unwrap()).node, NodeId(2));
    drop(unread);
}
