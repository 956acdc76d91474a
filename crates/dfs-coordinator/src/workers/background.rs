//! What the services and the background work tell each other.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_metadata::namespace::{DoomedCopy, WrittenChunk};
use dfs_types::{ChunkId, NodeId};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Deletions, LeaseState, Progress, Tally};

/// Chunks to be looked at that wait at most; more are found by a scan.
const NEWS_MAX: usize = 10_000;
/// Copies that wait to be deleted at most.
const DELETIONS_MAX: usize = 100_000;

/// Shared by all, and kept while workers come and go with the lease.
#[derive(Debug)]
pub(crate) struct Background {
    /// The name this coordinator takes the lease under: its address.
    holder: String,
    pub(crate) lease: Arc<LeaseState>,
    pub(crate) repair: Arc<Progress>,
    pub(crate) reaper: Arc<Progress>,
    pub(crate) delete: Arc<Progress>,
    pub(crate) deletions: Mutex<Deletions>,
    news: Mutex<News>,
    /// Told when there is news.
    has_news: Notify,
    health: Mutex<Option<Health>>,
    /// When a writer was last refused for want of room.
    no_space: Mutex<Option<Instant>>,
}

/// What happened to chunks since repair looked last.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Those that may not be as they should be.
    pub(crate) chunks: BTreeSet<ChunkId>,
    /// Those that are gone.
    pub(crate) gone: BTreeSet<ChunkId>,
    /// There were more than can be kept: only a scan finds them.
    pub(crate) has_overflowed: bool,
    /// Chunks that came, less those that went.
    pub(crate) added: i64,
}

impl News {
    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.gone.is_empty() && !self.has_overflowed && self.added == 0
    }

    fn look_at(&mut self, chunk: ChunkId) {
        if self.chunks.len() < NEWS_MAX {
            self.chunks.insert(chunk);
        } else {
            self.has_overflowed = true;
        }
    }
}

/// How the chunks are, as repair sees it.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) tally: Tally,
    /// Chunks in repair now.
    pub(crate) repairing: u64,
    /// The nodes whose copies are not counted.
    pub(crate) lost: BTreeSet<NodeId>,
}

impl Background {
    pub(crate) fn new(holder: String) -> Self {
        Self {
            holder,
            lease: Arc::default(),
            repair: Arc::new(Progress::new("repair")),
            reaper: Arc::new(Progress::new("reaper")),
            delete: Arc::new(Progress::new("delete")),
            deletions: Mutex::new(Deletions::new(DELETIONS_MAX)),
            news: Mutex::default(),
            has_news: Notify::new(),
            health: Mutex::default(),
            no_space: Mutex::default(),
        }
    }

    /// The name this coordinator takes the lease under.
    pub(crate) fn holder(&self) -> &str {
        &self.holder
    }

    /// Who runs the background work, as far as this coordinator knows.
    pub(crate) fn lease_holder(&self) -> String {
        self.lease.grant().map(|_| self.holder.clone()).unwrap_or_default()
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = &Progress> {
        [&*self.repair, &*self.reaper, &*self.delete].into_iter()
    }

    /// Tells repair of chunks that were written just now; `wanted` copies of each, when that is
    /// known. To be called before the writer gets its answer, so that who asks afterwards for the
    /// state of the data is not told of a state before.
    pub(crate) fn written(&self, chunks: &[WrittenChunk], wanted: Option<u8>) {
        if chunks.is_empty() {
            return;
        }
        let is_short = |chunk: &WrittenChunk| {
            wanted.is_none_or(|wanted| chunk.receipts.len() < usize::from(wanted))
        };
        let mut news = crate::lock(&self.news);
        news.added += chunks.len() as i64;
        for written in chunks.iter().filter(|chunk| is_short(chunk)) {
            news.look_at(written.chunk);
        }
        drop(news);
        self.has_news.notify_one();
    }

    /// Tells repair that a chunk may not be as it should be.
    pub(crate) fn look_at(&self, chunk: ChunkId) {
        crate::lock(&self.news).look_at(chunk);
        self.has_news.notify_one();
    }

    /// Takes over copies that no record names any more: repair forgets their chunks, and their
    /// nodes are ordered to delete them.
    pub(crate) fn reaped(&self, copies: &[DoomedCopy]) {
        if copies.is_empty() {
            return;
        }
        let chunks: BTreeSet<ChunkId> = copies.iter().map(|copy| copy.chunk).collect();
        let mut news = crate::lock(&self.news);
        news.added -= chunks.len() as i64;
        if news.gone.len() < NEWS_MAX {
            news.gone.extend(chunks);
        } else {
            news.has_overflowed = true;
        }
        drop(news);
        let mut deletions = crate::lock(&self.deletions);
        for copy in copies {
            deletions.push(copy.node, (copy.chunk, copy.stamp));
        }
        drop(deletions);
        self.has_news.notify_one();
    }

    /// A writer was refused for want of room.
    pub(crate) fn refused_room(&self, now: Instant) {
        *crate::lock(&self.no_space) = Some(now);
    }

    /// How long ago that was, if ever.
    pub(crate) fn no_space_since(&self, now: Instant) -> Option<Duration> {
        crate::lock(&self.no_space).map(|at| now.saturating_duration_since(at))
    }

    /// Takes the news over.
    pub(crate) fn take_news(&self) -> News {
        std::mem::take(&mut crate::lock(&self.news))
    }

    /// Waits for news. Cancel-safe.
    pub(crate) async fn wait_for_news(&self) {
        self.has_news.notified().await;
    }

    /// Publishes how the chunks are; `None` while that is not known.
    pub(crate) fn set_health(&self, health: Option<Health>) {
        *crate::lock(&self.health) = health;
    }

    /// How the chunks are, and how many are in repair; `None` when this coordinator does not know,
    /// or something has happened that repair did not look at yet. `lost` are the nodes that are
    /// lost now.
    pub(crate) fn tally(&self, lost: &BTreeSet<NodeId>) -> Option<(Tally, u64)> {
        self.lease.grant()?;
        if !crate::lock(&self.news).is_empty() {
            return None;
        }
        let health = crate::lock(&self.health);
        let health = health.as_ref().filter(|health| health.lost == *lost)?;
        Some((health.tally, health.repairing))
    }
}
