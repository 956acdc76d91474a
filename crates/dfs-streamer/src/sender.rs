//! The sending side of a chunk transfer.

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use dfs_types::{ChunkSeal, Frame, Random, SessionId};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::{Ack, Error, FrameSource, Outcome};

/// Acks of a receiver, until it is done or the link breaks.
pub type Acks = Pin<Box<dyn Stream<Item = Result<Ack, Error>> + Send>>;

/// A stream that has been attached to a session.
pub struct Attachment {
    /// Accepts frames; closed when the link is.
    pub frames: mpsc::Sender<Frame>,
    /// Returns acks.
    pub acks: Acks,
}

/// A link to the receiver of a session.
#[async_trait]
pub trait Link: Send + Sync {
    /// Opens a stream that takes over the session. `attach_number` must be greater than that of
    /// every earlier stream.
    async fn attach(&self, session: SessionId, attach_number: u64) -> Result<Attachment, Error>;
}

/// Limits of a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderConfig {
    /// Maximum unacknowledged bytes in flight; one frame is always allowed.
    pub window: u64,
    /// Time without progress after which the stream counts as stalled. Time in which there is
    /// nothing to send does not count.
    pub stall: Duration,
    /// Time limit for the receiver to make the chunk durable after the last frame.
    pub seal_within: Duration,
    /// Maximum number of times a broken stream is resumed.
    pub resumes_max: u32,
    /// Maximum pause before a resume; shorter at first, and random.
    pub resume_pause_max: Duration,
}

impl Default for SenderConfig {
    /// Returns the limits of clients.
    fn default() -> Self {
        Self {
            window: 4 << 20,
            stall: Duration::from_secs(15),
            seal_within: Duration::from_mins(1),
            resumes_max: 4,
            resume_pause_max: Duration::from_millis(500),
        }
    }
}

impl SenderConfig {
    /// Returns the limits of a node that forwards to another. Its timeout is a third of a client's,
    /// so that a replica is dropped before the client gives up on the whole set.
    pub fn between_nodes() -> Self {
        let of_client = Self::default();
        Self { stall: of_client.stall / 3, seal_within: of_client.seal_within / 3, ..of_client }
    }
}

/// Returns true if a frame may follow when `sent` and `acknowledged` are the end offsets so far.
pub(crate) fn has_room(sent: u64, acknowledged: u64, window: u64) -> bool {
    sent <= acknowledged || sent - acknowledged + Frame::DATA_MAX as u64 <= window
}

/// Sends one chunk and waits until it is durable.
///
/// A stream that breaks is resumed at the offset that was received, a limited number of times and
/// only within the stall time of the receiver. `on_progress` is called with the offset that the
/// whole set has received; it never decreases. Success means that every receipt is for exactly the
/// bytes that were sent. Dropping the future leaves the session to expire: the chunk may or may not
/// have been sealed.
///
/// The time that `source` takes is not limited here: a receiver ends an idle session.
pub async fn send_chunk(
    link: &dyn Link,
    session: SessionId,
    source: &mut dyn FrameSource,
    config: &SenderConfig,
    random: &dyn Random,
    mut on_progress: impl FnMut(u64) + Send,
) -> Result<Outcome, Error> {
    let mut attach_number = 0;
    let mut sending = Sending::new(config);
    loop {
        attach_number += 1;
        let error =
            match sending.attached(link, session, attach_number, source, &mut on_progress).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
        let is_last = attach_number > u64::from(config.resumes_max);
        if !error.may_resume() || is_last || Instant::now() >= sending.attach_by() {
            return Err(error);
        }
        tracing::debug!(%session, attach_number, %error, "resuming a stream");
        let pause = config.resume_pause_max.min(Duration::from_millis(10 << attach_number.min(10)));
        tokio::time::sleep(
            pause / 2 + Duration::from_millis(random.below(1 + pause.as_millis() as u64 / 2)),
        )
        .await;
    }
}

/// State of a chunk transfer, across all streams of its session.
struct Sending<'a> {
    config: &'a SenderConfig,
    /// End offset of the bytes sent by this stream.
    sent: u64,
    /// End offset of the bytes sent by any stream.
    sent_max: u64,
    /// The whole set has received everything below this.
    acknowledged: u64,
    /// Seal of the last frame, once any stream has sent it.
    seal: Option<ChunkSeal>,
    /// Since when the receiver owes a reply.
    quiet_since: Instant,
}

impl<'a> Sending<'a> {
    fn new(config: &'a SenderConfig) -> Self {
        Self {
            config,
            sent: 0,
            sent_max: 0,
            acknowledged: 0,
            seal: None,
            quiet_since: Instant::now(),
        }
    }

    /// Returns the deadline of attaching. A receiver that is sealing replies once it is done.
    fn attach_by(&self) -> Instant {
        let patience =
            if self.seal.is_some() { self.config.seal_within } else { self.config.stall };
        self.quiet_since + patience
    }

