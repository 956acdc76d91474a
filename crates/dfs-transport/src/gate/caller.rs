//! Callers and their identities.

use dfs_proto::{Failure, Method};
use dfs_types::{Access, ErrorCode, Scope};
use http::Extensions;
use tonic::{Request, Status};

/// Verified identity of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// No identity. The only one while connections are not protected.
    Anonymous,
}

/// The caller of one rpc, admitted by the gate. Handlers get it with their request from [`split`];
/// only the gate creates it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub(super) identity: Identity,
    pub(super) access: Option<Access>,
    pub(super) method: Method,
}

impl Caller {
    /// Returns the identity.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the method called.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Returns the scope of the caller's rights.
    pub fn scope(&self) -> Scope {
        Scope::of_caller(self.access)
    }

    /// Returns the caller that the gate recorded in a request. A request that bypassed the gate has
    /// none and is refused.
    pub fn of(extensions: &Extensions) -> Result<Self, Failure> {
        extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Failure::new(ErrorCode::Internal, "the call bypassed the gate"))
    }
}

/// Splits a request into its caller and its message.
pub fn split<T>(request: Request<T>) -> Result<(Caller, T), Status> {
    let caller = Caller::of(request.extensions())?;
    Ok((caller, request.into_inner()))
}
