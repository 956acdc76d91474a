//! Channels are created once per peer, limited in number, and reconnect.

use std::time::Duration;

use dfs_proto::v1::admin_client::AdminClient;
use dfs_proto::v1::admin_server::AdminServer;
use dfs_transport::MemoryNetwork;
use tonic::Code;

use crate::service::{Running, Service, channels, client, replication};

#[tokio::test(start_paused = true)]
async fn users_of_an_address_share_connections() {
    let network = MemoryNetwork::default();
    let server = AdminServer::new(Service::default());
    let _running = Running::start(&network, "a:1", server, Duration::ZERO).await;
    let channels = channels(&network);
    for (address, made) in [("a:1", 1), ("http://a:1", 1), ("http://a:1/", 1)] {
        let mut client = AdminClient::new(channels.clone().control(address).unwrap());
        client.set_replication(replication(1)).await.unwrap();
        assert_eq!(network.dialled(), made);
    }
    // Bulk bytes have two separate connections, chosen by key.
    for (key, made) in [(0, 2), (2, 2), (1, 3), (u64::MAX, 3), (0, 3)] {
        let mut client = AdminClient::new(channels.bulk("a:1", key).unwrap());
        client.set_replication(replication(1)).await.unwrap();
        assert_eq!(network.dialled(), made, "key {key}");
    }
    assert_eq!(network.connections(), 3);
}

#[tokio::test(start_paused = true)]
async fn least_recently_used_channels_are_evicted() {
    let network = MemoryNetwork::default();
    let server = AdminServer::new(Service::default());
    let _running = Running::start(&network, "a:1", server, Duration::ZERO).await;
    let server = AdminServer::new(Service::default());
    let _running = Running::start(&network, "b:1", server, Duration::ZERO).await;
    let channels = channels(&network);
    let call = async |address: &str| {
        let mut client = AdminClient::new(channels.control(address).unwrap());
        client.set_replication(replication(1)).await.unwrap();
    };
    call("a:1").await;
    call("b:1").await;
    // 1,024 are kept. a is used repeatedly, b is not.
    for other in 0..1_100 {
        drop(channels.control(&format!("other-{other}:1")).unwrap());
        call("a:1").await;
    }
    assert_eq!(network.dialled(), 2);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(network.connections(), 1, "the connection to b was closed with its channel");
    call("b:1").await;
    assert_eq!(network.dialled(), 3);
}

#[tokio::test(start_paused = true)]
async fn channel_reconnects() {
    let network = MemoryNetwork::default();
    let mut client = client(&network, "a:1");
    let refused = client.set_replication(replication(1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let service = Service::default();
    let server = AdminServer::new(service.clone());
    let _running = Running::start(&network, "a:1", server, Duration::ZERO).await;
    client.set_replication(replication(1)).await.unwrap();
    // A call in progress ends with its connection, and the next one gets a new one.
    let mut other = client.clone();
    let call = tokio::spawn(async move {
        other.cluster_status(dfs_proto::v1::ClusterStatusRequest::default()).await
    });
    service.begun.subscribe().wait_for(|begun| *begun == 1).await.unwrap();
    network.cut();
    let status = call.await.unwrap().unwrap_err();
    let failure = dfs_proto::Failure::from_status(&status);
    assert!(failure.code.is_retryable() || status.code() == Code::Cancelled, "{status:?}");
    client.set_replication(replication(1)).await.unwrap();
    assert_eq!(network.dialled(), 2);
}

#[test]
fn addresses_are_validated_before_dialling() {
    let network = MemoryNetwork::default();
    for address in ["", "a", "a:b", "https://a:1", "a:1/x"] {
        let error = channels(&network).control(address).unwrap_err();
        assert_eq!(error.0, address);
        assert!(error.to_string().contains("host:port"), "{error}");
        assert!(channels(&network).bulk(address, 1).is_err());
    }
}
