//! Datanodes that the client cannot connect to.

use std::time::Duration;

use dfs_client::MakeDirectoryOptions;
use dfs_types::ErrorCode;
use tokio::time::Instant;

use crate::fake::{Blocked, CHUNK, COORDINATOR, Clients as _, Cluster, Outside, Relaying};
use crate::{bytes, get, path, put, until};

const LONG: u64 = 20 * CHUNK;
const OTHER: &str = "127.0.0.1:7170";

async fn cluster() -> Cluster {
    let cluster = Cluster::start(3).await;
    cluster.state().relaying = Relaying::On;
    cluster
}

fn relayed(cluster: &Cluster, coordinator: &str) -> u64 {
    cluster.state().relayed.get(coordinator).copied().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn files_are_relayed_by_the_coordinator() {
    for blocked in [Blocked::Refused, Blocked::Silent] {
        let cluster = cluster().await;
        let network = Outside::new(&cluster.world.network, blocked);
        let client = cluster.outside(&network).connect_lazy().unwrap();
        let content = bytes(LONG);
        let started = Instant::now();
        put(&client, "/f", &content).await;
        assert!(get(&client, "/f").await.unwrap() == content);
        let stats = client.stats();
        assert_eq!((stats.retries, stats.replans, stats.corrupt_blocks), (0, 0, 0), "{stats:?}");
        // A prepare and a stream for each chunk, and a read.
        assert!(stats.relayed >= 3 * LONG / CHUNK, "{stats:?}");
        // The route was looked for once, by all that started together, and later by background
        // probes.
        assert!(started.elapsed() < Duration::from_secs(7), "{:?}", started.elapsed());
        for node in &cluster.world.nodes {
            let dialled = network.dialled(&node.address);
            assert!((1..=6).contains(&dialled), "{blocked:?}: {dialled}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn node_that_is_reachable_again_is_called_directly() {
    let cluster = cluster().await;
    let network = Outside::new(&cluster.world.network, Blocked::Refused);
    let client = cluster.outside(&network).connect_lazy().unwrap();
    let content = bytes(LONG);
    put(&client, "/f", &content).await;
    network.block(Blocked::No);
    tokio::time::advance(Duration::from_secs(61)).await;
    // No call waits for the probes started by these.
    assert!(get(&client, "/f").await.unwrap() == content);
    let before = client.stats().relayed;
    assert!(get(&client, "/f").await.unwrap() == content);
    assert_eq!(client.stats().relayed, before);
}

#[tokio::test(start_paused = true)]
async fn disabled_relay_is_reported_with_advice() {
    let cluster = Cluster::start(3).await;
    let content = bytes(5);
    put(&cluster.client(), "/f", &content).await;
    let network = Outside::new(&cluster.world.network, Blocked::Refused);
    let builder = cluster.outside(&network).deadline(Duration::from_secs(10));
    let client = builder.connect_lazy().unwrap();
    let error = get(&client, "/f").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    let text = error.to_string();
    let node = &cluster.node(1).address;
    let direct = format!("cannot connect to {node}: failed to lookup address information");
    let through = format!("through coordinator {COORDINATOR}: turned off, try another route");
    assert!(text.contains(&direct) && text.contains(&through), "{text}");
}

#[tokio::test(start_paused = true)]
async fn frame_corrupted_by_the_relay_is_detected_and_read_again() {
    let cluster = cluster().await;
    let network = Outside::new(&cluster.world.network, Blocked::Refused);
    let client = cluster.outside(&network).connect_lazy().unwrap();
    let content = bytes(CHUNK);
    put(&client, "/f", &content).await;
    cluster.state().relaying = Relaying::FlipsABit;
    assert!(get(&client, "/f").await.unwrap() == content);
    assert_eq!((client.stats().corrupt_blocks, client.stats().failovers), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn busy_relay_is_waited_for() {
    let cluster = cluster().await;
    let network = Outside::new(&cluster.world.network, Blocked::Refused);
    let client = cluster.outside(&network).connect_lazy().unwrap();
    let content = bytes(3 * CHUNK);
    cluster.state().busy_relays = 9;
    put(&client, "/f", &content).await;
    assert_eq!(client.stats().replans, 0, "the nodes are healthy");
    cluster.state().busy_relays = 9;
    assert!(get(&client, "/f").await.unwrap() == content);
}

#[tokio::test(start_paused = true)]
async fn failed_relay_is_replaced_by_another() {
    let cluster = cluster().await;
    cluster.start_coordinator_at(OTHER).await;
    let network = Outside::new(&cluster.world.network, Blocked::Refused);
    let client = cluster.outside(&network).coordinator(OTHER).connect_lazy().unwrap();
    let content = bytes(LONG);
    put(&client, "/f", &content).await;
    let (gone, left) = if relayed(&cluster, COORDINATOR) > 0 {
        (COORDINATOR, OTHER)
    } else {
        (OTHER, COORDINATOR)
    };
    assert_eq!(relayed(&cluster, left), 0, "it stays with one");
    cluster.stop_coordinator_at(gone).await;
    assert!(get(&client, "/f").await.unwrap() == content);
    assert!(relayed(&cluster, left) > 0);
    client.make_directory(&path("/d"), MakeDirectoryOptions::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn only_unreachable_nodes_are_relayed() {
    let cluster = cluster().await;
    let client = cluster.builder().location("h1", "z1").connect_lazy().unwrap();
    let content = bytes(LONG);
    put(&client, "/f", &content).await;
    cluster.node(1).fault(|faults| faults.refuses_reads = true);
    assert!(get(&client, "/f").await.unwrap() == content);
    cluster.world.network.cut();
    assert!(get(&client, "/f").await.unwrap() == content);
    assert_eq!(client.stats().relayed, 0);
}

#[tokio::test(start_paused = true)]
async fn dead_node_costs_little_more() {
    let cluster = cluster().await;
    let content = bytes(LONG);
    put(&cluster.client(), "/f", &content).await;
    let network = Outside::new(&cluster.world.network, Blocked::No);
    let client = cluster.outside(&network).location("h1", "z1").connect_lazy().unwrap();
    cluster.stop_node(1).await;
    let started = Instant::now();
    assert!(get(&client, "/f").await.unwrap() == content);
    assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
    // The same from outside.
    let network = Outside::new(&cluster.world.network, Blocked::Silent);
    let client = cluster.outside(&network).location("h1", "z1").connect_lazy().unwrap();
    let started = Instant::now();
    assert!(get(&client, "/f").await.unwrap() == content);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn broken_stream_is_resumed_through_the_relay() {
    let cluster = cluster().await;
    let network = Outside::new(&cluster.world.network, Blocked::Refused);
    let client = cluster.outside(&network).connect_lazy().unwrap();
    let content = bytes(CHUNK);
    for number in 1..=3 {
        cluster.node(number).fault(|faults| faults.cuts_after = Some(CHUNK / 2));
    }
    put(&client, "/f", &content).await;
    assert_eq!(client.stats().replans, 0);
    until("the sessions have ended", || cluster.state().done("ConfirmUpload") == 1).await;
    assert!(get(&client, "/f").await.unwrap() == content);
}
