//! The loop around a worker.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use dfs_types::with_causes;
use futures_util::FutureExt;
use tracing::{error, warn};

use crate::{Activity, Handle, Next, Worker};

/// Pauses after failed steps: doubled each time, from the first to the second value.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Steps workers created by `make` until dropped. A step that fails or panics is counted and
/// logged; the next one follows after a growing pause, and after a panic with a new worker.
pub async fn run<W: Worker>(
    handle: Arc<Handle>,
    make: impl Fn(Arc<Handle>) -> W + Send,
) -> Infallible {
    let _stopped = Stopped(&handle);
    let mut worker = None;
    let mut back_off = BACK_OFF.0;
    loop {
        let is_paused = handle.pause_left().is_some();
        handle.set_activity(if is_paused { Activity::Paused } else { Activity::Running });
        let step = async {
            let worker = worker.get_or_insert_with(|| make(handle.clone()));
            if is_paused { worker.step_while_paused().await } else { worker.step().await }
        };
        let failure = match AssertUnwindSafe(step).catch_unwind().await {
            Ok(Ok(next)) => {
                back_off = BACK_OFF.0;
                handle.wait(next).await;
                continue;
            }
            Ok(Err(failure)) => {
                let failure = with_causes(&failure);
                warn!(worker = handle.spec().name, failure, "a step of a worker failed");
                failure
            }
            Err(panic) => {
                worker = None;
                let failure = format!("it panicked: {}", message(&*panic));
                error!(worker = handle.spec().name, failure, "a step of a worker panicked");
                failure
            }
        };
        handle.add_failed(1);
        handle.set_activity(Activity::BackingOff);
        handle.set_detail(failure);
        handle.wait(Next::After(back_off)).await;
        back_off = (back_off * 2).min(BACK_OFF.1);
    }
}

/// Records the end of a loop, which happens by dropping.
struct Stopped<'a>(&'a Handle);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.stopped();
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests;
