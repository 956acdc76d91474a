//! The gate: every call to a server of dfs passes it before any handler.
//!
//! ```text
//!  path ─► Method ─► identity ─► rule ─► Caller in the request ─► handler
//!    └ UNIMPLEMENTED            └ PERMISSION_DENIED
//! ```

mod caller;
mod rule;

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use dfs_proto::{Failure, Method};
use dfs_types::{Access, Denied, ErrorCode};
use futures_util::future::Either;
use http::{Request, Response};
use tonic::Status;
use tower::{Layer, Service};

use crate::Security;
use crate::connection::Connection;
pub use caller::{Caller, Identity, split};
pub use rule::{Rule, rule};

/// Kind of server behind a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// A coordinator, which also relays calls of clients to datanodes.
    Coordinator,
    /// A datanode.
    Datanode,
}

/// Admits callers by [`rule`]. A layer around all services of a server.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    server: Server,
    security: Security,
}

impl Gate {
    /// Returns the gate of a server whose connections are protected by `security`.
    pub const fn new(server: Server, security: Security) -> Self {
        Self { server, security }
    }

    /// Admits the caller of the rpc at `path`, or refuses it.
    fn admit(self, path: &str) -> Result<Caller, Failure> {
        let method = Method::from_path(path).ok_or_else(|| {
            Failure::new(ErrorCode::Unimplemented, format!("no such call: {path}"))
        })?;
        let identity = Identity::Anonymous;
        let access = self.access(&identity);
        let caller = Caller { identity, access, method };
        self.check(&caller).map_err(|Denied { needed }| {
            let (method, needed) = (method.name(), needed.name());
            let message = format!("{method} needs {needed} access, which the caller does not have");
            Failure::new(ErrorCode::PermissionDenied, message)
        })?;
        Ok(caller)
    }

    /// Returns the access of an identity to every path; `None` for an identity that needs a grant.
    #[expect(clippy::unnecessary_wraps, reason = "other identities need a grant")]
    const fn access(self, identity: &Identity) -> Option<Access> {
        match (identity, self.security) {
            (Identity::Anonymous, Security::Plaintext) => Some(Access::Admin),
        }
    }

    fn check(self, caller: &Caller) -> Result<(), Denied> {
        match (rule(caller.method), self.server) {
            (Rule::Anyone | Rule::Datanode, _)
            | (Rule::Session | Rule::Order, Server::Datanode) => Ok(()),
            // Relayed, and checked by the node; the relay refuses orders.
            (Rule::Capability(_) | Rule::Session | Rule::Order, Server::Coordinator)
            | (Rule::AnyGrant, _) => caller.scope().require(Access::Read),
            (Rule::Grant(access), _) | (Rule::Capability(access), Server::Datanode) => {
                caller.scope().require(access)
            }
        }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: *self, inner }
    }
}

/// Services behind a gate.
#[derive(Clone)]
pub struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Gated<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<R>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.gate.admit(request.uri().path()) {
            Ok(caller) => {
                if let Some(connection) = request.extensions().get::<Connection>() {
                    connection.call_accepted();
                }
                request.extensions_mut().insert(caller);
                Either::Left(self.inner.call(request))
            }
            Err(failure) => Either::Right(ready(Ok(Status::from(failure).into_http()))),
        }
    }
}

#[cfg(test)]
mod tests;
