//! Minimum rate at which a caller must read a stream.

use std::time::Duration;

use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::time::{Instant, timeout};
use tonic::Status;

use crate::Error;

/// Minimum rate in bytes per second, except for stalls.
const SLOWEST: u64 = 64 << 10;
/// Total time that a caller may fall behind that rate, in one stall or several.
const STALL_MAX: Duration = Duration::from_secs(30);

/// Sender of a stream that ends it when the caller reads slower than [`SLOWEST`], so that the
/// resources of the call are released in a time bounded by its bytes.
pub(super) struct PacedSender<T> {
    items: mpsc::Sender<Result<T, Status>>,
    /// Reserves room for an error when the caller reads nothing.
    last: OwnedPermit<Result<T, Status>>,
    /// Remaining time that the caller is waited for.
    credit: Duration,
}

/// The caller is gone, or its stream was ended.
#[derive(Debug)]
pub(super) struct Ended;

impl<T> PacedSender<T> {
    /// Creates a stream in which `ahead` items may wait for the caller.
    pub(super) fn channel(ahead: usize) -> (Self, mpsc::Receiver<Result<T, Status>>) {
        let (items, outgoing) = mpsc::channel(ahead + 1);
        let last = items.clone().try_reserve_owned().expect("a new channel has room");
        (Self { items, last, credit: STALL_MAX }, outgoing)
    }

    /// Sends an item of `bytes` bytes as soon as there is room. Ends the stream with an error if
    /// the caller falls behind.
    pub(super) async fn send(mut self, item: T, bytes: u64) -> Result<Self, Ended> {
        let began = Instant::now();
        match timeout(self.credit, self.items.send(Ok(item))).await {
            Ok(Ok(())) => {
                let earned = Duration::from_millis(bytes.saturating_mul(1_000) / SLOWEST);
                let left = self.credit.saturating_sub(began.elapsed());
                self.credit = (left + earned).min(STALL_MAX);
                Ok(self)
            }
            Ok(Err(_)) => Err(Ended),
            Err(_) => {
                self.fail(Error::SlowReader { least: SLOWEST });
                Err(Ended)
            }
        }
    }

    /// Waits until the caller is gone.
    pub(super) async fn closed(&self) {
        self.items.closed().await;
    }

    /// Ends the stream with an error.
    pub(super) fn fail(self, error: impl Into<Error>) {
        drop(self.last.send(Err(error.into().into())));
    }
}

#[cfg(test)]
mod tests {
    use dfs_proto::Failure;
    use dfs_types::ErrorCode;
    use tokio::time::sleep;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// Sends `count` items of 1 MiB to a caller that reads one at each interval. Returns how long
    /// the sender was busy, and the items and error that the caller received.
    async fn taken(every: Duration, count: u32) -> (Duration, u32, Option<Failure>) {
        let (mut sender, mut items) = PacedSender::channel(2);
        let sending = tokio::spawn(async move {
            let began = Instant::now();
            for item in 0..count {
                let Ok(next) = sender.send(item, MIB).await else { break };
                sender = next;
            }
            began.elapsed()
        });
        let mut got = 0;
        while let Some(item) = items.recv().await {
            match item {
                Ok(_) => got += 1,
                Err(status) => {
                    return (sending.await.unwrap(), got, Some(Failure::from_status(&status)));
                }
            }
            sleep(every).await;
        }
        (sending.await.unwrap(), got, None)
    }

    #[tokio::test(start_paused = true)]
    async fn stream_of_a_reader_with_a_frame_every_29_seconds_ends_with_a_retryable_error() {
        let (busy, got, failure) = taken(Duration::from_secs(29), 1_000).await;
        assert!(busy < Duration::from_mins(2), "{busy:?}");
        assert!(got < 10, "{got}");
        let failure = failure.expect("an error with the reason");
        assert_eq!(failure.code, ErrorCode::Unavailable);
        assert!(failure.code.is_retryable());
        assert!(failure.message.contains("slower than 65536 bytes per second"), "{failure}");
    }

    #[tokio::test(start_paused = true)]
    async fn slow_links_and_short_stalls_are_served_to_the_end() {
        for every in [1, 15] {
            let (_, got, failure) = taken(Duration::from_secs(every), 200).await;
            assert_eq!((got, failure.map(|failure| failure.code)), (200, None));
        }
        let (_, got, failure) = taken(Duration::from_secs(29), 3).await;
        assert_eq!((got, failure.map(|failure| failure.code)), (3, None));
    }

    #[tokio::test(start_paused = true)]
    async fn error_reaches_a_stalled_reader() {
        let (sender, mut items) = PacedSender::channel(1);
        let sender = sender.send(1, MIB).await.unwrap();
        sender.fail(Error::Stopping);
        assert_eq!(items.recv().await.unwrap().unwrap(), 1);
        assert!(items.recv().await.unwrap().is_err());
        assert!(items.recv().await.is_none());
    }
}
