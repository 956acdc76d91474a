//! Disks that cannot be opened, are absent at some starts, or come back.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dfs_chunkstore::sim::{Operation, SimFs};
use dfs_chunkstore::{
    ChunkStore as _, DiskStore, Fs, FsCall, FsHook, HookedFs, Identity, IdentityStore as _,
    OpenError, Opening, Pool, SealedChunk, StoreError, conformance,
};
use dfs_types::{ChunkId, DiskState, ErrorCode, SeededRandom};

use crate::support::{config, numbered, open_sim, registration, states};

const EIO: i32 = 5;
const SMALL: usize = 4 << 10;
const LARGE: usize = 3 << 20;
const BOTH: [&str; 2] = ["/a", "/b"];

fn write(fs: &SimFs, path: &str, text: &'static str) {
    let file = fs.open(Path::new(path), Opening::Create).unwrap();
    file.write_at(0, &[Bytes::from_static(text.as_bytes())]).unwrap();
}

/// Puts chunks until each of two disks has one; returns one of each, in order of the disks.
async fn one_on_each(store: &DiskStore) -> [SealedChunk; 2] {
    one_on_each_after(store, 0).await
}

/// Like [`one_on_each`], with chunks greater than `first`.
async fn one_on_each_after(store: &DiskStore, first: u128) -> [SealedChunk; 2] {
    let disks: Vec<_> = store.usage().iter().map(|disk| disk.disk).collect();
    let mut found = [None; 2];
    for number in first + 1.. {
        let sealed = conformance::put(store, ChunkId(number), LARGE).await.unwrap();
        let at = disks.iter().position(|disk| *disk == sealed.disk).unwrap();
        found[at].get_or_insert(sealed);
        if let [Some(first), Some(second)] = found {
            return [first, second];
        }
    }
    unreachable!()
}

/// Stops the store, as a restart of the node does.
async fn reopen(fs: &SimFs, store: DiskStore, folders: &[&str], seed: u64) -> DiskStore {
    drop(store);
    fs.crash();
    open_sim(fs, config(folders), seed).await.unwrap()
}

type Fault = fn(&SimFs);

/// D5: whatever is wrong with one disk at the start, the others serve.
#[tokio::test]
async fn d05_disk_that_cannot_be_opened_does_not_stop_the_others() {
    let faults: [(&str, Fault); 5] = [
        ("unreadable", |fs| fs.fail(Path::new("/b"), Operation::Read, EIO)),
        ("read-only", |fs| fs.fail(Path::new("/b"), Operation::Write, 30)),
        ("failing its first sync", |fs| fs.fail(Path::new("/b"), Operation::Sync, EIO)),
        ("unidentified", |fs| fs.remove(Path::new("/b/dfs-identity")).unwrap()),
        ("damaged", |fs| write(fs, "/b/dfs-identity", "dfs disk, level 1\nnode 7\n")),
    ];
    for (name, fault) in faults {
        let fs = SimFs::new();
        let store = open_sim(&fs, config(&BOTH), 1).await.unwrap();
        store.store_registration(numbered(1)).await.unwrap();
        let [on_a, on_b] = one_on_each(&store).await;
        let (identity, disks) = (store.identity(), store.usage());
        drop(store);
        fs.crash();
        fault(&fs);
        let store = open_sim(&fs, config(&BOTH), 2).await.unwrap();
        assert_eq!(states(&store), [DiskState::Healthy, DiskState::Failed], "{name}");
        let start = identity.start + 1;
        assert_eq!(store.identity(), Identity { start, ..identity }, "{name}");
        let ids: Vec<_> = store.usage().iter().map(|disk| disk.disk).collect();
        assert_eq!(ids, [disks[0].disk, disks[1].disk], "the other identities know its id: {name}");
        let reason = store.usage()[1].reason.clone();
        assert!(reason.starts_with("/b: "), "{name}: {reason}");
        conformance::assert_whole(&store, on_a.chunk, LARGE).await;
        assert_eq!(store.stat(on_b.replica()).await.unwrap(), None, "{name}");
        conformance::put(&store, ChunkId(99), SMALL).await.unwrap();
    }
}

