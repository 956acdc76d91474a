//! The worker `scrub`: reads every replica on the disks of this node, so that damage is found while
//! there are other replicas to repair it from.
//!
//! Each disk has a [`Reader`] of its own, so that a slow one does not delay the others. What it finds
//! is reported as a verdict, like what any other reader finds.

mod pace;
mod reader;
mod schedule;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_types::{ByteSize, DiskId};
use dfs_workers::{Handle, Next, SCRUB, Spec, Worker};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::timeout;

use self::reader::Reader;
use crate::node::Node;

/// Time after which a step ends, although no reader has reached a stop.
const STEP_MAX: Duration = Duration::from_mins(1);

/// Runs the scrub once the node is part of a cluster, which verdicts are for; until dropped.
pub(crate) async fn run(node: Arc<Node>) {
    let mut membership = node.watch_membership();
    // The sender lives as long as the node.
    drop(membership.wait_for(Option::is_some).await);
    dfs_workers::run(node.workers.of(&SCRUB), |handle| Scrub::new(&node, handle)).await;
}

/// The readers of all disks.
struct Scrub {
    node: Arc<Node>,
    handle: Arc<Handle>,
    /// Each returns its reader at its next stop.
    readers: FuturesUnordered<BoxFuture<'static, Reader>>,
}

impl Scrub {
    fn new(node: &Arc<Node>, handle: Arc<Handle>) -> Self {
        let disks: Vec<DiskId> = node.store.usage().iter().map(|usage| usage.disk).collect();
        node.scrub.set_disks(&disks, node.settings.scrub_every());
        let readers = disks.into_iter().map(|disk| Reader::new(node, &handle, disk));
        let readers = readers.map(|reader| -> BoxFuture<'static, _> { Box::pin(reader.advance()) });
        Self { node: Arc::clone(node), readers: readers.collect(), handle }
    }

    fn show(&self) {
        let disks = self.node.scrub.disks();
        let left: u64 = disks.iter().map(|(_, scrub)| scrub.left_bytes).sum();
        self.handle.set_queued(disks.iter().map(|(_, scrub)| scrub.left_replicas).sum());
        self.handle.set_detail(format!("{} left on {} disks", ByteSize(left), disks.len()));
    }
}

#[async_trait]
impl Worker for Scrub {
    const SPEC: Spec = SCRUB;
    type Error = Infallible;

    async fn step(&mut self) -> Result<Next, Infallible> {
        if let Ok(Some(reader)) = timeout(STEP_MAX, self.readers.next()).await {
            self.readers.push(Box::pin(reader.advance()));
        }
        self.show();
        Ok(Next::Again)
    }
}

#[cfg(test)]
mod tests;
