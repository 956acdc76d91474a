//! Trace of a simulation.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A log with simulated times. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    /// Notes an event on a host, now.
    pub(super) fn note(&self, what: impl Display) {
        self.note_at(turmoil::sim_elapsed().unwrap_or_default(), what);
    }

    /// Notes an event at a time.
    pub(super) fn note_at(&self, time: Duration, what: impl Display) {
        let line = format!("{:>8} ms  {what}", time.as_millis());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
