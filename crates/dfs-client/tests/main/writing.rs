//! Puts when nodes refuse, are busy, or die.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dfs_client::{Client, Error, FileStat, PutOptions, PutSource};
use dfs_types::{ErrorCode, NodeId};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use crate::fake::{CHUNK, Clients as _, Cluster};
use crate::{bytes, get, path, put, until};

/// Puts `/f` in chunks of the fake's default size.
async fn try_put(client: &Client, content: &bytes::Bytes) -> Result<FileStat, Error> {
    let source = PutSource::bytes(content.clone());
    client.put(&path("/f"), source, PutOptions::default()).await
}

#[tokio::test(start_paused = true)]
async fn refusing_primary_is_avoided() {
    let cluster = Cluster::start(4).await;
    let client = cluster.client();
    cluster.node(1).fault(|faults| faults.refuses_uploads = true);
    let content = bytes(8 * CHUNK);
    put(&client, "/f", &content).await;
    assert_eq!(client.stats().replans, 2, "it is the primary of every fourth chunk");
    assert!(get(&client, "/f").await.unwrap() == content);
    assert!(cluster.world.stored.lock().unwrap().keys().all(|(node, _)| *node != NodeId(1)));
}

#[tokio::test(start_paused = true)]
async fn dead_primary_is_avoided() {
    let cluster = Cluster::start(4).await;
    let client = cluster.client();
    cluster.stop_node(2).await;
    cluster.node(2).fault(|faults| faults.refuses_uploads = true);
    let content = bytes(8 * CHUNK);
    put(&client, "/f", &content).await;
    assert_eq!(client.stats().replans, 2);
    assert!(get(&client, "/f").await.unwrap() == content);
}

#[tokio::test(start_paused = true)]
async fn busy_node_is_waited_for() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    cluster.world.nodes.iter().for_each(|node| node.fault(|faults| faults.busy = 5));
    let content = bytes(8 * CHUNK);
    put(&client, "/f", &content).await;
    assert_eq!(client.stats().replans, 0);
    assert!(get(&client, "/f").await.unwrap() == content);
}

#[tokio::test(start_paused = true)]
async fn wait_for_a_busy_node_is_bounded() {
    let cluster = Cluster::start(4).await;
    let client = cluster.client();
    cluster.node(1).fault(|faults| faults.busy = u32::MAX);
    let content = bytes(4 * CHUNK);
    put(&client, "/f", &content).await;
    assert_eq!(client.stats().replans, 1);
    assert!(get(&client, "/f").await.unwrap() == content);
}

#[tokio::test(start_paused = true)]
async fn cut_stream_resumes_at_its_offset() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let content = bytes(5 << 20);
    let options = || PutOptions::default().chunk_size(8 << 20);
    for node in &cluster.world.nodes {
        node.fault(|faults| faults.cuts_after = Some(3 << 20));
    }
    let source = PutSource::bytes(content.clone());
    client.put(&path("/f"), source, options()).await.unwrap();
    assert!(get(&client, "/f").await.unwrap() == content);
    let prepared = |node: &std::sync::Arc<crate::fake::Node>| node.prepared.load(Ordering::Relaxed);
    assert_eq!(cluster.world.nodes.iter().map(prepared).sum::<u64>(), 1, "of one session");
    assert_eq!(client.stats().replans, 0);
}

#[tokio::test(start_paused = true)]
async fn lost_session_restarts_elsewhere_under_a_new_id() {
    let cluster = Cluster::start(4).await;
    let client = cluster.client();
    let content = bytes(8 * CHUNK);
    cluster.node(1).fault(|faults| (faults.cuts_after, faults.forgets) = (Some(100_000), true));
    put(&client, "/f", &content).await;
    assert_eq!(client.stats().replans, 1);
    assert!(get(&client, "/f").await.unwrap() == content);
}

#[tokio::test(start_paused = true)]
async fn node_that_dies_within_a_chunk_is_replaced() {
    let cluster = Cluster::start(4).await;
    let client = cluster.client();
    cluster.node(1).fault(|faults| faults.hangs_uploads = true);
    let content = bytes(8 * CHUNK);
    let putting = tokio::spawn({
        let (client, content) = (client.clone(), content.clone());
        async move { try_put(&client, &content).await }
    });
    until("it has sessions", || cluster.node(1).prepared.load(Ordering::Relaxed) == 2).await;
    cluster.stop_node(1).await;
    putting.await.unwrap().unwrap();
    assert_eq!(client.stats().replans, 2);
    assert!(get(&client, "/f").await.unwrap() == content);
}