/// D5: without an identity, a node must not start as a new one while a disk cannot be read.
#[tokio::test]
async fn d05_node_without_an_identity_does_not_start_beside_an_unreadable_disk() {
    let fs = SimFs::new();
    drop(open_sim(&fs, config(&["/a"]), 1).await.unwrap());
    fs.crash();
    fs.fail(Path::new("/a"), Operation::Read, EIO);
    for folders in [&["/a"][..], &["/a", "/new"], &["/new", "/a"]] {
        let refused = open_sim(&fs, config(folders), 2).await.err();
        assert!(matches!(refused, Some(OpenError::Io { .. })), "{refused:?}");
    }
    fs.heal();
    let store = open_sim(&fs, config(&["/new", "/a"]), 3).await.unwrap();
    assert_eq!(states(&store), [DiskState::Healthy; 2]);
}

/// D1: a disk that misses a registration is served, and comes back.
#[tokio::test]
async fn d01_disk_left_out_of_a_registration_is_served_and_returns() {
    use DiskState::{Healthy, Returning};
    for first_left_out in ["/a", "/b"] {
        let fs = SimFs::new();
        let store = open_sim(&fs, config(&BOTH), 1).await.unwrap();
        store.store_registration(numbered(1)).await.unwrap();
        let on_each = one_on_each(&store).await;
        let present = if first_left_out == "/a" { "/b" } else { "/a" };
        let store = reopen(&fs, store, &[present], 2).await;
        store.store_registration(numbered(2)).await.unwrap();
        let store = reopen(&fs, store, &BOTH, 3).await;
        let returning = usize::from(first_left_out == "/b");
        let mut expected = [Healthy; 2];
        expected[returning] = Returning;
        assert_eq!(states(&store), expected);
        for sealed in on_each {
            conformance::assert_whole(&store, sealed.chunk, LARGE).await;
        }
        let id = store.usage()[returning].disk;
        for number in 100..110 {
            let sealed = conformance::put(&store, ChunkId(number), LARGE).await.unwrap();
            assert_ne!(sealed.disk, id, "a returning disk takes no new chunks");
        }
        // It stays so over restarts and registrations, until it is settled.
        store.store_registration(numbered(3)).await.unwrap();
        let store = reopen(&fs, store, &BOTH, 4).await;
        assert_eq!(states(&store), expected);
        store.settle_disk(id).await.unwrap();
        store.settle_disk(id).await.unwrap();
        assert_eq!(states(&store), [Healthy; 2]);
        let store = reopen(&fs, store, &BOTH, 5).await;
        assert_eq!(states(&store), [Healthy; 2]);
        assert_eq!(store.identity().registration, Some(numbered(3)));
    }
}

