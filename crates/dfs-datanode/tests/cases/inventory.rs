//! Digests and lists of what the disks hold.

use dfs_chunkstore::conformance;
use dfs_proto::wire::WireId as _;
use dfs_proto::{v1, wire};
use dfs_types::{ChunkId, Part, ReplicaDigest, Stamp};

use crate::cluster::{Cluster, Node, meant, replica_of, sealed, settings};

async fn digests(node: &Node, from: u128, to: u128) -> Vec<v1::DiskDigest> {
    let request = v1::InventoryRequest {
        cycle: 7,
        from: ChunkId(from).to_wire(),
        to: ChunkId(to).to_wire(),
        node_id: meant(1),
        lease_epoch: 1,
        order: None,
    };
    let mut pages = node.client().inventory(sealed(1, request)).await.unwrap().into_inner();
    loop {
        let page = pages.message().await.unwrap().unwrap();
        if page.is_last {
            return page.disks;
        }
    }
}

/// Lists a range, and returns whether the list is complete.
async fn list(node: &Node, request: v1::ListChunksRequest) -> (Vec<u128>, bool) {
    let request = v1::ListChunksRequest { node_id: meant(1), lease_epoch: 1, ..request };
    let mut pages = node.client().list_chunks(sealed(1, request)).await.unwrap().into_inner();
    let (mut found, mut is_complete) = (Vec::new(), false);
    while let Some(page) = pages.message().await.unwrap() {
        is_complete = page.is_last;
        found.extend(
            page.chunks
                .into_iter()
                .map(|listed| wire::replica("replica", listed.replica).unwrap().chunk.0),
        );
    }
    (found, is_complete)
}

#[tokio::test(start_paused = true)]
async fn digests_are_those_of_the_range() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let mut expected = ReplicaDigest::default();
    for chunk in 1..=5 {
        let receipt = node.write(chunk, b"data").await.remove(0);
        if (2..5).contains(&chunk) {
            expected.add(7, ChunkId(chunk), Part::WHOLE, Stamp(receipt.stamp));
        }
    }
    let found = digests(&node, 2, 5).await;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].count, found[0].sum), (expected.count, expected.sum));
    assert_eq!(digests(&node, 6, 9).await[0].count, 0, "a disk without replicas is reported");
    node.store.lose_heads(&[ChunkId(9)], true);
    assert_eq!(digests(&node, 2, 5).await, [], "not all replicas are found");
    let disk_id = found[0].disk_id.clone();
    let whole = v1::ListChunksRequest { disk_id, ..Default::default() };
    assert!(!list(&node, whole).await.1);
    node.store.lose_heads(&[], false);
    node.store.set_failed(true);
    assert_eq!(digests(&node, 2, 5).await, [], "nothing is known of a disk out of service");
}

#[tokio::test(start_paused = true)]
async fn list_is_that_of_the_range_and_disk_and_complete_only_in_service() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let mut disk_id = bytes::Bytes::new();
    for chunk in 1..=5 {
        disk_id = replica_of(&node.write(chunk, b"data").await[0]).disk_id;
    }
    let all = v1::ListChunksRequest::default();
    assert_eq!(list(&node, all.clone()).await, (vec![1, 2, 3, 4, 5], true));
    let range = v1::ListChunksRequest {
        from: ChunkId(2).to_wire(),
        to: ChunkId(4).to_wire(),
        disk_id,
        ..all.clone()
    };
    assert_eq!(list(&node, range.clone()).await, (vec![2, 3], true));
    let other = v1::ListChunksRequest { disk_id: meant(9), ..all };
    assert_eq!(list(&node, other).await, (vec![], false), "a disk that the node does not have");
    node.store.set_failed(true);
    assert!(!list(&node, range).await.1);
}

#[tokio::test(start_paused = true)]
async fn every_page_of_a_long_list_is_read() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let mut expected = ReplicaDigest::default();
    let chunks: Vec<u128> = (1..=2_500).collect();
    for chunk in &chunks {
        let sealed = conformance::put(&node.store, ChunkId(*chunk), 1).await.unwrap();
        expected.add(7, sealed.chunk, Part::WHOLE, sealed.stamp);
    }
    assert_eq!(list(&node, v1::ListChunksRequest::default()).await, (chunks, true));
    let found = digests(&node, 0, u128::MAX).await.remove(0);
    assert_eq!((found.count, found.sum), (expected.count, expected.sum));
}

/// What a disk lacks that missed a registration is recorded before it gets full service.
#[tokio::test(start_paused = true)]
async fn returning_disk_is_listed_completely() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let disk_id = replica_of(&node.write(1, b"data").await[0]).disk_id;
    node.store.return_disk();
    let all = v1::ListChunksRequest { disk_id, ..v1::ListChunksRequest::default() };
    assert_eq!(list(&node, all).await, (vec![1], true));
    assert_eq!(digests(&node, 0, 9).await[0].count, 1);
}
