//! Several coordinators, some of which are down, hang, or know nothing yet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dfs_client::{Client, Components, MakeDirectoryOptions};
use dfs_types::{ErrorCode, SeededRandom};
use tokio::time::Instant;

use crate::fake::{Clients as _, Cluster};
use crate::{bytes, get, path, put, until};

const A: &str = "127.0.0.1:7070";
const B: &str = "127.0.0.1:7170";
const C: &str = "127.0.0.1:7270";
/// The documented bound for users.
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// A cluster with the coordinators A, B and C.
async fn cluster() -> Cluster {
    let cluster = Cluster::start(3).await;
    cluster.start_coordinator_at(B).await;
    cluster.start_coordinator_at(C).await;
    cluster
}

fn client(cluster: &Cluster, seed: u64, names: &[&str]) -> Client {
    let random = Arc::new(SeededRandom::new(seed));
    let components = Components { random, ..cluster.components() };
    let names = names.iter().map(ToString::to_string);
    Client::builder().coordinators(names).components(components).connect_lazy().unwrap()
}

async fn mkdir(client: &Client, name: &str) -> Duration {
    let started = Instant::now();
    client.make_directory(&path(name), MakeDirectoryOptions::default()).await.unwrap();
    started.elapsed()
}

/// Returns the coordinators that received calls since the last time.
fn asked(cluster: &Cluster) -> Vec<String> {
    std::mem::take(&mut cluster.state().received).into_keys().collect()
}

/// Makes a call, and returns the coordinator that received it.
async fn first_asked(cluster: &Cluster, client: &Client) -> String {
    mkdir(client, "/before").await;
    asked(cluster).remove(0)
}

fn hang(cluster: &Cluster, which: &[&str]) {
    cluster.state().hanging = which.iter().map(ToString::to_string).collect();
}

