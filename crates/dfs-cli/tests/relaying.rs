//! Real servers, used from where the datanodes are unreachable.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dfs_client::{Client, ClientBuilder, Components};
use dfs_testkit::process::{Cluster, Settings};
use dfs_transport::{Io, Listener, Network, TcpNetwork};
use dfs_types::ErrorCode;

use crate::semantics::{client, put, read};
use crate::support::{binary, cluster, noise};

/// A network in which one port is forwarded, and no other is reachable.
struct OnePort(String);

#[tonic::async_trait]
impl Network for OnePort {
    async fn connect(&self, address: &str) -> io::Result<Io> {
        if address == self.0 {
            return TcpNetwork.connect(address).await;
        }
        Err(io::ErrorKind::HostUnreachable.into())
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        TcpNetwork.listen(address).await
    }
}

fn outside(cluster: &Cluster) -> ClientBuilder {
    let network = Arc::new(OnePort(cluster.coordinator.address().to_owned()));
    let components = Components { network, ..Components::default() };
    Client::builder().coordinator(cluster.coordinator_url()).components(components)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_relayed_through_the_port_of_the_coordinator() {
    let cluster = cluster();
    let client = outside(&cluster).connect_lazy().unwrap();
    // Several chunks, and less than one block.
    for (name, size) in [("/large", 150_000_000), ("/small", 1_234)] {
        let bytes = noise(size, 7);
        put(&client, name, bytes.clone()).await.unwrap();
        assert!(read(&client, name).await.unwrap() == bytes, "{name}");
        assert!(read(&self::client(&cluster), name).await.unwrap() == bytes, "{name}");
    }
    let stats = client.stats();
    assert!(stats.relayed > 0, "{stats:?}");
    assert_eq!((stats.replans, stats.corrupt_blocks), (0, 0), "{stats:?}");
    let metric = |label: &str| {
        cluster.coordinator.metric("dfs_coordinator_relayed_bytes_total", label) as u64
    };
    for direction in ["to_node", "from_node"] {
        let bytes = metric(direction);
        assert!((150_000_000..160_000_000).contains(&bytes), "{direction}: {bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn disabled_relay_is_reported_with_advice() {
    let mut settings = Settings::default();
    settings.coordinator.push_str("relay_streams: 0\n");
    let cluster = Cluster::start(binary(), settings);
    put(&client(&cluster), "/f", noise(1_000, 1)).await.unwrap();
    let client = outside(&cluster).deadline(Duration::from_secs(3)).connect_lazy().unwrap();
    let error = read(&client, "/f").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    let text = error.to_string();
    for part in ["cannot connect to", "relay_streams is 0", "--kube"] {
        assert!(text.contains(part), "{text}");
    }
}
