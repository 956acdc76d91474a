//! Replies to orders that may take long: empty messages while the node makes progress, then the result.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dfs_proto::Failure;
use dfs_transport::spawn_in_request;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use futures_util::stream::{StreamExt as _, once};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::Error;

/// Interval of showing progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Counts the steps of an order. Clones share the count.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Notes a step after which others follow.
    pub(super) fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn steps(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Messages of a reply.
pub(super) type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Does the work of an order. Returns the reply once there is a first message; a failure until then
/// is the status of the call. The work ends when the reply is dropped.
pub(super) async fn reply<T: Default + Send + 'static>(
    work: BoxFuture<'static, Result<T, Failure>>,
    progress: Progress,
) -> Result<Messages<T>, Status> {
    let (messages, mut outgoing) = mpsc::channel(1);
    drop(spawn_in_request(send(work, progress, messages)));
    let first = outgoing.recv().await.ok_or(Error::BrokeOff)??;
    let rest = ReceiverStream::new(outgoing);
    Ok(once(std::future::ready(Ok(first))).chain(rest).boxed())
}

async fn send<T: Default>(
    mut work: BoxFuture<'static, Result<T, Failure>>,
    progress: Progress,
    messages: mpsc::Sender<Result<T, Status>>,
) {
    let mut shown = progress.steps();
    loop {
        let ended = tokio::select! {
            biased;
            () = messages.closed() => return,
            ended = timeout(PROGRESS_EVERY, &mut work) => ended,
        };
        if let Ok(result) = ended {
            drop(messages.send(result.map_err(Status::from)).await);
            return;
        }
        let steps = progress.steps();
        // One that waits to be read shows as much.
        if steps != shown && messages.try_send(Ok(T::default())).is_ok() {
            shown = steps;
        }
    }
}

#[cfg(test)]
mod tests {
    use dfs_types::ErrorCode;
    use tokio::sync::oneshot;
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn progress_is_shown_until_the_result_and_not_while_nothing_moves() {
        let progress = Progress::default();
        let steps = progress.clone();
        let began = Instant::now();
        let work = async move {
            for _ in 0..40 {
                sleep(Duration::from_millis(700)).await;
                steps.note();
            }
            sleep(Duration::from_mins(5)).await;
            Ok(7)
        };
        let mut reply = reply(Box::pin(work), progress).await.unwrap();
        let mut times = Vec::new();
        while let Some(message) = reply.next().await {
            times.push((began.elapsed().as_secs(), message.unwrap()));
        }
        let shown = [5, 10, 15, 20, 25, 30].map(|second| (second, 0));
        assert_eq!(times[..times.len() - 1], shown);
        assert_eq!(times.last(), Some(&(328, 7)));
    }

    #[tokio::test(start_paused = true)]
    async fn early_failure_is_the_status_of_the_call_and_a_dropped_reply_ends_the_work() {
        let failure = || Failure::new(ErrorCode::Busy, "as planned");
        let failed = reply::<u32>(Box::pin(async move { Err(failure()) }), Progress::default());
        let status = failed.await.map(drop).unwrap_err();
        assert_eq!(Failure::from_status(&status).code, ErrorCode::Busy);
        let (alive, ended) = oneshot::channel::<()>();
        let progress = Progress::default();
        progress.note();
        let work = async move {
            let _alive = alive;
            std::future::pending().await
        };
        let calling = reply::<u32>(Box::pin(work), progress);
        assert!(timeout(Duration::from_secs(1), calling).await.is_err());
        ended.await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_panics_fails_the_call() {
        let work = Box::pin(async { panic!("planned") });
        let status = reply::<u32>(work, Progress::default()).await.map(drop).unwrap_err();
        assert_eq!(Failure::from_status(&status).code, ErrorCode::Internal);
    }
}
