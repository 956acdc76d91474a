//! Directories, symlinks, renames and deletions.

use dfs_types::{ErrorCode, FileKind, FileTime, InodeId, Precondition, Replication, Scope};

use super::*;

#[tokio::test]
async fn init_creates_an_empty_root_and_only_once() {
    let fixture = Fixture::new().await;
    let root = fixture.stat("/").await.unwrap();
    assert_eq!(
        (root.inode, root.kind, root.attributes.mode),
        (InodeId::ROOT, FileKind::Directory, 0o755)
    );
    assert_eq!(fixture.list("/").await, [""; 0]);
    let random = SeededRandom::new(2);
    let replication = Replication { factor: 1, min_write: None };
    let options = InitOptions { cluster: ClusterId::random(&random), replication };
    let again = init(&*fixture.engine, &options, &*fixture.clock, &random).await;
    let cluster = fixture.namespace.identity().cluster;
    assert!(matches!(again, Err(Error::AlreadyInitialised(there)) if there == cluster));
}

#[tokio::test]
async fn store_of_another_cluster_or_older_incarnation_is_refused() {
    let fixture = Fixture::new().await;
    let random: Arc<dyn Random> = Arc::new(SeededRandom::new(3));
    let empty = Arc::new(MemoryEngine::new());
    let identity = fixture.namespace.identity();
    assert!(matches!(
        open(&empty, &fixture.clock, &random, None).await,
        Err(Error::NotInitialised)
    ));
    let other = ClusterIdentity { cluster: dfs_types::ClusterId(9), ..identity };
    let newer = ClusterIdentity { incarnation: identity.incarnation.next(), ..identity };
    for expected in [other, newer] {
        let opened = open(&fixture.engine, &fixture.clock, &random, Some(expected)).await;
        assert_eq!(opened.unwrap_err().code(), ErrorCode::WrongCluster);
    }
}

#[tokio::test]
async fn directories_are_created_listed_and_described() {
    let fixture = Fixture::new().await;
    for name in ["/c", "/a", "/b", "/a/x"] {
        fixture.mkdir(name).await.unwrap();
    }
    assert_eq!(fixture.list("/").await, ["a", "b", "c"]);
    assert_eq!(fixture.list("/a").await, ["x"]);
    assert_eq!(code(fixture.mkdir("/a").await), ErrorCode::AlreadyExists);
    assert_eq!(code(fixture.mkdir("/no/x").await), ErrorCode::NotFound);
    assert_eq!(code(fixture.mkdir("/").await), ErrorCode::AlreadyExists);
    fixture.put("/f", 0).await.unwrap();
    assert_eq!(code(fixture.mkdir("/f/x").await), ErrorCode::NotADirectory);
    let before = fixture.stat("/a").await.unwrap();
    fixture.clock.advance(HOUR);
    fixture.mkdir("/a/y").await.unwrap();
    let after = fixture.stat("/a").await.unwrap();
    assert!(before.attributes.mtime < after.attributes.mtime);
}

#[tokio::test]
async fn missing_parents_are_created_at_any_depth() {
    let fixture = Fixture::new().await;
    let deep = "/d".repeat(2_000);
    let request = MakeDirectory {
        target: path(&deep),
        parents: true,
        attributes: Attributes { mode: 0o700, ..Attributes::default() },
    };
    let made = fixture.namespace.make_directory(Scope::internal(), &request, None).await.unwrap();
    assert_eq!(fixture.stat(&deep).await.unwrap(), made);
    // Idempotent.
    assert_eq!(
        fixture.namespace.make_directory(Scope::internal(), &request, None).await.unwrap(),
        made
    );
    assert_eq!(code(fixture.mkdir(&deep).await), ErrorCode::AlreadyExists);
    fixture.put(&format!("{deep}/f"), 1).await.unwrap();
    fixture.delete("/d", true, true).await.unwrap();
    fixture.reap(false).await;
    assert_eq!((fixture.count("d/").await, fixture.count("i/").await), (0, 1));
}

