//! Orders to datanodes. Each is sealed for its node and carries the lease epoch, so that one from a
//! coordinator that lost the lease is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::{Chunk, ReplicaId};
use dfs_proto::v1::build_replica_response::Outcome;
use dfs_proto::v1::data_node_client::DataNodeClient;
use dfs_proto::wire::{self, WireId};
use dfs_proto::{Failure, FieldError, MESSAGE_LEN_MAX, Ordered, v1};
use dfs_transport::ClientChannel;
use dfs_types::{
    ChunkId, ChunkSeal, DiskId, ErrorCode, Generation, NodeId, Part, ReadProof, Receipt,
    ReplicaCondition, ReplicaRef, ReplicaVerdict,
};
use futures_util::{Stream, StreamExt as _};
use tokio::time::{Instant, timeout};
use tonic::Status;

use crate::core::{Core, location};

/// Time limit of small orders.
pub(super) const ORDER_TIMEOUT: Duration = Duration::from_secs(20);
/// Time within which a node that works on a long order shows progress: more than a source of a build
/// may keep silent, and a busy disk needs to sync.
const PROGRESS_WITHIN: Duration = Duration::from_mins(1);
/// Bytes per second below which orders that verify a replica are abandoned. The node reads it as fast
/// as its disk allows.
const SLOWEST: u64 = 1 << 20;

/// Returns the name of a replica on its node; its record has the number of `disk`.
pub(crate) fn replica_ref(chunk: ChunkId, replica: ReplicaId, disk: DiskId) -> ReplicaRef {
    ReplicaRef { chunk, part: replica.part, disk, stamp: replica.stamp }
}

/// Result of an order to build a replica.
pub(super) struct Build {
    /// `None` when no source provided the whole chunk.
    pub(super) outcome: Option<BuildOutcome>,
    pub(super) failed: Vec<FailedSource>,
}

/// A source that did not provide what it was asked for.
pub(super) struct FailedSource {
    pub(super) node: NodeId,
    /// It did not reply, or cannot be read for now.
    pub(super) is_unavailable: bool,
    pub(super) why: String,
}

/// Outcome of a build.
pub(super) enum BuildOutcome {
    /// The replica is durable; every byte of it was verified.
    Built(Built),
    /// A replica was already there, and was left alone.
    Existing(ReplicaRef),
}

/// A replica that was built.
#[derive(Debug, Clone, Copy)]
pub(super) struct Built {
    pub(super) receipt: Receipt,
    /// As of the generation in the order.
    pub(super) proof: ReadProof,
}

/// A replica to build.
pub(super) struct BuildOrder<'a> {
    pub(super) chunk: ChunkId,
    pub(super) seal: ChunkSeal,
    /// Generation of the record that the order follows from.
    pub(super) generation: Generation,
    /// Replicas to build from, best first; some may be bad.
    pub(super) sources: &'a [(NodeId, ReplicaRef)],
    /// Replicas at the target that the new one may replace.
    pub(super) replaces: &'a [ReplicaRef],
}

/// A replica of a small chunk to build, from one source.
#[derive(Debug, Clone, Copy)]
pub(super) struct SmallBuild {
    pub(super) chunk: ChunkId,
    pub(super) seal: ChunkSeal,
    /// Generation of the record that the order follows from.
    pub(super) generation: Generation,
    pub(super) source: (NodeId, ReplicaRef),
}

/// A replica that its node did not delete, so that it may still exist.
#[derive(Debug)]
pub(super) struct NotDeleted {
    pub(super) replica: ReplicaRef,
    pub(super) why: String,
}

