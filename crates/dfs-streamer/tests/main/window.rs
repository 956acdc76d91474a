//! Bounds on bytes in flight, and absence of deadlocks for any bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_streamer::{Ack, Error, FrameSource, Link, SenderConfig, SessionConfig, send_chunk};
use dfs_types::{Frame, SessionId};
use futures_util::StreamExt as _;
use tokio::time::Instant;

use crate::toy::{
    BLOCK, Direct, MIB, Meddled, Meddler, Node, bytes, config, frames, pass, random, run, seal,
    send, source,
};

/// Measures the bytes in flight, and replies slowly.
#[derive(Default)]
struct Gauge {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    most: AtomicU64,
}

#[async_trait]
impl Meddler for Gauge {
    async fn frame(&self, _stream: u64, frame: Frame) -> Option<Vec<Frame>> {
        self.sent.store(frame.end(), Ordering::Relaxed);
        let under_way = frame.end() - self.acknowledged.load(Ordering::Relaxed);
        self.most.fetch_max(under_way, Ordering::Relaxed);
        Some(vec![frame])
    }

    async fn ack(&self, _stream: u64, ack: Ack) -> Option<Vec<Ack>> {
        pass(Duration::from_millis(20)).await;
        if let Ack::Progress { received } = ack {
            self.acknowledged.fetch_max(received, Ordering::Relaxed);
        }
        Some(vec![ack])
    }
}

#[test]
fn bytes_in_flight_are_limited_by_the_window() {
    for (window, most) in [(1, MIB), (MIB, MIB), (5 * MIB / 2, 2 * MIB), (4 * MIB, 4 * MIB)] {
        run(async {
            let node = Node::new(1);
            let link = Meddled::new(Direct(node.session(config(1), Vec::new())), Gauge::default());
            let config = SenderConfig { window, ..SenderConfig::default() };
            let content = bytes(16 << 20, 1);
            let (mut source, random) = (source(frames(&content, 1 << 20)), random(1));
            let sent =
                send_chunk(&link, SessionId(1), &mut source, &config, random.as_ref(), |_| {});
            assert_eq!(sent.await.unwrap().receipts.len(), 1);
            // Everything that is allowed, and nothing beyond.
            assert_eq!(link.meddler.most.load(Ordering::Relaxed), most, "window {window}");
        });
    }
}

/// Frames whose bytes are counted while anyone holds them.
struct Counted {
    made: usize,
    frames: usize,
    held: Arc<()>,
    most: usize,
}

