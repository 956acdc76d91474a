//! The sending side of a chunk.

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use dfs_types::{Frame, Random, SessionId};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::{Ack, Error, FrameSource, Outcome};

/// Acks of a receiver, until it is done or the link breaks.
pub type Acks = Pin<Box<dyn Stream<Item = Result<Ack, Error>> + Send>>;

/// A stream that has been attached to a session.
pub struct Attachment {
    /// Takes frames; closed when the link is.
    pub frames: mpsc::Sender<Frame>,
    /// Brings acks.
    pub acks: Acks,
}

/// A way to the receiver of a session.
#[async_trait]
pub trait Link: Send + Sync {
    /// Opens a stream that takes over the session. `attach_number` is greater than that of every
    /// stream before.
    async fn attach(&self, session: SessionId, attach_number: u64) -> Result<Attachment, Error>;
}

/// Bounds of a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderConfig {
    /// Bytes that may be under way unacknowledged; at least one frame always may.
    pub window: u64,
    /// How long nothing may move before the stream counts as stalled.
    pub stall: Duration,
    /// How long the receiver may take to make the chunk durable after the last frame.
    pub seal_within: Duration,
    /// How often a broken stream is taken up again.
    pub resumes_max: u32,
    /// Longest pause before that; shorter at first, and by chance.
    pub resume_pause_max: Duration,
}

impl Default for SenderConfig {
    fn default() -> Self {
        Self {
            window: 4 << 20,
            stall: Duration::from_secs(5),
            seal_within: Duration::from_secs(30),
            resumes_max: 4,
            resume_pause_max: Duration::from_millis(500),
        }
    }
}

/// Sends one chunk and waits until it is durable.
///
/// A stream that breaks is taken up again at the offset that was received, a bounded number of
/// times. `on_progress` is told how far the whole set has received; it may go back after a break.
/// Dropping the future leaves the session to expire: the chunk may or may not have been sealed.
pub async fn send_chunk(
    link: &dyn Link,
    session: SessionId,
    source: &mut dyn FrameSource,
    config: &SenderConfig,
    random: &dyn Random,
    mut on_progress: impl FnMut(u64) + Send,
) -> Result<Outcome, Error> {
    let mut attach_number = 0;
    loop {
        attach_number += 1;
        let error =
            match attached(link, session, attach_number, source, config, &mut on_progress).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
        if !error.may_resume() || attach_number > u64::from(config.resumes_max) {
            return Err(error);
        }
        tracing::debug!(%session, attach_number, %error, "taking up a stream again");
        let pause = config.resume_pause_max.min(Duration::from_millis(10 << attach_number.min(10)));
        tokio::time::sleep(
            pause / 2 + Duration::from_millis(random.below(1 + pause.as_millis() as u64 / 2)),
        )
        .await;
    }
}

/// One stream of a session, from attaching to its end.
async fn attached(
    link: &dyn Link,
    session: SessionId,
    attach_number: u64,
    source: &mut dyn FrameSource,
    config: &SenderConfig,
    on_progress: &mut (impl FnMut(u64) + Send),
) -> Result<Outcome, Error> {
    let attaching = async {
        let mut attachment = link.attach(session, attach_number).await?;
        let first = attachment.acks.next().await;
        let first = first.unwrap_or_else(|| Err(Error::Cut("it ended before it began".to_owned())));
        Ok::<_, Error>((attachment, first?))
    };
    let attached = tokio::time::timeout(config.stall, attaching).await;
    let (Attachment { frames, mut acks }, first) = attached
        .map_err(|_| Error::Cut(format!("no answer within {} ms", config.stall.as_millis())))??;
    let mut sent = match first {
        Ack::Attached { resume } => resume,
        // The chunk was sealed before the last stream broke, and only the answer got lost.
        Ack::Sealed(outcome) => return Ok(outcome),
        Ack::Progress { .. } => return Err(protocol("progress before attaching")),
    };
    let mut received = sent;
    let mut is_complete = false;
    if attach_number > 1 || sent > 0 {
        source.rewind(sent)?;
    }
    let deadline = tokio::time::sleep(config.stall);
    tokio::pin!(deadline);
    loop {
        let has_room = !is_complete && (sent == received || sent - received < config.window);
        tokio::select! {
            biased;
            ack = acks.next() => match ack {
                Some(Ok(Ack::Progress { received: now })) => {
                    if now > sent {
                        return Err(protocol("progress beyond what was sent"));
                    }
                    received = received.max(now);
                    source.acknowledge(received);
                    on_progress(received);
                }
                Some(Ok(Ack::Sealed(outcome))) => {
                    on_progress(sent);
                    return Ok(outcome);
                }
                Some(Ok(Ack::Attached { .. })) => return Err(protocol("attached twice")),
                Some(Err(error)) => return Err(error),
                None => return Err(Error::Cut("the stream ended early".to_owned())),
            },
            frame = next_frame(source, &frames), if has_room => match frame? {
                Some((permit, frame)) => {
                    sent = frame.end();
                    is_complete = frame.seal.is_some();
                    permit.send(frame);
                }
                None => return Err(Error::Source("the chunk has no last frame".to_owned())),
            },
            () = &mut deadline => {
                return Err(Error::Stalled(config.stall.as_millis() as u64));
            }
        }
        // The source of a chunk that is passed on may have nothing to give for a while; only what
        // was sent and not answered counts as a stall.
        let waits_for_source = has_room && sent == received && !is_complete;
        let patience = if is_complete { config.seal_within } else { config.stall };
        let patience = if waits_for_source { config.seal_within } else { patience };
        deadline.as_mut().reset(Instant::now() + patience);
    }
}

/// Waits for room on the link and for a frame. Cancel-safe, as both are and the permit is taken
/// first.
async fn next_frame<'a>(
    source: &mut dyn FrameSource,
    frames: &'a mpsc::Sender<Frame>,
) -> Result<Option<(mpsc::Permit<'a, Frame>, Frame)>, Error> {
    let Ok(permit) = frames.reserve().await else {
        // The reason comes with the acks.
        return std::future::pending().await;
    };
    Ok(source.next().await?.map(|frame| (permit, frame)))
}

fn protocol(what: &str) -> Error {
    Error::Refused {
        code: dfs_types::ErrorCode::Internal,
        message: format!("the receiver does not keep to the protocol: {what}"),
    }
}
