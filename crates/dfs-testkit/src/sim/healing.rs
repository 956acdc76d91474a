//! Checks of a cluster whose faults have ended, by the SDK.

use std::time::Duration;

use dfs_client::{Client, Explanation};
use tokio::time::{Instant, sleep};

use super::administration::{forget_lost, reset_replicas, take_back};
use super::host::DATANODES;
use super::invariants::{acknowledged_bytes, namespace};
use super::workload::{
    Shared, WHOLE_WITHIN, WORKERS, Wrong, content, directory, listed, path, shown_length, until,
};

/// Replicas required to acknowledge a put, and those wanted.
const REPLICAS_MIN: usize = 2;
const COPIES: usize = 3;

/// Checks after the faults that each file is possible and has its replicas.
pub(super) async fn check_everything(client: &Client, shared: &Shared) -> Result<(), Wrong> {
    until("a lost datanode is forgotten", async || forget_lost(client, shared).await).await?;
    all_datanodes_are_back(client).await?;
    until("no node is drained", async || take_back(client).await).await?;
    until("files have their usual replicas", async || reset_replicas(client).await).await?;
    let paths = shared.model().paths();
    for name in &paths {
        let reading = shared.model().begin_read(name);
        let result = content(client, name).await;
        shared.trace.note(format_args!("finally {name}: {}", shown_length(&result)));
        let found = result.map_err(|error| format!("finally, {name}: {error}"))?;
        let possible = shared.model().end_read(reading);
        acknowledged_bytes::check(found.as_ref(), &possible)
            .map_err(|wrong| format!("finally, {name}: {wrong}"))?;
    }
    for number in 0..WORKERS {
        let name = directory(number);
        let paths = listed(client, &name).await;
        let paths = paths.map_err(|error| format!("finally, list {name}: {error}"))?;
        namespace::check(&shared.model(), &name, &paths)?;
    }
    for (wanted, within) in [(REPLICAS_MIN, Duration::from_secs(20)), (COPIES, WHOLE_WITHIN)] {
        for name in &paths {
            let certain = shared.model().certain(name);
            if let Some(Some(_)) = certain {
                has_replicas(client, name, wanted, within).await?;
            }
        }
        shared.trace.note(format_args!("all files have {wanted} good replicas"));
    }
    Ok(())
}

/// Waits until the coordinator hears of all datanodes.
pub(super) async fn all_datanodes_are_back(client: &Client) -> Result<(), Wrong> {
    until("all datanodes are back", async || {
        client.admin().status().await.is_ok_and(|status| {
            let fresh = |heard: Duration| heard < Duration::from_secs(2);
            status.nodes.iter().filter(|node| node.last_heard.is_some_and(fresh)).count()
                == DATANODES.len()
        })
    })
    .await
}

/// Waits until each chunk of a file has this many verified replicas.
async fn has_replicas(
    client: &Client,
    name: &str,
    wanted: usize,
    within: Duration,
) -> Result<(), Wrong> {
    let deadline = Instant::now() + within;
    loop {
        let explained = client.explain(&path(name), true).await;
        if explained.as_ref().is_ok_and(|explained| fewest_replicas(explained) >= wanted) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(format!("{name} does not have {wanted} good replicas: {explained:?}"));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

fn fewest_replicas(explained: &Explanation) -> usize {
    let good = explained.chunks.iter().map(|chunk| {
        chunk
            .replicas
            .iter()
            .filter(|replica| replica.verified == Some(true) && replica.health.is_durable())
            .count()
    });
    good.min().unwrap_or(usize::MAX)
}
