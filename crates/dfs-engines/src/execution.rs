//! Execution of an engine's blocking work.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Where the blocking work of an engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Execution {
    /// On the runtime's threads for blocking work.
    #[default]
    Blocking,
    /// On the calling task, so that a simulation stays deterministic.
    Inline,
}

impl Execution {
    /// Runs `work` to its end, even when the returned future is dropped. `None` when the work
    /// panicked, or the runtime is shutting down.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        match self {
            Self::Blocking => tokio::task::spawn_blocking(work).await.ok(),
            Self::Inline => catch_unwind(AssertUnwindSafe(work)).ok(),
        }
    }
}
