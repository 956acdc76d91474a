//! The namespace: files, directories and symlinks, their uploads, chunks and nodes, as pure
//! transactions over the [`Engine`] trait.

mod attributes;
mod changes;
mod chunk_records;
mod cluster;
mod confirmed_clock;
mod coordinators;
mod delete;
mod deletion_hold;
mod directory;
mod disk_numbers;
mod format;
mod gc_floor;
mod holdings;
mod inodes;
mod mutation;
mod node_intent;
mod nodes;
mod pending_policies;
mod policies;
mod precondition;
mod read;
mod reaper;
mod rename;
mod replicas;
mod reply_cache;
mod resolve;
mod safe_to_stop;
mod stat;
mod symlink;
mod transaction;
mod trash;
mod undelete;
mod unneeded;
mod upgrade;
mod upload;
mod workers;
mod xattrs;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dfs_types::{Clock, ClusterKeys, Level, Random, Timestamp};

use self::trash::AT_ONCE;
use crate::committer::Committer;
use crate::engine::Engine;

pub use crate::records::chunk::{Chunk, Replica, ReplicaMark};
pub use crate::records::format::Coordinator;
pub use crate::records::node::{Node, NodeDisk, NodeDiskState};
pub use crate::records::policy::Policy;
pub use crate::records::stat::FileStat;
pub use crate::records::worker::{WorkerControl, WorkerPause};
pub use attributes::SetAttributes;
pub use changes::{ChunkChange, ChunkChanges};
pub(crate) use chunk_records::ChunkKey;
pub use chunk_records::{ChunkPage, ScanCursor, Unreadable, WorkPage};
pub(crate) use cluster::refuse_unfinished;
pub use cluster::{ClusterIdentity, ClusterState, InitOptions, find, init};
pub use delete::Delete;
pub use deletion_hold::{GcStatus, Hold};
pub use directory::MakeDirectory;
pub use disk_numbers::{DiskLocation, Disks};
pub(crate) use format::read_cluster;
pub use gc_floor::FLOOR_MARGIN;
pub use holdings::{Holdings, HoldingsScan, Loss, NeededChunk};
use mutation::TRIES;
pub use node_intent::{Emptied, Grant};
pub use nodes::{NodeVersion, Nodes, Registered, Registration};
pub use pending_policies::PolicyStep;
pub use read::{OpenFile, ReadExtent, ReadPlan};
pub use reaper::{ReapLimits, Reaped};
pub use rename::Rename;
pub use replicas::{Doom, Evidence, Marked, ReplicaId};
pub use reply_cache::Repeat;
pub use safe_to_stop::{Liveness, NodeIntentVersion, Safety, SafetyScan, Shortfall, Unknown};
pub use stat::{DirectoryEntry, DirectoryPage};
pub use symlink::MakeSymlink;
pub use undelete::Undelete;
pub use unneeded::{UnneededPage, UnneededReplica};
pub use upgrade::{CoordinatorSightings, UpgradeStatus, UpgradeStep};
pub use upload::{
    Confirm, NextPage, PLAN_LIFETIME, Placement, PlanUpload, PlannedChunk, Replan, UploadPlan,
    WrittenChunk,
};
pub use workers::WorkerChange;
pub use xattrs::{RemoveXattr, SetXattr};

/// Dependencies of a namespace.
#[derive(Clone)]
pub struct Components {
    /// The metadata store.
    pub engine: Arc<dyn Engine>,
    /// Commits to that store in groups.
    pub committer: Committer,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Source of chunk ids and jitter.
    pub random: Arc<dyn Random>,
}

/// Settings of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Time for which deleted or replaced files can be restored.
    pub restorable: Duration,
    /// Monotonic time for which the clock must have shown at least a time before anything expires
    /// at it. With zero, the clock is trusted at once.
    pub confirm_clock: Duration,
    /// The newest write level that is read. Lower than that of the release only where one build
    /// acts as two releases.
    pub level: Level,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            restorable: Duration::from_hours(1),
            confirm_clock: Duration::ZERO,
            level: Level::NEWEST,
        }
    }
}

/// One cluster's namespace. A cheap handle; clones share everything.
///
/// Unless stated otherwise, a call is one transaction: it reads at one snapshot, commits on the
/// condition that its reads still hold, and retries conflicts up to a bound. When a future is
/// dropped, its change may or may not take effect.
#[derive(Clone)]
pub struct Namespace {
    inner: Arc<Inner>,
}

struct Inner {
    components: Components,
    options: Options,
    identity: ClusterIdentity,
    keys: ClusterKeys,
    /// The write level read last.
    format: std::sync::Mutex<format::CurrentFormat>,
    inodes: inodes::Inodes,
    /// Revision of the last commit of this process that changed a chunk.
    chunks_changed_at: std::sync::atomic::AtomicU64,
    /// The disks known at the last lookup.
    disks: std::sync::Mutex<Arc<Disks>>,
    /// Time of the newest floor this process has seen, in milliseconds since 1970.
    floor_ms: std::sync::atomic::AtomicU64,
    /// What expires is judged by it.
    confirmed_clock: std::sync::Mutex<confirmed_clock::ConfirmedClock>,
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({:?})", self.inner.identity)
    }
}

impl Namespace {
    fn now(&self) -> Timestamp {
        self.inner.components.clock.now()
    }

    /// Returns a time that has certainly passed, even if the clock is temporarily ahead; `None`
    /// until the clock was observed for long enough. Observes the clock: to be called regularly.
    pub fn confirmed_now(&self) -> Option<Timestamp> {
        let clock = &self.inner.confirmed_clock;
        let mut clock = clock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        clock.observe(self.now(), tokio::time::Instant::now())
    }

    /// Returns the time by which expiry is judged: a [confirmed](Self::confirmed_now) one. Nothing
    /// expires while there is none.
    fn expiry_now(&self) -> Timestamp {
        self.confirmed_now().unwrap_or(AT_ONCE)
    }
}

#[cfg(test)]
mod tests;
