//! The check finds nothing in what the namespace writes, and finds each kind of damage.

use dfs_types::{ChunkId, FileKind, InodeId, Level, Name, Scope, SeededRandom};

use super::*;
use crate::check::{ProblemKind, Report, check};
use crate::codec::Record;
use crate::engine::lease::lease_epoch_key;
use crate::engine::{Commit, Engine, Write};
use crate::keys;
use crate::records::entry::Entry;
use crate::records::extent::Extent;
use crate::records::inode::{Content, Directory, File, Inode, Link, Times};
use crate::records::setting::{MigrationMark, NextInode};
use crate::records::unlinked::Unlinked;

async fn report(fixture: &Fixture) -> Report {
    check(&*fixture.engine, &|_| ()).await.unwrap()
}

async fn write(fixture: &Fixture, writes: Vec<Write>) {
    let commit = Commit { conditions: vec![], writes };
    fixture.engine.commit_batch(vec![commit]).await.unwrap();
}

/// Does something at random, which may be refused.
async fn random_call(fixture: &Fixture, random: &SeededRandom) {
    let any = |n: u64| format!("/{}", ["a", "b", "c", "d"][random.below(n) as usize]);
    let deep = || match random.below(3) {
        0 => any(4),
        1 => any(2) + &any(4),
        _ => any(2) + &any(2) + &any(4),
    };
    let (at, to) = (deep(), deep());
    match random.below(12) {
        0 | 1 => drop(fixture.mkdir(&at).await),
        2 => drop(fixture.symlink(&at, "x").await),
        3 => drop(fixture.rename(&at, &to).await),
        4 => drop(fixture.delete(&at, random.below(2) == 0, random.below(2) == 0).await),
        5 => {
            let request = Undelete { target: path(&at), to: None };
            drop(fixture.namespace.undelete(Scope::internal(), &request, None).await);
        }
        6 => {
            let limits = ReapLimits { items: 2, pressure: random.below(4) == 0 };
            fixture.namespace.reap(Scope::internal(), &limits, None).await.unwrap();
            fixture.namespace.reap_uploads(Scope::internal(), &limits, None).await.unwrap();
        }
        7 => fixture.clock.advance(HOUR / (1 + random.below(8) as u32)),
        8 => {
            // Staged, then aborted or abandoned.
            let Ok(plan) = fixture.plan(&at, random.below(6) * CHUNK).await else { return };
            let written: Vec<_> = plan.chunks.iter().map(|chunk| fixture.written(chunk)).collect();
            drop(
                fixture
                    .namespace
                    .stage(Scope::internal(), std::slice::from_ref(&plan.token), &written)
                    .await,
            );
            if random.below(2) == 0 {
                fixture
                    .namespace
                    .abort(Scope::internal(), std::slice::from_ref(&plan.token), &[])
                    .await
                    .unwrap();
            }
        }
        9 => {
            let floor = fixture.clock.now().minus(HOUR * 2);
            fixture.namespace.raise_gc_floor(Scope::internal(), floor, None).await.unwrap();
            fixture.namespace.sweep_tombstones(Scope::internal(), None, 50, None).await.unwrap();
            fixture.namespace.sweep_slots(Scope::internal(), 50, None).await.unwrap();
        }
        _ => drop(fixture.put(&at, random.below(40) * CHUNK / 2).await),
    }
}

#[tokio::test]
async fn check_is_clean_after_every_step() {
    let mut all = Report::default();
    for seed in 0..12 {
        let (fixture, random) = (Fixture::new().await, SeededRandom::new(seed));
        for step in 0..250 {
            random_call(&fixture, &random).await;
            if step % 5 == 0 {
                let report = report(&fixture).await;
                assert!(report.is_clean(), "seed {seed}, step {step}: {:#?}", report.problems);
                all.files += report.files;
                all.symlinks += report.symlinks;
                all.directories += report.directories;
                all.unlinked += report.unlinked;
                all.uploads += report.uploads;
                all.extents += report.extents;
                all.tombstones += report.tombstones;
                all.answers += report.answers;
            }
        }
        // All pages are counted.
        let report = report(&fixture).await;
        assert_eq!(report.keys, fixture.count("").await as u64);
        let count = async |prefix| fixture.count(prefix).await as u64;
        assert_eq!(report.files + report.directories + report.symlinks, count("i/").await);
        assert_eq!(report.chunks + report.tombstones, count("k/").await);
        assert_eq!((report.names, report.nodes), (count("d/").await, 4));
    }
    let Report { files, symlinks, directories, unlinked, .. } = all;
    let Report { uploads, extents, tombstones, answers, .. } = all;
    for seen in [files, symlinks, directories, unlinked, uploads, extents, tombstones, answers] {
        assert!(seen > 300, "too few records were checked: {all:?}");
    }
}

