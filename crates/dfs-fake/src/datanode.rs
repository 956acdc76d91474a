//! The fake datanode.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use dfs_proto::Failure;
use dfs_proto::v1::data_node_server::DataNode;
use dfs_proto::v1::{self, chunk_data};
use dfs_proto::wire::{self, WireId as _};
use dfs_streamer::grpc::{ack_to_wire, frame_from_wire};
use dfs_streamer::{Ack, Dropped, SenderConfig, Session, SessionConfig, Sink};
use dfs_types::{
    BLOCK_SIZE, ChunkId, ChunkSeal, DiskId, ErrorCode, Frame, NodeId, Random, Receipt,
    RegistrationNumber, Seal, SeededRandom, SessionId, Sha256, Stamp,
};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{Answered, Answers, Node, World, note, refusal};

/// Bytes of a frame served.
const FRAME: u64 = 128 << 10;

pub(crate) struct FakeDataNode {
    pub(crate) node: Arc<Node>,
    pub(crate) world: Arc<World>,
}

/// Stores a chunk at this node and the downstream ones.
struct MemorySink {
    node: Arc<Node>,
    world: Arc<World>,
    meta: v1::ChunkMeta,
    bytes: Vec<u8>,
}

#[tonic::async_trait]
impl Sink for MemorySink {
    async fn append(&mut self, frame: Frame) -> Result<(), dfs_streamer::Error> {
        self.bytes.extend_from_slice(&frame.data);
        Ok(())
    }

    async fn seal(self: Box<Self>, seal: ChunkSeal) -> Result<Receipt, dfs_streamer::Error> {
        assert_eq!(Sha256::of(&self.bytes), seal.sha256);
        let chunk = wire::id("chunk_id", &self.meta.chunk_id).unwrap();
        self.world.keep(self.node.id, chunk, self.bytes.into(), seal);
        Ok(self.node.receipt(chunk, seal))
    }
}

impl Node {
    fn receipt(&self, chunk: ChunkId, seal: ChunkSeal) -> Receipt {
        Receipt {
            part: dfs_types::Part::WHOLE,
            chunk,
            length: seal.length,
            crc32c: seal.crc32c,
            node: self.id,
            disk: DiskId(self.id.0),
            stamp: Stamp(1),
            registration: RegistrationNumber(1),
            seal: Seal([0; 32]),
        }
    }
}

impl World {
    fn keep(&self, node: NodeId, chunk: ChunkId, bytes: Bytes, seal: ChunkSeal) {
        self.stored.lock().unwrap().insert((node, chunk), (bytes, seal));
    }

    /// Creates the other replicas of a chunk of this node.
    fn replicate(&self, from: NodeId, meta: &v1::ChunkMeta) -> (Vec<Receipt>, Vec<Dropped>) {
        let chunk = wire::id("chunk_id", &meta.chunk_id).unwrap();
        let (bytes, seal) = self.stored.lock().unwrap()[&(from, chunk)].clone();
        let (mut receipts, mut dropped) = (Vec::new(), Vec::new());
        for replica in &meta.replicas {
            let is_it = |node: &&Arc<Node>| node.id.to_wire() == replica.node_id;
            let node = self.nodes.iter().find(is_it).unwrap();
            if node.faults.borrow().refuses_uploads {
                let message = "refused".to_owned();
                dropped.push(Dropped { node: node.id, code: ErrorCode::Unavailable, message });
            } else {
                self.keep(node.id, chunk, bytes.clone(), seal);
                receipts.push(node.receipt(chunk, seal));
            }
        }
        (receipts, dropped)
    }
}

/// Counts a read while it lasts.
struct Reading(Arc<Node>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.reading.fetch_sub(1, Ordering::Relaxed);
    }
}

