//! `dfs set-replication`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use dfs_client::{ClusterStatus, Replication};
use dfs_types::{ByteSize, DfsPath, ErrorCode, FileKind, NodeState, counted};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::confirmation::Confirmation;
use crate::context::Context;
use crate::error::{Error, Result, remote_path};
use crate::output::span_text;
use crate::printable::printable;

/// Entries counted for the plan, at most.
const ENTRIES_MAX: u64 = 1_000_000;

/// Arguments of `dfs set-replication`.
#[derive(Debug, Args)]
#[command(after_help = "\
New files have the number at once. Existing ones get it in the background, rate-limited: `dfs worker
list` shows the progress (policy, repair, trim), `dfs explain` the replicas of a file. A number set for
a directory holds for everything below it, replaces numbers set there before, and stays with what is
moved elsewhere. --default is for everything without a number of its own.

More replicas than datanodes are accepted: each datanode then holds one, and `dfs status` counts the
chunks as under-replicated. Prints the plan and asks; exits with 2 when nobody can confirm.

Examples:
  dfs set-replication /scratch 2
  dfs set-replication /ledger 5 --min-write 3 --yes
  dfs set-replication /scratch --reset
  dfs set-replication --default 3")]
pub(crate) struct SetReplicationArgs {
    /// A file, or a directory with everything below it.
    #[arg(required_unless_present = "default", conflicts_with = "default")]
    path: Option<OsString>,
    /// Replicas of each byte, 1 to 16.
    #[arg(value_name = "N", required_unless_present_any = ["default", "reset"],
          conflicts_with_all = ["default", "reset"], value_parser = clap::value_parser!(u32).range(1..=16))]
    replicas: Option<u32>,
    /// Set the default of the cluster.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    default: Option<u32>,
    /// Return PATH to the default of the cluster.
    #[arg(long, conflicts_with_all = ["default", "min_write"])]
    reset: bool,
    /// Durable replicas that a write needs; by default a majority, for a PATH as many as elsewhere.
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=16))]
    min_write: Option<u32>,
    #[command(flatten)]
    confirmation: Confirmation,
}

/// What a change means for existing files.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Files whose number of replicas changes.
    files: u64,
    bytes_to_write: u64,
    bytes_to_free: u64,
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

    fn lines(&self, what: &str) -> Vec<String> {
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
        lines.extend(self.warnings.iter().map(|warning| format!("  warning: {warning}")));
        lines
    }

    fn document(&self) -> Value {
        json!({
            "files": self.files,
            "bytes_to_write": self.bytes_to_write,
            "bytes_to_free": self.bytes_to_free,
            "is_partial": self.is_partial,
            "room": self.room,
            "fits": self.fits(),
            "rate": self.rate,
            "duration_ms": self.duration().map(|time| time.as_millis() as u64),
            "warnings": self.warnings,
        })
    }
}

pub(crate) async fn run(args: SetReplicationArgs, cx: &Context) -> Result<()> {
    let path = args.path.as_deref().map(remote_path).transpose()?;
    let status = cx.client.admin().status().await?;
    let wanted = args.default.or(args.replicas).unwrap_or(status.replication_factor);
    let min_write = match args.min_write {
        Some(min) if min > wanted => {
            let message = format_args!("--min-write is at most the {wanted} replicas, not {min}");
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        Some(min) => min,
        None if args.default.is_some() => wanted / 2 + 1,
        None => status.min_write_replicas.min(wanted),
    };
    let plan = plan(path.as_ref(), wanted, min_write, &status, cx).await?;
    let what = match &path {
        Some(path) => format!("{path}: {}", counted(wanted.into(), "replica")),
        None => format!("default of the cluster: {}", counted(wanted.into(), "replica")),
    };
    for line in plan.lines(&what) {
        cx.out.say(line);
    }
    args.confirmation.ask("Change the replication?", cx).await?;
    let mut replication = Replication::new(wanted);
    if let Some(min) = args.min_write {
        replication = replication.min_write(min);
    }
    let (admin, cluster) = (cx.client.admin(), status.cluster);
    let revision = match &path {
        None => admin.set_replication(cluster, replication).await?,
        Some(path) => {
            let replication = (!args.reset).then_some(replication);
            admin.set_replication_of(cluster, path, replication).await?
        }
    };
    cx.out.done(&json!({
        "path": path.as_ref().map(|path| printable(path.as_bytes())),
        "replication_factor": wanted,
        "is_reset": args.reset,
        "revision": revision.0,
        "plan": plan.document(),
    }));
    cx.out.say(format_args!("{what}, from now on; existing files follow in the background"));
    Ok(())
}

/// Counts what the change means for the files that exist.
async fn plan(
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
        ..Plan::default()
    };
    let active = |state| matches!(state, NodeState::Active | NodeState::Suspect);
    let nodes = status.nodes.iter().filter(|node| active(node.state)).count() as u64;
    plan.warnings = warnings(wanted, min_write, nodes);
    let root = DfsPath::root();
    let mut walk = cx.client.walk(path.unwrap_or(&root));
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
        warnings.push(format!(
            "writes need {min_write} durable replicas: new files are refused until there are as many \
             datanodes"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
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
    fn more_replicas_than_datanodes_are_warned_of() {
        assert!(warnings(3, 2, 3).is_empty());
        let few = warnings(5, 3, 3);
        assert!(few.len() == 1 && few[0].contains("under-replicated until there are 5"), "{few:?}");
        let refused = warnings(5, 3, 2);
        assert!(refused.len() == 2 && refused[1].contains("refused"), "{refused:?}");
    }
}
