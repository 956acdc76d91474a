//! `dfs doctor`.

use std::time::Duration;

use clap::Args;
use dfs_client::{Admin, Client, ClusterStatus};
use dfs_engines::OpenError;
use dfs_types::{Clock as _, ClusterId, DiskState, NodeState, SystemClock, Timestamp, with_causes};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::context::Context;
use crate::doctor::{
    Checked, Coordinator, Emptying, Facts, Finding, Reply, StoreFacts, Unreached, examine,
    examine_store, unreachable,
};
use crate::error::{Error, Result};

/// Time within which another coordinator takes the worker lease over.
const LEASE_WITHIN: Duration = Duration::from_secs(15);
/// Interval of asking for it.
const POLL: Duration = Duration::from_secs(1);
/// Draining nodes and retiring disks whose plans are looked up, at most.
const PLANS_MAX: usize = 20;

/// Arguments of `dfs doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Lists what is wrong, the most urgent first: why, what is done about it, and what you can do. Changes
nothing. The codes are stable; docs/faults.md explains each of them. What could not be checked is
listed, too.

Exits with 0 when nothing is wrong or it is being handled, and with 7 when a person is needed.

With --offline, examines a metadata store on which no coordinator starts, without changing it:
whether it is damaged, of a newer release or of another cluster, and what to do then.
`dfs metadata check` reads every record of it.

Examples:
  dfs doctor
  dfs doctor --json | jq -r '.findings[] | select(.needs_person) | .code'
  dfs doctor --offline redb:///var/lib/dfs/metadata")]
pub(crate) struct DoctorArgs {
    /// Examine this metadata store instead of a running cluster.
    #[arg(long, value_name = "URL")]
    offline: Option<String>,
    /// The cluster that the store should hold.
    #[arg(long, value_name = "CLUSTER", requires = "offline")]
    expect: Option<ClusterId>,
}

impl DoctorArgs {
    /// Returns true if no cluster is asked.
    #[cfg(feature = "kube")]
    pub(crate) fn is_local(&self) -> bool {
        self.offline.is_some()
    }
}

pub(crate) async fn run(args: DoctorArgs, cx: &Context) -> Result<()> {
    let found = match &args.offline {
        Some(url) => examine_store(url, &open(url).await?, args.expect),
        None => match gather(cx).await {
            Ok(facts) => examine(&facts),
            Err(finding) => vec![*finding],
        },
    };
    show(&found, cx);
    match found.iter().filter(|finding| finding.needs_person).count() {
        0 => Ok(()),
        _ => Err(Error::person_needed()),
    }
}

fn show(found: &[Finding], cx: &Context) {
    if cx.out.is_json {
        cx.out.json(&document(found));
        return;
    }
    if found.is_empty() {
        cx.out.line("nothing is wrong");
    }
    for line in found.iter().flat_map(Finding::lines) {
        cx.out.line(line);
    }
}

fn document(found: &[Finding]) -> Value {
    json!({
        "needs_person": found.iter().any(|finding| finding.needs_person),
        "findings": found.iter().map(Finding::document).collect::<Vec<_>>(),
    })
}

/// Opens a metadata store without changing it.
async fn open(url: &str) -> Result<StoreFacts> {
    Ok(match dfs_engines::open_unchanged(url).await {
        Ok(None) => StoreFacts::Absent,
        Ok(Some(engine)) => StoreFacts::Open(dfs_metadata::namespace::find(&*engine).await),
        Err(OpenError::Engine { source, .. }) => StoreFacts::Closed(source),
        Err(error) => return Err(Error::usage(with_causes(&error))),
    })
}

