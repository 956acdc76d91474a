//! Calls without the SDK, to send what it never would.

use std::sync::Arc;

use bytes::Bytes;
use dfs_proto::v1::admin_client::AdminClient;
use dfs_proto::v1::coordinator_client::CoordinatorClient;
use dfs_proto::v1::data_node_client::DataNodeClient;
use dfs_proto::{Failure, v1, wire};
use dfs_streamer::grpc::GrpcLink;
use dfs_streamer::{FrameSource as _, Hashing, SenderConfig, chunk_source, send_chunk};
use dfs_testkit::process::Cluster;
use dfs_transport::{Channels, ClientChannel, Security, TcpNetwork};
use dfs_types::{ErrorCode, OsRandom, SessionId};

fn channel(address: &str) -> ClientChannel {
    Channels::new(Arc::new(TcpNetwork), Security::default()).control(address).unwrap()
}

pub(super) fn coordinator(cluster: &Cluster) -> CoordinatorClient<ClientChannel> {
    CoordinatorClient::new(channel(&cluster.coordinator_url()))
}

pub(super) fn admin(cluster: &Cluster) -> AdminClient<ClientChannel> {
    AdminClient::new(channel(&cluster.coordinator_url()))
}

pub(super) fn datanode(address: &str) -> DataNodeClient<ClientChannel> {
    DataNodeClient::new(channel(address))
}

/// Returns the error code of a server's reply.
pub(super) fn code<T: std::fmt::Debug>(result: Result<T, tonic::Status>) -> ErrorCode {
    Failure::from_status(&result.unwrap_err()).code
}

/// Returns a slot of a client that repeats calls.
pub(super) fn slot(number: u32, sequence: u64) -> v1::Slot {
    v1::Slot { client_id: Bytes::from_static(&[7; 16]), slot: number, sequence }
}

pub(super) fn upload(path: &str, bytes: &[u8]) -> v1::UploadRequest {
    v1::UploadRequest {
        target: Some(v1::Target::of_path(Bytes::copy_from_slice(path.as_bytes()))),
        size: Some(bytes.len() as u64),
        chunk_size: Some(64 << 10),
        ..v1::UploadRequest::default()
    }
}

/// Returns the metadata of a chunk for its primary.
pub(super) fn meta(plan: &v1::UploadPlan, number: usize) -> v1::ChunkMeta {
    let chunk = &plan.chunks[number];
    v1::ChunkMeta {
        chunk_id: chunk.chunk_id.clone(),
        max_length: chunk.max_length,
        inode: plan.inode,
        file_offset: chunk.file_offset,
        token: plan.token.clone(),
        replicas: chunk.nodes[1..].to_vec(),
        min_replicas: 2,
        ..v1::ChunkMeta::default()
    }
}

/// Writes the chunks of a small file; returns the call that would make it appear.
pub(super) async fn written(cluster: &Cluster, path: &str, bytes: &[u8]) -> v1::ConfirmRequest {
    let plan = coordinator(cluster).upload_file(upload(path, bytes)).await.unwrap().into_inner();
    let mut chunks = Vec::new();
    for (number, chunk) in plan.chunks.iter().enumerate() {
        let address = &chunk.nodes[0].address;
        let ready = datanode(address).prepare_chunk_upload(meta(&plan, number)).await.unwrap();
        let session: SessionId = wire::id("session", &ready.into_inner().session_id).unwrap();
        let from = chunk.file_offset as usize;
        let part = &bytes[from..(from + chunk.max_length as usize).min(bytes.len())];
        let part: Arc<dyn dfs_streamer::ChunkBytes> = Arc::new(Bytes::copy_from_slice(part));
        let mut last = chunk_source(part.clone(), Hashing::Threads);
        let mut seal = None;
        while let Some(frame) = last.next().await.unwrap() {
            seal = frame.seal;
        }
        let seal = seal.unwrap();
        let mut source = chunk_source(part, Hashing::Threads);
        let link = GrpcLink::new(channel(address));
        let config = SenderConfig::default();
        let sent = send_chunk(&link, session, &mut source, &config, &OsRandom, |_| {}).await;
        chunks.push(v1::WrittenChunk {
            chunk_id: chunk.chunk_id.clone(),
            file_offset: chunk.file_offset,
            length: seal.length,
            crc32c: seal.crc32c.0,
            sha256: Bytes::copy_from_slice(&seal.sha256.0),
            receipts: sent.unwrap().receipts.into_iter().map(Into::into).collect(),
        });
    }
    v1::ConfirmRequest {
        tokens: vec![plan.token],
        chunks,
        size: bytes.len() as u64,
        attributes: Some(super::attributes().into()),
        ..v1::ConfirmRequest::default()
    }
}
