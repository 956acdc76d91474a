//! Reads when replicas are slow, missing, bad or moved.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dfs_client::{GetOptions, PutOptions, PutSource};
use dfs_proto::v1;
use dfs_types::{ChunkId, ErrorCode, NodeId};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use crate::fake::{CHUNK, Clients as _, Cluster};
use crate::{bytes, drain, get, path, put, until};

const LONG: u64 = 40 * CHUNK;

/// Returns a cluster whose three nodes all hold `/f`.
async fn with_a_file(length: u64) -> (Cluster, bytes::Bytes) {
    let cluster = Cluster::start(3).await;
    let content = bytes(length);
    put(&cluster.client(), "/f", &content).await;
    (cluster, content)
}

fn reads(cluster: &Cluster, number: usize) -> u64 {
    cluster.node(number).reads.load(Ordering::Relaxed)
}

fn chunk_of(cluster: &Cluster, name: &str) -> ChunkId {
    let state = cluster.state();
    let inode = state.names[name.as_bytes()];
    ChunkId::from_slice(&state.inodes[&inode].chunks[0].chunk_id).unwrap()
}

#[tokio::test(start_paused = true)]
async fn nearest_replica_is_read() {
    let (cluster, content) = with_a_file(LONG).await;
    for (host, zone, nearest) in [("h2", "z3", 2), ("elsewhere", "z3", 3)] {
        let client = cluster.builder().location(host, zone).connect_lazy().unwrap();
        let before = reads(&cluster, nearest);
        assert!(get(&client, "/f").await.unwrap() == content);
        assert_eq!(reads(&cluster, nearest) - before, LONG / CHUNK, "{host} {zone}");
    }
    assert_eq!(reads(&cluster, 1), 0);
    // Equal ones are chosen at random.
    assert!(get(&cluster.client(), "/f").await.unwrap() == content);
    assert!((1..=3).all(|number| reads(&cluster, number) > 0));
}

#[tokio::test(start_paused = true)]
async fn failing_node_is_replaced_and_then_avoided() {
    let (cluster, content) = with_a_file(LONG).await;
    let client = cluster.builder().location("h1", "z1").connect_lazy().unwrap();
    cluster.node(1).fault(|faults| faults.refuses_reads = true);
    assert!(get(&client, "/f").await.unwrap() == content);
    let failovers = client.stats().failovers;
    // Those that were started together, and none after them.
    assert!((1..=8).contains(&failovers), "{:?}", client.stats());
    assert_eq!(reads(&cluster, 1), failovers);
    assert_eq!(client.stats().retries, 0);
    // It is nearest again once its penalty has ended.
    cluster.node(1).fault(|faults| faults.refuses_reads = false);
    tokio::time::advance(Duration::from_secs(11)).await;
    assert!(get(&client, "/f").await.unwrap() == content);
    assert_eq!(reads(&cluster, 1), failovers + LONG / CHUNK);
}

#[tokio::test(start_paused = true)]
async fn dead_node_is_replaced() {
    let (cluster, content) = with_a_file(LONG).await;
    let client = cluster.builder().location("h1", "z1").connect_lazy().unwrap();
    cluster.stop_node(1).await;
    assert!(get(&client, "/f").await.unwrap() == content);
    assert!(client.stats().failovers > 0);
}

