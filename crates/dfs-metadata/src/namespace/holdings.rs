//! Replicas on a node that is to be removed.
//!
//! All chunks are read page by page, at different moments, so that any number of them can be
//! checked. The receipts of a leaving node do not count: its replicas found by a scan that began
//! later are all that it can ever have. That they are not needed stays true as long as the chunks
//! that are not at rest, read again at the end, do not need them, and no other disk was lost.

use std::collections::BTreeSet;

use dfs_types::{Access, ChunkId, InodeId, NodeId, Revision, Scope, Sha256};

use super::safe_to_stop::{Liveness, NodeIntentVersion, Unknown};
use super::{Chunk, Namespace, Node, Replica, ScanCursor};
use crate::chunk_health::{Cluster, judge};
use crate::{Error, keys};

/// Chunks listed at most.
const LISTED_MAX: usize = 10_000;

/// Chunks that would become missing without a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loss {
    /// Number of chunks.
    pub chunks: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Sum of the hashes of their ids, modulo 2^64: equal for the same chunks only.
    pub digest: u64,
}

/// A chunk that would become missing, and the file whose upload wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeededChunk {
    /// The chunk.
    pub chunk: ChunkId,
    /// The file.
    pub inode: InodeId,
}

impl Loss {
    fn add(&mut self, id: ChunkId, chunk: &Chunk) {
        let mut first = [0; 8];
        first.copy_from_slice(&Sha256::of(&id.to_bytes()).0[..8]);
        self.chunks += 1;
        self.bytes = self.bytes.saturating_add(chunk.seal.length);
        self.digest = self.digest.wrapping_add(u64::from_be_bytes(first));
    }
}

/// Replicas on a node according to the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// The node.
    pub node: NodeId,
    /// Set if it was leaving when the scan began, so that its replicas can only decrease.
    pub is_leaving: bool,
    /// Chunks with a replica on the node, good or bad, that is not waiting for deletion.
    pub chunks: u64,
    /// What would be lost without the node.
    pub loss: Loss,
    /// The chunks that would be lost, the first 10,000 of them.
    pub listed: Vec<NeededChunk>,
    /// Unreadable chunk records, which may name the node.
    pub unknown: Unknown,
    /// Unreadable node records: replicas on the disks of these nodes do not count.
    pub unknown_nodes: Unknown,
    /// Version of the node record.
    pub(super) version: Revision,
    /// Desired states at that moment.
    pub(super) intent: NodeIntentVersion,
}

/// A scan of all chunks for the replicas on a node, page by page.
#[derive(Debug)]
pub struct HoldingsScan {
    known: Node,
    /// The disks, those of the node excluded.
    without: Cluster,
    holdings: Holdings,
    /// The part of the loss that was not at rest.
    unrest: Loss,
    checked: u64,
    after: Option<ScanCursor>,
    is_over: bool,
}

impl HoldingsScan {
    fn count(&mut self, id: ChunkId, chunk: &Chunk) {
        let holdings = &mut self.holdings;
        holdings.chunks += u64::from(replicas_on(chunk, &self.known).next().is_some());
        if !needs(chunk, &self.known, &self.without) {
            return;
        }
        holdings.loss.add(id, chunk);
        if holdings.listed.len() < LISTED_MAX {
            holdings.listed.push(NeededChunk { chunk: id, inode: chunk.inode });
        }
        if !chunk.is_at_rest() {
            self.unrest.add(id, chunk);
        }
    }

    /// Returns how many chunks were checked so far.
    pub fn checked(&self) -> u64 {
        self.checked
    }
}

/// Returns the replicas of a chunk on a node, good or bad, that are not waiting for deletion.
fn replicas_on<'a>(chunk: &'a Chunk, node: &'a Node) -> impl Iterator<Item = &'a Replica> {
    let named = chunk.replicas.iter().filter(|_| !chunk.is_tombstone());
    named.filter(|replica| node.has(replica.disk) && !replica.is_doomed())
}

/// Returns whether a chunk becomes missing without a node.
fn needs(chunk: &Chunk, node: &Node, without: &Cluster) -> bool {
    replicas_on(chunk, node).any(Replica::is_sound) && judge(chunk, without).is_missing()
}

impl Namespace {
    /// Begins a scan of all chunks for the replicas on a node and for the chunks that need it.
    pub async fn begin_holdings_scan(
        &self,
        scope: &Scope,
        node: NodeId,
        liveness: &Liveness,
    ) -> Result<HoldingsScan, Error> {
        scope.require(Access::Admin)?;
        let tx = self.begin().await?;
        let found = tx.peek_versioned::<Node>(&keys::node(node)).await?;
        let (known, version) = found.ok_or(Error::UnknownNode(node))?;
        let intent = tx.peek_intent().await?;
        let (cluster, unknown_nodes) = self.cluster_health(&tx, liveness).await?;
        let holdings = Holdings {
            node,
            is_leaving: known.is_leaving,
            chunks: 0,
            loss: Loss::default(),
            listed: Vec::new(),
            unknown: Unknown::default(),
            unknown_nodes,
            version,
            intent,
        };
        let without = cluster.without(&BTreeSet::from([node]));
        Ok(HoldingsScan {
            known,
            without,
            holdings,
            unrest: Loss::default(),
            checked: 0,
            after: None,
            is_over: false,
        })
    }

    /// Checks the next page of chunks. Returns whether it was the last one.
    pub async fn continue_holdings_scan(&self, scan: &mut HoldingsScan) -> Result<bool, Error> {
        if !scan.is_over {
            let tx = self.begin().await?;
            let page = tx.chunk_page(scan.after.as_ref(), Self::PAGE_LEN_MAX).await?;
            for (id, chunk) in &page.chunks {
                scan.count(*id, chunk);
            }
            scan.checked += page.chunks.len() as u64;
            scan.holdings.unknown.add(page.unreadable);
            scan.after = page.next;
            scan.is_over = scan.after.is_none();
        }
        Ok(scan.is_over)
    }

    /// Ends a scan after its last page, with the liveness of the nodes by then. `None` when other
    /// disks were lost since it began, or other chunks need the node now, so that another scan has
    /// to decide.
    pub async fn end_holdings_scan(
        &self,
        scan: HoldingsScan,
        liveness: &Liveness,
    ) -> Result<Option<Holdings>, Error> {
        let HoldingsScan { known, without, mut holdings, unrest, is_over, .. } = scan;
        let tx = self.begin().await?;
        let (cluster, _) = self.cluster_health(&tx, liveness).await?;
        let now = cluster.without(&BTreeSet::from([holdings.node]));
        if !is_over || now.has_lost_since(&without) {
            return Ok(None);
        }
        // A chunk at rest needs the node no more than when it was read.
        let (mut after, mut loss) = (None, Loss::default());
        loop {
            let page = tx.repair_page(after, Self::PAGE_LEN_MAX).await?;
            for (id, chunk) in &page.chunks {
                if needs(chunk, &known, &now) {
                    loss.add(*id, chunk);
                }
            }
            holdings.unknown.add(page.unreadable);
            after = page.next;
            if after.is_none() {
                return Ok((loss == unrest).then_some(holdings));
            }
            tokio::task::yield_now().await;
        }
    }
}
