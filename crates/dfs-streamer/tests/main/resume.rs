//! Broken streams, and sessions that are taken over, queried again, or expired.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_streamer::{Ack, ChunkBytes, Error, Hashing, Link, SenderConfig, chunk_source, send_chunk};
use dfs_types::{ErrorCode, Frame, SessionId};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::toy::{
    BLOCK, Direct, Meddled, Meddler, Node, bytes, config, frames, pass, random, run, send, source,
};

/// Cuts the first stream before its `cut_at`-th frame, and records what passes.
#[derive(Default)]
struct CutOnce {
    cut_at: usize,
    /// True if the first stream returns no progress.
    loses_progress: bool,
    seen: AtomicUsize,
    passed: Mutex<Vec<(u64, u64, u64)>>,
    resumed: Mutex<Vec<u64>>,
}

impl CutOnce {
    fn at(cut_at: usize) -> Self {
        Self { cut_at, ..Self::default() }
    }
}

#[async_trait]
impl Meddler for CutOnce {
    async fn frame(&self, stream: u64, frame: Frame) -> Option<Vec<Frame>> {
        if stream == 1 && self.seen.fetch_add(1, Ordering::Relaxed) + 1 == self.cut_at {
            // What passed is in flight and arrives.
            pass(Duration::from_millis(1)).await;
            return None;
        }
        self.passed.lock().unwrap().push((stream, frame.offset, frame.end()));
        Some(vec![frame])
    }

    async fn ack(&self, stream: u64, ack: Ack) -> Option<Vec<Ack>> {
        match ack {
            Ack::Attached { resume } => self.resumed.lock().unwrap().push(resume),
            Ack::Progress { .. } if stream == 1 && self.loses_progress => return Some(Vec::new()),
            _ => {}
        }
        Some(vec![ack])
    }
}

/// Asserts that the second stream starts where the first one ended, and sends nothing twice.
fn assert_resumed(meddler: &CutOnce, total: u64) {
    let passed = meddler.passed.lock().unwrap();
    let resumed = meddler.resumed.lock().unwrap();
    assert_eq!(resumed.len(), 2);
    assert!(resumed[0] == 0 && resumed[1] > 0, "{resumed:?}");
    let second: Vec<_> = passed.iter().filter(|(stream, ..)| *stream == 2).collect();
    assert_eq!(second[0].1, resumed[1]);
    let sent: u64 = passed.iter().map(|(_, start, end)| end - start).sum();
    assert_eq!(sent, total, "bytes were sent twice: {passed:?}");
}

#[test]
fn broken_stream_resumes_at_the_offset_of_the_receiver() {
    for hashing in [false, true] {
        run(async {
            let node = Node::new(1);
            let link = Meddled::new(Direct(node.session(config(1), Vec::new())), CutOnce::at(3));
            let content = bytes((5 << 20) + 77, 1);
            let outcome = if hashing {
                send(&link, &mut chunk_source(Arc::new(content.clone()), Hashing::Inline)).await
            } else {
                send(&link, &mut source(frames(&content, 1 << 20))).await
            };
            assert_eq!(outcome.unwrap().receipts.len(), 1);
            assert_eq!(node.sealed().unwrap(), content);
            assert_resumed(&link.meddler, content.len() as u64);
        });
    }
}

#[test]
fn forwarding_resumes_at_the_offset_of_the_replica() {
    for loses_progress in [false, true] {
        run(async {
            let (primary, replica) = (Node::new(1), Node::new(2));
            let link = Direct(replica.session(config(1), Vec::new()));
            let cut = CutOnce { loses_progress, ..CutOnce::at(4) };
            let link = Arc::new(Meddled::new(link, cut));
            let session = primary.session(config(2), vec![replica.replica(link.clone())]);
            let content = bytes((5 << 20) + 77, 1);
            let sent = send(&Direct(session), &mut source(frames(&content, 1 << 20))).await;
            assert_eq!(sent.unwrap().receipts.len(), 2);
            assert_eq!(replica.sealed().unwrap(), content);
            assert_resumed(&link.meddler, content.len() as u64);
        });
    }
}

/// Cuts every stream at its first frame.
#[derive(Default)]
struct Cutting(AtomicU64);

#[async_trait]
impl Meddler for Cutting {
    async fn attaching(&self, stream: u64) -> Result<(), Error> {
        self.0.store(stream, Ordering::Relaxed);
        Ok(())
    }

