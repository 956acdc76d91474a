//! The calls that the fake serves.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use dfs_proto::v1::data_node_server::DataNode;
use dfs_proto::{Failure, v1};
use dfs_types::{ChunkId, ErrorCode, Part, ReplicaDigest};
use futures_util::Stream;
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status, Streaming};

use super::FakeDataNode;

/// The calls of one fake.
pub(super) struct Handler(pub(super) Arc<FakeDataNode>);

/// Returns a reply with this result. The first message only shows progress.
fn with_progress<T: Default + Send + 'static>(result: T) -> Frames<T> {
    Box::pin(tokio_stream::iter([Ok(T::default()), Ok(result)]))
}

type Frames<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl DataNode for Handler {
    type ChunkDataStreamStream = Frames<v1::ChunkAck>;
    type RetrieveChunkStream = Frames<v1::ChunkFrame>;
    type InventoryStream = Frames<v1::InventoryPage>;
    type ListChunksStream = Frames<v1::ChunkListPage>;
    type BuildReplicaStream = Frames<v1::BuildReplicaResponse>;
    type BuildSmallReplicasStream = Frames<v1::BuildSmallReplicasResponse>;
    type RetrieveSmallReplicasStream = Frames<v1::SmallReplica>;
    type AdoptReplicaStream = Frames<v1::AdoptReplicaResponse>;

    async fn prepare_chunk_upload(
        &self,
        request: Request<v1::ChunkMeta>,
    ) -> Result<Response<v1::ChunkUploadReady>, Status> {
        if request.get_ref().node_id != self.0.id.to_bytes().to_vec() {
            return Err(
                Failure::new(ErrorCode::Unavailable, "the order is for another node").into()
            );
        }
        let session_id = self.0.id.to_bytes().to_vec().into();
        Ok(Response::new(v1::ChunkUploadReady { session_id, ..v1::ChunkUploadReady::default() }))
    }

    async fn chunk_data_stream(
        &self,
        request: Request<Streaming<v1::ChunkData>>,
    ) -> Result<Response<Self::ChunkDataStreamStream>, Status> {
        if self.0.state.lock().unwrap().takes_no_more {
            let unread = request.into_inner();
            let acks = futures_util::stream::poll_fn(move |_| {
                let _ = &unread;
                Poll::Pending
            });
            return Ok(Response::new(Box::pin(acks)));
        }
        // Acknowledges what has arrived, and stores nothing.
        let mut received_offset = 0;
        let acks = request.into_inner().map(move |data| {
            if let Some(v1::chunk_data::Kind::Frame(frame)) = data?.kind {
                received_offset += frame.data.len() as u64;
            }
            let progress = v1::Progress { received_offset, dropped: Vec::new() };
            Ok(v1::ChunkAck { kind: Some(v1::chunk_ack::Kind::Progress(progress)) })
        });
        Ok(Response::new(Box::pin(acks)))
    }

    async fn retrieve_chunk(
        &self,
        request: Request<v1::RetrieveRequest>,
    ) -> Result<Response<Self::RetrieveChunkStream>, Status> {
        let request = request.into_inner();
        let origin = v1::ChunkOrigin { path: "/origin".into(), ..v1::ChunkOrigin::default() };
        let origin = request.for_build.then_some(origin);
        // Sends as many zero frames as requested.
        let frames = (0..request.length).map(move |number| {
            let (data, origin) = (vec![0; 1 << 20].into(), origin.clone());
            Ok(v1::ChunkFrame { offset: number << 20, data, origin, ..Default::default() })
        });
        let none = Err(Failure::new(ErrorCode::NotFound, "no such chunk").into());
        let frames = tokio_stream::iter(frames).chain(tokio_stream::once(none));
        Ok(Response::new(Box::pin(frames)))
    }

    async fn report_corrupt(
        &self,
        _: Request<v1::CorruptReport>,
    ) -> Result<Response<v1::CorruptVerdict>, Status> {
        Err(Status::unimplemented("the fake has no data"))
    }

    async fn build_replica(
        &self,
        request: Request<v1::BuildReplicaRequest>,
    ) -> Result<Response<Self::BuildReplicaStream>, Status> {
        let mut request = request.into_inner();
        self.0.open(&mut request)?;
        self.0.check_epoch(request.lease_epoch)?;
        let chunk = ChunkId::from_slice(&request.chunk_id).unwrap();
        let _building = self.0.builds.enter(chunk).await?;
        Ok(Response::new(with_progress(self.0.build(&request))))
    }

    async fn build_small_replicas(
        &self,
        request: Request<v1::BuildSmallReplicasRequest>,
    ) -> Result<Response<Self::BuildSmallReplicasStream>, Status> {
        let mut request = request.into_inner();
        self.0.open(&mut request)?;
        self.0.check_epoch(request.lease_epoch)?;
        let built = self.0.build_small(&request)?;
        let response = v1::BuildSmallReplicasResponse { built };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(response)))))
    }

    async fn retrieve_small_replicas(
        &self,
        _: Request<v1::RetrieveSmallReplicasRequest>,
    ) -> Result<Response<Self::RetrieveSmallReplicasStream>, Status> {
        Err(Status::unimplemented("the fake has no data"))
    }

    async fn verify_replica(
        &self,
        request: Request<v1::VerifyReplicaRequest>,
    ) -> Result<Response<v1::VerifyReplicaResponse>, Status> {
        let mut request = request.into_inner();
        self.0.open(&mut request)?;
        let verified = self.0.verify(request);
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
        self.0.verifies.subscribe().wait_for(|verifies| *verifies).await.unwrap();
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        Ok(Response::new(verified))
    }

    async fn adopt_replica(
        &self,
        request: Request<v1::AdoptReplicaRequest>,
    ) -> Result<Response<Self::AdoptReplicaStream>, Status> {
        let mut request = request.into_inner();
        self.0.open(&mut request)?;
        self.0.check_epoch(request.lease_epoch)?;
        Ok(Response::new(with_progress(self.0.adopt(&request)?)))
    }

    async fn delete_chunks(
        &self,
        request: Request<v1::DeleteChunksRequest>,
    ) -> Result<Response<v1::DeleteChunksResponse>, Status> {
        let mut request = request.into_inner();
        self.0.open(&mut request)?;
        self.0.check_epoch(request.lease_epoch)?;
        Ok(Response::new(self.0.delete(&request)))
    }

    async fn inventory(
        &self,
        request: Request<v1::InventoryRequest>,
    ) -> Result<Response<Self::InventoryStream>, Status> {
        let mut request = request.into_inner();
        self.0.open(&mut request)?;
        let mut digest = ReplicaDigest::default();
        for (chunk, replica) in self.0.in_range(&request.from, &request.to) {
            digest.add(request.cycle, chunk, Part::WHOLE, replica.stamp);
        }
        let disk = v1::DiskDigest {
            disk_id: self.0.disk_now().to_bytes().to_vec().into(),
            count: digest.count,
            sum: digest.sum,
        };
        // The first one only shows progress.
        let last = v1::InventoryPage { disks: vec![disk], is_last: true };
        let pages = [Ok(v1::InventoryPage::default()), Ok(last)];
        Ok(Response::new(Box::pin(tokio_stream::iter(pages))))
    }

    async fn list_chunks(
        &self,
        request: Request<v1::ListChunksRequest>,
    ) -> Result<Response<Self::ListChunksStream>, Status> {
        let mut request = request.into_inner();
        self.0.open(&mut request)?;
        let disk = self.0.disk_now().to_bytes().to_vec();
        let chunks = self.0.in_range(&request.from, &request.to).into_iter();
        let chunks = chunks.map(|(chunk, replica)| v1::ListedChunk {
            replica: Some(v1::ReplicaRef {
                chunk_id: chunk.to_bytes().to_vec().into(),
                disk_id: disk.clone().into(),
                stamp: replica.stamp.0,
                part: 0,
            }),
            length: replica.length,
            crc32c: replica.crc32c.0,
            ..v1::ListedChunk::default()
        });
        let verdict = {
            let mut state = self.0.state.lock().unwrap();
            state.next_stamp += 1;
            state.next_stamp - 1
        };
        let mut page = v1::ChunkListPage { chunks: chunks.collect(), is_last: true, verdict };
        let mut state = self.0.state.lock().unwrap();
        if state.lists_incompletely {
            page.chunks.clear();
            page.is_last = false;
        }
        state.is_listed |= page.is_last;
        drop(state);
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(page)]))))
    }

    async fn settle_disk(
        &self,
        request: Request<v1::SettleDiskRequest>,
    ) -> Result<Response<v1::SettleDiskResponse>, Status> {
        let mut request = request.into_inner();
        self.0.open(&mut request)?;
        self.0.check_epoch(request.lease_epoch)?;
        assert_eq!(request.disk_id, self.0.disk_now().to_bytes()[..]);
        let mut state = self.0.state.lock().unwrap();
        let is_listed = state.is_listed;
        state.settlements.push(is_listed);
        state.has_returning_disk = false;
        Ok(Response::new(v1::SettleDiskResponse {}))
    }
}
