//! Metadata that is set back to an older copy once the faults have ended.
//!
//! ```text
//!  client                                   runner
//!  gives files a replica less, then the
//!  usual number, while repair is paused
//!    Backup ───────────────────────────────► copies the metadata
//!  writes files, lets repair work ◄───────── BackedUp
//!    Restore ──────────────────────────────► starts the coordinator on the copy
//!  nothing may be deleted ◄───────────────── Restored
//!  acknowledges, and reads everything
//! ```
//!
//! Replicas that were built meanwhile are adopted, files that were written are orphans. What the copy
//! names must not be deleted meanwhile, so deletion is paused from before the copy was made.

use std::collections::BTreeSet;
use std::time::Duration;

use dfs_client::{Client, PutOptions, PutSource, WorkerChange};
use dfs_types::{ChunkId, DiskId};
use tokio::time::sleep;

use super::administration::{reset_replicas, set_replicas};
use super::healing::{all_datanodes_are_back, check_everything};
use super::inspection::Durable;
use super::model::content_of;
use super::workload::{Phase, Shared, WORKERS, Wrong, directory, path, until};

/// Workers that are paused from before the copy is made until the metadata is restored and deletion is
/// acknowledged.
const DELETING: [&str; 3] = ["delete", "trim", "reconcile"];
/// Longer than all of it takes.
const PAUSE: Duration = Duration::from_mins(5);
/// Files written between the copy and the restoration.
const FILES: u64 = 3;
/// Time for trim, repair, and two comparisons with the restored records.
const TRIMMED_WITHIN: Duration = Duration::from_secs(6);
const REPAIRED_WITHIN: Duration = Duration::from_secs(5);
const COMPARED_WITHIN: Duration = Duration::from_secs(12);

/// Has the metadata copied and restored.
pub(super) async fn restore(client: &Client, shared: &Shared) -> Result<(), Wrong> {
    until("files have two replicas", async || set_replicas(client, 2, 0..WORKERS).await.is_ok())
        .await?;
    sleep(TRIMMED_WITHIN).await;
    set_workers(client, &["repair"], WorkerChange::Pause(PAUSE)).await?;
    set_workers(client, &DELETING, WorkerChange::Pause(PAUSE)).await?;
    until("files want three replicas", async || reset_replicas(client).await).await?;
    sleep(Duration::from_secs(2)).await;
    shared.enter(Phase::Backup);
    until("the metadata is copied", async || shared.phase() == Phase::BackedUp).await?;
    set_workers(client, &["repair"], WorkerChange::Resume).await?;
    for number in 0..FILES {
        write(client, shared, &format!("{}/late-{number}", directory(number % WORKERS))).await?;
    }
    sleep(REPAIRED_WITHIN).await;
    shared.enter(Phase::Restore);
    until("the metadata is restored", async || shared.phase() == Phase::Restored).await?;
    all_datanodes_are_back(client).await?;
    // It adopts now, and deletes nothing.
    set_workers(client, &DELETING, WorkerChange::Resume).await?;
    sleep(COMPARED_WITHIN).await;
    until("deletion is acknowledged", async || {
        let admin = client.admin();
        let (Ok(status), Ok(seen)) = (admin.status().await, admin.gc_status(0).await) else {
            return false;
        };
        if seen.may_delete() {
            return true;
        }
        shared.enter(Phase::Acknowledged);
        let acknowledged = admin.acknowledge_gc(status.cluster, &seen).await;
        shared.trace.note(format_args!("acknowledge deletion after {seen:?}: {acknowledged:?}"));
        false
    })
    .await?;
    if shared.phase() != Phase::Acknowledged {
        return Err("deletion was not held after the metadata was restored".to_owned());
    }
    set_workers(client, &["repair"], WorkerChange::Resume).await?;
    check_everything(client, shared).await
}

async fn set_workers(client: &Client, names: &[&str], change: WorkerChange) -> Result<(), Wrong> {
    for name in names {
        until("a worker is set", async || {
            let admin = client.admin();
            let Ok(status) = admin.status().await else { return false };
            admin.set_worker(status.cluster, name, change).await.is_ok()
        })
        .await?;
    }
    Ok(())
}

/// Writes a file that the copy does not know.
async fn write(client: &Client, shared: &Shared, name: &str) -> Result<(), Wrong> {
    let version = shared.model().next_version();
    let changes = [(name, Some(version))];
    shared.model().begin(&changes);
    let source = PutSource::bytes(content_of(version));
    let written = client.put(&path(name), source, PutOptions::default()).await;
    shared.trace.note(format_args!("put {name} version {version}: {:?}", written.is_ok()));
    match written {
        Ok(_) => shared.model().done(&changes),
        Err(error) if error.is_retryable() || error.is_outcome_unknown() => {
            shared.model().unknown(&changes);
        }
        Err(error) => return Err(format!("put {name}: {error}")),
    }
    Ok(())
}

/// What the disks held while deletion was on hold.
#[derive(Default)]
pub(super) struct Held(BTreeSet<(ChunkId, DiskId)>);

impl Held {
    /// Checks that nothing was deleted since the last call. An adopted replica has another stamp.
    pub(super) fn check(&mut self, durable: &Durable) -> Result<(), String> {
        let now: BTreeSet<_> = durable.held().map(|it| (it.chunk, it.disk)).collect();
        if let Some((chunk, disk)) = self.0.difference(&now).next() {
            return Err(format!(
                "chunk {chunk} on disk {disk} was deleted before that was allowed"
            ));
        }
        self.0 = now;
        Ok(())
    }
}
