//! Preconditions and exchanges.

use dfs_types::{ErrorCode, InodeId, Precondition};
use proptest::prelude::*;

use super::*;

fn is(stat: &FileStat) -> Precondition {
    Precondition::Inode { inode: stat.inode, change: Some(stat.change) }
}

impl Fixture {
    async fn delete_if(&self, at: &str, precondition: Precondition) -> Result<(), Error> {
        let precondition = Some(precondition);
        let request = Delete { target: path(at), recursive: true, now: false, precondition };
        self.namespace.delete(Scope::internal(), &request, None).await.map(drop)
    }

    async fn put_if(&self, at: &str, precondition: Precondition) -> Result<FileStat, Error> {
        let plan = self.plan(at, 5).await?;
        let confirm = Confirm { precondition: Some(precondition), ..self.confirm_of(&plan) };
        self.namespace.confirm(Scope::internal(), &confirm, Some(&self.repeat())).await
    }

    async fn exchange(&self, from: &str, to: &str) -> Result<(), Error> {
        let request = Rename { from: path(from), to: path(to), precondition: None, exchange: true };
        self.namespace.rename(Scope::internal(), &request, None).await
    }
}

#[tokio::test]
async fn put_replaces_only_what_its_precondition_names() {
    let fixture = Fixture::new().await;
    let absent = Precondition::Absent;
    let first = fixture.put_if("/f", absent).await.unwrap();
    assert_eq!(code(fixture.put_if("/f", absent).await), ErrorCode::AlreadyExists);
    let second = fixture.put_if("/f", is(&first)).await.unwrap();
    assert_eq!(code(fixture.put_if("/f", is(&first)).await), ErrorCode::Stale);
    assert_eq!(fixture.stat("/f").await.unwrap(), second);
    assert_eq!(code(fixture.put_if("/none", is(&first)).await), ErrorCode::NotFound);
}

#[tokio::test]
async fn delete_removes_only_what_its_precondition_names() {
    let fixture = Fixture::new().await;
    fixture.mkdir("/d").await.unwrap();
    let empty = fixture.stat("/d").await.unwrap();
    fixture.put("/d/f", 1).await.unwrap();
    // A new entry changes the state of the directory.
    assert_eq!(code(fixture.delete_if("/d", is(&empty)).await), ErrorCode::Stale);
    let any_state = Precondition::Inode { inode: InodeId(1), change: None };
    assert_eq!(code(fixture.delete_if("/d", any_state).await), ErrorCode::Stale);
    let absent = Precondition::Absent;
    assert_eq!(code(fixture.delete_if("/d", absent).await), ErrorCode::AlreadyExists);
    let now = fixture.stat("/d").await.unwrap();
    fixture.delete_if("/d", is(&now)).await.unwrap();
    assert_eq!(fixture.list("/").await, [""; 0]);
}

#[tokio::test]
async fn exchange_swaps_names_of_any_kind() {
    let fixture = Fixture::new().await;
    for at in ["/a", "/a/x", "/b", "/b/y"] {
        fixture.mkdir(at).await.unwrap();
    }
    let file = fixture.put("/f", 5).await.unwrap().inode;
    let x = fixture.stat("/a/x").await.unwrap().inode;
    let y = fixture.stat("/b/y").await.unwrap().inode;
    fixture.exchange("/a/x", "/b/y").await.unwrap();
    assert_eq!(fixture.stat("/a/x").await.unwrap().inode, y);
    assert_eq!(fixture.stat("/b/y").await.unwrap().inode, x);
    // A directory that is not empty, and a file.
    fixture.exchange("/a", "/f").await.unwrap();
    assert_eq!(fixture.stat("/a").await.unwrap().inode, file);
    assert_eq!(fixture.stat("/f/x").await.unwrap().inode, y);
    fixture.exchange("/f", "/f").await.unwrap();
    assert_eq!(code(fixture.exchange("/f", "/none").await), ErrorCode::NotFound);
    assert_eq!(code(fixture.exchange("/f", "/f/x").await), ErrorCode::WouldCycle);
    assert_eq!(code(fixture.exchange("/f/x", "/f").await), ErrorCode::WouldCycle);
    assert_eq!(fixture.count("o/").await, 0, "nothing was unlinked");
    let report = crate::check::check(&*fixture.engine, &|_| {}).await.unwrap();
    assert!(report.is_clean(), "{report:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is moved and exchanged, also by children of deleted directories, each directory
    /// leads up to the root or to a deleted one.
    #[test]
    fn exchanges_never_form_a_cycle(
        steps in prop::collection::vec((0_u8..8, 0_usize..6, 0_usize..5, 0_usize..6, 0_usize..5), 1..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new().await;
            let mut directories = vec![InodeId::ROOT];
            for at in ["/0", "/0/1", "/0/1/2", "/3", "/3/4"] {
                directories.push(fixture.mkdir(at).await.unwrap().inode);
            }
            let name = |n: usize| dfs_types::Name::new(n.to_string()).unwrap();
            for (action, one, from, other, to) in steps {
                let from = Target::child(directories[one], &name(from));
                let to = Target::child(directories[other], &name(to));
                // Calls may be refused.
                if action == 7 {
                    let request =
                        Delete { target: from, recursive: true, now: false, precondition: None };
                    drop(fixture.namespace.delete(Scope::internal(), &request, None).await);
                } else {
                    let request = Rename { from, to, precondition: None, exchange: action < 5 };
                    drop(fixture.namespace.rename(Scope::internal(), &request, None).await);
                }
                for directory in &directories {
                    let tx = fixture.namespace.begin().await.unwrap();
                    // Fails if the walk does not end.
                    tx.lies_within(*directory, InodeId(u64::MAX)).await.unwrap();
                }
            }
            let report = crate::check::check(&*fixture.engine, &|_| {}).await.unwrap();
            assert!(report.is_clean(), "{report:#?}");
        });
    }
}
