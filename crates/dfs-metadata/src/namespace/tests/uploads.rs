//! Plans, stages and confirms, valid and forged.

use dfs_types::{ChunkId, ErrorCode, InodeId, NodeState, Precondition, Scope};

use super::*;

#[tokio::test]
async fn file_appears_whole_with_its_chunks() {
    let fixture = Fixture::new().await;
    for (name, chunks) in [("/none", 0), ("/one", 1), ("/few", 5), ("/many", 130)] {
        let size = chunks * CHUNK - u64::from(chunks > 1) * 100;
        let mut plan = fixture.plan(name, size).await.unwrap();
        let mut confirm = fixture.confirm_of(&plan);
        while plan.has_more {
            let last = plan.chunks.last().unwrap();
            let request = NextPage {
                token: plan.token.clone(),
                from_offset: last.file_offset + last.max_length,
                max_chunks: 0,
            };
            plan = fixture
                .namespace
                .next_page(Scope::internal(), &request, &fixture.placement())
                .await
                .unwrap();
            let more = fixture.confirm_of(&plan);
            confirm.tokens.extend(more.tokens);
            confirm.chunks.extend(more.chunks);
            confirm.size += more.size;
        }
        assert_eq!(code(fixture.stat(name).await), ErrorCode::NotFound);
        let repeat = fixture.repeat();
        let stat =
            fixture.namespace.confirm(Scope::internal(), &confirm, Some(&repeat)).await.unwrap();
        assert_eq!((stat.size, stat.attributes.mode), (size, 0o640));
        assert_eq!(fixture.stat(name).await.unwrap(), stat);
        // A repeat, with and without its slot.
        assert_eq!(
            fixture.namespace.confirm(Scope::internal(), &confirm, Some(&repeat)).await.unwrap(),
            stat
        );
        if chunks > 0 {
            assert_eq!(
                fixture.namespace.confirm(Scope::internal(), &confirm, None).await.unwrap(),
                stat
            );
        }
        let read = fixture.open(name).await.unwrap();
        let ids: Vec<ChunkId> = read.extents.iter().map(|extent| extent.chunk_id).collect();
        let planned: Vec<ChunkId> = confirm.chunks.iter().map(|written| written.chunk).collect();
        assert_eq!(ids, planned, "{name}");
        assert!(read.extents.iter().all(|extent| extent.chunk.replicas.len() == 3));
    }
    assert_eq!(fixture.count("u/").await, 0);
}

#[tokio::test]
async fn confirm_takes_one_read_however_many_chunks_it_registers() {
    let fixture = Fixture::new().await;
    let (namespace, reads) = fixture.counting().await;
    for (name, chunks) in [("/none", 0), ("/one", 1), ("/many", 18), ("/staged", 24)] {
        let plan = fixture.plan(name, chunks * CHUNK).await.unwrap();
        let confirm = fixture.confirm_of(&plan);
        let before = (reads.keys(), reads.ranges());
        namespace.confirm(Scope::internal(), &confirm, Some(&fixture.repeat())).await.unwrap();
        let taken = (reads.keys() - before.0, reads.ranges() - before.1);
        // What is staged first takes a read of its own, and is listed at the end.
        let expected = if name == "/staged" { (2, 1) } else { (1, 0) };
        assert_eq!(taken, expected, "{name}");
    }
}

#[tokio::test]
async fn range_returns_only_the_extents_it_touches() {
    let fixture = Fixture::new().await;
    fixture.put("/f", 10 * CHUNK).await.unwrap();
    for (offset, length, wanted) in [
        (0, 1, vec![0]),
        (CHUNK - 1, 2, vec![0, 1]),
        (CHUNK, CHUNK, vec![1]),
        (3 * CHUNK + 5, 2 * CHUNK, vec![3, 4, 5]),
        (9 * CHUNK, 0, vec![9]),
        (10 * CHUNK, 5, vec![]),
        (u64::MAX, 5, vec![]),
    ] {
        let target = path("/f");
        let read = fixture.open_range(target, offset, length).await.unwrap();
        let found: Vec<u64> = read.extents.iter().map(|found| found.file_offset / CHUNK).collect();
        assert_eq!((found, read.next_offset), (wanted, None), "{offset} {length}");
    }
    let target = path("/f");
    let request = OpenFile { target, offset: 0, length: 0, max_extents: 4 };
    let read = fixture.namespace.open_file(Scope::internal(), &request).await.unwrap();
    assert_eq!((read.extents.len(), read.next_offset), (4, Some(4 * CHUNK)));
    assert_eq!(code(fixture.open("/").await), ErrorCode::IsADirectory);
}

