//! The service `DataNode`: each call parses the wire message once, delegates, and replies.

mod adopt;
mod build;
mod bulk;
mod disks;
mod inventory;
mod pace;
mod prepare;
mod progress;
mod pull;
mod replicas;
mod retrieve;
mod small_builds;
mod small_reads;
mod stream;

use std::pin::Pin;
use std::sync::Arc;

use dfs_proto::v1::data_node_server::{DataNode, DataNodeServer};
use dfs_proto::{DESCRIPTOR_SET, v1};
use dfs_transport::{Gate, Security, Server, split};
use futures_util::Stream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tonic_health::server::HealthReporter;

use self::progress::{Messages, Progress};
use crate::Error;
use crate::node::Node;

/// The gate in front of all services of a datanode.
pub(crate) const GATE: Gate = Gate::new(Server::Datanode, Security::Plaintext);

/// Returns all services of a datanode, including health and reflection.
pub(crate) async fn routes(node: &Arc<Node>) -> Result<(Routes, HealthReporter), Error> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
        .build_v1()
        .map_err(Error::Contract)?;
    let service = DataNodeServer::new(Handler(node.clone()));
    let service = bulk::BulkService::new(node.clone(), service);
    reporter.set_serving::<DataNodeServer<Handler>>().await;
    Ok((Routes::new(service).add_service(health).add_service(reflection), reporter))
}

/// Reports to health watchers that the service is shutting down.
pub(crate) async fn stop_serving(reporter: &HealthReporter) {
    reporter.set_not_serving::<DataNodeServer<Handler>>().await;
}

/// Handler of the calls, except those with chunk bytes: see [`bulk::BulkService`].
pub(crate) struct Handler(Arc<Node>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl DataNode for Handler {
    type ChunkDataStreamStream = Answers<v1::ChunkAck>;
    type RetrieveChunkStream = Answers<v1::ChunkFrame>;
    type InventoryStream = Answers<v1::InventoryPage>;
    type ListChunksStream = Answers<v1::ChunkListPage>;
    type BuildReplicaStream = Messages<v1::BuildReplicaResponse>;
    type BuildSmallReplicasStream = Answers<v1::BuildSmallReplicasResponse>;
    type RetrieveSmallReplicasStream = Answers<v1::SmallReplica>;
    type AdoptReplicaStream = Messages<v1::AdoptReplicaResponse>;

    async fn prepare_chunk_upload(
        &self,
        request: Request<v1::ChunkMeta>,
    ) -> Result<Response<v1::ChunkUploadReady>, Status> {
        let (_, request) = split(request)?;
        Ok(Response::new(prepare::run(&self.0, request).await?))
    }

    async fn chunk_data_stream(
        &self,
        _: Request<Streaming<v1::ChunkData>>,
    ) -> Result<Response<Self::ChunkDataStreamStream>, Status> {
        Err(bulk::elsewhere())
    }

    async fn retrieve_chunk(
        &self,
        _: Request<v1::RetrieveRequest>,
    ) -> Result<Response<Self::RetrieveChunkStream>, Status> {
        Err(bulk::elsewhere())
    }

    async fn report_corrupt(
        &self,
        request: Request<v1::CorruptReport>,
    ) -> Result<Response<v1::CorruptVerdict>, Status> {
        let (_, request) = split(request)?;
        Ok(Response::new(replicas::report_corrupt(&self.0, request).await?))
    }

    async fn build_replica(
        &self,
        request: Request<v1::BuildReplicaRequest>,
    ) -> Result<Response<Self::BuildReplicaStream>, Status> {
        let (_, request) = split(request)?;
        let order = self.0.authorise(&request.node_id.clone(), request)?;
        let progress = Progress::default();
        let work = build::run(self.0.clone(), order, progress.clone());
        Ok(Response::new(progress::reply(Box::pin(work), progress).await?))
    }

    async fn build_small_replicas(
        &self,
        request: Request<v1::BuildSmallReplicasRequest>,
    ) -> Result<Response<Self::BuildSmallReplicasStream>, Status> {
        let (_, request) = split(request)?;
        let order = self.0.authorise(&request.node_id.clone(), request)?;
        Ok(Response::new(small_builds::run(self.0.clone(), order).await?))
    }

    async fn retrieve_small_replicas(
        &self,
        request: Request<v1::RetrieveSmallReplicasRequest>,
    ) -> Result<Response<Self::RetrieveSmallReplicasStream>, Status> {
        let (_, request) = split(request)?;
        Ok(Response::new(Box::pin(small_reads::run(&self.0, request).await?)))
    }

    async fn verify_replica(
        &self,
        request: Request<v1::VerifyReplicaRequest>,
    ) -> Result<Response<v1::VerifyReplicaResponse>, Status> {
        let (_, request) = split(request)?;
        let order = self.0.authorise(&request.node_id.clone(), request)?;
        Ok(Response::new(replicas::verify(&self.0, order).await?))
    }

    async fn adopt_replica(
        &self,
        request: Request<v1::AdoptReplicaRequest>,
    ) -> Result<Response<Self::AdoptReplicaStream>, Status> {
        let (_, request) = split(request)?;
        let order = self.0.authorise(&request.node_id.clone(), request)?;
        let progress = Progress::default();
        let work = adopt::run(self.0.clone(), order, progress.clone());
        Ok(Response::new(progress::reply(Box::pin(work), progress).await?))
    }

    async fn delete_chunks(
        &self,
        request: Request<v1::DeleteChunksRequest>,
    ) -> Result<Response<v1::DeleteChunksResponse>, Status> {
        let (_, request) = split(request)?;
        let order = self.0.authorise(&request.node_id.clone(), request)?;
        Ok(Response::new(replicas::delete(&self.0, order).await?))
    }

    async fn inventory(
        &self,
        request: Request<v1::InventoryRequest>,
    ) -> Result<Response<Self::InventoryStream>, Status> {
        let (_, request) = split(request)?;
        let order = self.0.authorise(&request.node_id.clone(), request)?;
        Ok(Response::new(Box::pin(inventory::digests(&self.0, order)?)))
    }

    async fn list_chunks(
        &self,
        request: Request<v1::ListChunksRequest>,
    ) -> Result<Response<Self::ListChunksStream>, Status> {
        let (_, request) = split(request)?;
        let order = self.0.authorise(&request.node_id.clone(), request)?;
        Ok(Response::new(Box::pin(inventory::list(&self.0, order)?)))
    }

    async fn settle_disk(
        &self,
        request: Request<v1::SettleDiskRequest>,
    ) -> Result<Response<v1::SettleDiskResponse>, Status> {
        let (_, request) = split(request)?;
        let order = self.0.authorise(&request.node_id.clone(), request)?;
        Ok(Response::new(disks::settle(&self.0, order).await?))
    }
}
