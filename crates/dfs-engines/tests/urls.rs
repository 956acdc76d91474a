//! Opening by URL.

use std::error::Error;

use bytes::Bytes;
use dfs_engines::{OpenError, open};
use dfs_metadata::engine::{Commit, EngineError, Write};
use dfs_types::ErrorCode;

#[tokio::test]
async fn memory_is_empty_each_time() {
    let engine = open("memory:").await.unwrap();
    let commit = Commit {
        conditions: vec![],
        writes: vec![Write::Put(Bytes::from_static(b"a"), Bytes::new())],
    };
    engine.commit_batch(vec![commit]).await.unwrap();
    let other = open("memory:").await.unwrap();
    assert_eq!(other.snapshot().await.unwrap().get(b"a").await.unwrap(), None);
}

#[tokio::test]
async fn unknown_url_lists_the_known_forms() {
    for url in ["", "redb", "redb:", "redb://", "redb://relative/folder", "etcd", "/folder"] {
        let Err(error) = open(url).await else { panic!("{url:?} was opened") };
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        let text = error.to_string();
        assert!(text.contains(&format!("{url:?}")), "{text}");
        assert!(text.contains("redb:///absolute/directory"), "{text}");
    }
}

#[cfg(feature = "etcd")]
#[tokio::test]
async fn invalid_url_is_explained() {
    let Err(error) = open("etcd://host/prefix").await else { panic!("it was opened") };
    let expected = "metadata url \"etcd://host/prefix\" is invalid: \"host\" is not host:port";
    assert_eq!(error.to_string(), expected);
}

#[cfg(feature = "redb")]
#[tokio::test]
async fn folder_is_opened_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("not/there/yet");
    let url = format!("redb://{}", folder.display());
    let first = open(&url).await.unwrap();
    let Err(error) = open(&url).await else { panic!("it was opened twice") };
    assert_eq!(error.code(), ErrorCode::Busy);
    assert_eq!(error.to_string(), format!("cannot open the metadata at {url}"));
    let source = error.source().unwrap().to_string();
    assert!(
        source.contains("in use") && source.contains(&folder.display().to_string()),
        "{source}"
    );
    drop(first);
    open(&url).await.unwrap();
}

#[test]
fn every_open_error_has_its_code() {
    let text = || "text".to_owned();
    let table = [
        (EngineError::Unavailable(text()), ErrorCode::Unavailable),
        (EngineError::NoSpace(text()), ErrorCode::NoSpace),
        (EngineError::Damaged(text()), ErrorCode::Corrupt),
        (EngineError::NewerFormat { found: 9, supported: 1 }, ErrorCode::UnsupportedVersion),
        (EngineError::InUse(text()), ErrorCode::Busy),
        (EngineError::TooLarge(text()), ErrorCode::Internal),
    ];
    for (source, code) in table {
        let error = OpenError::Engine { url: text(), source };
        assert_eq!(error.code(), code, "{error:?}");
    }
}
