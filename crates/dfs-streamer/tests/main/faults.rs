//! Hundreds of seeds of drops, delays, duplicates, cuts and corruption: the chunk arrives intact,
//! or the sender gets an error.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_streamer::{
    Ack, Error, FrameSource, Hashing, Link, Outcome, SenderConfig, Session, SessionConfig,
    chunk_source, send_chunk,
};
use dfs_types::{ErrorCode, Frame, NodeId, Random, SessionId};
use tokio::time::Instant;

use crate::toy::{self, BLOCK, Direct, Meddled, Meddler, Node, bytes, pass, random, run};

const SEEDS: u64 = 400;

/// Number of faults by kind.
type Counts = Arc<Mutex<BTreeMap<&'static str, u64>>>;

/// Injects faults determined by a seed.
struct Seeded {
    random: Arc<dyn Random>,
    /// Faults per 1,000 messages, of each kind.
    rate: u64,
    counts: Counts,
}

impl Seeded {
    fn happens(&self, fault: &'static str) -> bool {
        let happens = self.random.below(1_000) < self.rate;
        if happens {
            *self.counts.lock().unwrap().entry(fault).or_default() += 1;
        }
        happens
    }

    async fn delays(&self) {
        if self.happens("short delay") {
            pass(Duration::from_millis(self.random.below(100))).await;
        }
        if self.happens("long delay") && self.random.below(4) == 0 {
            pass(Duration::from_millis(self.random.below(20_000))).await;
        }
    }

    fn corrupt_frame(&self, frame: &mut Frame) {
        match self.random.below(5) {
            0 if !frame.data.is_empty() => {
                let mut data = frame.data.to_vec();
                let at = self.random.below(data.len() as u64) as usize;
                data[at] ^= 1 << self.random.below(8);
                frame.data = data.into();
            }
            1 => {
                let at = self.random.below(frame.crcs.len() as u64) as usize;
                if let Some(crc) = frame.crcs.get_mut(at) {
                    crc.0 ^= 1 << self.random.below(32);
                }
            }
            2 => frame.offset ^= 1 << self.random.below(30),
            3 => drop(frame.crcs.pop()),
            _ => match &mut frame.seal {
                Some(seal) => seal.crc32c.0 ^= 1 << self.random.below(32),
                None => frame.data.truncate(BLOCK / 2),
            },
        }
    }

    fn corrupt_ack(&self, ack: &mut Ack) {
        match ack {
            Ack::Attached { resume: offset } | Ack::Progress { received: offset } => {
                *offset ^= 1 << self.random.below(24);
            }
            Ack::Sealed(outcome) => match self.random.below(3) {
                0 => outcome.receipts[0].length ^= 1,
                1 => outcome.receipts[0].crc32c.0 ^= 1,
                _ => outcome.receipts.clear(),
            },
        }
    }
}

#[async_trait]
impl Meddler for Seeded {
    async fn attaching(&self, _stream: u64) -> Result<(), Error> {
        self.delays().await;
        if self.happens("refused attach") { Err(Error::Cut("refused".to_owned())) } else { Ok(()) }
    }

    async fn frame(&self, _stream: u64, mut frame: Frame) -> Option<Vec<Frame>> {
        self.delays().await;
        if self.happens("cut") {
            return None;
        }
        if self.happens("corrupt frame") {
            self.corrupt_frame(&mut frame);
        }
        Some(match () {
            () if self.happens("drop frame") => Vec::new(),
            () if self.happens("duplicate frame") => vec![frame.clone(), frame],
            () => vec![frame],
        })
    }

    async fn ack(&self, _stream: u64, mut ack: Ack) -> Option<Vec<Ack>> {
        self.delays().await;
        if self.happens("cut before an ack") {
            return None;
        }
        if self.happens("corrupt ack") {
            self.corrupt_ack(&mut ack);
        }
        Some(match () {
            () if self.happens("drop ack") => Vec::new(),
            () if self.happens("duplicate ack") => vec![ack.clone(), ack],
            () => vec![ack],
        })
    }
}

/// A chunk sent to one to four nodes over failing links.
struct Case {
    content: Bytes,
    nodes: Vec<Node>,
    min_replicas: usize,
    result: Result<Outcome, Error>,
    elapsed: Duration,
}