/// Asks the coordinators for what is known. Fails with the finding that none replies.
async fn gather(cx: &Context) -> std::result::Result<Facts, Box<Finding>> {
    let asked = join_all(cx.coordinators().into_iter().map(|(address, client)| async move {
        let asked = ask(&client).await;
        (address, client, asked)
    }));
    let (mut coordinators, mut failures, mut first) = (Vec::new(), Vec::new(), None);
    for (address, client, asked) in asked.await {
        let reply = match asked {
            Ok((status, ahead_ms)) => {
                let cluster = status.cluster;
                first.get_or_insert((client, status));
                Ok(Reply { cluster, ahead_ms })
            }
            Err(error) => {
                let why = error.to_string();
                failures.push(error);
                Err(why)
            }
        };
        coordinators.push(Coordinator { address, reply });
    }
    let Some((client, status)) = first else {
        let any = |is: fn(&dfs_client::Error) -> bool| failures.iter().any(is);
        let reason = match () {
            () if any(dfs_client::Error::is_of_metadata) => Unreached::MetadataFailed,
            () if any(dfs_client::Error::is_uninitialised) => Unreached::Uninitialised,
            () => Unreached::Silent,
        };
        let why: Vec<String> = failures.iter().map(ToString::to_string).collect();
        return Err(Box::new(unreachable(&why.join("; "), reason)));
    };
    let admin = client.admin().one_round();
    let status = with_lease_holder(status, &admin).await;
    let (gc, upgrade) = tokio::join!(admin.gc_status(0), admin.upgrade_status());
    let moves = moves(&status, &admin).await;
    Ok(Facts { coordinators, gc: checked(gc), upgrade: checked(upgrade), moves, status })
}

fn checked<T>(reply: std::result::Result<T, dfs_client::Error>) -> Checked<T> {
    reply.map_err(|error| error.to_string())
}

/// Returns the status, and how far the clock of the coordinator is ahead, in milliseconds.
async fn ask(client: &Client) -> std::result::Result<(ClusterStatus, i64), dfs_client::Error> {
    let (before, began) = (SystemClock.now(), Instant::now());
    let status = client.admin().one_round().status().await?;
    let here = before.millis().saturating_add(began.elapsed().as_millis() as u64 / 2);
    let ahead_ms = status.now.millis().cast_signed() - here.cast_signed();
    // An older release does not tell its time.
    let is_known = status.now != Timestamp::default();
    Ok((status, if is_known { ahead_ms } else { 0 }))
}

/// Waits for a coordinator that does the background work: the lease may be changing hands.
async fn with_lease_holder(mut status: ClusterStatus, admin: &Admin) -> ClusterStatus {
    let until = Instant::now() + LEASE_WITHIN;
    while status.worker_lease_holder.is_empty() && Instant::now() < until {
        sleep(POLL).await;
        if let Ok(newer) = admin.status().await {
            status = newer;
        }
    }
    status
}

/// Returns the plans of all that is being emptied.
async fn moves(
    status: &ClusterStatus,
    admin: &Admin,
) -> Vec<(Emptying, Checked<dfs_client::MovePlan>)> {
    let draining = status.nodes.iter().filter(|node| node.state == NodeState::Draining);
    let draining = draining.map(|node| Emptying { node: node.id, disk: None });
    let retiring = status.nodes.iter().filter(|node| node.state == NodeState::Active);
    let retiring = retiring.flat_map(|node| node.disks.iter().map(move |disk| (node.id, disk)));
    let retiring = retiring.filter_map(|(node, disk)| {
        let is_full = disk.state == DiskState::Retiring && !disk.can_be_removed;
        is_full.then_some(Emptying { node, disk: Some(disk.id) })
    });
    let mut moves = Vec::new();
    for (number, what) in draining.chain(retiring).enumerate() {
        let plan = match what.disk {
            _ if number >= PLANS_MAX => Err("too many are being emptied".to_owned()),
            None => checked(admin.plan_drain(status.cluster, what.node, &[]).await),
            Some(disk) => checked(admin.plan_retire(status.cluster, what.node, disk).await),
        };
        moves.push((what, plan));
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_page;

    #[test]
    fn document_matches_the_page() {
        let found = document(&[unreachable("refused", Unreached::Silent)]);
        assert_eq!(found["needs_person"], true);
        let fields = json_page::check("doctor", &found);
        assert_eq!(fields.len(), json_page::listed("doctor").len());
    }
}
