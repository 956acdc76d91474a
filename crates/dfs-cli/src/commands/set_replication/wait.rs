//! Waiting until existing files have the replicas that were set.

use std::fmt::Display;
use std::time::Duration;

use dfs_types::{DfsPath, ErrorCode, FileKind, InodeId, counted};
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep};

use crate::context::Context;
use crate::error::{Error, Result};

/// First and longest pause before asking again; it doubles in between.
const POLL: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Waits until the change is recorded for all existing files, and every chunk of a path, or of all
/// files with the default of the cluster, was seen with exactly the replicas that its file wants.
/// Files are waited for one after the other, in bounded memory. New files have their replicas when
/// they appear; what is deleted or moved meanwhile is left out.
pub(super) async fn until_settled(
    path: Option<&DfsPath>,
    longest: Option<Duration>,
    cx: &Context,
) -> Result<()> {
    let deadline = longest.and_then(|longest| Instant::now().checked_add(longest));
    let mut poll = Poll::new(deadline, cx);
    while cx.client.admin().status().await?.is_replication_changing {
        poll.wait("the change is not recorded for all existing files yet").await?;
    }
    let root = DfsPath::root();
    let mut walk = cx.client.walk_resolved(path.unwrap_or(&root));
    let (mut files, mut is_first) = (0, true);
    while let Some(entry) = walk.next().await {
        let is_path = std::mem::take(&mut is_first);
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if error.code() == ErrorCode::NotFound && !is_path => continue,
            Err(error) => return Err(error.into()),
        };
        check(deadline, format_args!("{} is not checked yet", entry.path))?;
        let is_affected = path.is_some() || entry.stat.has_default_replication;
        if entry.stat.kind == FileKind::File && is_affected {
            let mut poll = Poll::new(deadline, cx);
            while let unsettled @ 1.. = unsettled_chunks(entry.stat.inode, cx).await? {
                let chunks = counted(unsettled, "chunk");
                let path = &entry.path;
                poll.wait(format_args!("{path}: {chunks} without the replicas wanted")).await?;
            }
            files += 1;
        }
    }
    let files = counted(files, "file");
    cx.out.say(format_args!("every chunk of {files} has its replicas"));
    Ok(())
}

/// Returns how many chunks of a file do not have the replicas wanted; 0 for one that was deleted.
async fn unsettled_chunks(inode: InodeId, cx: &Context) -> Result<u64> {
    match cx.client.file_replication(inode).await {
        Ok(found) => Ok(found.unsettled),
        Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::Stale) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Fails after the deadline, and names what was still to be done.
fn check(deadline: Option<Instant>, what: impl Display) -> Result<()> {
    if deadline.is_none_or(|deadline| Instant::now() < deadline) {
        return Ok(());
    }
    let message = format_args!("the time of --for is over: {what}");
    let hint = "`dfs worker list` shows what policy, repair and trim do or wait for";
    Err(Error::new(ErrorCode::Unavailable, message).hint(hint))
}

/// Growing pauses up to a deadline.
struct Poll<'a> {
    cx: &'a Context,
    deadline: Option<Instant>,
    pause: Duration,
    shown: String,
}

impl<'a> Poll<'a> {
    fn new(deadline: Option<Instant>, cx: &'a Context) -> Self {
        Self { cx, deadline, pause: POLL.0, shown: String::new() }
    }

    /// Pauses, and shows on a terminal what for. Fails after the deadline.
    async fn wait(&mut self, what: impl Display) -> Result<()> {
        let what = what.to_string();
        check(self.deadline, &what)?;
        let left = self.deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if what != self.shown && self.cx.out.wants_progress() {
            self.cx.out.say(format_args!("waiting: {what}"));
        }
        self.shown = what;
        sleep(left.map_or(self.pause, |left| self.pause.min(left))).await;
        self.pause = (self.pause * 2).min(POLL.1);
        Ok(())
    }
}
