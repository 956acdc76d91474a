//! S24 to S27.

use std::time::Duration;

use dfs_client::{Client, Maintenance, MaintenanceRequest};
use dfs_proto::v1;
use dfs_proto::v1::admin_client::AdminClient;
use dfs_testkit::process::{Cluster, Server, Settings, wait_until};
use dfs_transport::{Channels, Security, TcpNetwork};
use dfs_types::{ClusterId, NodeId};

use super::{client, put, read};
use crate::support::{binary, exit_code, noise, stderr};

const HOUR: Duration = Duration::from_hours(1);

/// A running datanode.
#[derive(Debug, Clone)]
struct Node {
    /// Among the processes.
    index: usize,
    id: NodeId,
    address: String,
}

/// Returns the datanodes in the order of their processes.
async fn nodes(cluster: &Cluster, client: &Client) -> Vec<Node> {
    let shown = client.admin().status().await.unwrap().nodes;
    let of = |(index, server): (usize, &Server)| {
        let node = shown.iter().find(|node| node.address == server.address())?;
        Some(Node { index, id: node.id, address: node.address.clone() })
    };
    cluster.datanodes.iter().enumerate().filter_map(of).collect()
}

fn state(cluster: &Cluster, node: NodeId) -> Option<String> {
    let status = cluster.status()?;
    let nodes = status["nodes"].as_array()?.iter();
    let mut found = nodes.filter(|shown| shown["id"] == node.to_string());
    found.next().map(|shown| shown["state"].as_str().unwrap().to_owned())
}

/// Returns the output of `explain`, even if it reports a problem.
fn explained(cluster: &Cluster, path: &str) -> String {
    String::from_utf8_lossy(&cluster.dfs(["explain", "--json", path]).stdout).into_owned()
}

