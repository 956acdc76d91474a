//! `dfs worker`: the background workers, their pauses and rates.

use std::time::Duration;

use clap::{Args, Subcommand};
use dfs_client::{WorkerChange, WorkerStatus, WorkerUnit};
use dfs_types::ByteSize;
use serde_json::json as document;

use crate::context::Context;
use crate::duration::duration;
use crate::error::Result;
use crate::json;

/// Arguments of `dfs worker`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dfs worker list
  dfs worker pause repair --for 2h
  dfs worker rate repair 50MiB")]
pub(crate) struct WorkerArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the background workers
    #[command(after_help = "\
Examples:
  dfs worker list
  dfs worker list --json | jq .lease_holder")]
    List,
    /// Pause a background worker for a while
    Pause(PauseArgs),
    /// End the pause of a background worker
    Resume(ResumeArgs),
    /// Limit the rate of a background worker
    Rate(RateArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Work in progress completes, but nothing new starts. A pause ends by itself, and survives restarts of
coordinators. Pausing again restarts it. Exits with 0 when the worker is paused, 2 when no
worker has this name, 5 when no coordinator runs the workers now.

Examples:
  dfs worker pause repair
  dfs worker pause delete --for 90m")]
struct PauseArgs {
    /// Name of the worker, as `dfs worker list` shows it.
    #[arg(value_name = "NAME")]
    name: String,
    /// Length of the pause, after which it ends by itself: a number with s, m, h or d; at most 7d.
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = duration)]
    length: Duration,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exits with 0 when the worker is not paused, 2 when no worker has this name, 5 when no
coordinator runs the workers now.

Examples:
  dfs worker resume repair")]
struct ResumeArgs {
    /// Name of the worker, as `dfs worker list` shows it.
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The rate applies until it is changed, and survives restarts. Exits with 0 when it is set, 2 when no
worker has this name, 5 when no coordinator runs the workers now.

Examples:
  dfs worker rate repair 50MiB
  dfs worker rate delete 500
  dfs worker rate repair default")]
struct RateArgs {
    /// Name of the worker, as `dfs worker list` shows it.
    #[arg(value_name = "NAME")]
    name: String,
    /// Bytes or items per second, more than 0; `unlimited`, or `default` for the worker's own.
    #[arg(value_name = "RATE", value_parser = rate)]
    rate: WorkerChange,
}

pub(crate) async fn run(args: WorkerArgs, cx: &Context) -> Result<()> {
    match args.action {
        Action::List => list(cx).await,
        Action::Pause(PauseArgs { name, length }) => {
            set(cx, &name, WorkerChange::Pause(length)).await
        }
        Action::Resume(ResumeArgs { name }) => set(cx, &name, WorkerChange::Resume).await,
        Action::Rate(RateArgs { name, rate }) => set(cx, &name, rate).await,
    }
}

async fn list(cx: &Context) -> Result<()> {
    let found = cx.client.admin().workers().await?;
    if cx.out.is_json {
        cx.out.json(&document!({
            "lease_holder": found.lease_holder,
            "workers": found.workers.iter().map(json::worker).collect::<Vec<_>>(),
        }));
        return Ok(());
    }
    cx.out.line(format_args!(
        "{:<10} {:<12} {:>12} {:>10} {:>8} {:>8}  state",
        "worker", "activity", "rate", "done", "failed", "queued"
    ));
    for worker in &found.workers {
        let left = worker.pause_left.map(|left| format!("  for {} s more", left.as_secs()));
        cx.out.line(format_args!(
            "{:<10} {:<12} {:>12} {:>10} {:>8} {:>8}  {}{}",
            worker.name,
            worker.activity.name(),
            rate_text(worker),
            worker.done,
            worker.failed,
            worker.queued,
            worker.state,
            left.unwrap_or_default(),
        ));
    }
    if found.lease_holder.is_none() {
        cx.out.say("no coordinator is known to be running the workers");
    }
    Ok(())
}

async fn set(cx: &Context, name: &str, change: WorkerChange) -> Result<()> {
    let admin = cx.client.admin();
    let cluster = admin.status().await?.cluster;
    let worker = admin.set_worker(cluster, name, change).await?;
    cx.out.done(&json::worker(&worker));
    let pause = match worker.pause_left {
        Some(left) => format!("is paused for {} s", left.as_secs_f64().ceil()),
        None => "is not paused".to_owned(),
    };
    cx.out.say(format_args!("worker {name} {pause}, rate {}", rate_text(&worker)));
    Ok(())
}

fn rate_text(worker: &WorkerStatus) -> String {
    match (worker.rate, worker.unit) {
        (None, _) => "unlimited".to_owned(),
        (Some(rate), WorkerUnit::Bytes) => format!("{}/s", ByteSize(rate)),
        (Some(rate), _) => format!("{rate}/s"),
    }
}

fn rate(text: &str) -> std::result::Result<WorkerChange, String> {
    match text {
        "unlimited" => Ok(WorkerChange::Rate(None)),
        "default" => Ok(WorkerChange::DefaultRate),
        _ => match text.parse() {
            Ok(ByteSize(0)) => {
                Err("a rate must be positive; `dfs worker pause` stops a worker".to_owned())
            }
            Ok(ByteSize(rate)) => Ok(WorkerChange::Rate(Some(rate))),
            Err(error) => Err(format!("{error}; or `unlimited`, or `default`")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_parsed_and_nonsense_is_refused() {
        assert_eq!(rate("50MiB"), Ok(WorkerChange::Rate(Some(50 << 20))));
        assert_eq!(rate("500"), Ok(WorkerChange::Rate(Some(500))));
        assert_eq!(rate("unlimited"), Ok(WorkerChange::Rate(None)));
        assert_eq!(rate("default"), Ok(WorkerChange::DefaultRate));
        assert!(rate("0").is_err() && rate("fast").is_err());
    }
}
