//! Changed replication reaches the files that exist.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use dfs_metadata::conformance::ForwardingEngine;
use dfs_metadata::engine::{Commit, Engine, EngineError, Outcome, Write};
use dfs_metadata::memory::MemoryEngine;
use dfs_proto::v1;
use dfs_proto::v1::set_worker_request::Change;
use dfs_types::{ChunkId, ErrorCode};
use tonic::{Response, Status};

use super::administering::refusal;
use super::workers::rate;
use crate::cluster::{Cluster, eventually, http_get, settings};

impl Cluster {
    /// Sets the replication of a path, or the default.
    pub(super) async fn replicate(
        &self,
        path: Option<&str>,
        replication_factor: u32,
    ) -> Result<v1::SetReplicationResponse, Status> {
        let request = v1::SetReplicationRequest {
            replication_factor,
            target: path.map(|path| v1::Target::of_path(path.to_owned())),
            cluster_id: self.status().await.cluster_id,
            ..v1::SetReplicationRequest::default()
        };
        self.admin().await.set_replication(request).await.map(Response::into_inner)
    }

    pub(super) async fn make_directory(&self, path: &str) {
        let request = v1::MakeDirectoryRequest {
            target: Some(v1::Target::of_path(path.to_owned())),
            attributes: Some(v1::Attributes { mode: 0o755, ..v1::Attributes::default() }),
            ..v1::MakeDirectoryRequest::default()
        };
        self.client().await.make_directory(request).await.unwrap();
    }

    /// Makes a node fuller than the others.
    async fn fill(&self, node: u128) {
        self.node(node).set_free(1 << 39);
        self.node(node).beat().await;
    }

    /// Returns the nodes that hold a replica of a chunk.
    fn holders_of(&self, chunk: ChunkId) -> BTreeSet<u128> {
        let nodes = self.nodes.iter().filter(|(_, node)| node.holds(chunk).is_some());
        nodes.map(|(id, _)| id.0).collect()
    }

    /// Waits until exactly so many nodes hold each of these chunks, and the records say the same.
    async fn until_replicas(&self, files: &[(String, ChunkId)], count: usize) {
        eventually(&format!("{count} replicas of each"), || async {
            for (path, chunk) in files {
                let replicas = self.replicas(path).await;
                let named: BTreeSet<u128> = replicas.keys().copied().collect();
                if named.len() != count || named != self.holders_of(*chunk) {
                    return false;
                }
            }
            true
        })
        .await;
    }

    async fn worker_detail(&self, name: &str) -> String {
        self.worker(name).await.state
    }
}

#[tokio::test]
async fn lower_default_trims_existing_files_and_a_higher_one_completes_them() {
    let cluster = Cluster::start(4).await;
    let mut files = Vec::new();
    for number in 0..30 {
        let path = format!("/file-{number}");
        let nodes = [[1, 2, 3], [2, 3, 4], [1, 3, 4]][number % 3];
        let chunk = cluster.put(&path, b"data", &nodes).await;
        files.push((path, chunk));
    }
    cluster.replicate(None, 2).await.unwrap();
    cluster.until_replicas(&files, 2).await;
    for (path, chunk) in &files {
        let verified = cluster.nodes.values().any(|node| node.verified().contains(chunk));
        assert!(verified, "{path}: a replica was read before another one was dropped");
    }
    eventually("it says so", || async {
        cluster.worker_detail("trim").await == "no chunk has more replicas than wanted"
            && cluster.worker_detail("policy").await.starts_with("every file")
    })
    .await;
    let (trim, policy) = (cluster.worker("trim").await, cluster.worker("policy").await);
    assert_eq!((trim.done, policy.done), (30, 30));
    cluster.replicate(None, 3).await.unwrap();
    cluster.until_replicas(&files, 3).await;
    assert_eq!(cluster.replication().await.unwrap().under_replicated, 0);
}

#[tokio::test]
async fn only_what_is_below_the_directory_changes_and_can_be_reset() {
    let cluster = Cluster::start(3).await;
    cluster.make_directory("/two").await;
    let mut inside = Vec::new();
    for number in 0..60 {
        let path = format!("/two/file-{number}");
        let chunk = cluster.put(&path, b"data", &[1, 2, 3]).await;
        inside.push((path, chunk));
    }
    let outside = vec![("/other".to_owned(), cluster.put("/other", b"data", &[1, 2, 3]).await)];
    cluster.replicate(Some("/two"), 2).await.unwrap();
    let plan = cluster.plan("/two/new", 1).await;
    assert_eq!((plan.replication_factor, plan.chunks[0].nodes.len()), (2, 2), "at once");
    cluster.until_replicas(&inside, 2).await;
    cluster.until_replicas(&outside, 3).await;
    cluster.replicate(None, 1).await.unwrap();
    cluster.until_replicas(&outside, 1).await;
    cluster.until_replicas(&inside, 2).await;
    cluster.replicate(Some("/two"), 0).await.unwrap();
    cluster.until_replicas(&inside, 1).await;
    let missing = cluster.replicate(Some("/missing"), 2).await;
    refusal(missing, ErrorCode::NotFound);
}

