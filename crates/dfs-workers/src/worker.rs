//! The trait of workers.

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;

use crate::Spec;

/// Pause between two calls of `step_while_paused`.
const WHILE_PAUSED: Duration = Duration::from_mins(1);

/// When the next step follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once: there is more to do.
    Again,
    /// After this long: there is nothing to do now.
    After(Duration),
}

/// One kind of background work. Created again whenever its lease is taken and after each panic, so
/// that nothing it remembers is older than that.
///
/// A worker is stopped by dropping it: a step may end at any await point. What must not happen once
/// the lease is lost carries its fence or its epoch.
#[async_trait]
pub trait Worker: Send {
    /// Entry in [`all`](crate::all).
    const SPEC: Spec;

    /// Why a step failed. Logged and counted; the next step follows after a growing pause.
    type Error: Error + Send + Sync + 'static;

    /// Does a bounded piece of work, taking its units with [`Handle::take`](crate::Handle::take).
    async fn step(&mut self) -> Result<Next, Self::Error>;

    /// Called instead of `step` while the worker is paused: bounded, and without starting new work.
    async fn step_while_paused(&mut self) -> Result<Next, Self::Error> {
        Ok(Next::After(WHILE_PAUSED))
    }
}