#[tokio::test]
async fn disks_of_a_rejoining_node_are_returning_until_they_are_settled() {
    let fs = SimFs::new();
    let store = open_sim(&fs, config(&BOTH), 1).await.unwrap();
    store.store_registration(numbered(1)).await.unwrap();
    let on_each = one_on_each(&store).await;
    store.rejoin(numbered(50)).await.unwrap();
    let (mut store, mut newest) = (store, 50);
    for seed in 2..5 {
        assert_eq!(states(&store), [DiskState::Returning; 2]);
        assert_eq!(store.identity().registration, Some(numbered(newest)));
        for sealed in &on_each {
            conformance::assert_whole(&store, sealed.chunk, LARGE).await;
        }
        let refused = conformance::put(&store, ChunkId(1_000), LARGE).await;
        assert!(matches!(refused, Err(StoreError::NoSpace(_))), "{refused:?}");
        // Also if it registers again meanwhile.
        newest += 1;
        store.store_registration(numbered(newest)).await.unwrap();
        store = reopen(&fs, store, &BOTH, seed).await;
    }
    // Each of them alone knows the newest registration.
    for (folder, seed) in [("/a", 6), ("/b", 7)] {
        store = reopen(&fs, store, &[folder], seed).await;
        assert_eq!(store.identity().registration, Some(numbered(newest)));
        assert_eq!(states(&store), [DiskState::Returning]);
    }
    store = reopen(&fs, store, &BOTH, 8).await;
    for disk in store.usage() {
        store.settle_disk(disk.disk).await.unwrap();
    }
    store = reopen(&fs, store, &BOTH, 9).await;
    assert_eq!(states(&store), [DiskState::Healthy; 2]);
    assert_eq!(store.identity().registration, Some(numbered(newest)));
    let after = conformance::put(&store, ChunkId(1_000), LARGE).await.unwrap();
    assert!(on_each.iter().all(|before| before.stamp < after.stamp));
}

/// Whatever a crash leaves: the node presents the old registration and no disk is returning, or the
/// new one and all of them are.
#[tokio::test]
async fn crash_while_a_node_rejoins_leaves_no_disk_in_full_service_with_the_new_registration() {
    for failing in ["/a", "/b"] {
        for operation in [Operation::Write, Operation::Sync] {
            let fs = SimFs::new();
            let store = open_sim(&fs, config(&BOTH), 1).await.unwrap();
            store.store_registration(numbered(1)).await.unwrap();
            fs.fail(Path::new(failing), operation, EIO);
            // The other disk has it.
            store.rejoin(numbered(9)).await.unwrap();
            fs.heal();
            let store = reopen(&fs, store, &BOTH, 2).await;
            assert_eq!(states(&store), [DiskState::Returning; 2], "{failing}");
            assert_eq!(store.identity().registration, Some(numbered(9)));
            let store = reopen(&fs, store, &[failing], 3).await;
            assert_eq!(states(&store), [DiskState::Returning], "known from the start");
            assert_eq!(store.identity().registration, Some(numbered(9)));
        }
    }
}

/// The only disk with the newest registration fails; what is left is returning.
#[tokio::test]
async fn returning_disk_learns_the_registrations_of_its_node() {
    let fs = SimFs::new();
    let store = open_sim(&fs, config(&BOTH), 1).await.unwrap();
    store.store_registration(numbered(1)).await.unwrap();
    let store = reopen(&fs, store, &["/a"], 2).await;
    store.store_registration(numbered(2)).await.unwrap();
    let store = reopen(&fs, store, &BOTH, 3).await;
    store.store_registration(numbered(3)).await.unwrap();
    let store = reopen(&fs, store, &["/b"], 4).await;
    assert_eq!(store.identity().registration, Some(numbered(3)), "it is no old image");
    assert_eq!(states(&store), [DiskState::Returning]);
}

/// An image of a disk, older than the last registration, is served as a returning disk.
#[tokio::test]
async fn image_older_than_a_registration_is_returning() {
    let fs = SimFs::new();
    let store = open_sim(&fs, config(&BOTH), 1).await.unwrap();
    store.store_registration(numbered(1)).await.unwrap();
    let file = fs.open(Path::new("/b/dfs-identity"), Opening::Existing).unwrap();
    let before = file.read_at(0, 4096).unwrap();
    store.store_registration(numbered(2)).await.unwrap();
    drop(store);
    let file = fs.open(Path::new("/b/dfs-identity"), Opening::Create).unwrap();
    file.write_at(0, &[before]).unwrap();
    let store = open_sim(&fs, config(&BOTH), 2).await.unwrap();
    assert_eq!(states(&store), [DiskState::Healthy, DiskState::Returning]);
    assert_eq!(store.identity().registration, Some(numbered(2)));
}

