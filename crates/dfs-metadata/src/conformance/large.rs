//! A file of many extents: more than any commit or reply can hold.
#![allow(clippy::unwrap_used)] // Like every check, it panics where an engine does not do its part.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dfs_types::{
    Attributes, CHUNK_SIZE_MIN, ChunkId, ClusterId, Precondition, Replication, Scope, SeededRandom,
    Slot,
};

use super::Harness;
use super::histories::run::{NODE, StoppedClock, at, register_node, written};
use crate::Committer;
use crate::namespace::{
    Components, Confirm, Delete, InitOptions, Namespace, NextPage, OpenFile, Options, Placement,
    PlanUpload, ReapLimits, Repeat, UploadPlan, init,
};
use crate::placement::{Candidate, RoundRobin};

/// Extents of the file.
const EXTENTS: u64 = 10_000;
const PATH: &str = "/large";

/// A file of 10,000 extents is staged, confirmed, read, deleted, and reaped completely.
pub async fn file_of_many_extents(harness: &mut dyn Harness) {
    let engine = harness.engine().await;
    let random = Arc::new(SeededRandom::new(1));
    let replication = Replication { factor: 1, min_write: None };
    let options = InitOptions { cluster: ClusterId::random(&*random), replication };
    init(&*engine, &options, &StoppedClock, &*random).await.unwrap();
    let (committer, serving) = Committer::new(engine.clone(), std::future::pending());
    let serving = tokio::spawn(serving);
    let clock = Arc::new(StoppedClock);
    let components = Components { engine: engine.clone(), committer, clock, random };
    let namespace = Namespace::open(components, Options::default(), None).await.unwrap();
    register_node(&namespace).await;

    let written = write(&namespace).await;
    assert_eq!(read(&namespace).await, written, "each extent, in the order of the file");
    let request = Delete { target: at(PATH), recursive: false, now: true, precondition: None };
    namespace.delete(Scope::internal(), &request, Some(&repeat(2))).await.unwrap();
    let (tombstones, chunks) = reap(&namespace).await;
    assert_eq!(chunks, written.iter().copied().collect::<BTreeSet<_>>());
    assert_eq!(tombstones, chunks.len(), "each is counted once");
    for prefix in ["x/", "u/", "o/"] {
        let snapshot = engine.snapshot().await.unwrap();
        let left = snapshot.range(prefix.as_bytes(), &[], 1).await.unwrap();
        assert!(left.is_empty(), "{left:?} is left over");
    }
    serving.abort();
}

fn repeat(sequence: u64) -> Repeat {
    let slot = Slot { client: dfs_types::ClientId(1), slot: 0, sequence };
    Repeat { slot, body: dfs_types::Sha256::of(&sequence.to_be_bytes()) }
}

/// Stages each page of the plan and confirms the whole. Returns the chunks in file order.
async fn write(namespace: &Namespace) -> Vec<ChunkId> {
    let (zone, host) = (String::new(), String::new());
    let candidates = [Candidate { node: NODE, zone, host, free: 1 << 40 }];
    let selector = RoundRobin::default();
    let placement = Placement { candidates: &candidates, selector: &selector };
    let request = PlanUpload {
        target: at(PATH),
        size: Some(EXTENTS * CHUNK_SIZE_MIN),
        chunk_size: Some(CHUNK_SIZE_MIN),
        replication_factor: None,
        max_chunks: 0,
        client_host: String::new(),
        client_zone: String::new(),
    };
    let mut plan = namespace.plan_upload(Scope::internal(), &request, &placement).await.unwrap();
    let mut chunks = Vec::new();
    loop {
        stage(namespace, &plan).await;
        chunks.extend(plan.chunks.iter().map(|planned| planned.chunk));
        if !plan.has_more {
            break;
        }
        let from_offset = chunks.len() as u64 * CHUNK_SIZE_MIN;
        let request = NextPage { token: plan.token.clone(), from_offset, max_chunks: 0 };
        plan = namespace.next_page(Scope::internal(), &request, &placement).await.unwrap();
    }
    let confirm = Confirm {
        tokens: vec![plan.token],
        chunks: Vec::new(),
        size: EXTENTS * CHUNK_SIZE_MIN,
        attributes: Attributes::default(),
        precondition: Some(Precondition::Absent),
        xattrs: BTreeMap::new(),
    };
    namespace.confirm(Scope::internal(), &confirm, Some(&repeat(1))).await.unwrap();
    chunks
}

async fn stage(namespace: &Namespace, plan: &UploadPlan) {
    let chunks: Vec<_> = plan.chunks.iter().map(|planned| written(namespace, planned)).collect();
    namespace.stage(Scope::internal(), std::slice::from_ref(&plan.token), &chunks).await.unwrap();
}

async fn read(namespace: &Namespace) -> Vec<ChunkId> {
    let mut chunks = Vec::new();
    let mut offset = Some(0);
    while let Some(from) = offset {
        let target = at(PATH);
        let request = OpenFile { target, offset: from, length: 0, max_extents: 0 };
        let page = namespace.open_file(Scope::internal(), &request).await.unwrap();
        chunks.extend(page.extents.iter().map(|extent| extent.chunk_id));
        offset = page.next_offset;
    }
    chunks
}

/// Reaps until nothing is due. Returns the number of tombstones, each counted once, and the chunks
/// whose replicas may be deleted.
async fn reap(namespace: &Namespace) -> (usize, BTreeSet<ChunkId>) {
    let mut tombstones = 0;
    loop {
        let limits = ReapLimits { items: 10, pressure: true };
        let reaped = namespace.reap(Scope::internal(), &limits, None).await.unwrap();
        tombstones += reaped.tombstones;
        if !reaped.has_more {
            break;
        }
    }
    let (mut chunks, mut after) = (BTreeSet::new(), None);
    loop {
        let page = namespace.chunks_to_delete(Scope::internal(), after, 1_000).await.unwrap();
        chunks.extend(page.chunks.iter().map(|(chunk, _)| *chunk));
        after = page.next;
        if after.is_none() {
            return (tombstones, chunks);
        }
    }
}
