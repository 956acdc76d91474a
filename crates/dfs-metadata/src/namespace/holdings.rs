//! Replicas on a node that is to be removed.
//!
//! All chunks are read page by page, at different moments, so that any number of them can be
//! checked. The receipts of a leaving node do not count: its replicas found by a scan that began
//! later are all that it can ever have. That they are not needed stays true as long as the chunks
//! that are not at rest, read again at the end, do not need them, and no other disk was lost.

use std::collections::BTreeSet;

use dfs_types::{Access, ChunkId, NodeId, Revision, Scope};

use super::safe_to_stop::{Liveness, NodeIntentVersion, Unknown};
use super::{Chunk, Namespace, Node, Replica, ScanCursor};
use crate::chunk_health::{Cluster, judge};
use crate::{Error, keys};

/// Replicas on a node according to the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// The node.
    pub node: NodeId,
    /// Set if it was leaving when the scan began, so that its replicas can only decrease.
    pub is_leaving: bool,
    /// Chunks with a replica on the node, good or bad, that is not waiting for deletion.
    pub chunks: u64,
    /// Chunks that would become missing without the node.
    pub sole: u64,
    /// One of these chunks.
    pub example: Option<ChunkId>,
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
    checked: u64,
    after: Option<ScanCursor>,
    is_over: bool,
}

impl HoldingsScan {
    /// Returns how many chunks were checked so far.
    pub fn checked(&self) -> u64 {
        self.checked
    }
}

impl Holdings {
    fn count(&mut self, id: ChunkId, chunk: &Chunk, node: &Node, without: &Cluster) {
        let here = chunk.replicas.iter().filter(|replica| node.has(replica.disk));
        let mut here = here.filter(|replica| !replica.is_doomed()).peekable();
        if chunk.is_tombstone() || here.peek().is_none() {
            return;
        }
        self.chunks += 1;
        if here.any(Replica::is_sound) && judge(chunk, without).is_missing() {
            self.sole += 1;
            self.example.get_or_insert(id);
        }
    }
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
            sole: 0,
            example: None,
            unknown: Unknown::default(),
            unknown_nodes,
            version,
            intent,
        };
        let without = cluster.without(&BTreeSet::from([node]));
        Ok(HoldingsScan { known, without, holdings, checked: 0, after: None, is_over: false })
    }

    /// Checks the next page of chunks. Returns whether it was the last one.
    pub async fn continue_holdings_scan(&self, scan: &mut HoldingsScan) -> Result<bool, Error> {
        if !scan.is_over {
            let tx = self.begin().await?;
            let page = tx.chunk_page(scan.after.as_ref(), Self::PAGE_LEN_MAX).await?;
            for (id, chunk) in &page.chunks {
                scan.holdings.count(*id, chunk, &scan.known, &scan.without);
            }
            scan.checked += page.chunks.len() as u64;
            scan.holdings.unknown.add(page.unreadable);
            scan.after = page.next;
            scan.is_over = scan.after.is_none();
        }
        Ok(scan.is_over)
    }

    /// Ends a scan after its last page, with the liveness of the nodes by then. `None` when other
    /// disks were lost since it began, so that another scan has to decide.
    pub async fn end_holdings_scan(
        &self,
        scan: HoldingsScan,
        liveness: &Liveness,
    ) -> Result<Option<Holdings>, Error> {
        let HoldingsScan { known, without, mut holdings, is_over, .. } = scan;
        let tx = self.begin().await?;
        let (cluster, _) = self.cluster_health(&tx, liveness).await?;
        let now = cluster.without(&BTreeSet::from([holdings.node]));
        if !is_over || now.has_lost_since(&without) {
            return Ok(None);
        }
        // Only the chunks that are not at rest may need the node more than when they were read.
        let mut after = None;
        while holdings.sole == 0 {
            let page = tx.repair_page(after, Self::PAGE_LEN_MAX).await?;
            let mut found = Holdings { chunks: 0, ..holdings.clone() };
            for (id, chunk) in &page.chunks {
                found.count(*id, chunk, &known, &now);
            }
            (holdings.sole, holdings.example) = (found.sole, found.example);
            holdings.unknown.add(page.unreadable);
            after = page.next;
            if after.is_none() {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(Some(holdings))
    }
}
