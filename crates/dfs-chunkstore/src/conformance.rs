//! Conformance suite of [`ChunkStore`].
//!
//! ```
//! # use std::sync::Arc;
//! # use dfs_chunkstore::{ChunkStore, MemoryStore, conformance};
//! # use dfs_types::NodeId;
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
//! # runtime.block_on(async {
//! conformance::run(async || {
//!     Arc::new(MemoryStore::new(NodeId(1), 64 << 20)) as Arc<dyn ChunkStore>
//! })
//! .await;
//! # });
//! ```

use std::sync::Arc;

use bytes::Bytes;
use dfs_types::{
    BLOCK_SIZE, ChunkId, ClusterId, Crc32c, DiskId, ErrorCode, InodeId, Part, Random as _,
    ReplicaRef, SeededRandom, Sha256, Stamp, block_count,
};

use crate::{ChunkHeader, ChunkSeal, ChunkStore, ChunkWriter, FullSpeed, SealedChunk, StoreError};

type Store = Arc<dyn ChunkStore>;

/// Bytes per append.
const FRAME: usize = 256 << 10;

/// Runs the suite; `make` returns an empty store with at least 64 MiB of room each time.
///
/// # Panics
/// When the store violates the contract, with the violation.
pub async fn run<F>(make: F)
where
    F: AsyncFn() -> Store,
{
    chunks_of_all_sizes_round_trip(&make().await).await;
    ranges_come_as_whole_blocks(&make().await).await;
    only_sealed_chunks_are_there(&make().await).await;
    a_chunk_is_written_at_most_once(&make().await).await;
    what_does_not_fit_is_refused(&make().await).await;
    listing_is_paged_and_ordered(&make().await).await;
    deleting_wants_the_stamp(&make().await).await;
    stamps_are_never_shared(&make().await).await;
    set_aside_replicas_are_kept_and_readable(&make().await).await;
    replacement_takes_the_place_when_it_is_sealed(&make().await).await;
    restamped_replica_is_known_by_its_new_stamp_only(&make().await).await;
    verdict_numbers_and_stamps_are_of_one_counter(&make().await).await;
    room_is_counted(&make().await).await;
    many_tasks_at_once(&make().await).await;
    a_closed_store_refuses(&make().await).await;
}

/// Returns bytes determined by chunk and length.
pub fn content(chunk: ChunkId, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    SeededRandom::new(chunk.0 as u64).fill(&mut bytes);
    Bytes::from(bytes)
}

/// Returns a header for a chunk of up to `length` bytes.
pub fn header(chunk: ChunkId, length: usize) -> ChunkHeader {
    ChunkHeader {
        cluster: ClusterId(7),
        chunk,
        inode: InodeId(chunk.0 as u64 + 1),
        path: Bytes::from(format!("/dir/\u{fffd} {chunk}")),
        file_offset: 64 << 20,
        max_length: length as u64,
    }
}

/// Returns the seal of these bytes. Its sha256 is arbitrary: stores do not check it.
pub fn seal_of(bytes: &[u8]) -> ChunkSeal {
    let crc32c = Crc32c::of(bytes);
    ChunkSeal { length: bytes.len() as u64, crc32c, sha256: Sha256([crc32c.0 as u8; 32]) }
}

/// Appends bytes frame by frame.
pub async fn append(writer: &mut dyn ChunkWriter, bytes: &Bytes) -> Result<(), StoreError> {
    for start in (0..bytes.len()).step_by(FRAME) {
        let frame = bytes.slice(start..bytes.len().min(start + FRAME));
        let crcs = Crc32c::of_blocks(&frame);
        writer.append(frame, crcs).await?;
    }
    Ok(())
}

/// Writes and seals the chunk of [`content`].
pub async fn put(
    store: &dyn ChunkStore,
    chunk: ChunkId,
    length: usize,
) -> Result<SealedChunk, StoreError> {
    let bytes = content(chunk, length);
    let mut writer = store.create(header(chunk, length)).await?;
    append(&mut *writer, &bytes).await?;
    writer.seal(seal_of(&bytes)).await
}

/// Returns the newest replica of a chunk.
///
/// # Panics
/// When the store cannot say.
pub async fn newest(store: &dyn ChunkStore, chunk: ChunkId) -> Option<SealedChunk> {
    store.replicas(chunk).await.expect("replicas can be looked up").into_iter().next()
}

/// Returns the name of a replica that no store has.
fn no_replica(chunk: ChunkId) -> ReplicaRef {
    ReplicaRef { chunk, part: Part::WHOLE, disk: DiskId(0), stamp: Stamp(0) }
}

