//! A disk whose replicas are being read at the start of its store.
//!
//! Its directory is locked and has the identity of this start, so that it takes registrations. But
//! until everything on it has been read it is not in service: nothing on it is served, and it proves
//! no absence.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::recover::{Recovered, recover};
use super::reopen::Attempt;
use super::volume::Disk;
use crate::JobPanicked;
use crate::thread_pool::Running;

/// How much of a disk has been read; `None` while it is not being read.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<Option<Share>>);

/// Directories and segments.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    read: u64,
    total: u64,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, Option<Share>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) {
        *self.lock() = Some(Share::default());
    }

    /// Sets the number of steps that reading takes.
    pub(super) fn set_total(&self, total: usize) {
        if let Some(share) = &mut *self.lock() {
            *share = Share { read: 0, total: total as u64 };
        }
    }

    /// Records that a step was taken.
    fn advance(&self) {
        if let Some(share) = &mut *self.lock() {
            share.read += 1;
        }
    }

    pub(super) fn end(&self) {
        *self.lock() = None;
    }

    /// Returns the percentage that has been read, rounded down; `None` while nothing is being read.
    pub(super) fn percent(&self) -> Option<u8> {
        let Share { read, total } = (*self.lock())?;
        Some((read * 100).checked_div(total).unwrap_or(0).min(99) as u8)
    }
}

impl Disk {
    /// Starts to read what is on the disk.
    pub(super) async fn start_reading(self: &Arc<Self>) -> Running<Recovered> {
        self.progress.begin();
        let on = Arc::clone(self);
        self.pool.start(move || recover(&on)).await
    }

    /// Reads the disk, and puts it in service if that ends by `until`. Otherwise reading continues.
    pub(super) async fn read_until(self: &Arc<Self>, until: Instant) {
        let mut attempt = self.attempt.lock().await;
        if let Some(Attempt::Reading(reading)) = &mut *attempt
            && let Ok(Ok(recovered)) = timeout_at(until, self.unless_hung(reading)).await
        {
            *attempt = None;
            self.end_reading(recovered).await;
        }
    }

    /// Puts the disk in service if it has been read. Returns true if it has.
    pub(super) async fn continue_reading(self: &Arc<Self>, attempt: &mut Option<Attempt>) -> bool {
        if let Some(Attempt::Reading(reading)) = attempt
            && let Some(recovered) = if_done(reading).await
        {
            *attempt = None;
            self.end_reading(recovered).await;
            return !self.is_out_of_service();
        }
        false
    }

    /// Records a step of reading. Fails once the store is closed, so that nothing is changed on a
    /// disk that another process may have opened.
    pub(super) fn advance_reading(&self) -> io::Result<()> {
        self.progress.advance();
        if self.is_closed() { Err(io::Error::other("the store was closed")) } else { Ok(()) }
    }

    async fn end_reading(self: &Arc<Self>, recovered: Result<Recovered, JobPanicked>) {
        match recovered {
            Ok(recovered) => self.add_recovered(recovered).await,
            Err(error) => self.fail(&error),
        }
        self.progress.end();
    }
}

/// Returns the result of a job if it has ended.
pub(super) async fn if_done<T>(job: &mut Running<T>) -> Option<Result<T, JobPanicked>> {
    timeout(Duration::ZERO, job).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentage_is_below_100_until_reading_ends() {
        let progress = Progress::default();
        assert_eq!(progress.percent(), None);
        progress.begin();
        assert_eq!(progress.percent(), Some(0));
        progress.set_total(3);
        for percent in [33, 66, 99] {
            progress.advance();
            assert_eq!(progress.percent(), Some(percent));
        }
        progress.end();
        assert_eq!(progress.percent(), None);
    }
}
