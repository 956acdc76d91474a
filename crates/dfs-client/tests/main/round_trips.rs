//! Files read back as they were written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dfs_client::{Follow, GetOptions, MakeDirectoryOptions, PutOptions, PutSource};
use dfs_types::{
    Attributes, DfsPath, ErrorCode, FileTime, Precondition, Random as _, SeededRandom,
};

use crate::fake::{CHUNK, Clients as _, Cluster};
use crate::{bytes, drain, get, path, put, until};

const BLOCK: u64 = 64 << 10;
const MANY: u64 = 70 * CHUNK + 3;

fn sizes() -> Vec<u64> {
    let around = |size: u64| [size - 1, size, size + 1];
    [vec![0, 1], around(BLOCK).into(), around(CHUNK).into(), around(2 * CHUNK).into(), vec![MANY]]
        .concat()
}

fn small_chunks() -> PutOptions {
    PutOptions::default().chunk_size(CHUNK)
}

#[tokio::test(start_paused = true)]
async fn sizes_around_every_boundary_round_trip() {
    let cluster = Cluster::start(4).await;
    let client = cluster.client();
    let folder = tempfile::tempdir().unwrap();
    for size in sizes() {
        let content = bytes(size);
        let local = folder.path().join("source");
        std::fs::write(&local, &content).unwrap();
        for (name, source) in [
            ("bytes", PutSource::bytes(content.clone())),
            ("file", PutSource::file(&local)),
            ("reader", PutSource::reader(std::io::Cursor::new(content.clone()))),
        ] {
            let path = path(&format!("/{name}"));
            let stat = client.put(&path, source, small_chunks()).await.unwrap();
            assert_eq!(stat.size, size, "{name}");
            let (chunks, reaches) = {
                let state = cluster.state();
                let chunks = &state.inodes[&stat.inode.0].chunks;
                (
                    chunks.len() as u64,
                    chunks.last().map_or(0, |last| last.file_offset + last.length),
                )
            };
            assert_eq!((chunks, reaches), (size.div_ceil(CHUNK), size), "{name}");
            let reader = client.get(&path, GetOptions::default()).await.unwrap();
            assert_eq!(reader.stat(), &stat);
            assert!(drain(reader).await.unwrap() == content, "{name} of {size}");
            let target = tempfile::tempfile().unwrap();
            let got = client
                .get_to_file(&path, GetOptions::default(), target.try_clone().unwrap())
                .await
                .unwrap();
            assert_eq!(got, stat);
            assert!(read_all(&target) == content, "{name} of {size}");
        }
    }
    assert_eq!(client.stats(), dfs_client::Stats::default());
}

fn read_all(file: &std::fs::File) -> Bytes {
    use std::os::unix::fs::FileExt as _;
    let mut content = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut content, 0).unwrap();
    content.into()
}

#[tokio::test(start_paused = true)]
async fn range_reads_return_those_bytes() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let size = 9 * CHUNK + 5;
    let content = bytes(size);
    let options = PutOptions::default().chunk_size(5 * CHUNK);
    client.put(&path("/f"), PutSource::bytes(content.clone()), options).await.unwrap();
    let random = SeededRandom::new(3);
    let mut ranges: Vec<(u64, u64)> =
        (0..60).map(|_| (random.below(size + BLOCK), random.below(3 * CHUNK))).collect();
    ranges.extend([(0, 0), (0, 1), (size - 1, 1), (size - 1, 9), (size, 1), (size + 1, u64::MAX)]);
    ranges.extend([(u64::MAX, 1), (u64::MAX, u64::MAX), (BLOCK - 1, 2), (5 * CHUNK - 1, 2)]);
    for (offset, length) in ranges {
        let start = offset.min(size) as usize;
        let end = offset.saturating_add(length).min(size) as usize;
        let wanted = &content[start..end];
        let got = client.read_range(&path("/f"), offset, length).await.unwrap();
        assert!(got == wanted, "{length} from {offset}");
        let options = GetOptions::default().offset(offset).length(length);
        let target = tempfile::tempfile().unwrap();
        client.get_to_file(&path("/f"), options, target.try_clone().unwrap()).await.unwrap();
        assert!(read_all(&target) == wanted, "{length} from {offset}");
    }
    let tail = GetOptions::default().offset(size - 7);
    let tail = drain(client.get(&path("/f"), tail).await.unwrap()).await.unwrap();
    assert_eq!(tail, content.slice(content.len() - 7..));
}

#[tokio::test(start_paused = true)]
async fn range_read_touches_only_its_blocks() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let content = bytes(4 * CHUNK);
    put(&client, "/f", &content).await;
    // Every block but one is bad on every node.
    for node in &cluster.world.nodes {
        node.fault(|faults| faults.flips_bit_of = Some(1));
    }
    let got = client.read_range(&path("/f"), CHUNK + 2 * BLOCK, 2 * BLOCK).await.unwrap();
    assert_eq!(got, content.slice((CHUNK + 2 * BLOCK) as usize..2 * CHUNK as usize));
    assert_eq!(client.stats().corrupt_blocks, 0);
}

