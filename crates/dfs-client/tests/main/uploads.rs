//! Uploads that are written incrementally, finished, aborted and dropped.

use std::time::Duration;

use dfs_client::{ErrorCode, PutOptions, PutSource};
use tokio::time::{Instant, timeout};

use crate::fake::{CHUNK, Clients as _, Cluster};
use crate::{bytes, get, path, put, until};

const BUDGET: usize = 16 << 20;

#[tokio::test(start_paused = true)]
async fn upload_written_in_parts_appears_whole() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    for (size, step) in [(0, 1), (1, 1), (CHUNK, CHUNK), (3 * CHUNK + 5, 100_000), (CHUNK, 1 << 20)]
    {
        let content = bytes(size);
        let options = PutOptions::default().chunk_size(CHUNK);
        let mut upload = client.create(&path("/f"), options).await.unwrap();
        for part in content.chunks(step as usize) {
            upload.write(part.to_vec()).await.unwrap();
        }
        let stat = upload.finish().await.unwrap();
        assert_eq!(stat.size, size);
        assert!(get(&client, "/f").await.unwrap() == content);
    }
    client.settled().await;
    assert!(cluster.state().aborted.is_empty());
}

#[tokio::test(start_paused = true)]
async fn dropped_upload_names_its_chunks_so_that_they_are_deleted() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, "/f", &bytes(5)).await;
    let options = || PutOptions::default().chunk_size(CHUNK);
    let mut upload = client.create(&path("/f"), options()).await.unwrap();
    upload.write(bytes(3 * CHUNK + 1)).await.unwrap();
    let before = Instant::now();
    drop(upload);
    client.settled().await;
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    assert_eq!(cluster.state().aborted.len(), 1);
    assert_eq!(cluster.state().chunks_aborted, 3);
    let mut upload = client.create(&path("/f"), options()).await.unwrap();
    upload.write(bytes(2 * CHUNK)).await.unwrap();
    upload.abort().await;
    assert_eq!(cluster.state().chunks_aborted, 5);
    assert_eq!(get(&client, "/f").await.unwrap(), bytes(5));
}

#[tokio::test(start_paused = true)]
async fn failed_put_names_its_chunks_so_that_they_are_deleted() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, "/f", &bytes(5)).await;
    let options =
        PutOptions::default().chunk_size(CHUNK).precondition(dfs_client::Precondition::Absent);
    let source = PutSource::bytes(bytes(4 * CHUNK));
    client.put(&path("/f"), source, options).await.unwrap_err();
    client.settled().await;
    assert_eq!(cluster.state().chunks_aborted, 4);
}

#[tokio::test(start_paused = true)]
async fn abort_is_bounded_when_no_coordinator_replies() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let mut upload = client.create(&path("/f"), PutOptions::default()).await.unwrap();
    upload.write("something").await.unwrap();
    cluster.stop_coordinator().await;
    let before = Instant::now();
    upload.abort().await;
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn write_waits_for_memory_and_a_dropped_one_breaks_the_upload() {
    let cluster = Cluster::start(3).await;
    let client = cluster.builder().memory_budget(BUDGET).connect_lazy().unwrap();
    cluster.world.nodes.iter().for_each(|node| node.fault(|faults| faults.hangs_uploads = true));
    let mut upload = client.create(&path("/f"), PutOptions::default()).await.unwrap();
    let writing = async {
        for _ in 0..100 {
            upload.write(bytes(1 << 20)).await.unwrap();
        }
    };
    assert!(timeout(Duration::from_secs(1), writing).await.is_err());
    assert!(upload.written() <= BUDGET as u64, "{}", upload.written());
    cluster.world.nodes.iter().for_each(|node| node.fault(|faults| faults.hangs_uploads = false));
    let refused = upload.write("more").await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidArgument);
    assert_eq!(upload.finish().await.unwrap_err().code(), ErrorCode::InvalidArgument);
    until("it is aborted", || cluster.state().aborted.len() == 1).await;
    assert!(cluster.state().names.is_empty());
}
