//! A request id follows an action through all processes.

use std::time::Duration;

use dfs_proto::v1::admin_server::AdminServer;
use dfs_transport::{MemoryNetwork, REQUEST_ID_HEADER, current_request_id, with_request_id};
use dfs_types::RequestId;
use tonic::{Code, Request};

use crate::service::{Running, Service, client, replication};

/// Starts two servers, the first of which calls the second.
async fn two(network: &MemoryNetwork) -> (Service, Service, [Running; 2]) {
    let second = Service::default();
    let first = Service { next: Some(client(network, "b:1")), ..Service::default() };
    let drain = Duration::ZERO;
    let running = [
        Running::start(network, "b:1", AdminServer::new(second.clone()), drain).await,
        Running::start(network, "a:1", AdminServer::new(first.clone()), drain).await,
    ];
    (first, second, running)
}

#[tokio::test(start_paused = true)]
async fn id_travels_from_client_to_server_to_the_next() {
    let network = MemoryNetwork::default();
    let (first, second, _running) = two(&network).await;
    let mut client = client(&network, "a:1");
    for id in [RequestId(7), RequestId(8)] {
        with_request_id(id, client.set_replication(replication(3))).await.unwrap();
    }
    let expected = [Some(RequestId(7)), Some(RequestId(8))];
    assert_eq!(*first.ids.lock().unwrap(), expected);
    assert_eq!(*second.ids.lock().unwrap(), expected);
    assert_eq!(current_request_id(), None);
}

#[tokio::test(start_paused = true)]
async fn action_without_an_id_gets_one() {
    let network = MemoryNetwork::default();
    let (first, second, _running) = two(&network).await;
    let mut client = client(&network, "a:1");
    for _ in 0..2 {
        client.set_replication(replication(3)).await.unwrap();
    }
    let ids = first.ids.lock().unwrap().clone();
    assert!(ids[0].is_some() && ids[0] != ids[1], "{ids:?}");
    assert_eq!(*second.ids.lock().unwrap(), ids);
}

#[tokio::test(start_paused = true)]
async fn id_of_the_task_overrides_a_header_set_by_hand() {
    let network = MemoryNetwork::default();
    let (first, _, running) = two(&network).await;
    // The channel replaces the header with the id of the task.
    let mut request = Request::new(replication(0));
    request.metadata_mut().insert(REQUEST_ID_HEADER, "not an id".parse().unwrap());
    let refused = client(&network, "a:1").set_replication(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(first.ids.lock().unwrap()[0].is_some());
    let method = "/dfs.v1.Admin/SetReplication".to_owned();
    assert_eq!(*running[1].log.0.lock().unwrap(), [(method, Code::InvalidArgument)]);
}
