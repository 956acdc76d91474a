//! What a change means for existing files.

use std::time::Duration;

use dfs_client::{ClusterStatus, Follow};
use dfs_types::{ByteSize, DfsPath, FileKind, NodeState, counted};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::Result;
use crate::output::span_text;
use crate::printable::printable;

/// Entries counted, at most.
const ENTRIES_MAX: u64 = 1_000_000;

/// What a change means for existing files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Files whose number of replicas changes.
    files: u64,
    bytes_to_write: u64,
    bytes_to_free: u64,
    /// Durable replicas that a write needs.
    min_write: u32,
    /// Set if not everything was counted.
    is_partial: bool,
    /// Free bytes of the cluster.
    room: u64,
    /// Bytes per second at which replicas are built at most; `None` for no limit.
    rate: Option<u64>,
    warnings: Vec<String>,
}

impl Plan {
    fn fits(&self) -> bool {
        self.bytes_to_write <= self.room
    }

    /// Returns the least time that it takes; `None` without a limit.
    fn duration(&self) -> Option<Duration> {
        self.rate.map(|rate| Duration::from_secs(self.bytes_to_write.div_ceil(rate.max(1))))
    }

    /// Adds a file that has some replicas and is to have others.
    fn add(&mut self, size: u64, has: u32, wanted: u32) {
        self.files += u64::from(has != wanted);
        let more = size.saturating_mul(wanted.saturating_sub(has).into());
        let less = size.saturating_mul(has.saturating_sub(wanted).into());
        self.bytes_to_write = self.bytes_to_write.saturating_add(more);
        self.bytes_to_free = self.bytes_to_free.saturating_add(less);
    }

    pub(super) fn lines(&self, what: &str) -> Vec<String> {
        let least = if self.is_partial { "at least " } else { "" };
        let files = counted(self.files, "file");
        let (write, free) = (ByteSize(self.bytes_to_write), ByteSize(self.bytes_to_free));
        let mut lines = vec![format!("{what}: {least}{files} to change")];
        if self.bytes_to_write > 0 {
            let fits = if self.fits() { "fits" } else { "does not fit" };
            let room = ByteSize(self.room);
            lines.push(format!("  {least}{write} to write; {room} are free, where this {fits}"));
            lines.push(match (self.rate, self.duration()) {
                (Some(rate), Some(time)) => format!(
                    "  at most {} per second: at least {} (`dfs worker rate repair` changes it)",
                    ByteSize(rate),
                    span_text(time)
                ),
                _ => "  without a limit on the rate".to_owned(),
            });
        }
        if self.bytes_to_free > 0 {
            lines.push(format!("  {least}{free} to free"));
        }
        let needed = counted(self.min_write.into(), "durable replica");
        lines.push(format!("  a write needs {needed}"));
        lines.extend(self.warnings.iter().map(|warning| format!("  warning: {warning}")));
        lines
    }

    pub(super) fn document(&self) -> Value {
        json!({
            "files": self.files,
            "bytes_to_write": self.bytes_to_write,
            "bytes_to_free": self.bytes_to_free,
            "min_write_replicas": self.min_write,
            "is_partial": self.is_partial,
            "room": self.room,
            "fits": self.fits(),
            "rate": self.rate,
            "duration_ms": self.duration().map(|time| time.as_millis() as u64),
            "warnings": self.warnings,
        })
    }
}

