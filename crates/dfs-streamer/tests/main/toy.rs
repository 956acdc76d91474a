//! A toy model of a chunk on some nodes, and links with injected faults.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_streamer::{
    Ack, Attachment, Downstream, Error, FrameSource, Link, Outcome, Reopening, SenderConfig,
    Session, SessionConfig, Sink, send_chunk,
};
use dfs_types::{
    ChunkId, ChunkSeal, Crc32c, DiskId, Frame, NodeId, Random, Receipt, RegistrationNumber, Seal,
    SeededRandom, SessionId, Sha256, Stamp,
};
use futures_util::StreamExt as _;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const BLOCK: usize = dfs_types::BLOCK_SIZE;

/// A node with one chunk.
#[derive(Clone)]
pub(crate) struct Node(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) id: NodeId,
    pub(crate) bytes: Mutex<Vec<u8>>,
    pub(crate) seal: Mutex<Option<ChunkSeal>>,
    /// Number of appends started.
    pub(crate) begun: watch::Sender<usize>,
    /// Appends wait while this is false.
    pub(crate) may_append: watch::Sender<bool>,
    /// Seals wait while this is false.
    pub(crate) may_seal: watch::Sender<bool>,
    pub(crate) sealings: watch::Sender<usize>,
    /// The append that fails, counted from 1.
    pub(crate) failing_append: AtomicUsize,
    /// Protocol violations of a session towards its sink; a panic would be lost with its task.
    pub(crate) wrongs: Mutex<Vec<&'static str>>,
}

impl Inner {
    fn must(&self, holds: bool, wrong: &'static str) {
        if !holds {
            self.wrongs.lock().unwrap().push(wrong);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.wrongs.get_mut().unwrap().as_slice(), [""; 0]);
        }
    }
}

impl Node {
    pub(crate) fn new(id: u128) -> Self {
        Self(Arc::new(Inner {
            id: NodeId(id),
            bytes: Mutex::default(),
            seal: Mutex::default(),
            begun: watch::Sender::new(0),
            may_append: watch::Sender::new(true),
            may_seal: watch::Sender::new(true),
            sealings: watch::Sender::new(0),
            failing_append: AtomicUsize::new(0),
            wrongs: Mutex::default(),
        }))
    }

    /// Returns the chunk, if it is durable.
    pub(crate) fn sealed(&self) -> Option<Vec<u8>> {
        self.0.seal.lock().unwrap().map(|_| self.0.bytes.lock().unwrap().clone())
    }

    pub(crate) fn written(&self) -> usize {
        self.0.bytes.lock().unwrap().len()
    }

    /// Opens a session.
    pub(crate) fn session(&self, config: SessionConfig, replicas: Vec<Downstream>) -> Arc<Session> {
        Session::new(config, Box::new(ToySink(self.clone())), replicas, &random(7))
    }

    /// Returns the node as a replica of another one, reached by this link.
    pub(crate) fn replica(&self, link: Arc<dyn Link>) -> Downstream {
        Downstream { node: self.0.id, session: SessionId(self.0.id.0), link }
    }

    pub(crate) async fn appends_begun(&self, number: usize) {
        self.0.begun.subscribe().wait_for(|begun| *begun >= number).await.unwrap();
    }

    pub(crate) async fn sealing_begun(&self) {
        self.0.sealings.subscribe().wait_for(|begun| *begun > 0).await.unwrap();
    }
}

struct ToySink(Node);

#[async_trait]
impl Sink for ToySink {
    async fn append(&mut self, frame: Frame) -> Result<(), Error> {
        let node = &self.0.0;
        node.begun.send_modify(|begun| *begun += 1);
        node.may_append.subscribe().wait_for(|may| *may).await.unwrap();
        if *node.begun.borrow() == node.failing_append.load(Ordering::Relaxed) {
            return Err(Error::Source("disk on fire".to_owned()));
        }
        let mut bytes = node.bytes.lock().unwrap();
        node.must(bytes.len() as u64 == frame.offset, "a frame was skipped or repeated");
        bytes.extend_from_slice(&frame.data);
        Ok(())
    }

    async fn seal(self: Box<Self>, seal: ChunkSeal) -> Result<Receipt, Error> {
        let node = &self.0.0;
        node.sealings.send_modify(|sealings| *sealings += 1);
        node.may_seal.subscribe().wait_for(|may| *may).await.unwrap();
        let bytes = node.bytes.lock().unwrap();
        node.must(seal.length == bytes.len() as u64, "the seal has another length");
        node.must(seal.crc32c == Crc32c::of(&bytes), "the seal is of other bytes");
        *node.seal.lock().unwrap() = Some(seal);
        Ok(receipt(node.id, &seal))
    }
}

pub(crate) fn receipt(node: NodeId, seal: &ChunkSeal) -> Receipt {
    Receipt {
        part: dfs_types::Part::WHOLE,
        chunk: ChunkId(1),
        length: seal.length,
        crc32c: seal.crc32c,
        node,
        disk: DiskId(1),
        stamp: Stamp(1),
        registration: RegistrationNumber(1),
        seal: Seal([0; 32]),
    }
}

pub(crate) fn config(min_replicas: usize) -> SessionConfig {
    SessionConfig {
        max_length: 64 * MIB,
        min_replicas,
        ack_every: MIB / 2,
        sender: SenderConfig::between_nodes(),
    }
}

pub(crate) fn random(seed: u64) -> Arc<dyn Random> {
    Arc::new(SeededRandom::new(seed))
}