/// D1: an empty mount point is no new disk.
#[tokio::test]
async fn d01_empty_folder_where_a_disk_was_is_missing_not_new() {
    use DiskState::{Healthy, Missing, Returning};
    let fs = SimFs::new();
    let store = open_sim(&fs, config(&BOTH), 1).await.unwrap();
    store.store_registration(registration(1)).await.unwrap();
    let [on_a, on_b] = one_on_each(&store).await;
    let id = store.usage()[1].disk;
    drop(store);
    fs.crash();
    let mounted = fs.fork();
    fs.wipe(Path::new("/b"));
    let store = open_sim(&fs, config(&BOTH), 2).await.unwrap();
    assert_eq!(states(&store), [Healthy, Missing]);
    let usage = store.usage()[1].clone();
    assert_eq!((usage.disk, usage.free, usage.chunks), (id, 0, 0));
    assert!(usage.reason.contains("another directory"), "{}", usage.reason);
    conformance::assert_whole(&store, on_a.chunk, LARGE).await;
    assert_eq!(store.stat(on_b.replica()).await.unwrap(), None);
    assert!(!store.reopen_disks().await, "it is still empty");
    store.store_registration(numbered(2)).await.unwrap();
    let refused = store.settle_disk(id).await;
    assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
    // It stays missing over restarts, also while it is not configured.
    let store = reopen(&fs, store, &["/a"], 3).await;
    let store = reopen(&fs, store, &BOTH, 4).await;
    assert_eq!(states(&store), [Healthy, Missing]);
    assert_eq!(store.usage()[1].disk, id);
    // Once the cluster has given it up, the directory may be used for a new disk.
    store.forget_disks(&[id]).await.unwrap();
    assert_eq!(states(&store), [Healthy, Missing], "until the next start");
    let store = reopen(&fs, store, &BOTH, 5).await;
    assert_eq!(states(&store), [Healthy; 2]);
    assert_ne!(store.usage()[1].disk, id);
    drop(store);

    // Had it been mounted again, it would have been served.
    let store = open_sim(&mounted, config(&["/a"]), 2).await.unwrap();
    store.store_registration(numbered(2)).await.unwrap();
    let store = reopen(&mounted, store, &BOTH, 3).await;
    assert_eq!(states(&store), [Healthy, Returning]);
    conformance::assert_whole(&store, on_b.chunk, LARGE).await;
    store.forget_disks(&[id]).await.unwrap();
    let store = reopen(&mounted, store, &BOTH, 4).await;
    assert_eq!((store.usage()[1].disk, store.usage()[1].state), (id, Returning));
}

/// K8: a node on an older image of its disks draws no number again that the cluster may know.
#[tokio::test]
async fn k08_registration_lifts_the_numbers_of_an_older_image() {
    let fs = SimFs::new();
    let store = open_sim(&fs, config(&BOTH), 1).await.unwrap();
    store.store_registration(numbered(2)).await.unwrap();
    drop(store);
    fs.crash();
    let image = fs.fork();
    let mut greatest = 0;
    for seed in 2..9 {
        let store = open_sim(&fs, config(&BOTH), seed).await.unwrap();
        // As a coordinator numbers registrations.
        let number = store.identity().start + 1;
        store.store_registration(numbered(number)).await.unwrap();
        assert!(store.verdict_number() > greatest);
        greatest = store.verdict_number();
    }
    let store = open_sim(&image, config(&BOTH), 9).await.unwrap();
    assert!(store.verdict_number() < greatest);
    let number = greatest_registration(&fs).await + 1;
    store.store_registration(numbered(number)).await.unwrap();
    assert!(store.verdict_number() > greatest);
    let sealed = conformance::put(&store, ChunkId(1), SMALL).await.unwrap();
    assert!(sealed.stamp.0 > greatest);
    drop(store);
    image.crash();
    // Also after it starts again, with any of its disks.
    for folder in BOTH {
        let store = open_sim(&image.fork(), config(&[folder]), 10).await.unwrap();
        assert!(store.verdict_number() > sealed.stamp.0, "{folder}");
    }
}

