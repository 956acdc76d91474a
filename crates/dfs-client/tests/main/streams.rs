//! Files and directories as streams.

use std::io::SeekFrom;

use dfs_client::{ErrorCode, GetOptions, MakeDirectoryOptions, PutOptions, PutSource};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use crate::fake::{CHUNK, Clients as _, Cluster};
use crate::{bytes, path, put};

#[tokio::test(start_paused = true)]
async fn file_is_an_async_read_that_can_seek() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let size = 9 * CHUNK + 5;
    let content = bytes(size);
    put(&client, "/f", &content).await;
    let mut reader = client.get(&path("/f"), GetOptions::default()).await.unwrap();
    let mut all = Vec::new();
    reader.read_to_end(&mut all).await.unwrap();
    assert!(all == content);
    for (to, position) in [
        (SeekFrom::Start(3), 3),
        (SeekFrom::Current(2 * CHUNK as i64), 2 * CHUNK + 1_003),
        (SeekFrom::End(-1_000), size - 1_000),
        (SeekFrom::Current(-5_000), size - 5_000),
        (SeekFrom::End(7), size + 7),
    ] {
        assert_eq!(reader.seek(to).await.unwrap(), position, "{to:?}");
        let mut part = vec![0; 1_000];
        let wanted = content.get(position as usize..).unwrap_or_default();
        let mut read = 0;
        while read < part.len() {
            match reader.read(&mut part[read..]).await.unwrap() {
                0 => break,
                length => read += length,
            }
        }
        assert_eq!(part[..read], wanted[..wanted.len().min(1_000)], "{to:?}");
        if position > size {
            break;
        }
        if to == SeekFrom::End(-1_000) {
            assert_eq!(read, 1_000);
        }
    }
    reader.seek(SeekFrom::Current(-(size as i64) - 8)).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn file_is_a_stream_of_bytes() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let content = bytes(9 * CHUNK + 5);
    put(&client, "/f", &content).await;
    let reader = client.get(&path("/f"), GetOptions::default().offset(1)).await.unwrap();
    let runs: Vec<_> = reader.try_collect().await.unwrap();
    assert!(runs.concat() == content[1..]);
    let names = ["/d", "/d/a", "/d/b"];
    for name in names {
        client.make_directory(&path(name), MakeDirectoryOptions::default()).await.unwrap();
    }
    let entries: Vec<_> = client.list(path("/d")).try_collect().await.unwrap();
    let names: Vec<_> = entries.iter().map(|entry| entry.name.to_string()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn inode_names_one_version_of_a_file() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let (old, new) = (bytes(CHUNK + 3), bytes(2 * CHUNK));
    put(&client, "/f", &old).await;
    let reader = client.get(&path("/f"), GetOptions::default()).await.unwrap();
    put(&client, "/f", &new).await;
    let inode = reader.stat().inode;
    assert!(client.read_range(inode, 0, u64::MAX).await.unwrap() == old);
    assert!(client.read_range(&path("/f"), 0, u64::MAX).await.unwrap() == new);
    let parts = tokio::join!(reader.read_at(CHUNK, 9), reader.read_at(1, 2));
    assert_eq!(
        (parts.0.unwrap(), parts.1.unwrap()),
        (old.slice(CHUNK as usize..), old.slice(1..3))
    );
    cluster.state().inodes.remove(&inode.0);
    let gone = client.get(inode, GetOptions::default()).await.unwrap_err();
    assert_eq!(gone.code(), ErrorCode::Stale);
}

#[tokio::test(start_paused = true)]
async fn walk_is_depth_first_in_name_order_and_du_sums_it_up() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    for name in ["/t", "/t/b", "/t/b/deep", "/t/d"] {
        client.make_directory(&path(name), MakeDirectoryOptions::default()).await.unwrap();
    }
    for (name, size) in [("/t/a", 1), ("/t/b/deep/x", 10), ("/t/b/z", 100), ("/t/c", 1_000)] {
        let source = PutSource::bytes(bytes(size));
        client.put(&path(name), source, PutOptions::default()).await.unwrap();
    }
    let found: Vec<_> = client.walk(&path("/t")).try_collect().await.unwrap();
    let found: Vec<_> = found.iter().map(|entry| (entry.path.to_string(), entry.depth)).collect();
    let wanted = [
        ("/t", 0),
        ("/t/a", 1),
        ("/t/b", 1),
        ("/t/b/deep", 2),
        ("/t/b/deep/x", 3),
        ("/t/b/z", 2),
        ("/t/c", 1),
        ("/t/d", 1),
    ];
    assert_eq!(found, wanted.map(|(path, depth)| (path.to_owned(), depth)));
    let usage: Vec<_> = client.du(&path("/t")).try_collect().await.unwrap();
    let usage: Vec<_> =
        usage.iter().map(|usage| (usage.path.to_string(), usage.bytes, usage.entries)).collect();
    let wanted = [("/t/b/deep", 10, 2), ("/t/b", 110, 4), ("/t/d", 0, 1), ("/t", 1_111, 8)];
    assert_eq!(usage, wanted.map(|(path, bytes, entries)| (path.to_owned(), bytes, entries)));
    let mut missing = client.walk(&path("/nothing"));
    assert_eq!(missing.next().await.unwrap().unwrap_err().code(), ErrorCode::NotFound);
    assert!(missing.next().await.is_none());
}
