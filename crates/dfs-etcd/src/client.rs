//! Calls with time limits.

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

/// Time of one attempt while others may follow soon: a stopped member must not delay its users for
/// longer.
const ATTEMPT_SHORT: Duration = Duration::from_millis(500);
/// Number of short attempts, for about the time of an election; a cluster that is merely slow gets
/// more time afterwards.
const ATTEMPTS_SHORT: u32 = 6;
/// Time of each later attempt.
const ATTEMPT_LONG: Duration = Duration::from_secs(3);
/// Time after which no more attempts begin.
const CALL_DEADLINE: Duration = Duration::from_secs(8);
/// Pause after each member was tried once, doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Maximum bytes of a reply: a page of the largest values.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Metadata key of a user's token.
const TOKEN: &str = "token";

/// Attempts of one call: the time of each, the pauses, and the end.
#[derive(Debug)]
pub struct RetryBudget {
    until: Instant,
    attempts: u32,
}

impl RetryBudget {
    /// Starts a budget with no attempts after `within`.
    pub fn new(within: Duration) -> Self {
        Self { until: Instant::now() + within, attempts: 0 }
    }

    /// Returns the time of the next attempt.
    pub(crate) fn attempt(&mut self) -> Duration {
        self.attempts += 1;
        if self.attempts <= ATTEMPTS_SHORT { ATTEMPT_SHORT } else { ATTEMPT_LONG }
    }

    /// Returns whether there is time for another attempt.
    pub fn is_left(&self) -> bool {
        Instant::now() < self.until
    }

    /// Pauses before the next attempt once all `members` were tried. `false` when no time is left.
    pub async fn pause(&self, members: usize) -> bool {
        let rounds = self.attempts / members.max(1) as u32;
        if rounds > 0 {
            let pause = PAUSE_FIRST.saturating_mul(1 << rounds.min(8)).min(PAUSE_MAX);
            sleep(pause).await;
        }
        self.is_left()
    }
}

/// A client of the members of an etcd cluster. A cheap handle; clones share connections and token.
///
/// All calls go to one member until it leaves one unanswered; then to the next. No call takes much
/// longer than its budget.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    members: Vec<Member>,
    /// Index of the preferred member.
    preferred: AtomicUsize,
    credentials: Option<Credentials>,
    token: Mutex<Option<MetadataValue<Ascii>>>,
}

impl Client {
    /// Creates a client without connecting. The member `first` (modulo their number) is tried
    /// first, so that clients can spread.
    pub fn new(settings: &Settings, first: usize) -> Result<Self, Error> {
        let members: Vec<Member> = settings
            .members
            .iter()
            .map(|address| Member::new(address, settings))
            .collect::<Result<_, _>>()?;
        if members.is_empty() {
            return Err(Error::Settings("no members of etcd given".to_owned()));
        }
        let preferred = AtomicUsize::new(first % members.len());
        let (credentials, token) = (settings.credentials.clone(), Mutex::default());
        Ok(Self { shared: Arc::new(Shared { members, preferred, credentials, token }) })
    }

    /// Returns the number of members.
    pub fn members(&self) -> usize {
        self.shared.members.len()
    }

    /// Reads a range, trying as many members as needed.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        self.repeat(request, |channel, request| async move { kv(channel).range(request).await })
            .await
    }

    /// Executes a read-only transaction, trying as many members as needed.
    pub async fn read_txn(&self, request: TxnRequest) -> Result<TxnResponse, Error> {
        self.repeat(request, |channel, request| async move { kv(channel).txn(request).await }).await
    }

    /// Executes a transaction. It is sent once: after [`Error::NoAnswer`] it may have taken effect,
    /// or still do so.
    pub async fn txn(
        &self,
        request: TxnRequest,
        budget: &mut RetryBudget,
    ) -> Result<TxnResponse, Error> {
        let call = |channel, request| async move { kv(channel).txn(request).await };
        self.once(request, budget.attempt(), call).await
    }

    /// Drops what was overwritten or removed before `revision`.
    pub async fn compact(&self, revision: i64) -> Result<(), Error> {
        let request = CompactionRequest { revision };
        self.repeat(request, |channel, request| async move { kv(channel).compact(request).await })
            .await?;
        Ok(())
    }

    /// Grants a lease. One whose reply is lost expires by itself.
    pub async fn grant_lease(&self, ttl: Duration) -> Result<i64, Error> {
        let request = LeaseGrantRequest { ttl: seconds(ttl), id: 0 };
        let call =
            |channel, request| async move { LeaseClient::new(channel).lease_grant(request).await };
        Ok(self.repeat(request, call).await?.id)
    }

    /// Renews a lease; [`Error::LeaseGone`] when it has ended.
    pub async fn keep_lease(&self, id: i64) -> Result<(), Error> {
        let call = |channel, request: Request<LeaseKeepAliveRequest>| async move {
            let (metadata, extensions, message) = request.into_parts();
            let stream = Request::from_parts(metadata, extensions, tokio_stream::once(message));
            let mut answers =
                LeaseClient::new(channel).lease_keep_alive(stream).await?.into_inner();
            let answer = answers.message().await?;
            answer.map(Response::new).ok_or_else(|| Status::unavailable("no reply on the stream"))
        };
        let answer = self.repeat(LeaseKeepAliveRequest { id }, call).await?;
        if answer.ttl > 0 { Ok(()) } else { Err(Error::LeaseGone) }
    }

    /// Revokes a lease and removes its keys.
    pub async fn revoke_lease(&self, id: i64) -> Result<(), Error> {
        let request = LeaseRevokeRequest { id };
        let call =
            |channel, request| async move { LeaseClient::new(channel).lease_revoke(request).await };
        match self.repeat(request, call).await {
            Ok(_) | Err(Error::LeaseGone) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Calls one member after another until one replies.
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

    /// Records a failed call to a member: others get the next calls, preferably those not silent
    /// recently. A member that replied, even if it could not help, is not silent.
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

    /// Returns a connection to a member, and the message with the token.
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

/// Rounds up to whole seconds, as etcd requires.
fn seconds(ttl: Duration) -> i64 {
    (ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).max(1) as i64
}
