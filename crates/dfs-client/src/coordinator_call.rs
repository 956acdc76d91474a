//! Calls to coordinators: deadlines, retries, failover.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use dfs_proto::v1::coordinator_client::CoordinatorClient;
use dfs_proto::{Detail, Failure, MESSAGE_LEN_MAX};
use dfs_transport::{ClientChannel, call, connect_error, current_request_id, with_request_id};
use dfs_types::{ErrorCode, RequestId};
use tokio::time::{Instant, timeout};
use tonic::{Response, Status};
use tracing::{Instrument as _, Span};

use crate::coordinators::Chosen;
use crate::stats::count;
use crate::{Client, Error};

/// Maximum time of one try; also its time when there is no other coordinator.
const TRY_WITHIN: Duration = Duration::from_secs(10);
/// Time limit of the first try at each of several coordinators, so that one that hangs is noticed
/// soon. It doubles with each round, so that a slow call still succeeds.
const TRY_WITHIN_FIRST: Duration = Duration::from_secs(1);
/// First pause between two tries; doubles with each subsequent one.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Time after which retries are reported.
const SILENT_FOR: Duration = Duration::from_secs(1);
/// Time that a call waits for datanodes to appear.
const NODES_WITHIN: Duration = Duration::from_secs(10);

impl Client {
    /// Runs `work` under the request id of the caller, or a new one.
    pub(crate) async fn with_request_id<T>(&self, work: impl Future<Output = T>) -> T {
        self.in_request(work).await
    }

    /// Runs `work`, perhaps in another task, under the request id and in the span of the caller, or
    /// in new ones.
    pub(crate) fn in_request<W: Future>(
        &self,
        work: W,
    ) -> impl Future<Output = W::Output> + use<W> {
        let (id, span) = if let Some(id) = current_request_id() {
            (id, Span::current())
        } else {
            let id = RequestId::random(self.inner.random.as_ref());
            // At error level, so that the span exists at every log level.
            (id, tracing::error_span!("request", %id))
        };
        with_request_id(id, work).instrument(span)
    }

