//! S6 to S11.

use std::collections::BTreeSet;
use std::time::Duration;

use dfs_client::{DeleteOptions, GetOptions, MakeDirectoryOptions, Precondition, RenameOptions};
use dfs_types::ErrorCode;

use super::{attributes, client, forgetful, path, put, read, spawn};
use crate::support::{cluster, noise};

const MIB: usize = 1 << 20;

/// Returns the content of a version; every byte identifies it.
fn version(number: u8) -> Vec<u8> {
    vec![number; 150_000 + usize::from(number)]
}

#[tokio::test(flavor = "multi_thread")]
async fn s06_readers_see_one_complete_version_during_overwrites() {
    let cluster = cluster();
    let client = client(&cluster);
    put(&client, "/file", version(0)).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let readers: Vec<_> = (0..16)
        .map(|_| {
            let (client, stopped) = (client.clone(), stopped.clone());
            spawn(async move {
                let mut reads = 0;
                while !*stopped.borrow() {
                    let bytes = read(&client, "/file").await.unwrap();
                    let first = bytes[0];
                    assert!(bytes == version(first), "mixed versions");
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    for number in 0..200 {
        put(&client, "/file", version(number)).await.unwrap();
    }
    stop.send_replace(true);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    assert!(read(&client, "/file").await.unwrap() == version(199));
}

#[tokio::test(flavor = "multi_thread")]
async fn s07_one_of_two_writers_wins_completely() {
    let cluster = cluster();
    let client = client(&cluster);
    for round in 0..30 {
        let at = format!("/{round}");
        let (one, two) = tokio::join!(put(&client, &at, version(1)), put(&client, &at, version(2)));
        one.unwrap();
        two.unwrap();
        let bytes = read(&client, &at).await.unwrap();
        assert!(bytes == version(1) || bytes == version(2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s08_open_file_is_readable_until_it_is_reaped() {
    let cluster = forgetful(Duration::from_secs(3));
    let client = client(&cluster);
    let bytes = noise(20 * MIB, 1);
    put(&client, "/file", bytes.clone()).await.unwrap();
    let stat = client.stat(&path("/file"), dfs_client::Follow::Yes).await.unwrap();
    let mut reader = client.get(&path("/file"), GetOptions::default()).await.unwrap();
    put(&client, "/file", vec![0; 10]).await.unwrap();
    let mut got = Vec::new();
    while let Some(part) = reader.next().await.unwrap() {
        got.extend_from_slice(&part);
    }
    assert!(got == bytes);
    // Opened by inode number, it is gone once reaped.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let request = dfs_proto::v1::OpenRequest {
            target: Some(dfs_types::Target::from(stat.inode).into()),
            ..Default::default()
        };
        match super::raw::coordinator(&cluster).open_file(request).await {
            Ok(_) => assert!(tokio::time::Instant::now() < deadline, "still readable"),
            Err(status) => {
                assert_eq!(super::raw::code::<()>(Err(status)), ErrorCode::Stale);
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s09_exactly_one_of_many_renames_of_a_file_succeeds() {
    let cluster = cluster();
    let client = client(&cluster);
    for round in 0..10 {
        let from = path(&format!("/from-{round}"));
        put(&client, &from.to_string(), vec![1]).await.unwrap();
        let renames = (0..8).map(|number| {
            let to = path(&format!("/to-{round}-{number}"));
            let (client, from) = (client.clone(), from.clone());
            async move {
                (
                    client
                        .rename(
                            &from,
                            &to,
                            RenameOptions::default().precondition(Precondition::Absent),
                        )
                        .await
                        .is_ok(),
                    to,
                )
            }
        });
        let done = futures_util::future::join_all(renames).await;
        let winners: Vec<_> = done.iter().filter(|(is_done, _)| *is_done).collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(read(&client, &winners[0].1.to_string()).await.unwrap(), [1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s10_files_arrive_in_a_directory_renamed_meanwhile() {
    let cluster = cluster();
    let client = client(&cluster);
    client
        .make_directory(&path("/a"), MakeDirectoryOptions::default().attributes(attributes()))
        .await
        .unwrap();
    let puts: Vec<_> = (0..60)
        .map(|number| {
            let client = client.clone();
            spawn(async move {
                // Under its current name when the put starts.
                loop {
                    for top in ["/a", "/b"] {
                        match put(&client, &format!("{top}/{number}"), vec![number; 1_000]).await {
                            Ok(()) => return,
                            Err(error) => assert_eq!(error.code(), ErrorCode::NotFound, "{error}"),
                        }
                    }
                }
            })
        })
        .collect();
    let mut at = ["/a", "/b"];
    while puts.iter().any(|put| !put.is_finished()) {
        client.rename(&path(at[0]), &path(at[1]), RenameOptions::default()).await.unwrap();
        at.swap(0, 1);
    }
    for put in puts {
        put.await.unwrap();
    }
    for number in 0..60 {
        let bytes = read(&client, &format!("{}/{number}", at[0])).await.unwrap();
        assert_eq!(bytes, vec![number; 1_000]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_listing_shows_permanent_entries_exactly_once() {
    let cluster = cluster();
    let client = client(&cluster);
    client
        .make_directory(&path("/d"), MakeDirectoryOptions::default().attributes(attributes()))
        .await
        .unwrap();
    let make = async |name: String| {
        client
            .make_directory(
                &path(&format!("/d/{name}")),
                MakeDirectoryOptions::default().attributes(attributes()),
            )
            .await
            .unwrap();
    };
    // More than one page.
    let stable: Vec<String> = (0..1_200).map(|number| format!("{number:04}")).collect();
    futures_util::future::join_all(stable.iter().map(|name| make(name.clone()))).await;
    for round in 0..5 {
        let churn = async {
            for number in 0..40 {
                let name = format!("{:04}-{round}", number * 29);
                make(name.clone()).await;
                let at = path(&format!("/d/{name}"));
                client.delete(&at, DeleteOptions::default()).await.unwrap();
            }
        };
        let listing = async {
            let mut listing = client.list(path("/d"));
            let mut seen = Vec::new();
            while let Some(entry) = listing.next().await.unwrap() {
                seen.push(entry.name.to_string());
            }
            seen
        };
        let ((), seen) = tokio::join!(churn, listing);
        let unique: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(unique.len(), seen.len(), "an entry is listed twice");
        assert!(stable.iter().all(|name| unique.contains(name)), "an entry is missing");
    }
}