    /// Runs one stream of a session, from attaching to its end.
    async fn attached(
        &mut self,
        link: &dyn Link,
        session: SessionId,
        attach_number: u64,
        source: &mut dyn FrameSource,
        on_progress: &mut (impl FnMut(u64) + Send),
    ) -> Result<Outcome, Error> {
        if self.sent == self.acknowledged && self.seal.is_none() {
            self.quiet_since = Instant::now();
        }
        let attaching = async {
            let mut attachment = link.attach(session, attach_number).await?;
            let first = attachment.acks.next().await;
            let first =
                first.unwrap_or_else(|| Err(Error::Cut("it ended before attaching".to_owned())));
            Ok::<_, Error>((attachment, first?))
        };
        let attached = tokio::time::timeout_at(self.attach_by(), attaching).await;
        let (Attachment { frames, mut acks }, first) = attached
            .map_err(|_| Error::Cut("no reply to attaching to the session".to_owned()))??;
        let resume = match first {
            Ack::Attached { resume } => resume,
            // The chunk was sealed before the last stream broke, and only the reply was lost.
            Ack::Sealed(outcome) => return self.complete(outcome, on_progress),
            Ack::Progress { .. } => return Err(protocol("progress before attaching")),
        };
        if !(self.acknowledged..=self.sent_max).contains(&resume) {
            return Err(protocol("it resumes at an impossible offset"));
        }
        if attach_number > 1 {
            source.rewind(resume)?;
        }
        (self.sent, self.quiet_since) = (resume, Instant::now());
        let mut is_complete = false;
        loop {
            let has_room = has_room(self.sent, self.acknowledged, self.config.window);
            let patience = if is_complete { self.config.seal_within } else { self.config.stall };
            let is_owed = is_complete || self.sent > self.acknowledged;
            tokio::select! {
                biased;
                ack = acks.next() => match ack {
                    Some(Ok(Ack::Progress { received })) => {
                        if received > self.sent {
                            return Err(protocol("progress beyond what was sent"));
                        }
                        if received > self.acknowledged {
                            (self.acknowledged, self.quiet_since) = (received, Instant::now());
                            source.acknowledge(received);
                            on_progress(received);
                        }
                    }
                    Some(Ok(Ack::Sealed(outcome))) => return self.complete(outcome, on_progress),
                    Some(Ok(Ack::Attached { .. })) => return Err(protocol("attached twice")),
                    Some(Err(error)) => return Err(error),
                    None => return Err(Error::Cut("the stream ended early".to_owned())),
                },
                frame = next_frame(source, &frames, self.config.stall), if has_room && !is_complete => {
                    let Some((permit, frame)) = frame? else {
                        return Err(Error::Source("the chunk has no last frame".to_owned()));
                    };
                    if !is_owed || frame.seal.is_some() {
                        self.quiet_since = Instant::now();
                    }
                    self.sent = frame.end();
                    self.sent_max = self.sent_max.max(self.sent);
                    is_complete = frame.seal.is_some();
                    self.seal = frame.seal.or(self.seal);
                    permit.send(frame);
                }
                () = tokio::time::sleep_until(self.quiet_since + patience), if is_owed => {
                    return Err(Error::Stalled(patience.as_millis() as u64));
                }
            }
        }
    }

    /// Checks that the durable bytes are those that were sent.
    fn complete(
        &mut self,
        outcome: Outcome,
        on_progress: &mut (impl FnMut(u64) + Send),
    ) -> Result<Outcome, Error> {
        let Some(seal) = self.seal else {
            return Err(protocol("sealed before the last frame was sent"));
        };
        let mut receipts = outcome.receipts.iter();
        if outcome.receipts.is_empty()
            || !receipts.all(|r| r.length == seal.length && r.crc32c == seal.crc32c)
        {
            return Err(protocol("its receipts are not for the bytes that were sent"));
        }
        if self.acknowledged < seal.length {
            self.acknowledged = seal.length;
            on_progress(seal.length);
        }
        Ok(outcome)
    }
}

/// Waits for room on the link and for a frame. Cancel-safe, as both are and the permit is taken
/// first.
async fn next_frame<'a>(
    source: &mut dyn FrameSource,
    frames: &'a mpsc::Sender<Frame>,
    stall: Duration,
) -> Result<Option<(mpsc::Permit<'a, Frame>, Frame)>, Error> {
    let Ok(permit) = frames.reserve().await else {
        // The reason arrives with the acks, which are polled first.
        tokio::time::sleep(stall).await;
        return Err(Error::Cut("the stream accepts no more frames".to_owned()));
    };
    Ok(source.next().await?.map(|frame| (permit, frame)))
}

fn protocol(what: &str) -> Error {
    Error::Refused {
        code: dfs_types::ErrorCode::Internal,
        message: format!("the receiver violated the protocol: {what}"),
    }
}
