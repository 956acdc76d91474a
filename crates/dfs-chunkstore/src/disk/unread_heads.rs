//! Heads that a disk did not return when it was opened.
//!
//! The error may pass, and the replicas may be intact, so they are not absent: while such a head may
//! still be read, the disk proves no absence. Each is read again some minutes later.

use std::io;
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_types::ChunkId;
use tokio::time::Instant;

use super::failure::is_disk_failure;
use super::index::{Entry, Place};
use super::record::HEAD;
use super::recover::read_file_head;
use super::volume::Disk;
use crate::{DamagedHead, Opening};

/// Maximum number of damaged heads that are remembered; all are logged.
const DAMAGED_MAX: usize = 1_000;
/// Time until a head that could not be read is read again.
const READ_AGAIN_AFTER: Duration = Duration::from_mins(5);
/// Why a disk proves no absence.
pub(super) const UNREAD: &str = "heads of replicas could not be read when it was opened: they are \
    read again within minutes; if this stays so, restart the node";

/// What another read of a head found.
enum Found {
    Replica(ChunkId, Entry),
    /// It stays unreadable, or is damaged.
    Damaged,
    /// There is no such file any more.
    Nothing,
    /// It can be read now. Only a scan of the whole segment tells what it belongs to.
    Readable,
    /// It was not read, for a reason that says nothing about it.
    Unknown,
}

impl Disk {
    /// Records a damaged head, up to a limit, or an unread one, of which the scan limits the number.
    pub(super) fn add_damaged(&self, head: DamagedHead) {
        let mut damaged = self.heads();
        if damaged.len() < DAMAGED_MAX || head.is_unread {
            damaged.push(head);
        }
    }

    /// Returns the heads that were damaged or unreadable when it was opened.
    pub(super) fn heads(&self) -> MutexGuard<'_, Vec<DamagedHead>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the damaged heads, before the disk is read again.
    pub(super) fn clear_damaged(&self) {
        self.heads().clear();
        self.heads_due.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(super) fn has_unread_heads(&self) -> bool {
        self.heads().iter().any(|head| head.is_unread)
    }

    /// Reads the heads again that the disk did not return, once they are due. Returns true if
    /// that settled what happened to one of them.
    pub(super) async fn read_heads_again(self: &Arc<Self>) -> bool {
        if self.is_out_of_service() || !self.has_unread_heads() {
            return false;
        }
        {
            let now = Instant::now();
            let mut due = self.heads_due.lock().unwrap_or_else(PoisonError::into_inner);
            if now < *due.get_or_insert(now + READ_AGAIN_AFTER) {
                return false;
            }
            *due = Some(now + READ_AGAIN_AFTER);
        }
        let disk = Arc::clone(self);
        let Ok(found) = self.run(move || disk.read_unread_heads()).await else { return false };
        let mut replicas = Vec::new();
        for (_, found) in &found {
            if let Found::Replica(chunk, entry) = found {
                replicas.push((*chunk, *entry));
            }
        }
        // Before they stop counting as unread.
        self.add_replicas(replicas).await;
        let mut is_any_settled = false;
        for (head, found) in &found {
            is_any_settled |= self.settle_head(head, found);
        }
        is_any_settled
    }

    /// Reads them, unless the disk returns nothing at all.
    fn read_unread_heads(&self) -> Vec<(DamagedHead, Found)> {
        if self.probe().is_err() {
            return Vec::new();
        }
        let unread: Vec<_> = self.heads().iter().filter(|head| head.is_unread).cloned().collect();
        let read = |head: DamagedHead| {
            let found = self.read_head_again(&head);
            (head, found)
        };
        unread.into_iter().map(read).collect()
    }

    fn read_head_again(&self, head: &DamagedHead) -> Found {
        let found = match (head.chunk, head.offset) {
            (Some(chunk), _) => read_file_head(self, &head.path).map(|head| match head {
                Some(head) if head.chunk == chunk => {
                    Found::Replica(chunk, Entry::new(self.number, Place::File, &head))
                }
                _ => Found::Damaged,
            }),
            (None, offset) => self.can_read(&head.path, offset.unwrap_or_default()),
        };
        match found {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Found::Nothing,
            Err(error) if is_disk_failure(&error) => Found::Damaged,
            Err(_) => Found::Unknown,
        }
    }

    fn can_read(&self, path: &Path, offset: u64) -> io::Result<Found> {
        let file = self.fs.open(path, Opening::Existing)?;
        file.read_at(offset, HEAD).map(|_| Found::Readable)
    }

    /// Records what was found. Returns whether the head is no longer unread.
    fn settle_head(&self, head: &DamagedHead, found: &Found) -> bool {
        let file = head.path.display();
        let mut heads = self.heads();
        let Some(at) = heads.iter().position(|known| known == head) else { return false };
        match found {
            Found::Replica(chunk, _) => {
                tracing::info!(%chunk, %file, "the head can be read: the replica is served");
                heads.remove(at);
            }
            Found::Nothing => {
                heads.remove(at);
            }
            Found::Damaged => {
                tracing::error!(%file, at = head.offset, "the head stays unreadable: the replica is kept, and not served");
                heads[at].is_unread = false;
            }
            Found::Unknown => return false,
            Found::Readable => {
                tracing::warn!(%file, at = head.offset, "the head can be read: restart the node to serve what follows it");
                return false;
            }
        }
        true
    }
}