#[tokio::test]
async fn check_reads_beyond_one_page() {
    let fixture = Fixture::new().await;
    for n in 0..450 {
        fixture.put(&format!("/{n}"), CHUNK * (1 + n % 3)).await.unwrap();
    }
    let clean = report(&fixture).await;
    assert!(clean.is_clean(), "{:#?}", clean.problems);
    assert_eq!((clean.files, clean.extents, clean.chunks), (450, 900, 900));
    let last = fixture.stat("/449").await.unwrap().inode;
    write(&fixture, vec![Write::Delete(keys::extent(last, CHUNK))]).await;
    assert_eq!(report(&fixture).await.problem_count, 2);
}

#[tokio::test]
async fn empty_store_holds_no_cluster() {
    let checked = check(&MemoryEngine::new(), &|_| ()).await;
    assert!(matches!(checked, Err(Error::NotInitialised)), "{checked:?}");
}

/// Contents of the store to be damaged.
struct Contents {
    directory: InodeId,
    inner: InodeId,
    file: InodeId,
    long: InodeId,
    gone: Bytes,
    chunk: ChunkId,
}

fn put(key: Bytes, record: &impl Record) -> Write {
    Write::Put(key, record.encode(Level::FIRST).into())
}

fn name(text: &'static str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

async fn contents(fixture: &Fixture) -> Contents {
    let directory = fixture.mkdir("/d").await.unwrap().inode;
    let inner = fixture.mkdir("/d/e").await.unwrap().inode;
    let file = fixture.put("/d/f", CHUNK).await.unwrap().inode;
    let long = fixture.put("/l", 3 * CHUNK).await.unwrap().inode;
    fixture.put("/g", CHUNK).await.unwrap();
    fixture.delete("/g", false, false).await.unwrap();
    let snapshot = fixture.engine.snapshot().await.unwrap();
    let gone = snapshot.range(keys::UNLINKED, &[], 1).await.unwrap().remove(0).0;
    let extent = snapshot.get(&keys::extent(long, CHUNK)).await.unwrap().unwrap();
    let chunk = Extent::decode(b"", &extent.value, Level::NEWEST).unwrap().chunk;
    Contents { directory, inner, file, long, gone, chunk }
}

/// Damages a store and expects exactly these problems, each by kind and by part of its key or text.
async fn finds(
    what: &str,
    damage: impl Fn(&Contents) -> Vec<Write>,
    expected: impl Fn(&Contents) -> Vec<(ProblemKind, String)>,
) {
    let fixture = Fixture::new().await;
    let contents = contents(&fixture).await;
    assert!(report(&fixture).await.is_clean(), "{what}");
    write(&fixture, damage(&contents)).await;
    let report = report(&fixture).await;
    let mut left = report.problems.clone();
    for (kind, part) in expected(&contents) {
        let is_it = |found: &crate::check::Problem| {
            found.kind == kind && (found.key == part || found.what.contains(&part))
        };
        let at = left.iter().position(is_it);
        left.remove(at.unwrap_or_else(|| panic!("{what}: no {kind:?} {part} in {report:#?}")));
    }
    assert!(left.is_empty(), "{what}: unexpected: {left:#?}");
    assert_eq!(report.problem_count, report.problems.len() as u64);
}

fn shown(key: &Bytes) -> String {
    keys::show(key)
}

fn directory(parent: InodeId, link: Link) -> Inode {
    let content = Content::Directory(Directory { parent, link });
    Inode::new(Attributes::default(), Timestamp::EPOCH, content)
}

fn file(size: u64, single: Option<Extent>) -> Inode {
    let content = Content::File(File { size, chunk_size: CHUNK, single });
    Inode::new(Attributes::default(), Timestamp::EPOCH, content)
}

#[tokio::test]
async fn check_finds_damaged_records() {
    use ProblemKind::{Missing, NewerFormat, UnfinishedMigration, UnknownKey, Unreadable};
    for prefix in ["n/", "r/", "s/", "t/"] {
        // One of each kind that nothing else depends on; the others follow in further tests.
        let fixture = Fixture::new().await;
        fixture.put("/f", CHUNK).await.unwrap();
        let snapshot = fixture.engine.snapshot().await.unwrap();
        for (key, found) in snapshot.range(prefix.as_bytes(), &[], 100).await.unwrap() {
            for (value, kind) in [
                (Bytes::new(), Unreadable),
                (Bytes::from_static(b"\xff"), NewerFormat),
                ([&found.value[..], b"0"].concat().into(), Unreadable),
            ] {
                write(&fixture, vec![Write::Put(key.clone(), value)]).await;
                let problems = report(&fixture).await.problems;
                assert_eq!(problems.len(), 1, "{problems:#?}");
                assert_eq!((problems[0].kind, &problems[0].key), (kind, &shown(&key)));
            }
            write(&fixture, vec![Write::Put(key, found.value)]).await;
        }
    }
    let raw = |key: &'static [u8], value: &'static [u8]| {
        Write::Put(Bytes::from_static(key), Bytes::from_static(value))
    };
    let epoch = lease_epoch_key("x");
    let bad_epoch = |value: &'static [u8]| Write::Put(lease_epoch_key("x"), value.into());
    finds("epoch", |_| vec![bad_epoch(b"")], |_| vec![(Unreadable, shown(&epoch))]).await;
    finds("epoch", |_| vec![bad_epoch(b"\xff")], |_| vec![(NewerFormat, shown(&epoch))]).await;
    for key in [&b"z"[..], b"i/short", b"d/00000000", b"k/", b"s/other", b"r/a/b", b"s/lease/x"] {
        let unknown = vec![(UnknownKey, keys::show(key))];
        finds("unknown key", |_| vec![raw(key, b"")], |_| unknown.clone()).await;
    }
    let mark =
        MigrationMark { cluster: dfs_types::ClusterId(1), incarnation: dfs_types::Incarnation(1) };
    let unfinished_migration = || vec![(UnfinishedMigration, "s/migration".to_owned())];
    finds("migration", |_| vec![put(keys::MIGRATION, &mark)], |_| unfinished_migration()).await;
    for key in [
        keys::CLUSTER,
        keys::FORMAT,
        keys::REPLICATION,
        keys::FLOOR,
        keys::GC,
        keys::INODES,
        keys::NAMES,
    ] {
        let missing = || vec![(Missing, shown(&key))];
        finds("missing", |_| vec![Write::Delete(key.clone())], |_| missing()).await;
    }
}

#[tokio::test]
async fn check_finds_mismatched_names_and_inodes() {
    use ProblemKind::{Inode as OfInode, Missing, Name as OfName};
    let inode = |inode| shown(&keys::inode(inode));
    finds(
        "an entry without inode",
        |contents| {
            vec![
                Write::Delete(keys::inode(contents.inner)),
                Write::Delete(keys::times(contents.inner)),
            ]
        },
        |contents| vec![(OfName, shown(&keys::entry(contents.directory, &name("e"))))],
    )
    .await;
    finds(
        "an inode without entry",
        |contents| vec![Write::Delete(keys::entry(contents.directory, &name("f")))],
        |contents| vec![(OfInode, inode(contents.file))],
    )
    .await;
    finds(
        "two names",
        |contents| {
            let entry = Entry::new(contents.file, FileKind::File);
            vec![put(keys::entry(InodeId::ROOT, &name("twin")), &entry)]
        },
        |_| vec![(OfInode, "it has several names".to_owned())],
    )
    .await;
    finds(
        "named and unlinked",
        |contents| {
            let parent = contents.directory;
            let (name, time) = (name("f"), Timestamp::EPOCH);
            let unlinked = Unlinked::new(FileKind::File, parent, name, time);
            vec![put(keys::unlinked(time, contents.file), &unlinked)]
        },
        |_| vec![(OfInode, "it has a name and is unlinked".to_owned())],
    )
    .await;
    finds(
        "another kind",
        |contents| {
            let entry = Entry::new(contents.file, FileKind::Symlink);
            vec![put(keys::entry(contents.directory, &name("f")), &entry)]
        },
        |_| vec![(OfName, "is of another kind".to_owned())],
    )
    .await;
    finds(
        "another parent",
        |contents| vec![put(keys::inode(contents.inner), &directory(InodeId::ROOT, Link::Linked))],
        |_| vec![(OfName, "says it is in directory".to_owned())],
    )
    .await;
    finds(
        "another link",
        |contents| {
            vec![put(keys::inode(contents.inner), &directory(contents.directory, Link::Reaping))]
        },
        |_| vec![(OfName, "says it is unlinked".to_owned())],
    )
    .await;
    finds(
        "no directory",
        |contents| {
            let entry = Entry::new(contents.inner, FileKind::Directory);
            vec![
                Write::Delete(keys::entry(contents.directory, &name("e"))),
                put(keys::entry(contents.file, &name("e")), &entry),
                put(keys::inode(contents.inner), &directory(contents.file, Link::Linked)),
            ]
        },
        |_| vec![(OfName, "its parent is not a directory".to_owned())],
    )
    .await;
    finds(
        "unlinked without inode",
        |contents| {
            let (_, inode) = keys::unlinked_parts(&contents.gone).unwrap();
            vec![Write::Delete(keys::inode(inode))]
        },
        |contents| {
            // The chunk has lost a reference as well.
            vec![
                (OfName, shown(&contents.gone)),
                (ProblemKind::Chunk, "references recorded: 1".to_owned()),
            ]
        },
    )
    .await;
    finds(
        "times",
        |contents| {
            vec![
                Write::Delete(keys::times(contents.inner)),
                put(keys::times(contents.file), &Times::now(Timestamp::EPOCH)),
            ]
        },
        |contents| {
            vec![(OfInode, inode(contents.inner)), (OfInode, shown(&keys::times(contents.file)))]
        },
    )
    .await;
    finds(
        "a number that may be issued again",
        |contents| vec![put(keys::INODES, &NextInode(contents.long))],
        |contents| vec![(OfInode, inode(contents.long)), (OfInode, "not issued yet".to_owned())],
    )
    .await;
    finds(
        "no root",
        |_| vec![Write::Delete(keys::inode(InodeId::ROOT))],
        |_| {
            let root = || vec![(OfName, "its parent is not a directory".to_owned())];
            let times = (OfInode, shown(&keys::times(InodeId::ROOT)));
            [root(), root(), vec![times, (Missing, inode(InodeId::ROOT))]].concat()
        },
    )
    .await;
}

#[tokio::test]
async fn check_finds_mismatched_extents_and_chunks() {
    use ProblemKind::{Chunk as OfChunk, Extent as OfExtent, Unreadable};
    let extent = |length, chunk| Extent::whole(chunk, length);
    let chunk = |chunk| shown(&Bytes::copy_from_slice(&ChunkKey::record(chunk)));
    let extents = |contents: &Contents| shown(&keys::extents(contents.long));
    finds(
        "no chunk",
        |contents| vec![Write::Delete(Bytes::copy_from_slice(&ChunkKey::record(contents.chunk)))],
        |contents| vec![(OfChunk, chunk(contents.chunk))],
    )
    .await;
    finds(
        "a hole",
        |contents| vec![Write::Delete(keys::extent(contents.long, CHUNK))],
        |contents| vec![(OfExtent, extents(contents)), (OfChunk, chunk(contents.chunk))],
    )
    .await;
    finds(
        "a chunk too few",
        |contents| vec![put(keys::inode(contents.long), &file(4 * CHUNK, None))],
        |contents| vec![(OfExtent, extents(contents))],
    )
    .await;
    finds(
        "beyond its chunk",
        |contents| {
            let long = extent(CHUNK + 1, contents.chunk);
            vec![put(keys::extent(contents.long, CHUNK), &long)]
        },
        |contents| vec![(OfExtent, extents(contents)), (OfChunk, chunk(contents.chunk))],
    )
    .await;
    finds(
        "referred to twice",
        |contents| {
            vec![
                put(keys::extent(contents.long, 3 * CHUNK), &extent(CHUNK, contents.chunk)),
                put(keys::inode(contents.long), &file(4 * CHUNK, None)),
            ]
        },
        |contents| vec![(OfChunk, chunk(contents.chunk))],
    )
    .await;
    finds(
        "no extent at all",
        |contents| vec![put(keys::inode(contents.file), &file(CHUNK, None))],
        |contents| {
            let inode = shown(&keys::inode(contents.file));
            vec![
                (OfExtent, inode),
                (OfChunk, "references recorded: 1; extents that refer to it: 0".to_owned()),
            ]
        },
    )
    .await;
    finds(
        "of no file",
        |contents| {
            let lost = InodeId(contents.long.0 + 1);
            vec![put(keys::extent(lost, 0), &extent(1, ChunkId(1)))]
        },
        |_| vec![(OfExtent, "belong to no file".to_owned()), (OfChunk, chunk(ChunkId(1)))],
    )
    .await;
    finds(
        "another size",
        |contents| vec![put(keys::inode(contents.file), &file(7, Some(extent(8, ChunkId(1)))))],
        |contents| {
            let inode = shown(&keys::inode(contents.file));
            let counted = "references recorded: 1; extents that refer to it: 0".to_owned();
            vec![(OfExtent, inode), (OfChunk, chunk(ChunkId(1))), (OfChunk, counted)]
        },
    )
    .await;
    finds(
        "an unknown node",
        |_| vec![Write::Delete(keys::node(NodeId(1)))],
        |_| vec![(OfChunk, "which no node has".to_owned()); 5],
    )
    .await;
    finds(
        "a record of a chunk that cannot be read",
        |contents| {
            let key = Bytes::copy_from_slice(&ChunkKey::record(contents.chunk));
            vec![Write::Put(key, Bytes::from_static(b"\x01"))]
        },
        |contents| {
            vec![(Unreadable, chunk(contents.chunk)), (OfChunk, "does not exist".to_owned())]
        },
    )
    .await;
}
