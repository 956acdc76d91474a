//! Messages beyond the limits, and connections of other protocols.

use std::time::Duration;

use dfs_proto::v1::ClusterStatusRequest;
use dfs_proto::v1::admin_server::AdminServer;
use dfs_transport::{MemoryNetwork, Network as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use crate::service::{Running, Service, client, replication};

async fn server(network: &MemoryNetwork, answer: usize) -> Running {
    let service = Service { answer, ..Service::default() };
    service.may_end.send_replace(true);
    let server = AdminServer::new(service).max_encoding_message_size(64 << 20);
    Running::start(network, "a:1", server, Duration::ZERO).await
}

#[tokio::test(start_paused = true)]
async fn message_may_be_larger_than_every_window() {
    let network = MemoryNetwork::default();
    let _running = server(&network, 40 << 20).await;
    let mut client = client(&network, "a:1").max_decoding_message_size(64 << 20);
    let answer = client.cluster_status(ClusterStatusRequest::default()).await.unwrap();
    assert_eq!(answer.get_ref().version.len(), 40 << 20);
}

#[tokio::test(start_paused = true)]
async fn message_over_its_limit_is_refused_and_the_connection_survives() {
    let network = MemoryNetwork::default();
    let _running = server(&network, 9 << 20).await;
    let mut client = client(&network, "a:1").max_decoding_message_size(dfs_proto::MESSAGE_LEN_MAX);
    let refused = client.cluster_status(ClusterStatusRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    client.set_replication(replication(1)).await.unwrap();
    assert_eq!(network.dialled(), 1);
}

#[tokio::test(start_paused = true)]
async fn headers_are_limited() {
    let network = MemoryNetwork::default();
    let _running = server(&network, 0).await;
    let mut client = client(&network, "a:1");
    let mut request = Request::new(replication(1));
    let long = MetadataValue::try_from("x".repeat(1 << 20)).unwrap();
    request.metadata_mut().insert("x-long", long);
    client.set_replication(request).await.unwrap_err();
    client.set_replication(replication(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn connection_of_another_protocol_is_closed() {
    let network = MemoryNetwork::default();
    let _running = server(&network, 0).await;
    let mut stranger = network.connect("a:1").await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // It ends, with or without a message; a reset counts too.
    drop(stranger.read_to_end(&mut answer).await);
    client(&network, "a:1").set_replication(replication(1)).await.unwrap();
}
