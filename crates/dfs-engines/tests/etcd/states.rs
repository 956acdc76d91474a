//! Stores that are full, compacted, or of a newer release.

use std::time::Duration;

use bytes::Bytes;
use dfs_engines::etcd::{EtcdEngine, Options};
use dfs_etcd::etcdserverpb::{PutRequest, RequestOp, TxnRequest, request_op::Request};
use dfs_etcd::test_server::{self, Cluster};
use dfs_etcd::{Client, RetryBudget};
use dfs_metadata::engine::{Engine as _, EngineError};
use tokio::time::timeout;

use super::{DEADLINE, fresh_prefix, open, put, settings, until, value, write};

#[tokio::test]
async fn full_store_refuses_writes_and_serves_reads() {
    let quota_bytes = Some(8 << 20);
    let cluster = Cluster::with(test_server::Options { quota_bytes, ..<_>::default() }).await;
    let engine = open(cluster.addresses(), &fresh_prefix()).await;
    write(&engine, vec![put("kept", "1")]).await.unwrap();
    let mut stored = 0;
    let error = loop {
        let large = (0..15).map(|i| put(&format!("d/{stored}/{i}"), vec![7; 60_000])).collect();
        match write(&engine, large).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "it never filled up");
    };
    assert!(matches!(error, EngineError::NoSpace(_)) && stored > 0, "{stored}: {error:?}");
    let again = write(&engine, vec![put("kept", "2")]).await.unwrap_err();
    assert!(matches!(again, EngineError::NoSpace(_)), "{again:?}");
    assert_eq!(value(&engine, "kept").await.unwrap().unwrap(), "1", "reads still work");
    // Also for a later handle.
    let lease = engine.lease("worker", "one", DEADLINE, None).await.unwrap_err();
    assert!(matches!(lease, EngineError::NoSpace(_)), "{lease:?}");
}

#[tokio::test]
async fn overwritten_values_are_compacted() {
    let cluster = Cluster::start(1).await;
    let prefix = fresh_prefix();
    let options = Options { compaction_interval: Duration::from_millis(100) };
    let settings = settings(cluster.addresses());
    let engine = EtcdEngine::open(&settings, &prefix, options.clone()).await.unwrap();
    let other = EtcdEngine::open(&settings, &prefix, options).await.unwrap();
    let first = write(&engine, vec![put("a", "1")]).await.unwrap();
    let snapshot = engine.snapshot().await.unwrap();
    write(&other, vec![put("a", "2")]).await.unwrap();
    let is_gone = async || match snapshot.get(b"a").await {
        Ok(found) => {
            assert_eq!(found.unwrap().version, first, "readable until compacted");
            false
        }
        Err(EngineError::Compacted(revision)) => {
            assert_eq!(revision, snapshot.revision());
            true
        }
        Err(error) => panic!("{error}"),
    };
    until("the old value is compacted", is_gone).await;
    assert!(matches!(snapshot.range(b"", b"", 10).await, Err(EngineError::Compacted(_))));
    assert_eq!(value(&engine, "a").await.unwrap().unwrap(), "2");

    let late = match engine.watch(Bytes::new(), first).await {
        Ok(mut watch) => timeout(DEADLINE, watch.next()).await.unwrap().unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(late, EngineError::Compacted(_)), "{late:?}");
}

#[tokio::test]
async fn store_of_a_newer_release_is_left_alone() {
    let cluster = Cluster::start(1).await;
    let prefix = fresh_prefix();
    let settings = settings(cluster.addresses());
    let client = Client::new(&settings, 0).unwrap();
    let set = async |format: &'static str| {
        let (key, value) = (Bytes::from(format!("{prefix}/e/format")), Bytes::from(format));
        let put = Request::RequestPut(PutRequest { key, value, lease: 0 });
        let success = vec![RequestOp { request: Some(put) }];
        let request = TxnRequest { success, ..<_>::default() };
        client.txn(request, &mut RetryBudget::new(DEADLINE)).await.unwrap();
    };
    let opened = async || EtcdEngine::open(&settings, &prefix, Options::default()).await;
    set("2").await;
    let newer = opened().await.unwrap_err();
    assert!(matches!(newer, EngineError::NewerFormat { found: 2, supported: 1 }), "{newer:?}");
    set("what").await;
    assert!(matches!(opened().await, Err(EngineError::Damaged(_))));
    set("1").await;
    opened().await.unwrap();
}
