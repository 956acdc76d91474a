//! Datanodes join, and only permitted ones.

use dfs_proto::v1;
use dfs_types::{ErrorCode, NodeId};

use crate::cluster::datanode::FakeDataNode;
use crate::cluster::{Cluster, eventually, refused, settings};

#[tokio::test]
async fn node_with_the_join_secret_joins() {
    let cluster = Cluster::start(1).await;
    let node = cluster.node(1);
    assert_eq!(node.node_state(), v1::NodeState::Active);
    let status = cluster.status().await;
    let shown = &status.nodes[0];
    assert_eq!(shown.node.as_ref().unwrap().address, node.address);
    assert_eq!((shown.disks.len(), shown.disks[0].capacity), (1, 1 << 40));
    assert!(shown.last_heard_ms.is_some());

    let stranger = FakeDataNode::serve(2, &cluster.address(), &cluster.neighbours).await;
    for secret in ["wrong", "", "secre", "secrets"] {
        assert_eq!(refused(stranger.register(secret).await), ErrorCode::Unauthenticated);
    }
    assert_eq!(cluster.status().await.nodes.len(), 1);
}

#[tokio::test]
async fn node_stays_joining_without_admission() {
    let settings = dfs_coordinator::Settings { auto_admit: false, ..settings() };
    let engine = std::sync::Arc::new(dfs_metadata::memory::MemoryEngine::new());
    let cluster = Cluster::with(settings, engine, 3).await;
    assert_eq!(cluster.node(1).node_state(), v1::NodeState::Joining);
    let planned = cluster.client().await.upload_file(crate::cluster::upload_request("/a", 1)).await;
    assert_eq!(refused(planned), ErrorCode::NotEnoughNodes);
}

#[tokio::test]
async fn old_image_of_a_disk_is_refused() {
    let cluster = Cluster::start(1).await;
    let node = cluster.node(1);
    let old = node.registration();
    node.silence();
    node.register("secret").await.unwrap();
    node.beat().await;
    assert!(node.registration() > old);
    node.set_registration(old);
    assert_eq!(refused(node.register("secret").await), ErrorCode::WrongCluster);
    node.set_registration(0);
    assert_eq!(refused(node.register("secret").await), ErrorCode::WrongCluster);
}

/// Both have the registration in use.
#[tokio::test]
async fn copy_of_the_disks_of_a_live_node_does_not_cut_it_off() {
    let cluster = Cluster::start(1).await;
    let first = cluster.node(1).clone();
    let second = FakeDataNode::serve(1, &cluster.address(), &cluster.neighbours).await;
    second.copy_disks_of(&first);
    let message = second.register("secret").await.unwrap_err();
    assert!(message.message().contains(&first.address), "{message}");
    // The first gets a registration that the copy lacks.
    eventually("the first must register", || async { first.must_register() }).await;
    assert_eq!(refused(second.register("secret").await), ErrorCode::Busy, "until it has");
    first.register("secret").await.unwrap();
    first.beat().await;
    let before = first.orders();
    eventually("the first continues", || async { first.orders() > before + 3 }).await;
    let late = second.register("secret").await;
    assert_eq!(refused(late), ErrorCode::WrongCluster, "an older copy from now on");
    first.silence();
    assert_eq!(refused(second.register("secret").await), ErrorCode::WrongCluster);
    let status = cluster.status().await;
    assert_eq!(status.nodes.len(), 1);
    assert_eq!(status.nodes[0].node.as_ref().unwrap().address, first.address);
}

/// A process that was killed cannot say so.
#[tokio::test]
async fn process_at_another_address_replaces_a_killed_one_once_it_is_silent() {
    let cluster = Cluster::start(1).await;
    let first = cluster.node(1).clone();
    let second = FakeDataNode::serve(1, &cluster.address(), &cluster.neighbours).await;
    second.copy_disks_of(&first);
    first.silence();
    eventually("the silence of the first is noticed", || async {
        second.register("secret").await.is_ok()
    })
    .await;
    second.beat().await;
    assert!(!second.must_register());
    let late = first.register("secret").await;
    assert_eq!(refused(late), ErrorCode::WrongCluster, "it must stop issuing receipts");
}

