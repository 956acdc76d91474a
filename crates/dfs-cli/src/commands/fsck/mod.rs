//! `dfs fsck`.

mod repair;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Args;
use dfs_client::{DeleteOptions, ReplicaCheck, WorkerChange};
use dfs_types::{ByteSize, Change, ChunkId, DfsPath, ErrorCode, InodeId, Precondition, counted};
use serde_json::{Value, json};
use tokio::time::sleep;

use self::repair::Repaired;
use super::file_names;
use crate::confirmation::Confirmation;
use crate::context::Context;
use crate::duration::duration;
use crate::error::{Error, Result};
use crate::printable::printable;

/// Interval of asking for progress.
const POLL: Duration = Duration::from_millis(300);

/// Arguments of `dfs fsck`.
#[derive(Debug, Args)]
#[command(after_help = "\
Compares the replicas that every datanode lists with the metadata, now, and waits for the result.
Lost replicas are repaired afterwards. Orphaned replicas are deleted a day later. `dfs status`
shows both. Prints the paths of files that are missing bytes or replicas.

A datanode lists what its index holds, and reads its disks for it only when it starts. What
disappears from a disk, or rots on it, is found by the worker `scrub`, which reads every replica
within 14 days. With --read, it starts to read all of them now, at its rate, which may take hours;
`dfs worker list` shows how far it is. `dfs explain --verify PATH` reads every replica of a file.

With --delete-lost, deletes the files that have bytes without any replica, after showing them. They
can be restored for as long as other deleted files, but their bytes come back only with a disk that
holds them. Refused while a disk could not be compared: it may hold these bytes. First bring it
back, or give it up with `dfs node forget`.

With --repair, waits until everything that was found is repaired or cannot be, at most for --for, and
says of each file what could not be repaired and why. Repair works without it, too, on chunks with the
fewest replicas first.

Exits with 1 when a file has bytes that cannot be read, and with 5 when a disk could not be
compared, or with --repair when something is not repaired.

Examples:
  dfs fsck
  dfs fsck --read
  dfs fsck --repair --for 10m
  dfs fsck --json | jq .damaged
  dfs fsck --delete-lost")]
pub(crate) struct FsckArgs {
    /// Also have the datanodes read every replica on their disks, in the background.
    #[arg(long)]
    read: bool,
    /// Wait until what was found is repaired, or cannot be.
    #[arg(long, conflicts_with = "delete_lost")]
    repair: bool,
    /// Time to wait at most: a number with s, m, h or d.
    #[arg(long = "for", value_name = "TIME", default_value = "1h", requires = "repair",
          value_parser = duration)]
    within: Duration,
    /// Delete files that have lost bytes for good.
    #[arg(long)]
    delete_lost: bool,
    #[command(flatten)]
    confirmation: Confirmation,
}

/// A file with damaged chunks.
struct DamagedFile {
    /// `None` for a file without a name, such as a deleted one that can be restored.
    path: Option<DfsPath>,
    inode: InodeId,
    /// Its state when it was found.
    change: Option<Change>,
    missing: u64,
    /// Of the missing chunks, those that no disk holds.
    lost: u64,
    degraded: u64,
    /// All of these chunks.
    chunks: BTreeSet<ChunkId>,
    is_deleted: bool,
    /// What became of it, once that was waited for.
    repaired: Option<Repaired>,
}

impl DamagedFile {
    fn unnamed(inode: InodeId) -> Self {
        Self {
            path: None,
            inode,
            change: None,
            missing: 0,
            lost: 0,
            degraded: 0,
            chunks: BTreeSet::new(),
            is_deleted: false,
            repaired: None,
        }
    }

    /// Returns its path, or what is known instead.
    fn name(&self) -> String {
        match &self.path {
            Some(path) => printable(path.as_bytes()),
            None => format!("inode {} (deleted)", self.inode),
        }
    }
}

