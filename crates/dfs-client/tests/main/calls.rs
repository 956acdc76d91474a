//! Calls to a coordinator that is down, busy, or loses replies.

use std::sync::Arc;
use std::time::Duration;

use dfs_client::{Client, Components, Follow, MakeDirectoryOptions, PutOptions, PutSource};
use dfs_types::{ErrorCode, Precondition, SeededRandom};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use crate::fake::{CHUNK, Clients as _, Cluster};
use crate::{bytes, get, path, put, until};

async fn mkdir(client: &Client, name: &str) -> Result<dfs_client::FileStat, dfs_client::Error> {
    client.make_directory(&path(name), MakeDirectoryOptions::default()).await
}

#[tokio::test(start_paused = true)]
async fn coordinator_restart_is_survived() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let content = bytes(40 * CHUNK);
    let (mut to, from) = tokio::io::duplex(1 << 10);
    let options = PutOptions::default().chunk_size(CHUNK);
    let putting = tokio::spawn({
        let client = client.clone();
        async move { client.put(&path("/f"), PutSource::reader(from), options).await }
    });
    let (before, after) = content.split_at(20 * CHUNK as usize);
    to.write_all(before).await.unwrap();
    cluster.stop_coordinator().await;
    let writing = async {
        to.write_all(after).await.unwrap();
        drop(to);
    };
    let restarting = async {
        until("the client retries", || client.stats().retries >= 5).await;
        cluster.start_coordinator().await;
    };
    futures_util::join!(writing, restarting);
    putting.await.unwrap().unwrap();
    cluster.stop_coordinator().await;
    let getting = tokio::spawn({
        let client = client.clone();
        async move { get(&client, "/f").await }
    });
    until("the client retries", || client.stats().retries >= 10).await;
    cluster.start_coordinator().await;
    assert!(getting.await.unwrap().unwrap() == content);
}

#[tokio::test(start_paused = true)]
async fn unreachable_coordinator_fails_calls_at_the_deadline() {
    let cluster = Cluster::start(1).await;
    let deadline = Duration::from_secs(20);
    let client = cluster.builder().deadline(deadline).connect_lazy().unwrap();
    cluster.stop_coordinator().await;
    let started = Instant::now();
    let error = mkdir(&client, "/d").await.unwrap_err();
    // Nothing was ever sent, so nothing can have happened.
    assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
    assert!(error.is_retryable() && !error.is_outcome_unknown());
    assert!(error.to_string().contains("127.0.0.1:7070"), "{error}");
    let took = started.elapsed();
    assert!((Duration::from_secs(19)..=deadline).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn one_round_asks_each_coordinator_once() {
    let cluster = Cluster::start(3).await;
    let client = cluster.builder().coordinator("elsewhere:7070").connect_lazy().unwrap();
    cluster.stop_coordinator().await;
    let started = Instant::now();
    let error = client.admin().one_round().status().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(!error.is_uninitialised());
    assert_eq!(client.stats().retries, 1, "one other coordinator was asked");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn busy_coordinator_is_retried() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    cluster.state().busy = 4;
    mkdir(&client, "/d").await.unwrap();
    assert_eq!(client.stats().retries, 4);
}

#[tokio::test(start_paused = true)]
async fn repeated_call_gets_the_first_reply() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let first = mkdir(&client, "/a").await.unwrap();
    cluster.state().loses_answer_of = Some("MakeDirectory");
    let second = mkdir(&client, "/b").await.unwrap();
    assert_ne!(first.inode, second.inode);
    assert_eq!(cluster.state().done("MakeDirectory"), 2);
    assert_eq!(client.stats().retries, 1);
    for (name, size) in [("/empty", 0), ("/f", CHUNK + 1)] {
        cluster.state().loses_answer_of = Some("ConfirmUpload");
        let before = cluster.state().done("ConfirmUpload");
        let options = PutOptions::default().precondition(Precondition::Absent);
        let source = PutSource::bytes(bytes(size));
        let stat = client.put(&path(name), source, options).await.unwrap();
        assert_eq!(stat.size, size);
        assert_eq!(cluster.state().done("ConfirmUpload"), before + 1);
        assert_eq!(get(&client, name).await.unwrap(), bytes(size));
    }
    assert_eq!(client.stats().retries, 3);
}

#[tokio::test(start_paused = true)]
async fn slots_are_reused_but_never_concurrently() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let calls = (0..300).map(|number| {
        let client = client.clone();
        tokio::spawn(async move { mkdir(&client, &format!("/{number}")).await })
    });
    for made in futures_util::future::join_all(calls).await {
        made.unwrap().unwrap();
    }
    assert_eq!(cluster.state().done("MakeDirectory"), 300);
}

#[tokio::test(start_paused = true)]
async fn lost_reply_leaves_the_outcome_unknown() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    cluster.state().loses_answer_of = Some("MakeDirectory");
    let making = tokio::spawn({
        let client = client.clone();
        async move { mkdir(&client, "/d").await }
    });
    until("it was done", || cluster.state().done("MakeDirectory") == 1).await;
    cluster.stop_coordinator().await;
    let error = making.await.unwrap().unwrap_err();
    assert_eq!(error.code(), ErrorCode::OutcomeUnknown, "{error}");
    assert!(error.is_outcome_unknown() && !error.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn refused_call_is_not_retried() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let error = client.stat(&path("/missing"), Follow::Yes).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotFound);
    assert_eq!(error.to_string(), "/missing: no such file");
    assert_eq!(get(&client, "/missing").await.unwrap_err().code(), ErrorCode::NotFound);
    assert_eq!(client.stats().retries, 0);
}

#[tokio::test(start_paused = true)]
async fn request_id_is_propagated_to_all_servers() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let ids = || {
        let mut noted = cluster.world.request_ids.lock().unwrap();
        let (calls, mut ids): (Vec<_>, Vec<_>) = noted.drain(..).unzip();
        ids.dedup();
        (calls, ids)
    };
    put(&client, "/f", &bytes(3 * CHUNK)).await;
    let (calls, of_put) = ids();
    for call in ["UploadFile", "PrepareChunkUpload", "ChunkDataStream", "ConfirmUpload"] {
        assert!(calls.contains(&call), "{calls:?}");
    }
    assert_eq!(of_put.len(), 1, "{of_put:?}");
    cluster.node(1).fault(|faults| faults.flips_bit_of = Some(0));
    let random = Arc::new(SeededRandom::new(8));
    let components = Components { random, ..cluster.components() };
    let near = cluster.builder().components(components).location("h1", "z1");
    get(&near.connect_lazy().unwrap(), "/f").await.unwrap();
    let (calls, of_get) = ids();
    for call in ["OpenFile", "RetrieveChunk", "ReportCorrupt"] {
        assert!(calls.contains(&call), "{calls:?}");
    }
    assert_eq!(of_get.len(), 1, "{of_get:?}");
    assert_ne!(of_get, of_put);
    let error = client.stat(&path("/missing"), Follow::Yes).await.unwrap_err();
    assert_eq!(ids().1, [error.request_id().unwrap().to_string()]);
}
