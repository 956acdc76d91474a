//! The receiving side of a chunk: verify, hand on, write, seal.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_types::{ChunkSeal, Crc32c, ErrorCode, Frame, NodeId, Random, Receipt, SessionId};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::Instant;

use crate::sender::{Link, SenderConfig, send_chunk};
use crate::source::Forwarding;
use crate::{Ack, Dropped, Error, Outcome};

/// Where the bytes of a chunk end up on this node.
#[async_trait]
pub trait Sink: Send {
    /// Takes a verified frame over; returns before it is durable. After an error the sink is of
    /// no more use.
    async fn append(&mut self, frame: Frame) -> Result<(), Error>;

    /// Makes the chunk durable and vouches for it. After an error the chunk is not there.
    async fn seal(self: Box<Self>, seal: ChunkSeal) -> Result<Receipt, Error>;
}

/// A node that the frames are handed on to.
pub struct Replica {
    /// Who.
    pub node: NodeId,
    /// The session that was prepared there.
    pub session: SessionId,
    /// The way there.
    pub link: Arc<dyn Link>,
}

/// Bounds of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionConfig {
    /// Bytes the chunk may hold.
    pub max_length: u64,
    /// Copies, the one here included, below which the session fails.
    pub min_copies: usize,
    /// Bytes received between two acks.
    pub ack_every: u64,
    /// How frames are handed on; its `stall` is how long a replica may stand still before it is
    /// dropped.
    pub sender: SenderConfig,
}

/// One chunk on its way into this node and on to its replicas.
///
/// Frames are handed on to the replicas before they are written here. The offset that is
/// acknowledged is the one that the whole set has received; a replica that fails or stands still
/// leaves the set.
pub struct Session {
    config: SessionConfig,
    state: Mutex<State>,
    /// The newest attach number; whoever holds the state ends when it is not the newest.
    newest: watch::Sender<u64>,
    /// When something last happened.
    active: watch::Sender<Instant>,
}

struct State {
    sink: Option<Box<dyn Sink>>,
    received: u64,
    whole: Crc32c,
    acknowledged: u64,
    replicas: Vec<Forwarder>,
    dropped: Vec<Dropped>,
    result: Option<Result<Outcome, Error>>,
}

/// A replica that is being fed.
struct Forwarder {
    node: NodeId,
    frames: mpsc::Sender<Frame>,
    progress: watch::Receiver<Progress>,
}

#[derive(Debug, Clone)]
enum Progress {
    Received(u64),
    Ended(Result<Outcome, Error>),
}

/// Frames that may wait for a replica. The window of the sender bounds their bytes; this bounds
/// their number where frames are small.
const FORWARD_FRAMES: usize = 64;
/// Acks that may wait for a slow sender.
const ACKS_AHEAD: usize = 16;

impl Session {
    /// Opens a session. Handing on starts at once; the tasks end with the session.
    pub fn new(
        config: SessionConfig,
        sink: Box<dyn Sink>,
        replicas: Vec<Replica>,
        random: &Arc<dyn Random>,
    ) -> Arc<Self> {
        let replicas = replicas.into_iter().map(|r| Forwarder::start(r, &config, random)).collect();
        let state = State {
            sink: Some(sink),
            received: 0,
            whole: Crc32c::default(),
            acknowledged: 0,
            replicas,
            dropped: Vec::new(),
            result: None,
        };
        Arc::new(Self {
            config,
            state: Mutex::new(state),
            newest: watch::Sender::new(0),
            active: watch::Sender::new(Instant::now()),
        })
    }

    /// How long nothing has happened.
    pub fn idle_for(&self) -> Duration {
        self.active.borrow().elapsed()
    }

    /// Gives the session up: what was not sealed is gone, streams end.
    pub async fn expire(&self) {
        self.newest.send_replace(u64::MAX);
        let mut state = self.state.lock().await;
        state.sink = None;
        state.replicas.clear();
        state.result.get_or_insert(Err(Error::UnknownSession));
    }