#[tokio::test(start_paused = true)]
async fn clients_spread_over_coordinators_and_stay() {
    let cluster = cluster().await;
    let mut used = BTreeSet::new();
    for seed in 0..20 {
        let client = client(&cluster, seed, &[A, B, C]);
        for number in 0..3 {
            mkdir(&client, &format!("/{seed}-{number}")).await;
            // A long idle time moves nothing.
            tokio::time::advance(Duration::from_mins(5)).await;
        }
        let asked = asked(&cluster);
        assert_eq!(asked.len(), 1, "{asked:?}");
        used.extend(asked);
        assert_eq!(client.stats().retries, 0);
    }
    assert_eq!(used.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn coordinator_that_refuses_connections_costs_a_moment_and_only_once() {
    for seed in 0..10 {
        let cluster = cluster().await;
        let client = client(&cluster, seed, &[A, B, C]);
        let first = first_asked(&cluster, &client).await;
        cluster.stop_coordinator_at(&first).await;
        let took = mkdir(&client, "/after").await;
        assert!(took < Duration::from_millis(100), "{took:?}");
        for number in 0..5 {
            mkdir(&client, &format!("/{number}")).await;
        }
        assert_eq!(client.stats().retries, 1);
        let second = asked(&cluster);
        assert_eq!(second.len(), 1, "{second:?}");
        // It comes back: nobody moves.
        cluster.start_coordinator_at(&first).await;
        tokio::time::advance(Duration::from_mins(5)).await;
        mkdir(&client, "/later").await;
        assert_eq!(asked(&cluster), second);
    }
}

#[tokio::test(start_paused = true)]
async fn coordinator_without_room_for_connections_is_left_for_another() {
    for seed in 0..10 {
        let cluster = cluster().await;
        let client = client(&cluster, seed, &[A, B, C]);
        let first = first_asked(&cluster, &client).await;
        cluster.stop_coordinator_at(&first).await;
        cluster.start_full_coordinator_at(&first).await;
        let took = mkdir(&client, "/after").await;
        assert!(took < PAUSE_MAX, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_coordinator_costs_less_than_three_seconds_and_only_once() {
    for seed in 0..10 {
        let cluster = cluster().await;
        let client = client(&cluster, seed, &[A, B, C]);
        let first = first_asked(&cluster, &client).await;
        hang(&cluster, &[&first]);
        let took = mkdir(&client, "/after").await;
        assert!(took < PAUSE_MAX, "{took:?}");
        let quick = mkdir(&client, "/next").await;
        assert!(quick < Duration::from_millis(100), "{quick:?}");
        assert_eq!(client.stats().retries, 1);
        // A file takes many calls.
        put(&client, "/file", &bytes(1 << 20)).await;
        assert!(get(&client, "/file").await.unwrap() == bytes(1 << 20));
        assert_eq!(client.stats().retries, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn two_hanging_coordinators_of_three_cost_less_than_three_seconds() {
    let pairs = [[A, B], [B, C], [A, C]];
    for (seed, pair) in pairs.iter().cycle().take(12).enumerate() {
        let cluster = cluster().await;
        hang(&cluster, pair);
        let client = client(&cluster, seed as u64, &[A, B, C]);
        let took = mkdir(&client, "/d").await;
        assert!(took < PAUSE_MAX, "{took:?}");
        assert_eq!(cluster.state().done("MakeDirectory"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn change_whose_reply_was_lost_is_done_once() {
    for seed in 0..10 {
        let cluster = cluster().await;
        let client = client(&cluster, seed, &[A, B, C]);
        cluster.state().loses_answer_of = Some("MakeDirectory");
        let took = mkdir(&client, "/d").await;
        assert!(took < PAUSE_MAX, "{took:?}");
        assert_eq!(client.stats().retries, 1);
        assert_eq!(cluster.state().done("MakeDirectory"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn coordinator_that_just_started_redirects_the_client_at_once() {
    for seed in 0..10 {
        let cluster = cluster().await;
        cluster.state().gathering = [A, C].map(ToOwned::to_owned).into();
        let client = client(&cluster, seed, &[A, B, C]);
        let took = mkdir(&client, "/d").await;
        assert!(took < Duration::from_millis(100), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_hang_tries_get_longer_and_the_first_to_recover_replies() {
    let cluster = cluster().await;
    hang(&cluster, &[A, B, C]);
    let client = client(&cluster, 1, &[A, B, C]);
    let making = tokio::spawn({
        let client = client.clone();
        async move { mkdir(&client, "/d").await }
    });
    until("it was tried", || client.stats().retries >= 7).await;
    hang(&cluster, &[A, C]);
    let took = making.await.unwrap();
    // Three tries each of 1, 2 and 4 s, plus pauses.
    assert!((Duration::from_secs(13)..Duration::from_secs(30)).contains(&took), "{took:?}");
    assert_eq!(cluster.state().done("MakeDirectory"), 1);
}

#[tokio::test(start_paused = true)]
async fn name_stands_for_all_its_addresses() {
    let mut used = BTreeSet::new();
    for seed in 0..20 {
        let cluster = cluster().await;
        cluster.world.network.name("dfs:7070", [A, B, C]);
        let client = client(&cluster, seed, &["http://dfs:7070"]);
        let first = first_asked(&cluster, &client).await;
        hang(&cluster, &[&first]);
        let took = mkdir(&client, "/after").await;
        assert!(took < PAUSE_MAX, "{took:?}");
        assert_eq!(client.stats().retries, 1);
        used.insert(first);
    }
    assert_eq!(used.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn name_is_resolved_again_after_a_failure_and_periodically() {
    let cluster = cluster().await;
    let network = &cluster.world.network;
    network.name("dfs:7070", [A]);
    let client = client(&cluster, 1, &["dfs:7070"]);
    mkdir(&client, "/a").await;
    assert_eq!(network.looked_up(), 1);
    // It gets another address, like a restarted pod.
    network.name("dfs:7070", [B]);
    cluster.stop_coordinator_at(A).await;
    let took = mkdir(&client, "/b").await;
    assert!(took < PAUSE_MAX, "{took:?}");
    // It moves while the old address still replies, so that no failure reveals it.
    network.name("dfs:7070", [C]);
    asked(&cluster);
    for number in 0..40 {
        mkdir(&client, &format!("/{number}")).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    mkdir(&client, "/c").await;
    assert_eq!(asked(&cluster), [B, C]);
    mkdir(&client, "/d").await;
    assert_eq!(asked(&cluster), [C]);
    // Known addresses survive a failure of DNS.
    network.name("dfs:7070", []);
    tokio::time::sleep(Duration::from_mins(2)).await;
    for number in 0..3 {
        mkdir(&client, &format!("/e{number}")).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(network.looked_up() < 20, "{}", network.looked_up());
}

#[tokio::test(start_paused = true)]
async fn unknown_name_is_reported() {
    let cluster = cluster().await;
    cluster.world.network.name("nowhere:7070", []);
    let client = client(&cluster, 1, &["nowhere:7070"]);
    let error = client.stat(&path("/d"), dfs_client::Follow::Yes).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
    assert!(error.to_string().contains("nowhere:7070 lookup failed"), "{error}");
}
