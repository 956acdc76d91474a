//! `dfs set-replication`.

mod plan;
mod wait;

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use dfs_client::{ClusterStatus, Replication};
use dfs_types::{ErrorCode, counted};
use serde_json::json;

use self::plan::plan;
use crate::confirmation::Confirmation;
use crate::context::Context;
use crate::duration::duration;
use crate::error::{Error, Result, remote_path};
use crate::printable::printable;

/// Arguments of `dfs set-replication`.
#[derive(Debug, Args)]
#[command(after_help = "\
New files have the number at once. Existing ones get it in the background, rate-limited: `dfs
worker list` shows the progress (policy, repair, trim), `dfs explain` the replicas of a file. A
number set for a directory holds for everything below it, replaces numbers set there before, and
stays with what is moved elsewhere. --default is for everything without a number of its own.

More replicas than datanodes are accepted: each datanode then holds one, and `dfs status` counts
the chunks as under-replicated. A symlink stands for its target.

Prints the plan and asks. Exits with 0 once the change is recorded, with --wait once every chunk
has its replicas; with 2 when nobody can confirm, 3 when PATH does not exist, and 5 when the answer
was no, no coordinator responds, or the time of --for is over. The change stays recorded then, and
the same command waits again.

Examples:
  dfs set-replication /scratch 2
  dfs set-replication /ledger 5 --min-write 3 --yes
  dfs set-replication /scratch --reset
  dfs set-replication --default 3
  dfs set-replication /ledger 3 --yes --wait --for 2h")]
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
    /// Durable replicas that a write needs. Without it, a majority of N; for a PATH the number that was
    /// set for the cluster, if one was, but at most N.
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=16))]
    min_write: Option<u32>,
    /// Wait until every chunk has exactly its number of replicas, all of them sound.
    #[arg(long)]
    wait: bool,
    /// Wait at most this long: a number with s, m, h or d.
    #[arg(long = "for", value_name = "TIME", requires = "wait", value_parser = duration)]
    longest: Option<Duration>,
    #[command(flatten)]
    confirmation: Confirmation,
}

impl SetReplicationArgs {
    /// Returns the durable replicas that a write needs after the change.
    fn min_write(&self, wanted: u32, status: &ClusterStatus) -> Result<u32> {
        match self.min_write {
            Some(min) if min > wanted => {
                let message =
                    format_args!("--min-write is at most the {wanted} replicas, not {min}");
                Err(Error::new(ErrorCode::InvalidArgument, message))
            }
            Some(min) => Ok(min),
            None if self.default.is_some() => Ok(wanted / 2 + 1),
            None => Ok(status.min_write_for(wanted)),
        }
    }
}

pub(crate) async fn run(args: SetReplicationArgs, cx: &Context) -> Result<()> {
    let path = args.path.as_deref().map(remote_path).transpose()?;
    let status = cx.client.admin().status().await?;
    let wanted = args.default.or(args.replicas).unwrap_or(status.replication_factor);
    let min_write = args.min_write(wanted, &status)?;
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
    cx.out.say(format_args!("{what}, from now on; existing files follow in the background"));
    let waited =
        if args.wait { wait::until_settled(path.as_ref(), args.longest, cx).await } else { Ok(()) };
    cx.out.done(&json!({
        "path": path.as_ref().map(|path| printable(path.as_bytes())),
        "replication_factor": wanted,
        "is_reset": args.reset,
        "revision": revision.0,
        "is_settled": args.wait && waited.is_ok(),
        "plan": plan.document(),
    }));
    waited
}
