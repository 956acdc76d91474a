//! A coordinator that relays calls to datanodes.

use std::sync::Arc;

use dfs_proto::v1;
use dfs_proto::v1::data_node_server::DataNode;
use dfs_transport::NODE_ID_HEADER;
use dfs_types::ErrorCode;
use futures_util::StreamExt as _;
use tonic::{Request, Status, Streaming};

use crate::{Answered, Answers, FakeDataNode, Relaying, World, refusal};

pub(crate) struct FakeRelay {
    pub(crate) world: Arc<World>,
    /// Its address.
    pub(crate) at: String,
}

impl FakeRelay {
    fn node<T>(&self, request: &Request<T>) -> Result<FakeDataNode, Status> {
        let named = request.metadata().get(NODE_ID_HEADER).and_then(|id| id.to_str().ok());
        let node = self.world.nodes.iter().find(|node| Some(&*node.id.to_string()) == named);
        let node = node.ok_or_else(|| refusal(ErrorCode::NotFound, "no such node"))?.clone();
        let mut state = self.world.state.lock().unwrap();
        if state.relaying == Relaying::Off {
            return Err(refusal(ErrorCode::Unimplemented, "turned off, try another route"));
        }
        if !self.world.is_up(&node) {
            return Err(refusal(ErrorCode::Unavailable, "it sends no heartbeats"));
        }
        *state.relayed.entry(self.at.clone()).or_default() += 1;
        Ok(FakeDataNode { node, world: self.world.clone() })
    }

    fn stream<T>(&self, request: &Request<T>) -> Result<FakeDataNode, Status> {
        {
            let mut state = self.world.state.lock().unwrap();
            if state.busy_relays > 0 {
                state.busy_relays -= 1;
                return Err(refusal(ErrorCode::Busy, "enough streams"));
            }
        }
        self.node(request)
    }
}

#[tonic::async_trait]
impl DataNode for FakeRelay {
    type ChunkDataStreamStream = Answers<v1::ChunkAck>;
    type RetrieveChunkStream = Answers<v1::ChunkFrame>;
    type ListChunksStream = Answers<v1::ChunkListPage>;
    type InventoryStream = Answers<v1::InventoryPage>;
    type BuildReplicaStream = Answers<v1::BuildReplicaResponse>;
    type BuildSmallReplicasStream = Answers<v1::BuildSmallReplicasResponse>;
    type RetrieveSmallReplicasStream = Answers<v1::SmallReplica>;
    type AdoptReplicaStream = Answers<v1::AdoptReplicaResponse>;

    async fn prepare_chunk_upload(
        &self,
        request: Request<v1::ChunkMeta>,
    ) -> Answered<v1::ChunkUploadReady> {
        self.node(&request)?.prepare_chunk_upload(request).await
    }

    async fn chunk_data_stream(
        &self,
        request: Request<Streaming<v1::ChunkData>>,
    ) -> Answered<Self::ChunkDataStreamStream> {
        self.stream(&request)?.chunk_data_stream(request).await
    }

    async fn retrieve_chunk(
        &self,
        request: Request<v1::RetrieveRequest>,
    ) -> Answered<Self::RetrieveChunkStream> {
        let answer = self.stream(&request)?.retrieve_chunk(request).await?;
        let world = self.world.clone();
        Ok(answer.map(|frames| {
            let frames = frames.map(move |frame| {
                let mut frame: v1::ChunkFrame = frame?;
                let mut state = world.state.lock().unwrap();
                if state.relaying == Relaying::FlipsABit {
                    state.relaying = Relaying::On;
                    let mut data = frame.data.to_vec();
                    data[7] ^= 1;
                    frame.data = data.into();
                }
                Ok(frame)
            });
            Box::pin(frames) as Self::RetrieveChunkStream
        }))
    }

    async fn report_corrupt(
        &self,
        request: Request<v1::CorruptReport>,
    ) -> Answered<v1::CorruptVerdict> {
        self.node(&request)?.report_corrupt(request).await
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

    async fn inventory(&self, _: Request<v1::InventoryRequest>) -> Answered<Self::InventoryStream> {
        Err(Status::unimplemented(""))
    }

    async fn list_chunks(
        &self,
        _: Request<v1::ListChunksRequest>,
    ) -> Answered<Self::ListChunksStream> {
        Err(Status::unimplemented(""))
    }

    async fn settle_disk(
        &self,
        _: Request<v1::SettleDiskRequest>,
    ) -> Answered<v1::SettleDiskResponse> {
        Err(Status::unimplemented(""))
    }
}
