//! Opens a session for one chunk, here and at the downstream nodes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_chunkstore::{ChunkHeader, ChunkWriter};
use dfs_proto::v1::data_node_client::DataNodeClient;
use dfs_proto::wire::{self, WireId as _};
use dfs_proto::{Failure, FieldError, v1};
use dfs_streamer::grpc::{GrpcLink, dropped_to_wire};
use dfs_streamer::{Downstream, Dropped, SenderConfig, Session, SessionConfig, Sink};
use dfs_types::{
    CHUNK_SIZE_MAX, ChunkId, ChunkSeal, ClusterId, DfsPath, ErrorCode, Frame, InodeId, NodeId,
    Part, Receipt, SessionId,
};
use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use crate::Error;
use crate::node::Node;
use crate::sessions::Sender;
use crate::settings::REPLICAS_MAX;

/// Time limit for a downstream node to prepare.
const PREPARE_WITHIN: Duration = Duration::from_secs(3);
/// Bytes between two acks of a continuous stream.
const ACK_EVERY: u64 = 512 << 10;

pub(super) async fn run(
    node: &Arc<Node>,
    meta: v1::ChunkMeta,
) -> Result<v1::ChunkUploadReady, Error> {
    if node.is_stopping() {
        return Err(Error::Stopping);
    }
    node.check_meant_if_named(&meta.node_id)?;
    let cluster = wire::optional_id::<ClusterId>("cluster_id", &meta.cluster_id)?;
    let membership = node.check_cluster(cluster)?;
    if !membership.state.takes_chunks() {
        return Err(Error::TakesNoChunks(membership.state));
    }
    let header = header(&meta, membership.cluster)?;
    let (chunk, max_length) = (header.chunk, header.max_length);
    let replicas = locations("replicas", &meta.replicas)?;
    if meta.is_replica && !replicas.is_empty() {
        return Err(FieldError::new("replicas", "must be empty for a downstream node").into());
    }
    let wanted = meta.min_replicas.clamp(1, REPLICAS_MAX);
    let wanted = if meta.is_replica { 1 } else { wanted.max(node.settings.min_durable_replicas) };
    let sender = if meta.is_replica { Sender::Datanode } else { Sender::Client };
    let slot = node.sessions.take_slot(sender, replicas.len())?;
    let writer = node.store.create(header).await?;
    let (has_ended, window) = (slot.has_ended(), slot.window());
    let sink = NodeSink::new(node.clone(), writer, slot);

    let of_replicas = v1::ChunkMeta {
        cluster_id: membership.cluster.to_wire(),
        replicas: Vec::new(),
        is_replica: true,
        token: bytes::Bytes::new(),
        ..meta
    };
    let ready =
        join_all(replicas.iter().map(|replica| prepare_downstream(node, replica, &of_replicas)));
    let (mut ready_replicas, mut dropped) = (Vec::new(), Vec::new());
    for (replica, result) in replicas.iter().zip(ready.await) {
        match result {
            Ok(ready) => ready_replicas.push(ready),
            Err(failure) => {
                node.counts.dropped_replicas.increment();
                let Failure { code, message, .. } = failure;
                tracing::info!(%chunk, replica = %replica.id, %code, message, "a downstream node is not ready");
                dropped.push(Dropped { node: replica.id, code, message });
            }
        }
    }
    let replicas = 1 + ready_replicas.len() as u32;
    if replicas < wanted {
        let why: Vec<_> =
            dropped.iter().map(|d| format!("node {}: {}", d.node, d.message)).collect();
        return Err(Error::NotEnoughReplicas { replicas, wanted, why: why.join("; ") });
    }
    let config = SessionConfig {
        max_length,
        min_replicas: wanted as usize,
        ack_every: ACK_EVERY.min(window / 2),
        sender: SenderConfig {
            window,
            stall: node.settings.replica_stall(),
            ..SenderConfig::between_nodes()
        },
    };
    let names = ready_replicas.iter().map(|replica| replica.node.to_wire()).collect();
    let session = Session::new(config, Box::new(sink), ready_replicas, &node.random);
    let id = SessionId::random(node.random.as_ref());
    node.sessions.add(id, session, has_ended);
    tracing::debug!(%chunk, session = %id, replicas, "ready for a chunk");
    Ok(v1::ChunkUploadReady {
        session_id: id.to_wire(),
        ready_replicas: names,
        dropped: dropped.into_iter().map(dropped_to_wire).collect(),
        idle_timeout_ms: node.settings.session_idle_ms,
        window,
    })
}

