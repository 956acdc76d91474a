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
use super::doom::{Doomed, doom};
use crate::Error;
use crate::core::Core;

/// Pause after a pass, for each page that it read: records that stay not at rest cost little.
const PAUSE_PER_PAGE: Duration = Duration::from_secs(1);
/// Longest pause after a pass.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// Why a chunk was left as it is, if another worker or a node was faster.
const CHANGED: &str = "it has changed meanwhile";

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
#[derive(Debug, Default)]
struct Pass {
    pages: u32,
    /// Chunks with surplus replicas.
    found: u64,
    /// Those of them that were left as they are for now.
    left: u64,
    /// The last one of these, and why.
    example: Option<(ChunkId, String)>,
}

impl Pass {
    /// Describes the pass after its end.
    fn describe(&self) -> String {
        let chunks = counted(self.left, "chunk");
        match &self.example {
            None => "no chunk has more replicas than wanted".to_owned(),
            Some((chunk, why)) => {
                format!("{chunks} cannot be trimmed now, such as {chunk}: {why}; trying again")
            }
        }
    }
}

/// Outcome of trimming a chunk.
enum Trimmed {
    /// So many replicas are doomed.
    Done(usize),
    /// It was left as it is, for this reason.
    Left(String),
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

    /// Reads the record of a chunk, and returns it with what can be dropped, or why nothing can.
    async fn read_surplus(
        &self,
        chunk: ChunkId,
    ) -> Result<Result<(Chunk, Surplus), String>, Error> {
        let read = self.core.namespace.chunks(Scope::internal(), &[chunk]).await;
        let records = read.map_err(Error::metadata("reading the record of a chunk"))?;
        let record = records.into_iter().flatten().next();
        let found = record.and_then(|record| Some((self.surplus(&record)?, record)));
        Ok(match found {
            None => Err(CHANGED.to_owned()),
            Some((surplus, _)) if surplus.doomed.is_empty() => Err(waiting(&surplus)),
            Some((surplus, record)) => Ok((record, surplus)),
        })
    }

    /// Dooms the surplus replicas of a chunk of this length.
    async fn trim(&self, chunk: ChunkId, length: u64) -> Result<Trimmed, Error> {
        // Without a claim: it lasts as long as a pause, and repair may need the chunk meanwhile.
        let cost = move_cost(length);
        self.handle.take(cost).await;
        let claim = self.core.background.claim(chunk);
        let found = match claim {
            Some(_) => self.read_surplus(chunk).await?,
            None => Err("another worker moves or repairs it".to_owned()),
        };
        let (record, Surplus { doomed, kept, .. }) = match found {
            Ok(found) => found,
            Err(why) => {
                self.handle.give_back(cost);
                return Ok(Trimmed::Left(why));
            }
        };
        let is_still_right = || {
            let surplus = self.surplus(&record);
            self.core.background.held().is_none()
                && surplus.is_some_and(|surplus| surplus.doomed == doomed)
        };
        let on = (&*self.core, &self.lease);
        Ok(match doom(on, (chunk, &record), &doomed, &kept, is_still_right).await? {
            Doomed::Done(_) => Trimmed::Done(doomed.len()),
            Doomed::Changed => Trimmed::Left(CHANGED.to_owned()),
            Doomed::Unread(why) => Trimmed::Left(why),
        })
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
        let (mut left, mut example) = (0, None);
        while let Some((chunk, trimmed)) = jobs.next().await {
            match trimmed {
                Ok(Trimmed::Done(replicas)) => this.handle.add_done(replicas as u64),
                Ok(Trimmed::Left(why)) => {
                    left += 1;
                    example = Some((chunk, why));
                }
                Err(error) => {
                    let why = with_causes(&error);
                    warn!(%chunk, error = why, "a chunk could not be trimmed");
                    this.handle.add_failed(1);
                    left += 1;
                    example = Some((chunk, why));
                }
            }
        }
        drop(jobs);
        self.pass.left += left;
        if example.is_some() {
            self.pass.example = example;
        }
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
        self.handle.set_detail(pass.describe());
        if pass.found > pass.left {
            return Ok(Next::Again);
        }
        Ok(Next::After((PAUSE_PER_PAGE * pass.pages).min(PAUSE_MAX)))
    }
}

/// Describes why none of the surplus replicas of a chunk can be dropped now.
fn waiting(surplus: &Surplus) -> String {
    let nodes: Vec<String> = surplus.waits_for.iter().map(|node| format!("node {node}")).collect();
    format!(
        "it waits for {}, which may not be reachable: without the replica there the others would \
         share a zone or a machine",
        nodes.join(" and ")
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dfs_types::NodeId;

    use super::*;

    #[test]
    fn pass_names_a_chunk_that_was_left_and_what_it_waits_for() {
        assert_eq!(Pass::default().describe(), "no chunk has more replicas than wanted");
        let waits_for = BTreeSet::from([NodeId(7)]);
        let why = waiting(&Surplus { doomed: Vec::new(), kept: Vec::new(), waits_for });
        let example = Some((ChunkId(3), why));
        let text = Pass { pages: 1, found: 2, left: 2, example }.describe();
        let (chunk, node) = (ChunkId(3), NodeId(7));
        let begin =
            format!("2 chunks cannot be trimmed now, such as {chunk}: it waits for node {node}");
        assert!(text.starts_with(&begin) && text.ends_with("; trying again"), "{text}");
    }
}
