//! Commits whose replies or requests are lost.

use std::time::Duration;

use bytes::Bytes;
use dfs_engines::etcd::EtcdEngine;
use dfs_etcd::test_server::Cluster;
use dfs_metadata::engine::{Engine as _, EngineError, Watch, Write, encode_counter};
use dfs_types::Revision;
use tokio::time::timeout;

use super::proxy::{Fault, Proxy};
use super::{DEADLINE, fresh_prefix, open, put, until, value, write};

/// Time in which nothing must happen.
const QUIET: Duration = Duration::from_millis(300);
const ROUNDS: usize = 4;

/// A store with two handles: one behind a proxy, and one with a direct connection.
struct Bench {
    _cluster: Cluster,
    proxy: Proxy,
    engine: EtcdEngine,
    beside: EtcdEngine,
    changes: Box<dyn Watch>,
}

impl Bench {
    async fn new() -> Self {
        let cluster = Cluster::start(1).await;
        let proxy = Proxy::start(cluster.authority()).await;
        let prefix = fresh_prefix();
        let engine = open(vec![proxy.address()], &prefix).await;
        let beside = open(cluster.addresses(), &prefix).await;
        let from = write(&engine, vec![put("before", "")]).await.unwrap();
        let changes = beside.watch(Bytes::new(), from).await.unwrap();
        Self { _cluster: cluster, proxy, engine, beside, changes }
    }

    /// Starts a commit of a value without waiting for it.
    fn send(&self, value: &str) -> tokio::task::JoinHandle<Result<Revision, EngineError>> {
        self.send_write(put("a", value))
    }

    fn send_write(&self, one: Write) -> tokio::task::JoinHandle<Result<Revision, EngineError>> {
        let engine = self.engine.clone();
        tokio::spawn(async move { write(&engine, vec![one]).await })
    }

    /// Checks that the value was written once, by this commit.
    async fn assert_written_once(&mut self, value: impl AsRef<[u8]>, revision: Revision) {
        let change = timeout(DEADLINE, self.changes.next()).await.unwrap().unwrap();
        assert_eq!(*change.value.unwrap(), *value.as_ref());
        assert_eq!(change.revision, revision, "the caller got another revision");
        let again = timeout(QUIET, self.changes.next()).await;
        assert!(again.is_err(), "it was written twice: {again:?}");
    }

    async fn has(&self, expected: &str) {
        let seen = async || value(&self.beside, "a").await.unwrap();
        until("the commit takes effect", async || seen().await.is_some_and(|a| a == expected))
            .await;
    }
}

#[tokio::test]
async fn commit_with_a_lost_reply_is_found() {
    let mut bench = Bench::new().await;
    for round in 0..ROUNDS {
        let text = round.to_string();
        bench.proxy.set(Fault::AnswersLost);
        let commit = bench.send(&text);
        bench.has(&text).await;
        // Every other time, the connection does not fail visibly.
        if round % 2 == 0 {
            bench.proxy.set(Fault::Cut);
        }
        let revision = timeout(DEADLINE, commit).await.unwrap().unwrap().unwrap();
        bench.assert_written_once(&text, revision).await;
    }
}

#[tokio::test]
async fn lost_commit_is_sent_again() {
    let mut bench = Bench::new().await;
    for round in 0..ROUNDS {
        let text = round.to_string();
        bench.proxy.set(Fault::RequestsHeld);
        let commit = bench.send(&text);
        if round % 2 == 0 {
            bench.proxy.set(Fault::Cut);
        }
        let revision = timeout(DEADLINE, commit).await.unwrap().unwrap().unwrap();
        bench.assert_written_once(&text, revision).await;
    }
}

#[tokio::test]
async fn late_commit_is_prevented() {
    let mut bench = Bench::new().await;
    for round in 0..ROUNDS {
        let text = round.to_string();
        bench.proxy.set(Fault::RequestsHeld);
        let commit = bench.send(&text);
        let revision = timeout(DEADLINE, commit).await.unwrap().unwrap().unwrap();
        bench.assert_written_once(&text, revision).await;
        let other = write(&bench.beside, vec![put("a", "other")]).await.unwrap();
        // The first attempt arrives only now.
        bench.proxy.set(Fault::None);
        bench.assert_written_once("other", other).await;
    }
}

#[tokio::test]
async fn cancelled_caller_leaves_no_commit_half_done() {
    let mut bench = Bench::new().await;
    for round in 0..ROUNDS {
        let text = round.to_string();
        bench.proxy.set(Fault::AnswersLost);
        let (engine, writes) = (bench.engine.clone(), vec![put("a", &text)]);
        let left = timeout(QUIET, write(&engine, writes)).await;
        assert!(left.is_err(), "it was answered: {left:?}");
        bench.proxy.set(Fault::Cut);
        let revision = write(&bench.engine, vec![put("b", &text)]).await.unwrap();
        let first = timeout(DEADLINE, bench.changes.next()).await.unwrap().unwrap();
        assert_eq!((&*first.key, &*first.value.unwrap()), (&b"a"[..], text.as_bytes()));
        bench.assert_written_once(&text, revision).await;
    }
}

#[tokio::test]
async fn addition_with_a_lost_reply_counts_once() {
    let mut bench = Bench::new().await;
    let add = || Write::Add(Bytes::from_static(b"a"), 1);
    let mut sum = 0;
    for round in 0..2 * ROUNDS {
        let fault = [Fault::AnswersLost, Fault::RequestsHeld][round / 2 % 2];
        bench.proxy.set(fault);
        let adding = bench.send_write(add());
        sum += 1;
        // Every other time, the connection does not fail visibly.
        if round % 2 == 0 {
            if fault == Fault::AnswersLost {
                let seen = async || value(&bench.beside, "a").await.unwrap();
                let expected = Some(encode_counter(sum));
                until("the addition takes effect", async || seen().await == expected).await;
            }
            bench.proxy.set(Fault::Cut);
        }
        let revision = timeout(DEADLINE, adding).await.unwrap().unwrap().unwrap();
        bench.assert_written_once(encode_counter(sum), revision).await;
        // The held request arrives too late. The other handle changes the counter cached by the
        // first.
        bench.proxy.set(Fault::None);
        let revision = write(&bench.beside, vec![add()]).await.unwrap();
        sum += 1;
        bench.assert_written_once(encode_counter(sum), revision).await;
    }
}
