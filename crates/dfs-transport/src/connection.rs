//! The connection that a request came over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A connection as its requests see it. Clones are the same one.
#[derive(Clone, Default)]
pub struct Connection(Option<Arc<Shared>>);

struct Shared {
    has_call: AtomicBool,
    first_call: Box<dyn Fn() + Send + Sync>,
}

impl Connection {
    /// Wraps what to do when the gate accepts the first call.
    pub(crate) fn new(first_call: impl Fn() + Send + Sync + 'static) -> Self {
        let (has_call, first_call) = (AtomicBool::new(false), Box::new(first_call));
        Self(Some(Arc::new(Shared { has_call, first_call })))
    }

    /// Notes that the gate accepted a call.
    pub(crate) fn call_accepted(&self) {
        if let Self(Some(shared)) = self
            && !shared.has_call.swap(true, Ordering::Relaxed)
        {
            (shared.first_call)();
        }
    }
}