/// Orders a node to delete replicas; disk and stamp keep a late order from deleting a later
/// replica. Returns those that were not deleted. Refused while deletion is not acknowledged.
pub(super) async fn delete(
    core: &Core,
    lease: &LeaseGrant,
    node: NodeId,
    replicas: &[ReplicaRef],
) -> Result<Vec<NotDeleted>, Failure> {
    match core.namespace.may_delete().await {
        Ok(true) => {}
        Ok(false) => return Err(Failure::new(ErrorCode::Unavailable, super::DELETION_HELD)),
        Err(error) => return Err(crate::failure::of(&error)),
    }
    let request = v1::DeleteChunksRequest {
        replicas: replicas.iter().copied().map(Into::into).collect(),
        lease_epoch: lease.epoch.0,
        node_id: node.to_wire(),
        order: None,
    };
    let (mut client, request) = order(core, node, request)?;
    let answer = within(ORDER_TIMEOUT, client.delete_chunks(request)).await?;
    let failed = answer.failed.into_iter().map(|failed| {
        let replica = wire::replica("failed.replica", failed.replica)?;
        Ok(NotDeleted { replica, why: failed.message })
    });
    failed.collect()
}

/// Orders a node to read a replica of this chunk end to end. Returns its verdict, with a proof if
/// the replica is sound. Needs no lease, as it changes nothing.
pub(crate) async fn verify(
    core: &Core,
    node: NodeId,
    replica: ReplicaRef,
    record: &Chunk,
) -> Result<(ReplicaVerdict, Option<ReadProof>), Failure> {
    let ChunkSeal { length, crc32c, sha256 } = record.seal;
    let request = v1::VerifyReplicaRequest {
        replica: Some(replica.into()),
        length,
        crc32c: crc32c.0,
        sha256: bytes::Bytes::copy_from_slice(&sha256.0),
        generation: record.generation.0,
        node_id: node.to_wire(),
        order: None,
    };
    let (mut client, request) = order(core, node, request)?;
    let limit = ORDER_TIMEOUT + Duration::from_secs(length / SLOWEST);
    let answer = within(limit, client.verify_replica(request)).await?;
    let verdict = wire::verdict("verdict", wire::required("verdict", answer.verdict)?)?;
    if verdict.replica != replica {
        return Err(FieldError::new("verdict", "is of another replica").into());
    }
    let proof = answer.proof.map(|proof| wire::read_proof("proof", proof)).transpose()?;
    Ok((verdict, proof.filter(|_| verdict.condition == ReplicaCondition::Sound)))
}

/// Orders `target` to build a replica of a chunk from those of its sources.
pub(super) async fn build(
    core: &Core,
    lease: &LeaseGrant,
    target: NodeId,
    what: &BuildOrder<'_>,
) -> Result<Build, Failure> {
    let BuildOrder { chunk, seal, generation, sources, replaces } = *what;
    let now = Instant::now();
    let sources = {
        let registry = core.registry();
        let source = |(node, replica): &(NodeId, ReplicaRef)| {
            let node = location(&registry.view(*node, now)?);
            Some(v1::BuildSource { node: Some(node), replica: Some((*replica).into()) })
        };
        sources.iter().filter_map(source).collect()
    };
    let request = v1::BuildReplicaRequest {
        chunk_id: chunk.to_wire(),
        part: Part::WHOLE.0.into(),
        length: seal.length,
        crc32c: seal.crc32c.0,
        sha256: bytes::Bytes::copy_from_slice(&seal.sha256.0),
        sources,
        lease_epoch: lease.epoch.0,
        node_id: target.to_wire(),
        order: None,
        generation: generation.0,
        replaces: replaces.iter().copied().map(Into::into).collect(),
    };
    let (mut client, request) = order(core, target, request)?;
    let answer = result(client.build_replica(request)).await?;
    let outcome = match answer.outcome {
        None => None,
        Some(Outcome::Existing(existing)) => {
            let replica = wire::replica("existing.replica", existing.replica)?;
            Some(BuildOutcome::Existing(replica))
        }
        Some(Outcome::Built(receipt)) => {
            let receipt = wire::receipt("built", receipt)?;
            if (receipt.node, receipt.chunk, receipt.part) != (target, chunk, Part::WHOLE) {
                return Err(FieldError::new("built", "belongs to another replica").into());
            }
            let proof = wire::read_proof("proof", wire::required("proof", answer.proof)?)?;
            Some(BuildOutcome::Built(Built { receipt, proof }))
        }
    };
    let failed = answer.failed.into_iter().map(|failed| {
        let node = wire::id("failed.node_id", &failed.node_id)?;
        let is_unavailable = failed.code == ErrorCode::Unavailable.name();
        let why = format!("{}: {}", failed.code, failed.message);
        Ok(FailedSource { node, is_unavailable, why })
    });
    Ok(Build { outcome, failed: failed.collect::<Result<_, Failure>>()? })
}