#[tokio::test]
async fn symlinks_are_followed_and_loops_detected() {
    let fixture = Fixture::new().await;
    fixture.mkdir("/a").await.unwrap();
    fixture.mkdir("/a/b").await.unwrap();
    let file = fixture.put("/a/b/f", 5).await.unwrap();
    for (at, target) in [
        ("/absolute", "/a/b"),
        ("/relative", "a/./b"),
        ("/a/up", "../a/b/"),
        ("/a/b/top", "../../../../a"),
        ("/chain", "absolute"),
    ] {
        let link = fixture.symlink(at, target).await.unwrap();
        assert_eq!((link.kind, link.size), (FileKind::Symlink, target.len() as u64));
    }
    for through in
        ["/absolute/f", "/relative/f", "/a/up/f", "/a/b/top/b/f", "/chain/f", "/chain/top/up/f"]
    {
        assert_eq!(fixture.stat(through).await.unwrap(), file, "{through}");
    }
    let link = fixture.namespace.stat(Scope::internal(), &path("/chain"), false).await.unwrap();
    assert_eq!(link.symlink_target, "absolute");
    fixture.symlink("/loop", "loop").await.unwrap();
    fixture.symlink("/gone", "nowhere").await.unwrap();
    assert_eq!(code(fixture.stat("/loop").await), ErrorCode::InvalidArgument);
    assert_eq!(code(fixture.stat("/gone").await), ErrorCode::NotFound);
    assert_eq!(
        code(fixture.symlink("/long", &"x".repeat(4_096)).await),
        ErrorCode::InvalidArgument
    );
    fixture.symlink("/name", &"x".repeat(4_095)).await.unwrap();
    assert_eq!(code(fixture.stat("/name").await), ErrorCode::NameTooLong);
    // A file put through a dangling symlink appears at its target.
    fixture.put("/gone", 1).await.unwrap();
    assert_eq!(fixture.stat("/nowhere").await.unwrap().size, 1);
}

#[tokio::test]
async fn renames_replace_like_posix() {
    let fixture = Fixture::new().await;
    for name in ["/a", "/a/b", "/empty", "/full", "/full/x"] {
        fixture.mkdir(name).await.unwrap();
    }
    let file = fixture.put("/f", 5).await.unwrap();
    let other = fixture.put("/g", 7).await.unwrap();
    fixture.rename("/f", "/g").await.unwrap();
    assert_eq!(fixture.stat("/g").await.unwrap().inode, file.inode);
    assert_eq!(code(fixture.stat("/f").await), ErrorCode::NotFound);
    // The replaced file can be restored.
    let undelete = Undelete { target: path("/g"), to: Some(path("/old")) };
    assert_eq!(
        fixture.namespace.undelete(Scope::internal(), &undelete, None).await.unwrap().inode,
        other.inode
    );
    for (from, to, wanted) in [
        ("/a", "/a/b/c", ErrorCode::WouldCycle),
        ("/a", "/a/b", ErrorCode::WouldCycle),
        ("/empty", "/full", ErrorCode::NotEmpty),
        ("/empty", "/g", ErrorCode::NotADirectory),
        ("/g", "/empty", ErrorCode::IsADirectory),
        ("/no", "/x", ErrorCode::NotFound),
        ("/g", "/no/x", ErrorCode::NotFound),
        ("/g", "/old/x", ErrorCode::NotADirectory),
        ("/", "/x", ErrorCode::InvalidArgument),
        ("/a", "/", ErrorCode::InvalidArgument),
    ] {
        assert_eq!(code(fixture.rename(from, to).await), wanted, "{from} {to}");
    }
    fixture.rename("/a", "/a").await.unwrap();
    fixture.rename("/full", "/empty").await.unwrap();
    assert_eq!(fixture.list("/empty").await, ["x"]);
    fixture.rename("/a", "/empty/x/a").await.unwrap();
    assert_eq!(fixture.list("/empty/x/a").await, ["b"]);
    let keep = Rename {
        from: path("/g"),
        to: path("/old"),
        precondition: Some(Precondition::Absent),
        exchange: false,
    };
    assert_eq!(
        code(fixture.namespace.rename(Scope::internal(), &keep, None).await),
        ErrorCode::AlreadyExists
    );
}