    /// Calls coordinators until one gives a final reply, or until the deadline. `send` must be safe
    /// to repeat.
    pub(crate) async fn call<T, F, R>(&self, context: &str, send: F) -> Result<T, Error>
    where
        F: Fn(CoordinatorClient<ClientChannel>) -> R,
        R: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_any(context, Persistence::UntilDeadline, |channel| {
            let client = CoordinatorClient::new(channel);
            send(
                client
                    .max_decoding_message_size(MESSAGE_LEN_MAX)
                    .max_encoding_message_size(MESSAGE_LEN_MAX),
            )
        })
        .await
    }

    /// Like [`Client::call`], for any service of a coordinator.
    pub(crate) async fn call_any<T, F, R>(
        &self,
        context: &str,
        persistence: Persistence,
        send: F,
    ) -> Result<T, Error>
    where
        F: Fn(ClientChannel) -> R,
        R: Future<Output = Result<Response<T>, Status>>,
    {
        let inner = &self.inner;
        let started = Instant::now();
        let mut pause = PAUSE_MIN;
        let mut may_have_happened = false;
        let mut has_warned = false;
        let mut tries = 0;
        loop {
            let left = inner.deadline.saturating_sub(started.elapsed());
            let Tried { mut failure, may_have, next } =
                match self.try_once(context, &send, tries, left).await? {
                    Ok(answer) => return Ok(answer),
                    Err(tried) => tried,
                };
            tries += 1;
            may_have_happened |= may_have;
            let retries = failure.code.is_retryable() || failure.code == ErrorCode::OutcomeUnknown;
            let wait = if next == Next::Healthy {
                PAUSE_MIN
            } else {
                failure.retry_after.unwrap_or(pause)
            };
            let wait = jittered(wait, inner.random.as_ref());
            let patience = match failure.code {
                ErrorCode::NotEnoughNodes => NODES_WITHIN.min(inner.deadline),
                _ => inner.deadline,
            };
            let is_over = persistence == Persistence::OneRound
                && (next == Next::None || failure.detail == Some(Detail::Uninitialised));
            if !retries || is_over || started.elapsed() + wait >= patience {
                // The failure of a later try does not reveal the outcome of an earlier one.
                if may_have_happened && !is_final(failure.code) {
                    failure.code = ErrorCode::OutcomeUnknown;
                }
                return Err(Error::of(context, &failure));
            }
            count(&inner.counters.retries);
            if !has_warned && next == Next::None && started.elapsed() >= SILENT_FOR {
                has_warned = true;
                let patience = patience.as_secs();
                tracing::warn!(context, error = %failure.message, "retrying for up to {patience} s");
            }
            tracing::debug!(context, error = %failure.message, ?wait, "retrying");
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Asks one coordinator once, after `tries` of the same call. The outer error is one that no
    /// other try can fix.
    async fn try_once<T, F, R>(
        &self,
        context: &str,
        send: &F,
        tries: usize,
        left: Duration,
    ) -> Result<Result<T, Tried>, Error>
    where
        F: Fn(ClientChannel) -> R,
        R: Future<Output = Result<Response<T>, Status>>,
    {
        let inner = &self.inner;
        let chosen = match timeout(left, inner.coordinators.choose()).await {
            Ok(chosen) => chosen.map_err(|error| error.to_string()),
            Err(_) => Err("not found in time".to_owned()),
        };
        let Chosen { address, of } = match chosen {
            Ok(chosen) => chosen,
            Err(message) => {
                let failure =
                    Failure::new(ErrorCode::Unavailable, format!("coordinator {message}"));
                return Ok(Err(Tried { failure, may_have: false, next: Next::None }));
            }
        };
        let channel = inner
            .channels
            .control(&address)
            .map_err(|e| Error::new(ErrorCode::InvalidArgument, context, e.to_string()))?;
        let asked = Instant::now();
        let (mut failure, may_have) =
            match timeout(try_within(tries, of).min(left), call(channel, send)).await {
                Ok(Ok(answer)) => {
                    inner.coordinators.answered(&address);
                    let elapsed_ms = asked.elapsed().as_millis() as u64;
                    tracing::debug!(context, coordinator = %address, elapsed_ms, "got a reply");
                    return Ok(Ok(answer.into_inner()));
                }
                Ok(Err(status)) => {
                    let mut failure = Failure::from_status(&status);
                    if let Some(error) = connect_error(&status) {
                        failure.message = error.to_string();
                        // That decision will not change soon.
                        if error.reason.kind() == io::ErrorKind::PermissionDenied {
                            failure.code = ErrorCode::PermissionDenied;
                        }
                        (failure, false)
                    } else {
                        (failure, is_of_transport(&status))
                    }
                }
                Err(_) => {
                    inner.channels.redial(&address);
                    (Failure::new(ErrorCode::OutcomeUnknown, "no reply in time"), true)
                }
            };
        let mut next = Next::None;
        // A coordinator without room for another connection counts as down; one that is busy with
        // calls has replied.
        let has_refused = may_have && failure.code == ErrorCode::Busy;
        if has_refused || matches!(failure.code, ErrorCode::Unavailable | ErrorCode::OutcomeUnknown)
        {
            failure.message = format!("coordinator {address}: {}", failure.message);
            let has_healthy = inner.coordinators.failed(&address);
            if has_healthy {
                next = Next::Healthy;
            } else if tries + 1 < of {
                next = Next::Avoided;
            }
        } else {
            inner.coordinators.answered(&address);
        }
        Ok(Err(Tried { failure, may_have, next }))
    }
}

/// Limit of the retries of a call without a usable reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// Until the client's deadline.
    UntilDeadline,
    /// Until each coordinator was asked once, or one replies that it waits for its cluster.
    OneRound,
}

/// A try that failed.
struct Tried {
    failure: Failure,
    /// True if the change may have taken place nevertheless.
    may_have: bool,
    next: Next,
}

/// The next coordinator to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// One that has not failed recently.
    Healthy,
    /// One that has failed recently, but was not asked by this call.
    Avoided,
    /// None that this call has not asked.
    None,
}

/// Time limit of a try after `tries` others, with `many` coordinators.
fn try_within(tries: usize, many: usize) -> Duration {
    if many < 2 {
        return TRY_WITHIN;
    }
    let doublings = (tries / many).min(TRY_WITHIN.as_secs().ilog2() as usize + 1);
    (TRY_WITHIN_FIRST * (1 << doublings)).min(TRY_WITHIN)
}

/// Returns true if the reply to a repeat holds for all tries: the change took place before, or
/// never can.
fn is_final(code: ErrorCode) -> bool {
    !code.is_retryable() && !matches!(code, ErrorCode::NoSpace | ErrorCode::Internal)
}

/// Returns a duration between half of `pause` and all of it, so that clients do not retry in
/// lockstep.
pub(crate) fn jittered(pause: Duration, random: &dyn dfs_types::Random) -> Duration {
    let half = pause / 2;
    half + Duration::from_micros(random.below(half.as_micros() as u64 + 1))
}

/// Returns true if the status was made on this side because the connection broke.
pub(crate) fn is_of_transport(status: &Status) -> bool {
    status.source().is_some()
}