#[tokio::test]
async fn last_writer_wins_and_open_file_stays_readable() {
    let fixture = Fixture::new().await;
    let old = fixture.put("/f", CHUNK).await.unwrap();
    let plan = fixture.plan("/f", 2 * CHUNK).await.unwrap();
    let confirm = fixture.confirm_of(&plan);
    let third = fixture.put("/f", 3 * CHUNK).await.unwrap();
    fixture.namespace.confirm(Scope::internal(), &confirm, None).await.unwrap();
    assert_eq!(fixture.stat("/f").await.unwrap().size, 2 * CHUNK);
    for (inode, extents) in [(old.inode, 1), (third.inode, 3)] {
        let read = fixture.open_range(Target::Inode(inode), 0, 0).await.unwrap();
        assert_eq!(read.extents.len(), extents);
    }
    fixture.clock.advance(HOUR * 2);
    assert_eq!(fixture.reap(false).await, 4);
    for inode in [old.inode, third.inode] {
        let gone = fixture.open_range(Target::Inode(inode), 0, 0).await;
        assert_eq!(code(gone), ErrorCode::Stale);
    }
}

#[tokio::test]
async fn confirm_follows_the_directory_not_the_path() {
    let fixture = Fixture::new().await;
    fixture.mkdir("/a").await.unwrap();
    let plan = fixture.plan("/a/f", CHUNK).await.unwrap();
    fixture.rename("/a", "/b").await.unwrap();
    fixture.mkdir("/a").await.unwrap();
    fixture.namespace.confirm(Scope::internal(), &fixture.confirm_of(&plan), None).await.unwrap();
    assert_eq!(fixture.list("/b").await, ["f"]);
    assert_eq!(fixture.list("/a").await, [""; 0]);
    let plan = fixture.plan("/b/g", CHUNK).await.unwrap();
    fixture.delete("/b", true, false).await.unwrap();
    let confirmed =
        fixture.namespace.confirm(Scope::internal(), &fixture.confirm_of(&plan), None).await;
    assert_eq!(code(confirmed), ErrorCode::NotFound);
}

#[tokio::test]
async fn confirm_does_not_replace_a_directory() {
    let fixture = Fixture::new().await;
    assert_eq!(code(fixture.plan("/", 1).await), ErrorCode::IsADirectory);
    let plan = fixture.plan("/f", CHUNK).await.unwrap();
    fixture.mkdir("/f").await.unwrap();
    assert_eq!(code(fixture.plan("/f", 1).await), ErrorCode::IsADirectory);
    let confirmed =
        fixture.namespace.confirm(Scope::internal(), &fixture.confirm_of(&plan), None).await;
    assert_eq!(code(confirmed), ErrorCode::IsADirectory);
    fixture.put("/g", 1).await.unwrap();
    let plan = fixture.plan("/g", CHUNK).await.unwrap();
    let only_new =
        Confirm { precondition: Some(Precondition::Absent), ..fixture.confirm_of(&plan) };
    assert_eq!(
        code(fixture.namespace.confirm(Scope::internal(), &only_new, None).await),
        ErrorCode::AlreadyExists
    );
}

