//! The receiving side of a chunk transfer: verify, forward, write, seal.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_types::{BLOCK_SIZE, ChunkSeal, Crc32c, Frame, Random, Receipt};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::Instant;

use crate::downstream::Forwarder;
use crate::sender::{SenderConfig, has_room};
use crate::{Ack, Downstream, Dropped, Error, Outcome};

/// Destination of the bytes of a chunk on this node.
#[async_trait]
pub trait Sink: Send {
    /// Accepts a verified frame; returns before it is durable. After an error the sink is unusable.
    async fn append(&mut self, frame: Frame) -> Result<(), Error>;

    /// Makes the chunk durable and returns a receipt. After an error the chunk does not exist.
    async fn seal(self: Box<Self>, seal: ChunkSeal) -> Result<Receipt, Error>;
}

/// Limits of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionConfig {
    /// Maximum length of the chunk.
    pub max_length: u64,
    /// Minimum number of replicas, including the local one, below which the session fails.
    pub min_replicas: usize,
    /// Bytes received between two acks of a continuous stream; when no frame is waiting, everything
    /// received is acknowledged at once, so that any window size works.
    pub ack_every: u64,
    /// Limits of forwarding: `stall` is how long a replica may make no progress before it is
    /// dropped, `window` how far the slowest one may lag behind before no more frames are accepted.
    /// Must be shorter than the sender's: see [`SenderConfig::between_nodes`].
    pub sender: SenderConfig,
}

/// A chunk being written to this node and forwarded to its replicas.
///
/// Frames are forwarded to the replicas before they are written here. The acknowledged offset is
/// the one that the whole set has received; a replica that fails or stalls is dropped from the set.
///
/// A session holds at most `sender.window` bytes (or one frame) for replicas that lag behind,
/// shared by all of them, and one frame of [`Frame::DATA_MAX`] being written, whatever its sender
/// does; bytes kept by a sink or queued in connections come on top.
pub struct Session {
    config: SessionConfig,
    state: Mutex<State>,
    /// The newest attach number; the holder of the state stops when its own is not the newest.
    /// `None` once the session has expired.
    newest: watch::Sender<Option<u64>>,
    /// Time of the last activity; `None` while the chunk is being sealed.
    active: watch::Sender<Option<Instant>>,
}

struct State {
    sink: Option<Box<dyn Sink>>,
    received: u64,
    whole: Crc32c,
    replicas: Vec<Forwarder>,
    dropped: Vec<Dropped>,
    result: Option<Result<Outcome, Error>>,
}

/// Maximum number of acks queued for a slow sender.
const ACKS_AHEAD: usize = 16;

impl Session {
    /// Opens a session. Forwarding starts at once; its tasks end with the session.
    pub fn new(
        config: SessionConfig,
        sink: Box<dyn Sink>,
        replicas: Vec<Downstream>,
        random: &Arc<dyn Random>,
    ) -> Arc<Self> {
        let start = |replica| Forwarder::start(replica, config.sender, random.clone());
        let state = State {
            sink: Some(sink),
            received: 0,
            whole: Crc32c::default(),
            replicas: replicas.into_iter().map(start).collect(),
            dropped: Vec::new(),
            result: None,
        };
        Arc::new(Self {
            config,
            state: Mutex::new(state),
            newest: watch::Sender::new(Some(0)),
            active: watch::Sender::new(Some(Instant::now())),
        })
    }

