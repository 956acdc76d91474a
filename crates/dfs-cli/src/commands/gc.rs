//! `dfs gc`: permission to delete after the metadata was restored or migrated.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::{Args, Subcommand};
use dfs_client::{ClusterStatus, GcStatus};
use dfs_types::{ByteSize, counted};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Error, Result};

/// Arguments of `dfs gc`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dfs gc status
  dfs gc acknowledge")]
pub(crate) struct GcArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show whether anything is deleted, and what waits for it
    Status,
    /// Permit deletion after the metadata was restored or migrated
    Acknowledge(AcknowledgeArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Restored metadata does not know files that were written since, and names files that were deleted
since. Nothing is deleted until you have looked at them: `dfs fsck` counts the replicas that no
file needs. After this command they are deleted for good.

Examples:
  dfs gc acknowledge
  dfs gc acknowledge --yes")]
struct AcknowledgeArgs {
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn run(args: GcArgs, cx: &Context) -> Result<()> {
    let admin = cx.client.admin();
    let cluster = admin.status().await?;
    let status = admin.gc_status().await?;
    match args.action {
        Action::Status => {
            if cx.out.is_json {
                cx.out.json(&document(&cluster, &status));
            } else {
                for line in &lines(&cluster, &status) {
                    cx.out.line(line);
                }
            }
        }
        Action::Acknowledge(AcknowledgeArgs { yes }) => {
            if !status.may_delete() {
                for line in &lines(&cluster, &status) {
                    cx.out.say(line);
                }
                if !yes {
                    confirm()?;
                }
                admin.acknowledge_gc(cluster.cluster, status.incarnation).await?;
            }
            let status = admin.gc_status().await?;
            cx.out.done(&document(&cluster, &status));
            cx.out.say("deletion is permitted");
        }
    }
    Ok(())
}

/// Asks for confirmation on the terminal.
fn confirm() -> Result<()> {
    if !io::stdin().is_terminal() {
        return Err(Error::usage("stdin is not a terminal: confirm with --yes"));
    }
    let mut answer = String::new();
    let asked = write!(io::stderr(), "permit deletion? [y/N] ")
        .and_then(|()| io::stdin().lock().read_line(&mut answer));
    asked.map_err(|error| Error::usage(format_args!("cannot ask: {error}")))?;
    if matches!(answer.trim(), "y" | "yes") {
        Ok(())
    } else {
        Err(Error::usage("nothing was changed"))
    }
}

fn document(cluster: &ClusterStatus, status: &GcStatus) -> Value {
    json!({
        "may_delete": status.may_delete(),
        "incarnation": status.incarnation.0,
        "acknowledged": status.acknowledged.0,
        "doomed": status.doomed,
        "doomed_bytes": status.doomed_bytes,
        "orphans": cluster.reconciliation.orphans,
        "orphan_bytes": cluster.reconciliation.orphan_bytes,
    })
}

fn lines(cluster: &ClusterStatus, status: &GcStatus) -> Vec<String> {
    let held = "deletion is on hold: the metadata was restored or migrated; run `dfs gc \
                acknowledge` to permit it";
    let may_delete = if status.may_delete() { "deletion is permitted" } else { held };
    let found = &cluster.reconciliation;
    let mut lines = vec![may_delete.to_owned()];
    let mut waits = |replicas: u64, bytes: u64, what: &str| {
        lines.push(format!("{} ({}) {what}", counted(replicas, "replica"), ByteSize(bytes)));
    };
    waits(status.doomed, status.doomed_bytes, "of deleted files, or replaced by others");
    match found.last_whole {
        Some(_) => waits(found.orphans, found.orphan_bytes, "of no file that the metadata knows"),
        None => lines.push("replicas of no file: not known yet; `dfs fsck` counts them".to_owned()),
    }
    lines
}
