//! Location of the bytes of a file, and problems with them.

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::wire;
use dfs_types::{
    ChunkId, DfsPath, DiskId, InodeId, NodeId, NodeState, ReplicaHealth, ReplicaRef, counted,
};
use tokio::time::timeout;

use crate::layout::{Extent, Layout, Replica, Source, refreshed};
use crate::replica_read::ReadError;
use crate::{Client, Error, FileStat};

/// Attempts to explain a chunk whose replicas change meanwhile.
const TRIES: u32 = 3;
/// Time limit for reading the first block of a replica.
const ASK_WITHIN: std::time::Duration = std::time::Duration::from_secs(3);

/// A file, its chunks and their replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The file.
    pub stat: FileStat,
    /// Its chunks, in file order.
    pub chunks: Vec<ExplainedChunk>,
    /// Problems found, in words; empty when there are none. A node that could not be asked is named
    /// once, with the number of its replicas.
    pub problems: Vec<String>,
}

/// A piece of a file in a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedChunk {
    /// The chunk.
    pub chunk: ChunkId,
    /// Offset in the file.
    pub file_offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// Replicas wanted.
    pub wanted: u32,
    /// Replicas that the coordinator knows of.
    pub replicas: Vec<ExplainedReplica>,
}

/// A replica of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedReplica {
    /// The node.
    pub node: NodeId,
    /// The disk.
    pub disk: DiskId,
    /// `host:port` of the node; empty when unknown.
    pub address: String,
    /// State of the node according to the coordinator; `None` when it does not know the node.
    pub state: Option<NodeState>,
    /// Its health, as the coordinator judges it.
    pub health: ReplicaHealth,
    /// Confirmation by the node that it holds the replica; with `verify` also that every block
    /// was read and matches its checksum. `None` when the node was not asked, as the replica is doomed,
    /// or could not be.
    pub verified: Option<bool>,
    /// Problem found, if any.
    pub problem: Option<String>,
}

impl Client {
    /// Returns where the chunks of a file are. Each node is asked whether it has its replicas; with
    /// `verify` every replica is read completely.
    pub async fn explain(&self, path: &DfsPath, verify: bool) -> Result<Explanation, Error> {
        self.with_request_id(async {
            let mut layout = Layout::open(self, &path.into(), 0, None).await?;
            let mut chunks = Vec::new();
            while let Some(extent) = layout.next(self).await? {
                chunks.push(self.explain_current(layout.stat.inode, extent, verify).await);
            }
            let problems = problems_of(&chunks);
            Ok(Explanation { stat: layout.stat, chunks, problems })
        })
        .await
    }

    /// Explains a chunk. A replica with a problem may have been moved or dropped since the file was
    /// opened, and is explained only if it is still recorded.
    async fn explain_current(
        &self,
        inode: InodeId,
        mut extent: Extent,
        verify: bool,
    ) -> ExplainedChunk {
        for _ in 1..TRIES {
            let chunk = self.explain_chunk(extent.clone(), verify).await;
            if chunk.replicas.iter().all(|replica| replica.problem.is_none()) {
                return chunk;
            }
            match refreshed(self, &inode.to_string(), inode, &extent).await {
                Ok(current) if names(&current) != names(&extent) => extent = current,
                _ => return chunk,
            }
        }
        self.explain_chunk(extent, verify).await
    }

    async fn explain_chunk(&self, extent: Extent, verify: bool) -> ExplainedChunk {
        let replicas =
            extent.replicas.iter().map(|replica| self.explain_replica(&extent, replica, verify));
        let replicas = futures_util::future::join_all(replicas).await;
        let Extent { chunk, file_offset, length, redundancy, .. } = extent;
        let wanted = redundancy.target().into();
        ExplainedChunk { chunk, file_offset, length, wanted, replicas }
    }