/// Returns the name of another replica on the same disk.
fn later(replica: ReplicaRef) -> ReplicaRef {
    ReplicaRef { stamp: Stamp(replica.stamp.0 + 1), ..replica }
}

/// Reads a complete replica and verifies its blocks.
pub async fn get(
    store: &dyn ChunkStore,
    replica: ReplicaRef,
    length: u64,
) -> Result<Bytes, StoreError> {
    let mut all = Vec::with_capacity(length as usize);
    while (all.len() as u64) < length {
        let blocks = store.read(replica, all.len() as u64, u64::MAX).await?;
        assert_eq!(blocks.offset, all.len() as u64, "reads continue where the last one ended");
        assert!(!blocks.data.is_empty(), "the chunk ends early, at {} of {length}", all.len());
        let crcs = Crc32c::of_blocks(&blocks.data);
        assert_eq!(crcs, blocks.crcs, "checksums of chunk {}", replica.chunk);
        all.extend_from_slice(&blocks.data);
    }
    Ok(Bytes::from(all))
}

/// Asserts that a chunk is complete: [`content`] and [`header`] as written.
pub async fn assert_whole(store: &dyn ChunkStore, chunk: ChunkId, length: usize) {
    let bytes = content(chunk, length);
    let found = newest(store, chunk).await.expect("a sealed chunk exists");
    let (seal, replica) = (seal_of(&bytes), found.replica());
    assert_eq!((found.length, found.crc32c), (seal.length, seal.crc32c), "seal of chunk {chunk}");
    let read = get(store, replica, length as u64).await.expect("a sealed chunk can be read");
    assert_eq!(read, bytes, "bytes of chunk {chunk}");
    let first = store.read(replica, 0, 1).await.expect("a sealed chunk can be read");
    assert_eq!(first.sha256, (length > 0).then_some(seal.sha256));
    let read = store.header(replica).await.expect("a sealed chunk has a header");
    assert_eq!(read, header(chunk, length));
    assert_eq!(store.verify(replica, &FullSpeed).await.expect("verify works"), None);
}

fn assert_code<T: std::fmt::Debug>(result: Result<T, StoreError>, code: ErrorCode) {
    let error = result.expect_err("this must be refused");
    assert_eq!(error.code(), code, "{error}");
}

async fn chunks_of_all_sizes_round_trip(store: &Store) {
    let sizes = [0, 1, 4096, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 1 << 20, (1 << 20) + 1];
    let sizes = sizes.into_iter().chain([(3 << 20) + 5, 9 << 20]);
    for (number, length) in sizes.enumerate() {
        let chunk = ChunkId(number as u128);
        let sealed = put(&**store, chunk, length).await.expect("a chunk can be written");
        assert_eq!((sealed.chunk, sealed.is_set_aside), (chunk, false));
        assert_eq!(store.stat(sealed.replica()).await.expect("stat works"), Some(sealed));
        assert_eq!(store.replicas(chunk).await.expect("a look-up works"), [sealed]);
        assert_whole(&**store, chunk, length).await;
    }
}

async fn ranges_come_as_whole_blocks(store: &Store) {
    for length in [3 * BLOCK_SIZE + 100, (2 << 20) + 100] {
        let chunk = ChunkId(length as u128);
        let sealed = put(&**store, chunk, length).await.expect("a chunk can be written");
        let replica = sealed.replica();
        let bytes = content(chunk, length);
        let length = length as u64;
        for (offset, wanted) in [
            (0, 1),
            (65_535, 2),
            (65_536, 65_536),
            (length - 1, 1),
            (length - 1, 99),
            (5, u64::MAX),
        ] {
            let blocks = store.read(replica, offset, wanted).await.expect("a range can be read");
            let start = blocks.offset as usize;
            assert_eq!(blocks.offset, offset - offset % BLOCK_SIZE as u64);
            assert!(blocks.data.len() <= 1 << 20, "a read is limited");
            assert_eq!(blocks.data, bytes.slice(start..start + blocks.data.len()));
            assert_eq!(block_count(blocks.data.len() as u64), blocks.crcs.len() as u64);
            let end = start + blocks.data.len();
            let is_block_end = end.is_multiple_of(BLOCK_SIZE) || end as u64 == length;
            assert!(is_block_end && end as u64 >= length.min((offset + 1).min(wanted)));
        }
        for (offset, wanted) in [(length, 1), (u64::MAX, u64::MAX), (0, 0)] {
            let blocks = store.read(replica, offset, wanted).await.expect("nothing can be read");
            assert!(blocks.data.is_empty() && blocks.crcs.is_empty());
        }
    }
    assert_code(store.read(no_replica(ChunkId(1)), 0, 1).await, ErrorCode::NotFound);
    assert_code(store.header(no_replica(ChunkId(1))).await, ErrorCode::NotFound);
    assert_code(store.verify(no_replica(ChunkId(1)), &FullSpeed).await, ErrorCode::NotFound);
}

