//! Request ids, which follow a user's action through all processes.

use dfs_types::{NodeId, OsRandom, RequestId};
use tokio::task::JoinHandle;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};
use tracing::{Instrument as _, Span};

/// Header that carries the id.
pub const REQUEST_ID_HEADER: &str = "dfs-request-id";

tokio::task_local! {
    static CURRENT: RequestId;
}

/// Returns the request id of the current task, if it has one.
pub fn current_request_id() -> Option<RequestId> {
    CURRENT.try_with(|id| *id).ok()
}

/// Runs `work` under the request id `id`, which its calls carry. A task spawned within does not,
/// unless it is wrapped too.
pub async fn with_request_id<T>(id: RequestId, work: impl Future<Output = T>) -> T {
    CURRENT.scope(id, work).await
}

/// Like [`with_request_id`], within a span, so that log lines show the id. The span exists at every
/// log level.
pub async fn in_request<T>(id: RequestId, work: impl Future<Output = T>) -> T {
    with_request_id(id, work).instrument(tracing::error_span!("request", %id)).await
}

/// Spawns a part of the current task's work, under the same request id and span.
pub fn spawn_in_request<W>(work: W) -> JoinHandle<W::Output>
where
    W: Future<Output: Send + 'static> + Send + 'static,
{
    let work = work.instrument(Span::current());
    match current_request_id() {
        Some(id) => tokio::spawn(with_request_id(id, work)),
        None => tokio::spawn(work),
    }
}

/// Header with the id of the datanode that a coordinator relays a call to.
pub const NODE_ID_HEADER: &str = "dfs-node-id";

/// Adds the current request id, or a new one, to every outgoing call; and the node id to calls to
/// be relayed by a coordinator.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallHeaders {
    pub(crate) node: Option<NodeId>,
}

impl Interceptor for CallHeaders {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let id = current_request_id().unwrap_or_else(|| RequestId::random(&OsRandom));
        let mut add = |name, text: String| {
            if let Ok(value) = text.parse::<MetadataValue<Ascii>>() {
                request.metadata_mut().insert(name, value);
            }
        };
        add(REQUEST_ID_HEADER, id.to_string());
        if let Some(node) = self.node {
            add(NODE_ID_HEADER, node.to_string());
        }
        Ok(request)
    }
}
