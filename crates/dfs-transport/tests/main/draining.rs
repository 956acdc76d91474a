//! Stopping a server: running calls may finish, for a while; no new ones start.

use std::time::Duration;

use dfs_proto::v1::ClusterStatusRequest;
use dfs_proto::v1::admin_server::AdminServer;
use dfs_transport::{MemoryNetwork, Network as _};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::service::{Running, Service, client, replication};

const DRAIN: Duration = Duration::from_secs(10);

/// Returns a server with one call in progress.
async fn busy(
    network: &MemoryNetwork,
) -> (Service, Running, tokio::task::JoinHandle<Result<(), Status>>) {
    let service = Service::default();
    let server = AdminServer::new(service.clone());
    let running = Running::start(network, "a:1", server, DRAIN).await;
    let mut client = client(network, "a:1");
    let call = tokio::spawn(async move {
        client.cluster_status(ClusterStatusRequest::default()).await.map(drop)
    });
    service.begun.subscribe().wait_for(|begun| *begun == 1).await.unwrap();
    (service, running, call)
}

#[tokio::test(start_paused = true)]
async fn calls_in_progress_finish_and_none_starts() {
    let network = MemoryNetwork::default();
    let (service, running, call) = busy(&network).await;
    let mut known = client(&network, "a:1");
    known.set_replication(replication(1)).await.unwrap();
    running.stop.send_replace(true);
    tokio::time::sleep(DRAIN / 2).await;
    assert!(!running.ended.is_finished());
    // Over the existing connection, and over a new one.
    for mut client in [known, client(&network, "a:1")] {
        let refused = client.set_replication(replication(1)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    }
    assert!(!call.is_finished());
    let now = Instant::now();
    service.may_end.send_replace(true);
    call.await.unwrap().unwrap();
    running.ended.await.unwrap();
    assert_eq!(now.elapsed(), Duration::ZERO, "it ended with its last call");
    assert_eq!(network.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn call_that_does_not_end_is_cut() {
    let network = MemoryNetwork::default();
    let (service, running, call) = busy(&network).await;
    let stopped = Instant::now();
    running.stop.send_replace(true);
    running.ended.await.unwrap();
    assert_eq!(stopped.elapsed().as_secs(), DRAIN.as_secs());
    // Nothing of it remains: neither the connection nor the handler.
    call.await.unwrap().unwrap_err();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(network.connections(), 0);
    assert_eq!(service.may_end.receiver_count(), 0, "the handler still runs");
}

#[tokio::test(start_paused = true)]
async fn idle_server_stops_at_once_and_frees_its_address() {
    let network = MemoryNetwork::default();
    let start = async || {
        let server = AdminServer::new(Service::default());
        Running::start(&network, "a:1", server, DRAIN).await
    };
    let running = start().await;
    let mut client = client(&network, "a:1");
    client.set_replication(replication(1)).await.unwrap();
    assert!(network.listen("a:1").await.is_err(), "the address is taken");
    let stopped = Instant::now();
    running.stop.send_replace(true);
    running.ended.await.unwrap();
    assert_eq!(stopped.elapsed(), Duration::ZERO, "an idle connection delays nothing");
    let _running = start().await;
    client.set_replication(replication(1)).await.unwrap();
}