    async fn frame(&self, _stream: u64, _frame: Frame) -> Option<Vec<Frame>> {
        None
    }
}

#[test]
fn resumes_are_limited() {
    run(async {
        let node = Node::new(1);
        let link = Meddled::new(Direct(node.session(config(1), Vec::new())), Cutting::default());
        let error = send(&link, &mut source(frames(&bytes(BLOCK, 1), BLOCK))).await.unwrap_err();
        assert!(matches!(error, Error::Cut(_)), "{error:?}");
        assert_eq!(error.code(), ErrorCode::Unavailable);
        let streams = link.meddler.0.load(Ordering::Relaxed);
        assert_eq!(streams, 1 + u64::from(SenderConfig::default().resumes_max));
    });
}

/// Loses the first final reply and its stream.
#[derive(Default)]
struct LosesAnswer {
    frames: AtomicUsize,
    lost: AtomicUsize,
}

#[async_trait]
impl Meddler for LosesAnswer {
    async fn frame(&self, _stream: u64, frame: Frame) -> Option<Vec<Frame>> {
        self.frames.fetch_add(1, Ordering::Relaxed);
        Some(vec![frame])
    }

    async fn ack(&self, _stream: u64, ack: Ack) -> Option<Vec<Ack>> {
        let loses = matches!(ack, Ack::Sealed(_)) && self.lost.fetch_add(1, Ordering::Relaxed) == 0;
        if loses { None } else { Some(vec![ack]) }
    }
}

#[test]
fn final_reply_can_be_requested_again() {
    run(async {
        let node = Node::new(1);
        let session = node.session(config(1), Vec::new());
        let link = Meddled::new(Direct(session.clone()), LosesAnswer::default());
        let content = bytes(3 * BLOCK, 1);
        let outcome = send(&link, &mut source(frames(&content, BLOCK))).await.unwrap();
        assert_eq!(link.meddler.lost.load(Ordering::Relaxed), 2);
        assert_eq!(link.meddler.frames.load(Ordering::Relaxed), 3, "no frame went twice");
        assert_eq!(*node.0.sealings.borrow(), 1);
        // Any number of times; accompanying frames are ignored.
        for number in 7..9 {
            let again = futures_util::stream::iter(frames(&content, BLOCK)).map(Ok);
            let mut acks = session.attach(number, again);
            assert_eq!(acks.recv().await, Some(Ok(Ack::Sealed(outcome.clone()))));
            assert_eq!(acks.recv().await, None);
        }
        assert_eq!(*node.0.sealings.borrow(), 1);
        // Until it expires.
        session.expire().await;
        let mut acks = session.attach(10, futures_util::stream::pending());
        assert_eq!(acks.recv().await, Some(Err(Error::UnknownSession)));
        assert_eq!(node.sealed().unwrap(), content, "the durable chunk stays");
    });
}

#[test]
fn long_seal_survives_the_stream_that_requested_it() {
    run(async {
        let node = Node::new(1);
        node.0.may_seal.send_replace(false);
        let link = Meddled::new(Direct(node.session(config(1), Vec::new())), CutLater);
        let sending =
            tokio::spawn(
                async move { send(&link, &mut source(frames(&bytes(BLOCK, 1), BLOCK))).await },
            );
        // Longer than a stall, shorter than the limit of a seal.
        pass(Duration::from_secs(40)).await;
        assert!(!sending.is_finished());
        node.0.may_seal.send_replace(true);
        assert_eq!(sending.await.unwrap().unwrap().receipts.len(), 1);
        assert_eq!(*node.0.sealings.borrow(), 1);
    });
}

/// Cuts the first stream some time after its start.
struct CutLater;

#[async_trait]
impl Meddler for CutLater {
    async fn breaks(&self, stream: u64) {
        if stream > 1 {
            std::future::pending::<()>().await;
        }
        pass(Duration::from_secs(10)).await;
    }
}

/// Returns a stream whose frames are sent by hand.
fn by_hand(
    session: &Arc<dfs_streamer::Session>,
    number: u64,
) -> (mpsc::Sender<Frame>, mpsc::Receiver<Result<Ack, Error>>) {
    let (give, frames) = mpsc::channel(64);
    (give, session.attach(number, ReceiverStream::new(frames).map(Ok)))
}

