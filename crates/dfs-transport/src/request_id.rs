//! One id follows a user's action through every process it touches.

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

/// The id of the action that the current task works for, if it works for one.
pub fn current_request_id() -> Option<RequestId> {
    CURRENT.try_with(|id| *id).ok()
}

/// Works for the action `id`: calls made within carry it. A task spawned within does not, unless
/// it is wrapped as well.
pub async fn with_request_id<T>(id: RequestId, work: impl Future<Output = T>) -> T {
    CURRENT.scope(id, work).await
}

/// The same, within a span: what is logged shows the id as well. The span is there at every level
/// of the log.
pub async fn in_request<T>(id: RequestId, work: impl Future<Output = T>) -> T {
    with_request_id(id, work).instrument(tracing::error_span!("request", %id)).await
}

/// Spawns a part of what the current task does: it works for the same action, and what it logs
/// stands in the same span.
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

/// Header that says which datanode a call means that a coordinator shall pass on: its id.
pub const NODE_ID_HEADER: &str = "dfs-node-id";

/// Puts the current id on every outgoing call, or makes one when there is none; and on those that
/// a coordinator shall pass on, for whom they are.
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
