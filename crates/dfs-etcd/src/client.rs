//! Calls that end in bounded time.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::etcdserverpb::auth_client::AuthClient;
use crate::etcdserverpb::kv_client::KvClient;
use crate::etcdserverpb::lease_client::LeaseClient;
use crate::etcdserverpb::{
    AuthenticateRequest, CompactionRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseRevokeRequest, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use crate::member::Member;
use crate::settings::{Credentials, Settings};

/// Time for one attempt while others may follow soon: a member that stands still must not hold up
/// its users for longer.
const ATTEMPT_SHORT: Duration = Duration::from_millis(500);
/// Attempts that are that short, for about the time of an election; a cluster that is merely slow
/// gets more time afterwards.
const ATTEMPTS_SHORT: u32 = 6;
/// Time for each later attempt.
const ATTEMPT_LONG: Duration = Duration::from_secs(3);
/// Time after which no further attempt is begun.
const CALL_DEADLINE: Duration = Duration::from_secs(8);
/// Pause once each member had its turn, doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Bytes of an answer at most: a page of the largest values.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The metadata that carries the token of a user.
const TOKEN: &str = "token";

/// Attempts of one call: how long each may take, how long to pause, when to give up.
#[derive(Debug)]
pub struct RetryBudget {
    until: Instant,
    attempts: u32,
}

impl RetryBudget {
    /// Begins now, and begins no attempt after `within`.
    pub fn new(within: Duration) -> Self {
        Self { until: Instant::now() + within, attempts: 0 }
    }

    /// Time for the next attempt.
    pub(crate) fn attempt(&mut self) -> Duration {
        self.attempts += 1;
        if self.attempts <= ATTEMPTS_SHORT { ATTEMPT_SHORT } else { ATTEMPT_LONG }
    }

    /// Whether there is time for another attempt.
    pub fn is_left(&self) -> bool {
        Instant::now() < self.until
    }

    /// Waits before the next attempt, once each of `members` had its turn. `false`: no time is
    /// left.
    pub async fn pause(&self, members: usize) -> bool {
        let rounds = self.attempts / members.max(1) as u32;
        if rounds > 0 {
            let pause = PAUSE_FIRST.saturating_mul(1 << rounds.min(8)).min(PAUSE_MAX);
            sleep(pause).await;
        }
        self.is_left()
    }
}

/// A client of the members of one etcd. A cheap handle; clones share connections and token.
///
/// All calls go to one member until it leaves one unanswered; then all go to the next. No call
/// takes much longer than the patience it is given.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    members: Vec<Member>,
    /// Index of the member that calls go to.
    preferred: AtomicUsize,
    credentials: Option<Credentials>,
    token: Mutex<Option<MetadataValue<Ascii>>>,
}

impl Client {
    /// Connects to nobody yet. Of the members, `first` (modulo their number) is tried first, so
    /// that clients can spread.
    pub fn new(settings: &Settings, first: usize) -> Result<Self, Error> {
        let members: Vec<Member> = settings
            .members
            .iter()
            .map(|address| Member::new(address, settings))
            .collect::<Result<_, _>>()?;
        if members.is_empty() {
            return Err(Error::Settings("no member of etcd is named".to_owned()));
        }
        let preferred = AtomicUsize::new(first % members.len());
        let (credentials, token) = (settings.credentials.clone(), Mutex::default());
        Ok(Self { shared: Arc::new(Shared { members, preferred, credentials, token }) })
    }

    /// Number of members.
    pub fn members(&self) -> usize {
        self.shared.members.len()
    }

