//! Disks that fail, fill up and lie.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};

use bytes::Bytes;
use dfs_chunkstore::sim::{Operation, SimFs};
use dfs_chunkstore::{
    ChunkStore, Config, DiskStore, Fs, FsCall, FsHook, FullSpeed, HookedFs, IdentityStore,
    OpenError, Opening, OsFs, Pool, StoreError, conformance,
};
use dfs_types::{
    BLOCK_SIZE, ChunkId, ClusterId, Crc32c, DiskState, ErrorCode, Level, OsRandom, SeededRandom,
};

use crate::support::{config, numbered, open_sim, registration, states};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// A chunk of each layout.
const SMALL: usize = 4 << 10;
const LARGE: usize = 3 << 20;

#[tokio::test]
async fn failed_sync_fails_the_chunk_and_its_disk() {
    for length in [SMALL, LARGE] {
        let fs = SimFs::new();
        let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
        conformance::put(&store, ChunkId(1), length).await.unwrap();
        fs.fail(Path::new("/a"), Operation::Sync, EIO);
        let failed = conformance::put(&store, ChunkId(2), length).await;
        assert!(matches!(failed, Err(StoreError::Io { .. })), "{failed:?}");
        fs.heal();

        // A later successful sync does not restore what the failed one lost.
        assert!(store.usage()[0].state == DiskState::Failed);
        assert_eq!(conformance::newest(&store, ChunkId(2)).await, None);
        let refused = conformance::put(&store, ChunkId(3), length).await;
        assert!(matches!(refused, Err(StoreError::NoSpace(_))), "{refused:?}");
        assert_eq!(
            conformance::newest(&store, ChunkId(1)).await,
            None,
            "a failed disk serves nothing"
        );

        drop(store);
        fs.crash();
        let store = open_sim(&fs, config(&["/a"]), 2).await.unwrap();
        assert!(store.usage()[0].state.is_in_service(), "a restart gives it another chance");
        assert_eq!(conformance::newest(&store, ChunkId(2)).await, None);
        conformance::assert_whole(&store, ChunkId(1), length).await;
    }
}

#[tokio::test]
async fn probe_tells_an_unreadable_file_from_an_unreadable_disk() {
    let fs = SimFs::new();
    let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
    conformance::put(&store, ChunkId(1), LARGE).await.unwrap();
    let disk = store.usage()[0].disk;
    fs.fail(Path::new("/a/chunks"), Operation::Read, EIO);
    store.probe(disk).await.unwrap();
    fs.fail(Path::new("/a"), Operation::Read, EIO);
    let dark = store.probe(disk).await;
    assert!(matches!(dark, Err(StoreError::Io { .. })), "{dark:?}");
    assert_eq!(states(&store), [DiskState::Healthy], "a probe fails no disk");
}

#[tokio::test]
async fn disk_failed_by_its_user_serves_nothing_until_the_next_start() {
    let fs = SimFs::new();
    let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
    let sealed = conformance::put(&store, ChunkId(1), SMALL).await.unwrap();
    store.fail_disk(sealed.disk, "much is unreadable");
    assert_eq!(states(&store), [DiskState::Failed]);
    assert_eq!(store.usage()[0].reason, "/a: much is unreadable");
    assert_eq!(store.stat(sealed.replica()).await.unwrap(), None);
    drop(store);
    fs.crash();
    let store = open_sim(&fs, config(&["/a"]), 2).await.unwrap();
    conformance::assert_whole(&store, ChunkId(1), SMALL).await;
}

#[tokio::test]
async fn other_disks_take_over_from_a_failed_one() {
    for length in [SMALL, LARGE] {
        let fs = SimFs::new();
        let store = open_sim(&fs, config(&["/a", "/b"]), 1).await.unwrap();
        fs.fail(Path::new("/a"), Operation::Write, EIO);
        let results = [
            conformance::put(&store, ChunkId(1), length).await,
            conformance::put(&store, ChunkId(2), length).await,
            conformance::put(&store, ChunkId(3), length).await,
        ];
        assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1, "{results:?}");
        let failed: Vec<_> =
            store.usage().iter().map(|disk| disk.state == DiskState::Failed).collect();
        assert_eq!(failed, [true, false]);
        for (chunk, result) in (1..).zip(results) {
            if result.is_ok() {
                conformance::assert_whole(&store, ChunkId(chunk), length).await;
            }
        }
    }
}

