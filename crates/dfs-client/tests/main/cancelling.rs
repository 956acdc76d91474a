//! Dropped futures and readers.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dfs_client::{GetOptions, MakeDirectoryOptions, PutOptions, PutSource};
use tokio::time::timeout;

use crate::fake::{CHUNK, Clients as _, Cluster};
use crate::{bytes, get, path, put, until};

const BUDGET: usize = 16 << 20;

#[tokio::test(start_paused = true)]
async fn dropped_put_is_aborted() {
    let cluster = Cluster::start(3).await;
    let client = cluster.builder().memory_budget(BUDGET).connect_lazy().unwrap();
    let content = bytes(30 << 20);
    let name = path("/f");
    let options = || PutOptions::default().chunk_size(8 << 20);
    cluster.world.nodes.iter().for_each(|node| node.fault(|faults| faults.hangs_uploads = true));
    let source = PutSource::bytes(content.clone());
    let put = client.put(&name, source, options());
    assert!(timeout(Duration::from_secs(2), put).await.is_err());
    until("the upload is aborted", || cluster.state().aborted.len() == 1).await;
    assert!(cluster.state().names.is_empty());
    cluster.world.nodes.iter().for_each(|node| node.fault(|faults| faults.hangs_uploads = false));
    // Its share of the budget was returned.
    let source = PutSource::bytes(content.clone());
    let put = client.put(&name, source, options());
    timeout(Duration::from_secs(5), put).await.unwrap().unwrap();
    assert!(get(&client, "/f").await.unwrap() == content);
}

#[tokio::test(start_paused = true)]
async fn dropped_reader_ends_its_reads() {
    let cluster = Cluster::start(3).await;
    let client = cluster.builder().memory_budget(BUDGET).connect_lazy().unwrap();
    let content = bytes(40 * CHUNK);
    put(&client, "/f", &content).await;
    let hang = |hangs| {
        for node in &cluster.world.nodes {
            node.fault(|faults| faults.hangs_reads = hangs);
        }
    };
    let reading = || {
        let of = |node: &std::sync::Arc<crate::fake::Node>| node.reading.load(Ordering::Relaxed);
        cluster.world.nodes.iter().map(of).sum::<u64>()
    };
    hang(true);
    let mut reader = client.get(&path("/f"), GetOptions::default()).await.unwrap();
    assert!(timeout(Duration::from_millis(100), reader.next()).await.is_err());
    assert!(reading() > 0);
    drop(reader);
    until("its reads have ended", || reading() == 0).await;
    let (name, target) = (path("/f"), tempfile::tempfile().unwrap());
    let got = client.get_to_file(&name, GetOptions::default(), target);
    assert!(timeout(Duration::from_millis(100), got).await.is_err());
    until("its reads have ended", || reading() == 0).await;
    hang(false);
    assert!(get(&client, "/f").await.unwrap() == content);
}

#[tokio::test(start_paused = true)]
async fn dropped_next_loses_no_bytes() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let content = bytes(40 * CHUNK + 7);
    put(&client, "/f", &content).await;
    let mut reader = client.get(&path("/f"), GetOptions::default()).await.unwrap();
    let mut got = Vec::new();
    let mut dropped = 0;
    loop {
        for node in &cluster.world.nodes {
            node.fault(|faults| faults.hangs_reads = !faults.hangs_reads);
        }
        match timeout(Duration::from_millis(20), reader.next()).await {
            Ok(Ok(Some(bytes))) => got.extend_from_slice(&bytes),
            Ok(Ok(None)) => break,
            Ok(Err(error)) => panic!("{error}"),
            Err(_) => dropped += 1,
        }
    }
    assert!(dropped > 0);
    assert!(got == content);
}

#[tokio::test(start_paused = true)]
async fn dropped_call_leaves_its_slot_usable() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    // More often than there are slots.
    for number in 0..200 {
        cluster.state().loses_answer_of = Some("MakeDirectory");
        let name = path(&format!("/{number}"));
        let making = client.make_directory(&name, MakeDirectoryOptions::default());
        tokio::select! {
            biased;
            made = making => panic!("{made:?}"),
            () = until("it is done", || cluster.state().done("MakeDirectory") > number) => {}
        }
    }
    cluster.state().loses_answer_of = None;
    client.make_directory(&path("/d"), MakeDirectoryOptions::default()).await.unwrap();
}
