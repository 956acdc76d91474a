//! Releases, write levels, and changes that apply to existing files in the background.

use std::collections::BTreeSet;

use crate::doctor::facts::Facts;
use crate::doctor::finding::{Code, Finding};

pub(super) fn rules(facts: &Facts, found: &mut Vec<Finding>) {
    let status = &facts.status;
    if let Ok(upgrade) = &facts.upgrade {
        let (written, wanted, newest) = (upgrade.written, upgrade.wanted, upgrade.newest);
        if wanted > written && !upgrade.blocked_by.is_empty() {
            found.push(
                Finding::warning(
                    Code::UpgradeBlocked,
                    format!("the upgrade to write level {wanted} cannot be finalized"),
                )
                .why(format!("an older release runs on {}", upgrade.blocked_by.join(", ")))
                .doing(format!("level {written} is written until then"))
                .todo("upgrade or remove these members, then `dfs upgrade finalize`")
                .needs_person(),
            );
        } else if wanted > written {
            found.push(
                Finding::notice(
                    Code::UpgradeUnfinished,
                    format!("the write level is being raised from {written} to {wanted}"),
                )
                .doing("the members are checked first")
                .todo("`dfs upgrade status` shows the progress"),
            );
        } else if newest > written {
            found.push(
                Finding::notice(
                    Code::UpgradeAvailable,
                    format!("the upgrade is not finalized: write level {written} of {newest}"),
                )
                .why("until then the older release can be used again")
                .todo("`dfs upgrade finalize`, once the new release has proven itself"),
            );
        }
    }
    let versions =
        status.nodes.iter().map(|node| node.version.as_str()).chain([status.version.as_str()]);
    let versions: BTreeSet<&str> = versions.filter(|version| !version.is_empty()).collect();
    if versions.len() > 1 {
        let versions = versions.into_iter().collect::<Vec<_>>().join(", ");
        found.push(
            Finding::notice(
                Code::ReleasesDiffer,
                format!("several releases are running: {versions}"),
            )
            .why("an upgrade is in progress, or was not applied everywhere")
            .todo("upgrade the rest; `dfs status --json` shows the version of each datanode"),
        );
    }
    if status.is_replication_changing {
        found.push(
            Finding::notice(
                Code::ReplicationChanging,
                "a change of the replication is not applied to all existing files yet",
            )
            .doing("the worker `policy` applies it; replicas are built and dropped after that")
            .todo("`dfs set-replication --wait` waits for it"),
        );
    }
}

#[cfg(test)]
mod tests {
    use dfs_client::UpgradeStatus;
    use dfs_types::Level;

    use super::super::tests::{after, codes, judged};
    use super::*;
    use crate::doctor::finding::Severity::{Notice, Warning};

    #[test]
    fn write_level_that_is_not_raised_is_explained() {
        let with = |wanted, newest, blocked: &[&str]| {
            after(|facts| {
                let mut upgrade = UpgradeStatus::new(Level(1));
                (upgrade.wanted, upgrade.newest) = (Level(wanted), Level(newest));
                upgrade.blocked_by = blocked.iter().map(|member| (*member).to_owned()).collect();
                facts.upgrade = Ok(upgrade);
            })
        };
        assert_eq!(with(1, 1, &[]), []);
        assert_eq!(codes(&with(1, 2, &[])), [Code::UpgradeAvailable]);
        assert_eq!(codes(&with(2, 2, &[])), [Code::UpgradeUnfinished]);
        let blocked = with(2, 2, &["n1:7080"]);
        assert_eq!(judged(&blocked, Code::UpgradeBlocked), Some((Warning, true)));
        assert!(blocked[0].why.contains("n1:7080"), "{blocked:?}");
    }

    #[test]
    fn different_releases_and_changes_in_progress_are_worth_knowing() {
        let found = after(|facts| facts.status.nodes[0].version = "2".to_owned());
        assert_eq!(judged(&found, Code::ReleasesDiffer), Some((Notice, false)));
        let found = after(|facts| facts.status.is_replication_changing = true);
        assert_eq!(judged(&found, Code::ReplicationChanging), Some((Notice, false)));
    }
}
