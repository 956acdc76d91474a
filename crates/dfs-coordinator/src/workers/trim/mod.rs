//! Dooms the replicas of chunks that have more than their redundancy asks for: after the replication
//! factor was lowered, or when a node returned whose replicas were rebuilt.
//!
//! A pass reads the records that are not at rest (`w/r/`). A replica is doomed only after another one
//! was read end to end, and only while as many as wanted are good without it.

mod surplus;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::{Chunk, Namespace};
use dfs_types::{ChunkId, Scope, counted, move_cost, with_causes};
use dfs_workers::{Handle, Next, Spec, TRIM, Worker};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::time::Instant;
use tracing::warn;

use self::surplus::{Situation, Surplus, surplus};
use super::DELETION_HELD;
use super::doom::doom;
use crate::Error;
use crate::core::Core;

/// Pause after a pass, for each page that it read: records that stay not at rest cost little.
const PAUSE_PER_PAGE: Duration = Duration::from_secs(1);
/// Longest pause after a pass.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// The worker.
pub(crate) struct Trim {
    core: Arc<Core>,
    lease: LeaseGrant,
    handle: Arc<Handle>,
    /// Position of the pass.
    after: Option<ChunkId>,
    pass: Pass,
}

/// Progress of a pass.
#[derive(Debug, Clone, Copy, Default)]
struct Pass {
    pages: u32,
    /// Chunks with surplus replicas.
    found: u64,
    /// Those of them that were left as they are for now.
    left: u64,
}

impl Trim {
    pub(crate) fn new(core: Arc<Core>, lease: LeaseGrant, handle: Arc<Handle>) -> Self {
        Self { core, lease, handle, after: None, pass: Pass::default() }
    }

    /// Returns why nothing may be doomed now, if so.
    async fn held(&self) -> Result<Option<String>, Error> {
        if let Some(held) = self.core.background.held() {
            return Ok(Some(held));
        }
        let may_delete = self.core.namespace.may_delete().await;
        let may_delete = may_delete.map_err(Error::metadata("reading whether to delete"))?;
        Ok((!may_delete).then(|| DELETION_HELD.to_owned()))
    }

    fn surplus(&self, record: &Chunk) -> Option<Surplus> {
        let now = Instant::now();
        let (views, cluster) = {
            let registry = self.core.registry();
            (registry.views(now), registry.cluster(now))
        };
        surplus(record, &cluster, &Situation::of(&views))
    }

    /// Reads the record of a chunk, and returns it with what can be dropped, if anything.
    async fn read_surplus(&self, chunk: ChunkId) -> Result<Option<(Chunk, Surplus)>, Error> {
        let read = self.core.namespace.chunks(Scope::internal(), &[chunk]).await;
        let records = read.map_err(Error::metadata("reading the record of a chunk"))?;
        let Some(record) = records.into_iter().flatten().next() else { return Ok(None) };
        let surplus = self.surplus(&record).filter(|surplus| !surplus.doomed.is_empty());
        Ok(surplus.map(|surplus| (record, surplus)))
    }

    /// Dooms the surplus replicas of a chunk of this length. Returns how many.
    async fn trim(&self, chunk: ChunkId, length: u64) -> Result<usize, Error> {
        // Without a claim: it lasts as long as a pause, and repair may need the chunk meanwhile.
        let cost = move_cost(length);
        self.handle.take(cost).await;
        let claim = self.core.background.claim(chunk);
        let found = match claim {
            Some(_) => self.read_surplus(chunk).await?,
            None => None,
        };
        let Some((record, Surplus { doomed, kept })) = found else {
            self.handle.give_back(cost);
            return Ok(0);
        };
        let is_still_right = || {
            let surplus = self.surplus(&record);
            self.core.background.held().is_none()
                && surplus.is_some_and(|surplus| surplus.doomed == doomed)
        };
        let on = (&*self.core, &self.lease);
        let trimmed = doom(on, (chunk, &record), &doomed, &kept, is_still_right).await?;
        Ok(trimmed.map_or(0, |_| doomed.len()))
    }

    /// Trims the chunks of a page. One that fails does not keep the others, or the next page, from
    /// being trimmed. Returns whether any was left as it is.
    async fn trim_all(&mut self, chunks: Vec<(ChunkId, u64)>) -> bool {
        let this = &*self;
        let jobs: Vec<BoxFuture<'_, _>> = chunks
            .into_iter()
            .map(|(chunk, length)| async move { (chunk, this.trim(chunk, length).await) }.boxed())
            .collect();
        let mut jobs = stream::iter(jobs).buffer_unordered(self.core.settings.repair_concurrency);
        let mut left = 0;
        while let Some((chunk, trimmed)) = jobs.next().await {
            match trimmed {
                Ok(0) => left += 1,
                Ok(replicas) => this.handle.add_done(replicas as u64),
                Err(error) => {
                    warn!(%chunk, error = with_causes(&error), "a chunk could not be trimmed");
                    this.handle.add_failed(1);
                    left += 1;
                }
            }
        }
        drop(jobs);
        self.pass.left += left;
        left > 0
    }
}

#[async_trait]
impl Worker for Trim {
    const SPEC: Spec = TRIM;

    type Error = Error;

    async fn step(&mut self) -> Result<Next, Error> {
        let limit = Namespace::PAGE_LEN_MAX;
        let page = self.core.namespace.chunks_to_repair(Scope::internal(), self.after, limit).await;
        let page = page.map_err(Error::metadata("reading which chunks are not at rest"))?;
        let found: Vec<(ChunkId, u64)> = page
            .chunks
            .iter()
            .filter(|(_, record)| self.surplus(record).is_some())
            .map(|(chunk, record)| (*chunk, record.seal.length))
            .collect();
        let mut has_left = false;
        if !found.is_empty()
            && let Some(held) = self.held().await?
        {
            self.handle.set_detail(held);
            return Ok(Next::After(PAUSE_PER_PAGE));
        }
        self.pass.pages += 1;
        self.pass.found += found.len() as u64;
        if !found.is_empty() {
            let chunks = counted(self.pass.found, "chunk");
            self.handle.set_detail(format!("trimming {chunks} with more replicas than wanted"));
            self.handle.set_queued(found.len() as u64);
            has_left = self.trim_all(found).await;
            self.handle.set_queued(0);
        }
        self.after = page.next;
        if self.after.is_some() {
            self.core.background.set_surplus(self.pass.found);
            // What keeps these from being trimmed may keep the next ones, too.
            return Ok(if has_left { Next::After(PAUSE_PER_PAGE) } else { Next::Again });
        }
        let pass = std::mem::take(&mut self.pass);
        self.handle.set_queued(pass.left);
        self.core.background.set_surplus(pass.left);
        match pass.left {
            0 => self.handle.set_detail("no chunk has more replicas than wanted"),
            left => {
                let chunks = counted(left, "chunk");
                self.handle.set_detail(format!("{chunks} cannot be trimmed now; trying again"));
            }
        }
        if pass.found > pass.left {
            return Ok(Next::Again);
        }
        Ok(Next::After((PAUSE_PER_PAGE * pass.pages).min(PAUSE_MAX)))
    }
}