#[tokio::test]
async fn two_streams_of_one_process_are_not_cloned_disks() {
    let cluster = Cluster::start(1).await;
    let node = cluster.node(1);
    let registration = node.registration();
    // As when the coordinator is known under two names.
    node.beat().await;
    eventually("the older stream ends", || async { node.ended_with().is_some() }).await;
    assert_eq!(node.ended_with(), Some(ErrorCode::Stale));
    assert!(!node.must_register());
    // The newer one continues.
    let before = node.orders();
    eventually("it is answered", || async { node.orders() > before + 3 }).await;
    assert_eq!((node.must_register(), node.registration()), (false, registration));
}

#[tokio::test]
async fn two_processes_with_one_registration_must_register() {
    let cluster = Cluster::start(1).await;
    let first = cluster.node(1).clone();
    let second = FakeDataNode::serve(1, &cluster.address(), &cluster.neighbours).await;
    second.be(&first);
    second.beat().await;
    eventually("the first must register", || async { first.must_register() }).await;
    assert_eq!(first.ended_with(), None);
}

#[tokio::test]
async fn unknown_node_must_register() {
    let cluster = Cluster::start(0).await;
    let node = FakeDataNode::serve(5, &cluster.address(), &cluster.neighbours).await;
    node.beat().await;
    assert!(node.must_register());
}

#[tokio::test]
async fn node_returns_under_another_address() {
    let mut cluster = Cluster::start(1).await;
    let before = cluster.node(1).clone();
    before.silence();
    let moved = FakeDataNode::serve(1, &cluster.address(), &cluster.neighbours).await;
    moved.copy_disks_of(&before);
    eventually("the former address is silent", || async { moved.register("secret").await.is_ok() })
        .await;
    moved.beat().await;
    cluster.nodes.insert(NodeId(1), moved.clone());
    let status = cluster.status().await;
    assert_eq!(status.nodes.len(), 1);
    assert_eq!(status.nodes[0].node.as_ref().unwrap().address, moved.address);
}

#[tokio::test]
async fn heartbeat_without_the_node_key_is_ignored() {
    let cluster = Cluster::start(1).await;
    let node = cluster.node(1).clone();
    // It knows everything public about the node, and tries to take its place.
    let stranger = FakeDataNode::serve(1, &cluster.address(), &cluster.neighbours).await;
    stranger.pretend_to_be(&node);
    stranger.set_refuses(true);
    stranger.beat().await;
    assert!(stranger.must_register());
    // Nothing it sent was accepted, and the node's own stream continues.
    let before = node.orders();
    eventually("the node is heard", || async { node.orders() > before + 2 }).await;
    assert!(!node.must_register() && node.ended_with().is_none());
    assert_eq!(node.node_state(), v1::NodeState::Active);
    assert!(!cluster.status().await.nodes[0].refuses_chunks);
}

#[tokio::test]
async fn join_secret_alone_cannot_register_another_node() {
    let cluster = Cluster::start(1).await;
    let node = cluster.node(1).clone();
    let request = v1::RegisterRequest {
        node_secret: vec![9; 32].into(),
        address: "127.0.0.1:9".to_owned(),
        ..node.registration_request("secret")
    };
    let mut client = node.membership(&cluster.address()).await;
    assert_eq!(refused(client.register(request.clone()).await), ErrorCode::PermissionDenied);
    let none = v1::RegisterRequest { node_secret: bytes::Bytes::new(), ..request };
    assert_eq!(refused(client.register(none).await), ErrorCode::InvalidArgument);
    let shown = cluster.status().await.nodes.remove(0);
    assert_eq!(shown.node.unwrap().address, node.address);
}