#[tokio::test]
async fn concurrent_moves_never_form_a_cycle() {
    for round in 0..50 {
        let fixture = Fixture::new().await;
        for name in ["/a", "/b", "/a/x", "/b/y"] {
            fixture.mkdir(name).await.unwrap();
        }
        let (one, two) =
            tokio::join!(fixture.rename("/a", "/b/y/a"), fixture.rename("/b", "/a/x/b"));
        assert!(one.is_ok() != two.is_ok(), "round {round}: {one:?} {two:?}");
    }
}

#[tokio::test]
async fn delete_of_a_tree_needs_recursive() {
    let fixture = Fixture::new().await;
    fixture.mkdir("/a").await.unwrap();
    fixture.put("/a/f", 5).await.unwrap();
    assert_eq!(code(fixture.delete("/a", false, false).await), ErrorCode::NotEmpty);
    assert_eq!(code(fixture.delete("/", true, false).await), ErrorCode::InvalidArgument);
    assert_eq!(code(fixture.delete("/x", true, false).await), ErrorCode::NotFound);
    fixture.delete("/a", true, false).await.unwrap();
    assert_eq!(code(fixture.stat("/a/f").await), ErrorCode::NotFound);
    let back = Undelete { target: path("/a"), to: None };
    fixture.namespace.undelete(Scope::internal(), &back, None).await.unwrap();
    assert_eq!(fixture.stat("/a/f").await.unwrap().size, 5);
    fixture.delete("/a/f", false, false).await.unwrap();
    fixture.delete("/a", false, false).await.unwrap();
    fixture.clock.advance(HOUR * 2);
    assert_eq!(
        code(fixture.namespace.undelete(Scope::internal(), &back, None).await),
        ErrorCode::NotFound
    );
}

#[tokio::test]
async fn only_requested_attributes_change() {
    let fixture = Fixture::new().await;
    fixture.put("/f", 5).await.unwrap();
    fixture.symlink("/l", "f").await.unwrap();
    let mtime = FileTime::new(-5, 7);
    let request = SetAttributes {
        target: path("/l"),
        follow: true,
        mode: Some(0o107_777),
        uid: Some(12),
        gid: None,
        mtime,
    };
    let stat = fixture.namespace.set_attributes(Scope::internal(), &request, None).await.unwrap();
    assert_eq!(fixture.stat("/f").await.unwrap(), stat);
    let wanted = Attributes { mode: 0o7777, uid: 12, gid: 0, mtime: mtime.unwrap() };
    assert_eq!(stat.attributes, wanted);
    fixture.mkdir("/d").await.unwrap();
    let request = SetAttributes { target: path("/d"), ..request };
    let stat = fixture.namespace.set_attributes(Scope::internal(), &request, None).await.unwrap();
    assert_eq!((stat.attributes, fixture.stat("/d").await.unwrap()), (wanted, stat));
}

#[tokio::test]
async fn repeat_gets_the_first_answer_and_changes_nothing() {
    let fixture = Fixture::new().await;
    let repeat = fixture.repeat();
    let request =
        MakeDirectory { target: path("/a"), parents: false, attributes: Attributes::default() };
    let first =
        fixture.namespace.make_directory(Scope::internal(), &request, Some(&repeat)).await.unwrap();
    fixture.rename("/a", "/b").await.unwrap();
    let again =
        fixture.namespace.make_directory(Scope::internal(), &request, Some(&repeat)).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(fixture.list("/").await, ["b"]);
    let other = Repeat { body: Sha256([9; 32]), ..repeat };
    let lie = fixture.namespace.make_directory(Scope::internal(), &request, Some(&other)).await;
    assert_eq!(code(lie), ErrorCode::InvalidArgument);
    fixture
        .namespace
        .make_directory(Scope::internal(), &request, Some(&fixture.repeat()))
        .await
        .unwrap();
    let late = fixture.namespace.make_directory(Scope::internal(), &request, Some(&repeat)).await;
    assert_eq!(code(late), ErrorCode::Stale);
}
