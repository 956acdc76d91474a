//! F1: an unreadable record stops only what depends on it.

use std::collections::BTreeSet;

use dfs_types::{ChunkId, InodeId};

use super::node_intent::{scan_holdings, scanned};
use super::*;
use crate::chunk_health::{Contact, NodeLiveness};
use crate::engine::{Commit, Engine, Write};
use crate::keys;

impl Fixture {
    async fn damage(&self, key: &[u8]) {
        let write = Write::Put(Bytes::copy_from_slice(key), Bytes::from_static(b"\x01\xff"));
        let commit = Commit { conditions: vec![], writes: vec![write] };
        self.engine.commit_batch(vec![commit]).await.unwrap();
    }

    async fn chunk_of(&self, at: &str) -> ChunkId {
        self.open(at).await.unwrap().extents[0].chunk_id
    }
}

fn all_heard() -> Liveness {
    let heard = NodeLiveness { contact: Contact::Responsive, ..NodeLiveness::default() };
    (1..=4).map(|node| (NodeId(node), heard.clone())).collect()
}

#[tokio::test]
async fn unreadable_chunk_record_blocks_safe_to_stop() {
    let fixture = Fixture::new().await;
    let (namespace, scope) = (&fixture.namespace, Scope::internal());
    for file in ["/a", "/b", "/c"] {
        fixture.put(file, CHUNK).await.unwrap();
    }
    let damaged = fixture.chunk_of("/b").await;
    let nodes = BTreeSet::from([NodeId(1)]);
    assert!(scanned(namespace, &nodes, &all_heard()).await.is_safe());
    let key = ChunkKey::record(damaged);
    fixture.damage(&key).await;
    fixture.damage(b"k/what is this").await;
    let page = namespace.scan_chunks(scope, None, 10).await.unwrap();
    assert_eq!((page.chunks.len(), page.unreadable.len()), (2, 2));
    let named = |of: &[Unreadable]| of.iter().any(|found| found.key == keys::show(&key));
    assert!(named(&page.unreadable), "{:?}", page.unreadable);
    let safety = scanned(namespace, &nodes, &all_heard()).await;
    assert_eq!((safety.chunks_below, safety.unknown.count), (0, 2));
    assert!(!safety.is_safe(), "their contents are unknown");
    // That they are at rest says that any one node can be spared.
    let at_rest = namespace.safe_to_stop(scope, &nodes, &all_heard()).await.unwrap().unwrap();
    assert!(at_rest.is_safe());
    let holdings = scan_holdings(namespace, NodeId(4), &all_heard()).await;
    assert_eq!((holdings.chunks, holdings.unknown.count), (0, 2));
    assert!(holdings.unknown.example.is_some());
    fixture.damage(&ChunkKey::repair(damaged)).await;
    let at_work = namespace.safe_to_stop(scope, &nodes, &all_heard()).await;
    assert!(!matches!(at_work, Ok(Some(safety)) if safety.is_safe()));
}