    /// Takes the session over for the stream with this number: an earlier stream ends first. The
    /// acks end after the final one, or after an error. What was begun goes on when the acks are
    /// dropped, up to the last frame that came.
    pub fn attach(
        self: &Arc<Self>,
        number: u64,
        frames: impl Stream<Item = Result<Frame, Error>> + Send + 'static,
    ) -> mpsc::Receiver<Result<Ack, Error>> {
        let (acks, told) = mpsc::channel(ACKS_AHEAD);
        let is_newer = self.newest.send_if_modified(|newest| {
            let is_newer = number > *newest;
            *newest = number.max(*newest);
            is_newer
        });
        let session = self.clone();
        let work = async move {
            let ended = if is_newer {
                session.run(number, frames, &acks).await
            } else {
                Err(Error::Superseded)
            };
            session.touch();
            if let Err(error) = ended {
                drop(acks.send(Err(error)).await);
            }
        };
        // The id of the request is to be found in calls that the work makes.
        drop(match dfs_transport::current_request_id() {
            Some(id) => tokio::spawn(dfs_transport::with_request_id(id, work)),
            None => tokio::spawn(work),
        });
        told
    }

    fn touch(&self) {
        self.active.send_replace(Instant::now());
    }

    async fn run(
        &self,
        number: u64,
        frames: impl Stream<Item = Result<Frame, Error>> + Send,
        acks: &mpsc::Sender<Result<Ack, Error>>,
    ) -> Result<(), Error> {
        let mut newest = self.newest.subscribe();
        let superseded = async move {
            drop(newest.wait_for(|newest| *newest != number).await);
        };
        tokio::pin!(superseded, frames);
        let mut state = tokio::select! {
            biased;
            () = &mut superseded => return Err(Error::Superseded),
            state = self.state.lock() => state,
        };
        self.touch();
        if let Some(result) = &state.result {
            let outcome = result.clone()?;
            return tell(acks, Ack::Sealed(outcome)).await;
        }
        tell(acks, Ack::Attached { resume: state.received }).await?;
        let seal = loop {
            tokio::select! {
                biased;
                () = &mut superseded => return Err(Error::Superseded),
                () = state.any_progress() => {}
                frame = frames.next() => {
                    self.touch();
                    let frame = frame.unwrap_or_else(|| Err(Error::Cut("the sender went".to_owned())))?;
                    if let Some(seal) = state.take(frame, &self.config).await? {
                        break seal;
                    }
                }
            }
            if let Err(error) = state.judge_replicas(&self.config) {
                return state.fail(error);
            }
            let received = state.set_received();
            if received >= state.acknowledged + self.config.ack_every {
                state.acknowledged = received;
                tell(acks, Ack::Progress { received }).await?;
            }
        };
        // From here on the chunk is sealed whoever listens, so that a repeat gets the answer.
        let outcome = state.seal(seal, &self.config).await;
        state.result = Some(outcome.clone());
        self.touch();
        tell(acks, Ack::Sealed(outcome?)).await
    }
}

async fn tell(acks: &mpsc::Sender<Result<Ack, Error>>, ack: Ack) -> Result<(), Error> {
    acks.send(Ok(ack)).await.map_err(|_| Error::Cut("the sender went".to_owned()))
}