/// Counts what the change means for the files that exist. `None` stands for the default of the
/// cluster; a symlink for its target.
pub(super) async fn plan(
    path: Option<&DfsPath>,
    wanted: u32,
    min_write: u32,
    status: &ClusterStatus,
    cx: &Context,
) -> Result<Plan> {
    let repair = status.workers.iter().find(|worker| worker.name == "repair");
    let mut plan = Plan {
        room: status.free(),
        rate: repair.and_then(|worker| worker.rate),
        min_write,
        ..Plan::default()
    };
    let active = |state| matches!(state, NodeState::Active | NodeState::Suspect);
    let nodes = status.nodes.iter().filter(|node| active(node.state)).count() as u64;
    plan.warnings = warnings(wanted, min_write, nodes);
    plan.warnings.extend(running(status));
    if let Some(path) = path {
        let stat = cx.client.stat(path, Follow::No).await?;
        if stat.kind == FileKind::Symlink {
            let target = printable(&stat.symlink_target);
            plan.warnings.push(format!("{path} is a symlink: its target, {target}, is changed"));
        }
    }
    let root = DfsPath::root();
    let mut walk = cx.client.walk_resolved(path.unwrap_or(&root));
    let mut entries = 0;
    while let Some(entry) = walk.next().await {
        let stat = match entry {
            Ok(entry) => entry.stat,
            Err(error) if entries == 0 => return Err(error.into()),
            // A directory that was deleted meanwhile.
            Err(_) => {
                plan.is_partial = true;
                continue;
            }
        };
        entries += 1;
        let is_affected = path.is_some() || stat.has_default_replication;
        if stat.kind == FileKind::File && is_affected {
            plan.add(stat.size, stat.replication_factor, wanted);
        }
        if entries == ENTRIES_MAX {
            plan.is_partial = true;
            break;
        }
    }
    Ok(plan)
}

/// Returns what is known of an earlier change that is not complete.
fn running(status: &ClusterStatus) -> Option<String> {
    let is_trimming = || {
        let trim = status.workers.iter().find(|worker| worker.name == "trim");
        trim.is_some_and(|worker| worker.queued > 0)
    };
    (status.is_replication_changing || is_trimming()).then(|| {
        "an earlier change is still being applied: the bytes above are the difference to what was set, \
         not to the replicas that exist now; the newest change wins"
            .to_owned()
    })
}

/// Returns what these numbers mean in a cluster of so few datanodes.
fn warnings(wanted: u32, min_write: u32, nodes: u64) -> Vec<String> {
    let have = counted(nodes, "datanode");
    let mut warnings = Vec::new();
    if nodes < wanted.into() {
        warnings.push(format!(
            "{have} can hold replicas, at most one of each chunk: chunks stay under-replicated until \
             there are {wanted}"
        ));
    }
    if nodes < min_write.into() {
        warnings.push(format!("new files are refused until there are {min_write} datanodes"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use dfs_client::WorkerStatus;
    use dfs_types::ClusterId;

    use super::*;

    #[test]
    fn plan_says_what_is_written_and_freed_whether_it_fits_and_how_long_it_takes() {
        let mut plan = Plan { room: 1 << 30, rate: Some(1 << 20), ..Plan::default() };
        plan.add(100 << 20, 1, 3);
        plan.add(100 << 20, 3, 3);
        plan.add(50 << 20, 5, 3);
        assert_eq!(
            (plan.files, plan.bytes_to_write >> 20, plan.bytes_to_free >> 20),
            (2, 200, 100)
        );
        let text = plan.lines("/a: 3 replicas").join("\n");
        for part in ["2 files to change", "200MiB to write", "this fits", "100MiB to free", "3 min"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(plan.document()["duration_ms"], 200_000);
        plan.room = 0;
        plan.is_partial = true;
        let text = plan.lines("/a").join("\n");
        assert!(text.contains("does not fit") && text.contains("at least 2 files"), "{text}");
    }

    #[test]
    fn change_that_is_being_applied_is_named() {
        let mut status = ClusterStatus::new(ClusterId(1));
        status.workers = vec![WorkerStatus::new("trim")];
        assert_eq!(running(&status), None);
        status.workers[0].queued = 1;
        assert!(running(&status).is_some());
        status.workers.clear();
        status.is_replication_changing = true;
        assert!(running(&status).unwrap().contains("an earlier change is still being applied"));
    }

    #[test]
    fn more_replicas_than_datanodes_are_warned_of() {
        assert!(warnings(3, 2, 3).is_empty());
        let few = warnings(5, 3, 3);
        assert!(few.len() == 1 && few[0].contains("under-replicated until there are 5"), "{few:?}");
        let refused = warnings(5, 3, 2);
        assert!(refused.len() == 2 && refused[1].contains("refused"), "{refused:?}");
    }
}