struct Owner(Vec<u8>, #[expect(dead_code, reason = "held only to be dropped")] Arc<()>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[async_trait]
impl FrameSource for Counted {
    async fn next(&mut self) -> Result<Option<Frame>, Error> {
        if self.made == self.frames {
            return Ok(None);
        }
        let data = Owner(vec![0; Frame::DATA_MAX], self.held.clone());
        let offset = (self.made * Frame::DATA_MAX) as u64;
        self.made += 1;
        let seal = (self.made == self.frames)
            .then(|| seal(&vec![0; offset as usize + Frame::DATA_MAX].into()));
        self.most = self.most.max(Arc::strong_count(&self.held) - 1);
        Ok(Some(Frame::of(offset, Bytes::from_owner(data), seal)))
    }

    fn rewind(&mut self, _offset: u64) -> Result<(), Error> {
        panic!("nothing broke");
    }

    fn acknowledge(&mut self, _offset: u64) {}
}

#[test]
fn frames_are_released_once_received_everywhere() {
    run(async {
        let nodes = [1, 2, 3].map(Node::new);
        let sender = SenderConfig { window: 3 * MIB, ..SenderConfig::between_nodes() };
        let bounds = SessionConfig { sender, ..config(1) };
        let replicas = nodes[1..].iter().map(|node| {
            let link = Direct(node.session(bounds, Vec::new()));
            node.replica(Arc::new(Meddled::new(link, Gauge::default())))
        });
        let session =
            nodes[0].session(SessionConfig { min_replicas: 3, ..bounds }, replicas.collect());
        let mut source = Counted { made: 0, frames: 30, held: Arc::default(), most: 0 };
        let sender = SenderConfig { window: 3 * MIB, ..SenderConfig::default() };
        let (link, random) = (Direct(session), random(1));
        let sent = send_chunk(&link, SessionId(1), &mut source, &sender, random.as_ref(), |_| {});
        assert_eq!(sent.await.unwrap().receipts.len(), 3);
        // The window, once for three nodes, including the frame just created.
        assert_eq!(source.most, 3);
    });
}

/// Lets nothing through.
struct Stuck;

#[async_trait]
impl Meddler for Stuck {
    async fn frame(&self, _stream: u64, _frame: Frame) -> Option<Vec<Frame>> {
        std::future::pending().await
    }
}

#[test]
fn session_accepts_at_most_its_window_ahead_of_the_slowest_replica() {
    for frame_length in [BLOCK, 4 * BLOCK, 16 * BLOCK] {
        run(async {
            let (primary, replica) = (Node::new(1), Node::new(2));
            let link = Direct(replica.session(config(1), Vec::new()));
            let link: Arc<dyn Link> = Arc::new(Meddled::new(link, Stuck));
            let sender = SenderConfig { window: 3 * MIB, ..SenderConfig::between_nodes() };
            let bounds = SessionConfig { sender, ..config(1) };
            let session = primary.session(bounds, vec![replica.replica(link)]);
            // A sender that ignores the window, and one stream after another.
            let all = frames(&bytes(16 << 20, 1), frame_length);
            let taken = Arc::new(AtomicUsize::new(0));
            for number in 1..4 {
                let from = taken.load(Ordering::Relaxed);
                let (count, rest) = (taken.clone(), all[from..].to_vec());
                let greedy = futures_util::stream::iter(rest).map(move |frame| {
                    count.fetch_add(1, Ordering::Relaxed);
                    Ok(frame)
                });
                let _acks = session.attach(number, greedy);
                pass(Duration::from_secs(1)).await;
            }
            let held = taken.load(Ordering::Relaxed) * frame_length;
            assert!(held as u64 <= 3 * MIB && held as u64 > 2 * MIB, "{held}");
            // Once the replica is dropped the rest is accepted.
            let from = taken.load(Ordering::Relaxed);
            let rest = futures_util::stream::iter(all[from..].to_vec()).map(Ok);
            let mut acks = session.attach(4, rest.chain(futures_util::stream::pending()));
            let mut last = None;
            while let Some(ack) = acks.recv().await {
                last = Some(ack);
            }
            let Some(Ok(Ack::Sealed(outcome))) = last else { panic!("{last:?}") };
            assert_eq!((outcome.receipts.len(), outcome.dropped.len()), (1, 1));
        });
    }
}

#[test]
fn any_window_size_works_with_the_acks() {
    for (window, ack_every) in [(1, u64::MAX), (MIB, 64 * MIB), (4 * MIB, 4 * MIB), (4 * MIB, 0)] {
        run(async {
            let (primary, replica) = (Node::new(1), Node::new(2));
            let sender = SenderConfig { window, ..SenderConfig::between_nodes() };
            let bounds = SessionConfig { ack_every, sender, ..config(2) };
            let of_replica = SessionConfig { min_replicas: 1, ..bounds };
            let link = Arc::new(Direct(replica.session(of_replica, Vec::new())));
            let session = primary.session(bounds, vec![replica.replica(link)]);
            let content = bytes(9 << 20, 1);
            let started = Instant::now();
            let outcome = send(&Direct(session), &mut source(frames(&content, BLOCK))).await;
            assert_eq!(outcome.unwrap().receipts.len(), 2);
            assert_eq!(started.elapsed(), Duration::ZERO, "it waited for a timer");
        });
    }
}

#[test]
fn acks_are_few_while_frames_keep_coming() {
    run(async {
        let node = Node::new(1);
        let session = node.session(SessionConfig { ack_every: 4 * MIB, ..config(1) }, Vec::new());
        let all = futures_util::stream::iter(frames(&bytes(32 << 20, 1), BLOCK)).map(Ok);
        let mut acks = session.attach(1, all.chain(futures_util::stream::pending()));
        let mut acked = Vec::new();
        while let Some(ack) = acks.recv().await {
            if let Ok(Ack::Progress { received }) = ack {
                acked.push(received);
            }
        }
        let expected: Vec<_> = (1..8).map(|n| n * 4 * MIB).collect();
        assert_eq!(acked, expected);
    });
}
