//! Extended attributes.

use dfs_types::{ErrorCode, XattrName};
use proptest::prelude::*;

use super::*;

fn name(text: &str) -> XattrName {
    XattrName::new(text.as_bytes().to_vec()).unwrap()
}

fn set(at: &str, xattr: &str, value: &[u8]) -> SetXattr {
    SetXattr {
        target: path(at),
        follow: true,
        name: name(xattr),
        value: Bytes::copy_from_slice(value),
        create: false,
        replace: false,
    }
}

impl Fixture {
    async fn set_xattr(&self, request: &SetXattr) -> Result<FileStat, Error> {
        self.namespace.set_xattr(Scope::internal(), request, None).await
    }

    async fn xattr(&self, at: &str, xattr: &str) -> Result<Bytes, Error> {
        self.namespace.xattr(Scope::internal(), &path(at), true, &name(xattr)).await
    }

    async fn xattrs(&self, at: &str) -> Vec<String> {
        let names = self.namespace.xattrs(Scope::internal(), &path(at), true).await.unwrap();
        names.iter().map(ToString::to_string).collect()
    }

    async fn remove_xattr(&self, at: &str, xattr: &str) -> Result<FileStat, Error> {
        let request = RemoveXattr { target: path(at), follow: true, name: name(xattr) };
        self.namespace.remove_xattr(Scope::internal(), &request, None).await
    }

    async fn is_clean(&self) {
        let report = crate::check::check(&*self.engine, &|_| {}).await.unwrap();
        assert!(report.is_clean(), "{report:#?}");
    }
}

#[tokio::test]
async fn xattr_is_set_read_listed_and_removed() {
    let fixture = Fixture::new().await;
    let file = fixture.put("/f", 5).await.unwrap();
    fixture.mkdir("/d").await.unwrap();
    for at in ["/f", "/d"] {
        let changed = fixture.set_xattr(&set(at, "user.b", b"two")).await.unwrap();
        assert_eq!(changed, fixture.stat(at).await.unwrap());
        fixture.set_xattr(&set(at, "trusted.a", b"")).await.unwrap();
        assert_eq!(fixture.xattr(at, "user.b").await.unwrap(), "two");
        assert_eq!(fixture.xattr(at, "trusted.a").await.unwrap(), "");
        assert_eq!(fixture.xattrs(at).await, ["trusted.a", "user.b"]);
        fixture.remove_xattr(at, "user.b").await.unwrap();
        assert_eq!(code(fixture.xattr(at, "user.b").await), ErrorCode::NotFound);
        assert_eq!(code(fixture.remove_xattr(at, "user.b").await), ErrorCode::NotFound);
    }
    assert!(fixture.stat("/f").await.unwrap().change > file.change);
    let create = SetXattr { create: true, ..set("/f", "trusted.a", b"x") };
    assert_eq!(code(fixture.set_xattr(&create).await), ErrorCode::AlreadyExists);
    let replace = SetXattr { replace: true, ..set("/f", "user.none", b"x") };
    assert_eq!(code(fixture.set_xattr(&replace).await), ErrorCode::NotFound);
    fixture.rename("/f", "/d/g").await.unwrap();
    assert_eq!(fixture.xattrs("/d/g").await, ["trusted.a"]);
    fixture.is_clean().await;
}

#[tokio::test]
async fn large_xattr_record_is_reaped_with_its_inode() {
    let fixture = Fixture::new().await;
    fixture.put("/f", 5).await.unwrap();
    fixture.mkdir("/d").await.unwrap();
    let large = vec![7; XattrName::VALUE_LEN_MAX];
    for at in ["/f", "/d"] {
        fixture.set_xattr(&set(at, "user.large", &large)).await.unwrap();
        fixture.set_xattr(&set(at, "user.small", b"1")).await.unwrap();
        assert_eq!(fixture.xattr(at, "user.large").await.unwrap(), large);
    }
    assert_eq!(fixture.count("y/").await, 2);
    fixture.is_clean().await;
    // A value that has shrunk moves into the inode record.
    fixture.set_xattr(&set("/f", "user.large", b"small now")).await.unwrap();
    assert_eq!(fixture.count("y/").await, 1);
    fixture.set_xattr(&set("/f", "user.large", &large)).await.unwrap();
    for at in ["/f", "/d"] {
        fixture.delete(at, true, true).await.unwrap();
    }
    fixture.reap(false).await;
    assert_eq!((fixture.count("y/").await, fixture.count("i/").await), (0, 1));
    fixture.is_clean().await;
}

