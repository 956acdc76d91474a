//! Watches, each on a separate stream.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::metadata::MetadataValue;

use crate::client::{Client, RetryBudget};
use crate::error::Error;
use crate::etcdserverpb::watch_client::WatchClient;
use crate::etcdserverpb::watch_request::RequestUnion;
use crate::etcdserverpb::{WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse};
use crate::mvccpb::Event;

/// Silence after which the member is asked for a progress report.
const SILENCE: Duration = Duration::from_millis(500);
/// Missed progress reports after which the member counts as gone.
const SIGNS_MISSED_MAX: u32 = 2;
/// Requests in flight: the watch itself and a progress request.
const REQUESTS_MAX: usize = 4;
/// Maximum bytes of a reply. etcd splits larger ones.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Changes seen by a watch.
#[derive(Debug)]
pub struct WatchAnswer {
    /// Events in the order of their revisions.
    pub events: Vec<Event>,
    /// Set if more of the last revision may come with the next reply.
    pub is_partial: bool,
}

/// A watch at one member. It ends with the member, the connection, or the quorum; a new one has to
/// be opened then.
#[derive(Debug)]
pub struct WatchStream {
    client: Client,
    member: usize,
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    signs_missed: u32,
}

impl Client {
    /// Opens a watch at the preferred member; a single attempt with a time limit.
    pub async fn watch(
        &self,
        create: WatchCreateRequest,
        budget: &mut RetryBudget,
    ) -> Result<WatchStream, Error> {
        let member = self.preferred();
        let within = budget.attempt();
        match timeout(within, WatchStream::open(self.clone(), member, create)).await {
            Ok(Err(error)) if error.is_of_member() => {
                self.failed(member, matches!(error, Error::Unreachable(_)));
                Err(error)
            }
            Ok(result) => result,
            Err(_) => {
                self.failed(member, true);
                Err(Error::NoAnswer(format!("no watch within {within:?}")))
            }
        }
    }
}

impl WatchStream {
    async fn open(
        client: Client,
        member: usize,
        create: WatchCreateRequest,
    ) -> Result<Self, Error> {
        let (requests, queued) = mpsc::channel(REQUESTS_MAX);
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        drop(requests.try_send(create));
        let (channel, mut request) = client.prepare(member, ReceiverStream::new(queued)).await?;
        // Makes a member that has lost the others end the stream instead of staying silent.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let mut service = WatchClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let answer = service.watch(request).await;
        let mut answers = match answer.map_err(|status| Error::from_status(&status)) {
            Ok(answer) => answer.into_inner(),
            Err(Error::TokenGone(why)) => {
                client.forget_token(why.clone()).await?;
                return Err(Error::NoAnswer(why));
            }
            Err(error) => return Err(error),
        };
        let first = receive(&mut answers).await?;
        if first.compact_revision > 0 {
            return Err(Error::Compacted);
        }
        if first.canceled {
            client.forget_token(first.cancel_reason.clone()).await?;
            return Err(Error::NoAnswer(first.cancel_reason));
        }
        Ok(Self { client, member, requests, answers, signs_missed: 0 })
    }

    /// Waits for the next reply. After an error the stream can no longer be used. Cancel-safe.
    pub async fn next(&mut self) -> Result<WatchAnswer, Error> {
        loop {
            let answer = match timeout(SILENCE, receive(&mut self.answers)).await {
                Ok(answer) => answer,
                Err(_) if self.signs_missed < SIGNS_MISSED_MAX => {
                    self.signs_missed += 1;
                    let sign = RequestUnion::ProgressRequest(WatchProgressRequest {});
                    drop(self.requests.try_send(WatchRequest { request_union: Some(sign) }));
                    continue;
                }
                Err(_) => {
                    self.client.failed(self.member, true);
                    return Err(Error::NoAnswer("the watch has fallen silent".to_owned()));
                }
            };
            self.signs_missed = 0;
            let answer = answer.inspect_err(|error| {
                if matches!(error, Error::NoAnswer(_)) {
                    self.client.failed(self.member, false);
                }
            })?;
            if answer.compact_revision > 0 {
                return Err(Error::Compacted);
            }
            if answer.canceled {
                return Err(Error::NoAnswer(format!("etcd ended it: {}", answer.cancel_reason)));
            }
            if !answer.events.is_empty() || answer.fragment {
                return Ok(WatchAnswer { events: answer.events, is_partial: answer.fragment });
            }
        }
    }
}

async fn receive(answers: &mut Streaming<WatchResponse>) -> Result<WatchResponse, Error> {
    match answers.message().await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(Error::NoAnswer("etcd ended the watch".to_owned())),
        Err(status) => Err(Error::from_status(&status)),
    }
}