    /// Reads a range, at as many members as it takes.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        self.repeat(request, |channel, request| async move { kv(channel).range(request).await })
            .await
    }

    /// Carries out a transaction that only reads, at as many members as it takes.
    pub async fn read_txn(&self, request: TxnRequest) -> Result<TxnResponse, Error> {
        self.repeat(request, |channel, request| async move { kv(channel).txn(request).await }).await
    }

    /// Carries out a transaction. It is sent once: after [`Error::NoAnswer`] it may have taken
    /// place, or still be on its way.
    pub async fn txn(
        &self,
        request: TxnRequest,
        budget: &mut RetryBudget,
    ) -> Result<TxnResponse, Error> {
        let call = |channel, request| async move { kv(channel).txn(request).await };
        self.once(request, budget.attempt(), call).await
    }

    /// Forgets what was overwritten or removed before `revision`.
    pub async fn compact(&self, revision: i64) -> Result<(), Error> {
        let request = CompactionRequest { revision };
        self.repeat(request, |channel, request| async move { kv(channel).compact(request).await })
            .await?;
        Ok(())
    }

    /// Makes a lease. One that was made without an answer ends by itself.
    pub async fn grant_lease(&self, ttl: Duration) -> Result<i64, Error> {
        let request = LeaseGrantRequest { ttl: seconds(ttl), id: 0 };
        let call =
            |channel, request| async move { LeaseClient::new(channel).lease_grant(request).await };
        Ok(self.repeat(request, call).await?.id)
    }

    /// Starts the time of a lease anew; [`Error::LeaseGone`] when it has ended.
    pub async fn keep_lease(&self, id: i64) -> Result<(), Error> {
        let call = |channel, request: Request<LeaseKeepAliveRequest>| async move {
            let (metadata, extensions, message) = request.into_parts();
            let stream = Request::from_parts(metadata, extensions, tokio_stream::once(message));
            let mut answers =
                LeaseClient::new(channel).lease_keep_alive(stream).await?.into_inner();
            let answer = answers.message().await?;
            answer.map(Response::new).ok_or_else(|| Status::unavailable("no answer on the stream"))
        };
        let answer = self.repeat(LeaseKeepAliveRequest { id }, call).await?;
        if answer.ttl > 0 { Ok(()) } else { Err(Error::LeaseGone) }
    }

    /// Ends a lease and removes its keys.
    pub async fn revoke_lease(&self, id: i64) -> Result<(), Error> {
        let request = LeaseRevokeRequest { id };
        let call =
            |channel, request| async move { LeaseClient::new(channel).lease_revoke(request).await };
        match self.repeat(request, call).await {
            Ok(_) | Err(Error::LeaseGone) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Calls one member after the other until one answers.
    async fn repeat<Q: Clone, T, F>(
        &self,
        message: Q,
        call: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut budget = RetryBudget::new(CALL_DEADLINE);
        loop {
            let result = self.once(message.clone(), budget.attempt(), &call).await;
            let is_final = !matches!(&result, Err(error) if error.is_of_member());
            if is_final || !budget.pause(self.members()).await {
                return result;
            }
        }
    }

    /// Calls the preferred member. A call is sent again only when its token was refused.
    async fn once<Q: Clone, T, F>(
        &self,
        message: Q,
        within: Duration,
        call: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let at = self.preferred();
        let attempt = async {
            let (channel, request) = self.prepare(at, message.clone()).await?;
            match call(channel, request).await.map_err(|status| Error::from_status(&status)) {
                Err(Error::TokenGone(why)) => {
                    self.forget_token(why).await?;
                    let (channel, request) = self.prepare(at, message.clone()).await?;
                    call(channel, request).await.map_err(|status| Error::from_status(&status))
                }
                result => result,
            }
        };
        let result = timeout(within, attempt).await;
        let address = self.shared.members[at].address();
        match result {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(Error::NoAnswer(why))) => {
                self.failed(at, false);
                Err(Error::NoAnswer(format!("{address}: {why}")))
            }
            Ok(Err(Error::Unreachable(why))) => {
                self.failed(at, true);
                Err(Error::Unreachable(format!("{address}: {why}")))
            }
            Ok(Err(Error::TokenGone(why))) => Err(Error::Refused(why)),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                self.failed(at, true);
                Err(Error::NoAnswer(format!("{address}: none within {within:?}")))
            }
        }
    }

    pub(crate) fn preferred(&self) -> usize {
        self.shared.preferred.load(Ordering::Relaxed)
    }

    /// A call to a member failed: others get the next calls, those first that were not silent a
    /// moment ago. A member that answered, if only that it cannot help, is not silent.
    pub(crate) fn failed(&self, at: usize, is_silent: bool) {
        let members = &self.shared.members;
        if is_silent {
            members[at].fell_silent();
        }
        let mut others = (1..=members.len()).map(|step| (at + step) % members.len());
        let next = others.find(|other| !members[*other].was_silent());
        let next = next.unwrap_or((at + 1) % members.len());
        let order = Ordering::Relaxed;
        if self.shared.preferred.compare_exchange(at, next, order, order).is_ok() {
            tracing::debug!(member = members[at].address(), is_silent, "a call to etcd failed");
        }
    }

    /// A connection to a member, and the message with the token in it.
    pub(crate) async fn prepare<Q>(
        &self,
        at: usize,
        message: Q,
    ) -> Result<(Channel, Request<Q>), Error> {
        let channel = self.shared.members[at].channel();
        let mut request = Request::new(message);
        if let Some(token) = self.token(&channel).await? {
            request.metadata_mut().insert(TOKEN, token);
        }
        Ok((channel, request))
    }

    async fn token(&self, channel: &Channel) -> Result<Option<MetadataValue<Ascii>>, Error> {
        let Some(Credentials { user, password }) = &self.shared.credentials else {
            return Ok(None);
        };
        let mut token = self.shared.token.lock().await;
        if token.is_none() {
            let request = AuthenticateRequest { name: user.clone(), password: password.clone() };
            let answer = AuthClient::new(channel.clone()).authenticate(request).await;
            let text = answer.map_err(|status| Error::from_status(&status))?.into_inner().token;
            let fresh = MetadataValue::try_from(text)
                .map_err(|_| Error::Refused("the token cannot be sent".to_owned()))?;
            *token = Some(fresh);
        }
        Ok(token.clone())
    }

    pub(crate) async fn forget_token(&self, why: String) -> Result<(), Error> {
        if self.shared.credentials.is_none() {
            return Err(Error::Refused(format!("{why}; give a user and a password")));
        }
        *self.shared.token.lock().await = None;
        Ok(())
    }
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// Whole seconds, rounded up: etcd knows no others.
fn seconds(ttl: Duration) -> i64 {
    (ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).max(1) as i64
}
