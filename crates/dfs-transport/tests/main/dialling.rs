//! Connections that cannot be made, and who learns of it when.

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
async fn all_who_want_a_connection_wait_for_one_dialling() {
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

/// Gives no answer.
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
async fn all_learn_at_the_same_time_that_nobody_answers() {
    let network = Silent::default();
    let channels = Channels::new(Arc::new(network.clone()), Security::Plaintext);
    let started = Instant::now();
    // Whoever gives up earlier leaves the dialling to the others.
    let gone = channels.dial("a:1", Lane::Control);
    assert!(tokio::time::timeout(Duration::from_millis(1), gone).await.is_err());
    for result in join_all((0..20).map(|_| channels.dial("a:1", Lane::Control))).await {
        let Err(DialError::Connect(error)) = result else { panic!("it was not connected") };
        assert_eq!((&*error.address, error.reason.kind()), ("a:1", io::ErrorKind::TimedOut));
    }
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    assert_eq!(network.0.load(Ordering::Relaxed), 2);
    // It is tried anew by those who come later.
    assert!(channels.dial("a:1", Lane::Control).await.is_err());
    assert_eq!(network.0.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_never_sent_is_told_from_one_that_was() {
    let network = MemoryNetwork::default();
    let refused = client(&network, "a:1").set_replication(replication(1)).await.unwrap_err();
    let error = connect_error(&refused).expect("nobody listens there");
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
async fn no_address_is_no_failure_of_a_connection() {
    let channels = channels(&MemoryNetwork::default());
    let dialled = channels.dial("https://a:1", Lane::Control).await;
    assert!(matches!(dialled, Err(DialError::Address(_))));
}
