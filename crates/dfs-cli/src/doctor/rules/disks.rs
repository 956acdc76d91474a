//! Disks of datanodes that respond.

use dfs_client::{DiskStatus, NodeStatus};
use dfs_types::{DiskState, NodeState, counted};

use super::moves::emptying;
use crate::doctor::facts::{Emptying, Facts, name};
use crate::doctor::finding::{Code, Finding};

pub(super) fn rules(facts: &Facts, found: &mut Vec<Finding>) {
    // Of a silent node, only the past state of its disks is known.
    let is_heard = |node: &&NodeStatus| {
        !matches!(node.state, NodeState::Suspect | NodeState::Lost | NodeState::Removed)
    };
    for node in facts.status.nodes.iter().filter(is_heard) {
        for disk in &node.disks {
            found.extend(judge(facts, node, disk));
        }
    }
}

fn judge(facts: &Facts, node: &NodeStatus, disk: &DiskStatus) -> Option<Finding> {
    let what = format!("disk {} of {}", disk.id, name(node));
    let replicas = counted(disk.chunks, "replica");
    let finding = match disk.state {
        DiskState::Healthy if disk.reason.is_empty() => return None,
        DiskState::Healthy => {
            Finding::notice(Code::DiskHeadsUnread, format!("{what} does not know all its replicas"))
                .doing("what could not be read is read again after five minutes")
        }
        DiskState::Failed => Finding::warning(Code::DiskFailed, format!("{what} has failed"))
            .doing("what it held counts as lost and is rebuilt elsewhere; its datanode goes on without it")
            .todo(
                "replace it, and restart the datanode, which uses an empty directory as a new disk once \
                 nothing is recorded on the old one",
            ),
        DiskState::Missing => Finding::warning(Code::DiskMissing, format!("{what} is missing"))
            .doing(
                "its datanode tries again every five seconds; after the grace period what it held is \
                 rebuilt elsewhere",
            )
            .todo("mount it, or stop what has it locked; after it was unmounted, restart the datanode"),
        DiskState::Hung => Finding::warning(Code::DiskHung, format!("{what} hangs"))
            .doing("it is not used; after the grace period what it holds is rebuilt elsewhere")
            .todo("see the kernel log of the machine; replace the disk, or restart the machine"),
        DiskState::Slow => Finding::warning(Code::DiskSlow, format!("{what} is slow"))
            .doing("its replicas are read last")
            .todo(format!(
                "if this lasts, see the kernel log of the machine, and replace it: `dfs disk retire {}`",
                disk.id
            )),
        DiskState::Returning => Finding::notice(
            Code::DiskReturning,
            format!("{what} was away, and is being compared with the metadata"),
        )
        .doing("its replicas are read meanwhile; it takes new ones after the comparison"),
        DiskState::Starting => Finding::notice(
            Code::DiskStarting,
            format!("{what} is being read{}", match disk.read_percent {
                Some(percent) => format!(", {percent} % so far"),
                None => String::new(),
            }),
        )
        .doing("its replicas are used once it has been read; the other disks of its datanode serve"),
        DiskState::Retiring if disk.can_be_removed => {
            Finding::notice(Code::DiskRemovable, format!("{what} is empty"))
                .todo(format!("remove it, or use it again: `dfs disk retire {} --undo`", disk.id))
        }
        DiskState::Retiring => {
            let this = Emptying { node: node.id, disk: Some(disk.id) };
            let undo = format!("dfs disk retire {} --undo", disk.id);
            return emptying(facts, this, &what, disk.chunks, &undo);
        }
    };
    let reason = match disk.state {
        DiskState::Failed | DiskState::Missing | DiskState::Hung if disk.chunks > 0 => {
            format!("{} ({replicas} on it)", disk.reason)
        }
        _ => disk.reason.clone(),
    };
    Some(finding.why(reason))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{after, codes};
    use super::*;
    use crate::doctor::finding::Severity::{self, Notice, Warning};

    fn found(state: DiskState, change: impl FnOnce(&mut NodeStatus)) -> Vec<Finding> {
        after(|facts| {
            let node = &mut facts.status.nodes[0];
            node.disks.push(DiskStatus::new(dfs_types::DiskId(9), 1 << 40));
            node.disks[1].state = state;
            node.disks[1].reason = "/d: why".to_owned();
            change(node);
        })
    }

    #[test]
    fn each_state_of_a_disk_is_a_finding_with_its_reason() {
        let all: [(DiskState, Code, Severity); 7] = [
            (DiskState::Failed, Code::DiskFailed, Warning),
            (DiskState::Missing, Code::DiskMissing, Warning),
            (DiskState::Hung, Code::DiskHung, Warning),
            (DiskState::Slow, Code::DiskSlow, Warning),
            (DiskState::Returning, Code::DiskReturning, Notice),
            (DiskState::Starting, Code::DiskStarting, Notice),
            (DiskState::Healthy, Code::DiskHeadsUnread, Notice),
        ];
        for (state, code, severity) in all {
            let found = found(state, |_| {});
            assert_eq!(codes(&found), [code], "{state}");
            assert_eq!((found[0].severity, found[0].needs_person), (severity, false), "{state}");
            assert!(found[0].why.contains("/d: why") && !found[0].doing.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn emptied_disk_can_be_removed_and_disks_of_a_silent_node_say_nothing() {
        let empty = found(DiskState::Retiring, |node| node.disks[1].can_be_removed = true);
        assert_eq!(codes(&empty), [Code::DiskRemovable]);
        let silent = found(DiskState::Failed, |node| node.state = NodeState::Suspect);
        assert_eq!(codes(&silent), [Code::NodeSuspect]);
    }
}