#[tokio::test]
async fn full_disk_refuses_writes_but_serves_and_deletes() {
    for length in [SMALL, LARGE] {
        let fs = SimFs::new();
        let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
        fs.set_capacity(8 << 20);
        let mut sealed = Vec::new();
        let error = loop {
            let chunk = ChunkId(sealed.len() as u128 + 1);
            match conformance::put(&store, chunk, length).await {
                Ok(replica) => sealed.push(replica),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StoreError::NoSpace(_)), "{error}");
        assert!(!sealed.is_empty() && store.usage()[0].state.is_in_service());
        for replica in &sealed {
            conformance::assert_whole(&store, replica.chunk, length).await;
        }
        for replica in &sealed {
            assert!(store.delete(replica.replica()).await.unwrap());
        }
        // The space of a file counts until its directory is synced.
        for folder in ["/a/segments".to_owned()].into_iter().chain(shards(&fs)) {
            fs.sync_dir(Path::new(&folder)).unwrap();
        }
        conformance::put(&store, ChunkId(0xfff), length).await.unwrap();
    }
}

#[tokio::test]
async fn write_that_does_not_fit_leaves_no_trace() {
    // The file system fills up although the store expected space.
    for length in [60 << 10, LARGE] {
        let fs = SimFs::new();
        let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
        conformance::put(&store, ChunkId(1), length).await.unwrap();
        let space = fs.space(Path::new("/")).unwrap();
        let mut writer = store.create(conformance::header(ChunkId(2), length)).await.unwrap();
        fs.set_capacity(space.total - space.available + (8 << 10));
        let bytes = conformance::content(ChunkId(2), length);
        let result = match conformance::append(&mut *writer, &bytes).await {
            Ok(()) => writer.seal(conformance::seal_of(&bytes)).await.map(drop),
            Err(error) => Err(error),
        };
        assert!(matches!(result, Err(StoreError::NoSpace(_))), "{result:?}");
        assert!(store.usage()[0].state.is_in_service());
        fs.set_capacity(1 << 40);
        conformance::put(&store, ChunkId(3), length).await.unwrap();
        drop(store);
        fs.crash();
        let store = open_sim(&fs, config(&["/a"]), 2).await.unwrap();
        assert_eq!(conformance::newest(&store, ChunkId(2)).await, None);
        conformance::assert_whole(&store, ChunkId(1), length).await;
        conformance::assert_whole(&store, ChunkId(3), length).await;
    }
}

#[tokio::test]
async fn flipped_bit_is_found_by_read_and_verify() {
    let length = 2 * BLOCK_SIZE + 100;
    for length in [length, LARGE] {
        let fs = SimFs::new();
        let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
        let chunk = ChunkId(0x17);
        let replica = conformance::put(&store, chunk, length).await.unwrap().replica();
        assert_eq!(store.verify(replica, &FullSpeed).await.unwrap(), None);
        let bytes = conformance::content(chunk, length);
        let (path, at) = find(&fs, &bytes[..64]);
        fs.flip_bit(&path, at + BLOCK_SIZE as u64 + 9, 3).unwrap();

        assert_eq!(store.verify(replica, &FullSpeed).await.unwrap(), Some(1));
        let blocks = store.read(replica, 0, length as u64).await.unwrap();
        let crcs = Crc32c::of_blocks(&blocks.data);
        let bad: Vec<_> =
            (0..crcs.len()).filter(|block| crcs[*block] != blocks.crcs[*block]).collect();
        assert_eq!(bad, [1], "the checksums show which block is bad");
    }
}