async fn greatest_registration(fs: &SimFs) -> u64 {
    let store = open_sim(&fs.fork(), config(&BOTH), 99).await.unwrap();
    store.identity().registration.unwrap().number.0
}

/// K4: a directory that is locked at the start is missing until it is free.
#[tokio::test]
async fn k04_locked_disk_is_missing_until_it_is_free() {
    use DiskState::{Healthy, Missing};
    let fs = SimFs::new();
    let store = open_sim(&fs, config(&BOTH), 1).await.unwrap();
    store.store_registration(numbered(1)).await.unwrap();
    let [on_a, on_b] = one_on_each(&store).await;
    drop(store);
    fs.crash();
    let held = fs.lock(Path::new("/b/dfs-lock")).unwrap();
    let store = open_sim(&fs, config(&BOTH), 2).await.unwrap();
    assert_eq!(states(&store), [Healthy, Missing]);
    assert!(!store.reopen_disks().await);
    assert!(store.usage()[1].reason.contains("in use by another process"));
    assert_eq!(store.stat(on_b.replica()).await.unwrap(), None);
    drop(held);
    assert!(store.reopen_disks().await);
    assert_eq!(states(&store), [Healthy; 2]);
    for sealed in [on_a, on_b] {
        conformance::assert_whole(&store, sealed.chunk, LARGE).await;
    }
    assert!(!store.reopen_disks().await, "nothing is missing");
    // It has the identity of this start: its stamps do not repeat when it is alone.
    let stamps = [one_on_each_after(&store, 100).await, one_on_each_after(&store, 200).await];
    let store = reopen(&fs, store, &["/b"], 3).await;
    let next = conformance::put(&store, ChunkId(300), LARGE).await.unwrap();
    assert!(stamps.iter().flatten().all(|sealed| next.stamp > sealed.stamp));
}

