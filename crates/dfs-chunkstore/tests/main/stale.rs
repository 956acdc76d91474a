//! Lost writes: the bytes in the place of a replica are intact, but belong to another one.

use std::fs::{File, read_dir};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_chunkstore::{ChunkStore as _, DiskStore, FullSpeed, OsFs, Pool, StoreError, conformance};
use dfs_types::{ChunkId, OsRandom};

use crate::support::config;

const VICTIM: ChunkId = ChunkId(1);
const OTHER: ChunkId = ChunkId(2);
/// Small chunks share a segment, one and several blocks long; a large one has a separate file.
const LENGTHS: [usize; 3] = [4 << 10, 256 << 10, 3 << 20];

async fn store(folder: &Path) -> DiskStore {
    let mut config = config(&[folder.to_str().unwrap()]);
    config.segment_bytes = 8 << 20;
    DiskStore::open(config, Arc::new(OsFs::new()), Pool::threads(1), Arc::new(OsRandom))
        .await
        .unwrap()
}

/// Returns the files that contain chunks.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|extension| extension == "v1") {
                found.push(entry.path());
            }
        }
    }
    found
}

fn position(bytes: &[u8], part: &[u8]) -> Option<u64> {
    bytes.windows(part.len()).position(|window| window == part).map(|at| at as u64)
}

/// Returns the location of `bytes` on the disk.
fn find(folder: &Path, bytes: &[u8]) -> (PathBuf, u64) {
    let found = files(folder).into_iter().find_map(|path| {
        let at = position(&std::fs::read(&path).unwrap(), &bytes[..64])?;
        Some((path, at))
    });
    found.expect("the chunk is in one of the files")
}

/// Overwrites bytes on the disk.
fn overwrite((path, at): &(PathBuf, u64), bytes: &[u8]) {
    File::options().write(true).open(path).unwrap().write_all_at(bytes, *at).unwrap();
}

fn bytes_at((path, at): &(PathBuf, u64), length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    File::open(path).unwrap().read_exact_at(&mut bytes, *at).unwrap();
    bytes
}

async fn assert_damaged(store: &DiskStore, length: usize) {
    let victim = conformance::newest(store, VICTIM).await.unwrap().replica();
    // The first and the last byte, so that no read covers the whole chunk.
    for offset in [0, length as u64 - 1] {
        let read = store.read(victim, offset, 1).await;
        assert!(matches!(read, Err(StoreError::Damaged { .. })), "{length}: {read:?}");
    }
    let verified = store.verify(victim, &FullSpeed).await;
    assert!(matches!(verified, Ok(Some(_)) | Err(StoreError::Damaged { .. })), "{verified:?}");
    conformance::assert_whole(store, OTHER, length).await;
}

/// The whole record is that of another chunk.
#[tokio::test]
async fn f02_record_of_another_chunk_is_not_served() {
    for length in LENGTHS {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        for chunk in [VICTIM, OTHER] {
            conformance::put(&store, chunk, length).await.unwrap();
        }
        let places =
            [VICTIM, OTHER].map(|id| find(folder.path(), &conformance::content(id, length)));
        let [victim, other] = places;
        if victim.0 == other.0 {
            // Head, path and table precede the data of a record.
            let record = other.1 - victim.1;
            let before = record.min(victim.1) as usize % 4096;
            let [from, to] = [&other, &victim].map(|(path, at)| (path.clone(), at - before as u64));
            overwrite(&to, &bytes_at(&from, before + length));
        } else {
            std::fs::copy(&other.0, &victim.0).unwrap();
        }
        assert_damaged(&store, length).await;
    }
}

/// Data and block checksums are those of another chunk, the head is the right one.
#[tokio::test]
async fn f02_blocks_and_checksums_of_another_chunk_are_not_served() {
    for length in LENGTHS {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        for chunk in [VICTIM, OTHER] {
            conformance::put(&store, chunk, length).await.unwrap();
        }
        let contents = [VICTIM, OTHER].map(|id| conformance::content(id, length));
        let tables = contents.clone().map(|content| {
            let crcs = dfs_types::Crc32c::of_blocks(&content);
            crcs.iter().flat_map(|crc| crc.0.to_be_bytes()).collect::<Vec<u8>>()
        });
        let [data, _] = contents.clone().map(|content| find(folder.path(), &content));
        let file = std::fs::read(&data.0).unwrap();
        let table = (data.0.clone(), position(&file, &tables[0]).unwrap());
        overwrite(&data, &contents[1]);
        overwrite(&table, &tables[1]);
        assert_damaged(&store, length).await;
    }
}
