//! What datanodes are asked to do. Each order carries the lease epoch: one from a coordinator that
//! lost the lease is refused.

use std::time::Duration;

use dfs_metadata::engine::LeaseGrant;
use dfs_metadata::namespace::ReplicaId;
use dfs_proto::v1::data_node_client::DataNodeClient;
use dfs_proto::wire::{self, WireId};
use dfs_proto::{Failure, MESSAGE_LEN_MAX, v1};
use dfs_transport::ClientChannel;
use dfs_types::{ChunkId, DiskId, ErrorCode, NodeId, Part, Receipt, ReplicaRef};
use tokio::time::{Instant, timeout};
use tonic::Status;

use crate::core::{Core, location};

/// How long a small order may take.
const TIMEOUTS: Duration = Duration::from_secs(20);
/// Bytes in a second below which a replica is given up.
const SLOWEST: u64 = 1 << 20;

/// The name of a replica as its node knows it; its record has the number of `disk`.
pub(super) fn replica_ref(chunk: ChunkId, replica: ReplicaId, disk: DiskId) -> ReplicaRef {
    ReplicaRef { chunk, part: Part(replica.part), disk, stamp: replica.stamp }
}

/// What became of an order to copy a chunk.
pub(super) struct Replicated {
    pub(super) receipts: Vec<Receipt>,
    /// Targets that said that they hold the chunk already.
    pub(super) occupied: Vec<NodeId>,
    /// What the targets that did not work said.
    pub(super) complaints: Vec<String>,
}

/// Makes a node delete replicas: disk and stamp keep a late order from hitting a later replica.
/// Returns those that it could not delete.
pub(super) async fn delete(
    core: &Core,
    lease: &LeaseGrant,
    node: NodeId,
    replicas: &[ReplicaRef],
) -> Result<Vec<ReplicaRef>, Failure> {
    let request = v1::DeleteChunksRequest {
        replicas: replicas.iter().copied().map(Into::into).collect(),
        lease_epoch: lease.epoch.0,
        node_id: node.to_wire(),
    };
    let mut client = client(core, node)?;
    let answer = within(TIMEOUTS, client.delete_chunks(request)).await?;
    let failed = answer.failed.into_iter();
    Ok(failed.map(|replica| wire::replica("failed", Some(replica))).collect::<Result<_, _>>()?)
}

/// Makes `source` replica a chunk of so many bytes to other nodes.
pub(super) async fn replicate(
    core: &Core,
    lease: &LeaseGrant,
    source: NodeId,
    (chunk, length): (ChunkId, u64),
    targets: &[NodeId],
) -> Result<Replicated, Failure> {
    let now = Instant::now();
    let targets = {
        let registry = core.registry();
        let views = targets.iter().filter_map(|node| registry.view(*node, now));
        views.map(|view| location(&view)).collect()
    };
    let request = v1::ReplicateRequest {
        chunk_id: chunk.to_wire(),
        targets,
        lease_epoch: lease.epoch.0,
        node_id: source.to_wire(),
    };
    let mut client = client(core, source)?;
    let timeouts = TIMEOUTS + Duration::from_secs(length / SLOWEST);
    let answer = within(timeouts, client.replicate_chunk(request)).await?;
    let mut replicated = Replicated {
        receipts: answer
            .receipts
            .into_iter()
            .map(|receipt| wire::receipt("receipts", receipt))
            .collect::<Result<_, _>>()?,
        occupied: Vec::new(),
        complaints: Vec::new(),
    };
    for failed in answer.failed {
        let node = wire::id("failed.node_id", &failed.node_id)?;
        if failed.code == ErrorCode::AlreadyExists.name() {
            replicated.occupied.push(node);
        }
        replicated.complaints.push(format!("{node}: {}", failed.message));
    }
    Ok(replicated)
}

/// Which replica of a chunk a node holds, if any.
pub(super) async fn find(
    core: &Core,
    node: NodeId,
    chunk: ChunkId,
) -> Result<Option<ReplicaRef>, Failure> {
    let after = chunk.0.checked_sub(1).map(ChunkId);
    let after = after.map_or_else(bytes::Bytes::new, dfs_proto::wire::WireId::to_wire);
    let mut client = client(core, node)?;
    let listing = async {
        let request = v1::ListChunksRequest { after, limit: 1, node_id: node.to_wire() };
        let mut pages = client.list_chunks(request).await?.into_inner();
        let first = pages.message().await?.and_then(|page| page.chunks.into_iter().next());
        Ok(tonic::Response::new(first))
    };
    let listed = within(TIMEOUTS, listing).await?;
    let Some(listed) = listed else { return Ok(None) };
    let replica = wire::replica("chunks.replica", listed.replica)?;
    Ok((replica.chunk == chunk).then_some(replica))
}

fn client(core: &Core, node: NodeId) -> Result<DataNodeClient<ClientChannel>, Failure> {
    let unreachable = |message| Failure::new(ErrorCode::Unavailable, message);
    let view = core.registry().view(node, Instant::now());
    let view = view.ok_or_else(|| unreachable(format!("node {node} is not known here")))?;
    let channel = core.channels.control(&view.member.address);
    let channel = channel.map_err(|error| unreachable(error.to_string()))?;
    Ok(DataNodeClient::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX))
}

async fn within<T>(
    timeouts: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Failure> {
    match timeout(timeouts, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(Failure::from_status(&status)),
        Err(_) => {
            let message = format!("no answer within {} s", timeouts.as_secs());
            Err(Failure::new(ErrorCode::OutcomeUnknown, message))
        }
    }
}
