//! S12 to S15.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use dfs_client::RenameOptions;
use dfs_proto::v1;
use dfs_testkit::process::wait_until;
use dfs_types::ErrorCode;

use super::raw::{self, code, slot};
use super::{client, client_on, forgetful, path, put, read, verified_replicas};
use crate::support::{cluster, noise};

/// Flips a bit of `needle` in the files below `folder`; returns true if it was found.
pub(super) fn flip_bit(folder: &Path, needle: &[u8]) -> bool {
    for entry in fs::read_dir(folder).unwrap() {
        let at = entry.unwrap().path();
        if at.is_dir() {
            if flip_bit(&at, needle) {
                return true;
            }
            continue;
        }
        let bytes = fs::read(&at).unwrap();
        if let Some(offset) = bytes.windows(needle.len()).position(|window| window == needle) {
            let file = fs::File::options().write(true).open(&at).unwrap();
            file.write_all_at(&[needle[0] ^ 1], offset as u64).unwrap();
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn s12_replica_with_a_flipped_bit_is_avoided_set_aside_and_replaced() {
    let cluster = cluster();
    let client = client(&cluster);
    for (name, size) in [("/large", 3_000_000), ("/small", 4_096)] {
        let bytes = noise(size, size as u64);
        put(&client, name, bytes.clone()).await.unwrap();
        let victim = (0..3).find(|index| flip_bit(&cluster.disk(*index), &bytes[1_000..1_040]));
        let victim = &cluster.datanodes[victim.unwrap()];
        let before = victim.metric("dfs_datanode_set_aside_total", "");
        // Reads return the right bytes regardless of the replica asked, and the bad one is found
        // eventually. Each machine asks the replicas in a different order.
        let mut corrupt_blocks = 0;
        for machine in 0..100 {
            let reader = client_on(&cluster, &format!("machine-{machine}"));
            assert!(read(&reader, name).await.unwrap() == bytes);
            corrupt_blocks += reader.stats().corrupt_blocks;
            if corrupt_blocks > 0 {
                break;
            }
        }
        assert!(corrupt_blocks > 0, "no corruption detected");
        let is_set_aside = || victim.metric("dfs_datanode_set_aside_total", "") > before;
        assert!(wait_until(Duration::from_secs(30), is_set_aside));
        assert!(victim.metric("dfs_datanode_checksum_errors_total", "") > 0.0);
        let explained = cluster.dfs(["explain", "--json", name]).stdout;
        let explained: serde_json::Value = serde_json::from_slice(&explained).unwrap();
        let chunk = explained["chunks"][0]["chunk"].as_str().unwrap();
        let names = |line: &str| {
            ["a replica is damaged on disk", chunk, "node="].iter().all(|word| line.contains(word))
        };
        let is_logged = || victim.log().lines().any(names);
        let within = Duration::from_secs(30);
        assert!(wait_until(within, is_logged), "{chunk} is not in {}", victim.log());
        let is_replaced = || verified_replicas(&cluster, name) == 3;
        assert!(wait_until(Duration::from_secs(30), is_replaced), "{:?}", cluster.status());
        cluster.wait_for_full_replication(Duration::from_secs(30));
        assert!(read(&client, name).await.unwrap() == bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s13_replicas_require_receipts_of_their_nodes() {
    let cluster = cluster();
    let bytes = noise(100_000, 1);
    let honest = raw::written(&cluster, "/file", &bytes).await;
    let foreign = raw::written(&cluster, "/other", &bytes).await;
    let lie = |change: &dyn Fn(&mut v1::ConfirmRequest)| {
        let mut confirm = honest.clone();
        change(&mut confirm);
        confirm
    };
    let lies = [
        ("no receipt", lie(&|c| c.chunks[0].receipts.clear())),
        ("one receipt", lie(&|c| c.chunks[0].receipts.truncate(1))),
        ("a forged one", lie(&|c| c.chunks[0].receipts[1].stamp += 1)),
        ("another checksum", lie(&|c| c.chunks[0].crc32c ^= 1)),
        ("another length", lie(&|c| c.chunks[0].length -= 1)),
        (
            "a foreign node",
            lie(&|c| {
                c.chunks[0].receipts[1].node_id = Bytes::from_static(&[9; 16]);
            }),
        ),
        ("a foreign chunk", lie(&|c| c.chunks[0] = foreign.chunks[0].clone())),
        (
            "a changed token",
            lie(&|c| {
                let mut token = c.tokens[0].to_vec();
                token[9] ^= 1;
                c.tokens[0] = token.into();
            }),
        ),
        ("a hole", lie(&|c| drop(c.chunks.remove(0)))),
    ];
    for (what, confirm) in lies {
        let refused = raw::coordinator(&cluster).confirm_upload(confirm).await;
        assert_eq!(code(refused), ErrorCode::InvalidArgument, "{what}");
    }
    let stat = client(&cluster).stat(&path("/file"), dfs_client::Follow::Yes).await;
    assert_eq!(stat.unwrap_err().code(), ErrorCode::NotFound);
    raw::coordinator(&cluster).confirm_upload(honest).await.unwrap();
    assert!(read(&client(&cluster), "/file").await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn s14_chunk_id_is_written_once() {
    let cluster = cluster();
    let bytes = noise(1_000, 1);
    let mut coordinator = raw::coordinator(&cluster);
    let plan = coordinator.upload_file(raw::upload("/f", &bytes)).await.unwrap().into_inner();
    let primary = &plan.chunks[0].nodes[0].address;
    let meta = raw::meta(&plan, 0);
    raw::datanode(primary).prepare_chunk_upload(meta.clone()).await.unwrap();
    // While it is being written, and afterwards.
    let twice = raw::datanode(primary).prepare_chunk_upload(meta).await;
    assert_eq!(code(twice), ErrorCode::AlreadyExists);
    let confirm = raw::written(&cluster, "/g", &bytes).await;
    let chunk = confirm.chunks[0].clone();
    let holder = chunk.receipts[0].node_id.clone();
    let status = raw::admin(&cluster).cluster_status(v1::ClusterStatusRequest::default()).await;
    let nodes = status.unwrap().into_inner().nodes;
    let locations = nodes.into_iter().filter_map(|node| node.node);
    let holder = locations.into_iter().find(|node| node.node_id == holder).unwrap();
    let meta = v1::ChunkMeta {
        chunk_id: chunk.chunk_id,
        max_length: 65_536,
        min_replicas: 1,
        ..v1::ChunkMeta::default()
    };
    let again = raw::datanode(&holder.address).prepare_chunk_upload(meta).await;
    assert_eq!(code(again), ErrorCode::AlreadyExists);
}

#[tokio::test(flavor = "multi_thread")]
async fn s15_repeated_call_gets_the_first_reply_and_restores_nothing() {
    let mut cluster = forgetful(Duration::from_millis(200));
    let client = client(&cluster);
    let make = v1::MakeDirectoryRequest {
        target: Some(v1::Target::of_path(Bytes::from_static(b"/made"))),
        attributes: Some(super::attributes().into()),
        slot: Some(slot(0, 1)),
        ..v1::MakeDirectoryRequest::default()
    };
    let first = raw::coordinator(&cluster).make_directory(make.clone()).await.unwrap().into_inner();
    client.rename(&path("/made"), &path("/moved"), RenameOptions::default()).await.unwrap();
    // Even across a crash of the coordinator.
    cluster.coordinator.kill();
    cluster.start_coordinator();
    cluster.wait_for_active(3);
    let again = raw::coordinator(&cluster).make_directory(make.clone()).await.unwrap().into_inner();
    assert_eq!(first, again);
    let made = client.stat(&path("/made"), dfs_client::Follow::No).await;
    assert_eq!(made.unwrap_err().code(), ErrorCode::NotFound);
    let other = v1::MakeDirectoryRequest {
        target: Some(v1::Target::of_path(Bytes::from_static(b"/other"))),
        ..make
    };
    let reused = raw::coordinator(&cluster).make_directory(other).await;
    assert_eq!(code(reused), ErrorCode::InvalidArgument);

    let bytes = noise(100_000, 2);
    let confirm = raw::written(&cluster, "/file", &bytes).await;
    let mut coordinator = raw::coordinator(&cluster);
    coordinator.confirm_upload(confirm.clone()).await.unwrap();
    put(&client, "/file", vec![1]).await.unwrap();
    drop(coordinator.confirm_upload(confirm.clone()).await);
    assert_eq!(read(&client, "/file").await.unwrap(), [1], "a replaced file came back");
    client.delete(&path("/file"), dfs_client::DeleteOptions::default()).await.unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let repeated = coordinator.confirm_upload(confirm.clone()).await;
        let stat = client.stat(&path("/file"), dfs_client::Follow::Yes).await;
        assert_eq!(stat.unwrap_err().code(), ErrorCode::NotFound, "a deleted file came back");
        // Reaped eventually.
        if repeated.is_err() {
            assert_eq!(code(repeated), ErrorCode::Stale);
            break;
        }
        assert!(std::time::Instant::now() < deadline, "it is never reaped");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
