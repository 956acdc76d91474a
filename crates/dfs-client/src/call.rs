//! Calls of a coordinator: deadlines, retries, fail-over.

use std::error::Error as _;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dfs_proto::v1::coordinator_client::CoordinatorClient;
use dfs_proto::{Failure, MESSAGE_LEN_MAX};
use dfs_transport::{Traced, current_request_id, with_request_id};
use dfs_types::{ErrorCode, RequestId};
use tokio::time::{Instant, timeout};
use tonic::{Response, Status};
use tracing::{Instrument as _, Span};

use crate::stats::count;
use crate::{Client, Error};

/// How long one try of a call may take.
const TRY_WITHIN: Duration = Duration::from_secs(10);
/// The first pause between two tries; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a call is tried in silence.
const SILENT_FOR: Duration = Duration::from_secs(1);
/// How long a call waits for datanodes to appear.
const NODES_WITHIN: Duration = Duration::from_secs(10);

impl Client {
    /// Does `work` under the request id of the caller, or a new one.
    pub(crate) async fn traced<T>(&self, work: impl Future<Output = T>) -> T {
        self.in_request(work).await
    }

    /// Does `work`, perhaps in another task, under the request id and in the span of the caller,
    /// or in new ones.
    pub(crate) fn in_request<W: Future>(
        &self,
        work: W,
    ) -> impl Future<Output = W::Output> + use<W> {
        let (id, span) = if let Some(id) = current_request_id() {
            (id, Span::current())
        } else {
            let id = RequestId::random(self.inner.random.as_ref());
            // At the level of errors, so that it is there whatever is logged.
            (id, tracing::error_span!("request", %id))
        };
        with_request_id(id, work).instrument(span)
    }

    /// Index of the coordinator that answered last.
    fn preferred(&self) -> usize {
        self.inner.preferred.load(Ordering::Relaxed) % self.inner.coordinators.len()
    }

    /// Address of the coordinator that answered last.
    pub(crate) fn coordinator(&self) -> &str {
        &self.inner.coordinators[self.preferred()]
    }

    /// Calls a coordinator until it gives an answer that is worth giving to the user, or until
    /// the deadline. `send` must be safe to repeat.
    pub(crate) async fn call<T, F, R>(&self, context: &str, send: F) -> Result<T, Error>
    where
        F: Fn(CoordinatorClient<Traced>) -> R,
        R: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_any(context, |channel| {
            let client = CoordinatorClient::new(channel);
            send(
                client
                    .max_decoding_message_size(MESSAGE_LEN_MAX)
                    .max_encoding_message_size(MESSAGE_LEN_MAX),
            )
        })
        .await
    }

    /// The same for any service of a coordinator.
    pub(crate) async fn call_any<T, F, R>(&self, context: &str, send: F) -> Result<T, Error>
    where
        F: Fn(Traced) -> R,
        R: Future<Output = Result<Response<T>, Status>>,
    {
        let inner = &self.inner;
        let started = Instant::now();
        let mut pause = PAUSE_MIN;
        let mut may_have_happened = false;
        let mut is_told = false;
        loop {
            let preferred = self.preferred();
            let address = &inner.coordinators[preferred];
            let channel = inner.channels.control(address);
            let channel = channel
                .map_err(|e| Error::new(ErrorCode::InvalidArgument, context, e.to_string()))?;
            let left = inner.deadline.saturating_sub(started.elapsed());
            let asked = Instant::now();
            let mut failure = match timeout(TRY_WITHIN.min(left), send(channel)).await {
                Ok(Ok(answer)) => {
                    let elapsed_ms = asked.elapsed().as_millis() as u64;
                    tracing::debug!(context, coordinator = %address, elapsed_ms, "got an answer");
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) => {
                    may_have_happened |= !was_never_sent(&status) && is_of_transport(&status);
                    Failure::from_status(&status)
                }
                Err(_) => {
                    may_have_happened = true;
                    Failure::new(ErrorCode::OutcomeUnknown, "no answer in time")
                }
            };
            if matches!(failure.code, ErrorCode::Unavailable | ErrorCode::OutcomeUnknown) {
                failure.message = format!("coordinator {address}: {}", failure.message);
                inner.preferred.store(preferred + 1, Ordering::Relaxed);
            }
            let retries = failure.code.is_retryable() || failure.code == ErrorCode::OutcomeUnknown;
            let wait = jittered(failure.retry_after.unwrap_or(pause), inner.random.as_ref());
            let patience = match failure.code {
                ErrorCode::NotEnoughNodes => NODES_WITHIN.min(inner.deadline),
                _ => inner.deadline,
            };
            if !retries || started.elapsed() + wait >= patience {
                // What a later try says does not tell what becomes of an earlier one.
                if may_have_happened && !is_final(failure.code) {
                    failure.code = ErrorCode::OutcomeUnknown;
                }
                return Err(Error::of(context, &failure));
            }
            count(&inner.counters.retries);
            if !is_told && started.elapsed() >= SILENT_FOR {
                is_told = true;
                let patience = patience.as_secs();
                tracing::warn!(context, error = %failure.message, "tries for up to {patience} s");
            }
            tracing::debug!(context, error = %failure.message, ?wait, "trying again");
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Whether the answer to a repeat holds for all tries: the change took place before, or never can.
fn is_final(code: ErrorCode) -> bool {
    !code.is_retryable() && !matches!(code, ErrorCode::NoSpace | ErrorCode::Internal)
}

/// Between half of `pause` and all of it, so that clients do not come in step.
pub(crate) fn jittered(pause: Duration, random: &dyn dfs_types::Random) -> Duration {
    let half = pause / 2;
    half + Duration::from_micros(random.below(half.as_micros() as u64 + 1))
}

/// Whether the connection itself could not be made.
fn was_never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(
            kind,
            Some(
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::NotFound
            )
        ) {
            return true;
        }
        source = error.source();
    }
    false
}

/// Whether the status was made on this side, because the connection broke.
fn is_of_transport(status: &Status) -> bool {
    status.source().is_some()
}