#[tonic::async_trait]
impl DataNode for FakeDataNode {
    async fn prepare_chunk_upload(
        &self,
        request: Request<v1::ChunkMeta>,
    ) -> Answered<v1::ChunkUploadReady> {
        note(&self.world, "PrepareChunkUpload", &request);
        let meta = request.into_inner();
        if self.node.faults.borrow().refuses_uploads {
            return Err(refusal(ErrorCode::Unavailable, "accepts no chunks"));
        }
        let is_busy = self.node.faults.send_if_modified(|faults| {
            let is_busy = faults.busy > 0;
            faults.busy -= u32::from(is_busy);
            is_busy
        });
        if is_busy {
            return Err(refusal(ErrorCode::Busy, "busy"));
        }
        let id = SessionId(u128::from(self.node.prepared.fetch_add(1, Ordering::Relaxed)) + 1);
        let config = SessionConfig {
            max_length: meta.max_length,
            min_replicas: 1,
            ack_every: 64 << 10,
            sender: SenderConfig::between_nodes(),
        };
        let sink = MemorySink {
            node: self.node.clone(),
            world: self.world.clone(),
            meta: meta.clone(),
            bytes: Vec::new(),
        };
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
        let session = Session::new(config, Box::new(sink), Vec::new(), &random);
        self.node.sessions.lock().unwrap().insert(id, (session, meta));
        Ok(Response::new(v1::ChunkUploadReady {
            session_id: id.to_wire(),
            idle_timeout_ms: 60_000,
            window: 4 << 20,
            ..v1::ChunkUploadReady::default()
        }))
    }

    type ChunkDataStreamStream = Answers<v1::ChunkAck>;

    async fn chunk_data_stream(
        &self,
        request: Request<Streaming<v1::ChunkData>>,
    ) -> Answered<Self::ChunkDataStreamStream> {
        note(&self.world, "ChunkDataStream", &request);
        let mut incoming = request.into_inner();
        let Some(chunk_data::Kind::Attach(attach)) =
            incoming.message().await?.and_then(|data| data.kind)
        else {
            return Err(refusal(ErrorCode::InvalidArgument, "no attach"));
        };
        let id: SessionId = wire::id("session_id", &attach.session_id)?;
        let known = self.node.sessions.lock().unwrap().get(&id).cloned();
        let (session, meta) = known.ok_or_else(|| refusal(ErrorCode::Stale, "no such session"))?;
        let node = self.node.clone();
        let frames = incoming.map(frame_from_wire).then(move |frame| {
            let node = node.clone();
            async move {
                let mut faults = node.faults.subscribe();
                drop(faults.wait_for(|faults| !faults.hangs_uploads).await);
                let frame = frame?;
                let is_cut = node.faults.send_if_modified(|faults| {
                    faults.cuts_after.take_if(|after| frame.end() > *after).is_some()
                });
                if is_cut {
                    if node.faults.borrow().forgets {
                        node.sessions.lock().unwrap().remove(&id);
                    }
                    return Err(dfs_streamer::Error::Cut("cut".to_owned()));
                }
                Ok(frame)
            }
        });
        let acks = session.attach(attach.attach_number, frames);
        let (world, from) = (self.world.clone(), self.node.id);
        let acks = ReceiverStream::new(acks).map(move |ack| match ack {
            Ok(Ack::Sealed(mut outcome)) => {
                let (receipts, dropped) = world.replicate(from, &meta);
                outcome.receipts.extend(receipts);
                outcome.dropped.extend(dropped);
                if outcome.receipts.len() < meta.min_replicas as usize {
                    return Err(refusal(ErrorCode::NotEnoughNodes, "too few replicas"));
                }
                Ok(ack_to_wire(Ack::Sealed(outcome)))
            }
            Ok(ack) => Ok(ack_to_wire(ack)),
            Err(error) => Err(Failure::from(error).into()),
        });
        Ok(Response::new(Box::pin(acks)))
    }

    type RetrieveChunkStream = Answers<v1::ChunkFrame>;