pub(crate) fn bytes(length: usize, seed: u64) -> Bytes {
    let mut bytes = vec![0; length];
    random(seed).fill(&mut bytes);
    bytes.into()
}

/// Returns the frames of a chunk.
pub(crate) fn frames(bytes: &Bytes, frame_length: usize) -> Vec<Frame> {
    let starts = (0..bytes.len()).step_by(frame_length);
    let mut frames: Vec<_> = starts
        .map(|start| {
            let data = bytes.slice(start..bytes.len().min(start + frame_length));
            Frame::of(start as u64, data, None)
        })
        .collect();
    if frames.is_empty() {
        frames.push(Frame::of(0, Bytes::new(), None));
    }
    frames.last_mut().unwrap().seal = Some(seal(bytes));
    frames
}

pub(crate) fn seal(bytes: &Bytes) -> ChunkSeal {
    ChunkSeal { length: bytes.len() as u64, crc32c: Crc32c::of(bytes), sha256: Sha256::of(bytes) }
}

/// Returns a source of prepared frames.
pub(crate) fn source(frames: Vec<Frame>) -> impl FrameSource {
    Reopening::new(move |offset| {
        let (give, source) = mpsc::channel(frames.len().max(1));
        for frame in frames.iter().filter(|frame| frame.offset >= offset) {
            give.try_send(Ok(frame.clone())).unwrap();
        }
        source
    })
}

/// Sends like a client.
pub(crate) async fn send(link: &dyn Link, source: &mut dyn FrameSource) -> Result<Outcome, Error> {
    let random = random(3);
    send_chunk(link, SessionId(1), source, &SenderConfig::default(), random.as_ref(), |_| {}).await
}

/// A link to a session in the same process.
pub(crate) struct Direct(pub(crate) Arc<Session>);

#[async_trait]
impl Link for Direct {
    async fn attach(&self, _session: SessionId, number: u64) -> Result<Attachment, Error> {
        let (frames, incoming) = mpsc::channel(1);
        let acks = self.0.attach(number, ReceiverStream::new(incoming).map(Ok));
        Ok(Attachment { frames, acks: Box::pin(ReceiverStream::new(acks)) })
    }
}

/// Decides what happens to messages on a link: those returned continue; `None` cuts it.
#[async_trait]
pub(crate) trait Meddler: Send + Sync + 'static {
    async fn attaching(&self, _stream: u64) -> Result<(), Error> {
        Ok(())
    }

    async fn frame(&self, _stream: u64, frame: Frame) -> Option<Vec<Frame>> {
        Some(vec![frame])
    }

    async fn ack(&self, _stream: u64, ack: Ack) -> Option<Vec<Ack>> {
        Some(vec![ack])
    }

    /// Completes when the link breaks by itself.
    async fn breaks(&self, _stream: u64) {
        std::future::pending::<()>().await;
    }
}

/// A link with a meddler.
pub(crate) struct Meddled<M> {
    inner: Arc<dyn Link>,
    pub(crate) meddler: Arc<M>,
}

impl<M: Meddler> Meddled<M> {
    pub(crate) fn new(inner: impl Link + 'static, meddler: M) -> Self {
        Self { inner: Arc::new(inner), meddler: Arc::new(meddler) }
    }
}

#[async_trait]
impl<M: Meddler> Link for Meddled<M> {
    async fn attach(&self, session: SessionId, number: u64) -> Result<Attachment, Error> {
        self.meddler.attaching(number).await?;
        let Attachment { frames: on, mut acks } = self.inner.attach(session, number).await?;
        let (frames, mut incoming) = mpsc::channel::<Frame>(1);
        let (sender, passed) = mpsc::channel(1);
        let cut = watch::Sender::new(false);
        let (meddler, cut_up) = (self.meddler.clone(), cut.clone());
        let up = async move {
            while let Some(frame) = incoming.recv().await {
                let Some(frames) = meddler.frame(number, frame).await else {
                    cut_up.send_replace(true);
                    return;
                };
                for frame in frames {
                    if on.send(frame).await.is_err() {
                        return;
                    }
                }
            }
        };
        let meddler = self.meddler.clone();
        let cut_down = cut.clone();
        let down = async move {
            while let Some(ack) = acks.next().await {
                let acks = match ack {
                    Ok(ack) => meddler
                        .ack(number, ack)
                        .await
                        .map(|acks| acks.into_iter().map(Ok).collect::<Vec<_>>()),
                    Err(error) => Some(vec![Err(error)]),
                };
                let Some(acks) = acks else {
                    cut_down.send_replace(true);
                    return;
                };
                for ack in acks {
                    if sender.send(ack).await.is_err() {
                        return;
                    }
                }
            }
        };
        for work in
            [Box::pin(up) as std::pin::Pin<Box<dyn Future<Output = ()> + Send>>, Box::pin(down)]
        {
            let mut is_cut = cut.subscribe();
            let meddler = self.meddler.clone();
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    _ = is_cut.wait_for(|cut| *cut) => {}
                    () = meddler.breaks(number) => {}
                    () = work => {}
                }
            });
        }
        // A cut ends the acks without an error, as both ends of a link are gone.
        Ok(Attachment { frames, acks: Box::pin(ReceiverStream::new(passed)) })
    }
}

/// Runs a future on a clock that advances only when all tasks are idle. Waiting forever is
/// reported.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let day = Duration::from_hours(24);
    runtime.block_on(async { tokio::time::timeout(day, work).await.expect("it waits forever") })
}

/// Lets everything happen within this time.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}