    /// Returns the time since the last activity. Sealing counts as activity.
    pub fn idle_for(&self) -> Duration {
        self.active.borrow().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Expires the session: an unsealed chunk is dropped, streams end. Waits for a write or a seal
    /// in progress; a chunk that becomes durable stays so, and its stream is notified.
    pub async fn expire(&self) {
        self.newest.send_replace(None);
        let mut state = self.state.lock().await;
        state.sink = None;
        state.replicas.clear();
        state.result.get_or_insert(Err(Error::UnknownSession));
    }

    /// Takes the session over for the stream with this number, 1 or more: an earlier stream ends
    /// first. The acks end after the final one, or after an error. For a sealed chunk, the outcome
    /// is sent again. When the acks are dropped the stream ends, and received bytes stay; a seal in
    /// progress continues.
    pub fn attach(
        self: &Arc<Self>,
        number: u64,
        frames: impl Stream<Item = Result<Frame, Error>> + Send + 'static,
    ) -> mpsc::Receiver<Result<Ack, Error>> {
        let (acks, sent) = mpsc::channel(ACKS_AHEAD);
        let is_newer = self.newest.send_if_modified(|newest| {
            let is_newer = newest.is_some_and(|newest| number > newest);
            if is_newer {
                *newest = Some(number);
            }
            is_newer
        });
        let session = self.clone();
        let work = async move {
            let ended = if is_newer {
                session.run(number, frames, &acks).await
            } else {
                Err(session.refusal())
            };
            drop(acks.send(ended.map(Ack::Sealed)).await);
        };
        drop(dfs_transport::spawn_in_request(work));
        sent
    }

    fn touch(&self) {
        self.active.send_replace(Some(Instant::now()));
    }

    /// Returns the error of a stream that does not have the newest number.
    fn refusal(&self) -> Error {
        if self.newest.borrow().is_some() { Error::Superseded } else { Error::UnknownSession }
    }

    /// Completes, with the reason, as soon as the stream with this number must end.
    async fn taken_over(&self, number: u64) -> Error {
        let mut newest = self.newest.subscribe();
        // No error is possible: the session, which holds the sender, is borrowed.
        drop(newest.wait_for(|newest| *newest != Some(number)).await);
        self.refusal()
    }

    /// Serves one stream until the chunk is durable. The caller sends the final ack, so that a slow
    /// sender never blocks while the state is held.
    async fn run(
        &self,
        number: u64,
        frames: impl Stream<Item = Result<Frame, Error>> + Send,
        acks: &mpsc::Sender<Result<Ack, Error>>,
    ) -> Result<Outcome, Error> {
        let taken_over = self.taken_over(number);
        tokio::pin!(taken_over, frames);
        let mut state = tokio::select! {
            biased;
            error = &mut taken_over => return Err(error),
            state = self.state.lock() => state,
        };
        self.touch();
        if let Some(result) = &state.result {
            return result.clone();
        }
        let resume = state.received;
        acks.send(Ok(Ack::Attached { resume })).await.map_err(|_| sender_went())?;
        // Earlier acks may have been lost with their streams.
        let mut acked = 0;
        let seal = loop {
            if let Err(error) = state.judge_replicas(&self.config) {
                return state.fail(error);
            }
            let received = state.set_received();
            let has_room = has_room(state.received, received, self.config.sender.window);
            let is_due = received.saturating_sub(acked) >= self.config.ack_every.max(1);
            let frame = tokio::select! {
                biased;
                error = &mut taken_over => return Err(error),
                permit = acks.reserve(), if is_due => {
                    permit.map_err(|_| sender_went())?.send(Ok(Ack::Progress { received }));
                    acked = received;
                    continue;
                }
                () = state.any_progress() => {
                    self.touch();
                    continue;
                }
                frame = frames.next(), if has_room => frame,
                // Idle otherwise.
                permit = acks.reserve(), if received > acked => {
                    permit.map_err(|_| sender_went())?.send(Ok(Ack::Progress { received }));
                    acked = received;
                    continue;
                }
            };
            self.touch();
            let frame = frame.unwrap_or_else(|| Err(sender_went()))?;
            if let Some(seal) = state.take(frame, &self.config).await? {
                break seal;
            }
        };
        // From here on the chunk is sealed even without a listener, so that a repeat gets the
        // reply.
        self.active.send_replace(None);
        let outcome = state.seal(seal, &self.config).await;
        state.result = Some(outcome.clone());
        self.touch();
        outcome
    }
}

fn sender_went() -> Error {
    Error::Cut("the sender is gone".to_owned())
}

impl State {
    /// Verifies a frame, forwards it and writes it. Returns the seal after the last one.
    async fn take(
        &mut self,
        frame: Frame,
        config: &SessionConfig,
    ) -> Result<Option<ChunkSeal>, Error> {
        frame.verify()?;
        if frame.end() > config.max_length {
            return Err(Error::PastEnd { max: config.max_length, end: frame.end() });
        }
        if frame.offset < self.received && frame.end() <= self.received && frame.seal.is_none() {
            // Sent again after a break; already received.
            return Ok(None);
        }
        if frame.offset != self.received {
            return Err(Error::OutOfOrder { expected: self.received, found: frame.offset });
        }
        let mut whole = self.whole;
        for (crc, block) in frame.crcs.iter().zip(frame.data.chunks(BLOCK_SIZE)) {
            whole = whole.combine(*crc, block.len());
        }
        if frame.seal.is_some_and(|seal| seal.crc32c != whole) {
            return Err(Error::WholeMismatch);
        }
        let dropped = &mut self.dropped;
        self.replicas.retain(|replica| match replica.forward(frame.clone()) {
            Ok(()) => true,
            Err(why) => {
                dropped.push(why);
                false
            }
        });
        (self.received, self.whole) = (frame.end(), whole);
        let seal = frame.seal;
        if !frame.data.is_empty() {
            let written = match &mut self.sink {
                Some(sink) => sink.append(frame).await,
                None => Err(Error::UnknownSession),
            };
            if let Err(error) = written {
                return self.fail(error);
            }
        }
        Ok(seal)
    }

