//! Orders: requests that a server follows because a coordinator of its cluster sealed them.

use std::time::Duration;

use bytes::Bytes;
use dfs_types::{ClusterId, Incarnation, LeaseEpoch, NodeId, OrderTerms, SealKey, Timestamp};
use prost::Message;

use crate::{Method, v1};

/// A request that is an order.
pub trait Ordered: Message + Clone {
    /// The rpc of the request.
    const METHOD: Method;

    /// Returns the seal and its terms.
    fn order(&mut self) -> &mut Option<v1::Order>;

    /// Returns the epoch of the worker lease; `None` for an order that needs no lease.
    fn lease_epoch(&self) -> Option<LeaseEpoch>;
}

macro_rules! ordered {
    (@count) => { 0 };
    (@count $epoch:ident) => { 1 };
    ($($request:ident of $method:ident $(under $epoch:ident)?;)*) => {
        $(impl Ordered for v1::$request {
            const METHOD: Method = Method::$method;

            fn order(&mut self) -> &mut Option<v1::Order> {
                &mut self.order
            }

            fn lease_epoch(&self) -> Option<LeaseEpoch> {
                let epochs: [u64; ordered!(@count $($epoch)?)] = [$(self.$epoch)?];
                epochs.first().copied().map(LeaseEpoch)
            }
        })*
    };
}

ordered! {
    AdoptReplicaRequest of AdoptReplica under lease_epoch;
    BuildReplicaRequest of BuildReplica under lease_epoch;
    BuildSmallReplicasRequest of BuildSmallReplicas under lease_epoch;
    DeleteChunksRequest of DeleteChunks under lease_epoch;
    InventoryRequest of Inventory under lease_epoch;
    ListChunksRequest of ListChunks under lease_epoch;
    SettleDiskRequest of SettleDisk under lease_epoch;
    VerifyReplicaRequest of VerifyReplica;
    ClusterStatusRequest of ClusterStatus;
    WorkersRequest of Workers;
    SetWorkerRequest of SetWorker;
    CheckReplicasRequest of CheckReplicas;
}

/// Sender and receiver of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderParties {
    /// The cluster.
    pub cluster: ClusterId,
    /// Incarnation of its metadata.
    pub incarnation: Incarnation,
    /// The node to follow it; 0 for a coordinator.
    pub node: NodeId,
}

/// Issuer and time of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Issued {
    /// The coordinator, as named in heartbeats.
    pub coordinator: u64,
    /// Time by that coordinator's clock.
    pub at: Timestamp,
}

impl Issued {
    /// Validity of an order.
    pub const LIFETIME: Duration = Duration::from_mins(1);
    /// Limit on how far an order may be ahead of the receiver's clock.
    pub const LEEWAY: Duration = Duration::from_mins(1);

    /// Returns whether the order is valid at `now`.
    pub fn is_current(self, now: Timestamp) -> bool {
        now.since(self.at) <= Self::LIFETIME && self.at.since(now) <= Self::LEEWAY
    }
}

/// A request carries no order, or one with a wrong seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the order is not sealed by a coordinator of this cluster for this server")]
pub struct Unsealed;

fn terms<'a, R: Ordered>(
    request: &R,
    parties: OrderParties,
    issued: Issued,
    body: &'a [u8],
) -> OrderTerms<'a> {
    OrderTerms {
        method: R::METHOD.path(),
        cluster: parties.cluster,
        incarnation: parties.incarnation,
        node: parties.node,
        lease_epoch: request.lease_epoch().unwrap_or_default(),
        coordinator: issued.coordinator,
        issued: issued.at,
        body,
    }
}

/// Seals a request as an order.
#[must_use]
pub fn seal_order<R: Ordered>(
    mut request: R,
    key: &SealKey,
    parties: OrderParties,
    issued: Issued,
) -> R {
    *request.order() = None;
    let body = request.encode_to_vec();
    let seal = terms(&request, parties, issued, &body).seal(key);
    *request.order() = Some(v1::Order {
        issued_ms: issued.at.millis(),
        coordinator: issued.coordinator,
        seal: Bytes::copy_from_slice(&seal.0),
    });
    request
}

/// Verifies and removes the seal of an order. The caller checks its age.
pub fn open_order<R: Ordered>(
    request: &mut R,
    key: &SealKey,
    parties: OrderParties,
) -> Result<Issued, Unsealed> {
    let order = request.order().take().ok_or(Unsealed)?;
    let at = Timestamp::from_millis(order.issued_ms);
    let issued = Issued { coordinator: order.coordinator, at };
    let body = request.encode_to_vec();
    let is_sealed = terms(request, parties, issued, &body).is_sealed(key, &order.seal);
    if is_sealed { Ok(issued) } else { Err(Unsealed) }
}

#[cfg(test)]
mod tests {
    use dfs_types::SeededRandom;

    use super::*;

    #[test]
    fn sealed_request_opens_unchanged() {
        let key = SealKey::random(&SeededRandom::new(1));
        let parties =
            OrderParties { cluster: ClusterId(1), incarnation: Incarnation(2), node: NodeId(3) };
        let issued = Issued { coordinator: 4, at: Timestamp::from_millis(5) };
        let request = v1::InventoryRequest { cycle: 7, lease_epoch: 6, ..Default::default() };
        let mut sealed = seal_order(request.clone(), &key, parties, issued);
        // Over the wire.
        sealed = v1::InventoryRequest::decode(&*sealed.encode_to_vec()).expect("it is whole");
        assert_eq!(open_order(&mut sealed.clone(), &key, parties), Ok(issued));
        let mut changed = v1::InventoryRequest { cycle: 8, ..sealed.clone() };
        assert_eq!(open_order(&mut changed, &key, parties), Err(Unsealed));
        let mut later = sealed.clone();
        later.order.as_mut().expect("it is sealed").issued_ms += 1;
        assert_eq!(open_order(&mut later, &key, parties), Err(Unsealed));
        let elsewhere = OrderParties { node: NodeId(9), ..parties };
        assert_eq!(open_order(&mut sealed.clone(), &key, elsewhere), Err(Unsealed));
        assert_eq!(open_order(&mut request.clone(), &key, parties), Err(Unsealed));
        open_order(&mut sealed, &key, parties).expect("it is sealed");
        assert_eq!(sealed, request);
    }
}
