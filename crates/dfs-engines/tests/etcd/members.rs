//! Members that are killed, stopped and restarted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dfs_engines::etcd::{EtcdEngine, Options};
use dfs_etcd::test_server::Cluster;
use dfs_metadata::engine::{Engine as _, EngineError};
use tokio::time::{Instant, timeout};

use super::{DEADLINE, fresh_prefix, increment, open, put, settings, until, value, write};

/// Far more than an election of etcd and a retry or two.
const FAILOVER_MAX: Duration = Duration::from_secs(10);

/// Awaits a call that must end.
async fn ended<T>(call: impl Future<Output = T>) -> T {
    timeout(DEADLINE, call).await.expect("it ends")
}

#[tokio::test]
async fn acknowledged_commits_survive_members() {
    let mut cluster = Cluster::start(3).await;
    let engine = open(cluster.addresses(), &fresh_prefix()).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let client = tokio::spawn({
        let (engine, is_over) = (engine.clone(), is_over.clone());
        async move {
            let (mut acknowledged, mut unknown) = (Vec::new(), 0);
            while !is_over.load(Ordering::Relaxed) {
                match increment(&engine).await {
                    Ok(count) => acknowledged.push(count),
                    Err(EngineError::OutcomeUnknown(_)) => unknown += 1,
                    Err(error) => assert!(matches!(error, EngineError::Unavailable(_)), "{error}"),
                }
            }
            (acknowledged, unknown)
        }
    });
    let grown = async |by: u64| {
        let count = async || {
            let found = value(&engine, "counter").await.ok().flatten();
            found
                .map_or(0, |text| String::from_utf8(text.to_vec()).unwrap().parse::<u64>().unwrap())
        };
        let before = count().await;
        until("the counter grows", async || count().await >= before + by).await;
    };
    for member in [0, 1, 2, 0, 1, 2] {
        grown(20).await;
        cluster.kill(member);
        grown(20).await;
        cluster.restart(member);
        cluster.ready(member).await;
    }
    is_over.store(true, Ordering::Relaxed);
    let (acknowledged, unknown) = client.await.unwrap();
    let last = *acknowledged.last().unwrap();
    assert!(acknowledged.is_sorted_by(|a, b| a < b), "a sum was returned twice: {acknowledged:?}");
    let most = acknowledged.len() as u64 + unknown;
    assert!((acknowledged.len() as u64..=most).contains(&last), "{last} of at most {most}");
    let count = increment(&engine).await.unwrap();
    assert!(count > last, "{count} after {last}: acknowledged additions were lost");
}

#[tokio::test]
async fn frozen_member_is_abandoned() {
    let cluster = Cluster::start(3).await;
    let engine = open(cluster.addresses(), &fresh_prefix()).await;
    let from = write(&engine, vec![put("a", "")]).await.unwrap();
    let mut changes = engine.watch(Bytes::new(), from).await.unwrap();
    for member in [0, 1, 2] {
        cluster.stop(member);
        let start = Instant::now();
        let (revision, change) = tokio::join!(
            async {
                let revision = write(&engine, vec![put("a", member.to_string())]).await.unwrap();
                println!("member {member} stopped: committed after {:?}", start.elapsed());
                revision
            },
            async {
                let change = ended(changes.next()).await.unwrap();
                println!("member {member} stopped: watched after {:?}", start.elapsed());
                change
            }
        );
        assert!(start.elapsed() < FAILOVER_MAX);
        assert_eq!(change.revision, revision);
        assert_eq!(value(&engine, "a").await.unwrap().unwrap(), member.to_string());
        cluster.cont(member);
    }
}

#[tokio::test]
async fn lost_quorum_is_reported_and_recovers() {
    let mut cluster = Cluster::start(3).await;
    let engine = open(cluster.addresses(), &fresh_prefix()).await;
    let before = increment(&engine).await.unwrap();
    let revision = write(&engine, vec![put("a", "")]).await.unwrap();
    let mut changes = engine.watch(Bytes::from_static(b"a"), revision).await.unwrap();
    cluster.kill(0);
    cluster.kill(1);

    // The first commit may never be settled; nothing after it is sent.
    let commit = |value: &'static str| write(&engine, vec![put("a", value)]);
    let first = ended(commit("first")).await.unwrap_err();
    assert!(matches!(first, EngineError::OutcomeUnknown(_)), "{first:?}");
    let is_unavailable = |what: &str, error: EngineError| {
        assert!(matches!(error, EngineError::Unavailable(_)), "{what}: {error:?}");
    };
    tokio::join!(
        async { is_unavailable("commit", ended(commit("second")).await.unwrap_err()) },
        async { is_unavailable("read", ended(engine.snapshot()).await.err().unwrap()) },
        async {
            let watch = ended(engine.watch(Bytes::new(), revision)).await;
            is_unavailable("watch", watch.err().unwrap());
        },
        async {
            let lease = ended(engine.lease("worker", "one", DEADLINE, None)).await;
            is_unavailable("lease", lease.unwrap_err());
        },
    );

    cluster.restart(0);
    cluster.ready(0).await;
    let third = write(&engine, vec![put("a", "third")]).await.unwrap();
    assert_eq!(value(&engine, "a").await.unwrap().unwrap(), "third");
    assert_eq!(increment(&engine).await.unwrap(), before + 1);
    // The first commit takes effect before this or never, the second never.
    loop {
        match timeout(DEADLINE, changes.next()).await.expect("it continues") {
            Ok(change) if change.revision == third => break,
            Ok(change) => assert_eq!(change.value.unwrap(), "first"),
            Err(error) => assert!(matches!(error, EngineError::Unavailable(_)), "{error}"),
        }
    }
}

#[tokio::test]
async fn unreachable_cluster_is_reported() {
    let mut cluster = Cluster::start(1).await;
    let engine = open(cluster.addresses(), &fresh_prefix()).await;
    write(&engine, vec![put("a", "1")]).await.unwrap();
    cluster.kill(0);
    // The first may have been sent before the outage was noticed.
    ended(write(&engine, vec![put("b", "1")])).await.unwrap_err();
    let settings = settings(cluster.addresses());
    let (commit, opened) = tokio::join!(
        ended(write(&engine, vec![put("a", "2")])),
        ended(EtcdEngine::open(&settings, "other", Options::default())),
    );
    for error in [commit.unwrap_err(), opened.unwrap_err()] {
        assert!(matches!(error, EngineError::Unavailable(_)), "{error:?}");
    }
    cluster.restart(0);
    cluster.ready(0).await;
    assert_eq!(value(&engine, "a").await.unwrap().unwrap(), "1", "a refused commit had no effect");
    write(&engine, vec![put("a", "3")]).await.unwrap();
    assert_eq!(value(&engine, "a").await.unwrap().unwrap(), "3");
}