#[test]
fn later_stream_waits_for_the_end_of_the_earlier_one() {
    run(async {
        let node = Node::new(1);
        let session = node.session(config(1), Vec::new());
        let content = bytes(4 * BLOCK, 1);
        let frames = frames(&content, BLOCK);
        let (first, mut first_acks) = by_hand(&session, 1);
        assert_eq!(first_acks.recv().await, Some(Ok(Ack::Attached { resume: 0 })));
        // The first is in the middle of a write, with another frame queued.
        node.0.may_append.send_replace(false);
        for frame in &frames[..2] {
            first.send(frame.clone()).await.unwrap();
        }
        node.appends_begun(1).await;
        let (second, mut second_acks) = by_hand(&session, 5);
        pass(Duration::from_secs(1)).await;
        assert!(second_acks.try_recv().is_err(), "the first has not ended");
        // A number that is not greater takes nothing over.
        for number in [0, 1, 4, 5] {
            let (_, mut acks) = by_hand(&session, number);
            assert_eq!(acks.recv().await, Some(Err(Error::Superseded)));
        }
        node.0.may_append.send_replace(true);
        assert_eq!(second_acks.recv().await, Some(Ok(Ack::Attached { resume: BLOCK as u64 })));
        assert_eq!(first_acks.recv().await, Some(Err(Error::Superseded)));
        assert_eq!(first_acks.recv().await, None);
        for frame in &frames[1..] {
            second.send(frame.clone()).await.unwrap();
        }
        let last = loop {
            match second_acks.recv().await.unwrap().unwrap() {
                Ack::Progress { .. } => {}
                ack => break ack,
            }
        };
        assert!(matches!(last, Ack::Sealed(_)));
        assert_eq!(node.sealed().unwrap(), content);
    });
}

#[test]
fn stream_that_reads_no_acks_can_be_taken_over() {
    run(async {
        let node = Node::new(1);
        let bounds = dfs_streamer::SessionConfig { ack_every: 1, ..config(1) };
        let session = node.session(bounds, Vec::new());
        let content = bytes(64 * BLOCK, 1);
        let all = frames(&content, BLOCK);
        let deaf = futures_util::stream::iter(all[..50].to_vec()).map(Ok);
        let deaf = session.attach(1, deaf.chain(futures_util::stream::pending()));
        node.appends_begun(50).await;
        pass(Duration::from_secs(1)).await;
        let (give, mut acks) = by_hand(&session, 2);
        assert_eq!(acks.recv().await, Some(Ok(Ack::Attached { resume: 50 * BLOCK as u64 })));
        // The progress of the set is sent again, as earlier acks may be lost.
        assert_eq!(acks.recv().await, Some(Ok(Ack::Progress { received: 50 * BLOCK as u64 })));
        for frame in &all[50..] {
            give.send(frame.clone()).await.unwrap();
        }
        let acks = ReceiverStream::new(acks);
        assert!(acks.any(async |ack| matches!(ack, Ok(Ack::Sealed(_)))).await);
        drop(deaf);
    });
}

#[test]
fn expiring_waits_for_a_seal_and_keeps_its_result() {
    run(async {
        let node = Node::new(1);
        node.0.may_seal.send_replace(false);
        let session = node.session(config(1), Vec::new());
        let (give, mut acks) = by_hand(&session, 1);
        for frame in frames(&bytes(BLOCK, 1), BLOCK) {
            give.send(frame).await.unwrap();
        }
        node.sealing_begun().await;
        pass(Duration::from_mins(10)).await;
        assert_eq!(session.idle_for(), Duration::ZERO, "sealing is not idleness");
        let expiring = tokio::spawn({
            let session = session.clone();
            async move { session.expire().await }
        });
        pass(Duration::from_secs(1)).await;
        assert!(!expiring.is_finished());
        node.0.may_seal.send_replace(true);
        expiring.await.unwrap();
        assert_eq!(acks.recv().await, Some(Ok(Ack::Attached { resume: 0 })));
        assert!(matches!(acks.recv().await, Some(Ok(Ack::Sealed(_)))));
        assert_eq!(acks.recv().await, None);
        assert!(node.sealed().is_some());
    });
}

/// Lets the first frame through and no other.
#[derive(Default)]
struct StuckAfterOne(AtomicUsize);

#[async_trait]
impl Meddler for StuckAfterOne {
    async fn frame(&self, _stream: u64, frame: Frame) -> Option<Vec<Frame>> {
        if self.0.fetch_add(1, Ordering::Relaxed) > 0 {
            std::future::pending::<()>().await;
        }
        Some(vec![frame])
    }
}

