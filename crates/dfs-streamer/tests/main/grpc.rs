//! The same over gRPC, between a real channel and server.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dfs_proto::v1::{self, data_node_server};
use dfs_proto::{FRAME_MESSAGE_LEN_MAX, Failure, wire};
use dfs_streamer::grpc::{GrpcLink, ack_from_wire, ack_to_wire, frame_from_wire};
use dfs_streamer::{Ack, Dropped, Error, Hashing, Link, Outcome, Session, chunk_source};
use dfs_transport::{
    Channels, ConnectionLimits, Gate, MemoryNetwork, Network as _, Security, Server, serve,
};
use dfs_types::{ErrorCode, Frame, NodeId, SessionId};
use futures_util::{Stream, StreamExt as _};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::toy::{BLOCK, Node, bytes, config, frames, receipt, run, seal, send, source};

const GATE: Gate = Gate::new(Server::Datanode, Security::Plaintext);

/// A datanode with one session, whose id is 1.
struct OneSession(Arc<Session>);

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl data_node_server::DataNode for OneSession {
    type ChunkDataStreamStream = Streamed<v1::ChunkAck>;
    type RetrieveChunkStream = Streamed<v1::ChunkFrame>;
    type ListChunksStream = Streamed<v1::ChunkListPage>;
    type InventoryStream = Streamed<v1::InventoryPage>;
    type BuildReplicaStream = Streamed<v1::BuildReplicaResponse>;
    type BuildSmallReplicasStream = Streamed<v1::BuildSmallReplicasResponse>;
    type RetrieveSmallReplicasStream = Streamed<v1::SmallReplica>;
    type AdoptReplicaStream = Streamed<v1::AdoptReplicaResponse>;

    async fn chunk_data_stream(
        &self,
        request: Request<Streaming<v1::ChunkData>>,
    ) -> Result<Response<Self::ChunkDataStreamStream>, Status> {
        let mut data = request.into_inner();
        let Some(v1::ChunkData { kind: Some(v1::chunk_data::Kind::Attach(attach)) }) =
            data.message().await?
        else {
            return Err(Status::invalid_argument("no attach"));
        };
        let session: SessionId = wire::id("session_id", &attach.session_id)?;
        match session.0 {
            1 => {}
            2 => return Err(Failure::new(ErrorCode::NoSpace, "full").into()),
            _ => return Err(Failure::from(Error::UnknownSession).into()),
        }
        let acks = self.0.attach(attach.attach_number, data.map(frame_from_wire));
        let acks = ReceiverStream::new(acks)
            .map(|ack| ack.map(ack_to_wire).map_err(|error| Failure::from(error).into()));
        Ok(Response::new(Box::pin(acks)))
    }

    async fn prepare_chunk_upload(
        &self,
        _request: Request<v1::ChunkMeta>,
    ) -> Result<Response<v1::ChunkUploadReady>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn retrieve_chunk(
        &self,
        _request: Request<v1::RetrieveRequest>,
    ) -> Result<Response<Self::RetrieveChunkStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn report_corrupt(
        &self,
        _request: Request<v1::CorruptReport>,
    ) -> Result<Response<v1::CorruptVerdict>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn build_replica(
        &self,
        _request: Request<v1::BuildReplicaRequest>,
    ) -> Result<Response<Self::BuildReplicaStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn build_small_replicas(
        &self,
        _request: Request<v1::BuildSmallReplicasRequest>,
    ) -> Result<Response<Self::BuildSmallReplicasStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn retrieve_small_replicas(
        &self,
        _request: Request<v1::RetrieveSmallReplicasRequest>,
    ) -> Result<Response<Self::RetrieveSmallReplicasStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn verify_replica(
        &self,
        _request: Request<v1::VerifyReplicaRequest>,
    ) -> Result<Response<v1::VerifyReplicaResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn delete_chunks(
        &self,
        _request: Request<v1::DeleteChunksRequest>,
    ) -> Result<Response<v1::DeleteChunksResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn adopt_replica(
        &self,
        _: Request<v1::AdoptReplicaRequest>,
    ) -> Result<Response<Self::AdoptReplicaStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn inventory(
        &self,
        _request: Request<v1::InventoryRequest>,
    ) -> Result<Response<Self::InventoryStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_chunks(
        &self,
        _request: Request<v1::ListChunksRequest>,
    ) -> Result<Response<Self::ListChunksStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn settle_disk(
        &self,
        _: Request<v1::SettleDiskRequest>,
    ) -> Result<Response<v1::SettleDiskResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Serves the session at `node:7080`.
async fn serving(network: &MemoryNetwork, session: Arc<Session>) -> GrpcLink {
    let listener = network.listen("node:7080").await.unwrap();
    let service = data_node_server::DataNodeServer::new(OneSession(session))
        .max_decoding_message_size(FRAME_MESSAGE_LEN_MAX);
    let routes = tonic::service::Routes::new(service);
    let stopped = std::future::pending();
    let limits = ConnectionLimits::default();
    tokio::spawn(serve(listener, limits, routes, GATE, Arc::new(()), stopped, Duration::ZERO));
    let channels = Channels::new(Arc::new(network.clone()), Security::Plaintext);
    GrpcLink::new(channels.bulk("node:7080", 1).unwrap())
}

#[test]
fn chunk_arrives_over_grpc() {
    for length in [0, 1, Frame::DATA_MAX, 9 * Frame::DATA_MAX + 5] {
        run(async {
            let node = Node::new(1);
            let link = serving(&MemoryNetwork::default(), node.session(config(1), vec![])).await;
            let content = bytes(length, 1);
            let mut source = chunk_source(Arc::new(content.clone()), Hashing::Inline);
            let outcome = send(&link, &mut source).await.unwrap();
            assert_eq!(outcome.receipts, [receipt(NodeId(1), &seal(&content))]);
            assert_eq!(node.sealed().unwrap(), content);
        });
    }
}

#[test]
fn cut_connection_is_resumed() {
    // Among the frames, and during the seal.
    for in_seal in [false, true] {
        run(async {
            let (network, node) = (MemoryNetwork::default(), Node::new(1));
            let link = serving(&network, node.session(config(1), vec![])).await;
            let content = bytes(9 * Frame::DATA_MAX + 5, 1);
            let may = if in_seal { &node.0.may_seal } else { &node.0.may_append };
            may.send_replace(false);
            let sent = content.clone();
            let sending = tokio::spawn(async move {
                send(&link, &mut chunk_source(Arc::new(sent), Hashing::Inline)).await
            });
            if in_seal {
                node.sealing_begun().await;
            } else {
                node.appends_begun(1).await;
            }
            network.cut();
            may.send_replace(true);
            assert_eq!(sending.await.unwrap().unwrap().receipts.len(), 1);
            assert_eq!(node.sealed().unwrap(), content);
            assert_eq!(network.dialled(), 2);
        });
    }
}

#[test]
fn replica_on_a_dead_node_is_dropped_over_grpc() {
    run(async {
        let (network, replica) = (MemoryNetwork::default(), Node::new(2));
        let channels = Channels::new(Arc::new(network), Security::Plaintext);
        let link = Arc::new(GrpcLink::new(channels.bulk("gone:7080", 1).unwrap()));
        let session = Node::new(1).session(config(1), vec![replica.replica(link)]);
        let link = crate::toy::Direct(session);
        let outcome = send(&link, &mut source(frames(&bytes(BLOCK, 1), BLOCK))).await.unwrap();
        assert_eq!(outcome.receipts.len(), 1);
        assert_eq!(outcome.dropped[0].code, ErrorCode::Unavailable);
    });
}

#[test]
fn refusals_are_transmitted_unchanged() {
    run(async {
        let node = Node::new(1);
        let link = serving(&MemoryNetwork::default(), node.session(config(1), vec![])).await;
        let attach = async |session| match link.attach(SessionId(session), 1).await {
            Ok(mut attachment) => attachment.acks.next().await.unwrap(),
            Err(error) => Err(error),
        };
        assert_eq!(attach(3).await, Err(Error::UnknownSession));
        let full = Error::Refused { code: ErrorCode::NoSpace, message: "full".to_owned() };
        assert_eq!(attach(2).await, Err(full));
        assert_eq!(attach(1).await, Ok(Ack::Attached { resume: 0 }));
        // An early end, and a frame with a wrong checksum.
        let content = bytes(2 * BLOCK, 1);
        for wrong in [false, true] {
            let mut all = frames(&content, BLOCK);
            all[1].crcs[0].0 ^= u32::from(wrong);
            let all = if wrong { all } else { vec![all.remove(1)] };
            let session = Node::new(1).session(config(1), vec![]);
            let link = serving(&MemoryNetwork::default(), session).await;
            let mut attachment = link.attach(SessionId(1), 1).await.unwrap();
            for frame in all {
                attachment.frames.send(frame).await.unwrap();
            }
            let mut last = None;
            while let Some(ack) = attachment.acks.next().await {
                last = Some(ack);
            }
            let Some(Err(Error::Refused { code, .. })) = last else { panic!("{last:?}") };
            let expected = [ErrorCode::InvalidArgument, ErrorCode::ChecksumMismatch];
            assert_eq!(code, expected[usize::from(wrong)]);
        }
    });
}

#[test]
fn message_larger_than_a_frame_is_refused() {
    run(async {
        let node = Node::new(1);
        let link = serving(&MemoryNetwork::default(), node.session(config(1), vec![])).await;
        let data = bytes(Frame::DATA_MAX + 2 * BLOCK, 1);
        let mut attachment = link.attach(SessionId(1), 1).await.unwrap();
        attachment.frames.send(Frame::of(0, data, None)).await.unwrap();
        let mut last = None;
        while let Some(ack) = attachment.acks.next().await {
            last = Some(ack);
        }
        assert!(matches!(last, Some(Err(_))), "{last:?}");
        assert_eq!(*node.0.begun.borrow(), 0);
    });
}

#[test]
fn acks_round_trip_on_the_wire() {
    let dropped = Dropped {
        node: NodeId(5),
        code: ErrorCode::Unavailable,
        message: "no progress".to_owned(),
    };
    let outcome =
        Outcome { receipts: vec![receipt(NodeId(1), &seal(&bytes(7, 1)))], dropped: vec![dropped] };
    for ack in [
        Ack::Attached { resume: 7 },
        Ack::Progress { received: u64::MAX },
        Ack::Sealed(outcome),
        Ack::Sealed(Outcome::default()),
    ] {
        assert_eq!(ack_from_wire(ack_to_wire(ack.clone())), Ok(ack));
    }
    let mut odd = ack_to_wire(Ack::Sealed(Outcome {
        receipts: vec![receipt(NodeId(1), &seal(&bytes(7, 1)))],
        dropped: Vec::new(),
    }));
    if let Some(v1::chunk_ack::Kind::Sealed(sealed)) = &mut odd.kind {
        sealed.receipts[0].node_id = vec![1, 2, 3].into();
    }
    for odd in [odd, v1::ChunkAck { kind: None }] {
        let error = ack_from_wire(odd).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Internal, "{error:?}");
    }
    for odd in [
        v1::ChunkData { kind: None },
        v1::ChunkData { kind: Some(v1::chunk_data::Kind::Attach(v1::Attach::default())) },
    ] {
        let error = frame_from_wire(Ok(odd)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error:?}");
    }
    let cut = frame_from_wire(Err(Status::unknown("gone"))).unwrap_err();
    assert!(matches!(cut, Error::Cut(_)));
}