#[tokio::test]
async fn repeated_confirm_does_not_restore_a_deleted_file() {
    let fixture = Fixture::new().await;
    for chunks in [1, 130] {
        let mut plan = fixture.plan("/f", 60 * CHUNK).await.unwrap();
        plan.chunks.truncate(chunks);
        let confirm = fixture.confirm_of(&plan);
        fixture.namespace.confirm(Scope::internal(), &confirm, None).await.unwrap();
        fixture.delete("/f", false, true).await.unwrap();
        // Deleted, but not reaped: the first reply.
        fixture.namespace.confirm(Scope::internal(), &confirm, None).await.unwrap();
        assert_eq!(code(fixture.stat("/f").await), ErrorCode::NotFound);
        fixture.reap(false).await;
        assert_eq!(
            code(fixture.namespace.confirm(Scope::internal(), &confirm, None).await),
            ErrorCode::Stale
        );
        // Also once the tombstones are gone, being below the floor.
        for (chunk, record) in
            fixture.namespace.scan_chunks(Scope::internal(), None, 1_000).await.unwrap().chunks
        {
            let replicas: Vec<ReplicaId> = record.replicas.iter().map(ReplicaId::of).collect();
            fixture
                .namespace
                .forget_replicas(Scope::internal(), chunk, &replicas, None)
                .await
                .unwrap();
        }
        let soon = fixture.clock.now().plus(Duration::from_millis(1));
        fixture.namespace.raise_gc_floor(Scope::internal(), soon, None).await.unwrap();
        let mut after = None;
        loop {
            after = fixture
                .namespace
                .sweep_tombstones(Scope::internal(), after, 7, None)
                .await
                .unwrap();
            if after.is_none() {
                break;
            }
        }
        assert_eq!(fixture.count("k/").await, 0);
        assert_eq!(
            code(fixture.namespace.confirm(Scope::internal(), &confirm, None).await),
            ErrorCode::Stale
        );
        fixture.clock.advance(Duration::from_millis(5));
        assert_eq!((fixture.count("d/").await, fixture.count("k/").await), (0, 0));
        // A refused stage leaves nothing that does not expire.
        fixture.clock.advance(HOUR * 2);
        let limits = ReapLimits { items: 10, pressure: false };
        fixture.namespace.reap_uploads(Scope::internal(), &limits, None).await.unwrap();
        assert_eq!((fixture.count("u/").await, fixture.count("x/").await), (0, 0));
    }
}

#[tokio::test]
async fn forged_chunks_and_receipts_are_refused() {
    let fixture = Fixture::new().await;
    let plan = fixture.plan("/f", 2 * CHUNK).await.unwrap();
    let other = fixture.plan("/g", 2 * CHUNK).await.unwrap();
    let honest = fixture.confirm_of(&plan);
    let lie = |change: &dyn Fn(&mut Confirm)| {
        let mut confirm = honest.clone();
        change(&mut confirm);
        confirm
    };
    let bad = ErrorCode::InvalidArgument;
    let foreign = fixture.written(&other.chunks[0]);
    let stranger = fixture.receipt(&plan.chunks[0], honest.chunks[0].seal, NodeId(4));
    let lies: Vec<(&str, Confirm)> = vec![
        ("no token", lie(&|c| c.tokens.clear())),
        ("half a token", lie(&|c| c.tokens[0] = c.tokens[0].slice(..40))),
        (
            "a changed token",
            lie(&|c| {
                let mut bytes = c.tokens[0].to_vec();
                bytes[20] ^= 1;
                c.tokens[0] = bytes.into();
            }),
        ),
        ("tokens of two uploads", lie(&|c| c.tokens.push(other.token.clone()))),
        ("a chunk of another upload", lie(&|c| c.chunks[0] = foreign.clone())),
        ("a chunk twice", lie(&|c| c.chunks[1] = c.chunks[0].clone())),
        ("a chunk elsewhere", lie(&|c| c.chunks[0].file_offset = CHUNK)),
        ("a chunk that is missing", lie(&|c| drop(c.chunks.pop()))),
        ("an empty chunk", lie(&|c| c.chunks[0].seal.length = 0)),
        ("a chunk that is too long", lie(&|c| c.chunks[0].seal.length = CHUNK + 1)),
        ("another checksum", lie(&|c| c.chunks[0].seal.crc32c = Crc32c(99))),
        ("a wrong size", lie(&|c| c.size += 1)),
        ("no receipts", lie(&|c| c.chunks[0].receipts.clear())),
        ("too few receipts", lie(&|c| c.chunks[0].receipts.truncate(1))),
        (
            "one receipt three times",
            lie(&|c| {
                let first = c.chunks[0].receipts[0];
                c.chunks[0].receipts.fill(first);
            }),
        ),
        ("a forged receipt", lie(&|c| c.chunks[0].receipts[1].stamp = Stamp(77))),
        (
            "a receipt of another chunk",
            lie(&|c| {
                c.chunks[0].receipts[0] = c.chunks[1].receipts[0];
            }),
        ),
        (
            "a receipt of a node that was not planned",
            lie(&|c| {
                c.chunks[0].receipts[0] = stranger;
            }),
        ),
    ];
    for (what, confirm) in lies {
        let refused = fixture.namespace.confirm(Scope::internal(), &confirm, None).await;
        assert_eq!(refused.as_ref().map_err(Error::code).err(), Some(bad), "{what}: {refused:?}");
    }
    assert_eq!(code(fixture.stat("/f").await), ErrorCode::NotFound);
    assert_eq!(code(fixture.put_without_slot().await), bad);
}

