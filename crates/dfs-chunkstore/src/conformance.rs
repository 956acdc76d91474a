//! The suite every [`ChunkStore`] passes.

use std::sync::Arc;

use crate::ChunkStore;

/// Runs the suite; `make` gives an empty store with at least 64 MiB of room each time.
///
/// # Panics
/// When the store is wrong, with what it got wrong.
pub async fn run<F>(_make: F)
where
    F: AsyncFn() -> Arc<dyn ChunkStore>,
{
    todo!()
}
