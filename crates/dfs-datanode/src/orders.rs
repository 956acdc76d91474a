//! Orders of coordinators, which are followed if sealed, recent, and of the newest lease.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use dfs_proto::{OrderParties, Ordered, open_order, wire};
use dfs_types::Timestamp;
use tokio::time::Instant;

use crate::Error;
use crate::node::Node;

/// Maximum number of coordinators whose clocks are remembered; the least recent are evicted.
const CLOCKS_MAX: usize = 256;

/// A verified order to this node. Everything that only coordinators may request takes one, and only
/// [`Node::authorise`] creates it.
#[derive(Debug)]
pub(crate) struct Authorised<R> {
    request: R,
}

impl<R> Authorised<R> {
    /// Returns the order itself.
    pub(crate) fn into_inner(self) -> R {
        self.request
    }
}

impl Node {
    /// Verifies an order for the node `node_id`. Its lease epoch is remembered only if everything
    /// else is valid, so that only a coordinator of the cluster can raise it.
    pub(crate) fn authorise<R: Ordered>(
        &self,
        node_id: &[u8],
        mut request: R,
    ) -> Result<Authorised<R>, Error> {
        self.check_meant(wire::id("node_id", node_id)?)?;
        let membership = self.membership().ok_or(Error::NotRegistered)?;
        let parties = OrderParties {
            cluster: membership.cluster,
            incarnation: membership.incarnation,
            node: self.id,
        };
        let issued = open_order(&mut request, &membership.order_key, parties)?;
        let now = self.clocks.now(issued.coordinator).ok_or(Error::UnknownCoordinator)?;
        if !issued.is_current(now) {
            return Err(Error::OldOrder);
        }
        self.check_epoch(request.lease_epoch())?;
        Ok(Authorised { request })
    }
}

/// Clocks of the coordinators: the last time each reported, advanced by the monotonic clock of this
/// process.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    said: Mutex<BTreeMap<u64, (Timestamp, Instant)>>,
}

impl Clocks {
    /// Records the time reported by a coordinator.
    pub(crate) fn record(&self, coordinator: u64, time: Timestamp) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= CLOCKS_MAX && !said.contains_key(&coordinator) {
            let oldest = said.iter().min_by_key(|(_, (_, heard))| *heard);
            if let Some(oldest) = oldest.map(|(coordinator, _)| *coordinator) {
                said.remove(&oldest);
            }
        }
        said.insert(coordinator, (time, Instant::now()));
    }

    /// Returns the current time at a coordinator; `None` if it has not reported any.
    fn now(&self, coordinator: u64) -> Option<Timestamp> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let (time, heard) = said.get(&coordinator)?;
        Some(time.plus(heard.elapsed()))
    }
}