/// Orders a node to build replicas of small chunks. Passes on each that is built; those that are not
/// are to be ordered by themselves, which says what is wrong.
pub(super) async fn build_small(
    core: &Core,
    lease: &LeaseGrant,
    target: NodeId,
    builds: &[SmallBuild],
    mut on_built: impl FnMut(Built),
) -> Result<(), Failure> {
    let sources: BTreeSet<NodeId> = builds.iter().map(|build| build.source.0).collect();
    let locations: BTreeMap<NodeId, v1::NodeLocation> = {
        let (registry, now) = (core.registry(), Instant::now());
        let found = sources.into_iter().filter_map(|node| registry.view(node, now));
        found.map(|view| (view.node, location(&view))).collect()
    };
    let wire_of = |build: &SmallBuild| {
        let SmallBuild { chunk, seal, generation, source: (node, replica) } = *build;
        let node = Some(locations.get(&node)?.clone());
        Some(v1::SmallReplicaBuild {
            chunk_id: chunk.to_wire(),
            length: seal.length,
            crc32c: seal.crc32c.0,
            sha256: bytes::Bytes::copy_from_slice(&seal.sha256.0),
            source: Some(v1::BuildSource { node, replica: Some(replica.into()) }),
            generation: generation.0,
        })
    };
    let request = v1::BuildSmallReplicasRequest {
        builds: builds.iter().filter_map(wire_of).collect(),
        lease_epoch: lease.epoch.0,
        node_id: target.to_wire(),
        order: None,
    };
    let (mut client, request) = order(core, target, request)?;
    let mut messages = within(PROGRESS_WITHIN, client.build_small_replicas(request)).await?;
    loop {
        let message = timeout(PROGRESS_WITHIN, messages.message()).await;
        let message = message.map_err(|_| no_progress())?;
        let message = message.map_err(|status| Failure::from_status(&status))?;
        let Some(v1::BuildSmallReplicasResponse { built }) = message else { return Ok(()) };
        for v1::BuiltReplica { receipt, proof } in built {
            let receipt = wire::receipt("receipt", wire::required("receipt", receipt)?)?;
            if (receipt.node, receipt.part) != (target, Part::WHOLE) {
                return Err(FieldError::new("receipt", "belongs to another replica").into());
            }
            let proof = wire::read_proof("proof", wire::required("proof", proof)?)?;
            on_built(Built { receipt, proof });
        }
    }
}

/// Returns a page of the replicas of a node after a chunk, or of one disk of it, in chunk order, and
/// whether it is the last page.
pub(super) async fn list_page(
    core: &Core,
    lease: &LeaseGrant,
    node: NodeId,
    disk: Option<DiskId>,
    after: Option<ChunkId>,
) -> Result<(Vec<ReplicaRef>, bool), Failure> {
    let from = after.map(|chunk| ChunkId(chunk.0.saturating_add(1)));
    let request = v1::ListChunksRequest {
        from: from.map(WireId::to_wire).unwrap_or_default(),
        to: bytes::Bytes::new(),
        node_id: node.to_wire(),
        lease_epoch: lease.epoch.0,
        order: None,
        disk_id: disk.map(WireId::to_wire).unwrap_or_default(),
    };
    let (mut client, request) = order(core, node, request)?;
    let mut pages = within(ORDER_TIMEOUT, client.list_chunks(request)).await?;
    let page = timeout(ORDER_TIMEOUT, pages.message()).await;
    let cut_off = || Failure::new(ErrorCode::Unavailable, "the list broke off");
    let page = page.map_err(|_| cut_off())?.map_err(|status| Failure::from_status(&status))?;
    let page = page.ok_or_else(cut_off)?;
    let found = page.chunks.into_iter();
    let found = found.map(|listed| wire::replica("chunks.replica", listed.replica));
    Ok((found.collect::<Result<_, _>>()?, page.is_last))
}

