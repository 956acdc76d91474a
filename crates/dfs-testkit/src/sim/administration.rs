//! What an administrator does meanwhile: drains nodes and retires disks and takes that back, changes
//! how many replicas files have, forgets a datanode that is lost for good, and has the disks compared
//! with the records.

use std::sync::Arc;
use std::time::Duration;

use dfs_client::{Client, Error, Replication, WorkerChange};
use dfs_types::{DiskState, NodeId, NodeState, Random, SeededRandom};
use tokio::time::sleep;

use super::workload::{Phase, Shared, WORKERS, directory, path};

/// How long repair is paused after a crash at a commit of a move, so that what the commit would have
/// named is found by a comparison rather than by repair.
const PAUSE_AFTER_CRASH: Duration = Duration::from_secs(12);

/// Administers the cluster until the faults end. `one_replica_from` is when files are to have one
/// replica only, if at all.
pub(super) async fn administer(
    client: Client,
    shared: Arc<Shared>,
    random: SeededRandom,
    mut one_replica_from: Option<Duration>,
) {
    let mut next_at = Duration::ZERO;
    while shared.phase() == Phase::Faults {
        sleep(Duration::from_millis(100)).await;
        let now = turmoil::sim_elapsed().unwrap_or_default();
        let done = if shared.take_crash_at_move() {
            adopt_rather_than_repair(&client).await
        } else if one_replica_from.is_some_and(|from| from <= now) {
            let done = set_replicas(&client, 1, 0..WORKERS).await;
            if done.is_ok() {
                one_replica_from = None;
            }
            done
        } else if next_at <= now {
            next_at = now + Duration::from_millis(300 + random.below(3_000));
            forget_lost(&client, &shared).await;
            act(&client, &random).await
        } else {
            continue;
        };
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
    let Some(node) = any else { return Ok("there are no nodes".to_owned()) };
    let disk = node.disks.get(random.below(2) as usize).map(|disk| disk.id);
    let node = node.id;
    Ok(match (random.below(10), disk) {
        (0, _) => format!("drain {node}: {:?}", admin.drain(cluster, node).await?),
        (1, _) => format!("undrain {node}: {:?}", admin.undrain(cluster, node).await?),
        (2 | 3, _) => {
            let name = ["repair", "repair", "drain", "delete"][random.below(4) as usize];
            let pause = Duration::from_millis(500 + random.below(12_000));
            admin.set_worker(cluster, name, WorkerChange::Pause(pause)).await?;
            format!("pause {name} for {pause:?}")
        }
        (4, Some(disk)) => {
            admin.retire_disk(cluster, node, disk).await?;
            format!("retire disk {disk} of {node}")
        }
        (5, Some(disk)) => {
            admin.unretire_disk(cluster, node, disk).await?;
            format!("take back that disk {disk} of {node} retires")
        }
        (6 | 7, _) => {
            let worker = random.below(WORKERS);
            set_replicas(client, 2 + random.below(2) as u32, worker..worker + 1).await?
        }
        _ => format!("compare the disks: {:?}", admin.check_replicas(cluster).await?.id),
    })
}

/// Sets the number of replicas of the files of workers, all of which a write must have made durable if
/// there are fewer than three.
pub(super) async fn set_replicas(
    client: &Client,
    replicas: u32,
    workers: std::ops::Range<u64>,
) -> Result<String, Error> {
    let admin = client.admin();
    let cluster = admin.status().await?.cluster;
    let what = format!("{replicas} replicas for the files of workers {workers:?}");
    for worker in workers {
        let replication = Replication::new(replicas).min_write(replicas.min(2));
        let path = path(&directory(worker));
        admin.set_replication_of(cluster, &path, Some(replication)).await?;
    }
    Ok(what)
}

/// Pauses repair and has the disks compared: a replica whose commit was lost is adopted then.
async fn adopt_rather_than_repair(client: &Client) -> Result<String, Error> {
    let admin = client.admin();
    let cluster = admin.status().await?.cluster;
    admin.set_worker(cluster, "repair", WorkerChange::Pause(PAUSE_AFTER_CRASH)).await?;
    admin.check_replicas(cluster).await?;
    Ok("pause repair after a crash, and compare the disks".to_owned())
}

/// Forgets the datanode that is lost for good, once it counts as lost. Returns whether there is none
/// left.
pub(super) async fn forget_lost(client: &Client, shared: &Shared) -> bool {
    let Some(host) = shared.lost_host() else { return true };
    let admin = client.admin();
    let Ok(status) = admin.status().await else { return false };
    let is_left = |node: &&_| is_member(node) && node.host == host;
    let Some(node) = status.nodes.iter().find(is_left) else {
        shared.set_lost_host(None);
        return true;
    };
    if node.state != NodeState::Lost {
        return false;
    }
    let forgotten = admin.forget(status.cluster, node.id, None).await;
    shared.trace.note(format_args!("forget {host}: {forgotten:?}"));
    false
}

fn is_member(node: &dfs_client::NodeStatus) -> bool {
    node.state != NodeState::Removed
}

/// Takes every drain and retirement and each number of replicas back. Returns whether nothing is left.
pub(super) async fn take_back(client: &Client) -> bool {
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
    let retiring = status.nodes.iter().filter(|node| is_member(node)).flat_map(|node| {
        let retiring = node.disks.iter().filter(|disk| disk.state == DiskState::Retiring);
        retiring.map(|disk| (node.id, disk.id))
    });
    let retiring: Vec<_> = retiring.collect();
    for (node, disk) in &retiring {
        if admin.unretire_disk(status.cluster, *node, *disk).await.is_err() {
            return false;
        }
    }
    drained.is_empty() && retiring.is_empty()
}

/// Gives the files of all workers as many replicas again as the cluster wants. Returns whether that
/// was done.
pub(super) async fn reset_replicas(client: &Client) -> bool {
    let admin = client.admin();
    let Ok(status) = admin.status().await else { return false };
    for worker in 0..WORKERS {
        let path = path(&directory(worker));
        if admin.set_replication_of(status.cluster, &path, None).await.is_err() {
            return false;
        }
    }
    true
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