/// Panics in the next operation on a directory with this name.
#[derive(Default)]
struct Bomb(Mutex<Option<&'static str>>);

impl FsHook for Bomb {
    type Running<'a> = ();

    fn begin(&self, path: &Path, _call: FsCall) -> io::Result<()> {
        let hit = self.0.lock().unwrap().take_if(|name| path.ends_with(name));
        assert!(hit.is_none(), "the scan panics");
        Ok(())
    }
}

/// K4: a scan that panicked left the directory locked for the next attempt.
#[tokio::test]
async fn k04_missing_disk_whose_scan_panics_is_opened_again() {
    use DiskState::{Healthy, Missing};
    let fs = SimFs::new();
    let store = open_sim(&fs, config(&BOTH), 1).await.unwrap();
    store.store_registration(numbered(1)).await.unwrap();
    drop(store);
    fs.crash();
    let held = fs.lock(Path::new("/b/dfs-lock")).unwrap();
    let bomb = Arc::<Bomb>::default();
    let hooked: Arc<dyn Fs> = Arc::new(HookedFs::new(Arc::new(fs.clone()), Arc::clone(&bomb)));
    let (random, pool) = (Arc::new(SeededRandom::new(2)), Pool::inline());
    let store = DiskStore::open(config(&BOTH), hooked, pool, random).await.unwrap();
    drop(held);
    *bomb.0.lock().unwrap() = Some("b/chunks");
    assert!(!store.reopen_disks().await);
    assert!(bomb.0.lock().unwrap().is_none(), "{}", store.usage()[1].reason);
    assert_eq!(states(&store), [Healthy, Missing]);
    assert!(store.reopen_disks().await, "{}", store.usage()[1].reason);
    assert_eq!(states(&store), [Healthy; 2]);
}

/// K4: a missing disk that a later start has used could get stamps again that it already has.
#[tokio::test]
async fn k04_missing_disk_of_a_later_start_is_used_after_a_restart() {
    use DiskState::{Healthy, Missing};
    let fs = SimFs::new();
    let store = open_sim(&fs, config(&BOTH), 1).await.unwrap();
    store.store_registration(numbered(1)).await.unwrap();
    let store = reopen(&fs, store, &["/b"], 2).await;
    drop(store);
    let held = fs.lock(Path::new("/b/dfs-lock")).unwrap();
    let store = open_sim(&fs, config(&BOTH), 3).await.unwrap();
    drop(held);
    assert!(!store.reopen_disks().await);
    assert_eq!(states(&store), [Healthy, Missing]);
    assert_eq!(store.usage()[1].reason, "/b: restart the node to use the disk");
    let store = reopen(&fs, store, &BOTH, 4).await;
    assert_eq!(states(&store), [Healthy; 2]);
}

/// K4: another disk than the one that is missing does not take its place.
#[tokio::test]
async fn k04_disk_of_another_node_does_not_take_the_place_of_a_missing_one() {
    let fs = SimFs::new();
    let store = open_sim(&fs, config(&BOTH), 1).await.unwrap();
    store.store_registration(numbered(1)).await.unwrap();
    let other = SimFs::new();
    drop(open_sim(&other, config(&["/b"]), 9).await.unwrap());
    drop(store);
    let held = fs.lock(Path::new("/b/dfs-lock")).unwrap();
    let store = open_sim(&fs, config(&BOTH), 2).await.unwrap();
    drop(held);
    let file = other.open(Path::new("/b/dfs-identity"), Opening::Existing).unwrap();
    let identity = file.read_at(0, 4096).unwrap();
    let file = fs.open(Path::new("/b/dfs-identity"), Opening::Create).unwrap();
    file.write_at(0, &[identity]).unwrap();
    assert!(!store.reopen_disks().await);
    assert!(store.usage()[1].reason.contains("belongs to another node"));
}

/// R1: a disk that comes back may have a replica of a chunk that was written to another disk since.
#[tokio::test]
async fn both_replicas_of_a_chunk_on_two_disks_are_listed_and_served() {
    for length in [SMALL, LARGE] {
        let (fs, chunk) = (SimFs::new(), ChunkId(7));
        let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
        store.store_registration(numbered(1)).await.unwrap();
        let store = reopen(&fs, store, &BOTH, 2).await;
        let first = conformance::put(&store, chunk, length).await.unwrap();
        let (left_out, present) =
            if store.usage()[0].disk == first.disk { ("/a", "/b") } else { ("/b", "/a") };
        let store = reopen(&fs, store, &[present], 3).await;
        let second = conformance::put(&store, chunk, length).await.unwrap();
        let store = reopen(&fs, store, &BOTH, 4).await;
        let both = store.replicas(chunk).await.unwrap();
        assert_eq!(both.len(), 2, "{left_out}");
        let mut listed = store.list(None, 1).await.unwrap();
        assert_eq!(listed.len(), 2, "a page contains all replicas of a chunk");
        listed.sort_by_key(|sealed| std::cmp::Reverse(sealed.stamp));
        assert_eq!(listed, both);
        assert_eq!(store.list(Some(chunk), 9).await.unwrap(), []);
        let bytes = conformance::content(chunk, length);
        for sealed in [first, second] {
            let read = conformance::get(&store, sealed.replica(), length as u64).await;
            assert_eq!(read.unwrap(), bytes);
        }
        let refused = store.create(conformance::header(chunk, length)).await.map(drop);
        assert_eq!(refused.unwrap_err().code(), ErrorCode::AlreadyExists);
        let (one, other) =
            tokio::join!(store.delete(first.replica()), store.delete(second.replica()));
        assert!(one.unwrap() && other.unwrap());
        assert_eq!(store.replicas(chunk).await.unwrap(), []);
        let chunks: u64 = store.usage().iter().map(|disk| disk.chunks).sum();
        assert_eq!(chunks, 0);
    }
}