async fn case(seed: u64, counts: &Counts) -> Case {
    let random = random(seed);
    let pick = |choices: &[u64]| choices[random.below(choices.len() as u64) as usize];
    let block = BLOCK as u64;
    let length = match random.below(3) {
        0 => pick(&[0, 1, block - 1, block, block + 1, 1 << 20, (1 << 20) + 1, 3 << 20]),
        _ => random.below(40 * block),
    };
    let content = bytes(length as usize, seed);
    let replicas = 1 + random.below(4) as usize;
    let min_replicas = 1 + random.below(replicas as u64) as usize;
    // Calm links, to cover most of the way, and wild ones.
    let rate = pick(&[0, 3, 10, 30, 100]);
    let faults = || Seeded { random: random.clone(), rate, counts: counts.clone() };
    let config = SessionConfig {
        max_length: length.next_multiple_of(block),
        min_replicas,
        ack_every: pick(&[1, block, 1 << 20, 1 << 30]),
        sender: SenderConfig {
            window: pick(&[1, 1 << 20, 2 << 20]),
            ..SenderConfig::between_nodes()
        },
    };
    let nodes: Vec<_> = (1..=replicas as u128).map(Node::new).collect();
    let mut sessions: Vec<Arc<Session>> = Vec::new();
    let mut replicas = Vec::new();
    for node in &nodes[1..] {
        let session = node.session(SessionConfig { min_replicas: 1, ..config }, Vec::new());
        let link: Arc<dyn Link> = Arc::new(Meddled::new(Direct(session.clone()), faults()));
        replicas.push(node.replica(link));
        sessions.push(session);
    }
    let primary = nodes[0].session(config, replicas);
    sessions.push(primary.clone());
    let link = Meddled::new(Direct(primary), faults());
    let mut source: Box<dyn FrameSource> = if random.below(2) == 0 {
        Box::new(chunk_source(Arc::new(content.clone()), Hashing::Inline))
    } else {
        let frame_length = pick(&[block, 2 * block, 5 * block, 16 * block]) as usize;
        Box::new(toy::source(toy::frames(&content, frame_length)))
    };
    let sender = SenderConfig { window: pick(&[1, 1 << 20, 4 << 20]), ..SenderConfig::default() };
    let started = Instant::now();
    let mut last = 0;
    let on_progress = |now| {
        assert!(now > last && now <= length, "progress goes from {last} to {now} of {length}");
        last = now;
    };
    let result =
        send_chunk(&link, SessionId(1), source.as_mut(), &sender, random.as_ref(), on_progress)
            .await;
    let elapsed = started.elapsed();
    drop((link, source));
    // Nothing stays behind: expired sessions are freed, with their tasks.
    let gone: Vec<_> = sessions.iter().map(Arc::downgrade).collect();
    for session in sessions {
        session.expire().await;
    }
    pass(Duration::from_mins(10)).await;
    assert!(gone.iter().all(|session| session.upgrade().is_none()), "a session is still in use");
    Case { content, nodes, min_replicas, result, elapsed }
}

fn check(case: &Case) {
    // No node has sealed anything else.
    for node in &case.nodes {
        if let Some(sealed) = node.sealed() {
            assert!(sealed == case.content, "other bytes were sealed");
        }
    }
    // Five streams of 15 s without progress, then 60 s for the seal, each time with a pause.
    assert!(case.elapsed < Duration::from_mins(10), "it took {:?}", case.elapsed);
    match &case.result {
        Ok(outcome) => {
            let holders: BTreeSet<NodeId> = outcome.receipts.iter().map(|r| r.node).collect();
            let dropped: BTreeSet<NodeId> = outcome.dropped.iter().map(|d| d.node).collect();
            let all: BTreeSet<NodeId> = case.nodes.iter().map(|node| node.0.id).collect();
            assert_eq!(holders.len(), outcome.receipts.len(), "two receipts of one node");
            assert!(holders.len() >= case.min_replicas);
            assert!(holders.is_disjoint(&dropped));
            assert_eq!(&holders | &dropped, all, "each node gave a receipt or was dropped");
            for node in case.nodes.iter().filter(|node| holders.contains(&node.0.id)) {
                assert!(node.sealed().is_some(), "a receipt without a replica");
                assert_eq!(*node.0.sealings.borrow(), 1);
            }
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            let known = [
                ErrorCode::Unavailable,
                ErrorCode::NotEnoughNodes,
                ErrorCode::ChecksumMismatch,
                ErrorCode::InvalidArgument,
                ErrorCode::Internal,
                ErrorCode::Stale,
            ];
            assert!(known.contains(&error.code()), "{error:?}");
        }
    }
}

#[test]
fn chunk_arrives_intact_or_the_sender_gets_an_error() {
    let counts = Counts::default();
    let (mut whole, mut partial, mut failed) = (0, 0, 0);
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let case = run(case(seed, &counts));
        check(&case);
        match &case.result {
            Ok(outcome) if outcome.dropped.is_empty() => whole += 1,
            Ok(_) => partial += 1,
            Err(_) => failed += 1,
        }
    }
    let counts = counts.lock().unwrap().clone();
    println!("{whole} whole, {partial} with fewer replicas, {failed} failed: {counts:?}");
    // The seeds cover all outcomes.
    assert!(whole > SEEDS / 4 && partial > SEEDS / 40 && failed > SEEDS / 40);
    assert_eq!(counts.len(), 11, "{counts:?}");
}

#[test]
fn links_without_faults_lose_nothing() {
    // About every fifth seed has no faults; those must not fail.
    let counts = Counts::default();
    let mut calm = 0;
    for seed in 1_000..1_080 {
        let before = counts.lock().unwrap().clone();
        let case = run(case(seed, &counts));
        if *counts.lock().unwrap() == before {
            calm += 1;
            let outcome = case.result.as_ref().expect("no failure without faults");
            assert_eq!(outcome.receipts.len(), case.nodes.len(), "seed {seed}");
            assert_eq!(case.elapsed, Duration::ZERO, "seed {seed}: it waited for a timer");
        }
    }
    assert!(calm > 8, "{calm}");
}

#[test]
fn seed_determines_everything() {
    for seed in 0..30 {
        let story = || {
            let case = run(case(seed, &Counts::default()));
            format!("{:?} {:?}", case.result, case.elapsed)
        };
        assert_eq!(story(), story(), "seed {seed}");
    }
}