/// Seals an order to a node, and returns it with the client to send it.
pub(super) fn order<R: Ordered>(
    core: &Core,
    node: NodeId,
    request: R,
) -> Result<(DataNodeClient<ClientChannel>, R), Failure> {
    let unreachable = |message| Failure::new(ErrorCode::Unavailable, message);
    let view = core.registry().view(node, Instant::now());
    let view = view.ok_or_else(|| unreachable(format!("node {node} is unknown here")))?;
    let channel = core.channels.control(&view.member.address);
    let channel = channel.map_err(|error| unreachable(error.to_string()))?;
    let client = DataNodeClient::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX);
    Ok((client, core.order(node, view.member.registration, request)))
}

/// Waits for the result of an order that may take long, as long as the node shows progress: the last
/// message of its reply, which is not empty.
pub(super) async fn result<T, S>(
    call: impl Future<Output = Result<tonic::Response<S>, Status>>,
) -> Result<T, Failure>
where
    T: Default + PartialEq,
    S: Stream<Item = Result<T, Status>> + Unpin,
{
    let mut messages = within(PROGRESS_WITHIN, call).await?;
    let mut last = T::default();
    loop {
        match timeout(PROGRESS_WITHIN, messages.next()).await {
            Ok(Some(Ok(message))) => last = message,
            Ok(Some(Err(status))) => return Err(Failure::from_status(&status)),
            Ok(None) if last != T::default() => return Ok(last),
            Ok(None) => {
                return Err(Failure::new(ErrorCode::OutcomeUnknown, "the reply has no result"));
            }
            Err(_) => return Err(no_progress()),
        }
    }
}

fn no_progress() -> Failure {
    let message = format!("no progress within {} s", PROGRESS_WITHIN.as_secs());
    Failure::new(ErrorCode::OutcomeUnknown, message)
}

pub(super) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Failure> {
    match timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(Failure::from_status(&status)),
        Err(_) => {
            let message = format!("no reply within {} s", limit.as_secs());
            Err(Failure::new(ErrorCode::OutcomeUnknown, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tokio::time::sleep;

    use super::*;

    /// Returns what comes of a reply with these messages, each after so many seconds of silence.
    async fn result_of(messages: &[(u64, Result<u32, Status>)]) -> Result<u32, Failure> {
        let messages = stream::iter(messages.to_vec()).then(|(seconds, message)| async move {
            sleep(Duration::from_secs(seconds)).await;
            message
        });
        result(async { Ok(tonic::Response::new(Box::pin(messages))) }).await
    }

    #[tokio::test(start_paused = true)]
    async fn order_lasts_as_long_as_its_node_shows_progress() {
        let began = Instant::now();
        let progress = vec![(50, Ok(0)); 100];
        let built = [&progress[..], &[(50, Ok(7))]].concat();
        assert_eq!(result_of(&built).await.unwrap(), 7);
        assert_eq!(began.elapsed().as_secs(), 5_050, "longer than any limit on the whole order");
        let hung = [&progress[..], &[(5_000, Ok(7))]].concat();
        let began = Instant::now();
        let failure = result_of(&hung).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::OutcomeUnknown);
        assert_eq!(began.elapsed().as_secs(), 5_060);
        let never = async { std::future::pending().await };
        let failure = result::<u32, stream::Empty<_>>(never).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::OutcomeUnknown);
        assert_eq!(began.elapsed().as_secs(), 5_120, "nor does one that never replies");
    }

    #[tokio::test(start_paused = true)]
    async fn reply_that_ends_without_a_result_is_a_failure() {
        let refused = Failure::new(ErrorCode::NoSpace, "full").into();
        let code = |failure: Failure| failure.code;
        let failure = result_of(&[(1, Ok(0)), (1, Err(refused))]).await.unwrap_err();
        assert_eq!(code(failure), ErrorCode::NoSpace);
        assert_eq!(code(result_of(&[(1, Ok(0))]).await.unwrap_err()), ErrorCode::OutcomeUnknown);
        assert_eq!(code(result_of(&[]).await.unwrap_err()), ErrorCode::OutcomeUnknown);
    }
}