    /// Ends the session permanently.
    fn fail<T>(&mut self, error: Error) -> Result<T, Error> {
        self.sink = None;
        self.replicas.clear();
        self.result = Some(Err(error.clone()));
        Err(error)
    }

    /// Waits for progress of any replica. Cancel-safe.
    async fn any_progress(&mut self) {
        let news: Vec<_> = self.replicas.iter_mut().map(|r| Box::pin(r.changed())).collect();
        if news.is_empty() {
            return std::future::pending().await;
        }
        drop(futures_util::future::select_all(news).await);
    }

    /// Drops the replicas that ended before the chunk did.
    fn judge_replicas(&mut self, config: &SessionConfig) -> Result<(), Error> {
        let dropped = &mut self.dropped;
        self.replicas.retain(|replica| {
            let failure = replica.failure();
            let is_sound = failure.is_none();
            dropped.extend(failure);
            is_sound
        });
        self.check_replicas(1 + self.replicas.len(), config)
    }

    fn check_replicas(&self, left: usize, config: &SessionConfig) -> Result<(), Error> {
        if left >= config.min_replicas {
            return Ok(());
        }
        let why: Vec<_> =
            self.dropped.iter().map(|d| format!("node {}: {}", d.node, d.message)).collect();
        Err(Error::TooFewReplicas { left, wanted: config.min_replicas, why: why.join("; ") })
    }

    /// Returns how much the whole set has received.
    fn set_received(&self) -> u64 {
        self.replicas.iter().map(Forwarder::received).fold(self.received, u64::min)
    }

    /// Makes the chunk durable here and on every replica, concurrently.
    async fn seal(&mut self, seal: ChunkSeal, config: &SessionConfig) -> Result<Outcome, Error> {
        let sink = self.sink.take().ok_or(Error::UnknownSession)?;
        let replicas = std::mem::take(&mut self.replicas);
        let ends = futures_util::future::join_all(replicas.into_iter().map(Forwarder::end));
        let (own, ends) = futures_util::future::join(sink.seal(seal), ends).await;
        let mut receipts = vec![own?];
        for end in ends {
            match end {
                Ok(receipt) => receipts.push(receipt),
                Err(why) => self.dropped.push(why),
            }
        }
        self.check_replicas(receipts.len(), config)?;
        Ok(Outcome { receipts, dropped: std::mem::take(&mut self.dropped) })
    }
}
