//! Datanode calls relayed by a coordinator.

use std::sync::Arc;
use std::time::Duration;

use dfs_coordinator::Settings;
use dfs_metadata::memory::MemoryEngine;
use dfs_proto::v1::data_node_client::DataNodeClient;
use dfs_proto::{FRAME_MESSAGE_LEN_MAX, Failure, v1};
use dfs_transport::NODE_ID_HEADER;
use dfs_types::{ErrorCode, NodeId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use crate::cluster::{Cluster, channel, eventually, http_get, refused, settings};

async fn client(cluster: &Cluster) -> DataNodeClient<Channel> {
    DataNodeClient::new(channel(&cluster.address()).await)
        .max_decoding_message_size(FRAME_MESSAGE_LEN_MAX)
}

fn to<T>(node: u128, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let id = NodeId(node).to_string().parse().unwrap();
    request.metadata_mut().insert(NODE_ID_HEADER, id);
    request
}

fn prepare(node: u128) -> v1::ChunkMeta {
    let node_id = NodeId(node).to_bytes().to_vec().into();
    v1::ChunkMeta { node_id, ..v1::ChunkMeta::default() }
}

/// Requests this many MiB.
async fn read(cluster: &Cluster, length: u64) -> Result<Streaming<v1::ChunkFrame>, tonic::Status> {
    let request = v1::RetrieveRequest { length, ..v1::RetrieveRequest::default() };
    Ok(client(cluster).await.retrieve_chunk(to(1, request)).await?.into_inner())
}

/// Returns a metric of the coordinator.
async fn metric(cluster: &Cluster, name: &str) -> u64 {
    let shown = http_get(&cluster.handle, "/metrics").await;
    let line =
        shown.lines().find_map(|line| line.strip_prefix(&format!("dfs_coordinator_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {shown}")).parse().unwrap()
}

async fn bounded(relay_streams: usize) -> Cluster {
    let settings = Settings { relay_streams, ..settings() };
    Cluster::with(settings, Arc::new(MemoryEngine::new()), 1).await
}

#[tokio::test]
async fn relayed_call_reaches_the_node_and_returns() {
    let cluster = Cluster::start(2).await;
    for node in [1, 2] {
        let ready = client(&cluster).await.prepare_chunk_upload(to(node, prepare(node))).await;
        assert_eq!(ready.unwrap().into_inner().session_id, NodeId(node).to_bytes().to_vec());
    }
    let misdirected = client(&cluster).await.prepare_chunk_upload(to(1, prepare(2))).await;
    assert_eq!(refused(misdirected), ErrorCode::Unavailable);
    assert_eq!(metric(&cluster, "relayed_total").await, 3);
}

#[tokio::test]
async fn relayed_bytes_are_counted_in_both_directions() {
    let cluster = Cluster::start(1).await;
    let mut frames = read(&cluster, 40).await.unwrap();
    let mut received = 0;
    let ended = loop {
        match frames.message().await {
            Ok(Some(frame)) => received += frame.data.len(),
            Ok(None) => panic!("it ends with a status"),
            Err(status) => break Failure::from_status(&status),
        }
    };
    assert_eq!((received, ended.code), (40 << 20, ErrorCode::NotFound));
    assert_eq!(ended.message, "no such chunk");

    let (frames, outgoing) = mpsc::channel(1);
    let acks = client(&cluster).await.chunk_data_stream(to(1, ReceiverStream::new(outgoing))).await;
    let mut acks = acks.unwrap().into_inner();
    for number in 1..=10 {
        let data = vec![7; 1 << 20].into();
        let frame = v1::ChunkFrame { data, ..v1::ChunkFrame::default() };
        let kind = Some(v1::chunk_data::Kind::Frame(frame));
        frames.send(v1::ChunkData { kind }).await.unwrap();
        let Some(v1::chunk_ack::Kind::Progress(progress)) =
            acks.message().await.unwrap().unwrap().kind
        else {
            panic!("it was progress")
        };
        assert_eq!(progress.received_offset, number << 20);
    }
    drop(frames);
    assert!(acks.message().await.unwrap().is_none());
    let from = metric(&cluster, "relayed_bytes_total{direction=\"from_node\"}").await;
    let to = metric(&cluster, "relayed_bytes_total{direction=\"to_node\"}").await;
    assert!((40 << 20..41 << 20).contains(&from), "{from}");
    assert!((10 << 20..11 << 20).contains(&to), "{to}");
    eventually("nothing is open", || async { metric(&cluster, "relayed_open").await == 0 }).await;
}

#[tokio::test]
async fn relayed_streams_are_bounded_and_dropped_ones_free_their_place() {
    let cluster = bounded(2).await;
    // More than fits into the windows: they stay open until read or dropped.
    let first = read(&cluster, 60).await.unwrap();
    let second = read(&cluster, 60).await.unwrap();
    assert_eq!(metric(&cluster, "relayed_open").await, 2);
    let failure = Failure::from_status(&read(&cluster, 1).await.unwrap_err());
    assert_eq!(failure.code, ErrorCode::Busy);
    assert!(failure.retry_after.is_some(), "{failure:?}");
    assert!(failure.message.contains("relay_streams"), "{failure}");
    assert_eq!(metric(&cluster, "relayed_refused_total{reason=\"busy\"}").await, 1);
    // Buffering is bounded: the nodes were not read to the end.
    let held = metric(&cluster, "relayed_bytes_total{direction=\"from_node\"}").await;
    assert!(held < 2 * (16 << 20), "{held}");
    let small = client(&cluster).await.prepare_chunk_upload(to(1, prepare(1))).await;
    small.expect("small calls do not wait behind streams");
    drop(first);
    eventually("there is room", || async { read(&cluster, 0).await.is_ok() }).await;
    drop(second);
    eventually("nothing is open", || async { metric(&cluster, "relayed_open").await == 0 }).await;
}

/// A relayed upload of which one frame is acknowledged per step.
struct Upload {
    frames: mpsc::Sender<v1::ChunkData>,
    acks: Streaming<v1::ChunkAck>,
}

impl Upload {
    async fn start(cluster: &Cluster) -> Self {
        let (frames, outgoing) = mpsc::channel(1);
        let call = to(1, ReceiverStream::new(outgoing));
        let acks = client(cluster).await.chunk_data_stream(call).await.unwrap().into_inner();
        Self { frames, acks }
    }

    async fn step(&mut self) -> Result<(), Failure> {
        let frame = v1::ChunkFrame { data: vec![7; 9].into(), ..v1::ChunkFrame::default() };
        let kind = Some(v1::chunk_data::Kind::Frame(frame));
        drop(self.frames.send(v1::ChunkData { kind }).await);
        self.acknowledged().await
    }

    async fn acknowledged(&mut self) -> Result<(), Failure> {
        let ack = tokio::time::timeout(Duration::from_secs(20), self.acks.message()).await;
        let ack = ack.expect("there is a reply in time");
        ack.map_err(|status| Failure::from_status(&status))?.expect("it ends with a status");
        Ok(())
    }
}

async fn later(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn idle_stream_ends_and_frees_its_place() {
    let cluster = bounded(1).await;
    let mut upload = Upload::start(&cluster).await;
    for _ in 0..3 {
        upload.step().await.unwrap();
        later(80).await;
    }
    upload.step().await.unwrap();
    later(91).await;
    let failure = upload.acknowledged().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Unavailable);
    eventually("nothing is open", || async { metric(&cluster, "relayed_open").await == 0 }).await;
}

#[tokio::test]
async fn stalled_node_frees_its_place() {
    let cluster = bounded(1).await;
    cluster.nodes[&NodeId(1)].take_no_more();
    let upload = Upload::start(&cluster).await;
    // Until the windows are full, and the connection to the node waits for room.
    let mut sent = 0;
    loop {
        let data = vec![7; 1 << 20].into();
        let frame = v1::ChunkFrame { data, ..v1::ChunkFrame::default() };
        let kind = Some(v1::chunk_data::Kind::Frame(frame));
        let sending = upload.frames.send(v1::ChunkData { kind });
        if tokio::time::timeout(Duration::from_secs(1), sending).await.is_err() {
            break;
        }
        sent += 1;
        assert!(sent < 64, "{sent} MiB were buffered");
    }
    later(91).await;
    eventually("nothing is open", || async { metric(&cluster, "relayed_open").await == 0 }).await;
}

#[tokio::test]
async fn stream_ends_after_an_hour() {
    let cluster = bounded(1).await;
    let mut upload = Upload::start(&cluster).await;
    for _ in 0..59 {
        upload.step().await.unwrap();
        later(60).await;
    }
    upload.step().await.unwrap();
    later(60).await;
    // A frame would be acknowledged.
    let failure = upload.step().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Unavailable);
    eventually("nothing is open", || async { metric(&cluster, "relayed_open").await == 0 }).await;
}

#[tokio::test]
async fn disabled_relay_explains_alternatives() {
    let cluster = bounded(0).await;
    let failure = Failure::from_status(&read(&cluster, 1).await.unwrap_err());
    assert_eq!(failure.code, ErrorCode::Unimplemented);
    for part in ["relay_streams is 0", "--kube"] {
        assert!(failure.message.contains(part), "{failure}");
    }
    assert_eq!(metric(&cluster, "relayed_refused_total{reason=\"off\"}").await, 1);
}

#[tokio::test]
async fn orders_among_servers_are_not_relayed() {
    let cluster = Cluster::start(1).await;
    let mut client = client(&cluster).await;
    let request = v1::BuildReplicaRequest { lease_epoch: 1, ..Default::default() };
    assert_eq!(refused(client.build_replica(to(1, request)).await), ErrorCode::PermissionDenied);
    let request = v1::DeleteChunksRequest { lease_epoch: 1, ..Default::default() };
    assert_eq!(refused(client.delete_chunks(to(1, request)).await), ErrorCode::PermissionDenied);
    let request = v1::ListChunksRequest::default();
    assert_eq!(refused(client.list_chunks(to(1, request)).await), ErrorCode::PermissionDenied);
    let reason = "relayed_refused_total{reason=\"not_for_clients\"}";
    assert_eq!(metric(&cluster, reason).await, 3);
    assert!(cluster.node(1).deletes().is_empty());
}

#[tokio::test]
async fn only_responsive_members_are_dialled() {
    let cluster = Cluster::start(1).await;
    let mut client = client(&cluster).await;
    assert_eq!(refused(client.prepare_chunk_upload(to(9, prepare(9))).await), ErrorCode::NotFound);
    let mut misdirected = Request::new(prepare(1));
    misdirected.metadata_mut().insert(NODE_ID_HEADER, "127.0.0.1:22".parse().unwrap());
    assert_eq!(refused(client.prepare_chunk_upload(misdirected).await), ErrorCode::InvalidArgument);
    let unnamed = client.prepare_chunk_upload(Request::new(prepare(1))).await;
    assert_eq!(refused(unnamed), ErrorCode::InvalidArgument);
    let reason = "relayed_refused_total{reason=\"unknown_node\"}";
    assert_eq!(metric(&cluster, reason).await, 3);
    cluster.node(1).silence();
    eventually("its silence is known", || async {
        let answer = client.clone().prepare_chunk_upload(to(1, prepare(1))).await;
        answer.is_err_and(|status| status.message().contains("sends no heartbeats"))
    })
    .await;
}
