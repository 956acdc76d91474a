//! Observer of the events of a server.

use std::time::Duration;

use tonic::Code;

use crate::refusal::Refusal;

/// Observer of completed calls and refused connections.
pub trait Observer: Send + Sync + 'static {
    /// Called when `method` (`/package.Service/Method`) completed with `code` after `elapsed`. For
    /// a streaming reply this is its start.
    fn answered(&self, method: &str, code: Code, elapsed: Duration);

    /// A connection was refused or closed because of a limit.
    fn refused(&self, refusal: Refusal);
}

/// Observes nothing.
impl Observer for () {
    fn answered(&self, _method: &str, _code: Code, _elapsed: Duration) {}

    fn refused(&self, _refusal: Refusal) {}
}
