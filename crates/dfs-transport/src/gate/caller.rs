//! Who calls.

use dfs_proto::{Failure, Method};
use dfs_types::{Access, ErrorCode, Scope};
use http::Extensions;
use tonic::{Request, Status};

/// Who a caller has shown to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Nobody in particular. There are no others as long as connections are not protected.
    Anonymous,
}

/// The caller of one rpc, whom the gate has let in. Handlers get it with their request from
/// [`split`]; nothing else makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub(super) identity: Identity,
    pub(super) access: Option<Access>,
    pub(super) method: Method,
}

impl Caller {
    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What is called.
    pub fn method(&self) -> Method {
        self.method
    }

    /// How far the rights of the caller reach.
    pub fn scope(&self) -> Scope {
        Scope::of_caller(self.access)
    }

    /// The caller that the gate noted in a request. A request that came around the gate has none
    /// and is refused.
    pub fn of(extensions: &Extensions) -> Result<Self, Failure> {
        extensions.get::<Self>().cloned().ok_or_else(|| {
            Failure::new(ErrorCode::Internal, "the call did not come through the gate")
        })
    }
}

/// Splits a request into its caller and its message.
pub fn split<T>(request: Request<T>) -> Result<(Caller, T), Status> {
    let caller = Caller::of(request.extensions())?;
    Ok((caller, request.into_inner()))
}
