//! Stored forms: read back unchanged; anything else is refused, never trusted.

use std::time::Duration;

use bytes::Bytes;
use dfs_types::{
    Attributes, Change, ChunkId, ChunkSeal, ClusterId, ClusterKeys, CoordinatorId, Crc32c, DiskId,
    DiskNumber, FileKind, FileTime, Generation, Incarnation, InodeId, Level, Name, NodeState, Part,
    Redundancy, RegistrationNumber, Replication, Revision, SealKey, Sha256, Stamp, Timestamp,
    XattrName,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::answer::{Answer, Kept};
use super::chunk::{Chunk, Replica, ReplicaMark};
use super::entry::Entry;
use super::extent::Extent;
use super::format::{Coordinator, Coordinators, StoreFormat, Upgrade};
use super::inode::{Content, Directory, File, Inode, Link, Times};
use super::node::{Node, NodeDisk, NodeDiskState};
use super::policy::{PendingPolicy, Policy, PolicyChanges, PolicyLabel, PolicySweep};
use super::setting::{Cluster, Floor, Gc, Mark, NextInode};
use super::unlinked::Unlinked;
use super::unneeded::Unneeded;
use super::upload::Upload;
use super::worker::{WorkerControl, WorkerPause};
use super::xattrs::{SeparateXattr, XattrValue, Xattrs};
use crate::codec::{FORMAT, Record};
use crate::records::stat::FileStat;
use crate::{Error, Unknown};

const KEY: &[u8] = b"i/\xff";

fn decode<R: Record>(bytes: &[u8]) -> Result<R, Error> {
    R::decode(KEY, bytes, Level::NEWEST)
}

/// Returns whether bytes are refused as damaged, under the key they were found at.
fn is_damaged<R: Record>(bytes: &[u8]) -> bool {
    matches!(decode::<R>(bytes), Err(Error::Damaged { key, .. }) if key == "i/\\xff")
}

/// Checks all guarantees of a stored form with one record.
fn check_stored_form<R>(record: &R) -> Result<(), TestCaseError>
where
    R: Record + PartialEq + std::fmt::Debug,
{
    let bytes = record.encode(Level::NEWEST);
    prop_assert_eq!(bytes[0], FORMAT);
    let read = decode::<R>(&bytes);
    prop_assert!(read.as_ref().is_ok_and(|read| read == record), "read back as {read:?}");
    for len in 0..bytes.len() {
        prop_assert!(is_damaged::<R>(&bytes[..len]), "{len} of {} bytes were read", bytes.len());
    }
    prop_assert!(is_damaged::<R>(&[&bytes[..], &[0]].concat()), "a trailing byte was ignored");

    let mut other = bytes;
    other[0] = FORMAT + 1;
    prop_assert!(is_refused_as_newer::<R>(&other));
    // The rest means nothing to a reader that does not know the format.
    prop_assert!(is_refused_as_newer::<R>(&other[..1]));
    other[0] = 0;
    prop_assert!(is_damaged::<R>(&other));
    unknown_field_is_refused_as_newer::<R>(&record.encode(Level::NEWEST))
}

/// Checks that a mask with a bit of a later level counts as a newer release, not as damage.
fn unknown_field_is_refused_as_newer<R>(bytes: &[u8]) -> Result<(), TestCaseError>
where
    R: Record + std::fmt::Debug,
{
    if R::OPTIONAL.is_empty() {
        return Ok(());
    }
    let (mask, rest) = split_mask(bytes);
    let free = (0..u64::BITS).filter(|bit| !R::OPTIONAL.iter().any(|field| field.is_at(*bit)));
    for bit in free {
        let with_mask = with_mask(mask | 1 << bit, rest);
        let read = decode::<R>(&with_mask);
        let is_newer = matches!(read, Err(Error::NewerRecord { unknown, .. }) if unknown == Unknown::Field(bit));
        prop_assert!(is_newer, "bit {bit}: {read:?}");
    }
    Ok(())
}

fn split_mask(bytes: &[u8]) -> (u64, &[u8]) {
    let len = 1 + bytes[1..].iter().position(|byte| *byte < 0x80).unwrap() + 1;
    let mask = bytes[1..len].iter().rev().fold(0, |mask, byte| mask << 7 | u64::from(byte & 0x7f));
    (mask, &bytes[len..])
}

fn with_mask(mask: u64, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![FORMAT];
    let mut left = mask;
    while left >= 0x80 {
        bytes.push(left as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes.extend_from_slice(rest);
    bytes
}

fn is_refused_as_newer<R: Record>(bytes: &[u8]) -> bool {
    match decode::<R>(bytes) {
        Err(Error::NewerRecord { key, unknown }) => {
            key == "i/\\xff" && unknown == Unknown::Format(bytes[0])
        }
        _ => false,
    }
}

/// Checks that bytes are refused or understood, and keep their meaning when written again.
fn refuses_or_understands<R>(bytes: &[u8]) -> Result<(), TestCaseError>
where
    R: Record + PartialEq + std::fmt::Debug,
{
    let Ok(record) = decode::<R>(bytes) else { return Ok(()) };
    let again = decode::<R>(&record.encode(Level::NEWEST));
    prop_assert!(again.as_ref().is_ok_and(|again| *again == record), "{record:?} became {again:?}");
    Ok(())
}

/// Bytes to replace, by position and new value.
type Damage = Vec<(prop::sample::Index, u8)>;

fn damaged(record: &impl Record, damage: &Damage) -> Vec<u8> {
    let mut bytes = record.encode(Level::NEWEST);
    for (place, byte) in damage {
        let place = place.index(bytes.len());
        bytes[place] = *byte;
    }
    bytes
}

/// Tests of one kind of record, given a strategy.
macro_rules! stored {
    ($($module:ident: $record:ty = $strategy:expr;)*) => {$(
        mod $module {
            use super::*;

            proptest! {
                #[test]
                fn only_the_exact_bytes_are_read_back(record in $strategy) {
                    check_stored_form::<$record>(&record)?;
                }

                #[test]
                fn damaged_bytes_do_not_panic(
                    record in $strategy,
                    damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
                ) {
                    refuses_or_understands::<$record>(&damaged(&record, &damage))?;
                }

                #[test]
                fn random_bytes_do_not_panic(noise in vec(any::<u8>(), 0..200)) {
                    refuses_or_understands::<$record>(&noise)?;
                    refuses_or_understands::<$record>(&[&[1], &noise[..]].concat())?;
                }
            }
        }
    )*};
}

stored! {
    inodes: Inode = inode();
    entries: Entry = (kind(), inode_id(), small_number())
        .prop_map(|(kind, inode, epoch)| Entry { inode, kind, epoch });
    directory_times: Times =
        (file_time(), time()).prop_map(|(mtime, ctime)| Times { mtime, ctime });
    extents: Extent = extent();
    separate_xattrs: SeparateXattr = some_bytes().prop_map(SeparateXattr);
    chunks: Chunk = chunk();
    nodes: Node = node();
    answers: Kept = kept();
    unlinked: Unlinked = unlinked_record();
    uploads: Upload =
        (time(), any::<bool>()).prop_map(|(expires, reaping)| Upload { expires, reaping });
    cluster: Cluster = (any::<u128>(), number())
        .prop_map(|(id, number)| Cluster { id: ClusterId(id), incarnation: Incarnation(number) });
    keys: ClusterKeys = any::<[u8; 32]>()
        .prop_map(|root| ClusterKeys::from_root(SealKey::from_slice(&root).unwrap()));
    replication: Replication = (any::<u8>(), option::of(any::<u8>()))
        .prop_map(|(factor, min_write)| Replication { factor, min_write });
    policies: Policy = (any::<u8>(), option::of(any::<u8>()))
        .prop_map(|(copies, min_write)| Policy { copies, min_write });
    policy_changes: PolicyChanges = (number(), any::<bool>())
        .prop_map(|(newest, is_pending)| PolicyChanges { newest, is_pending });
    pending_policies: PendingPolicy = (policy_label(), some_bytes())
        .prop_map(|(label, after)| PendingPolicy { label, after });
    policy_sweep: PolicySweep = some_bytes().prop_map(|after| PolicySweep { after });
    format: StoreFormat =
        (level(), level()).prop_map(|(written, least)| StoreFormat { written, least });
    upgrade: Upgrade = (level(), vec(".*", 0..3))
        .prop_map(|(wanted, blocked_by)| Upgrade { wanted, blocked_by });
    coordinators: Coordinators = vec(coordinator(), 0..3).prop_map(Coordinators);
    coordinator_entries: Coordinator = coordinator();
    gc: Gc = (number(), number(), number(), ".*").prop_map(|(acknowledged, batches, holds, reason)| {
        Gc { acknowledged: Incarnation(acknowledged), batches, holds, reason }
    });
    unneeded: Unneeded = (time(), number()).prop_map(|(since, bytes)| Unneeded { since, bytes });
    floor: Floor = any::<u128>().prop_map(|id| Floor(ChunkId(id)));
    next_inode: NextInode = inode_id().prop_map(NextInode);
    mark: Mark = Just(Mark);
    worker_controls: WorkerControl =
        (option::of((time(), number())), option::of(number()), number())
            .prop_map(|(pause, rate, request)| {
                let pause = pause.map(|(until, millis)| WorkerPause {
                    until,
                    length: Duration::from_millis(millis),
                });
                WorkerControl { pause, rate, request }
            });
}

/// Numbers of every stored length.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0_u32..64).prop_map(|(number, shift)| number >> shift)
}

fn small_number() -> impl Strategy<Value = u32> {
    (any::<u32>(), 0_u32..32).prop_map(|(number, shift)| number >> shift)
}

fn level() -> impl Strategy<Value = Level> {
    small_number().prop_map(Level)
}

fn coordinator() -> impl Strategy<Value = Coordinator> {
    (any::<u128>(), level(), number(), ".*", ".*").prop_map(
        |(id, level, seen, address, version)| Coordinator {
            id: CoordinatorId(id),
            level,
            seen,
            address,
            version,
        },
    )
}

fn inode_id() -> impl Strategy<Value = InodeId> {
    number().prop_map(InodeId)
}

fn time() -> impl Strategy<Value = Timestamp> {
    number().prop_map(Timestamp::from_millis)
}

fn file_time() -> impl Strategy<Value = FileTime> {
    (any::<i64>(), 0_u32..1_000_000_000)
        .prop_map(|(seconds, nanos)| FileTime::new(seconds, nanos).unwrap())
}

fn kind() -> impl Strategy<Value = FileKind> {
    prop_oneof![
        Just(FileKind::File),
        Just(FileKind::Directory),
        Just(FileKind::Symlink),
        Just(FileKind::Fifo),
        Just(FileKind::Socket),
        Just(FileKind::CharacterDevice),
        Just(FileKind::BlockDevice),
    ]
}

fn attributes() -> impl Strategy<Value = Attributes> {
    (small_number(), small_number(), small_number(), file_time())
        .prop_map(|(mode, uid, gid, mtime)| Attributes { mode, uid, gid, mtime })
}

fn some_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn seal() -> impl Strategy<Value = ChunkSeal> {
    (number(), any::<u32>(), any::<[u8; 32]>()).prop_map(|(length, crc32c, sha256)| ChunkSeal {
        length,
        crc32c: Crc32c(crc32c),
        sha256: Sha256(sha256),
    })
}

fn extent() -> impl Strategy<Value = Extent> {
    (number(), any::<u128>(), number(), small_number()).prop_map(
        |(length, chunk, chunk_offset, epoch)| Extent {
            length,
            chunk: ChunkId(chunk),
            chunk_offset,
            epoch,
        },
    )
}

fn xattrs() -> impl Strategy<Value = Xattrs> {
    let name = "(user|trusted|security)\\..{1,60}";
    let value = prop_oneof![
        some_bytes().prop_map(XattrValue::Inline),
        small_number().prop_map(|len| XattrValue::Separate(len >> 1)),
    ];
    let names = name.prop_filter_map("invalid name", |name| XattrName::new(name).ok());
    prop::collection::btree_map(names, value, 0..4).prop_map(Xattrs)
}

fn content() -> impl Strategy<Value = Content> {
    let file = (number(), number(), option::of(extent()))
        .prop_map(|(size, chunk_size, single)| Content::File(File { size, chunk_size, single }));
    let link = prop_oneof![Just(Link::Linked), Just(Link::Unlinked), Just(Link::Reaping)];
    let directory = (inode_id(), link)
        .prop_map(|(parent, link)| Content::Directory(Directory { parent, link }));
    let symlink = some_bytes().prop_map(|target| Content::Symlink { target });
    prop_oneof![
        file,
        directory,
        symlink,
        Just(Content::Fifo),
        Just(Content::Socket),
        number().prop_map(|rdev| Content::CharacterDevice { rdev }),
        number().prop_map(|rdev| Content::BlockDevice { rdev }),
    ]
}

fn inode() -> impl Strategy<Value = Inode> {
    let counts = vec(small_number(), 4);
    (attributes(), time(), time(), counts, policy_label(), xattrs(), content()).prop_map(
        |(attributes, ctime, born, counts, policy, xattrs, content)| Inode {
            attributes,
            ctime,
            born,
            links: counts[0],
            held: counts[1],
            volume: counts[2],
            epoch: counts[3],
            policy,
            xattrs,
            content,
        },
    )
}

fn policy_label() -> impl Strategy<Value = PolicyLabel> {
    (small_number(), number()).prop_map(|(number, change)| PolicyLabel { number, change })
}

fn replica() -> impl Strategy<Value = Replica> {
    let marks = prop_oneof![
        Just(ReplicaMark::Sound),
        Just(ReplicaMark::Bad),
        Just(ReplicaMark::Gone),
        Just(ReplicaMark::Doomed),
    ];
    (any::<u32>(), 0..4_u8, number(), marks, 0..3_u64).prop_map(
        |(disk, part, stamp, mark, verdict)| Replica {
            disk: DiskNumber(disk),
            part: Part(part),
            stamp: Stamp(stamp),
            mark,
            verdict,
        },
    )
}

fn redundancy() -> impl Strategy<Value = Redundancy> {
    let replicated = any::<u8>().prop_map(|copies| Redundancy::Replicated { copies });
    let coded = (any::<u8>(), 1..9_u8, 1..5_u8, any::<u32>(), any::<u32>());
    let coded = coded.prop_map(|(codec, k, m, blocks, crc)| {
        let crcs = (0..u32::from(k + m)).map(|part| Crc32c(crc ^ part)).collect();
        Redundancy::Erasure { codec, k, m, blocks, crcs }
    });
    prop_oneof![replicated, coded]
}

fn chunk() -> impl Strategy<Value = Chunk> {
    let replicas = vec(replica(), 0..5);
    (seal(), replicas, redundancy(), 0..3_u32, number(), small_number(), inode_id()).prop_map(
        |(seal, replicas, redundancy, policy, generation, references, inode)| Chunk {
            seal,
            redundancy,
            policy,
            replicas,
            generation: Generation(generation),
            references,
            inode,
        },
    )
}

fn disk() -> impl Strategy<Value = NodeDisk> {
    let states = prop_oneof![
        Just(NodeDiskState::Present),
        Just(NodeDiskState::Absent),
        Just(NodeDiskState::Lost),
        Just(NodeDiskState::Clear),
    ];
    (any::<u32>(), any::<u128>(), states, any::<bool>()).prop_map(
        |(number, id, state, is_retiring)| NodeDisk {
            number: DiskNumber(number),
            id: DiskId(id),
            state,
            is_retiring,
        },
    )
}

fn node() -> impl Strategy<Value = Node> {
    let states = prop_oneof![
        Just(NodeState::Joining),
        Just(NodeState::Active),
        Just(NodeState::Draining),
        Just(NodeState::Drained),
        Just(NodeState::Removed),
    ];
    let texts = [".*", ".*", ".*", ".*"];
    let rejoins = (option::of(number()), number());
    let desired = (states, option::of(time()), any::<[bool; 2]>(), level(), rejoins);
    let disks = (vec(disk(), 0..4), any::<[u8; 32]>());
    (texts, disks, number(), number(), desired).prop_map(
        |([address, zone, host, version], (disks, secret), confirmed, pending, desired)| Node {
            address,
            zone,
            host,
            version,
            level: desired.3,
            disks,
            secret: Sha256(secret),
            confirmed: RegistrationNumber(confirmed),
            pending: RegistrationNumber(pending),
            state: desired.0,
            maintenance_until: desired.1,
            is_leaving: desired.2[0],
            is_given_up: desired.2[1],
            rejoins_with: desired.4.0.map(RegistrationNumber),
            counts_from: RegistrationNumber(desired.4.1),
        },
    )
}

fn kept() -> impl Strategy<Value = Kept> {
    let times = (time(), time(), small_number(), number(), number(), number(), small_number());
    let policy = (any::<u8>(), small_number());
    let stat = (inode_id(), kind(), number(), attributes(), times, some_bytes(), policy);
    let stat = stat.prop_map(
        |(inode, kind, size, attributes, times, symlink_target, (replication_factor, policy))| {
            let (ctime, born, nlink, rdev, incarnation, revision, xattrs) = times;
            Answer::Stat(FileStat {
                inode,
                kind,
                size,
                attributes,
                ctime,
                born,
                nlink,
                rdev,
                symlink_target,
                replication_factor,
                policy,
                change: Change {
                    incarnation: Incarnation(incarnation),
                    revision: Revision(revision),
                },
                xattrs,
            })
        },
    );
    let until = option::of(time()).prop_map(Answer::RestorableUntil);
    let answer = prop_oneof![Just(Answer::Done), stat, until];
    let kept = |(sequence, body, answer)| Kept { sequence, body: Sha256(body), answer };
    (number(), any::<[u8; 32]>(), answer).prop_map(kept)
}

fn unlinked_record() -> impl Strategy<Value = Unlinked> {
    let name = vec(any::<u8>(), 1..=Name::MAX_LEN)
        .prop_filter_map("invalid name", |bytes| Name::new(bytes).ok());
    let rest = (any::<bool>(), any::<bool>(), small_number());
    (kind(), inode_id(), name, time(), rest).prop_map(|(kind, parent, name, time, rest)| {
        let (reaping, counted, epoch) = rest;
        Unlinked { kind, parent, name, time, reaping, counted, epoch }
    })
}

/// The stored form of level 1, which stays open until the first release.
#[test]
fn level_1_bytes_are_fixed() {
    let hexadecimal = |bytes: Vec<u8>| {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
    };
    let attributes = Attributes {
        mode: 0o644,
        uid: 1_000,
        gid: 100,
        mtime: FileTime::new(-1, 999_999_999).unwrap(),
    };
    let extent = Extent::whole(ChunkId(7), 300);
    let file = File { size: 300, chunk_size: 64 << 20, single: Some(extent) };
    let ctime = Timestamp::from_millis(1_700_000_000_000);
    let inode = Inode::new(attributes, ctime, Content::File(file));
    let entry = Entry::new(InodeId(258), FileKind::Symlink);
    let replica = Replica {
        mark: ReplicaMark::Bad,
        verdict: 5,
        ..Replica::new(DiskNumber(2), Part::WHOLE, Stamp(3))
    };
    let chunk = Chunk {
        seal: ChunkSeal { length: 300, crc32c: Crc32c(0x0102_0304), sha256: Sha256([0xab; 32]) },
        redundancy: Redundancy::Replicated { copies: 2 },
        policy: 0,
        replicas: vec![replica, Replica::new(DiskNumber(300), Part::WHOLE, Stamp(4))],
        generation: Generation(9),
        references: 1,
        inode: InodeId(258),
    };
    assert_eq!(hexadecimal(entry.encode(Level::NEWEST)), "0101028202");
    assert_eq!(
        hexadecimal(inode.encode(Level::NEWEST)),
        concat!(
            "01",
            "37",
            "81c49fd50c",
            "3b9ac9ff",
            "ac02",
            "00000000000000000000000000000007",
            "e80764",
            "80d095ffbc31",
        )
    );
    assert_eq!(
        hexadecimal(chunk.encode(Level::NEWEST)),
        concat!(
            "01",
            "05000209",
            "ac0201020304",
            "abababababababababababababababababababababababababababababababab",
            "02",
            "0601050203",
            "00ac0204",
            "8202",
        )
    );
}

/// Size of the records of a one-chunk file without its chunk: put a minute after it was written, by
/// a normal user.
#[test]
fn small_file_records_are_small() {
    let now = Timestamp::from_millis(1_700_000_000_123);
    let mtime = FileTime::new(1_699_999_940, 123_456_789).unwrap();
    let attributes = Attributes { mode: 0o644, uid: 1_000, gid: 1_000, mtime };
    let single = Some(Extent::whole(ChunkId(u128::MAX), 4_096));
    let file = File { size: 4_096, chunk_size: 64 << 20, single };
    let inode = Inode::new(attributes, now, Content::File(file));
    assert_eq!(inode.encode(Level::NEWEST).len(), 35);
    let entry = Entry::new(InodeId(1 << 20), FileKind::File);
    assert_eq!(entry.encode(Level::NEWEST).len(), 5);
}

#[test]
fn three_replica_record_takes_at_most_100_bytes() {
    let replicas = [1_999, 70_000, 120_000];
    let chunk = Chunk {
        seal: ChunkSeal { length: 64 << 20, crc32c: Crc32c(u32::MAX), sha256: Sha256([0xab; 32]) },
        redundancy: Redundancy::Replicated { copies: 3 },
        policy: 0,
        replicas: replicas
            .map(|disk| Replica::new(DiskNumber(disk), Part::WHOLE, Stamp((300 << 40) + 9_999)))
            .to_vec(),
        generation: Generation::FIRST,
        references: 1,
        inode: InodeId(1 << 34),
    };
    let len = chunk.encode(Level::FIRST).len();
    assert!(len <= 100, "{len}");
}

#[test]
fn maintenance_ends_and_is_never_longer_than_a_day() {
    let now = Timestamp::from_millis(1_000_000_000);
    let day = Node::MAINTENANCE_MAX;
    let left = |until| {
        let node = Node { maintenance_until: until, ..a_node() };
        node.maintenance_left(now)
    };
    let second = Duration::from_secs(1);
    assert_eq!(left(None), None);
    assert_eq!(left(Some(now)), None);
    assert_eq!(left(Some(now.minus(second))), None);
    assert_eq!(left(Some(now.plus(second))), Some(second));
    assert_eq!(left(Some(now.plus(day))), Some(day));
    assert_eq!(left(Some(now.plus(day + second))), None, "set by another clock");
}

fn a_node() -> Node {
    Node {
        address: String::new(),
        zone: String::new(),
        host: String::new(),
        version: String::new(),
        level: Level::FIRST,
        disks: Vec::new(),
        secret: Sha256([0; 32]),
        confirmed: RegistrationNumber(1),
        pending: RegistrationNumber(1),
        state: NodeState::Active,
        maintenance_until: None,
        is_leaving: false,
        is_given_up: false,
        rejoins_with: None,
        counts_from: RegistrationNumber(0),
    }
}
