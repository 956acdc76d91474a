//! Calls that address an inode, or a child of a directory.

use dfs_types::{Change, ErrorCode, InodeId, Name};

use super::*;

fn child(parent: InodeId, name: &str) -> Target {
    Target::child(parent, &Name::new(name.as_bytes().to_vec()).unwrap())
}

fn rename(from: Target, to: Target) -> Rename {
    Rename { from, to, precondition: None, exchange: false }
}

impl Fixture {
    async fn stat_of(&self, target: &Target) -> Result<FileStat, Error> {
        self.namespace.stat(Scope::internal(), target, true).await
    }

    async fn rename_targets(&self, from: Target, to: Target) -> Result<(), Error> {
        self.namespace.rename(Scope::internal(), &rename(from, to), None).await
    }

    async fn make(&self, target: Target) -> Result<FileStat, Error> {
        let attributes = Attributes { mode: 0o755, ..Attributes::default() };
        let request = MakeDirectory { target, parents: false, attributes };
        self.namespace.make_directory(Scope::internal(), &request, None).await
    }

    async fn delete_target(&self, target: Target) -> Result<(), Error> {
        let request = Delete { target, recursive: true, now: false, precondition: None };
        self.namespace.delete(Scope::internal(), &request, None).await.map(drop)
    }
}

#[tokio::test]
async fn child_and_inode_targets_equal_the_path() {
    let fixture = Fixture::new().await;
    let d = fixture.mkdir("/d").await.unwrap().inode;
    let made = fixture.make(child(d, "e")).await.unwrap();
    let by_path = fixture.stat("/d/e").await.unwrap();
    assert_eq!(fixture.stat_of(&child(d, "e")).await.unwrap(), by_path);
    assert_eq!(fixture.stat_of(&made.inode.into()).await.unwrap(), by_path);
    assert_eq!(code(fixture.stat_of(&child(d, "f")).await), ErrorCode::NotFound);
    assert_eq!(code(fixture.stat_of(&InodeId(99_999).into()).await), ErrorCode::Stale);
    assert_eq!(code(fixture.stat_of(&child(InodeId(99_999), "x")).await), ErrorCode::Stale);

    fixture.rename_targets(child(d, "e"), child(InodeId::ROOT, "g")).await.unwrap();
    assert_eq!(fixture.stat("/g").await.unwrap().inode, made.inode);
    let page =
        fixture.namespace.list_directory(Scope::internal(), &d.into(), None, 10).await.unwrap();
    assert_eq!((page.directory, page.entries.len()), (d, 0));
    fixture.delete_target(child(InodeId::ROOT, "g")).await.unwrap();
    assert_eq!(fixture.list("/").await, ["d"]);
}

#[tokio::test]
async fn child_target_does_not_follow_symlinks() {
    let fixture = Fixture::new().await;
    fixture.mkdir("/d").await.unwrap();
    let link = fixture.symlink("/l", "d").await.unwrap();
    assert_eq!(fixture.stat_of(&child(InodeId::ROOT, "l")).await.unwrap().inode, link.inode);
    let listed = fixture
        .namespace
        .list_directory(Scope::internal(), &child(InodeId::ROOT, "l"), None, 10)
        .await;
    assert_eq!(code(listed), ErrorCode::NotADirectory);
}

#[tokio::test]
async fn calls_that_need_a_name_refuse_inode_targets() {
    let fixture = Fixture::new().await;
    let d = fixture.mkdir("/d").await.unwrap().inode;
    assert_eq!(code(fixture.delete_target(d.into()).await), ErrorCode::InvalidArgument);
    assert_eq!(code(fixture.make(d.into()).await), ErrorCode::InvalidArgument);
    let renamed = fixture.rename_targets(path("/d"), d.into()).await;
    assert_eq!(code(renamed), ErrorCode::InvalidArgument);
}