#[test]
fn expiring_ends_streams_and_replicas() {
    // One replica that waits for frames, and one that does not accept them.
    for frames_given in [1, 9] {
        run(async {
            let (primary, replica) = (Node::new(1), Node::new(2));
            let of_replica = replica.session(config(1), Vec::new());
            let link = Meddled::new(Direct(of_replica.clone()), StuckAfterOne::default());
            let link: Arc<dyn Link> = Arc::new(link);
            let session = primary.session(config(2), vec![replica.replica(link.clone())]);
            let (give, mut acks) = by_hand(&session, 1);
            for frame in &frames(&bytes(10 * BLOCK, 1), BLOCK)[..frames_given] {
                give.send(frame.clone()).await.unwrap();
            }
            replica.appends_begun(1).await;
            primary.appends_begun(frames_given).await;
            pass(Duration::from_secs(4)).await;
            assert_eq!(session.idle_for(), Duration::from_secs(4));
            session.expire().await;
            while let Some(ack) = acks.recv().await {
                if let Err(error) = ack {
                    assert_eq!(error, Error::UnknownSession);
                    assert_eq!(error.code(), ErrorCode::Stale);
                }
            }
            pass(Duration::from_millis(1)).await;
            // The forwarding task has released the link.
            assert_eq!(Arc::strong_count(&link), 1);
            assert_eq!((primary.sealed(), replica.sealed()), (None, None));
        });
    }
}

/// Bytes that change once the first MiB has been read.
struct Changing {
    before: Bytes,
    after: Bytes,
    reads: AtomicUsize,
}

impl ChunkBytes for Changing {
    fn length(&self) -> u64 {
        self.before.length()
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let is_again = offset == 0 && self.reads.fetch_add(1, Ordering::Relaxed) > 0;
        let read = if is_again { &self.after } else { &self.before };
        read.read(offset, length)
    }
}

#[test]
fn source_that_changed_between_reads_is_not_sealed() {
    run(async {
        let before = bytes(4 << 20, 1);
        let mut after = before.to_vec();
        after[5] ^= 1;
        let source = Changing { before, after: after.into(), reads: AtomicUsize::new(0) };
        let node = Node::new(1);
        let link = Meddled::new(Direct(node.session(config(1), Vec::new())), CutOnce::at(3));
        let error = send(&link, &mut chunk_source(Arc::new(source), Hashing::Inline)).await;
        let error = error.unwrap_err();
        assert_eq!(error.code(), ErrorCode::ChecksumMismatch, "{error:?}");
        assert_eq!(node.sealed(), None);
    });
}

/// Bytes that can no longer be read to the end.
struct Shrunk(Bytes);

impl ChunkBytes for Shrunk {
    fn length(&self) -> u64 {
        self.0.length() + 1
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        self.0.read(offset, length.min(self.0.len() - offset as usize))
    }
}

#[test]
fn source_shorter_than_announced_is_an_error() {
    run(async {
        for content in [bytes(0, 1), bytes(2 << 20, 1)] {
            let node = Node::new(1);
            let link = Direct(node.session(config(1), Vec::new()));
            let mut source = chunk_source(Arc::new(Shrunk(content)), Hashing::Inline);
            let error = send(&link, &mut source).await.unwrap_err();
            assert!(matches!(error, Error::Source(_)), "{error:?}");
            assert_eq!(node.sealed(), None);
        }
    });
}

#[test]
fn hashing_on_threads_gives_the_same_chunk() {
    // Real threads do not work with a paused clock.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let node = Node::new(1);
        let link = Meddled::new(Direct(node.session(config(1), Vec::new())), CutOnce::at(2));
        let content = bytes((3 << 20) + 5, 1);
        let mut source = chunk_source(Arc::new(content.clone()), Hashing::Threads);
        let random = random(1);
        let config = SenderConfig::default();
        let sent = send_chunk(&link, SessionId(1), &mut source, &config, random.as_ref(), |_| {});
        let sent = tokio::time::timeout(Duration::from_mins(1), sent).await.expect("no hang");
        assert_eq!(sent.unwrap().receipts.len(), 1);
        assert_eq!(node.sealed().unwrap(), content);
        assert_eq!(node.0.seal.lock().unwrap().unwrap(), crate::toy::seal(&content));
    });
}
