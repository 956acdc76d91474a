//! Reads one piece of a chunk from any of its replicas: hedged, with failover, verified.

use std::sync::Arc;
use std::time::Duration;

use dfs_types::{ErrorCode, InodeId, ReplicaHealth, ReplicaRef};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::coordinator_call::jittered;
use crate::layout::{Extent, Replica, Source, refreshed};
use crate::memory_budget::Share;
use crate::pieces::Piece;
use crate::replica_read::{ReadError, Run};
use crate::stats::count;
use crate::{Client, Error};

/// Bounds of the pause before all replicas are tried again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The error of each replica that was tried.
type ReadErrors = Vec<(Source, ReadError)>;

impl Client {
    /// Fetches a piece of an open file, as runs of bytes in order. Tries every replica, refreshes
    /// their locations, and repeats until the deadline of the client.
    pub(crate) async fn fetch(
        &self,
        context: &str,
        inode: InodeId,
        mut piece: Piece,
    ) -> Result<Run, Error> {
        let started = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            let errors = match self.fetch_once(&piece).await {
                Ok(bytes) => return Ok(bytes),
                Err(errors) => errors,
            };
            let wait = jittered(pause, self.inner.random.as_ref());
            if started.elapsed() + wait >= self.inner.deadline {
                return Err(no_replica(context, &piece.extent, &errors));
            }
            let are_final = !errors.is_empty() && errors.iter().all(|(_, error)| error.is_final());
            if !are_final {
                tokio::time::sleep(wait).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            count(&self.inner.counters.retries);
            let extent = refreshed(self, context, inode, &piece.extent).await?;
            if are_final && is_exhausted(&extent, &errors) {
                return Err(no_replica(context, &extent, &errors));
            }
            if are_final && extent.sources().all(|(_, source)| was_tried(source.replica, &errors)) {
                // The others cannot be reached yet.
                tokio::time::sleep(wait).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            piece.extent = Arc::new(extent);
        }
    }

    /// Tries each replica once, moving to the next when one fails or is slow.
    async fn fetch_once(&self, piece: &Piece) -> Result<Run, ReadErrors> {
        let mut reports = JoinSet::new();
        let fetched = self.race(piece, &mut reports).await;
        // The reports are awaited: the program may end with its last byte.
        while reports.join_next().await.is_some() {}
        match fetched {
            Err(errors) if errors.iter().any(|(_, error)| error.is_of_some_blocks()) => {
                self.gather(piece, errors).await
            }
            fetched => fetched,
        }
    }

    /// Fetches a piece of which no replica has all blocks, each run of blocks from a replica that
    /// has it. `errors` are those of the replicas when asked for the whole piece, which were
    /// reported.
    async fn gather(&self, piece: &Piece, errors: ReadErrors) -> Result<Run, ReadErrors> {
        let is_of_other_chunk = |source: &Source| {
            let is_it = |(tried, error): &(Source, ReadError)| {
                tried.replica == source.replica && matches!(error, ReadError::OtherChunk)
            };
            errors.iter().any(is_it)
        };
        let mut sources = self.in_order(piece);
        sources.retain(|source| !is_of_other_chunk(source));
        let start = piece.extent.chunk_offset + piece.offset;
        let end = start + piece.length;
        let mut run = Run::at(start);
        let mut failed = ReadErrors::new();
        // Each source in turn, until all of them have failed at the same block.
        for source in sources.iter().cycle() {
            let at = run.end();
            match self.read_into(&mut run, source, &piece.extent, end).await {
                Ok(()) => break,
                Err(error) => {
                    if run.end() > at {
                        failed.clear();
                    }
                    failed.push((source.clone(), error));
                }
            }
            if failed.len() >= sources.len() {
                // Those that serve another chunk.
                let serve_other = |(_, error): &_| matches!(error, ReadError::OtherChunk);
                failed.extend(errors.into_iter().filter(serve_other));
                return Err(failed);
            }
        }
        match run.check(&piece.extent) {
            Ok(()) if run.end() == end => {
                let (chunk, file_offset) = (piece.extent.chunk, piece.file_offset());
                tracing::info!(%chunk, file_offset, "read block by block from several replicas");
                Ok(run)
            }
            _ => Err(errors),
        }
    }

    async fn race(&self, piece: &Piece, reports: &mut JoinSet<()>) -> Result<Run, ReadErrors> {
        let inner = &self.inner;
        let chunk = piece.extent.chunk;
        let mut waiting = self.in_order(piece).into_iter();
        let mut running = JoinSet::new();
        let mut asked = Vec::new();
        let mut errors = ReadErrors::new();
        let mut has_hedged = false;
        let started = Instant::now();
        let mut ask = |running: &mut JoinSet<_>, source: Source, share: Option<Share>| {
            asked.push(source.node.id);
            let (client, piece) = (self.clone(), piece.clone());
            running.spawn(self.in_request(async move {
                let offset = piece.extent.chunk_offset + piece.offset;
                let read = client.read_replica(&source, &piece.extent, offset, piece.length).await;
                drop(share);
                (source, read)
            }));
        };
        if let Some(nearest) = waiting.next() {
            ask(&mut running, nearest, None);
        }
        while !running.is_empty() {
            let can_hedge = !has_hedged && waiting.len() > 0;
            let ended = tokio::select! {
                biased;
                ended = running.join_next() => ended,
                () = tokio::time::sleep(inner.penalties.hedge_after()), if can_hedge => {
                    // The caller has a share of the budget for one replica only.
                    if let Some(share) = inner.budget.try_take(piece.length)
                        && let Some(source) = waiting.next()
                    {
                        has_hedged = true;
                        count(&inner.counters.hedges);
                        ask(&mut running, source, Some(share));
                    }
                    continue;
                }
            };
            let Some(Ok((source, read))) = ended else { continue };
            let node = source.node.id;
            let error = match read {
                Ok(bytes) => {
                    inner.penalties.took(started.elapsed());
                    let has_failed = |id| errors.iter().any(|(tried, _)| tried.node.id == id);
                    let before = asked.into_iter().take_while(|id| *id != node);
                    before.filter(|id| !has_failed(*id)).for_each(|id| inner.penalties.add(id));
                    return Ok(bytes);
                }
                Err(error) => error,
            };
            if let Some(block) = error.bad_block() {
                count(&inner.counters.corrupt_blocks);
                tracing::warn!(%chunk, %node, ?error, "a replica is corrupt");
                let (client, source) = (self.clone(), source.clone());
                reports.spawn(self.in_request(async move {
                    client.report_corrupt(&source, block).await;
                }));
            }
            if let ReadError::Failed(failure) = &error {
                tracing::debug!(%chunk, %node, %failure, "a replica cannot be read");
                // A missing or bad replica does not make its node bad.
                let is_of_replica = error.is_of_replica() || error.is_of_some_blocks();
                if failure.code != ErrorCode::NotFound && !is_of_replica {
                    inner.penalties.add(node);
                }
            }
            errors.push((source, error));
            if let Some(next) = waiting.next() {
                count(&inner.counters.failovers);
                ask(&mut running, next, None);
            }
        }
        Err(errors)
    }
}

fn was_tried(replica: ReplicaRef, errors: &[(Source, ReadError)]) -> bool {
    errors.iter().any(|(tried, _)| tried.replica == replica)
}

/// Returns whether no other replica can have the bytes: each was tried, or the records say that it
/// is bad, gone or doomed.
fn is_exhausted(extent: &Extent, errors: &[(Source, ReadError)]) -> bool {
    let is_hopeless = |replica: &Replica| {
        let is_bad = replica.health == ReplicaHealth::Bad;
        is_bad || replica.is_condemned() || was_tried(replica.name, errors)
    };
    extent.replicas.iter().all(is_hopeless)
}

fn no_replica(context: &str, extent: &Extent, errors: &[(Source, ReadError)]) -> Error {
    let chunk = extent.chunk;
    if errors.is_empty() {
        let replicas = extent.replicas.len();
        // Those do not come back with their nodes.
        return if replicas > 0 && extent.replicas.iter().all(Replica::is_condemned) {
            let message = format!("all {replicas} replicas of chunk {chunk} are gone");
            Error::new(ErrorCode::Corrupt, context, message)
        } else {
            let message = format!(
                "no datanode that holds one of the {replicas} replicas of chunk {chunk} has a \
                 known address"
            );
            Error::new(ErrorCode::Unavailable, context, message)
        };
    }
    let messages: Vec<String> = errors
        .iter()
        .map(|(Source { node, .. }, error)| match error {
            ReadError::Corrupt(block) => {
                format!("node {} at {}: block {block} is corrupt", node.id, node.address)
            }
            ReadError::OtherChunk => {
                format!(
                    "node {} at {}: it serves the blocks of another chunk",
                    node.id, node.address
                )
            }
            ReadError::Failed(failure) => failure.message.clone(),
        })
        .collect();
    let is_corrupt =
        is_exhausted(extent, errors) && errors.iter().all(|(_, error)| error.is_of_replica());
    let code = if is_corrupt { ErrorCode::Corrupt } else { ErrorCode::Unavailable };
    let untried = extent.replicas.iter().filter(|replica| !was_tried(replica.name, errors)).count();
    let others = if untried > 0 { format!("; {untried} not tried") } else { String::new() };
    let message =
        format!("no replica of chunk {chunk} can be read: {}{others}", messages.join("; "));
    Error::new(code, context, message)
}