#[tokio::test]
async fn number_and_size_of_xattrs_are_bounded() {
    let fixture = Fixture::new().await;
    fixture.put("/f", 5).await.unwrap();
    let too_long = vec![0; XattrName::VALUE_LEN_MAX + 1];
    let refused = fixture.set_xattr(&set("/f", "user.long", &too_long)).await;
    assert_eq!(code(refused), ErrorCode::InvalidArgument);
    for number in 0..XattrName::PER_INODE {
        fixture.set_xattr(&set("/f", &format!("user.{number}"), &[0; 60])).await.unwrap();
    }
    assert_eq!(
        code(fixture.set_xattr(&set("/f", "user.x", b"")).await),
        ErrorCode::InvalidArgument
    );
    for number in 0..3 {
        let value = vec![0; XattrName::VALUE_LEN_MAX];
        fixture.set_xattr(&set("/f", &format!("user.{number}"), &value)).await.unwrap();
    }
    let value = vec![0; XattrName::VALUE_LEN_MAX];
    let refused = fixture.set_xattr(&set("/f", "user.3", &value)).await;
    assert_eq!(code(refused), ErrorCode::InvalidArgument);
    fixture.is_clean().await;
    // All of them fit into the commit that reaps the file.
    fixture.delete("/f", false, true).await.unwrap();
    fixture.reap(false).await;
    assert_eq!(fixture.count("y/").await, 0);
}

#[tokio::test]
async fn file_appears_with_all_its_xattrs_and_chunks() {
    let fixture = Fixture::new().await;
    let of = |count: usize, len: usize| -> BTreeMap<_, _> {
        let value = |number| Bytes::from(vec![number as u8; len]);
        (0..count).map(|number| (name(&format!("user.{number:02}")), value(number))).collect()
    };
    let mut separate = 0;
    for (chunks, xattrs) in [
        (0, of(1, 0)),
        (0, of(64, 4_000)),
        (1, of(3, 100)),
        (1, of(64, 4_000)),
        (18, of(1, 60_000)),
        (18, of(64, 4_000)),
        (18, of(0, 0)),
    ] {
        let at = format!("/{chunks}-{}", xattrs.len());
        let plan = fixture.plan(&at, chunks * CHUNK).await.unwrap();
        let confirm = Confirm { xattrs: xattrs.clone(), ..fixture.confirm_of(&plan) };
        let repeat = fixture.repeat();
        let confirmed =
            fixture.namespace.confirm(Scope::internal(), &confirm, Some(&repeat)).await.unwrap();
        assert_eq!(confirmed.xattrs as usize, xattrs.len());
        assert_eq!(fixture.stat(&at).await.unwrap(), confirmed);
        let again = fixture.namespace.confirm(Scope::internal(), &confirm, Some(&repeat)).await;
        assert_eq!(again.unwrap(), confirmed);
        let found = fixture.namespace.xattr_values(Scope::internal(), &path(&at), true).await;
        assert_eq!(found.unwrap(), xattrs);
        separate += xattrs.values().filter(|value| value.len() >= 4_000).count();
    }
    assert_eq!(fixture.count("y/").await, separate);
    fixture.is_clean().await;
    // A file that replaces another does not inherit its attributes.
    let replaced = fixture.put("/1-64", 5).await.unwrap();
    assert_eq!(replaced.xattrs, 0);
    for at in ["/0-1", "/0-64", "/1-3", "/1-64", "/18-1", "/18-64", "/18-0"] {
        fixture.delete(at, false, true).await.unwrap();
    }
    fixture.clock.advance(Duration::from_hours(2));
    fixture.reap(false).await;
    assert_eq!(fixture.count("y/").await, 0);
    fixture.is_clean().await;
}

