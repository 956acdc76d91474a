//! F9: the connections of a server are bounded in total, per address, and until their first call.

use std::net::IpAddr;
use std::time::Duration;

use dfs_proto::Failure;
use dfs_proto::v1::admin_server::AdminServer;
use dfs_transport::{ConnectionLimits, Io, MemoryNetwork, Network as _, Refusal};
use dfs_types::ErrorCode;
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::service::{Running, Service, channels, client, replication};

const FIRST_CALL_WITHIN: Duration = Duration::from_secs(10);
const LIMITS: ConnectionLimits =
    ConnectionLimits { total: 8, per_address: 5, pending: 3, first_call_within: FIRST_CALL_WITHIN };

fn ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

async fn server(network: &MemoryNetwork) -> Running {
    let service = AdminServer::new(Service::default());
    Running::start_with(network, "a:1", service, Duration::ZERO, LIMITS).await
}

fn refusals(server: &Running) -> Vec<Refusal> {
    std::mem::take(&mut *server.log.1.lock().unwrap())
}

async fn call(network: &MemoryNetwork) -> Result<(), Status> {
    client(network, "a:1").set_replication(replication(1)).await.map(drop)
}

/// Lets the server accept everything that waits for it.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

async fn connect(network: &MemoryNetwork, connections: usize) -> Vec<Io> {
    let mut connected = Vec::new();
    for _ in 0..connections {
        connected.push(network.connect("a:1").await.unwrap());
        settle().await;
    }
    connected
}

/// Clients, each with a separate connection on which it made a call.
async fn busy(network: &MemoryNetwork, clients: usize) -> Vec<impl Sized + use<>> {
    let mut busy = Vec::new();
    for _ in 0..clients {
        let mut client = client(network, "a:1");
        client.set_replication(replication(1)).await.unwrap();
        busy.push(client);
    }
    busy
}

/// Returns the bytes that the server sends until it closes the connection.
async fn read_to_end(mut io: Io) -> String {
    let mut bytes = Vec::new();
    // A reset is an end as well.
    drop(io.read_to_end(&mut bytes).await);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(start_paused = true)]
async fn f09_idle_connections_from_one_address_do_not_stop_another_client() {
    let network = MemoryNetwork::default();
    let server = server(&network).await;
    let (flooder, other) = (network.from_host(ip(1)), network.from_host(ip(2)));
    let mut flood = JoinSet::new();
    for round in 0..20 {
        for io in connect(&flooder, 5).await {
            flood.spawn(read_to_end(io));
        }
        settle().await;
        while flood.try_join_next().is_some() {}
        assert!(flood.len() <= LIMITS.pending, "{} are open", flood.len());
        // A client whose call takes its time is not the one that is closed.
        let waiting = other.connect("a:1").await.unwrap();
        call(&other).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        drop(waiting);
    }
    let refused = refusals(&server);
    assert!(refused.contains(&Refusal::Pending(LIMITS.pending)), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn f09_a_connection_without_an_accepted_call_is_closed() {
    let network = MemoryNetwork::default();
    let server = server(&network).await;
    let idle = network.connect("a:1").await.unwrap();
    settle().await;
    tokio::time::sleep(FIRST_CALL_WITHIN * 9 / 10).await;
    assert_eq!(network.connections(), 1);
    let text = timeout(FIRST_CALL_WITHIN, read_to_end(idle)).await.unwrap();
    assert!(text.contains("no call was accepted on the connection within 10000 ms"), "{text:?}");
    assert_eq!(refusals(&server), [Refusal::NoCall(FIRST_CALL_WITHIN)]);

    // A call that the gate refuses does not count.
    let channels = channels(&network);
    let mut stranger = Grpc::new(channels.control("a:1").unwrap());
    let path = "/dfs.v1.Admin/Nothing".parse().unwrap();
    stranger.ready().await.unwrap();
    let codec = ProstCodec::<(), ()>::default();
    let refused = stranger.unary(tonic::Request::new(()), path, codec).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    tokio::time::sleep(FIRST_CALL_WITHIN * 2).await;
    assert_eq!(network.connections(), 0);
    assert_eq!(refusals(&server), [Refusal::NoCall(FIRST_CALL_WITHIN)]);
}

#[tokio::test(start_paused = true)]
async fn f09_a_connection_with_a_call_or_a_health_check_stays() {
    let network = MemoryNetwork::default();
    let server = server(&network).await;
    let _busy = busy(&network, 1).await;
    let channels = channels(&network.from_host(ip(2)));
    let mut probe = Grpc::new(channels.control("a:1").unwrap());
    probe.ready().await.unwrap();
    let path = "/grpc.health.v1.Health/Check".parse().unwrap();
    // The server of this test has no such service behind its gate.
    let codec = ProstCodec::<(), ()>::default();
    drop(probe.unary(tonic::Request::new(()), path, codec).await);
    tokio::time::sleep(FIRST_CALL_WITHIN * 10).await;
    assert_eq!((network.connections(), refusals(&server)), (2, vec![]));
}

#[tokio::test(start_paused = true)]
async fn f09_an_address_over_its_limit_is_refused_and_served_again_once_it_closes_one() {
    let network = MemoryNetwork::default();
    let server = server(&network).await;
    let (crowd, other) = (network.from_host(ip(1)), network.from_host(ip(2)));
    let mut clients = busy(&crowd, LIMITS.per_address).await;
    let refused = Failure::from_status(&call(&crowd).await.unwrap_err());
    assert_eq!(refused.code, ErrorCode::Busy);
    let why = "the server holds 5 connections from 10.0.0.1, its limit; try again later";
    assert!(refused.message.contains(why), "{}", refused.message);
    let refusal = Refusal::Address { address: ip(1), limit: LIMITS.per_address };
    assert_eq!(refusals(&server), [refusal]);
    call(&other).await.unwrap();

    clients.pop();
    settle().await;
    call(&crowd).await.unwrap();
    assert_eq!(refusals(&server), []);
}

#[tokio::test(start_paused = true)]
async fn f09_a_full_server_refuses_and_serves_again_once_a_connection_closes() {
    let network = MemoryNetwork::default();
    let server = server(&network).await;
    let mut clients = Vec::new();
    for host in 1..=u8::try_from(LIMITS.total).unwrap() {
        clients.extend(busy(&network.from_host(ip(host)), 1).await);
    }
    let last = network.from_host(ip(100));
    let refused = Failure::from_status(&call(&last).await.unwrap_err());
    assert_eq!(refused.code, ErrorCode::Busy);
    assert!(refused.message.contains("the server holds 8 connections"), "{}", refused.message);
    assert_eq!(refusals(&server), [Refusal::Total(LIMITS.total)]);
    assert_eq!(network.connections(), LIMITS.total);

    clients.pop();
    settle().await;
    call(&last).await.unwrap();
}
