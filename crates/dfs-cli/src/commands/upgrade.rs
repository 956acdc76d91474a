//! `dfs upgrade`: the write level of the cluster.

use std::time::Duration;

use clap::{Args, Subcommand};
use dfs_client::UpgradeStatus;
use dfs_types::ErrorCode;
use serde_json::json;

use crate::confirmation::Confirmation;
use crate::context::Context;
use crate::error::{Error, Result};

/// Polling interval for the level.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Time limit for the lease holder to raise it.
const RAISED_WITHIN: Duration = Duration::from_mins(1);

/// Arguments of `dfs upgrade`.
#[derive(Debug, Args)]
#[command(after_help = "\
A new release keeps writing the formats of the previous one, so that it can be rolled back. Once all
coordinators and datanodes run it, finalize the upgrade: from then on the new formats are written,
and the older release refuses to start.

Examples:
  dfs upgrade status
  dfs upgrade finalize")]
pub(crate) struct UpgradeArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show which formats the cluster writes, and what prevents newer ones
    #[command(after_help = "\
Examples:
  dfs upgrade status
  dfs upgrade status --json | jq .blocked_by")]
    Status,
    /// Write the formats of this release from now on
    Finalize(FinalizeArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
There is no way back to the older release afterwards. Exits with 1 while a coordinator or datanode
runs the older release, and with 2 when nobody can confirm.

Examples:
  dfs upgrade finalize
  dfs upgrade finalize --yes")]
struct FinalizeArgs {
    #[command(flatten)]
    confirmation: Confirmation,
}

pub(crate) async fn run(args: UpgradeArgs, cx: &Context) -> Result<()> {
    let admin = cx.client.admin();
    let status = match args.action {
        Action::Status => admin.upgrade_status().await?,
        Action::Finalize(FinalizeArgs { confirmation }) => {
            let mut status = admin.upgrade_status().await?;
            if let Some(plan) = plan(&status) {
                cx.out.say(plan);
                confirmation.ask("Finalize the upgrade?", cx).await?;
                let cluster = admin.status().await?.cluster;
                status = admin.finalize_upgrade(cluster).await?;
            }
            wait(status, cx).await?
        }
    };
    show(&status, cx);
    Ok(())
}

/// Returns what finalizing the upgrade means; `None` if nothing newer can be requested.
fn plan(status: &UpgradeStatus) -> Option<String> {
    let UpgradeStatus { written, wanted, newest, .. } = status;
    (newest > wanted).then(|| {
        format!(
            "write level {written} is raised to {newest}: from then on a release that reads only \
             levels up to {written} refuses to start, and the upgrade cannot be rolled back"
        )
    })
}

/// Waits until the level is raised, or blocked.
async fn wait(mut status: UpgradeStatus, cx: &Context) -> Result<UpgradeStatus> {
    let deadline = tokio::time::Instant::now() + RAISED_WITHIN;
    while !status.is_final() {
        if !status.blocked_by.is_empty() {
            let members = status.blocked_by.join("\n  ");
            let text = format!(
                "the upgrade cannot be finalized; an older release is running on\n  {members}"
            );
            return Err(Error::new(ErrorCode::UnsupportedVersion, text)
                .hint("upgrade or remove them, then finalize again"));
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(Error::new(ErrorCode::Unavailable, "the level has not been raised yet")
                .hint("`dfs upgrade status` shows the progress"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        status = cx.client.admin().upgrade_status().await?;
    }
    Ok(status)
}

fn show(status: &UpgradeStatus, cx: &Context) {
    let UpgradeStatus { written, least, wanted, newest, blocked_by, .. } = status;
    if cx.out.is_json {
        cx.out.json(&json!({
            "written": written.0,
            "least": least.0,
            "wanted": wanted.0,
            "newest": newest.0,
            "blocked_by": blocked_by,
        }));
        return;
    }
    cx.out.line(format_args!("write level {written}; this release reads levels up to {newest}"));
    if wanted > written {
        cx.out.line(format_args!("level {wanted} is requested"));
    } else if newest > written {
        cx.out.line(format_args!("`dfs upgrade finalize` raises it"));
    }
    for member in blocked_by {
        cx.out.line(format_args!("  blocked by {member}"));
    }
}
