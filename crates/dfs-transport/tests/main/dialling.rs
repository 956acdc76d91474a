//! Connections that cannot be established, and when callers are notified.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dfs_proto::v1::admin_client::AdminClient;
use dfs_proto::v1::admin_server::AdminServer;
use dfs_transport::{
    Channels, DialError, Io, Lane, Listener, MemoryNetwork, Network, Security, connect_error,
};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::service::{Running, Service, channels, client, replication};

#[tokio::test(start_paused = true)]
async fn callers_of_one_address_share_a_connection_attempt() {
    let network = MemoryNetwork::default();
    let server = AdminServer::new(Service::default());
    let _running = Running::start(&network, "a:1", server, Duration::ZERO).await;
    let channels = channels(&network);
    let dialled = join_all((0..20).map(|_| channels.dial("http://a:1", Lane::Control))).await;
    for channel in dialled {
        AdminClient::new(channel.unwrap()).set_replication(replication(1)).await.unwrap();
    }
    AdminClient::new(channels.control("a:1").unwrap())
        .set_replication(replication(1))
        .await
        .unwrap();
    assert_eq!(network.dialled(), 1);
    channels.dial("a:1", Lane::Bulk(1)).await.unwrap();
    assert_eq!(network.dialled(), 2);
    channels.forget("a:1", Lane::Bulk(1));
    channels.dial("a:1", Lane::Bulk(1)).await.unwrap();
    assert_eq!(network.dialled(), 3);
}

/// A network that never replies.
#[derive(Clone, Default)]
struct Silent(Arc<AtomicUsize>);

#[tonic::async_trait]
impl Network for Silent {
    async fn connect(&self, _: &str) -> io::Result<Io> {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::future::pending().await
    }

    fn connect_timeout(&self) -> Duration {
        Duration::from_secs(7)
    }

    async fn listen(&self, _: &str) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[tokio::test(start_paused = true)]
async fn all_callers_fail_at_the_same_time_when_a_peer_is_silent() {
    let network = Silent::default();
    let channels = Channels::new(Arc::new(network.clone()), Security::Plaintext);
    let started = Instant::now();
    // A caller that gives up earlier leaves the attempt to the others.
    let gone = channels.dial("a:1", Lane::Control);
    assert!(tokio::time::timeout(Duration::from_millis(1), gone).await.is_err());
    for result in join_all((0..20).map(|_| channels.dial("a:1", Lane::Control))).await {
        let Err(DialError::Connect(error)) = result else { panic!("the dial should have failed") };
        assert_eq!((&*error.address, error.reason.kind()), ("a:1", io::ErrorKind::TimedOut));
    }
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    assert_eq!(network.0.load(Ordering::Relaxed), 2);
    // Later callers start a new attempt.
    assert!(channels.dial("a:1", Lane::Control).await.is_err());
    assert_eq!(network.0.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn unsent_calls_are_distinguished_from_sent_ones() {
    let network = MemoryNetwork::default();
    let refused = client(&network, "a:1").set_replication(replication(1)).await.unwrap_err();
    let error = connect_error(&refused).expect("not listening");
    assert_eq!(error.to_string(), "cannot connect to a:1: connection refused");

    let service = Service::default();
    let server = AdminServer::new(service.clone());
    let _running = Running::start(&network, "a:1", server, Duration::ZERO).await;
    let mut client = client(&network, "a:1");
    let answered = client.set_replication(replication(0)).await.unwrap_err();
    assert!(connect_error(&answered).is_none());
    let call = tokio::spawn(async move {
        client.cluster_status(dfs_proto::v1::ClusterStatusRequest::default()).await
    });
    service.begun.subscribe().wait_for(|begun| *begun == 1).await.unwrap();
    network.cut();
    assert!(connect_error(&call.await.unwrap().unwrap_err()).is_none());
}

#[tokio::test]
async fn malformed_address_is_not_a_connect_error() {
    let channels = channels(&MemoryNetwork::default());
    let dialled = channels.dial("https://a:1", Lane::Control).await;
    assert!(matches!(dialled, Err(DialError::Address(_))));
}