    async fn explain_replica(
        &self,
        extent: &Extent,
        replica: &Replica,
        verify: bool,
    ) -> ExplainedReplica {
        let source = replica.source();
        let looked = match &source {
            // It is not needed, whether it is still there or not.
            _ if replica.health == ReplicaHealth::Doomed => Look::Doomed,
            None => Look::Unknown("the coordinator knows no address of the node".to_owned()),
            // The good blocks of a bad replica tell nothing about it.
            Some(_)
                if replica.is_condemned() || replica.health == ReplicaHealth::Bad && !verify =>
            {
                Look::Bad(format!("recorded as {}", replica.health))
            }
            Some(source) => self.look(source, extent, verify).await,
        };
        let location = source.map(|source| source.node);
        let state =
            location.as_ref().and_then(|node| wire::node_state("state", node.wire.state).ok());
        let (verified, problem) = match looked {
            Look::Good if !replica.health.is_durable() => {
                let health = replica.health;
                (Some(true), Some(format!("readable, but it does not count: {health}")))
            }
            Look::Good => (Some(true), None),
            Look::Bad(problem) => (Some(false), Some(problem)),
            Look::Unknown(problem) => (None, Some(problem)),
            Look::Doomed => (None, None),
        };
        ExplainedReplica {
            node: replica.node,
            disk: replica.name.disk,
            address: location.map(|node| node.address).unwrap_or_default(),
            state,
            health: replica.health,
            verified,
            problem,
        }
    }

    /// Reads the replica, all of it or its first block.
    async fn look(&self, source: &Source, extent: &Extent, verify: bool) -> Look {
        let read = if verify {
            self.verify_replica(source, extent).await
        } else {
            match timeout(ASK_WITHIN, self.read_replica(source, extent, 0, 1)).await {
                Ok(read) => read.map(drop),
                Err(_) => return Look::Unknown("the node does not respond".to_owned()),
            }
        };
        match read {
            Ok(()) => Look::Good,
            Err(error) if error.is_not_found() => Look::Bad("missing on the node".to_owned()),
            Err(error) if error.is_of_replica() => Look::Bad(describe(error)),
            Err(error) => Look::Unknown(describe(error)),
        }
    }
}

fn describe(error: ReadError) -> String {
    match error {
        ReadError::Corrupt(block) => format!("block {block} is corrupt"),
        ReadError::OtherChunk => "it has the blocks of another chunk".to_owned(),
        ReadError::Failed(failure) => failure.message,
    }
}

/// Outcome of checking a replica.
enum Look {
    Good,
    Bad(String),
    Unknown(String),
    Doomed,
}

/// Returns the recorded replicas, in any order.
fn names(extent: &Extent) -> BTreeSet<ReplicaRef> {
    extent.replicas.iter().map(|replica| replica.name).collect()
}

/// Returns everything that is wrong. The same error of a node that could not be asked is not repeated
/// for each chunk.
fn problems_of(chunks: &[ExplainedChunk]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut not_asked: BTreeMap<(NodeId, &str), u64> = BTreeMap::new();
    for chunk in chunks {
        let id = chunk.chunk;
        for replica in &chunk.replicas {
            match (&replica.problem, replica.verified) {
                (Some(problem), None) => {
                    *not_asked.entry((replica.node, problem)).or_default() += 1;
                }
                (Some(problem), Some(_)) => {
                    problems.push(format!("chunk {id} on node {}: {problem}", replica.node));
                }
                (None, _) => {}
            }
        }
        let is_good =
            |replica: &&ExplainedReplica| replica.problem.is_none() && replica.health.is_durable();
        let good = chunk.replicas.iter().filter(is_good).count();
        if good < chunk.wanted as usize {
            problems
                .push(format!("chunk {id} has {good} good replicas of {} wanted", chunk.wanted));
        }
    }
    problems.extend(not_asked.into_iter().map(|((node, problem), replicas)| {
        let replicas = counted(replicas, "replica");
        let node = format!("node {node}");
        let place = if problem.contains(&node) { String::new() } else { format!("{node}: ") };
        format!("{place}{problem} ({replicas} not checked)")
    }));
    problems
}