fn header(meta: &v1::ChunkMeta, cluster: ClusterId) -> Result<ChunkHeader, FieldError> {
    let max_length = meta.max_length;
    if !(1..=CHUNK_SIZE_MAX).contains(&max_length) {
        let what = format_args!("expected 1 to {CHUNK_SIZE_MAX} bytes, got {max_length}");
        return Err(FieldError::new("max_length", what));
    }
    if meta.path.len() > DfsPath::MAX_LEN {
        let what =
            format_args!("at most {} bytes are allowed, not {}", DfsPath::MAX_LEN, meta.path.len());
        return Err(FieldError::new("path", what));
    }
    if wire::part("part", meta.part)? != Part::WHOLE {
        return Err(FieldError::new("part", "only whole chunks are stored"));
    }
    Ok(ChunkHeader {
        cluster,
        chunk: wire::id::<ChunkId>("chunk_id", &meta.chunk_id)?,
        inode: InodeId(meta.inode),
        path: meta.path.clone(),
        file_offset: meta.file_offset,
        max_length,
    })
}

/// Address of another datanode.
pub(super) struct Location {
    pub(super) id: NodeId,
    pub(super) address: String,
}

pub(super) fn locations(
    field: &'static str,
    locations: &[v1::NodeLocation],
) -> Result<Vec<Location>, FieldError> {
    if locations.len() >= REPLICAS_MAX as usize {
        let what = format_args!("expected fewer than {REPLICAS_MAX}, got {}", locations.len());
        return Err(FieldError::new(field, what));
    }
    let location = |location: &v1::NodeLocation| {
        let id = wire::id(field, &location.node_id)?;
        Ok(Location { id, address: location.address.clone() })
    };
    locations.iter().map(location).collect()
}

/// Opens the session at a downstream node, by the same handshake as clients.
pub(super) async fn prepare_downstream(
    node: &Node,
    replica: &Location,
    meta: &v1::ChunkMeta,
) -> Result<Downstream, Failure> {
    let invalid = |text: String| Failure::new(ErrorCode::InvalidArgument, text);
    let channel = node.channels.control(&replica.address);
    let channel = channel.map_err(|error| invalid(error.to_string()))?;
    let meta = v1::ChunkMeta { node_id: replica.id.to_wire(), ..meta.clone() };
    let key = ChunkId::from_slice(&meta.chunk_id).unwrap_or_default().0 as u64;
    let call = async { DataNodeClient::new(channel).prepare_chunk_upload(meta).await };
    let ready = timeout(PREPARE_WITHIN, call)
        .await
        .map_err(|_| Failure::new(ErrorCode::Unavailable, "not ready in time"))?
        .map_err(|status| Failure::from_status(&status))?
        .into_inner();
    let session = wire::id("session_id", &ready.session_id);
    let session = session.map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?;
    let channel = node.channels.bulk(&replica.address, key);
    let channel = channel.map_err(|error| invalid(error.to_string()))?;
    Ok(Downstream { node: replica.id, session, link: Arc::new(GrpcLink::new(channel)) })
}

/// Writes a chunk to the store of this node, holding its write slot `P` meanwhile.
pub(super) struct NodeSink<P> {
    node: Arc<Node>,
    writer: Option<Box<dyn ChunkWriter>>,
    _place: P,
}

impl<P> NodeSink<P> {
    pub(super) fn new(node: Arc<Node>, writer: Box<dyn ChunkWriter>, place: P) -> Self {
        Self { node, writer: Some(writer), _place: place }
    }
}

#[async_trait]
impl<P: Send> Sink for NodeSink<P> {
    async fn append(&mut self, frame: Frame) -> Result<(), dfs_streamer::Error> {
        let writer = self.writer.as_mut().ok_or(dfs_streamer::Error::UnknownSession)?;
        let bytes = frame.data.len() as u64;
        writer.append(frame.data, frame.crcs).await.map_err(refused)?;
        self.node.counts.bytes_in.add(bytes);
        Ok(())
    }

    async fn seal(mut self: Box<Self>, seal: ChunkSeal) -> Result<Receipt, dfs_streamer::Error> {
        let writer = self.writer.take().ok_or(dfs_streamer::Error::UnknownSession)?;
        let started = Instant::now();
        let replica = writer.seal(seal).await.map_err(refused)?;
        self.node.counts.seal_seconds.observe(started.elapsed());
        self.node.counts.sealed.increment();
        tracing::debug!(
            chunk = %replica.chunk, bytes = seal.length, stamp = %replica.stamp, disk = %replica.disk,
            "sealed a chunk"
        );
        self.node.receipt(&replica).map_err(refused)
    }
}

impl<P> Drop for NodeSink<P> {
    fn drop(&mut self) {
        if self.writer.is_some() {
            self.node.counts.failed_sessions.increment();
        }
    }
}

fn refused(error: impl Into<Error>) -> dfs_streamer::Error {
    let Failure { code, message, .. } = error.into().into();
    dfs_streamer::Error::Refused { code, message }
}