#[tokio::test(start_paused = true)]
async fn stalled_node_is_replaced() {
    let cluster = Cluster::start(4).await;
    let client = cluster.client();
    cluster.node(1).fault(|faults| faults.hangs_uploads = true);
    let content = bytes(4 * CHUNK);
    put(&client, "/f", &content).await;
    assert_eq!(client.stats().replans, 1);
    assert!(get(&client, "/f").await.unwrap() == content);
}

#[tokio::test(start_paused = true)]
async fn chunk_with_too_few_replicas_is_replanned() {
    let cluster = Cluster::start(5).await;
    let client = cluster.client();
    // A primary with both as replicas stores only its own.
    for number in [1, 2] {
        cluster.node(number).fault(|faults| faults.refuses_uploads = true);
    }
    let content = bytes(10 * CHUNK);
    put(&client, "/f", &content).await;
    assert!(client.stats().replans > 0);
    let state = cluster.state();
    let file = &state.inodes[&state.names[&path("/f").to_bytes()]];
    assert!(file.chunks.iter().all(|chunk| chunk.receipts.len() >= 2));
}

#[tokio::test(start_paused = true)]
async fn put_fails_with_too_few_nodes() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let started = Instant::now();
    let error = try_put(&client, &bytes(CHUNK)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotEnoughNodes, "{error}");
    assert!(error.is_retryable());
    assert!(started.elapsed() <= Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn put_fails_in_bounded_time_when_all_nodes_refuse() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    cluster.world.nodes.iter().for_each(|node| node.fault(|faults| faults.refuses_uploads = true));
    let started = Instant::now();
    let error = try_put(&client, &bytes(CHUNK)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
    assert!(started.elapsed() < Duration::from_mins(2), "{:?}", started.elapsed());
    until("the upload is aborted", || cluster.state().aborted.len() == 1).await;
    assert!(cluster.state().names.is_empty());
}

#[tokio::test(start_paused = true)]
async fn stream_may_take_hours() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let content = bytes(6 * CHUNK + 1);
    let (mut to, from) = tokio::io::duplex(CHUNK as usize);
    let options = PutOptions::default().chunk_size(CHUNK);
    let putting = tokio::spawn({
        let client = client.clone();
        async move { client.put(&path("/f"), PutSource::reader(from), options).await }
    });
    for part in content.chunks(2 * CHUNK as usize) {
        to.write_all(part).await.unwrap();
        tokio::time::sleep(Duration::from_hours(1)).await;
    }
    // Written chunks are staged all the time, and no old plan is used.
    let done = |call| cluster.state().done(call);
    let (staged, planned) = (done("RenewUpload"), done("UploadFile"));
    assert!(staged >= 3 * 5, "{staged}");
    assert!(planned >= 4, "{planned}");
    drop(to);
    putting.await.unwrap().unwrap();
    assert!(get(&client, "/f").await.unwrap() == content);
}

#[tokio::test(start_paused = true)]
async fn failing_source_is_not_stored() {
    struct Broken(u64);
    impl tokio::io::AsyncRead for Broken {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            if self.0 == 0 {
                return std::task::Poll::Ready(Err(std::io::Error::other("the pipe is broken")));
            }
            let length = self.0.min(buffer.remaining() as u64);
            self.0 -= length;
            buffer.put_slice(&bytes(length));
            std::task::Poll::Ready(Ok(()))
        }
    }
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let options = PutOptions::default().chunk_size(CHUNK);
    let source = PutSource::reader(Broken(3 * CHUNK + 1));
    let error = client.put(&path("/f"), source, options).await.unwrap_err();
    assert!(error.to_string().contains("the pipe is broken"), "{error}");
    until("the upload is aborted", || cluster.state().aborted.len() == 1).await;
    assert!(cluster.state().names.is_empty());
}

#[tokio::test(start_paused = true)]
async fn unreadable_files_are_reported() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let (target, folder) = (path("/f"), tempfile::tempdir().unwrap());
    for (local, code) in [
        (folder.path().join("missing"), ErrorCode::NotFound),
        (folder.path().to_owned(), ErrorCode::IsADirectory),
    ] {
        let name = local.display().to_string();
        let source = PutSource::file(local);
        let put = client.put(&target, source, PutOptions::default()).await;
        let error = put.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(&name), "{error}");
    }
    for chunk_size in [0, 100, 1 << 40] {
        let options = PutOptions::default().chunk_size(chunk_size);
        let error = client.put(&path("/f"), PutSource::bytes("x"), options).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
    }
}
