//! Invalid frames over a real stream: each has its error, nothing is sealed, and the session
//! accepts valid ones afterwards.

use bytes::Bytes;
use dfs_proto::v1::{self, chunk_data};
use dfs_types::{BLOCK_SIZE, Crc32c, ErrorCode, Frame};

use crate::cluster::{CHUNK, Cluster, Node, Stream, frames, meta, settings};

const BLOCK: u64 = BLOCK_SIZE as u64;

fn content() -> Vec<u8> {
    (0..3 * BLOCK).map(|n| (n % 251) as u8).collect()
}

/// Returns the error of a session given these frames.
async fn refusal(node: &Node, chunk: u128, given: Vec<v1::ChunkFrame>) -> ErrorCode {
    let ready = node.prepare(meta(chunk)).await.unwrap();
    let mut stream = node.attach(&ready, 1).await;
    for frame in given {
        stream.send(frame).await;
    }
    let code = stream.end().await.unwrap_err();
    assert!(node.store.sealed().await.is_empty(), "{code}");
    let mut stream = node.attach(&ready, 2).await;
    for frame in frames(&content()) {
        stream.send(frame).await;
    }
    assert_eq!(stream.end().await.unwrap().len(), 1);
    let sealed = node.store.sealed().await;
    assert_eq!((sealed.len(), sealed[0].length), (1, 3 * BLOCK));
    let replica = sealed[0].replica();
    assert!(dfs_chunkstore::ChunkStore::delete(&node.store, replica).await.unwrap());
    code
}

#[tokio::test(start_paused = true)]
async fn invalid_frames_are_refused_and_nothing_is_sealed() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let good: Vec<v1::ChunkFrame> = frames(&content()).into_iter().map(Into::into).collect();
    let [first, second, last] = good.clone().try_into().unwrap();
    let flipped = |frame: &v1::ChunkFrame| {
        let mut data = frame.data.to_vec();
        data[9] ^= 4;
        v1::ChunkFrame { data: data.into(), ..frame.clone() }
    };
    let zeros = |offset, length: u64| -> v1::ChunkFrame {
        Frame::of(offset, Bytes::from(vec![0; length as usize]), None).into()
    };
    let invalid = ErrorCode::InvalidArgument;
    let table = [
        ("a missing frame", vec![first.clone(), last.clone()], invalid),
        ("a wrong first frame", vec![second.clone()], invalid),
        ("off a block boundary", vec![zeros(7, BLOCK)], invalid),
        ("half a block", vec![zeros(0, BLOCK / 2)], invalid),
        ("past the end", vec![zeros(0, CHUNK + BLOCK)], invalid),
        (
            "past the end in steps",
            vec![first.clone(), second.clone(), zeros(2 * BLOCK, CHUNK - BLOCK)],
            invalid,
        ),
        ("slightly too large", vec![zeros(0, Frame::DATA_MAX as u64 + BLOCK / 2)], invalid),
        ("far too large", vec![zeros(0, Frame::DATA_MAX as u64 * 4)], invalid),
        ("a flipped bit", vec![first.clone(), flipped(&second)], ErrorCode::ChecksumMismatch),
        (
            "too few checksums",
            vec![v1::ChunkFrame { block_crc32c: Vec::new(), ..first.clone() }],
            invalid,
        ),
        (
            "another checksum of the whole",
            vec![
                first.clone(),
                second.clone(),
                v1::ChunkFrame { total_crc32c: Crc32c(1).0, ..last.clone() },
            ],
            ErrorCode::ChecksumMismatch,
        ),
        (
            "another length of the whole",
            vec![
                first.clone(),
                second.clone(),
                v1::ChunkFrame { total_length: 3 * BLOCK - 1, ..last.clone() },
            ],
            invalid,
        ),
        (
            "a seal of too few bytes",
            vec![v1::ChunkFrame {
                total_sha256: Bytes::from_static(b"short"),
                is_final: true,
                ..first.clone()
            }],
            invalid,
        ),
    ];
    for (number, (what, given, expected)) in (1..).zip(table) {
        let code = refusal(&node, number, given).await;
        assert_eq!(code, expected, "{what}");
    }
    let metrics = node.handle.metrics().render();
    assert!(metrics.contains("dfs_datanode_checksum_errors_total 2"), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn stream_starts_with_its_only_attach() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let frame = frames(b"data").remove(0);
    let first = v1::ChunkData { kind: Some(chunk_data::Kind::Frame(frame.into())) };
    for first in [first, v1::ChunkData::default()] {
        let mut stream = Stream::start(node.channel(), first).await;
        assert_eq!(stream.end().await, Err(ErrorCode::InvalidArgument));
    }
    let ready = node.prepare(meta(1)).await.unwrap();
    let mut stream = node.attach(&ready, 1).await;
    let again = v1::Attach { session_id: ready.session_id.clone(), attach_number: 2 };
    stream.send_data(chunk_data::Kind::Attach(again)).await;
    assert_eq!(stream.end().await, Err(ErrorCode::InvalidArgument));
    assert!(node.store.sealed().await.is_empty());
}
