//! Log lines about a chunk carry the request id on all nodes.

use dfs_proto::v1;
use dfs_runtime::LogCapture;
use dfs_transport::with_request_id;
use dfs_types::{ChunkId, ErrorCode, RequestId};

use crate::cluster::{Cluster, build, frames, last, meta, meta_for, sealed, settings};

/// Used by no other test.
const CHUNK: u128 = 0xc0_ffee;
const OTHER: u128 = 0xdec_0de;

const FILTER: &str = "warn,dfs_datanode=debug,dfs_streamer=debug,dfs_transport=debug";

#[tokio::test(start_paused = true)]
async fn request_id_is_in_all_lines_about_a_chunk() {
    let lines = LogCapture::start(FILTER);
    let cluster = Cluster::start().await;
    let [first, second, third, fourth] = [
        cluster.node(1, settings()).await,
        cluster.node(2, settings()).await,
        cluster.node(3, settings()).await,
        cluster.node(4, settings()).await,
    ];

    // One chunk is stored on three nodes, another one is refused midway.
    let [put, refused, repair] = [RequestId(0xa1), RequestId(0xa2), RequestId(0xa3)];
    let written = with_request_id(put, async {
        let ready = first.prepare(meta_for(CHUNK, &[&second, &third])).await.unwrap();
        first.finish(&ready, b"data").await.unwrap()
    });
    assert_eq!(written.await.len(), 3);
    let code = with_request_id(refused, async {
        let ready = first.prepare(meta(OTHER)).await.unwrap();
        let mut stream = first.attach(&ready, 1).await;
        stream.send(v1::ChunkFrame { offset: 7, ..frames(b"data").remove(0).into() }).await;
        stream.end().await.unwrap_err()
    });
    assert_eq!(code.await, ErrorCode::InvalidArgument);
    let build = sealed(4, build(&fourth, CHUNK, b"data", &[&first]).await);
    let building = async { last(fourth.client().build_replica(build).await).await };
    with_request_id(repair, building).await.unwrap();

    let id = |id: RequestId| format!("request{{id={id} ");
    let count = |text: &str, request| {
        let found = lines.with(text);
        found.iter().filter(|line| line.contains(&id(request))).count()
    };
    for line in lines.with(&format!("chunk={}", ChunkId(CHUNK))) {
        assert!(line.contains(&id(put)) || line.contains(&id(repair)), "{line}");
    }
    for line in lines.with(&format!("chunk={}", ChunkId(OTHER))) {
        assert!(line.contains(&id(refused)), "{line}");
    }
    for (text, request, times) in [
        ("ready for a chunk", put, 3),
        ("sealed a chunk", put, 3),
        ("answered call=\"/dfs.v1.DataNode/PrepareChunkUpload\" code=Ok", put, 3),
        ("answered call=\"/dfs.v1.DataNode/ChunkDataStream\" code=Ok", put, 3),
        ("a stream ended early", refused, 1),
        ("answered call=\"/dfs.v1.DataNode/ChunkDataStream\" code=InvalidArgument", refused, 1),
        ("built a replica", repair, 1),
        ("sealed a chunk", repair, 1),
        ("answered call=\"/dfs.v1.DataNode/BuildReplica\" code=Ok", repair, 1),
    ] {
        assert_eq!(count(text, request), times, "{text}: {:?}", lines.with(text));
    }
}
