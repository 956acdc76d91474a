//! `dfs node readmit`.

use dfs_client::Readmission;
use dfs_types::{ClusterId, NodeId, counted};
use serde_json::{Value, json};

use crate::confirmation::Confirmation;
use crate::context::Context;
use crate::error::Result;
use crate::json;
use crate::output::{size_text, span_text};

/// Shows what asks to join as the node, and lets it join once that is confirmed.
pub(super) async fn run(
    confirmation: Confirmation,
    (cluster, node): (ClusterId, NodeId),
    cx: &Context,
) -> Result<()> {
    let admin = cx.client.admin();
    let plan = admin.plan_readmit(cluster, node).await?;
    for line in lines(node, &plan) {
        cx.out.say(line);
    }
    confirmation.ask("Let it join with these disks?", cx).await?;
    admin.readmit(cluster, node, plan.registration).await?;
    cx.out.done(&document(node, &plan));
    cx.out.say(format_args!("node {node} may join; `dfs disk list` shows its disks as returning"));
    Ok(())
}

/// Returns the lines that show the plan to people.
fn lines(node: NodeId, plan: &Readmission) -> Vec<String> {
    let Readmission { address, host, registration, registration_in_use, .. } = plan;
    let host = if host.is_empty() { String::new() } else { format!(" on {host}") };
    let heard = match plan.last_heard {
        Some(ago) => format!("last heard {} ago", span_text(ago)),
        None => "not heard since the coordinator started".to_owned(),
    };
    let mut lines = vec![
        format!("node {node} asks to join from {address}{host}"),
        format!(
            "  its disks have registration {registration}; {registration_in_use} is in use, {heard}"
        ),
    ];
    lines.extend(plan.disks.iter().map(|disk| {
        format!(
            "  disk {}: {}, {}, {} of {} free",
            disk.id,
            disk.state.name(),
            counted(disk.chunks, "chunk"),
            size_text(disk.free, true),
            size_text(disk.capacity, true),
        )
    }));
    lines.extend(plan.absent_disks.iter().map(|disk| format!("  disk {disk}: absent")));
    lines.push(format!(
        "  what was written to the node after registration {registration} is not on these disks, \
         and is re-replicated"
    ));
    lines.push(format!(
        "  disks with registration {registration_in_use} are refused from then on, if they still \
         exist"
    ));
    lines
}

fn document(node: NodeId, plan: &Readmission) -> Value {
    json!({
        "node": node.to_string(),
        "address": plan.address,
        "host": plan.host,
        "registration": plan.registration.0,
        "registration_in_use": plan.registration_in_use.0,
        "last_heard_ms": plan.last_heard.map(|ago| ago.as_millis() as u64),
        "disks": plan.disks.iter().map(json::disk).collect::<Vec<_>>(),
        "absent_disks": plan.absent_disks.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
