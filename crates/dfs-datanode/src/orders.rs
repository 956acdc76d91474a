//! Orders of coordinators, which are followed when they are sealed, recent, and of the newest lease.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use dfs_proto::{OrderParties, Ordered, open_order, wire};
use dfs_types::Timestamp;
use tokio::time::Instant;

use crate::Error;
use crate::node::Node;

/// Coordinators whose clocks are remembered; those heard from least recently go first.
const CLOCKS_MAX: usize = 256;

/// An order to this node that was verified. Whatever is done for coordinators alone takes one, and
/// nothing but [`Node::authorise`] makes one.
#[derive(Debug)]
pub(crate) struct Authorised<R> {
    request: R,
}

impl<R> Authorised<R> {
    /// What is ordered.
    pub(crate) fn into_inner(self) -> R {
        self.request
    }
}

impl Node {
    /// Verifies an order meant for the node `node_id`. The lease epoch that it names is remembered
    /// only when all else is right, so that nobody but a coordinator of the cluster raises it.
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

/// The clocks of coordinators: what each said last, carried on by the clock of this process, which
/// nobody sets.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    said: Mutex<BTreeMap<u64, (Timestamp, Instant)>>,
}

impl Clocks {
    /// Takes the time that a coordinator says it is.
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

    /// The time at a coordinator; `None` when it has not said any.
    fn now(&self, coordinator: u64) -> Option<Timestamp> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let (time, heard) = said.get(&coordinator)?;
        Some(time.plus(heard.elapsed()))
    }
}
