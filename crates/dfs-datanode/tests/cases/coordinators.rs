//! Several coordinators, known by names whose addresses change.

use std::time::Duration;

use dfs_datanode::Settings;
use dfs_types::NodeId;
use tokio::time::sleep;

use crate::cluster::{Cluster, eventually, settings};

const A: &str = "a:7070";
const B: &str = "b:7070";
const C: &str = "c:7070";
const NAME: &str = "coordinators:7070";

fn of_name() -> Settings {
    Settings { coordinators: vec![format!("http://{NAME}")], ..settings() }
}

async fn is_heard_by(cluster: &Cluster, address: &str) {
    let before = cluster.coordinator.heard(address);
    eventually(address, || async { cluster.coordinator.heard(address) >= before + 3 }).await;
}

#[tokio::test(start_paused = true)]
async fn each_address_of_a_name_gets_heartbeats() {
    let cluster = Cluster::start().await;
    let (network, coordinator) = (&cluster.network, &cluster.coordinator);
    let first = coordinator.listen(network, 1, A).await;
    coordinator.listen(network, 2, B).await;
    network.name(NAME, [A, B]);
    let node = cluster.node(1, of_name()).await;
    is_heard_by(&cluster, A).await;
    is_heard_by(&cluster, B).await;

    // Another one is added and gets heartbeats within seconds. The dead one is dropped.
    coordinator.listen(network, 3, C).await;
    first.abort();
    drop(first.await);
    network.name(NAME, [B, C]);
    sleep(Duration::from_secs(10)).await;
    is_heard_by(&cluster, C).await;
    coordinator.listen(network, 1, A).await;
    let before = coordinator.heard(A);
    sleep(Duration::from_mins(5)).await;
    assert_eq!(coordinator.heard(A), before, "no more heartbeats");
    is_heard_by(&cluster, B).await;

    // One that is removed from the name but replies is kept; all are kept while the lookup fails.
    network.name(NAME, [C]);
    sleep(Duration::from_mins(5)).await;
    is_heard_by(&cluster, B).await;
    network.name(NAME, []);
    sleep(Duration::from_mins(5)).await;
    is_heard_by(&cluster, B).await;
    is_heard_by(&cluster, C).await;
    assert_eq!(coordinator.registration(NodeId(1)), 1, "one registration is valid for all");
    assert_eq!(node.handle.readiness().reason(), None);
}

#[tokio::test(start_paused = true)]
async fn coordinator_under_two_names_has_one_stream_and_one_registration() {
    let cluster = Cluster::start().await;
    let coordinator = &cluster.coordinator;
    let named = coordinator.listen(&cluster.network, 1, A).await;
    coordinator.listen(&cluster.network, 1, B).await;
    let coordinators = vec![A.to_owned(), B.to_owned()];
    let node = cluster.node(1, Settings { coordinators, ..settings() }).await;
    eventually("both were tried", || async { coordinator.streams() >= 2 }).await;
    sleep(Duration::from_mins(10)).await;
    let streams = coordinator.streams();
    assert!(streams <= 25, "{streams} streams in ten minutes");
    assert_eq!(coordinator.registration(NodeId(1)), 1);
    assert_eq!(node.handle.readiness().reason(), None);

    // Whichever ends, the other takes over before the node is missed.
    let heard = || coordinator.heard(A) + coordinator.heard(B);
    named.abort();
    drop(named.await);
    sleep(Duration::from_secs(10)).await;
    let before = heard();
    sleep(Duration::from_secs(10)).await;
    assert!(heard() >= before + 50, "{} in ten seconds", heard() - before);
}
