//! Waiting until a node or a disk is empty.

use std::time::Duration;

use dfs_client::{ClusterStatus, WorkerActivity};
use tokio::time::Instant;

use crate::context::Context;
use crate::error::Result;

/// Interval of asking again.
const POLL: Duration = Duration::from_secs(1);

/// Time within which every coordinator knows that something is to be emptied.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

/// Waits until `check` finds that what is to be emptied is empty, and shows what is done about it.
/// `id` is that of the node or disk.
pub(super) async fn wait<T>(
    id: &str,
    cx: &Context,
    check: impl Fn(&ClusterStatus) -> Result<Option<T>>,
) -> Result<T> {
    let (mut shown, began) = (String::new(), Instant::now());
    loop {
        let status = cx.client.admin().status().await?;
        match check(&status) {
            Ok(Some(empty)) => return Ok(empty),
            Err(error) if began.elapsed() >= KNOWN_WITHIN => return Err(error),
            Ok(None) | Err(_) => {}
        }
        if let Some(text) = progress(&status, id).filter(|text| *text != shown) {
            cx.out.say(&text);
            shown = text;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Returns what the worker does about a node or disk, or why it does nothing; `None` if it has not
/// noticed yet that this is to be emptied.
fn progress(status: &ClusterStatus, id: &str) -> Option<String> {
    let worker = status.workers.iter().find(|worker| worker.name == "drain")?;
    if worker.pause_left.is_some() {
        return Some("worker drain is paused; `dfs worker resume drain` ends that".to_owned());
    }
    if status.repair_held.is_some() {
        return status.repair_held.clone();
    }
    let is_shown = worker.state.contains(id) || worker.activity == WorkerActivity::BackingOff;
    is_shown.then(|| worker.state.clone())
}

#[cfg(test)]
mod tests {
    use dfs_client::WorkerStatus;
    use dfs_types::{ClusterId, NodeId};

    use super::*;

    #[test]
    fn progress_is_that_of_the_node_and_says_what_stops_it() {
        let node = NodeId(7).to_string();
        let mut status = ClusterStatus::new(ClusterId(1));
        assert_eq!(progress(&status, &node), None);
        status.workers = vec![WorkerStatus::new("drain")];
        let mut progress_with = |state: &str| {
            state.clone_into(&mut status.workers[0].state);
            progress(&status, &node)
        };
        assert_eq!(progress_with("nothing to drain"), None, "it has not noticed yet");
        let moved = format!("node {node}: 3 replicas moved");
        assert_eq!(progress_with(&moved), Some(moved));
        status.repair_held = Some("repair is held".to_owned());
        assert_eq!(progress(&status, &node).as_deref(), Some("repair is held"));
        status.workers[0].pause_left = Some(POLL);
        assert!(progress(&status, &node).unwrap().contains("is paused"));
    }
}
