//! What a worker is.

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;

use crate::Spec;

/// Pause between two rounds of what goes on while a worker is paused.
const WHILE_PAUSED: Duration = Duration::from_mins(1);

/// What a step says of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// There is more to do now.
    Again,
    /// Nothing to do for this long.
    After(Duration),
}

/// One kind of background work. Made anew each time its lease is taken and after each panic, so that
/// nothing it remembers is older than that.
///
/// Stopping is dropping: a step may be cut off at any await point. What must not happen once the
/// lease is lost carries its fence or its epoch.
#[async_trait]
pub trait Worker: Send {
    /// Which worker of [`all`](crate::all) it is.
    const SPEC: Spec;

    /// Why a step fails. Logged and counted; the next step comes after a growing pause.
    type Error: Error + Send + Sync + 'static;

    /// Does a bounded piece of work. Calls [`Handle::take`](crate::Handle::take) for what it does.
    async fn step(&mut self) -> Result<Next, Self::Error>;

    /// What goes on instead of steps while the worker is paused: bounded, and no new work.
    async fn step_while_paused(&mut self) -> Result<Next, Self::Error> {
        Ok(Next::After(WHILE_PAUSED))
    }
}
