//! The repair of several chunks: their records are read at once, and each node gets one order for the
//! small replicas that it is to build.

use std::collections::BTreeMap;
use std::sync::Arc;

use dfs_metadata::namespace::Disks;
use dfs_types::{ChunkId, ErrorCode, NodeId, SMALL_BUILD_MAX, SMALL_BUILDS_MAX, Scope};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::oneshot;
use tracing::warn;

use super::Job;
use super::chunk::{Begun, ChunkRepair, RepairOutcome, RepairResult, SmallBuilt, TargetFailed};
use super::jobs::Results;
use crate::Error;
use crate::background::Claim;
use crate::workers::RepairNeed;
use crate::workers::orders::{self, Built, SmallBuild};

/// Chunks that are repaired together, with what they need. Each ends by itself.
#[derive(Debug, Default)]
pub(super) struct Batch(BTreeMap<ChunkId, (RepairNeed, Claim)>);

/// The small builds of a node, and where their results go.
type Lot = Vec<(SmallBuild, oneshot::Sender<SmallBuilt>)>;

impl Batch {
    /// Adds a chunk. Returns the batch if it is complete.
    pub(super) fn add(&mut self, chunk: ChunkId, need: RepairNeed, claim: Claim) -> Option<Self> {
        if need.length() > SMALL_BUILD_MAX {
            return Some(Self([(chunk, (need, claim))].into()));
        }
        self.0.insert(chunk, (need, claim));
        (self.0.len() >= SMALL_BUILDS_MAX).then(|| std::mem::take(self))
    }

    /// Returns the number of chunks.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the chunks.
    pub(super) fn chunks(&self) -> Vec<ChunkId> {
        self.0.keys().copied().collect()
    }

    /// Does what is possible now for the chunks, and sends the result of each as soon as it ends.
    pub(super) async fn run(self, repair: ChunkRepair, results: Results<Job>) {
        let chunks = self.chunks();
        let mut claimed = Claimed { chunks: self.0, results };
        let Started { begun, ended, disks } = match start(&repair, &chunks).await {
            Ok(started) => started,
            Err(error) => {
                // It is reported once.
                let mut error = Some(error);
                for chunk in chunks {
                    claimed.end(chunk, Err(Failed(error.take()))).await;
                }
                return;
            }
        };
        for (chunk, result) in ended {
            claimed.end(chunk, result).await;
        }
        let (mut lots, mut small) = (BTreeMap::<NodeId, Lot>::new(), BTreeMap::new());
        for begun in &begun {
            for (target, build) in begun.small_builds(&disks) {
                let (built, result) = oneshot::channel();
                lots.entry(target).or_default().push((build, built));
                small.entry(begun.chunk).or_insert_with(BTreeMap::new).insert(target, result);
            }
        }
        let (repair, disks) = (&repair, &*disks);
        let mut tasks: FuturesUnordered<BoxFuture<'_, Option<_>>> = FuturesUnordered::new();
        for (target, lot) in lots {
            tasks.push(order(repair, target, lot).map(|()| None).boxed());
        }
        for begun in begun {
            let chunk = begun.chunk;
            let small = small.remove(&chunk).unwrap_or_default();
            let finished = repair.finish(begun, disks, small);
            tasks.push(finished.map(move |result| Some((chunk, result))).boxed());
        }
        while let Some(ended) = tasks.next().await {
            if let Some((chunk, result)) = ended {
                claimed.end(chunk, result.map_err(|error| Failed(Some(error)))).await;
            }
        }
    }
}

/// Chunks of a batch that have not ended.
struct Claimed {
    chunks: BTreeMap<ChunkId, (RepairNeed, Claim)>,
    results: Results<Job>,
}

impl Claimed {
    async fn end(&mut self, chunk: ChunkId, result: Result<RepairResult, Failed>) {
        let Some((before, claim)) = self.chunks.remove(&chunk) else { return };
        drop(claim);
        let result = match result {
            Ok(result) => Ok(result),
            Err(Failed(Some(error))) => Err(error),
            Err(Failed(None)) => {
                let outcome = RepairOutcome::Failed;
                Ok(RepairResult { need: Some(before), replicas: 0, outcome })
            }
        };
        self.results.send(chunk, Job { before, result }).await;
    }
}

/// What comes of the plans of a batch.
struct Started {
    begun: Vec<Begun>,
    ended: Vec<(ChunkId, Result<RepairResult, Failed>)>,
    disks: Arc<Disks>,
}

/// The end of a chunk of which nothing new is known; the error is `None` if it was reported already.
struct Failed(Option<Error>);

/// Reads the records of the chunks, and begins the repairs for which there is room.
async fn start(repair: &ChunkRepair, chunks: &[ChunkId]) -> Result<Started, Error> {
    let namespace = &repair.core.namespace;
    let records = namespace.readable_chunks(Scope::internal(), chunks).await;
    let records = records.map_err(Error::metadata("reading the records of chunks"))?;
    let readable = records.iter().filter_map(|record| record.as_ref().ok()?.as_ref());
    let disks = namespace.disks_of(readable).await;
    let disks = disks.map_err(Error::metadata("reading the disks of chunks"))?;
    let situation = repair.situation();
    let (mut begun, mut ended) = (Vec::new(), Vec::new());
    for (chunk, record) in chunks.iter().zip(records) {
        let gone = RepairResult { need: None, replicas: 0, outcome: RepairOutcome::Done };
        match record {
            Ok(Some(record)) if !record.is_tombstone() => {
                match repair.begin(*chunk, record, &situation) {
                    Ok(started) => begun.push(started),
                    Err(result) => ended.push((*chunk, Ok(result))),
                }
            }
            Ok(_) => ended.push((*chunk, Ok(gone))),
            Err(unreadable) => {
                warn!(%chunk, why = unreadable.why, "the record of a chunk is unreadable");
                ended.push((*chunk, Err(Failed(None))));
            }
        }
    }
    Ok(Started { begun, ended, disks })
}

/// Orders a node to build small replicas, and passes on those that it built. Those that it left out are
/// dropped, to be ordered by themselves.
async fn order(repair: &ChunkRepair, target: NodeId, lot: Lot) {
    let (builds, built): (Vec<_>, Vec<_>) = lot.into_iter().unzip();
    let waiting = builds.iter().map(|build: &SmallBuild| build.chunk).zip(built);
    let mut waiting: BTreeMap<ChunkId, oneshot::Sender<SmallBuilt>> = waiting.collect();
    let on_built = |built: Built| {
        if let Some(waiting) = waiting.remove(&built.receipt.chunk) {
            // Its receiver is as alive as this.
            let _ = waiting.send(Ok(built));
        }
    };
    let built = orders::build_small(&repair.core, &repair.lease, target, &builds, on_built).await;
    let Err(failure) = built else { return };
    warn!(%target, %failure, left = waiting.len(), "small replicas could not be built together");
    // Others would fail as well, and hang as long.
    if matches!(failure.code, ErrorCode::Unavailable | ErrorCode::OutcomeUnknown) {
        for waiting in waiting.into_values() {
            let _ = waiting.send(Err(TargetFailed));
        }
    }
}