impl State {
    /// Verifies a frame, hands it on and writes it. Gives the seal after the last one.
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
            // Sent again after a break; it is here already.
            return Ok(None);
        }
        if frame.offset != self.received {
            return Err(Error::OutOfOrder { expected: self.received, found: frame.offset });
        }
        let mut whole = self.whole;
        for (crc, block) in frame.crcs.iter().zip(frame.data.chunks(dfs_types::BLOCK_SIZE)) {
            whole = whole.combine(*crc, block.len());
        }
        if frame.seal.is_some_and(|seal| seal.crc32c != whole) {
            return Err(Error::WholeMismatch);
        }
        for replica in &self.replicas {
            // A replica that is gone, or does not keep up, is judged by its progress.
            drop(replica.frames.try_send(frame.clone()));
        }
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

    /// Ends the session for good.
    fn fail<T>(&mut self, error: Error) -> Result<T, Error> {
        self.sink = None;
        self.replicas.clear();
        self.result = Some(Err(error.clone()));
        Err(error)
    }

    /// Waits until a replica has news. Cancel-safe.
    async fn any_progress(&mut self) {
        let news = self.replicas.iter_mut().map(|replica| Box::pin(replica.progress.changed()));
        let news: Vec<_> = news.collect();
        if news.is_empty() {
            return std::future::pending().await;
        }
        drop(futures_util::future::select_all(news).await);
    }

    /// Drops the replicas that ended before the chunk did.
    fn judge_replicas(&mut self, config: &SessionConfig) -> Result<(), Error> {
        let dropped = &mut self.dropped;
        self.replicas.retain(|replica| match &*replica.progress.borrow() {
            Progress::Received(_) | Progress::Ended(Ok(_)) => true,
            Progress::Ended(Err(error)) => {
                dropped.push(Dropped {
                    node: replica.node,
                    code: error.code(),
                    message: error.to_string(),
                });
                false
            }
        });
        self.check_copies(1 + self.replicas.len(), config)
    }

    fn check_copies(&self, left: usize, config: &SessionConfig) -> Result<(), Error> {
        if left >= config.min_copies {
            return Ok(());
        }
        let why: Vec<_> =
            self.dropped.iter().map(|d| format!("node {}: {}", d.node, d.message)).collect();
        Err(Error::TooFewCopies { left, wanted: config.min_copies, why: why.join("; ") })
    }

    /// How much the whole set has received.
    fn set_received(&self) -> u64 {
        let received = self.replicas.iter().map(|replica| match &*replica.progress.borrow() {
            Progress::Received(offset) => *offset,
            Progress::Ended(_) => u64::MAX,
        });
        received.fold(self.received, u64::min)
    }

    /// Makes the chunk durable here and on every replica, at the same time.
    async fn seal(&mut self, seal: ChunkSeal, config: &SessionConfig) -> Result<Outcome, Error> {
        let sink = self.sink.take().ok_or(Error::UnknownSession)?;
        let replicas = std::mem::take(&mut self.replicas);
        let ends = futures_util::future::join_all(replicas.into_iter().map(Forwarder::end));
        let (own, ends) = futures_util::future::join(sink.seal(seal), ends).await;
        let mut outcome = Outcome { receipts: vec![own?], dropped: Vec::new() };
        for (node, end) in ends {
            match end {
                Ok(of_replica) => outcome.receipts.extend(of_replica.receipts),
                Err(error) => self.dropped.push(Dropped {
                    node,
                    code: error.code(),
                    message: error.to_string(),
                }),
            }
        }
        self.check_copies(outcome.receipts.len(), config)?;
        outcome.dropped = std::mem::take(&mut self.dropped);
        Ok(outcome)
    }
}

impl Forwarder {
    fn start(replica: Replica, config: &SessionConfig, random: &Arc<dyn Random>) -> Self {
        let (frames, incoming) = mpsc::channel(FORWARD_FRAMES);
        let (tell, progress) = watch::channel(Progress::Received(0));
        let (random, config, node) = (random.clone(), config.sender, replica.node);
        let work = async move {
            let mut source = Forwarding::new(incoming);
            let on_progress = |offset| drop(tell.send(Progress::Received(offset)));
            let link = replica.link.as_ref();
            let sending = send_chunk(
                link,
                replica.session,
                &mut source,
                &config,
                random.as_ref(),
                on_progress,
            );
            let ended = tokio::select! {
                biased;
                ended = sending => ended,
                // The session is gone, and nobody wants the answer.
                () = tell.closed() => Err(Error::UnknownSession),
            };
            drop(tell.send(Progress::Ended(ended)));
        };
        drop(match dfs_transport::current_request_id() {
            Some(id) => tokio::spawn(dfs_transport::with_request_id(id, work)),
            None => tokio::spawn(work),
        });
        Self { node, frames, progress }
    }

    /// Waits for the replica's own end. The sender's bounds bound this too.
    async fn end(mut self) -> (NodeId, Result<Outcome, Error>) {
        let ended = self.progress.wait_for(|p| matches!(p, Progress::Ended(_))).await;
        let ended = match ended.as_deref() {
            Ok(Progress::Ended(ended)) => ended.clone(),
            Ok(Progress::Received(_)) | Err(_) => Err(Error::Refused {
                code: ErrorCode::Internal,
                message: "handing on ended without a result".to_owned(),
            }),
        };
        (self.node, ended)
    }
}
