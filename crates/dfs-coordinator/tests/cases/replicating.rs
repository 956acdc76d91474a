//! Changed replication reaches the files that exist.

use std::collections::BTreeSet;

use dfs_proto::v1;
use dfs_types::{ChunkId, ErrorCode};
use tonic::{Response, Status};

use super::administering::refusal;
use super::workers::rate;
use crate::cluster::{Cluster, eventually};

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