async fn only_sealed_chunks_are_there(store: &Store) {
    for length in [10, 3 << 20] {
        let chunk = ChunkId(length as u128);
        let bytes = content(chunk, length);
        let mut writer = store.create(header(chunk, length)).await.expect("create works");
        append(&mut *writer, &bytes).await.expect("append works");
        assert_eq!(writer.length(), length as u64);
        assert_eq!(newest(&**store, chunk).await, None);
        assert!(store.list(None, 9).await.expect("list works").is_empty());
        drop(writer);
        // Room and claim of the chunk are released, though not necessarily at once.
        let mut writer = loop {
            match store.create(header(chunk, length)).await {
                Ok(writer) => break writer,
                Err(StoreError::Exists(_)) => tokio::task::yield_now().await,
                Err(error) => unreachable_error(&error),
            }
        };
        append(&mut *writer, &bytes).await.expect("append works");
        let sealed = writer.seal(seal_of(&bytes)).await.expect("seal works");
        assert_whole(&**store, chunk, length).await;
        assert!(store.delete(sealed.replica()).await.expect("delete works"));
    }
}

#[allow(clippy::panic)] // a suite reports violations by panicking
fn unreachable_error(error: &StoreError) -> ! {
    panic!("unexpected: {error}")
}

async fn a_chunk_is_written_at_most_once(store: &Store) {
    let chunk = ChunkId(5);
    let writer = store.create(header(chunk, 10)).await.expect("create works");
    assert_code(store.create(header(chunk, 10)).await.map(|_| ()), ErrorCode::AlreadyExists);
    drop(writer);
    put(&**store, chunk, 10).await.expect("a chunk can be written");
    assert_code(store.create(header(chunk, 10)).await.map(|_| ()), ErrorCode::AlreadyExists);
    assert_whole(&**store, chunk, 10).await;
}

async fn what_does_not_fit_is_refused(store: &Store) {
    let mismatch = ErrorCode::ChecksumMismatch;
    for length in [100, (2 << 20) + 100] {
        let chunk = ChunkId(length as u128);
        let bytes = content(chunk, length);
        let good = seal_of(&bytes);
        let bad = [
            ChunkSeal { length: good.length + 1, ..good },
            ChunkSeal { length: good.length - 1, ..good },
            ChunkSeal { crc32c: Crc32c(!good.crc32c.0), ..good },
        ];
        for (number, bad) in bad.into_iter().enumerate() {
            let chunk = ChunkId(chunk.0 + number as u128);
            let mut writer = store.create(header(chunk, length)).await.expect("create works");
            append(&mut *writer, &bytes).await.expect("append works");
            assert_code(writer.seal(bad).await, mismatch);
            assert_eq!(newest(&**store, chunk).await, None);
        }
        let mut writer = store.create(header(ChunkId(1), length - 1)).await.expect("create works");
        assert_code(append(&mut *writer, &bytes).await, mismatch);
        drop(writer);
    }
    let mut writer = store.create(header(ChunkId(2), 100)).await.expect("create works");
    writer
        .append(content(ChunkId(2), 50), vec![Crc32c(1)])
        .await
        .expect("a short block at the end");
    let more = writer.append(content(ChunkId(2), 50), vec![Crc32c(1)]).await;
    assert_code(more, mismatch);
    let mut writer = store.create(header(ChunkId(3), 100)).await.expect("create works");
    assert_code(writer.append(content(ChunkId(3), 50), Vec::new()).await, mismatch);
}

