//! The plan of a move, as shown before it begins.

use dfs_client::MovePlan;
use dfs_types::ByteSize;
use serde_json::{Value, json};

use crate::output::span_text;

/// Returns the lines that show a plan to people.
pub(crate) fn lines(what: &str, plan: &MovePlan) -> Vec<String> {
    let MovePlan { replicas, bytes, room, targets, .. } = plan;
    let fits = if plan.fits() { "fits" } else { "does not fit" };
    let mut lines = vec![format!(
        "{what}: {replicas} replicas, up to {}, go to {targets} other datanodes with {} free, where \
         this {fits}",
        ByteSize(*bytes),
        ByteSize(*room)
    )];
    lines.push(match (plan.rate, plan.duration()) {
        (Some(rate), Some(time)) => format!(
            "  at most {} per second: at least {} (`dfs worker rate drain` changes it)",
            ByteSize(rate),
            span_text(time)
        ),
        _ => "  without a limit on the rate".to_owned(),
    });
    lines.extend(plan.blockers.iter().map(|blocker| format!("  {blocker}")));
    lines
}

/// Returns the fields of a plan in a document.
pub(crate) fn document(plan: &MovePlan) -> Value {
    json!({
        "replicas": plan.replicas,
        "bytes": plan.bytes,
        "room": plan.room,
        "targets": plan.targets,
        "fits": plan.fits(),
        "rate": plan.rate,
        "duration_ms": plan.duration().map(|time| time.as_millis() as u64),
        "blockers": plan.blockers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_says_how_much_how_long_and_what_blocks() {
        let mut plan = MovePlan::default();
        (plan.replicas, plan.bytes, plan.room, plan.targets) = (7, 600 << 20, 1 << 30, 2);
        plan.rate = Some(1 << 20);
        plan.blockers = vec!["2 other nodes take chunks".to_owned()];
        let text = lines("node 1", &plan).join("\n");
        for part in ["7 replicas", "2 other datanodes", "this fits", "10 min", "  2 other nodes"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        plan.room = 0;
        assert!(lines("node 1", &plan)[0].contains("does not fit"));
        assert_eq!(document(&plan)["duration_ms"], 600_000);
    }
}