    async fn retrieve_chunk(
        &self,
        request: Request<v1::RetrieveRequest>,
    ) -> Answered<Self::RetrieveChunkStream> {
        note(&self.world, "RetrieveChunk", &request);
        self.node.reads.fetch_add(1, Ordering::Relaxed);
        self.node.reading.fetch_add(1, Ordering::Relaxed);
        let reading = Reading(self.node.clone());
        let request = request.into_inner();
        let mut faults = self.node.faults.subscribe();
        if faults.borrow().refuses_reads {
            return Err(refusal(ErrorCode::Unavailable, "not now"));
        }
        let chunk = wire::replica("replica", request.replica)?.chunk;
        let stored = self.world.stored.lock().unwrap().get(&(self.node.id, chunk)).cloned();
        let (bytes, seal) = stored.ok_or_else(|| refusal(ErrorCode::NotFound, "no such chunk"))?;
        let bytes = if faults.borrow().serves_other_bytes {
            bytes.iter().map(|byte| byte ^ 0xff).collect()
        } else {
            bytes
        };
        let block = BLOCK_SIZE as u64;
        let mut at = request.offset / block * block;
        let end = (request.offset + request.length).next_multiple_of(block).min(seal.length);
        let (frames, outgoing) = mpsc::channel(1);
        tokio::spawn(async move {
            let _reading = reading;
            let serving = async {
                while at < end {
                    drop(faults.wait_for(|faults| !faults.hangs_reads).await);
                    let to = (at + FRAME).min(end);
                    let data = bytes.slice(at as usize..to as usize);
                    let mut frame = Frame::of(at, data, (to == seal.length).then_some(seal));
                    let bad = faults.borrow().flips_bit_of.map(|bad| bad * block);
                    if let Some(bad) = bad.filter(|bad| (at..to).contains(bad)) {
                        let mut data = frame.data.to_vec();
                        data[(bad - at) as usize] ^= 1;
                        frame.data = data.into();
                    }
                    if frames.send(Ok(frame.into())).await.is_err() {
                        return;
                    }
                    at = to;
                }
            };
            tokio::select! {
                biased;
                () = frames.closed() => {}
                () = serving => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn report_corrupt(
        &self,
        request: Request<v1::CorruptReport>,
    ) -> Answered<v1::CorruptVerdict> {
        note(&self.world, "ReportCorrupt", &request);
        let report = request.into_inner();
        let chunk = wire::replica("replica", report.replica)?.chunk;
        self.node.reports.lock().unwrap().push((chunk, report.block));
        Ok(Response::new(v1::CorruptVerdict { set_aside: true }))
    }

    async fn build_replica(
        &self,
        _: Request<v1::BuildReplicaRequest>,
    ) -> Answered<Self::BuildReplicaStream> {
        Err(Status::unimplemented(""))
    }

    async fn build_small_replicas(
        &self,
        _: Request<v1::BuildSmallReplicasRequest>,
    ) -> Answered<Self::BuildSmallReplicasStream> {
        Err(Status::unimplemented(""))
    }

    async fn retrieve_small_replicas(
        &self,
        _: Request<v1::RetrieveSmallReplicasRequest>,
    ) -> Answered<Self::RetrieveSmallReplicasStream> {
        Err(Status::unimplemented(""))
    }

    async fn verify_replica(
        &self,
        _: Request<v1::VerifyReplicaRequest>,
    ) -> Answered<v1::VerifyReplicaResponse> {
        Err(Status::unimplemented(""))
    }

    async fn delete_chunks(
        &self,
        _: Request<v1::DeleteChunksRequest>,
    ) -> Answered<v1::DeleteChunksResponse> {
        Err(Status::unimplemented(""))
    }

    async fn adopt_replica(
        &self,
        _: Request<v1::AdoptReplicaRequest>,
    ) -> Answered<Self::AdoptReplicaStream> {
        Err(Status::unimplemented(""))
    }

    type ListChunksStream = Answers<v1::ChunkListPage>;

    type InventoryStream = Answers<v1::InventoryPage>;

    type BuildReplicaStream = Answers<v1::BuildReplicaResponse>;
    type BuildSmallReplicasStream = Answers<v1::BuildSmallReplicasResponse>;
    type RetrieveSmallReplicasStream = Answers<v1::SmallReplica>;

    type AdoptReplicaStream = Answers<v1::AdoptReplicaResponse>;

    async fn inventory(&self, _: Request<v1::InventoryRequest>) -> Answered<Self::InventoryStream> {
        Err(Status::unimplemented(""))
    }

    async fn list_chunks(
        &self,
        request: Request<v1::ListChunksRequest>,
    ) -> Answered<Self::ListChunksStream> {
        note(&self.world, "ListChunks", &request);
        Err(Status::unimplemented("clients do not list chunks"))
    }

    async fn settle_disk(
        &self,
        _: Request<v1::SettleDiskRequest>,
    ) -> Answered<v1::SettleDiskResponse> {
        Err(Status::unimplemented(""))
    }
}
