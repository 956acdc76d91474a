//! The connection that a request came over.

use std::sync::Arc;

use crate::connections::Connections;

/// A connection as its requests see it. Clones are the same one.
#[derive(Clone, Default)]
pub struct Connection(Option<(Arc<Connections>, u64)>);

impl Connection {
    pub(crate) fn new(connections: Arc<Connections>, id: u64) -> Self {
        Self(Some((connections, id)))
    }

    /// Notes that a call has arrived, which lasts until the result is dropped.
    pub(crate) fn call_started(self) -> CallInFlight {
        if let Some((connections, id)) = &self.0 {
            connections.call_started(*id);
        }
        CallInFlight(self)
    }

    /// Notes that the gate accepted a call.
    pub(crate) fn call_accepted(&self) {
        if let Some((connections, id)) = &self.0 {
            connections.call_accepted(*id);
        }
    }
}

/// A call without its whole answer. Its connection is not idle.
pub(crate) struct CallInFlight(Connection);

impl Drop for CallInFlight {
    fn drop(&mut self) {
        if let Some((connections, id)) = &self.0.0 {
            connections.call_ended(*id);
        }
    }
}