impl Fixture {
    async fn put_without_slot(&self) -> Result<FileStat, Error> {
        let plan = self.plan("/empty", 0).await?;
        self.namespace.confirm(Scope::internal(), &self.confirm_of(&plan), None).await
    }
}

#[tokio::test]
async fn tokens_expire_unless_chunks_are_staged() {
    let fixture = Fixture::new().await;
    let plan = fixture.plan("/f", 3 * CHUNK).await.unwrap();
    let confirm = fixture.confirm_of(&plan);
    let staged = fixture.plan("/g", 130 * CHUNK).await.unwrap();
    let written: Vec<_> = staged.chunks.iter().map(|chunk| fixture.written(chunk)).collect();
    let tokens = [staged.token.clone()];
    fixture.clock.advance(Duration::from_secs(3_599));
    fixture.namespace.stage(Scope::internal(), &tokens, &written[..60]).await.unwrap();
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(
        code(fixture.namespace.confirm(Scope::internal(), &confirm, None).await),
        ErrorCode::Stale
    );
    let next = NextPage { token: plan.token.clone(), from_offset: 0, max_chunks: 1 };
    let page = fixture.namespace.next_page(Scope::internal(), &next, &fixture.placement()).await;
    assert_eq!(code(page), ErrorCode::Stale);
    fixture.namespace.stage(Scope::internal(), &tokens, &written).await.unwrap();
    let next = NextPage { token: staged.token.clone(), from_offset: 64 * CHUNK, max_chunks: 0 };
    let page =
        fixture.namespace.next_page(Scope::internal(), &next, &fixture.placement()).await.unwrap();
    assert!(page.expires > fixture.clock.now());
    // Abandoned: nothing can be staged any more, and all of it is reaped.
    let token = std::slice::from_ref(&staged.token);
    fixture.namespace.abort(Scope::internal(), token, &[]).await.unwrap();
    let limits = ReapLimits { items: 10, pressure: false };
    let reaped = fixture.namespace.reap_uploads(Scope::internal(), &limits, None).await.unwrap();
    assert_eq!((reaped.tombstones, reaped.finished), (64, 1));
    assert_eq!(
        code(fixture.namespace.stage(Scope::internal(), &tokens, &written).await),
        ErrorCode::Stale
    );
}

#[tokio::test]
async fn replan_uses_a_new_id_and_avoids_nodes() {
    let fixture = Fixture::new().await;
    let plan = fixture.plan("/f", 2 * CHUNK).await.unwrap();
    let old = &plan.chunks[1];
    let request = Replan { token: plan.token.clone(), chunk: old.chunk, avoid: vec![NodeId(2)] };
    let again = fixture
        .namespace
        .replan_chunk(Scope::internal(), &request, &fixture.placement())
        .await
        .unwrap();
    let new = &again.chunks[0];
    assert_eq!((new.file_offset, new.max_length), (old.file_offset, old.max_length));
    assert_eq!(new.nodes, [NodeId(1), NodeId(3), NodeId(4)]);
    assert_ne!(new.chunk, old.chunk);
    let mut confirm = fixture.confirm_of(&plan);
    confirm.tokens.push(again.token.clone());
    confirm.chunks[1] = fixture.written(new);
    fixture.namespace.confirm(Scope::internal(), &confirm, None).await.unwrap();
    let avoid = vec![NodeId(1), NodeId(2), NodeId(3)];
    let request = Replan { avoid, ..request };
    let none =
        fixture.namespace.replan_chunk(Scope::internal(), &request, &fixture.placement()).await;
    assert_eq!(code(none), ErrorCode::NotEnoughNodes);
}