#[tokio::test]
async fn unreadable_node_record_is_skipped_and_its_replicas_do_not_count() {
    let fixture = Fixture::new().await;
    let (namespace, scope) = (&fixture.namespace, Scope::internal());
    fixture.put("/f", CHUNK).await.unwrap();
    let nodes = BTreeSet::from([NodeId(1)]);
    let heard = all_heard();
    assert!(scanned(namespace, &nodes, &heard).await.is_safe());
    let sole = async || scan_holdings(namespace, NodeId(1), &heard).await.loss.chunks;
    assert_eq!(sole().await, 0);
    let key = keys::node(NodeId(3));
    fixture.damage(&key).await;
    let listed = namespace.nodes(scope).await.unwrap();
    let ids: Vec<u128> = listed.nodes.iter().map(|(node, _)| node.0).collect();
    assert_eq!((ids, &listed.unreadable[0].key), (vec![1, 2, 4], &keys::show(&key)));
    // Two replicas are left without node 1, and one of them counts.
    assert_eq!(namespace.safe_to_stop(scope, &nodes, &heard).await.unwrap(), None);
    let safety = scanned(namespace, &nodes, &heard).await;
    assert_eq!((safety.chunks_below, safety.unknown_nodes.count), (1, 1));
    assert!(!safety.is_safe());
    let others = BTreeSet::from([NodeId(4)]);
    assert!(scanned(namespace, &others, &heard).await.is_safe());
    assert_eq!(sole().await, 0);
    fixture.damage(&keys::node(NodeId(2))).await;
    assert_eq!(sole().await, 1, "the other replicas are unknown");
    let safety = namespace.safe_to_stop(scope, &BTreeSet::from([NodeId(3)]), &heard).await;
    assert!(matches!(safety, Err(Error::Damaged { .. })), "{safety:?}");
    // Receipts of these nodes do not count, and those of others still do.
    let plan = fixture.plan("/g", CHUNK).await.unwrap();
    let short = namespace.confirm(scope, &fixture.confirm_of(&plan), None).await;
    assert!(matches!(short, Err(Error::ReplicasGone { have: 1, .. })), "{short:?}");
    // Files are still located, as far as the nodes are known.
    let plan = fixture.open("/f").await.unwrap();
    let located = plan.extents[0].chunk.replicas.iter().filter_map(|it| plan.disks.node(it.disk));
    assert_eq!(located.collect::<Vec<_>>(), [NodeId(1)]);
}

#[tokio::test]
async fn disks_of_a_node_whose_record_becomes_unreadable_stay_known() {
    let fixture = Fixture::new().await;
    fixture.put("/f", CHUNK).await.unwrap();
    let plan = fixture.open("/f").await.unwrap();
    fixture.damage(&keys::node(NodeId(2))).await;
    let mut unknown = plan.extents[0].chunk.clone();
    unknown.replicas[0].disk = dfs_types::DiskNumber(99);
    let disks = fixture.namespace.disks_of([&unknown]).await.unwrap();
    assert_eq!(disks, plan.disks);
}

#[tokio::test]
async fn unreadable_records_do_not_block_the_reaper() {
    let fixture = Fixture::new().await;
    let (namespace, scope) = (&fixture.namespace, Scope::internal());
    for file in ["/a", "/b", "/c"] {
        fixture.put(file, CHUNK).await.unwrap();
    }
    let damaged = fixture.chunk_of("/b").await;
    fixture.damage(&ChunkKey::record(damaged)).await;
    // An unreadable record of `o/` sorts before all others.
    let unknown = keys::unlinked(Timestamp::from_millis(0), InodeId(999));
    fixture.damage(&unknown).await;
    for file in ["/a", "/b", "/c"] {
        fixture.delete(file, false, true).await.unwrap();
    }
    let limits = ReapLimits { items: 10, pressure: false };
    let reaped = namespace.reap(scope, &limits, None).await.unwrap();
    assert_eq!((reaped.finished, reaped.tombstones, reaped.has_more), (3, 2, false));
    let named: Vec<_> = reaped.unreadable.iter().map(|found| found.key.clone()).collect();
    assert_eq!(named, [keys::show(&unknown)]);
    assert_eq!((fixture.count("k/").await, fixture.count("w/d/").await), (2, 2));
    // The sweep continues after one, too.
    let (chunk, _) = namespace.scan_chunks(scope, None, 10).await.unwrap().chunks[0].clone();
    fixture.damage(&ChunkKey::record(chunk)).await;
    let later = fixture.clock.now().plus(Duration::from_millis(1));
    namespace.raise_gc_floor(scope, later, None).await.unwrap();
    let left = namespace.chunks_to_delete(scope, None, 10).await.unwrap().chunks;
    for (chunk, record) in left {
        let replicas: Vec<ReplicaId> = record.replicas.iter().map(ReplicaId::of).collect();
        namespace.forget_replicas(scope, chunk, &replicas, None).await.unwrap();
    }
    namespace.sweep_tombstones(scope, None, 10, None).await.unwrap();
    assert_eq!(fixture.count("k/").await, 1, "the unreadable one stays");
}