#[tokio::test(start_paused = true)]
async fn node_that_dies_within_a_piece_is_replaced() {
    let (cluster, content) = with_a_file(CHUNK).await;
    let client = cluster.builder().location("h1", "z1").connect_lazy().unwrap();
    cluster.node(1).fault(|faults| faults.hangs_reads = true);
    let getting = tokio::spawn(async move { (get(&client, "/f").await, client.stats()) });
    until("it is being read", || cluster.node(1).reading.load(Ordering::Relaxed) == 1).await;
    cluster.stop_node(1).await;
    let (got, stats) = getting.await.unwrap();
    assert!(got.unwrap() == content);
    assert_eq!((stats.failovers, stats.hedges), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn hanging_node_is_overtaken() {
    let (cluster, content) = with_a_file(LONG).await;
    let client = cluster.builder().location("h1", "z1").connect_lazy().unwrap();
    cluster.node(1).fault(|faults| faults.hangs_reads = true);
    let started = Instant::now();
    assert!(get(&client, "/f").await.unwrap() == content);
    let stats = client.stats();
    assert!((1..=8).contains(&stats.hedges), "{stats:?}");
    assert_eq!((stats.failovers, stats.retries), (0, 0));
    // One wait of 300 ms for those that were started together; it was avoided afterwards.
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(reads(&cluster, 1), stats.hedges);
    until("its reads have ended", || cluster.node(1).reading.load(Ordering::Relaxed) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn reads_fail_in_bounded_time_when_all_replicas_hang() {
    let (cluster, _) = with_a_file(5).await;
    let deadline = Duration::from_secs(30);
    let client = cluster.builder().deadline(deadline).connect_lazy().unwrap();
    cluster.world.nodes.iter().for_each(|node| node.fault(|faults| faults.hangs_reads = true));
    let started = Instant::now();
    let error = get(&client, "/f").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(error.is_retryable());
    assert!(started.elapsed() < deadline + Duration::from_secs(20), "{:?}", started.elapsed());
    let text = error.to_string();
    assert!(text.contains(&chunk_of(&cluster, "/f").to_string()), "{text}");
    for node in &cluster.world.nodes {
        assert!(text.contains(&node.id.to_string()), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn corrupt_replica_is_reported_and_another_one_is_read() {
    let (cluster, content) = with_a_file(CHUNK).await;
    let client = cluster.builder().location("h1", "z1").connect_lazy().unwrap();
    cluster.node(1).fault(|faults| faults.flips_bit_of = Some(2));
    assert!(get(&client, "/f").await.unwrap() == content);
    assert_eq!((client.stats().corrupt_blocks, client.stats().failovers), (1, 1));
    // The report has arrived before the bytes.
    let reports = cluster.node(1).reports.lock().unwrap().clone();
    assert_eq!(reports, [(chunk_of(&cluster, "/f"), 2)]);
    // One bad replica does not make its node bad.
    put(&client, "/g", &content).await;
    cluster.node(1).fault(|faults| faults.flips_bit_of = None);
    let before = reads(&cluster, 1);
    assert!(get(&client, "/g").await.unwrap() == content);
    assert_eq!(reads(&cluster, 1), before + 1);
}

#[tokio::test(start_paused = true)]
async fn file_with_only_corrupt_replicas_is_unreadable() {
    let (cluster, _) = with_a_file(CHUNK).await;
    let client = cluster.client();
    cluster.world.nodes.iter().for_each(|node| node.fault(|faults| faults.flips_bit_of = Some(0)));
    let started = Instant::now();
    let error = get(&client, "/f").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Corrupt);
    assert!(!error.is_retryable());
    assert!(started.elapsed() < Duration::from_secs(1), "no reason to wait");
    let text = error.to_string();
    assert!(text.contains(&chunk_of(&cluster, "/f").to_string()), "{text}");
    for node in &cluster.world.nodes {
        assert!(text.contains(&node.id.to_string()), "{text}");
        assert_eq!(node.reports.lock().unwrap().len(), 1);
    }
}

/// K8: a replica that could not be tried may be intact.
#[tokio::test(start_paused = true)]
async fn k08_chunk_with_an_untried_replica_is_unavailable_rather_than_corrupt() {
    let (cluster, content) = with_a_file(CHUNK).await;
    let (client, chunk) = (cluster.client(), chunk_of(&cluster, "/f"));
    for number in [1, 2] {
        cluster.node(number).fault(|faults| faults.flips_bit_of = Some(0));
    }
    cluster.state().unknown_nodes.insert(NodeId(3));
    let error = get(&client, "/f").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
    assert!(error.is_retryable() && error.to_string().contains("1 not tried"), "{error}");
    // Its node comes back in time.
    let getting = tokio::spawn({
        let client = client.clone();
        async move { get(&client, "/f").await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.state().unknown_nodes.clear();
    assert!(getting.await.unwrap().unwrap() == content);
    // A replica that is recorded as bad is no hope.
    cluster.state().unknown_nodes.insert(NodeId(3));
    cluster.state().replica_health.insert((chunk, NodeId(3)), v1::ReplicaHealth::Bad);
    let error = get(&client, "/f").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Corrupt, "{error}");
}

#[tokio::test(start_paused = true)]
async fn replicas_with_different_bad_blocks_are_read_together() {
    let (cluster, content) = with_a_file(CHUNK).await;
    let client = cluster.client();
    for (number, block) in [(1, 0), (2, 2), (3, 1)] {
        cluster.node(number).fault(|faults| faults.flips_bit_of = Some(block));
    }
    // Also once they are recorded as bad.
    for health in [v1::ReplicaHealth::Good, v1::ReplicaHealth::Bad] {
        let chunk = chunk_of(&cluster, "/f");
        for node in 1..=3 {
            cluster.state().replica_health.insert((chunk, NodeId(node)), health);
        }
        assert!(get(&client, "/f").await.unwrap() == content);
        let range = client.read_range(&path("/f"), 65_000, 70_000).await.unwrap();
        assert!(range == content.slice(65_000..135_000));
    }
}

/// Blocks of another chunk match their own checksums, so that only the whole shows the mistake.
#[tokio::test(start_paused = true)]
async fn replica_of_another_chunk_is_left_out_when_blocks_are_gathered() {
    let (cluster, content) = with_a_file(CHUNK).await;
    let client = cluster.builder().location("h1", "z1").connect_lazy().unwrap();
    cluster.node(1).fault(|faults| faults.serves_other_bytes = true);
    for (number, block) in [(2, 0), (3, 2)] {
        cluster.node(number).fault(|faults| faults.flips_bit_of = Some(block));
    }
    assert!(get(&client, "/f").await.unwrap() == content);
    // It was tried: nothing is left that may have the block.
    cluster.node(3).fault(|faults| faults.flips_bit_of = Some(0));
    let started = Instant::now();
    let error = get(&client, "/f").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Corrupt, "{error}");
    assert!(started.elapsed() < Duration::from_secs(1), "no reason to wait");
}

#[tokio::test(start_paused = true)]
async fn one_bad_block_of_the_only_replica_leaves_all_other_ranges_readable() {
    let (cluster, content) = with_a_file(CHUNK).await;
    let client = cluster.client();
    cluster.node(1).fault(|faults| faults.flips_bit_of = Some(2));
    let chunk = chunk_of(&cluster, "/f");
    for gone in [NodeId(2), NodeId(3)] {
        cluster.state().replica_health.insert((chunk, gone), v1::ReplicaHealth::Gone);
    }
    for health in [v1::ReplicaHealth::Good, v1::ReplicaHealth::Bad] {
        cluster.state().replica_health.insert((chunk, NodeId(1)), health);
        let block = 64 << 10;
        for at in [0, 1, 3] {
            let read = client.read_range(&path("/f"), at * block, block).await.unwrap();
            assert!(read == content.slice((at * block) as usize..((at + 1) * block) as usize));
        }
        let error = client.read_range(&path("/f"), 2 * block, 1).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Corrupt, "{error}");
        assert!(error.to_string().contains("block 2"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn bad_replica_is_read_last() {
    let (cluster, content) = with_a_file(CHUNK).await;
    let client = cluster.builder().location("h1", "z1").connect_lazy().unwrap();
    let chunk = chunk_of(&cluster, "/f");
    cluster.state().replica_health.insert((chunk, NodeId(1)), v1::ReplicaHealth::Bad);
    assert!(get(&client, "/f").await.unwrap() == content);
    assert_eq!(reads(&cluster, 1), 0);
}

/// F15: datanodes that run are no help where every replica is bad.
#[tokio::test(start_paused = true)]
async fn f15_chunk_with_bad_replicas_only_is_corrupt_rather_than_unavailable() {
    let (cluster, _) = with_a_file(CHUNK).await;
    let chunk = chunk_of(&cluster, "/f");
    for node in 1..=3 {
        cluster.state().replica_health.insert((chunk, NodeId(node)), v1::ReplicaHealth::Bad);
        cluster.node(node as usize).fault(|faults| faults.flips_bit_of = Some(1));
    }
    let error = get(&cluster.client(), "/f").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Corrupt, "{error}");
    assert!(error.to_string().contains(&chunk.to_string()), "{error}");
    assert!(error.to_string().contains("block 1 is corrupt"), "{error}");
}

#[tokio::test]
async fn erasure_coded_chunk_is_refused() {
    let (cluster, _) = with_a_file(CHUNK).await;
    cluster.state().is_coded = true;
    let client = cluster.builder().connect_lazy().unwrap();
    let error = get(&client, "/f").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnsupportedVersion, "{error}");
    assert!((1..=3).all(|node| reads(&cluster, node) == 0));
}

#[tokio::test(start_paused = true)]
async fn moved_replicas_are_found() {
    let cluster = Cluster::start(4).await;
    let client = cluster.client();
    let content = bytes(CHUNK);
    put(&client, "/f", &content).await;
    let reader = client.get(&path("/f"), GetOptions::default()).await.unwrap();
    // All three move to the node that had none, after the file was opened.
    let chunk = chunk_of(&cluster, "/f");
    {
        let (mut state, mut stored) = (cluster.state(), cluster.world.stored.lock().unwrap());
        let nodes: Vec<_> = cluster.world.nodes.iter().map(|node| node.id).collect();
        let new = *nodes.iter().find(|node| !stored.contains_key(&(**node, chunk))).unwrap();
        let replicas: Vec<_> = nodes.iter().filter_map(|n| stored.remove(&(*n, chunk))).collect();
        assert_eq!(replicas.len(), 3);
        stored.insert((new, chunk), replicas[0].clone());
        let file = state.inodes.values_mut().next().unwrap();
        file.chunks[0].receipts.truncate(1);
        file.chunks[0].receipts[0].node_id = new.to_bytes().to_vec().into();
    }
    assert!(drain(reader).await.unwrap() == content);
}

#[tokio::test(start_paused = true)]
async fn reads_wait_for_nodes_to_come_back() {
    let (cluster, content) = with_a_file(CHUNK).await;
    let client = cluster.client();
    for number in 1..=3 {
        cluster.stop_node(number).await;
    }
    let getting = tokio::spawn({
        let client = client.clone();
        async move { get(&client, "/f").await }
    });
    until("it has retried", || client.stats().retries >= 3).await;
    cluster.start_node(2).await;
    assert!(getting.await.unwrap().unwrap() == content);
}

#[tokio::test(start_paused = true)]
async fn reader_keeps_its_version() {
    let (cluster, content) = with_a_file(LONG).await;
    // Too small to read all of it ahead.
    let client = cluster.builder().memory_budget(0).connect_lazy().unwrap();
    let name = path("/f");
    let open = || client.get(&name, GetOptions::default());
    let (mut reader, mut overtaken) = (open().await.unwrap(), open().await.unwrap());
    let first = reader.next().await.unwrap().unwrap();
    put(&client, "/f", &bytes(3)).await;
    let rest = drain(reader).await.unwrap();
    assert!([first, rest].concat() == content);
    assert_eq!(get(&client, "/f").await.unwrap(), bytes(3));
    // Until the old version is reaped.
    overtaken.next().await.unwrap().unwrap();
    {
        let mut state = cluster.state();
        let inode = overtaken.stat().inode.0;
        state.inodes.remove(&inode).unwrap();
        cluster.world.stored.lock().unwrap().clear();
    }
    let error = drain(overtaken).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Stale, "{error}");
}

#[tokio::test(start_paused = true)]
async fn budget_bounds_reads_in_flight() {
    const BUDGET: u64 = 16 << 20;
    const PIECE: u64 = 4 << 20;
    let cluster = Cluster::start(3).await;
    let content = bytes(5 * PIECE);
    let options = || dfs_client::PutOptions::default().chunk_size(5 * PIECE);
    let client = cluster.builder().memory_budget(BUDGET as usize).connect_lazy().unwrap();
    for name in ["/1", "/2", "/3"] {
        let source = dfs_client::PutSource::bytes(content.clone());
        client.put(&path(name), source, options()).await.unwrap();
    }
    cluster.world.nodes.iter().for_each(|node| node.fault(|faults| faults.hangs_reads = true));
    let reading = || -> u64 {
        cluster.world.nodes.iter().map(|node| node.reading.load(Ordering::Relaxed)).sum()
    };
    let getting = ["/1", "/2", "/3"].map(|name| {
        let client = client.clone();
        tokio::spawn(async move {
            let target = tempfile::tempfile().unwrap();
            let whole = GetOptions::default();
            let stat = client.get_to_file(&path(name), whole, target).await.unwrap();
            (stat.size, get(&client, name).await.unwrap())
        })
    });
    // Hedges have their share too, or are not started.
    let started = Instant::now();
    let mut most = 0;
    while started.elapsed() < Duration::from_secs(4) {
        most = most.max(reading());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(most, BUDGET / PIECE);
    cluster.world.nodes.iter().for_each(|node| node.fault(|faults| faults.hangs_reads = false));
    for got in getting {
        let (size, got) = got.await.unwrap();
        assert_eq!(size, content.len() as u64);
        assert!(got == content);
    }
}

#[tokio::test(start_paused = true)]
async fn idle_readers_starve_no_other() {
    let cluster = Cluster::start(3).await;
    let client = cluster.builder().memory_budget(0).connect_lazy().unwrap();
    let content = bytes(24 << 20);
    put(&client, "/f", &content).await;
    let mut idle = Vec::new();
    let mut given = 0;
    for _ in 0..10 {
        let mut reader = client.get(&path("/f"), GetOptions::default()).await.unwrap();
        given = reader.next().await.unwrap().unwrap().len();
        idle.push(reader);
    }
    // A copy within dfs, from one of the idle readers.
    let reader = idle.pop().unwrap();
    let source = as_source(reader);
    let whole = dfs_client::PutOptions::default();
    let size = client.put(&path("/replica"), source, whole).await.unwrap().size;
    assert_eq!(size as usize, content.len() - given);
    assert!(content.ends_with(&get(&client, "/replica").await.unwrap()));
    for reader in idle {
        assert!(content.ends_with(&drain(reader).await.unwrap()));
    }
}

/// Turns a reader into the source of a put.
fn as_source(mut reader: dfs_client::FileReader) -> dfs_client::PutSource {
    let (mut to, from) = tokio::io::duplex(64 << 10);
    tokio::spawn(async move {
        while let Some(bytes) = reader.next().await.unwrap() {
            to.write_all(&bytes).await.unwrap();
        }
    });
    dfs_client::PutSource::reader(from)
}

/// A node may serve blocks that match their own checksums but belong to another chunk.
#[tokio::test(start_paused = true)]
async fn f02_blocks_of_another_chunk_are_reported_and_another_replica_is_read() {
    for length in [100, 200_000, CHUNK] {
        let (cluster, content) = with_a_file(length).await;
        let client = cluster.builder().location("h1", "z1").connect_lazy().unwrap();
        cluster.node(1).fault(|faults| faults.serves_other_bytes = true);
        assert!(get(&client, "/f").await.unwrap() == content);
        assert_eq!((client.stats().corrupt_blocks, client.stats().failovers), (1, 1));
        let reports = cluster.node(1).reports.lock().unwrap().clone();
        assert_eq!(reports, [(chunk_of(&cluster, "/f"), 0)]);
    }
}

/// No single piece of a chunk that is read in several pieces can be checked.
#[tokio::test(start_paused = true)]
async fn f02_chunk_with_the_blocks_of_another_is_corrupt_at_its_last_piece() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let options = PutOptions::default().chunk_size(16 << 20);
    client.put(&path("/f"), PutSource::bytes(bytes(10 << 20)), options).await.unwrap();
    cluster
        .world
        .nodes
        .iter()
        .for_each(|node| node.fault(|faults| faults.serves_other_bytes = true));
    let error = get(&client, "/f").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Corrupt, "{error}");
    let file = tempfile::tempfile().unwrap();
    let error = client.get_to_file(&path("/f"), GetOptions::default(), file).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Corrupt, "{error}");
}
