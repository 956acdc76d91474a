//! The number of datanodes.

use dfs_crd::Reason;

use super::{Decision, Finding};
use crate::observed::Observed;

/// Returns how many datanodes there should be: never fewer than may hold data.
pub(super) fn datanodes(seen: &Observed, decision: &mut Decision) -> i32 {
    let wanted = seen.cluster.spec.datanodes.replicas;
    let there = seen.datanodes();
    if wanted < there {
        decision.refused.push(Finding::new(
            Reason::ScaleDownUnsupported,
            format!(
                "datanodes.replicas is {wanted}, but {there} datanodes may hold data, and this \
                 version cannot empty them; set it to {there}"
            ),
        ));
    }
    wanted.max(there)
}