/// The replica to be kept is damaged, and no record knows.
#[tokio::test]
async fn trim_never_keeps_a_replica_that_it_has_not_read() {
    for spoiled in 1..=3 {
        let cluster = Cluster::start(3).await;
        let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
        cluster.node(spoiled).rot(chunk);
        cluster.replicate(None, 1).await.unwrap();
        cluster.until_replicas(&[("/file".to_owned(), chunk)], 1).await;
        // Where the damage was not seen, because that replica was dropped, or was replaced.
        let holder = cluster.holders_of(chunk).into_iter().next().unwrap();
        assert_ne!(holder, spoiled, "the good bytes are kept");
    }
}

#[tokio::test]
async fn more_replicas_than_nodes_are_accepted_and_shown_as_missing_replicas() {
    let mut cluster = Cluster::start(2).await;
    cluster.replicate(None, 2).await.unwrap();
    let files = vec![("/file".to_owned(), cluster.put("/file", b"data", &[1, 2]).await)];
    cluster.replicate(None, 3).await.unwrap();
    eventually("it is under-replicated, and says why", || async {
        let counts = cluster.replication().await;
        counts.is_some_and(|counts| counts.under_replicated == 1)
            && cluster.worker_detail("repair").await
                == "chunks waiting for a node that can take a replica: 1"
    })
    .await;
    cluster.add_node(3).await;
    cluster.until_replicas(&files, 3).await;
}

#[tokio::test]
async fn next_lease_holder_continues_where_the_last_one_was() {
    let mut first = Cluster::start(3).await;
    let mut files = Vec::new();
    for number in 0..80 {
        let path = format!("/file-{number:02}");
        let chunk = first.put(&path, b"data", &[1, 2, 3]).await;
        files.push((path, chunk));
    }
    // A step, and then nothing for long.
    first.set_worker("policy", rate(1)).await.unwrap();
    first.replicate(Some("/"), 2).await.unwrap();
    eventually("some are applied", || async {
        let named = first.replicas("/file-00").await.len();
        named == 2
    })
    .await;
    assert_eq!(first.replicas("/file-79").await.len(), 3, "not all of them");
    let second = first.another().await;
    first.stop().await;
    eventually("the other one does the work, without a limit", || async {
        second.set_worker("policy", rate(0)).await.is_ok()
    })
    .await;
    second.until_replicas(&files, 2).await;
}

/// A node begins to drain while the replica of another one is read, so that its own is the one to drop.
#[tokio::test]
async fn replica_that_is_needed_by_the_time_another_one_was_read_is_not_dropped() {
    let cluster = Cluster::start(3).await;
    cluster.fill(3).await;
    let chunk = cluster.put("/file", b"data", &[1, 2, 3]).await;
    for node in cluster.nodes.values() {
        node.hold_verifications(true);
    }
    cluster.replicate(None, 2).await.unwrap();
    // That of the fullest node is dropped.
    let is_read = |node: &u128| cluster.node(*node).held_verifications() > 0;
    eventually("another replica is read", || async { [1, 2].iter().any(is_read) }).await;
    let other = if is_read(&1) { 2 } else { 1 };
    cluster.drain(other, false).await.unwrap();
    for node in cluster.nodes.values() {
        node.hold_verifications(false);
    }
    eventually("the draining node is empty", || async {
        cluster.holders_of(chunk) == [3 - other, 3].into()
    })
    .await;
    assert!(cluster.node(3).deletes().is_empty(), "its replica was needed");
}