pub(crate) async fn run(args: FsckArgs, cx: &Context) -> Result<()> {
    if args.read {
        let admin = cx.client.admin();
        let cluster = admin.status().await?.cluster;
        admin.set_worker(cluster, "scrub", WorkerChange::Start).await?;
        cx.out
            .say("the datanodes read every replica now; `dfs worker list` shows how far they are");
    }
    let found = check(cx).await?;
    let mut damaged = damaged_files(cx, &found).await?;
    if !cx.out.is_json {
        for line in lines(&found, &damaged) {
            cx.out.line(line);
        }
    }
    if args.repair {
        repair::wait(&mut damaged, args.within, cx).await?;
        for line in damaged.iter().filter_map(repaired_line).filter(|_| !cx.out.is_json) {
            cx.out.line(line);
        }
    }
    let deleted = if args.delete_lost {
        delete_lost(args.confirmation, &found, &mut damaged, cx).await
    } else {
        Ok(())
    };
    if cx.out.is_json {
        cx.out.json(&document(&found, &damaged));
    }
    deleted?;
    let is_left = |file: &DamagedFile| file.missing > 0 && file.path.is_some() && !file.is_deleted;
    let is_listed = found.damaged.len() as u64 == found.missing_chunks + found.degraded_chunks;
    if args.delete_lost && is_listed && !damaged.iter().any(is_left) {
        return Ok(());
    }
    let is_left = |file: &&DamagedFile| file.repaired.as_ref().is_none_or(|it| it.left > 0);
    let missing = damaged.iter().filter(is_left).any(|file| file.missing > 0);
    if found.missing_chunks > 0 && (missing || !is_listed) {
        let chunks = counted(found.missing_chunks, "chunk");
        let message = format!("{chunks} cannot be read from any disk in service");
        return Err(Error::new(ErrorCode::Corrupt, message));
    }
    if found.skipped > 0 {
        let message = "some disks could not be compared";
        let hint = "`dfs status` shows nodes and disks that are not in service";
        return Err(Error::new(ErrorCode::Unavailable, message).hint(hint));
    }
    if args.repair && !is_listed {
        let message = "more chunks are damaged than were looked up";
        return Err(Error::new(ErrorCode::Unavailable, message).hint("run it again"));
    }
    repair::result(&damaged)
}

/// Runs a comparison to its end.
async fn check(cx: &Context) -> Result<ReplicaCheck> {
    let admin = cx.client.admin();
    let cluster = admin.status().await?.cluster;
    let mut found = admin.check_replicas(cluster).await?;
    let mut shown = 0;
    while !found.is_done {
        if found.records > shown && cx.out.wants_progress() {
            shown = found.records;
            cx.out.say(format_args!("{shown} chunks compared so far"));
        }
        sleep(POLL).await;
        found = admin.replica_check(cluster, found.id).await?;
    }
    Ok(found)
}

/// Deletes the files with chunks that no disk holds, unless a disk was not compared.
async fn delete_lost(
    confirmation: Confirmation,
    found: &ReplicaCheck,
    damaged: &mut [DamagedFile],
    cx: &Context,
) -> Result<()> {
    if found.skipped > 0 {
        let message = "nothing was deleted: a disk that could not be compared may hold the bytes";
        let hint = "bring the disk or its node back, or give it up with `dfs node forget`";
        return Err(Error::new(ErrorCode::Unavailable, message).hint(hint));
    }
    let is_lost = |file: &&mut DamagedFile| file.lost > 0 && file.path.is_some();
    let is_missing = damaged.iter().any(|file| file.missing > 0);
    let mut lost: Vec<_> = damaged.iter_mut().filter(is_lost).collect();
    if lost.is_empty() {
        cx.out.say(if is_missing {
            "nothing is deleted yet: run it again to confirm that no disk holds the missing bytes"
        } else {
            "no file has lost bytes"
        });
        return Ok(());
    }
    let files = counted(lost.len() as u64, "file");
    for file in &lost {
        let path = file.path.as_ref().map(|path| printable(path.as_bytes())).unwrap_or_default();
        let chunks = counted(file.lost, "chunk");
        cx.out.say(format_args!("will delete {path}: {chunks} without a replica on any disk"));
    }
    confirmation.ask(&format!("delete {files}, with the bytes that are left of them?"), cx).await?;
    for file in &mut lost {
        let Some(path) = file.path.clone() else { continue };
        let precondition = Precondition::Inode { inode: file.inode, change: file.change };
        let options = DeleteOptions::default().precondition(precondition);
        // A file that was written meanwhile is no longer the one that was shown.
        cx.client.delete(path, options).await?;
        file.is_deleted = true;
    }
    cx.out.say(format_args!("deleted {files}"));
    Ok(())
}

