//! The connection that a request came over.

use std::sync::Arc;

/// Those who keep count of the calls on connections, by the number of the connection.
pub(crate) trait CallCounts: Send + Sync {
    /// A call has arrived.
    fn call_started(&self, connection: u64);
    /// The gate accepted a call.
    fn call_accepted(&self, connection: u64);
    /// A call has ended.
    fn call_ended(&self, connection: u64);
}

/// A connection as its requests see it. Clones are the same one.
#[derive(Clone, Default)]
pub struct Connection(Option<(Arc<dyn CallCounts>, u64)>);

impl Connection {
    pub(crate) fn new(counts: Arc<dyn CallCounts>, id: u64) -> Self {
        Self(Some((counts, id)))
    }

    /// Notes that a call has arrived, which lasts until the result is dropped.
    pub(crate) fn call_started(self) -> CallInFlight {
        if let Some((counts, id)) = &self.0 {
            counts.call_started(*id);
        }
        CallInFlight(self)
    }

    /// Notes that the gate accepted a call.
    pub(crate) fn call_accepted(&self) {
        if let Some((counts, id)) = &self.0 {
            counts.call_accepted(*id);
        }
    }
}

/// A call without its whole answer. Its connection is not idle.
pub(crate) struct CallInFlight(Connection);

impl Drop for CallInFlight {
    fn drop(&mut self) {
        if let Some((counts, id)) = &self.0.0 {
            counts.call_ended(*id);
        }
    }
}
