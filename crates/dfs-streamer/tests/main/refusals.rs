//! Malformed frames and acks, and their errors.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_streamer::{Ack, Attachment, Error, Link, Outcome, SessionConfig};
use dfs_types::{Crc32c, ErrorCode, Frame, FrameError, NodeId, SessionId};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use crate::toy::{BLOCK, Direct, Node, bytes, config, frames, receipt, run, seal, send, source};

/// Returns the error of a session of at most three blocks for these frames, after checking that it
/// then accepts valid ones.
async fn refusal(given: Vec<Frame>) -> Error {
    let content = bytes(3 * BLOCK, 1);
    let node = Node::new(1);
    let bounds = SessionConfig { max_length: 3 * BLOCK as u64, ..config(1) };
    let session = node.session(bounds, Vec::new());
    let given = futures_util::stream::iter(given).map(Ok).chain(futures_util::stream::pending());
    let mut acks = session.attach(1, given);
    let error = loop {
        match acks.recv().await.expect("an error") {
            Ok(Ack::Sealed(_)) => panic!("it was sealed"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(acks.recv().await, None);
    assert_eq!(node.sealed(), None);
    let rest = futures_util::stream::iter(frames(&content, BLOCK)).map(Ok);
    let mut acks = session.attach(2, rest.chain(futures_util::stream::pending()));
    let mut last = None;
    while let Some(ack) = acks.recv().await {
        last = Some(ack);
    }
    assert!(matches!(last, Some(Ok(Ack::Sealed(_)))), "{last:?}");
    assert_eq!(node.sealed().unwrap(), content);
    error
}

#[test]
fn invalid_frames_are_refused_without_side_effects() {
    let content = bytes(3 * BLOCK, 1);
    let good = frames(&content, BLOCK);
    let block = BLOCK as u64;
    let flipped = {
        let mut data = good[1].data.to_vec();
        data[9] ^= 4;
        Frame { data: data.into(), ..good[1].clone() }
    };
    let long = Frame::of(0, Bytes::from(vec![0; Frame::DATA_MAX + BLOCK]), None);
    let mut other_seal = good.clone();
    other_seal[2].seal.as_mut().unwrap().crc32c = Crc32c(1);
    let mut other_length = good.clone();
    other_length[2].seal.as_mut().unwrap().length -= 1;
    let four = frames(&bytes(4 * BLOCK, 1), 2 * BLOCK);
    let table = [
        (
            "a missing frame",
            vec![good[0].clone(), good[2].clone()],
            Error::OutOfOrder { expected: block, found: 2 * block },
            ErrorCode::InvalidArgument,
        ),
        (
            "an overlap with received bytes",
            vec![good[0].clone(), Frame::of(0, content.slice(..2 * BLOCK), None)],
            Error::OutOfOrder { expected: block, found: 0 },
            ErrorCode::InvalidArgument,
        ),
        (
            "a last frame that ends too early",
            vec![
                good[0].clone(),
                good[1].clone(),
                frames(&content.slice(..BLOCK), BLOCK)[0].clone(),
            ],
            Error::OutOfOrder { expected: 2 * block, found: 0 },
            ErrorCode::InvalidArgument,
        ),
        (
            "past the end",
            four,
            Error::PastEnd { max: 3 * block, end: 4 * block },
            ErrorCode::InvalidArgument,
        ),
        (
            "too large",
            vec![long],
            Error::Frame(FrameError::TooLong(Frame::DATA_MAX + BLOCK)),
            ErrorCode::InvalidArgument,
        ),
        (
            "unaligned",
            vec![Frame { offset: 5, ..good[0].clone() }],
            Error::Frame(FrameError::Unaligned(5)),
            ErrorCode::InvalidArgument,
        ),
        (
            "half a block that is not the last",
            vec![Frame::of(0, content.slice(..BLOCK / 2), None)],
            Error::Frame(FrameError::PartialBlock(BLOCK / 2)),
            ErrorCode::InvalidArgument,
        ),
        (
            "a missing checksum",
            vec![Frame { crcs: Vec::new(), ..good[0].clone() }],
            Error::Frame(FrameError::ChecksumCount { blocks: 1, crcs: 0 }),
            ErrorCode::InvalidArgument,
        ),
        (
            "a flipped bit",
            vec![good[0].clone(), flipped],
            Error::Frame(FrameError::ChecksumMismatch(1)),
            ErrorCode::ChecksumMismatch,
        ),
        (
            "another checksum of the whole",
            other_seal,
            Error::WholeMismatch,
            ErrorCode::ChecksumMismatch,
        ),
        (
            "another length of the whole",
            other_length,
            Error::Frame(FrameError::PastEnd { offset: 2 * block, length: BLOCK }),
            ErrorCode::InvalidArgument,
        ),
    ];
    for (what, given, error, code) in table {
        let found = run(refusal(given));
        assert_eq!(found, error, "{what}");
        assert_eq!(found.code(), code, "{what}");
    }
}

#[test]
fn repeated_frames_are_ignored() {
    run(async {
        let node = Node::new(1);
        let content = bytes(3 * BLOCK, 1);
        let good = frames(&content, BLOCK);
        let again = [0, 1, 0, 1, 1, 2].map(|at: usize| Ok(good[at].clone()));
        let given = futures_util::stream::iter(again).chain(futures_util::stream::pending());
        let mut acks = node.session(config(1), Vec::new()).attach(1, given);
        let mut last = None;
        while let Some(ack) = acks.recv().await {
            last = Some(ack);
        }
        assert!(matches!(last, Some(Ok(Ack::Sealed(_)))), "{last:?}");
        assert_eq!(node.sealed().unwrap(), content);
    });
}

#[test]
fn chunks_of_all_shapes_arrive() {
    run(async {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, Frame::DATA_MAX, Frame::DATA_MAX + 1] {
            let node = Node::new(1);
            let content = bytes(length, 1);
            let link = Direct(node.session(config(1), Vec::new()));
            let outcome = send(&link, &mut source(frames(&content, BLOCK))).await.unwrap();
            assert_eq!(outcome.receipts, [receipt(NodeId(1), &seal(&content))]);
            assert_eq!(node.sealed().unwrap(), content);
        }
        // The seal may arrive in a separate frame.
        let (node, content) = (Node::new(1), bytes(BLOCK, 1));
        let link = Direct(node.session(config(1), Vec::new()));
        let data = Frame::of(0, content.clone(), None);
        let last = Frame::of(BLOCK as u64, Bytes::new(), Some(seal(&content)));
        send(&link, &mut source(vec![data, last])).await.unwrap();
        assert_eq!(node.sealed().unwrap(), content);
    });
}

#[test]
fn source_without_a_last_frame_is_an_error() {
    run(async {
        let node = Node::new(1);
        let link = Direct(node.session(config(1), Vec::new()));
        let first = frames(&bytes(2 * BLOCK, 1), BLOCK)[0].clone();
        let error = send(&link, &mut source(vec![first])).await.unwrap_err();
        assert!(matches!(error, Error::Source(_)), "{error:?}");
        assert_eq!(node.sealed(), None);
    });
}

/// Accepts all frames, and sends scripted acks.
struct Scripted {
    acks: Mutex<Vec<Result<Ack, Error>>>,
}

#[async_trait]
impl Link for Scripted {
    async fn attach(&self, _session: SessionId, _number: u64) -> Result<Attachment, Error> {
        let (frames, mut incoming) = mpsc::channel(1);
        let (tell, acks) = mpsc::channel(1);
        let mut script = std::mem::take(&mut *self.acks.lock().unwrap()).into_iter();
        tokio::spawn(async move {
            // The first at once, the others after the last frame.
            if let Some(ack) = script.next() {
                drop(tell.send(ack).await);
            }
            while incoming.recv().await.is_some_and(|frame: Frame| frame.seal.is_none()) {}
            for ack in script {
                drop(tell.send(ack).await);
            }
            std::future::pending::<()>().await;
        });
        Ok(Attachment { frames, acks: Box::pin(tokio_stream::wrappers::ReceiverStream::new(acks)) })
    }
}

async fn scripted(acks: Vec<Result<Ack, Error>>, content: &Bytes) -> Result<Outcome, Error> {
    let link = Scripted { acks: Mutex::new(acks) };
    send(&link, &mut source(frames(content, BLOCK))).await
}

#[test]
fn lying_receiver_is_rejected() {
    let content = bytes(2 * BLOCK, 1);
    let right = receipt(NodeId(1), &seal(&content));
    let sealed = |receipts: Vec<_>| Ok(Ack::Sealed(Outcome { receipts, dropped: Vec::new() }));
    let attached = || Ok(Ack::Attached { resume: 0 });
    let progress = |received| Ok(Ack::Progress { received });
    let sent = run(scripted(vec![attached(), progress(3), sealed(vec![right])], &content));
    assert_eq!(sent.unwrap().receipts, [right]);
    let longer = dfs_types::Receipt { length: 9, ..right };
    let other = dfs_types::Receipt { crc32c: Crc32c(9), ..right };
    for (what, acks) in [
        ("sealed before anything was sent", vec![sealed(vec![right])]),
        ("resumes past what was sent", vec![Ok(Ack::Attached { resume: 7 })]),
        ("progress before attached", vec![progress(0)]),
        ("attached twice", vec![attached(), attached()]),
        ("progress past the end", vec![attached(), progress(u64::MAX)]),
        ("no receipt", vec![attached(), sealed(vec![])]),
        ("other length", vec![attached(), sealed(vec![right, longer])]),
        ("other bytes", vec![attached(), sealed(vec![other])]),
    ] {
        let error = run(scripted(acks, &content)).expect_err(what);
        assert_eq!(error.code(), ErrorCode::Internal, "{what}: {error:?}");
    }
}

#[test]
fn silent_receiver_is_a_stall() {
    let content = bytes(2 * BLOCK, 1);
    for (acks, seconds) in [(vec![], 15), (vec![Ok(Ack::Attached { resume: 0 })], 60)] {
        run(async {
            let started = tokio::time::Instant::now();
            let error = scripted(acks, &content).await.unwrap_err();
            assert_eq!(error.code(), ErrorCode::Unavailable, "{error:?}");
            assert_eq!(started.elapsed().as_secs(), seconds, "{error:?}");
        });
    }
}

#[test]
fn refusals_are_final_and_checksums_are_not() {
    for (code, tries_again) in [
        (ErrorCode::NoSpace, false),
        (ErrorCode::NotEnoughNodes, false),
        (ErrorCode::InvalidArgument, false),
        (ErrorCode::Busy, true),
        (ErrorCode::ChecksumMismatch, true),
    ] {
        run(async {
            let refused = Error::Refused { code, message: "no".to_owned() };
            let started = tokio::time::Instant::now();
            // Without a script the second stream gets no reply.
            let error = scripted(vec![Err(refused.clone())], &bytes(1, 1)).await.unwrap_err();
            assert_eq!(error == refused, !tries_again, "{error:?}");
            assert_eq!(started.elapsed() > Duration::ZERO, tries_again);
        });
    }
}