#[tokio::test]
async fn too_few_nodes_differs_from_too_little_space() {
    let mut fixture = Fixture::new().await;
    for candidate in &mut fixture.candidates[1..] {
        candidate.free = 10;
    }
    assert_eq!(code(fixture.plan("/f", CHUNK).await), ErrorCode::NoSpace);
    fixture.candidates.truncate(1);
    assert_eq!(code(fixture.plan("/f", CHUNK).await), ErrorCode::NotEnoughNodes);
}

#[tokio::test]
async fn replicas_on_removed_nodes_do_not_count() {
    let fixture = Fixture::new().await;
    let plan = fixture.plan("/f", CHUNK).await.unwrap();
    fixture
        .namespace
        .set_node_state(Scope::internal(), NodeId(1), NodeState::Removed)
        .await
        .unwrap();
    fixture.namespace.confirm(Scope::internal(), &fixture.confirm_of(&plan), None).await.unwrap();
    let read = fixture.open("/f").await.unwrap();
    assert_eq!(read.extents[0].chunk.replicas.len(), 2);
    let plan = fixture.plan("/g", CHUNK).await.unwrap();
    fixture
        .namespace
        .set_node_state(Scope::internal(), NodeId(2), NodeState::Removed)
        .await
        .unwrap();
    let refused =
        fixture.namespace.confirm(Scope::internal(), &fixture.confirm_of(&plan), None).await;
    assert_eq!(code(refused), ErrorCode::Stale);
}

#[tokio::test]
async fn chunk_below_the_floor_is_refused() {
    let fixture = Fixture::new().await;
    let plan = fixture.plan("/f", CHUNK).await.unwrap();
    let later = fixture.clock.now().plus(Duration::from_millis(1));
    fixture.namespace.raise_gc_floor(Scope::internal(), later, None).await.unwrap();
    let refused =
        fixture.namespace.confirm(Scope::internal(), &fixture.confirm_of(&plan), None).await;
    assert_eq!(code(refused), ErrorCode::Stale);
    let earlier = fixture.clock.now().minus(HOUR);
    let floor = fixture.namespace.raise_gc_floor(Scope::internal(), earlier, None).await.unwrap();
    assert_eq!(
        (floor, fixture.namespace.gc_floor(Scope::internal()).await.unwrap()),
        (ChunkId::floor(later), floor)
    );
}

#[tokio::test]
async fn inode_numbers_are_never_reused() {
    let fixture = Fixture::new().await;
    let random: Arc<dyn Random> = Arc::new(SeededRandom::new(5));
    let second = open(&fixture.engine, &fixture.clock, &random, None).await.unwrap();
    let mut seen = std::collections::BTreeSet::from([InodeId::ROOT]);
    for _ in 0..5_000 {
        assert!(seen.insert(fixture.namespace.next_inode().await.unwrap()));
        assert!(seen.insert(second.next_inode().await.unwrap()));
    }
}

#[tokio::test]
async fn concurrent_creates_share_engine_commits() {
    let fixture = Fixture::new().await;
    let names: Vec<String> = (0..16).map(|number| format!("/f{number}")).collect();
    let before = fixture.namespace.inner.components.committer.engine_commits();
    let puts = names.iter().map(|name| fixture.put(name, 0));
    for put in futures_util::future::join_all(puts).await {
        put.unwrap();
    }
    let commits = fixture.namespace.inner.components.committer.engine_commits() - before;
    assert!(commits < 16, "{commits}");
}

