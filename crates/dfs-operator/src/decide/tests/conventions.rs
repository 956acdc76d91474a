//! Conventions about published data, by number.

use dfs_crd::DATANODES_MAX;
use dfs_types::NodeId;
use kube::ResourceExt as _;
use serde_json::json;

use super::world::World;
use crate::observed::pod_of;

/// Maximum size of a status in bytes.
const STATUS_LEN_MAX: usize = 256 << 10;

#[test]
fn c19_status_is_small_at_500_datanodes() {
    let mut world = World::running(json!({}));
    let (pod, node) = (world.pods.last().unwrap().clone(), world.nodes[0].clone());
    for i in 3..500_u32 {
        let name = format!("data-datanode-{i}");
        let mut pod = pod.clone();
        pod.metadata.uid = Some(format!("{i}"));
        pod.spec.as_mut().unwrap().node_name = Some(format!("node-{i}.{}", "k".repeat(200)));
        let mut node = node.clone();
        node.id = NodeId(u128::MAX - u128::from(i));
        node.address = node.address.replace(pod_of(&node), &name);
        pod.metadata.name = Some(name);
        world.pods.push(pod);
        world.nodes.push(node);
    }
    world.reconcile();
    let status = world.status();
    assert_eq!(status.ready_replicas, 500);
    assert!(status.datanodes_truncated);
    assert_eq!(status.datanodes.len(), DATANODES_MAX);
    let bytes = serde_json::to_vec(&status).unwrap().len();
    assert!(bytes < STATUS_LEN_MAX, "{bytes} bytes");
    // Each line is about a different datanode.
    let names = status.datanodes.iter().map(|line| line.name.clone());
    assert_eq!(names.collect::<std::collections::BTreeSet<_>>().len(), DATANODES_MAX);
    assert!(world.pods.iter().any(|pod| pod.name_any() == "data-datanode-499"));
}
