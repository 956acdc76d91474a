//! Findings of `explain`.

use dfs_client::Explanation;
use dfs_proto::v1;
use dfs_types::{NodeId, NodeState, ReplicaHealth};

use crate::fake::{CHUNK, Clients as _, Cluster};
use crate::{bytes, path, put};

async fn explain(cluster: &Cluster, verify: bool) -> Explanation {
    cluster.client().explain(&path("/f"), verify).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn healthy_file_has_no_problems() {
    let cluster = Cluster::start(3).await;
    put(&cluster.client(), "/f", &bytes(70 * CHUNK + 1)).await;
    for verify in [false, true] {
        let explanation = explain(&cluster, verify).await;
        assert_eq!(explanation.problems, Vec::<String>::new());
        assert_eq!(explanation.stat.size, 70 * CHUNK + 1);
        assert_eq!(explanation.chunks.len(), 71);
        for (number, chunk) in (0..).zip(&explanation.chunks) {
            assert_eq!(chunk.file_offset, number * CHUNK);
            assert_eq!(chunk.length, if number == 70 { 1 } else { CHUNK });
            assert_eq!((chunk.wanted, chunk.replicas.len()), (3, 3));
            for replica in &chunk.replicas {
                assert_eq!(replica.state, Some(NodeState::Active));
                assert_eq!(replica.address, format!("127.0.0.1:{}", 7080 + replica.node.0));
                assert_eq!((replica.verified, replica.health), (Some(true), ReplicaHealth::Good));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn node_that_cannot_be_asked_is_named_once() {
    let cluster = Cluster::start(3).await;
    put(&cluster.client(), "/f", &bytes(4 * CHUNK)).await;
    cluster.stop_node(2).await;
    let problems = explain(&cluster, false).await.problems;
    assert_eq!(problems.len(), 5, "{problems:?}");
    let node = format!("node {}", NodeId(2));
    assert!(problems[..4].iter().all(|problem| problem.contains("2 good replicas of 3 wanted")));
    assert!(problems[4].contains(&node), "{}", problems[4]);
    assert!(problems[4].ends_with("(4 replicas not checked)"), "{}", problems[4]);
}

#[tokio::test(start_paused = true)]
async fn each_problem_is_reported() {
    let cluster = Cluster::start(3).await;
    put(&cluster.client(), "/f", &bytes(CHUNK)).await;
    let chunk = explain(&cluster, false).await.chunks[0].chunk;
    let verdict = async |verify, node: u128| {
        let explanation = explain(&cluster, verify).await;
        let replicas = &explanation.chunks[0].replicas;
        let replica = replicas.iter().find(|replica| replica.node == NodeId(node)).unwrap().clone();
        let others = replicas.iter().filter(|replica| replica.node != NodeId(node));
        assert!(others.clone().all(|replica| replica.verified == Some(true)));
        (replica.verified, replica.problem.unwrap_or_default(), explanation.problems)
    };

    // Only reading finds damage.
    cluster.node(1).fault(|faults| faults.flips_bit_of = Some(3));
    assert_eq!(verdict(false, 1).await.0, Some(true));
    let (verified, problem, problems) = verdict(true, 1).await;
    assert_eq!(verified, Some(false));
    assert_eq!(problem, "block 3 is corrupt");
    assert_eq!(problems[0], format!("chunk {chunk} on node {}: {problem}", NodeId(1)));
    assert_eq!(problems[1], format!("chunk {chunk} has 2 good replicas of 3 wanted"));
    assert_eq!(*cluster.node(1).reports.lock().unwrap(), [(chunk, 3)]);
    cluster.node(1).fault(|faults| faults.flips_bit_of = None);

    // A node that cannot be read gives no verdict about its replica.
    cluster.node(2).fault(|faults| faults.refuses_reads = true);
    assert_eq!(verdict(true, 2).await.0, None);
    cluster.node(2).fault(|faults| faults.refuses_reads = false);
    cluster.stop_node(2).await;
    let (verified, problem, problems) = verdict(false, 2).await;
    assert_eq!((verified, problems.len()), (None, 2));
    assert!(problems[1].ends_with(&format!("{problem} (1 replica not checked)")), "{problems:?}");
    cluster.start_node(2).await;

    cluster.state().replica_health.insert((chunk, NodeId(3)), v1::ReplicaHealth::Lost);
    let (verified, problem, problems) = verdict(false, 3).await;
    assert_eq!(verified, Some(true));
    assert_eq!((problem.as_str(), problems.len()), ("readable, but it does not count: lost", 2));
    cluster.state().replica_health.insert((chunk, NodeId(3)), v1::ReplicaHealth::Bad);
    let (verified, problem, _) = verdict(false, 3).await;
    assert_eq!((verified, problem.as_str()), (Some(false), "recorded as bad"));
    cluster.state().replica_health.insert((chunk, NodeId(3)), v1::ReplicaHealth::Doomed);
    let (verified, problem, problems) = verdict(false, 3).await;
    assert_eq!((verified, problem.as_str()), (None, ""), "waiting for deletion is no problem");
    assert_eq!(problems, [format!("chunk {chunk} has 2 good replicas of 3 wanted")]);
    cluster.state().replica_health.clear();

    cluster.world.stored.lock().unwrap().remove(&(NodeId(3), chunk));
    let (verified, problem, _) = verdict(false, 3).await;
    assert_eq!((verified, problem.as_str()), (Some(false), "missing on the node"));
}
