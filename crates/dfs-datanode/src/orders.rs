//! Orders of coordinators, which are followed if sealed, recent, and of the newest lease.

use dfs_proto::{OrderParties, Ordered, open_order, wire};

use crate::Error;
use crate::node::Node;

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
        if let Some(epoch) = request.lease_epoch() {
            self.check_epoch(epoch)?;
        }
        Ok(Authorised { request })
    }
}