async fn listing_is_paged_and_ordered(store: &Store) {
    let mut wanted = Vec::new();
    for number in [5_u128, 1, 9, 3, 7] {
        let length = if number == 3 { 2 << 20 } else { 100 };
        wanted.push(put(&**store, ChunkId(number << 80), length).await.expect("put works"));
    }
    wanted.sort_by_key(|sealed| sealed.chunk);
    let mut found = Vec::new();
    loop {
        let after = found.last().map(|sealed: &SealedChunk| sealed.chunk);
        let page = store.list(after, 2).await.expect("list works");
        assert!(page.len() <= 2);
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    assert_eq!(found, wanted);
}

async fn deleting_wants_the_stamp(store: &Store) {
    for length in [100, 2 << 20] {
        let chunk = ChunkId(length as u128);
        let sealed = put(&**store, chunk, length).await.expect("put works");
        assert!(!store.delete(later(sealed.replica())).await.expect("delete works"));
        assert_whole(&**store, chunk, length).await;
        assert!(store.delete(sealed.replica()).await.expect("delete works"));
        assert!(!store.delete(sealed.replica()).await.expect("delete works"));
        assert_eq!(newest(&**store, chunk).await, None);
        assert_code(store.read(sealed.replica(), 0, 1).await, ErrorCode::NotFound);
    }
    assert!(store.list(None, 9).await.expect("list works").is_empty());
}

async fn stamps_are_never_shared(store: &Store) {
    for length in [100, 2 << 20] {
        let chunk = ChunkId(length as u128);
        let mut stamps = Vec::new();
        for _ in 0..3 {
            let sealed = put(&**store, chunk, length).await.expect("put works");
            assert!(!stamps.contains(&sealed.stamp), "a stamp was reused");
            for stamp in &stamps {
                let earlier = ReplicaRef { stamp: *stamp, ..sealed.replica() };
                assert!(!store.delete(earlier).await.expect("delete works"));
            }
            stamps.push(sealed.stamp);
            assert!(store.delete(sealed.replica()).await.expect("delete works"));
        }
    }
}

async fn set_aside_replicas_are_kept_and_readable(store: &Store) {
    for length in [100, 2 << 20] {
        let chunk = ChunkId(length as u128);
        let sealed = put(&**store, chunk, length).await.expect("put works");
        let replica = sealed.replica();
        assert_code(store.set_aside(later(replica)).await, ErrorCode::NotFound);
        store.set_aside(replica).await.expect("set aside works");
        store.set_aside(replica).await.expect("set aside can be repeated");
        let read = get(&**store, replica, length as u64).await.expect("it can be read");
        assert_eq!(read, content(chunk, length));
        let marked = SealedChunk { is_set_aside: true, ..sealed };
        assert_eq!(store.stat(replica).await.expect("stat works"), Some(marked));
        assert_eq!(store.list(None, 9).await.expect("list works"), [marked]);
        assert_eq!(store.verify(replica, &FullSpeed).await.expect("verify works"), None);
        assert_eq!(store.header(replica).await.expect("header works"), header(chunk, length));
        assert_code(store.create(header(chunk, 1)).await.map(|_| ()), ErrorCode::AlreadyExists);
        assert_code(store.reinstate(later(replica)).await, ErrorCode::NotFound);
        store.reinstate(replica).await.expect("reinstate works");
        assert_eq!(store.stat(replica).await.expect("stat works"), Some(sealed));
        assert!(store.delete(sealed.replica()).await.expect("delete works"));
    }
    assert_code(store.set_aside(no_replica(ChunkId(1))).await, ErrorCode::NotFound);
}

async fn replacement_takes_the_place_when_it_is_sealed(store: &Store) {
    for length in [100, 2 << 20] {
        let chunk = ChunkId(length as u128);
        let bytes = content(chunk, length);
        let old = put(&**store, chunk, length).await.expect("put works").replica();
        store.set_aside(old).await.expect("set aside works");
        let refused = store.replace(header(chunk, length), later(old)).await.map(|_| ());
        assert_code(refused, ErrorCode::NotFound);
        for is_sealed in [false, true] {
            let mut writer = loop {
                // The one given up is released, if not at once.
                match store.replace(header(chunk, length), old).await {
                    Ok(writer) => break writer,
                    Err(StoreError::Exists(_)) => tokio::task::yield_now().await,
                    Err(error) => unreachable_error(&error),
                }
            };
            append(&mut *writer, &bytes).await.expect("append works");
            let second = store.replace(header(chunk, length), old).await.map(|_| ());
            assert_code(second, ErrorCode::AlreadyExists);
            assert_code(store.delete(old).await, ErrorCode::Busy);
            let read = get(&**store, old, length as u64).await.expect("it is kept");
            assert_eq!(read, bytes);
            if is_sealed {
                let new = writer.seal(seal_of(&bytes)).await.expect("seal works");
                assert!(new.stamp > old.stamp && new.disk == old.disk && !new.is_set_aside);
                assert_eq!(store.stat(old).await.expect("stat works"), None);
                assert!(!store.delete(old).await.expect("delete works"));
                let read = get(&**store, new.replica(), length as u64).await;
                assert_eq!(read.expect("it can be read"), bytes);
                assert_eq!(store.list(None, 9).await.expect("list works"), [new]);
                assert_eq!(store.usage().iter().map(|disk| disk.chunks).sum::<u64>(), 1);
                assert!(store.delete(new.replica()).await.expect("delete works"));
            }
        }
    }
    let refused = store.replace(header(ChunkId(1), 1), no_replica(ChunkId(1))).await.map(|_| ());
    assert_code(refused, ErrorCode::NotFound);
}

async fn restamped_replica_is_known_by_its_new_stamp_only(store: &Store) {
    for length in [100, 2 << 20] {
        let chunk = ChunkId(length as u128);
        let old = put(&**store, chunk, length).await.expect("put works");
        // Cached under the old stamp.
        get(&**store, old.replica(), length as u64).await.expect("it can be read");
        let new = store.restamp(old.replica()).await.expect("restamp works");
        assert_eq!(new, SealedChunk { stamp: new.stamp, ..old });
        assert!(new.stamp > old.stamp);
        assert_eq!(store.stat(old.replica()).await.expect("stat works"), None);
        assert!(!store.delete(old.replica()).await.expect("delete works"));
        assert_code(store.restamp(old.replica()).await, ErrorCode::NotFound);
        assert_whole(&**store, chunk, length).await;
        assert_eq!(store.list(None, 9).await.expect("list works"), [new]);
        let writer = store.replace(header(chunk, length), new.replica()).await;
        let writer = writer.expect("replace works");
        assert_code(store.restamp(new.replica()).await, ErrorCode::AlreadyExists);
        drop(writer);
        assert!(store.delete(new.replica()).await.expect("delete works"));
    }
    assert_code(store.restamp(no_replica(ChunkId(1))).await, ErrorCode::NotFound);
}

async fn verdict_numbers_and_stamps_are_of_one_counter(store: &Store) {
    let first = put(&**store, ChunkId(1), 100).await.expect("put works").stamp.0;
    let (second, third) = (store.verdict_number(), store.verdict_number());
    let fourth = put(&**store, ChunkId(2), 100).await.expect("put works").stamp.0;
    assert!(first < second && second < third && third < fourth);
}

async fn room_is_counted(store: &Store) {
    let sum = || {
        let usage = store.usage();
        (
            usage.iter().map(|disk| disk.chunks).sum::<u64>(),
            usage.iter().map(|disk| disk.free).sum(),
        )
    };
    let (none, before): (u64, u64) = sum();
    assert_eq!(none, 0);
    let small = put(&**store, ChunkId(1), 100_000).await.expect("put works");
    let large = put(&**store, ChunkId(2), 3 << 20).await.expect("put works");
    let (two, after) = sum();
    assert_eq!(two, 2);
    assert!(after <= before - 100_000 - (3 << 20), "{before} before, {after} after");
    assert!(store.delete(small.replica()).await.expect("delete works"));
    assert!(store.delete(large.replica()).await.expect("delete works"));
    assert_eq!(sum().0, 0);
    assert!(sum().1 >= after + 100_000 + (3 << 20), "deletes free space");
}

async fn many_tasks_at_once(store: &Store) {
    let mut tasks = Vec::new();
    for number in 0..24_u128 {
        let store = Arc::clone(store);
        tasks.push(tokio::spawn(async move {
            let length = if number % 6 == 0 { (1 << 20) + 4097 } else { 5000 };
            let chunk = ChunkId(number);
            let sealed = put(&*store, chunk, length).await.expect("put works");
            assert_whole(&*store, chunk, length).await;
            match number % 3 {
                0 => assert!(store.delete(sealed.replica()).await.expect("delete works")),
                1 => store.set_aside(sealed.replica()).await.expect("set aside works"),
                _ => {}
            }
        }));
    }
    for task in tasks {
        task.await.expect("no task panics");
    }
    let left = store.list(None, 99).await.expect("list works");
    let left: Vec<_> = left.iter().map(|sealed| (sealed.chunk.0, sealed.is_set_aside)).collect();
    let wanted: Vec<_> = (0..24).filter(|n| n % 3 != 0).map(|n| (n, n % 3 == 1)).collect();
    assert_eq!(left, wanted);
}

async fn a_closed_store_refuses(store: &Store) {
    let sealed = put(&**store, ChunkId(1), 100).await.expect("put works");
    let mut open = store.create(header(ChunkId(2), 100)).await.expect("create works");
    append(&mut *open, &content(ChunkId(2), 100)).await.expect("append works");
    store.close(std::time::Duration::from_secs(10)).await;
    assert_code(store.create(header(ChunkId(3), 1)).await.map(|_| ()), ErrorCode::Unavailable);
    assert_code(store.read(sealed.replica(), 0, 1).await, ErrorCode::Unavailable);
    assert_code(open.seal(seal_of(&content(ChunkId(2), 100))).await, ErrorCode::Unavailable);
}
