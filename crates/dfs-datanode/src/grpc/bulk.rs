//! Calls with chunk bytes, which bypass the codec of the others.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::task::{Context, Poll};

use dfs_proto::bulk::{self, Incoming};
use dfs_proto::v1::data_node_server::DataNodeServer;
use dfs_transport::Caller;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

use super::{Handler, retrieve, stream};
use crate::node::Node;

/// The complete service `DataNode`.
#[derive(Clone)]
pub(super) struct BulkService {
    node: Arc<Node>,
    others: DataNodeServer<Handler>,
}

impl BulkService {
    pub(super) fn new(node: Arc<Node>, others: DataNodeServer<Handler>) -> Self {
        Self { node, others }
    }
}

impl NamedService for BulkService {
    const NAME: &'static str = <DataNodeServer<Handler> as NamedService>::NAME;
}

impl Service<http::Request<Body>> for BulkService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let node = self.node.clone();
        if let Err(failure) = Caller::of(request.extensions()) {
            return Box::pin(ready(Ok(Status::from(failure).into_http())));
        }
        match request.uri().path() {
            bulk::CHUNK_DATA_STREAM => Box::pin(async move {
                let acks = stream::run(&node, Incoming::request(request)).await;
                Ok(bulk::answer(acks))
            }),
            bulk::RETRIEVE_CHUNK => Box::pin(async move {
                let frames = async {
                    let wanted = Incoming::request(request).message().await?;
                    let none = || Status::invalid_argument("missing request");
                    Ok(retrieve::run(&node, &wanted.ok_or_else(none)?).await?)
                };
                Ok(bulk::answer(frames.await))
            }),
            _ => self.others.call(request),
        }
    }
}

/// Returns the status for a call that the generated trait requires, but that never arrives there.
pub(super) fn elsewhere() -> Status {
    Status::unimplemented("calls with chunk bytes have a separate service")
}