#[tokio::test]
async fn clock_that_was_ahead_blocks_no_later_upload() {
    let fixture = Fixture::new().await;
    let ahead = fixture.clock.now().plus(HOUR * 9_000);
    let other = open(&fixture.engine, &fixture.clock, &fixture.random(), None).await.unwrap();
    other.raise_gc_floor(Scope::internal(), ahead, None).await.unwrap();
    // A coordinator that does not know the floor is refused once, and then knows it.
    assert_eq!(code(fixture.put("/f", CHUNK).await), ErrorCode::Stale);
    fixture.put("/f", CHUNK).await.unwrap();
    let fresh = open(&fixture.engine, &fixture.clock, &fixture.random(), None).await.unwrap();
    let fixture = Fixture { namespace: fresh, ..fixture };
    fixture.put("/g", CHUNK).await.unwrap();
}

#[tokio::test]
async fn staged_offset_takes_only_one_chunk() {
    let fixture = Fixture::new().await;
    let plan = fixture.plan("/f", 2 * CHUNK).await.unwrap();
    let first = fixture.written(&plan.chunks[0]);
    let tokens = vec![plan.token.clone()];
    fixture
        .namespace
        .stage(Scope::internal(), &tokens, std::slice::from_ref(&first))
        .await
        .unwrap();
    let request =
        Replan { token: plan.token.clone(), chunk: plan.chunks[0].chunk, avoid: Vec::new() };
    let again = fixture
        .namespace
        .replan_chunk(Scope::internal(), &request, &fixture.placement())
        .await
        .unwrap();
    let second = fixture.written(&again.chunks[0]);
    let tokens = vec![plan.token.clone(), again.token.clone()];
    let staged =
        fixture.namespace.stage(Scope::internal(), &tokens, std::slice::from_ref(&second)).await;
    assert_eq!(code(staged), ErrorCode::InvalidArgument);
    let mut confirm = fixture.confirm_of(&plan);
    confirm.tokens = tokens;
    confirm.chunks[0] = second;
    let confirmed = fixture.namespace.confirm(Scope::internal(), &confirm, None).await;
    assert_eq!(code(confirmed), ErrorCode::InvalidArgument);
    confirm.chunks.remove(0);
    fixture.namespace.confirm(Scope::internal(), &confirm, None).await.unwrap();
    assert_eq!(fixture.open("/f").await.unwrap().extents[0].chunk_id, first.chunk);
    assert_eq!(fixture.count("k/").await, 2, "no chunk is left behind");
}

#[tokio::test]
async fn abort_reaps_the_chunks_it_names() {
    let fixture = Fixture::new().await;
    let plan = fixture.plan("/f", 3 * CHUNK).await.unwrap();
    let confirm = fixture.confirm_of(&plan);
    let tokens = [plan.token.clone()];
    let limits = ReapLimits { items: 10, pressure: false };
    let abort = async || {
        fixture.namespace.abort(Scope::internal(), &tokens, &confirm.chunks[..2]).await.unwrap();
    };
    abort().await;
    abort().await;
    let reap =
        async || fixture.namespace.reap_uploads(Scope::internal(), &limits, None).await.unwrap();
    let reaped = reap().await;
    assert_eq!((reaped.tombstones, reaped.finished), (2, 1));
    // A confirm that was in flight comes too late.
    let late = fixture.namespace.confirm(Scope::internal(), &confirm, None).await;
    assert!(late.is_err(), "{late:?}");
    assert_eq!(code(fixture.stat("/f").await), ErrorCode::NotFound);
}

#[tokio::test]
async fn abort_leaves_a_confirmed_upload_alone() {
    let fixture = Fixture::new().await;
    let plan = fixture.plan("/f", 3 * CHUNK).await.unwrap();
    let confirm = fixture.confirm_of(&plan);
    fixture.namespace.confirm(Scope::internal(), &confirm, None).await.unwrap();
    let tokens = [plan.token.clone()];
    fixture.namespace.abort(Scope::internal(), &tokens, &confirm.chunks).await.unwrap();
    let limits = ReapLimits { items: 10, pressure: false };
    let reaped = fixture.namespace.reap_uploads(Scope::internal(), &limits, None).await.unwrap();
    assert_eq!((reaped.tombstones, reaped.finished), (0, 0));
    assert_eq!(fixture.stat("/f").await.unwrap().size, 3 * CHUNK);
}