/// While trim waits for its rate, it holds nothing that repair needs.
#[tokio::test]
async fn chunks_that_wait_to_be_trimmed_are_repaired_meanwhile() {
    let cluster = Cluster::start(5).await;
    let chunks = [
        cluster.put("/first", b"data", &[1, 2, 3]).await,
        cluster.put("/second", b"data", &[1, 2, 3]).await,
    ];
    eventually("the rate is set", || async { cluster.set_worker("trim", rate(1)).await.is_ok() })
        .await;
    cluster.replicate(None, 2).await.unwrap();
    let holders = || chunks.map(|chunk| cluster.holders_of(chunk));
    let trimmed = || holders().into_iter().find(|holders| holders.len() == 2);
    eventually("one is trimmed", || async { trimmed().is_some() }).await;
    assert!(holders().contains(&[1, 2, 3].into()), "the other one waits: {:?}", holders());
    // One replica of each is left.
    let trimmed = trimmed().unwrap();
    let dropped = (1..=3).find(|id| !trimmed.contains(id)).unwrap();
    let silent = [dropped, *trimmed.first().unwrap()];
    for id in &silent {
        cluster.node(*id).silence();
    }
    eventually("both have two replicas on live nodes", || async {
        holders().iter().all(|held| held.iter().filter(|id| !silent.contains(id)).count() > 1)
    })
    .await;
}

/// An engine that refuses commits to the records of one chunk.
#[derive(Default)]
struct Refusing {
    inner: MemoryEngine,
    refused: Mutex<Option<ChunkId>>,
}

#[async_trait]
impl ForwardingEngine for Refusing {
    fn inner(&self) -> &dyn Engine {
        &self.inner
    }

    async fn forward_commits(&self, commits: Vec<Commit>) -> Result<Vec<Outcome>, EngineError> {
        let refused = self.refused.lock().unwrap().map(ChunkId::to_bytes);
        let is_refused = |write: &Write| {
            let key = write.key();
            key.starts_with(b"k/") && refused.is_some_and(|chunk| key.ends_with(&chunk))
        };
        let (refused, others): (Vec<_>, Vec<_>) =
            commits.into_iter().partition(|commit| commit.writes.iter().any(is_refused));
        let outcomes = self.inner.commit_batch(others).await?;
        if refused.is_empty() {
            return Ok(outcomes);
        }
        // A batch has one error.
        Err(EngineError::OutcomeUnknown("one of them was refused".to_owned()))
    }
}

#[tokio::test]
async fn chunk_that_cannot_be_trimmed_does_not_end_the_pass() {
    let engine = Arc::new(Refusing::default());
    let cluster = Cluster::with(settings(), engine.clone(), 3).await;
    let mut files = Vec::new();
    for number in 0..10 {
        let path = format!("/file-{number}");
        let chunk = cluster.put(&path, b"data", &[1, 2, 3]).await;
        files.push((path, chunk));
    }
    // Nothing is dropped before all records want two replicas.
    let an_hour = Change::PauseMs(3_600_000);
    eventually("there is a lease holder", || async {
        cluster.set_worker("trim", an_hour).await.is_ok()
    })
    .await;
    cluster.replicate(None, 2).await.unwrap();
    eventually("the change is recorded", || async { cluster.worker("policy").await.done == 10 })
        .await;
    let refused = files.remove(0);
    *engine.refused.lock().unwrap() = Some(refused.1);
    cluster.set_worker("trim", Change::PauseMs(0)).await.unwrap();
    cluster.until_replicas(&files, 2).await;
    eventually("the pass ends", || async {
        let trim = cluster.worker("trim").await;
        let left = format!("1 chunk cannot be trimmed now, such as {}: ", refused.1);
        trim.state.starts_with(&left) && trim.failed > 0
    })
    .await;
    let surplus = "dfs_coordinator_chunks{kind=\"surplus\"} 1\n";
    eventually("it is counted", || async {
        http_get(&cluster.handle, "/metrics").await.contains(surplus)
    })
    .await;
    *engine.refused.lock().unwrap() = None;
    cluster.until_replicas(&[refused], 2).await;
}

#[tokio::test]
async fn status_says_whether_a_change_is_recorded_and_which_write_quorum_holds() {
    let cluster = Cluster::start(3).await;
    cluster.put("/file", b"data", &[1, 2, 3]).await;
    eventually("there is a lease holder", || async {
        cluster.set_worker("policy", Change::PauseMs(3_600_000)).await.is_ok()
    })
    .await;
    assert!(!cluster.status().await.is_replication_changing);
    cluster.replicate(Some("/file"), 2).await.unwrap();
    let status = cluster.status().await;
    assert!(status.is_replication_changing && !status.is_min_write_set);
    cluster.set_worker("policy", Change::PauseMs(0)).await.unwrap();
    eventually("it is recorded", || async { !cluster.status().await.is_replication_changing })
        .await;
    let request = v1::SetReplicationRequest {
        replication_factor: 3,
        min_write_replicas: Some(1),
        ..v1::SetReplicationRequest::default()
    };
    cluster.admin().await.set_replication(request).await.unwrap();
    let status = cluster.status().await;
    assert!(status.is_min_write_set && !status.is_replication_changing);
}
