//! Count of what must not be cut off: uploads, and temporary files on the local disk.

use std::sync::Arc;

use tokio::sync::watch;

/// Number of uploads and temporary files that exist.
#[derive(Debug, Clone)]
pub(crate) struct InProgress(Arc<watch::Sender<usize>>);

/// One upload or temporary file, counted until dropped.
#[derive(Debug)]
pub(crate) struct InProgressGuard(Arc<watch::Sender<usize>>);

impl Default for InProgress {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl InProgress {
    /// Counts one more.
    pub(crate) fn enter(&self) -> InProgressGuard {
        self.0.send_modify(|count| *count += 1);
        InProgressGuard(self.0.clone())
    }

    /// Waits until there are none.
    pub(crate) async fn none(&self) {
        let mut count = self.0.subscribe();
        // No error is possible: the sender is borrowed.
        drop(count.wait_for(|count| *count == 0).await);
    }
}

impl Drop for InProgressGuard {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
