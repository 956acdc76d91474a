//! What an administrator does meanwhile: drains nodes and takes that back, and has the disks compared
//! with the records.

use std::sync::Arc;
use std::time::Duration;

use dfs_client::{Client, Error, WorkerChange};
use dfs_types::{DiskState, NodeId, NodeState, Random, SeededRandom};
use tokio::time::sleep;

use super::workload::{Phase, Shared};

/// Administers the cluster until the faults end.
pub(super) async fn administer(client: Client, shared: Arc<Shared>, random: SeededRandom) {
    while shared.phase() == Phase::Faults {
        sleep(Duration::from_millis(300 + random.below(3_000))).await;
        let done = act(&client, &random).await;
        shared.trace.note(match done {
            Ok(what) => what,
            Err(error) => format!("an administrator failed: {error}"),
        });
    }
}

async fn act(client: &Client, random: &SeededRandom) -> Result<String, Error> {
    let admin = client.admin();
    let status = admin.status().await?;
    let (cluster, count) = (status.cluster, status.nodes.len() as u64);
    let any = status.nodes.get(random.below(count.max(1)) as usize);
    let Some(node) = any.map(|node| node.id) else { return Ok("there are no nodes".to_owned()) };
    Ok(match random.below(6) {
        0 => format!("drain {node}: {:?}", admin.drain(cluster, node).await?),
        1 => format!("undrain {node}: {:?}", admin.undrain(cluster, node).await?),
        2 | 3 => {
            let name = ["repair", "repair", "drain", "delete"][random.below(4) as usize];
            let pause = Duration::from_millis(500 + random.below(12_000));
            admin.set_worker(cluster, name, WorkerChange::Pause(pause)).await?;
            format!("pause {name} for {pause:?}")
        }
        _ => format!("compare the disks: {:?}", admin.check_replicas(cluster).await?.id),
    })
}

/// Takes every drain back. Returns whether there is none left.
pub(super) async fn undrain_all(client: &Client) -> bool {
    let admin = client.admin();
    let Ok(status) = admin.status().await else { return false };
    let is_drained = |state: NodeState| matches!(state, NodeState::Draining | NodeState::Drained);
    let drained = status.nodes.iter().filter(|node| is_drained(node.state));
    let drained: Vec<NodeId> = drained.map(|node| node.id).collect();
    for node in &drained {
        if admin.undrain(status.cluster, *node).await.is_err() {
            return false;
        }
    }
    drained.is_empty()
}

/// Notes what is not as usual, to explain a cluster that does not converge.
pub(super) async fn note_status(client: &Client, shared: &Shared) {
    let admin = client.admin();
    let Ok(status) = admin.status().await else { return };
    for node in &status.nodes {
        for disk in &node.disks {
            if disk.state != DiskState::Healthy || !disk.reason.is_empty() {
                let (host, state, reason) = (&node.host, disk.state, &disk.reason);
                let disk = disk.id;
                shared.trace.note(format_args!("disk {disk} of {host} is {state:?}: {reason}"));
            }
        }
        if node.state != NodeState::Active {
            shared.trace.note(format_args!("{} is {:?}", node.host, node.state));
        }
    }
    if let Ok(gc) = admin.gc_status(100).await {
        let (hold, replicas) = (gc.hold.map(|hold| hold.reason), gc.replicas);
        shared.trace.note(format_args!("unneeded: {replicas:?}, on hold: {hold:?}"));
    }
    let Ok(workers) = admin.workers().await else { return };
    for worker in workers.workers {
        shared.trace.note(format_args!("worker {}: {}", worker.name, worker.state));
    }
}
