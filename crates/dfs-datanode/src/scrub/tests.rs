//! The scrub of a node with one disk, in simulated time.

use dfs_chunkstore::{
    ChunkStore as _, MemoryStore, Pool, ScrubProgress, ScrubStore as _, conformance,
};
use dfs_runtime::{JoinSecret, Metrics, Readiness};
use dfs_transport::{Channels, MemoryNetwork, Security};
use dfs_types::{ChunkId, NodeId, ReplicaCondition, ReplicaVerdict, SeededRandom, Timestamp};
use dfs_workers::Control;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::*;
use crate::Settings;
use crate::metrics::Counts;
use crate::node::Parts;

const DAY: Duration = Duration::from_hours(24);
const LENGTH: usize = 100_000;

/// Returns a store with this many chunks.
async fn store_of(chunks: u128) -> MemoryStore {
    let store = MemoryStore::new(NodeId(1), 1 << 30);
    for chunk in 1..=chunks {
        conformance::put(&store, ChunkId(chunk), LENGTH).await.unwrap();
    }
    store
}

fn node(store: &MemoryStore, scrub_every: Duration) -> Arc<Node> {
    let metrics = Metrics::new("test");
    let network = Arc::new(MemoryNetwork::default());
    let node = Node::new(Parts {
        settings: Settings {
            join_secret: JoinSecret::new("s"),
            scrub_every_ms: scrub_every.as_millis() as u64,
            ..Settings::default()
        },
        store: Arc::new(store.clone()),
        pool: Pool::inline(),
        random: Arc::new(SeededRandom::new(1)),
        channels: Channels::new(network, Security::default()),
        counts: Arc::new(Counts::new(&metrics)),
        readiness: Readiness::new("test"),
        address: String::new(),
    });
    node.clocks.record(1, Timestamp::from_millis(1_000));
    Arc::new(node)
}

/// Runs the scrub until it is aborted.
fn start(node: &Arc<Node>) -> JoinHandle<()> {
    let node = Arc::clone(node);
    tokio::spawn(async move {
        dfs_workers::run(node.workers.of(&SCRUB), |handle| Scrub::new(&node, handle)).await;
    })
}

fn done(node: &Node) -> u64 {
    node.workers.of(&SCRUB).done()
}

async fn progress(store: &MemoryStore) -> ScrubProgress {
    store.scrub_progress(store.usage()[0].disk).await.unwrap()
}

fn found(node: &Node) -> Vec<(u128, ReplicaCondition)> {
    let shown = |verdict: ReplicaVerdict| (verdict.replica.chunk.0, verdict.condition);
    node.verdicts.page().into_iter().map(shown).collect()
}

#[tokio::test(start_paused = true)]
async fn scrub_finds_a_flipped_bit_and_a_removed_replica() {
    let store = store_of(5).await;
    let node = node(&store, DAY);
    assert!(store.damage(ChunkId(2)) && store.lose(ChunkId(4)));
    start(&node);
    sleep(DAY).await;
    assert_eq!(found(&node), [(2, ReplicaCondition::Bad), (4, ReplicaCondition::Gone)]);
    assert!(store.replicas(ChunkId(2)).await.unwrap()[0].is_set_aside);
    let last = progress(&store).await.last.unwrap();
    assert_eq!((last.errors, last.bytes), (2, 5 * LENGTH as u64));
    assert_eq!(node.counts.scrub_errors.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn pass_is_spread_over_its_time() {
    let store = store_of(24).await;
    let node = node(&store, DAY);
    start(&node);
    let mut before = 0;
    for hour in 1..24 {
        sleep(DAY / 24).await;
        let now = done(&node);
        assert!(now - before <= 3, "{} replicas in hour {hour}", now - before);
        before = now;
    }
    assert!((24..=26).contains(&before), "{before} replicas in almost a day");
    assert!(progress(&store).await.last.is_some());
    sleep(DAY).await;
    assert!((50..=54).contains(&done(&node)), "the next pass takes as long");
}

#[tokio::test(start_paused = true)]
async fn replica_written_during_a_pass_is_read_in_it() {
    let store = store_of(3).await;
    let node = node(&store, DAY);
    start(&node);
    sleep(DAY / 2).await;
    conformance::put(&store, ChunkId(9), LENGTH).await.unwrap();
    sleep(DAY / 2).await;
    assert_eq!(progress(&store).await.last.unwrap().bytes, 4 * LENGTH as u64);
}

#[tokio::test(start_paused = true)]
async fn scrub_continues_after_a_restart_where_it_was() {
    let store = store_of(100).await;
    let first = node(&store, DAY);
    let running = start(&first);
    sleep(DAY / 2).await;
    running.abort();
    let (read, stored) = (done(&first), progress(&store).await);
    assert!((50..=60).contains(&read), "{read}");
    assert_eq!(stored.after, Some(ChunkId(u128::from(read))));

    let second = node(&store, DAY);
    start(&second);
    sleep(DAY / 2).await;
    assert!((105..=115).contains(&(read + done(&second))), "{}", done(&second));
    assert_eq!(progress(&store).await.last.unwrap().bytes, 100 * LENGTH as u64);
}

#[tokio::test(start_paused = true)]
async fn request_reads_everything_at_once_within_the_rate() {
    let store = store_of(100).await;
    let node = node(&store, Duration::ZERO);
    let handle = node.workers.of(&SCRUB);
    handle.set_control(Control { rate: Some(1 << 20), ..Control::default() });
    start(&node);
    sleep(DAY).await;
    assert_eq!(done(&node), 0, "it is off");
    handle.set_control(Control { request: 7, ..handle.control() });
    let began = Instant::now();
    while progress(&store).await.last.is_none() {
        sleep(Duration::from_secs(1)).await;
    }
    let took = began.elapsed().as_secs();
    let least = (100 * LENGTH as u64) >> 20;
    assert!((least..3 * least).contains(&took), "{took} s for {least} MiB at 1 MiB/s");
    handle.set_control(Control { request: 7, ..handle.control() });
    sleep(DAY).await;
    assert_eq!((done(&node), progress(&store).await.request), (100, 7), "followed once");
}

#[tokio::test(start_paused = true)]
async fn paused_scrub_reads_nothing_until_it_is_resumed() {
    let store = store_of(100).await;
    let node = node(&store, DAY);
    let handle = node.workers.of(&SCRUB);
    start(&node);
    sleep(DAY / 4).await;
    let paused_until = Some(Instant::now() + DAY);
    handle.set_control(Control { paused_until, ..Control::default() });
    let read = done(&node);
    sleep(DAY / 4).await;
    assert!(done(&node) <= read + 1, "{} after {read}", done(&node));
    handle.set_control(Control::default());
    sleep(DAY / 2).await;
    assert_eq!(progress(&store).await.last.unwrap().bytes, 100 * LENGTH as u64, "in time");
}
