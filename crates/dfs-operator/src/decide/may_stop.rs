//! When a datanode may stop or be evicted: while everything else is healthy.

use dfs_types::NodeState;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::observed::{Observed, is_ready, pod_of};

/// Returns why no datanode may stop now, as an error.
pub(super) fn is_healthy(seen: &Observed, needs_all_replicas: bool) -> Result<(), String> {
    is_healthy_but(seen, needs_all_replicas, None)
}

/// Like [`is_healthy`], but ignores the datanode in the pod `but`, which was granted a stop before:
/// writes since then have no replica on it, so some chunks lack one. None did when it was granted.
pub(super) fn is_healthy_but(
    seen: &Observed,
    needs_all_replicas: bool,
    but: Option<&str>,
) -> Result<(), String> {
    let Some(snapshot) = seen.snapshot() else {
        return Err("no coordinator replies".to_owned());
    };
    let is_other = |pod: &&Pod| but != Some(pod.name_any().as_str());
    if let Some(pod) = seen.pods_of("datanode").filter(is_other).find(|pod| !is_ready(pod)) {
        return Err(format!("pod {} is not ready", pod.name_any()));
    }
    let wanted = seen.stateful_set.as_ref().and_then(|set| set.spec.as_ref()?.replicas);
    let pods = seen.pods_of("datanode").count();
    if wanted.is_some_and(|wanted| pods < wanted.unsigned_abs() as usize) {
        return Err(format!("only {pods} datanodes have a pod"));
    }
    let is_well = |state| matches!(state, NodeState::Active | NodeState::Removed);
    let others = snapshot.nodes.iter().filter(|node| but != Some(pod_of(node)));
    if let Some(node) = others.into_iter().find(|node| !is_well(node.state)) {
        return Err(format!("datanode {} is {}", pod_of(node), node.state));
    }
    match &snapshot.replication {
        None if needs_all_replicas => Err("replica counts are not known yet".to_owned()),
        Some(data) if data.missing > 0 => Err("chunks are missing".to_owned()),
        Some(data) if needs_all_replicas && but.is_none() && data.under_replicated > 0 => {
            Err("chunks lack replicas".to_owned())
        }
        _ => Ok(()),
    }
}
