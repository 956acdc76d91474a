//! Where the bytes of a file lie, and what is wrong with them, if anything.

use dfs_proto::wire;
use dfs_types::{ChunkId, DfsPath, DiskId, NodeId, NodeState};
use tokio::time::timeout;

use crate::layout::{Extent, Layout, Replica, Source};
use crate::replica_read::ReadError;
use crate::{Client, Error, FileStat};

/// Time limit for reading the first block of a replica.
const ASK_WITHIN: std::time::Duration = std::time::Duration::from_secs(3);

/// A file, its chunks and their replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The file.
    pub stat: FileStat,
    /// In file order.
    pub chunks: Vec<ExplainedChunk>,
    /// What is wrong, in words; empty when nothing is.
    pub problems: Vec<String>,
}

/// A piece of a file in a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedChunk {
    /// The chunk.
    pub chunk: ChunkId,
    /// Where in the file it starts.
    pub file_offset: u64,
    /// Its bytes.
    pub length: u64,
    /// Replicas wanted.
    pub wanted: u32,
    /// Those that the coordinator knows.
    pub replicas: Vec<ExplainedReplica>,
}

/// A replica of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedReplica {
    /// The node.
    pub node: NodeId,
    /// The disk.
    pub disk: DiskId,
    /// `host:port` of the node; empty when not known.
    pub address: String,
    /// What the coordinator takes the node for; `None` when it does not know it.
    pub state: Option<NodeState>,
    /// The coordinator knows that it is bad or gone.
    pub is_bad: bool,
    /// Whether the node was asked and says that it holds it, and with `verify` every block of it
    /// was read and has its checksum. `None` when the node could not be asked.
    pub verified: Option<bool>,
    /// What is wrong with it, if anything.
    pub problem: Option<String>,
}

impl Client {
    /// Says where the chunks of a file are. Each node is asked whether it has its replicas; with
    /// `verify` every replica is read whole.
    pub async fn explain(&self, path: &DfsPath, verify: bool) -> Result<Explanation, Error> {
        self.with_request_id(async {
            let mut layout = Layout::open(self, &path.into(), 0, None).await?;
            let mut chunks = Vec::new();
            let mut problems = Vec::new();
            while let Some(extent) = layout.next(self).await? {
                let chunk = self.explain_chunk(extent, verify).await;
                problems.extend(problems_of(&chunk));
                chunks.push(chunk);
            }
            Ok(Explanation { stat: layout.stat, chunks, problems })
        })
        .await
    }

    async fn explain_chunk(&self, extent: Extent, verify: bool) -> ExplainedChunk {
        let replicas =
            extent.replicas.iter().map(|replica| self.explain_replica(&extent, replica, verify));
        let replicas = futures_util::future::join_all(replicas).await;
        let Extent { chunk, file_offset, length, wanted, .. } = extent;
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
            None => Look::Unknown("the coordinator knows no address of the node".to_owned()),
            Some(_) if replica.is_bad => Look::Bad("known to be bad".to_owned()),
            Some(source) => self.look(source, extent, verify).await,
        };
        let location = source.map(|source| source.node);
        let state =
            location.as_ref().and_then(|node| wire::node_state("state", node.wire.state).ok());
        let (verified, problem) = match looked {
            Look::Good => (Some(true), None),
            Look::Bad(problem) => (Some(false), Some(problem)),
            Look::Unknown(problem) => (None, Some(problem)),
        };
        ExplainedReplica {
            node: replica.node,
            disk: replica.name.disk,
            address: location.map(|node| node.address).unwrap_or_default(),
            state,
            is_bad: replica.is_bad,
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
            Err(error) if error.is_not_found() => Look::Bad("the node does not have it".to_owned()),
            Err(error) if error.is_of_replica() => Look::Bad(told(error)),
            Err(error) => Look::Unknown(told(error)),
        }
    }
}

fn told(error: ReadError) -> String {
    match error {
        ReadError::Corrupt(block) => format!("block {block} is corrupt"),
        ReadError::OtherChunk => "the blocks of another chunk lie in its place".to_owned(),
        ReadError::Failed(failure) => failure.message,
    }
}

/// What a look at a replica found.
enum Look {
    Good,
    Bad(String),
    Unknown(String),
}

fn problems_of(chunk: &ExplainedChunk) -> Vec<String> {
    let id = chunk.chunk;
    let of_replica = |replica: &ExplainedReplica| {
        let problem = replica.problem.as_ref()?;
        Some(format!("chunk {id} on node {}: {problem}", replica.node))
    };
    let mut problems: Vec<String> = chunk.replicas.iter().filter_map(of_replica).collect();
    let good = chunk.replicas.iter().filter(|replica| replica.problem.is_none()).count();
    if good < chunk.wanted as usize {
        problems.push(format!("chunk {id} has {good} good replicas, {} are wanted", chunk.wanted));
    }
    problems
}