#[tokio::test(start_paused = true)]
async fn chunks_beyond_one_call_are_staged() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let content = bytes(600 * BLOCK + 1);
    let options = || PutOptions::default().chunk_size(BLOCK);
    client.put(&path("/known"), PutSource::bytes(content.clone()), options()).await.unwrap();
    let staged = cluster.state().done("RenewUpload");
    assert!(staged >= 2, "{staged}");
    let source = PutSource::reader(std::io::Cursor::new(content.clone()));
    client.put(&path("/unknown"), source, options()).await.unwrap();
    for name in ["/known", "/unknown"] {
        assert!(get(&client, name).await.unwrap() == content, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_replanned_chunks_fit_the_calls() {
    let cluster = Cluster::start(4).await;
    let client = cluster.client();
    // Each chunk whose primary it is gets its own plan, and thus its own token.
    cluster.node(1).fault(|faults| faults.refuses_uploads = true);
    let content = bytes(400 * BLOCK);
    let options = PutOptions::default().chunk_size(BLOCK);
    client.put(&path("/f"), PutSource::bytes(content.clone()), options).await.unwrap();
    assert!(client.stats().replans > 64, "{:?}", client.stats());
    assert!(get(&client, "/f").await.unwrap() == content);
}

#[tokio::test(start_paused = true)]
async fn attributes_are_kept_and_progress_is_reported() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let moved = Arc::new(AtomicU64::new(0));
    let sum = moved.clone();
    let progress: dfs_client::ProgressObserver = Arc::new(move |bytes| {
        sum.fetch_add(bytes, Ordering::Relaxed);
    });
    let attributes =
        Attributes { mode: 0o640, uid: 3, gid: 4, mtime: FileTime::new(-5, 7).unwrap() };
    let options = PutOptions::default().attributes(attributes).progress(progress.clone());
    let content = bytes(3 * CHUNK + 9);
    client.put(&path("/f"), PutSource::bytes(content.clone()), options).await.unwrap();
    assert_eq!(moved.swap(0, Ordering::Relaxed), content.len() as u64);
    let stat = client.stat(&path("/f"), Follow::Yes).await.unwrap();
    assert_eq!(stat.attributes, attributes);
    let options = GetOptions::default().progress(progress);
    drain(client.get(&path("/f"), options.clone()).await.unwrap()).await.unwrap();
    assert_eq!(moved.swap(0, Ordering::Relaxed), content.len() as u64);
    client.get_to_file(&path("/f"), options, tempfile::tempfile().unwrap()).await.unwrap();
    assert_eq!(moved.load(Ordering::Relaxed), content.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn put_replaces_unless_a_precondition_forbids_it() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    put(&client, "/f", &bytes(5)).await;
    put(&client, "/f", &bytes(6)).await;
    assert_eq!(get(&client, "/f").await.unwrap(), bytes(6));
    let options = PutOptions::default().precondition(Precondition::Absent);
    let refused = client.put(&path("/f"), PutSource::bytes(bytes(7)), options).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::AlreadyExists);
    assert_eq!(get(&client, "/f").await.unwrap(), bytes(6));
    until("the upload is aborted", || cluster.state().aborted.len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn local_file_that_changes_is_not_stored() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("source");
    for change in ["grows", "shrinks"] {
        std::fs::write(&local, bytes(40 * CHUNK)).unwrap();
        let changed = local.clone();
        let progress: dfs_client::ProgressObserver = Arc::new(move |_| {
            let file = std::fs::OpenOptions::new().write(true).open(&changed).unwrap();
            file.set_len(if change == "grows" { 41 * CHUNK } else { CHUNK }).unwrap();
        });
        let options = small_chunks().progress(progress);
        let refused = client.put(&path("/f"), PutSource::file(&local), options).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Conflict, "{change}: {refused}");
        assert!(refused.to_string().contains("changed"), "{refused}");
        let missing = client.stat(&path("/f"), Follow::Yes).await.unwrap_err();
        assert_eq!(missing.code(), ErrorCode::NotFound);
    }
    assert_eq!(client.stats().replans, 0, "no node was blamed");
}

#[tokio::test(start_paused = true)]
async fn directory_is_listed_completely_page_by_page() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    for name in ["/d", "/d/x", "/e"] {
        client.make_directory(&path(name), MakeDirectoryOptions::default()).await.unwrap();
    }
    {
        let mut state = cluster.state();
        let inode = state.names[&path("/d/x").to_bytes()];
        for number in 0..2_500 {
            state.names.insert(format!("/d/{number:04}").into(), inode);
        }
    }
    let list = async |path: &DfsPath| {
        let mut listing = client.list(path);
        let mut names = Vec::new();
        while let Some(entry) = listing.next().await.unwrap() {
            names.push(String::from_utf8(entry.name.to_bytes().to_vec()).unwrap());
        }
        names
    };
    let mut wanted: Vec<String> = (0..2_500).map(|number| format!("{number:04}")).collect();
    wanted.push("x".to_owned());
    assert_eq!(list(&path("/d")).await, wanted);
    assert_eq!(list(&DfsPath::root()).await, ["d", "e"]);
    assert_eq!(list(&path("/e")).await, Vec::<String>::new());
}
