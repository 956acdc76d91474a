//! The rules, by subject. Each adds its findings.

mod capacity;
mod chunks;
mod coordinators;
mod deletion;
mod disks;
mod moves;
mod nodes;
mod releases;
mod workers;

pub(crate) use self::coordinators::{Unreached, unreachable};
use super::facts::Facts;
use super::finding::{Finding, sort};

/// Returns what is wrong, most urgent first.
pub(crate) fn examine(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for rules in [
        coordinators::rules,
        chunks::rules,
        nodes::rules,
        disks::rules,
        capacity::rules,
        deletion::rules,
        workers::rules,
        releases::rules,
    ] {
        rules(facts, &mut found);
    }
    sort(&mut found);
    found
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::facts::tests::healthy;
    use super::*;
    use crate::doctor::finding::{Code, Severity};

    /// Returns what is found after a change of a healthy cluster.
    pub(crate) fn after(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
        let mut facts = healthy();
        change(&mut facts);
        examine(&facts)
    }

    /// Returns the severity, and whether a person is needed, of the only finding with a code.
    pub(crate) fn judged(found: &[Finding], code: Code) -> Option<(Severity, bool)> {
        let mut of_code = found.iter().filter(|finding| finding.code == code);
        let first = of_code.next()?;
        assert!(of_code.next().is_none(), "one finding for each: {found:#?}");
        Some((first.severity, first.needs_person))
    }

    /// Returns the codes that were found.
    pub(crate) fn codes(found: &[Finding]) -> Vec<Code> {
        found.iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn nothing_is_found_in_a_healthy_cluster() {
        assert_eq!(after(|_| {}), []);
    }

    #[test]
    fn lost_data_comes_before_data_at_risk_and_both_before_a_lost_node() {
        use dfs_types::NodeState;
        let found = after(|facts| {
            facts.status.nodes[0].state = NodeState::Lost;
            let counts = crate::doctor::facts::tests::counts(facts);
            (counts.missing, counts.under_replicated, counts.without_spare) = (1, 2, 1);
            counts.without_target = 1;
        });
        let order =
            [Code::ChunksMissing, Code::RepairNoTarget, Code::UnderReplicated, Code::NodeLost];
        assert_eq!(codes(&found), order);
    }
}