#[tokio::test]
async fn invalid_xattrs_are_refused_by_name() {
    let fixture = Fixture::new().await;
    let plan = fixture.plan("/f", CHUNK).await.unwrap();
    for (count, len, refused) in
        [(65, 1, "user.64"), (5, 60_000, "user.04"), (1, 65_537, "user.00")]
    {
        let value = Bytes::from(vec![0; len]);
        let names = (0..count).map(|number| name(&format!("user.{number:02}")));
        let xattrs = names.map(|name| (name, value.clone())).collect();
        let confirm = Confirm { xattrs, ..fixture.confirm_of(&plan) };
        let error = fixture.namespace.confirm(Scope::internal(), &confirm, None).await.unwrap_err();
        assert!(error.to_string().contains(refused), "{error}");
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
    }
    assert_eq!(code(fixture.stat("/f").await), ErrorCode::NotFound);
}

/// As on Linux, where a symlink has no user.* attributes either.
#[tokio::test]
async fn user_xattr_of_a_symlink_is_refused_and_others_are_not() {
    let fixture = Fixture::new().await;
    fixture.put("/f", 5).await.unwrap();
    fixture.symlink("/l", "f").await.unwrap();
    let on_link = |xattr| SetXattr { follow: false, ..set("/l", xattr, b"v") };
    let refused = fixture.set_xattr(&on_link("user.a")).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidArgument);
    let why = "/l is a symlink, and only files and directories have user.* attributes";
    assert_eq!(refused.to_string(), why);
    fixture.set_xattr(&on_link("trusted.a")).await.unwrap();
    fixture.set_xattr(&set("/l", "user.a", b"v")).await.unwrap();
    assert_eq!(fixture.xattrs("/f").await, ["user.a"]);
}

#[tokio::test]
async fn check_finds_xattrs_without_inode_or_value() {
    let fixture = Fixture::new().await;
    let file = fixture.put("/f", 5).await.unwrap().inode;
    let value = vec![7; 2_000];
    fixture.set_xattr(&set("/f", "user.large", &value)).await.unwrap();
    let key = crate::keys::xattr(file, &name("user.large"));
    let tx = |change: crate::engine::Write| {
        let commit = crate::engine::Commit { conditions: Vec::new(), writes: vec![change] };
        crate::engine::Engine::commit_batch(&*fixture.engine, vec![commit])
    };
    let stray = crate::keys::xattr(file, &name("user.stray"));
    let snapshot = crate::engine::Engine::snapshot(&*fixture.engine).await.unwrap();
    let bytes = snapshot.get(&key).await.unwrap().unwrap().value;
    tx(crate::engine::Write::Put(stray.clone(), bytes)).await.unwrap();
    let report = crate::check::check(&*fixture.engine, &|_| {}).await.unwrap();
    assert_eq!(report.problem_count, 1, "{report:#?}");
    tx(crate::engine::Write::Delete(stray)).await.unwrap();
    tx(crate::engine::Write::Delete(key)).await.unwrap();
    let report = crate::check::check(&*fixture.engine, &|_| {}).await.unwrap();
    assert_eq!(report.problem_count, 1, "{report:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is set and removed, the attributes equal a model map, wherever their values are
    /// stored.
    #[test]
    fn xattrs_equal_a_model_map(
        steps in prop::collection::vec((0_u8..6, 0_usize..1_500, any::<bool>()), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new().await;
            fixture.put("/f", 5).await.unwrap();
            let mut model = BTreeMap::new();
            for (number, len, is_set) in steps {
                let name = format!("user.{number}");
                if is_set {
                    let value = vec![number; len];
                    fixture.set_xattr(&set("/f", &name, &value)).await.unwrap();
                    model.insert(name, value);
                } else {
                    let removed = fixture.remove_xattr("/f", &name).await;
                    assert_eq!(removed.is_ok(), model.remove(&name).is_some());
                }
            }
            assert_eq!(fixture.xattrs("/f").await, model.keys().cloned().collect::<Vec<_>>());
            for (name, value) in &model {
                assert_eq!(fixture.xattr("/f", name).await.unwrap(), value);
            }
            fixture.is_clean().await;
        });
    }
}