/// Flips a bit back at one of the next reads.
struct Healing {
    fs: SimFs,
    bit: Mutex<Option<(PathBuf, u64)>>,
    /// Reads of chunks so far, and the one at which the bit is flipped back.
    reads: Mutex<(usize, usize)>,
}

impl FsHook for Healing {
    type Running<'a> = ();

    fn begin(&self, _path: &Path, call: FsCall) -> io::Result<()> {
        if let FsCall::Read { .. } = call {
            let mut reads = self.reads.lock().unwrap();
            reads.0 += 1;
            if reads.0 == reads.1
                && let Some((path, at)) = self.bit.lock().unwrap().take()
            {
                self.fs.flip_bit(&path, at, 3)?;
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn block_that_is_bad_in_one_read_only_is_not_bad() {
    for length in [2 * BLOCK_SIZE + 100, LARGE] {
        let fs = SimFs::new();
        let (bit, reads) = (Mutex::default(), Mutex::default());
        let hook = Arc::new(Healing { fs: fs.clone(), bit, reads });
        let hooked = Arc::new(HookedFs::new(Arc::new(fs.clone()), Arc::clone(&hook)));
        let random = Arc::new(SeededRandom::new(1));
        let store = DiskStore::open(config(&["/a"]), hooked, Pool::inline(), random).await.unwrap();
        let chunk = ChunkId(0x17);
        let replica = conformance::put(&store, chunk, length).await.unwrap().replica();
        let (path, at) = find(&fs, &conformance::content(chunk, length)[..64]);
        let at = at + 9;
        let verify = async |healing| {
            fs.flip_bit(&path, at, 3).unwrap();
            *hook.bit.lock().unwrap() = Some((path.clone(), at));
            *hook.reads.lock().unwrap() = (0, healing);
            let found = store.verify(replica, &FullSpeed).await.unwrap();
            (found, hook.bit.lock().unwrap().is_none(), hook.reads.lock().unwrap().0)
        };
        let (found, is_healed, reads) = verify(usize::MAX).await;
        assert_eq!((found, is_healed), (Some(0), false));
        fs.flip_bit(&path, at, 3).unwrap();
        // Each step reads the same twice.
        assert_eq!(reads % 2, 0);
        assert_eq!(verify(reads / 2 + 1).await.0, None);
    }
}

#[tokio::test]
async fn header_of_another_replica_is_not_returned() {
    let fs = SimFs::new();
    let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
    let first = conformance::put(&store, ChunkId(0x17), LARGE).await.unwrap();
    let second = conformance::put(&store, ChunkId(0x18), LARGE).await.unwrap();
    let path = |chunk: ChunkId| find(&fs, &conformance::content(chunk, LARGE)[..64]).0;
    let (from, to) = (path(first.chunk), path(second.chunk));
    // A write that the disk lost, in the place of which an earlier one is still there.
    let from = fs.open(&from, Opening::Existing).unwrap();
    let bytes = from.read_at(0, from.length().unwrap() as usize).unwrap();
    fs.open(&to, Opening::Existing).unwrap().write_at(0, &[bytes]).unwrap();
    let header = store.header(second.replica()).await;
    assert!(matches!(header, Err(StoreError::Damaged { .. })), "{header:?}");
    assert_eq!(store.verify(second.replica(), &FullSpeed).await.unwrap(), Some(0));
}

#[tokio::test]
async fn blocks_of_a_replica_set_aside_are_served_if_the_seal_proves_their_checksums() {
    for length in [2 * BLOCK_SIZE + 100, LARGE] {
        let fs = SimFs::new();
        let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
        let chunk = ChunkId(0x17);
        let replica = conformance::put(&store, chunk, length).await.unwrap().replica();
        let bytes = conformance::content(chunk, length);
        let crcs = Crc32c::of_blocks(&bytes);
        let table: Vec<u8> = crcs.iter().flat_map(|crc| crc.0.to_be_bytes()).collect();
        let (path, head) = find(&fs, b"dfschunk");
        fs.flip_bit(&path, head + 20, 1).unwrap();
        store.set_aside(replica).await.unwrap();
        drop(store);
        // Its head was rebuilt, without what the index did not know.
        let store = open_sim(&fs, config(&["/a"]), 2).await.unwrap();
        assert_eq!(conformance::get(&store, replica, length as u64).await.unwrap(), bytes);
        assert_eq!(store.verify(replica, &FullSpeed).await.unwrap(), Some(0), "it stays bad");
        let (path, table) = find(&fs, &table);
        fs.flip_bit(&path, table, 1).unwrap();
        drop(store);
        let store = open_sim(&fs, config(&["/a"]), 3).await.unwrap();
        let read = store.read(replica, 0, 1).await;
        assert!(matches!(read, Err(StoreError::Damaged { .. })), "{read:?}");
    }
}

#[tokio::test]
async fn unreadable_bytes_are_not_damage() {
    for length in [SMALL, LARGE] {
        let fs = SimFs::new();
        let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
        let chunk = ChunkId(0x17);
        let replica = conformance::put(&store, chunk, length).await.unwrap().replica();
        fs.fail(Path::new("/a"), Operation::Read, EIO);
        let read = store.read(replica, 0, 1).await;
        assert!(matches!(read, Err(StoreError::Unreadable { .. })), "{read:?}");
        let verified = store.verify(replica, &FullSpeed).await;
        assert!(matches!(verified, Err(StoreError::Unreadable { .. })), "{verified:?}");
        fs.heal();
        assert_eq!(store.verify(replica, &FullSpeed).await.unwrap(), None);
    }
}

/// Marking a replica must not overwrite a part of a page that cannot be read: that would fail, and
/// take every other replica of the disk out of service.
#[tokio::test]
async fn replica_with_an_unreadable_head_is_set_aside_and_deleted_and_its_disk_stays_in_service() {
    for length in [SMALL, LARGE] {
        let fs = SimFs::new();
        let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
        let replica = conformance::put(&store, ChunkId(1), length).await.unwrap().replica();
        conformance::put(&store, ChunkId(2), length).await.unwrap();
        // With its file open, as opening it would fail the disk.
        store.read(replica, 0, 1).await.unwrap();
        fs.fail(Path::new("/a"), Operation::Read, EIO);
        store.set_aside(replica).await.unwrap();
        assert!(store.stat(replica).await.unwrap().unwrap().is_set_aside);
        let refused = store.reinstate(replica).await;
        assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
        assert!(store.stat(replica).await.unwrap().unwrap().is_set_aside);
        assert!(store.delete(replica).await.unwrap());
        assert_eq!(states(&store), [DiskState::Healthy]);
        drop(store);
        fs.crash();
        fs.heal();
        let store = open_sim(&fs, config(&["/a"]), 2).await.unwrap();
        assert_eq!(conformance::newest(&store, ChunkId(1)).await, None);
        assert_eq!(store.damaged(), []);
        conformance::assert_whole(&store, ChunkId(2), length).await;
    }
}

#[tokio::test]
async fn damage_beside_the_data_never_returns_wrong_bytes() {
    for length in [BLOCK_SIZE + 100, LARGE] {
        let chunk = ChunkId(0x17);
        let bytes = conformance::content(chunk, length);
        let image = SimFs::new();
        let store = open_sim(&image, config(&["/a"]), 1).await.unwrap();
        let replica = conformance::put(&store, chunk, length).await.unwrap().replica();
        let (path, data) = find(&image, &bytes[..64]);
        let end = image.open(&path, Opening::Existing).unwrap().length().unwrap();
        let data = data..data + length as u64;
        // Bytes of the record in steps coprime to the length of its fields.
        for at in (0..end).filter(|at| !data.contains(at)).step_by(31) {
            image.flip_bit(&path, at, 5).unwrap();
            if let Ok(blocks) = store.read(replica, 0, 1).await
                && Crc32c::of_blocks(&blocks.data) == blocks.crcs
            {
                assert_eq!(blocks.data, bytes[..blocks.data.len()]);
            }
            image.flip_bit(&path, at, 5).unwrap();
        }
    }
}

#[tokio::test]
async fn small_chunks_sealed_together_share_a_sync() {
    let (fs, gate, gated) = gated();
    let random = Arc::new(SeededRandom::new(1));
    let store = DiskStore::open(config(&["/a"]), gated, Pool::threads(2), random);
    let store = Arc::new(store.await.unwrap());
    conformance::put(&*store, ChunkId(1), SMALL).await.unwrap();

    let mut seals = Vec::new();
    for number in 2..34 {
        let bytes = conformance::content(ChunkId(number), SMALL);
        let header = conformance::header(ChunkId(number), SMALL);
        let mut writer = store.create(header).await.unwrap();
        conformance::append(&mut *writer, &bytes).await.unwrap();
        seals.push(writer.seal(conformance::seal_of(&bytes)));
    }
    let before = fs.syncs();
    let (is_entered, release) = gate.hold_sync();
    // A seal is queued once it was polled.
    assert!(futures_util::poll!(&mut seals[0]).is_pending());
    is_entered.recv().unwrap();
    for seal in &mut seals[1..] {
        assert!(futures_util::poll!(seal).is_pending(), "the sync of the first one hangs");
    }
    release.send(()).unwrap();
    for sealed in futures_util::future::join_all(seals).await {
        sealed.unwrap();
    }
    // One for the first, one for all the others, and a new segment at the limit.
    let syncs = fs.syncs() - before;
    assert!(syncs <= 4, "32 chunks took {syncs} syncs");
    for number in 1..34 {
        conformance::assert_whole(&*store, ChunkId(number), SMALL).await;
    }
}

#[tokio::test]
async fn deleting_a_small_chunk_frees_its_space_at_once() {
    let base = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let folder = tempfile::tempdir_in(base).unwrap();
    let path = folder.path().to_str().unwrap();
    let mut config = config(&[path]);
    config.segment_bytes = 64 << 20;
    let fs = Arc::new(OsFs::new());
    let store = DiskStore::open(config, fs, Pool::threads(1), Arc::new(OsRandom)).await.unwrap();
    let length = 256 << 10;
    let mut sealed = Vec::new();
    for number in 1..=8 {
        sealed.push(conformance::put(&store, ChunkId(number), length).await.unwrap());
    }
    let taken = || {
        let segments = std::fs::read_dir(folder.path().join("segments")).unwrap();
        segments.map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum::<u64>()
    };
    assert!(taken() >= 8 * length as u64);
    for replica in &sealed[..7] {
        assert!(store.delete(replica.replica()).await.unwrap());
    }
    assert!(taken() < 2 * length as u64, "{} bytes are still taken", taken());
    conformance::assert_whole(&store, ChunkId(8), length).await;
}

#[tokio::test]
async fn foreign_folders_are_refused() {
    let fs = SimFs::new();
    let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
    let refused = open_sim(&fs, config(&["/a"]), 2).await.err();
    assert!(matches!(refused, Some(OpenError::InUse(_))), "{refused:?}");
    store.store_registration(registration(1)).await.unwrap();
    let refused = store.store_registration(registration(2)).await;
    assert!(matches!(refused, Err(StoreError::WrongCluster(ClusterId(1)))), "{refused:?}");
    drop(store);

    let other = open_sim(&fs, config(&["/b"]), 3).await.unwrap();
    drop(other);
    let refused = open_sim(&fs, config(&["/a", "/b"]), 4).await.err();
    assert!(matches!(refused, Some(OpenError::MixedDisks { .. })), "{refused:?}");

    fs.create_dir(Path::new("/c")).unwrap();
    write(&fs, "/c/thesis.txt", "mine");
    let refused = open_sim(&fs, config(&["/c"]), 5).await.err();
    assert!(matches!(refused, Some(OpenError::NotEmpty(_))), "{refused:?}");

    write(&fs, "/b/dfs-identity", "dfs disk, level 2\nsomething new\n");
    let refused = open_sim(&fs, config(&["/b"]), 6).await.err();
    assert!(
        matches!(refused, Some(OpenError::NewerLevel { found: Level(2), newest: Level(1), .. })),
        "{refused:?}"
    );

    write(&fs, "/b/dfs-identity", "dfs disk, format 1\nsomething old\n");
    let refused = open_sim(&fs, config(&["/b"]), 6).await.err();
    assert!(matches!(refused, Some(OpenError::OldDisk(_))), "{refused:?}");

    write(&fs, "/b/dfs-identity", "dfs disk, level 1\nnode 7\n");
    let refused = open_sim(&fs, config(&["/b"]), 7).await.err();
    assert!(matches!(refused, Some(OpenError::DamagedIdentity { .. })), "{refused:?}");
}

/// F3: a full disk misses registrations, and the start of the store. It is served, and returns once
/// the cluster has compared it with its records.
#[tokio::test]
async fn f03_full_disk_misses_a_registration_and_returns() {
    use DiskState::{Healthy, Returning};
    let (fs, folders) = (SimFs::new(), ["/a", "/b", "/c"]);
    let store = open_sim(&fs, config(&folders), 1).await.unwrap();
    store.store_registration(numbered(1)).await.unwrap();
    conformance::put(&store, ChunkId(1), SMALL).await.unwrap();
    fs.fail(Path::new("/a"), Operation::Write, ENOSPC);
    store.store_registration(numbered(2)).await.unwrap();
    assert_eq!(states(&store), [Returning, Healthy, Healthy]);
    fs.fail(Path::new("/b"), Operation::Write, ENOSPC);
    store.store_registration(numbered(3)).await.unwrap();
    assert_eq!(states(&store), [Returning, Returning, Healthy]);
    conformance::assert_whole(&store, ChunkId(1), SMALL).await;
    fs.fail(Path::new("/c"), Operation::Write, ENOSPC);
    let refused = store.store_registration(numbered(4)).await;
    assert!(matches!(refused, Err(StoreError::NoSpace(_))), "{refused:?}");
    drop(store);
    fs.crash();
    let refused = open_sim(&fs, config(&folders), 2).await.err().unwrap();
    assert_eq!(refused.code(), ErrorCode::NoSpace, "no disk can record the start: {refused}");
    fs.heal();
    let store = open_sim(&fs, config(&folders), 3).await.unwrap();
    assert_eq!(states(&store), [Returning, Returning, Healthy]);
    store.store_registration(numbered(9)).await.unwrap();
    for disk in store.usage() {
        store.settle_disk(disk.disk).await.unwrap();
    }
    assert_eq!(states(&store), [Healthy; 3]);
    drop(store);
    fs.crash();
    for full in folders {
        fs.fail(Path::new(full), Operation::Write, ENOSPC);
        let store = open_sim(&fs, config(&folders), 4).await.unwrap();
        assert_eq!(states(&store).iter().filter(|state| **state == Healthy).count(), 2);
        assert_eq!(store.identity().registration, Some(numbered(9)));
        fs.heal();
    }
    let store = open_sim(&fs, config(&folders), 5).await.unwrap();
    assert_eq!(states(&store), [Healthy; 3], "no registration was missed");
}

/// Otherwise the node, whose disks may work again after a restart, would count as an older copy.
#[tokio::test]
async fn registration_that_no_disk_has_is_refused() {
    let (fs, folders) = (SimFs::new(), ["/a", "/b"]);
    let store = open_sim(&fs, config(&folders), 1).await.unwrap();
    store.store_registration(numbered(1)).await.unwrap();
    for folder in folders {
        fs.fail(Path::new(folder), Operation::Write, EIO);
    }
    let refused = store.store_registration(numbered(2)).await;
    assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
    assert_eq!(states(&store), [DiskState::Failed; 2]);
    for number in [3, 4] {
        let refused = store.store_registration(numbered(number)).await;
        assert!(matches!(refused, Err(StoreError::NoneInService)), "{refused:?}");
    }
    drop(store);
    fs.crash();
    fs.heal();
    let store = open_sim(&fs, config(&folders), 2).await.unwrap();
    assert_eq!(store.identity().registration, Some(numbered(1)));
    assert_eq!(states(&store), [DiskState::Healthy; 2]);
}

/// F3: a disk fills up after others have a registration as settled. Later writes, up to the next
/// full disk, never contain an older registration, which would look like an old image.
#[tokio::test]
async fn f03_interrupted_registration_is_not_reverted() {
    let folders = ["/a", "/b", "/c"];
    let (fs, gate, gated) = gated();
    let random = Arc::new(SeededRandom::new(1));
    let newer = Config { level: Level(2), ..config(&folders) };
    let store = DiskStore::open(newer.clone(), gated, Pool::threads(2), random);
    let store = store.await.unwrap();
    store.store_registration(numbered(1)).await.unwrap();

    let (mut is_entered, mut release) = gate.hold_sync();
    let filled = fs.clone();
    let filling = std::thread::spawn(move || {
        // First the others have it, then it is settled on one disk after the other.
        for _ in ["/b", "/c", "/a"] {
            is_entered.recv().unwrap();
            let next = gate.hold_sync();
            release.send(()).unwrap();
            (is_entered, release) = next;
        }
        is_entered.recv().unwrap();
        filled.fail(Path::new("/c"), Operation::Write, ENOSPC);
        release.send(()).unwrap();
    });
    store.store_registration(numbered(2)).await.unwrap();
    filling.join().unwrap();
    assert_eq!(states(&store), [DiskState::Healthy; 3], "all have the registration");
    fs.heal();
    fs.fail(Path::new("/b"), Operation::Write, ENOSPC);
    let refused = store.raise_level(Level(2)).await;
    assert!(matches!(refused, Err(StoreError::NoSpace(_))), "{refused:?}");
    drop(store);
    fs.heal();
    fs.crash();
    let store = open_sim(&fs, newer, 2).await.unwrap();
    assert_eq!(states(&store), [DiskState::Healthy; 3]);
    assert_eq!(store.identity().registration, Some(numbered(2)));
    let refused = store.store_registration(numbered(1)).await;
    assert!(matches!(refused, Err(StoreError::OldRegistration { .. })), "{refused:?}");
}

#[tokio::test]
async fn registration_of_a_dropped_caller_excludes_the_next_one() {
    let (fs, gate, gated) = gated();
    let random = Arc::new(SeededRandom::new(1));
    let store =
        DiskStore::open(config(&["/a", "/b"]), gated, Pool::threads(2), random).await.unwrap();
    let (is_entered, release) = gate.hold_sync();
    let mut first = store.store_registration(numbered(1));
    assert!(futures_util::poll!(&mut first).is_pending());
    is_entered.recv().unwrap();
    drop(first);
    let mut second = store.store_registration(numbered(2));
    for _ in 0..100 {
        assert!(futures_util::poll!(&mut second).is_pending(), "the first one is being written");
    }
    release.send(()).unwrap();
    second.await.unwrap();
    assert_eq!(states(&store), [DiskState::Healthy; 2]);
    drop(store);
    fs.crash();
    let store = open_sim(&fs, config(&["/a", "/b"]), 2).await.unwrap();
    assert_eq!(store.identity().registration, Some(numbered(2)));
}

#[tokio::test]
async fn raised_level_makes_an_older_release_refuse_every_disk() {
    let (fs, folders) = (SimFs::new(), ["/a", "/b"]);
    let newer = |folders: &[&str]| Config { level: Level(2), ..config(folders) };
    let store = open_sim(&fs, newer(&folders), 1).await.unwrap();
    conformance::put(&store, ChunkId(1), SMALL).await.unwrap();
    store.raise_level(Level(2)).await.unwrap();
    store.raise_level(Level(1)).await.unwrap();
    assert_eq!(store.identity().level, Level(2));
    drop(store);
    fs.crash();
    for folder in folders {
        let refused = open_sim(&fs, config(&[folder]), 2).await.err();
        assert!(
            matches!(refused, Some(OpenError::NewerLevel { found: Level(2), .. })),
            "{refused:?}"
        );
    }
    let store = open_sim(&fs, newer(&folders), 3).await.unwrap();
    assert_eq!(store.identity().level, Level(2));
    conformance::assert_whole(&store, ChunkId(1), SMALL).await;
}

/// The stamps of one disk grow from start to start, whichever other disks of the node are there.
#[tokio::test]
async fn stamps_of_a_disk_never_repeat_when_disks_are_absent_in_turn() {
    let (fs, folders) = (SimFs::new(), ["/a", "/b"]);
    drop(open_sim(&fs, config(&folders), 1).await.unwrap());
    let mut last = BTreeMap::new();
    let lives: [&[&str]; 6] = [&["/a"], &["/b"], &["/a"], &["/a", "/b"], &["/b"], &["/a"]];
    for (life, present) in lives.into_iter().enumerate() {
        let store = open_sim(&fs, config(present), 2 + life as u64).await.unwrap();
        for length in [SMALL, LARGE] {
            // The chunk that was here before was deleted, and is now built here again.
            let sealed = conformance::put(&store, ChunkId(1), length).await.unwrap();
            let before = last.insert(sealed.disk, sealed.stamp);
            assert!(before < Some(sealed.stamp), "{before:?}, then {sealed:?}");
            assert!(store.delete(sealed.replica()).await.unwrap());
        }
        drop(store);
        fs.crash();
    }
    assert_eq!(last.len(), 2);
}

fn write(fs: &SimFs, path: &str, text: &'static str) {
    let file = fs.open(Path::new(path), Opening::Create).unwrap();
    file.write_at(0, &[Bytes::from_static(text.as_bytes())]).unwrap();
}

fn shards(fs: &SimFs) -> Vec<String> {
    let names = fs.list(Path::new("/a/chunks")).unwrap();
    names.iter().map(|name| format!("/a/chunks/{name}")).collect()
}

/// Returns the file that contains these bytes, and their offset.
fn find(fs: &SimFs, bytes: &[u8]) -> (PathBuf, u64) {
    for folder in ["/a/segments".to_owned()].into_iter().chain(shards(fs)) {
        for name in fs.list(Path::new(&folder)).unwrap() {
            let path = Path::new(&folder).join(name);
            let file = fs.open(&path, Opening::Existing).unwrap();
            let content = file.read_at(0, file.length().unwrap() as usize).unwrap();
            if let Some(at) = content.windows(bytes.len()).position(|window| window == bytes) {
                return (path, at as u64);
            }
        }
    }
    panic!("no file contains the chunk");
}

/// A sync of a file that is announced and delayed.
struct HeldSync {
    entered: mpsc::Sender<()>,
    released: mpsc::Receiver<()>,
}

/// Holds the next sync of a file.
#[derive(Default)]
struct Gate(Mutex<Option<HeldSync>>);

impl Gate {
    /// Holds the next sync of a file: returns its announcement, and its release.
    fn hold_sync(&self) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (entered, is_entered) = mpsc::channel();
        let (release, released) = mpsc::channel();
        *self.0.lock().unwrap() = Some(HeldSync { entered, released });
        (is_entered, release)
    }

    fn take(&self) -> Option<HeldSync> {
        self.0.lock().unwrap().take()
    }
}

impl FsHook for Gate {
    type Running<'a> = ();

    fn begin(&self, _: &Path, call: FsCall) -> io::Result<()> {
        if call == FsCall::SyncFile
            && let Some(HeldSync { entered, released }) = self.take()
        {
            entered.send(()).unwrap();
            released.recv().unwrap();
        }
        Ok(())
    }
}

/// Returns a file system, its gate, and the view of it through the gate.
fn gated() -> (SimFs, Arc<Gate>, Arc<dyn Fs>) {
    let (fs, gate) = (SimFs::new(), Arc::<Gate>::default());
    let gated = Arc::new(HookedFs::new(Arc::new(fs.clone()), gate.clone()));
    (fs, gate, gated)
}