fn five_nodes() -> Cluster {
    Cluster::start(binary(), Settings { datanodes: 5, ..Settings::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn s24_nodes_in_maintenance_are_repaired_only_after_it_ends() {
    let mut cluster = five_nodes();
    let client = client(&cluster);
    for file in 0..8 {
        put(&client, &format!("/{file}"), noise(100_000, file)).await.unwrap();
    }
    cluster.wait_for_full_replication(Duration::from_mins(1));
    let before = nodes(&cluster, &client).await;
    let (down, lost) = (before[0].id, before[1].id);
    let held = |node: NodeId| {
        let status = cluster.status().unwrap();
        let nodes = status["nodes"].as_array().unwrap().iter();
        let mut found = nodes.filter(|shown| shown["id"] == node.to_string());
        found.next().unwrap()["disks"][0]["chunks"].as_u64().unwrap()
    };
    let chunks = wait_until(Duration::from_secs(10), || held(down) > 0);
    assert!(chunks, "it has some of 24 replicas on five nodes");
    cluster.dfs_ok(["node", "maintenance", "--require-safe", &before[0].address]);
    for node in &before[..2] {
        cluster.datanodes[node.index].kill();
    }
    // By the time that the one is lost, the other would be too.
    let is_lost = || state(&cluster, lost).as_deref() == Some("lost");
    assert!(wait_until(Duration::from_secs(30), is_lost));
    cluster.wait_for_full_replication(Duration::from_mins(1));
    assert_eq!(state(&cluster, down).as_deref(), Some("maintenance"));
    let shown = cluster.dfs_ok(["status"]);
    assert!(shown.contains("maintenance") && shown.contains("min more"), "{shown}");
    let names = |node: NodeId| {
        (0..8).any(|file| explained(&cluster, &format!("/{file}")).contains(&node.to_string()))
    };
    assert!(names(down), "its replicas stay");
    assert!(!names(lost), "those of the lost one were re-replicated");
    for file in 0..8 {
        assert!(read(&client, &format!("/{file}")).await.unwrap() == noise(100_000, file));
    }
    cluster.dfs_ok(["node", "maintenance", "--end", &down.to_string()]);
    assert!(wait_until(Duration::from_mins(1), || !names(down)), "nothing is re-replicated");
    cluster.wait_for_full_replication(Duration::from_mins(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn s25_concurrent_safe_stop_requests_grant_only_one() {
    let cluster = Cluster::start(binary(), Settings::default());
    let client = client(&cluster);
    put(&client, "/file", noise(100_000, 1)).await.unwrap();
    cluster.wait_for_full_replication(Duration::from_mins(1));
    let nodes: Vec<NodeId> =
        nodes(&cluster, &client).await.into_iter().map(|node| node.id).collect();
    let id = client.admin().status().await.unwrap().cluster;
    for round in 0..10 {
        let admin = client.admin();
        let wanted = MaintenanceRequest::new(HOUR).require_safe();
        let asking = nodes.iter().map(|node| admin.begin_maintenance(id, *node, wanted));
        let answers = futures_util::future::join_all(asking).await;
        let granted: Vec<NodeId> = nodes
            .iter()
            .zip(answers)
            .filter(|(_, answer)| *answer.as_ref().unwrap() == Maintenance::Granted)
            .map(|(node, _)| *node)
            .collect();
        assert_eq!(granted.len(), 1, "round {round}");
        admin.end_maintenance(id, granted[0]).await.unwrap();
    }
    let node = nodes[0].to_string();
    let (node, other) = (&node[..31], nodes[1].to_string());
    assert_eq!(cluster.dfs_ok(["node", "safe-to-stop", node]), "safe to stop\n");
    cluster.dfs_ok(["node", "maintenance", "--require-safe", node]);
    for question in ["safe-to-stop", "maintenance"] {
        let mut args = vec!["node", question, &other];
        args.extend((question == "maintenance").then_some("--require-safe"));
        let refused = cluster.dfs(args);
        assert_eq!(exit_code(&refused), 5, "{}", stderr(&refused));
        let said = String::from_utf8_lossy(&refused.stdout).into_owned() + &stderr(&refused);
        assert!(said.contains("not safe") && said.contains("(maintenance)"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s26_node_with_the_last_replica_cannot_be_removed() {
    let mut cluster = Cluster::start(
        binary(),
        Settings { init: vec!["--replication-factor=2".to_owned()], ..Settings::default() },
    );
    let client = client(&cluster);
    put(&client, "/file", noise(100_000, 1)).await.unwrap();
    cluster.wait_for_full_replication(Duration::from_mins(1));
    let all = nodes(&cluster, &client).await;
    let explained = explained(&cluster, "/file");
    let holds = |node: NodeId| explained.contains(&node.to_string());
    let (holders, empty): (Vec<Node>, Vec<_>) = all.into_iter().partition(|node| holds(node.id));
    let (first, second) = (holders[0].id, holders[1].id);
    // The one that holds nothing can be removed at once, the others cannot.
    let refused = |cluster: &Cluster, what: &str, node: NodeId, text: &str| {
        let refused = cluster.dfs(["node", what, &node.to_string()]);
        assert_eq!(exit_code(&refused), 4, "{what}: {}", stderr(&refused));
        assert!(stderr(&refused).contains(text), "{what}: {}", stderr(&refused));
    };
    let hears_of_it = || {
        let refused = cluster.dfs(["node", "deregister", &first.to_string()]);
        stderr(&refused).contains("holds 1 chunk")
    };
    assert!(wait_until(Duration::from_secs(10), hears_of_it), "its heartbeat reports the chunk");
    refused(&cluster, "forget", first, "only a lost node");
    let gone = empty[0].id;
    let unconfirmed = cluster.dfs(["node", "deregister", &gone.to_string()]);
    assert_eq!(exit_code(&unconfirmed), 2, "nobody can confirm: {}", stderr(&unconfirmed));
    assert!(stderr(&unconfirmed).contains("holds nothing"), "{}", stderr(&unconfirmed));
    assert_eq!(state(&cluster, gone).as_deref(), Some("active"));
    cluster.dfs_ok(["node", "deregister", &gone.to_string(), "--yes"]);
    cluster.dfs_ok(["node", "deregister", &gone.to_string()]);
    assert_eq!(state(&cluster, gone), None);
    // No node is left to re-replicate to.
    for Node { index, id: node, .. } in holders.clone() {
        cluster.datanodes[index].kill();
        let is_lost = || state(&cluster, node).as_deref() == Some("lost");
        assert!(wait_until(Duration::from_secs(30), is_lost));
        refused(&cluster, "deregister", node, "does not respond");
        if node == second {
            refused(&cluster, "forget", node, "last good replica");
        }
    }
    cluster.start_datanode(holders[1].index);
    cluster.wait_for_active(1);
    let unconfirmed = cluster.dfs(["node", "forget", &first.to_string()]);
    assert_eq!(exit_code(&unconfirmed), 2, "nobody can confirm: {}", stderr(&unconfirmed));
    assert!(stderr(&unconfirmed).contains("no chunk has its last good replica there"));
    assert_eq!(state(&cluster, first).as_deref(), Some("lost"));
    cluster.dfs_ok(["node", "forget", &first.to_string(), "--yes"]);
    assert!(read(&client, "/file").await.unwrap() == noise(100_000, 1));
    let index = holders[0].index;
    cluster.start_datanode(index);
    let is_refused = || cluster.datanodes[index].log().contains("was removed");
    assert!(wait_until(Duration::from_secs(20), is_refused), "{}", cluster.datanodes[index].log());
    // Its replicas count as gone.
    cluster.add_datanode();
    cluster.wait_for_full_replication(Duration::from_mins(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn s27_cluster_is_created_once_and_only_admitted_nodes_join() {
    let Settings { coordinator, .. } = Settings::default();
    let coordinator = format!("{coordinator}auto_admit: false\n");
    let mut cluster = Cluster::start(
        binary(),
        Settings { coordinator, awaits_init: true, ..Settings::default() },
    );
    let waits = cluster.dfs(["status", "--timeout", "1s"]);
    assert_eq!(exit_code(&waits), 5);
    assert!(stderr(&waits).contains("waits for init"), "{}", stderr(&waits));
    assert_eq!(cluster.coordinator.http_get("/healthz").0, 200);
    assert_eq!(cluster.coordinator.http_get("/readyz").0, 503);
    let channels = Channels::new(std::sync::Arc::new(TcpNetwork), Security::default());
    let init = async |id: ClusterId| {
        let channel = channels.control(cluster.coordinator.address()).unwrap();
        let request = v1::InitRequest {
            cluster_id: id.to_bytes().to_vec().into(),
            replication_factor: 3,
            min_write_replicas: None,
        };
        AdminClient::new(channel).init(request).await.map(|made| made.into_inner().is_new)
    };
    assert!(init(ClusterId(7)).await.unwrap());
    let is_ready = || cluster.coordinator.http_get("/readyz").0 == 200;
    assert!(wait_until(Duration::from_secs(10), is_ready), "{}", cluster.coordinator.log());
    assert!(!init(ClusterId(7)).await.unwrap());
    assert!(init(ClusterId(8)).await.unwrap_err().message().contains(&ClusterId(8).to_string()));
    let client = client(&cluster);
    assert_eq!(client.admin().status().await.unwrap().cluster, ClusterId(7));
    for _ in 0..3 {
        cluster.add_datanode();
    }
    let joining = || {
        let status = cluster.status().unwrap();
        let nodes = status["nodes"].as_array().unwrap();
        let heard = |node: &serde_json::Value| node["last_heard_ms"].is_u64();
        let joins = |node: &serde_json::Value| node["state"] == "joining" && heard(node);
        nodes.iter().filter(|node| joins(node)).count()
    };
    assert!(wait_until(Duration::from_secs(20), || joining() == 3));
    let addresses: Vec<_> =
        cluster.datanodes.iter().map(|node| node.address().to_owned()).collect();
    let mut admit = vec!["node", "admit"];
    admit.extend(addresses.iter().take(2).map(String::as_str));
    cluster.dfs_ok(admit);
    cluster.wait_for_active(2);
    put(&client, "/file", noise(100_000, 1)).await.unwrap();
    assert_eq!(joining(), 1);
    let explained = explained(&cluster, "/file");
    let third = nodes(&cluster, &client).await.pop().unwrap();
    assert_eq!(state(&cluster, third.id).as_deref(), Some("joining"));
    assert!(!explained.contains(&third.id.to_string()), "{explained}");
    // After a restart it is the same cluster, and the node is still admitted.
    cluster.dfs_ok(["node", "admit", &third.address]);
    cluster.coordinator.kill();
    cluster.start_coordinator();
    cluster.wait_for_active(3);
    assert_eq!(client.admin().status().await.unwrap().cluster, ClusterId(7));
    cluster.wait_for_full_replication(Duration::from_mins(1));
}
