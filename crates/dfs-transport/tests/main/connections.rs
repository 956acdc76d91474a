//! F9: the connections of a server are bounded in total, per address, and until their first call.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dfs_proto::Failure;
use dfs_proto::v1::ClusterStatusRequest;
use dfs_proto::v1::admin_client::AdminClient;
use dfs_proto::v1::admin_server::AdminServer;
use dfs_transport::{ClientChannel, ConnectionLimits, Io, MemoryNetwork, Network as _, Refusal};
use dfs_types::ErrorCode;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::service::{Running, Service, channels, client, replication};

const FIRST_CALL_WITHIN: Duration = Duration::from_secs(10);
const IDLE_FOR: Duration = Duration::from_mins(15);
const LIMITS: ConnectionLimits = ConnectionLimits {
    total: 8,
    per_address: 5,
    pending: 3,
    first_call_within: FIRST_CALL_WITHIN,
    idle_for: IDLE_FOR,
};

fn ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

async fn server(network: &MemoryNetwork) -> Running {
    server_of(network, &Service::default()).await
}

async fn server_of(network: &MemoryNetwork, service: &Service) -> Running {
    let service = AdminServer::new(service.clone());
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

/// Returns clients with a connection of their own each, on which they made a call, the first one
/// earliest.
async fn idle(network: &MemoryNetwork, clients: usize) -> Vec<AdminClient<ClientChannel>> {
    let mut idle = Vec::new();
    for _ in 0..clients {
        let mut client = client(network, "a:1");
        client.set_replication(replication(1)).await.unwrap();
        settle().await;
        idle.push(client);
    }
    idle
}

/// Starts calls that last until the service lets them end, on a connection of their own each.
async fn busy(
    network: &MemoryNetwork,
    service: &Service,
    calls: usize,
) -> JoinSet<Result<(), Status>> {
    let mut busy = JoinSet::new();
    let mut begun = service.begun.subscribe();
    for _ in 0..calls {
        begun.mark_unchanged();
        let mut client = client(network, "a:1");
        busy.spawn(async move {
            client.cluster_status(ClusterStatusRequest::default()).await.map(drop)
        });
        begun.changed().await.unwrap();
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
    let _idle = idle(&network, 1).await;
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
async fn f09_an_address_with_only_busy_connections_is_refused_until_one_is_idle() {
    let (network, service) = (MemoryNetwork::default(), Service::default());
    let server = server_of(&network, &service).await;
    let (crowd, other) = (network.from_host(ip(1)), network.from_host(ip(2)));
    let mut calls = busy(&crowd, &service, LIMITS.per_address).await;
    let refused = Failure::from_status(&call(&crowd).await.unwrap_err());
    assert_eq!(refused.code, ErrorCode::Busy);
    let why = "the server holds 5 connections from 10.0.0.1, its limit; try again later";
    assert!(refused.message.contains(why), "{}", refused.message);
    let refusal = Refusal::Address { address: ip(1), limit: LIMITS.per_address };
    assert_eq!(refusals(&server), [refusal]);
    call(&other).await.unwrap();

    service.may_end.send_replace(true);
    while let Some(call) = calls.join_next().await {
        call.unwrap().unwrap();
    }
    call(&crowd).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn f09_a_full_server_with_only_busy_connections_refuses_until_one_closes() {
    let (network, service) = (MemoryNetwork::default(), Service::default());
    let server = server_of(&network, &service).await;
    let mut calls = Vec::new();
    for host in 1..=u8::try_from(LIMITS.total).unwrap() {
        calls.push(busy(&network.from_host(ip(host)), &service, 1).await);
    }
    let last = network.from_host(ip(100));
    let refused = Failure::from_status(&call(&last).await.unwrap_err());
    assert_eq!(refused.code, ErrorCode::Busy);
    assert!(refused.message.contains("the server holds 8 connections"), "{}", refused.message);
    assert_eq!(refusals(&server), [Refusal::Total(LIMITS.total)]);
    assert_eq!(network.connections(), LIMITS.total);

    calls.pop();
    settle().await;
    call(&last).await.unwrap();
    assert_eq!(refusals(&server), []);
}

#[tokio::test(start_paused = true)]
async fn f09_a_new_connection_takes_the_place_of_the_longest_idle_one_of_its_address() {
    let (network, service) = (MemoryNetwork::default(), Service::default());
    let server = server_of(&network, &service).await;
    let (crowd, other) = (network.from_host(ip(1)), network.from_host(ip(2)));
    let _others = idle(&other, 2).await;
    let mut calls = busy(&crowd, &service, 2).await;
    let mut clients = idle(&crowd, 3).await;
    // The first one is not the longest idle one any more.
    clients[0].set_replication(replication(1)).await.unwrap();

    let mut new = client(&crowd, "a:1");
    new.set_replication(replication(1)).await.unwrap();
    settle().await;
    assert_eq!(refusals(&server), [Refusal::Displaced]);
    assert_eq!((network.connections(), network.dialled()), (7, 8));
    for mut client in [clients[0].clone(), clients[2].clone(), new.clone()] {
        client.set_replication(replication(1)).await.unwrap();
    }
    assert_eq!(network.dialled(), 8, "only the second one was closed");
    // Its client connects again, at the expense of another one, and no call fails.
    clients[1].set_replication(replication(1)).await.unwrap();
    settle().await;
    assert_eq!((network.connections(), network.dialled()), (7, 9));
    assert_eq!(refusals(&server), [Refusal::Displaced]);

    service.may_end.send_replace(true);
    while let Some(call) = calls.join_next().await {
        call.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn f09_a_full_server_closes_the_longest_idle_connection_of_the_address_with_most() {
    let network = MemoryNetwork::default();
    let server = server(&network).await;
    let (one, crowd, last) =
        (network.from_host(ip(1)), network.from_host(ip(2)), network.from_host(ip(3)));
    let mut ones = idle(&one, 3).await;
    let mut crowds = idle(&crowd, 5).await;
    call(&last).await.unwrap();
    settle().await;
    assert_eq!(refusals(&server), [Refusal::Displaced]);
    let dialled = network.dialled();
    for client in ones.iter_mut().chain(&mut crowds[1..]) {
        client.set_replication(replication(1)).await.unwrap();
    }
    assert_eq!(network.dialled(), dialled);
    crowds[0].set_replication(replication(1)).await.unwrap();
    assert_eq!(network.dialled(), dialled + 1);
}

#[tokio::test(start_paused = true)]
async fn f09_no_call_fails_while_clients_displace_each_other() {
    let network = MemoryNetwork::default();
    let server = server(&network).await;
    let crowd = network.from_host(ip(1));
    // More clients than connections, with fewer calls at a time.
    let room = Arc::new(Semaphore::new(LIMITS.per_address - LIMITS.pending));
    let mut clients = JoinSet::new();
    for number in 0..2 * LIMITS.per_address {
        let (channel, room) = (channels(&crowd).control("a:1").unwrap(), room.clone());
        clients.spawn(async move {
            for round in 0..100 {
                // Calls at all stages of closing the connection.
                for _ in 0..(7 * number + 3 * round) % 11 {
                    tokio::task::yield_now().await;
                }
                let _place = room.acquire().await.unwrap();
                let send = |channel| async {
                    AdminClient::new(channel).set_replication(replication(1)).await
                };
                dfs_transport::call(channel.clone(), send).await.unwrap();
            }
        });
    }
    clients.join_all().await;
    let displaced = refusals(&server);
    assert!(displaced.len() > 100, "{}", displaced.len());
    assert!(displaced.iter().all(|refusal| *refusal == Refusal::Displaced), "{displaced:?}");
}

#[tokio::test(start_paused = true)]
async fn f09_a_connection_is_closed_after_a_long_idle_time_and_its_client_reconnects() {
    let (network, service) = (MemoryNetwork::default(), Service::default());
    let server = server_of(&network, &service).await;
    let _calls = busy(&network, &service, 1).await;
    let mut clients = idle(&network, 1).await;
    tokio::time::sleep(IDLE_FOR * 9 / 10).await;
    assert_eq!((network.connections(), refusals(&server)), (2, vec![]));
    tokio::time::sleep(IDLE_FOR / 5).await;
    assert_eq!((network.connections(), refusals(&server)), (1, vec![Refusal::Idle(IDLE_FOR)]));
    clients[0].set_replication(replication(1)).await.unwrap();
    assert_eq!(network.dialled(), 3);
}