#[tokio::test]
async fn unlinked_inode_is_readable_until_reaped() {
    let fixture = Fixture::new().await;
    let d = fixture.mkdir("/d").await.unwrap().inode;
    let file = fixture.put("/d/f", 5).await.unwrap().inode;
    fixture.delete("/d", true, false).await.unwrap();
    assert_eq!(fixture.stat_of(&file.into()).await.unwrap().size, 5);
    assert_eq!(fixture.stat_of(&child(d, "f")).await.unwrap().inode, file);
    assert_eq!(fixture.open_range(file.into(), 0, 0).await.unwrap().extents.len(), 1);
    assert_eq!(code(fixture.make(child(d, "x")).await), ErrorCode::NotFound);
    assert_eq!(code(fixture.delete_target(child(d, "f")).await), ErrorCode::NotFound);
    fixture.reap(true).await;
    assert_eq!(code(fixture.stat_of(&file.into()).await), ErrorCode::Stale);
    assert_eq!(code(fixture.stat_of(&child(d, "f")).await), ErrorCode::Stale);
    assert_eq!(code(fixture.open_range(file.into(), 0, 0).await), ErrorCode::Stale);
}

/// With children of deleted directories as targets, directories outside the root can form a cycle,
/// too.
#[tokio::test]
async fn undelete_into_itself_is_refused() {
    let fixture = Fixture::new().await;
    let a = fixture.mkdir("/a").await.unwrap().inode;
    let b = fixture.mkdir("/a/b").await.unwrap().inode;
    fixture.mkdir("/c").await.unwrap();
    fixture.delete("/a", true, false).await.unwrap();
    let undelete = |to| Undelete { target: path("/a"), to: Some(to) };
    let into_itself = undelete(child(b, "x"));
    let restored = fixture.namespace.undelete(Scope::internal(), &into_itself, None).await;
    assert_eq!(code(restored), ErrorCode::WouldCycle);
    // The same through a directory that was moved into it.
    fixture.rename_targets(path("/c"), child(b, "c")).await.unwrap();
    let c = fixture.stat_of(&child(b, "c")).await.unwrap().inode;
    let through_another = undelete(child(c, "x"));
    let restored = fixture.namespace.undelete(Scope::internal(), &through_another, None).await;
    assert_eq!(code(restored), ErrorCode::WouldCycle);
    let back = Undelete { target: path("/a"), to: None };
    let restored = fixture.namespace.undelete(Scope::internal(), &back, None).await.unwrap();
    assert_eq!(restored.inode, a);
    assert_eq!(fixture.stat("/a/b/c").await.unwrap().inode, c);
}

#[tokio::test]
async fn change_differs_between_inode_states() {
    let fixture = Fixture::new().await;
    let change = async |at: &str| fixture.stat(at).await.unwrap().change;
    let made = fixture.mkdir("/d").await.unwrap();
    assert_eq!(made.change, change("/d").await);
    assert_eq!(made.change.incarnation, fixture.namespace.identity().incarnation);
    let file = fixture.put("/d/f", 5).await.unwrap();
    assert_eq!(file.change, change("/d/f").await);
    let with_entry = change("/d").await;
    assert!(with_entry > made.change, "an entry changes its directory");

    let set = |target| SetAttributes {
        target,
        follow: true,
        mode: Some(0o600),
        uid: None,
        gid: None,
        mtime: None,
    };
    let repeat = fixture.repeat();
    let request = set(file.inode.into());
    let again = || fixture.namespace.set_attributes(Scope::internal(), &request, Some(&repeat));
    let changed = again().await.unwrap();
    assert!(changed.change > file.change);
    assert_eq!(changed.change, change("/d/f").await);
    assert_eq!(again().await.unwrap(), changed, "a repeat gets the same change");
    assert_eq!(change("/d").await, with_entry, "a change below does not change a directory");

    let listed =
        fixture.namespace.list_directory(Scope::internal(), &path("/d"), None, 10).await.unwrap();
    assert_eq!(listed.entries[0].stat, fixture.stat("/d/f").await.unwrap());
    fixture.rename("/d/f", "/f").await.unwrap();
    assert_eq!(change("/f").await, changed.change, "a rename does not change the inode");
    assert_ne!(changed.change, Change::default());
}