/// Names the files of the damaged chunks, by a walk over all names.
async fn damaged_files(cx: &Context, found: &ReplicaCheck) -> Result<Vec<DamagedFile>> {
    let mut files: BTreeMap<InodeId, DamagedFile> = BTreeMap::new();
    for chunk in &found.damaged {
        let file = files.entry(chunk.inode).or_insert_with(|| DamagedFile::unnamed(chunk.inode));
        *(if chunk.is_missing { &mut file.missing } else { &mut file.degraded }) += 1;
        file.lost += u64::from(chunk.is_lost);
        file.chunks.insert(chunk.chunk);
    }
    let named = file_names::find(cx, files.keys().copied().collect()).await?;
    let mut ordered = Vec::new();
    for entry in named {
        if let Some(mut file) = files.remove(&entry.stat.inode) {
            (file.path, file.change) = (Some(entry.path), Some(entry.stat.change));
            ordered.push(file);
        }
    }
    ordered.extend(files.into_values());
    Ok(ordered)
}

fn document(found: &ReplicaCheck, damaged: &[DamagedFile]) -> Value {
    let file = |file: &DamagedFile| {
        json!({
            "path": file.path.as_ref().map(|path| printable(path.as_bytes())),
            "inode": file.inode.0,
            "missing_chunks": file.missing,
            "lost_chunks": file.lost,
            "degraded_chunks": file.degraded,
            "deleted": file.is_deleted,
            "unrepaired_chunks": file.repaired.as_ref().map(|repaired| repaired.left),
            "why": file.repaired.as_ref().filter(|it| it.left > 0).map(|it| &it.why),
        })
    };
    json!({
        "chunks": found.records,
        "skipped": found.skipped,
        "gone": found.gone,
        "back": found.back,
        "orphans": found.orphans,
        "orphan_bytes": found.orphan_bytes,
        "deleted_orphans": found.deleted_orphans,
        "surplus": found.surplus,
        "deleted_surplus": found.deleted_surplus,
        "adopted": found.adopted,
        "missing_chunks": found.missing_chunks,
        "degraded_chunks": found.degraded_chunks,
        "damaged": damaged.iter().map(file).collect::<Vec<_>>(),
    })
}

/// Returns what became of a file, if that was waited for.
fn repaired_line(file: &DamagedFile) -> Option<String> {
    let Repaired { left, why } = file.repaired.as_ref()?;
    Some(match left {
        0 => format!("{}: repaired", file.name()),
        left => format!("{}: {} not repaired: {why}", file.name(), counted(*left, "chunk")),
    })
}

/// Returns the human-readable report.
fn lines(found: &ReplicaCheck, damaged: &[DamagedFile]) -> Vec<String> {
    let mut lines = vec![format!("compared {} with the disks", counted(found.records, "chunk"))];
    let mut note = |count: u64, text: &str| {
        if count > 0 {
            lines.push(format!("{}: {text}", counted(count, "replica")));
        }
    };
    note(found.gone, "lost by their disks, to be re-replicated");
    note(found.back, "found again");
    note(found.adopted, "missing from the metadata, recorded again");
    let kept = found.surplus.saturating_sub(found.deleted_surplus);
    note(kept, "not needed by their files, kept for now");
    note(found.deleted_surplus, "not needed by their files, deleted");
    if found.orphans > 0 {
        let bytes = ByteSize(found.orphan_bytes);
        let waiting = found.orphans.saturating_sub(found.deleted_orphans);
        note(waiting, &format!("orphaned, kept for now (all orphans: {bytes})"));
        note(found.deleted_orphans, "orphaned, deleted");
    }
    if found.skipped > 0 {
        lines.push("not all disks could be compared".to_owned());
    }
    for file in damaged {
        let path = file.name();
        let mut what = Vec::new();
        if file.missing > 0 {
            what.push(format!("{} without a replica", counted(file.missing, "chunk")));
        }
        if file.degraded > 0 {
            what.push(format!("{} with bad or too few replicas", counted(file.degraded, "chunk")));
        }
        lines.push(format!("{path}: {}", what.join(", ")));
    }
    if found.missing_chunks + found.degraded_chunks == 0 {
        lines.push("no file is damaged".to_owned());
    }
    lines
}
