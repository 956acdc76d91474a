use dfs_types::{Random, SeededRandom};
use proptest::prelude::*;
use prost::Message;

use super::*;

fn receipt_of(random: &SeededRandom) -> Receipt {
    let node = NodeId::random(random);
    Receipt {
        chunk: ChunkId::random(random),
        part: Part(random.below(256) as u8),
        length: random.below(u64::MAX),
        crc32c: Crc32c(random.below(1 << 32) as u32),
        node,
        disk: DiskId::random(random),
        stamp: Stamp(random.below(u64::MAX)),
        registration: RegistrationNumber(random.below(u64::MAX)),
        seal: Seal([0; 32]),
    }
    .sealed(&SealKey::random(random))
}

#[test]
fn messages_round_trip() {
    let random = SeededRandom::new(1);
    let given = receipt_of(&random);
    assert_eq!(receipt("r", given.into()), Ok(given));

    let (chunk, part, disk) = (given.chunk, given.part, given.disk);
    let given = ReplicaRef { chunk, part, disk, stamp: given.stamp };
    assert_eq!(replica("r", Some(given.into())), Ok(given));

    let crcs = vec![Crc32c(7); 3];
    let coded = Redundancy::Erasure { codec: 1, k: 2, m: 1, blocks: 9, crcs };
    for given in [Redundancy::Replicated { copies: 3 }, coded] {
        assert_eq!(redundancy("r", Some(given.clone().into())), Ok(given));
    }
    let short = v1::Erasure { codec: 1, k: 2, m: 1, blocks: 9, crcs: vec![7; 2] };
    let short = v1::Redundancy { kind: Some(v1::redundancy::Kind::Erasure(short)) };
    assert!(redundancy("r", Some(short)).is_err());
    assert!(redundancy("r", Some(v1::Redundancy::default())).is_err());

    let given = Slot { client: ClientId::random(&random), slot: 63, sequence: u64::MAX };
    assert_eq!(slot("s", Some(given.into())), Ok(given));

    let mtime = FileTime::new(-5, 999_999_999).unwrap();
    let given = Attributes { mode: 0o7755, uid: 1, gid: u32::MAX, mtime };
    assert_eq!(attributes("a", Some(given.into()), FileTime::default()), Ok(given));

    for kind in [
        FileKind::File,
        FileKind::Directory,
        FileKind::Symlink,
        FileKind::Fifo,
        FileKind::Socket,
        FileKind::CharacterDevice,
        FileKind::BlockDevice,
    ] {
        assert_eq!(file_kind("k", v1::FileKind::from(kind) as i32), Ok(kind));
    }
    for state in [
        NodeState::Joining,
        NodeState::Active,
        NodeState::Suspect,
        NodeState::Lost,
        NodeState::Draining,
        NodeState::Drained,
        NodeState::Maintenance,
        NodeState::Removed,
    ] {
        assert_eq!(node_state("s", v1::NodeState::from(state) as i32), Ok(state));
    }

    let seal = ChunkSeal { length: 3, crc32c: Crc32c::of(b"abc"), sha256: Sha256::of(b"abc") };
    for seal in [Some(seal), None] {
        let given = Frame::of(0, Bytes::from_static(b"abc"), seal);
        assert_eq!(frame("f", given.clone().into()), Ok(given));
    }
}

#[test]
fn missing_mtime_is_the_default() {
    let given = v1::Attributes { mode: 0o644, uid: 0, gid: 0, mtime: None };
    let now = FileTime::new(7, 8).unwrap();
    assert_eq!(attributes("a", Some(given), now).map(|a| a.mtime), Ok(now));
}

#[test]
fn each_invalid_field_is_named() {
    let random = SeededRandom::new(2);
    let good = v1::Receipt::from(receipt_of(&random));
    let client_id = ClientId(1).to_wire();
    let frame_without_sha = v1::ChunkFrame { is_final: true, ..v1::ChunkFrame::default() };
    let long = [b'n'; 4_097];
    let deep = [b"/".as_slice(), &long].concat();

    let cases: [(Option<FieldError>, &str); 24] = [
        (required::<u8>("f", None).err(), "f: not set"),
        (at_most("f", vec![0; 3], 2).err(), "f: at most 2 entries are allowed, not 3"),
        (id::<ChunkId>("f", &[0; 15]).err(), "f: an id has 16 bytes, not 15"),
        (id::<ChunkId>("f", &[]).err(), "f: an id has 16 bytes, not 0"),
        (optional_id::<ChunkId>("f", &[0]).err(), "f: an id has 16 bytes, not 1"),
        (inode("f", 0).err(), "f: not set"),
        (path("f", b"a").err(), "f: a path must start with a slash"),
        (path("f", b"/a/../b").err(), "f: a name must not be \".\" or \"..\""),
        (path("f", b"/a\0").err(), "f: a name must not contain a NUL byte"),
        (name("f", b"a/b").err(), "f: a name must not contain a slash"),
        (name("f", b"").err(), "f: a name must not be empty"),
        (symlink_target("f", b"").err(), "f: a target must have at least one byte, and no NUL"),
        (chunk_size("f", 0).err(), "f: must be a multiple of 64 KiB from 64 KiB to 1 GiB, not 0"),
        (
            chunk_size("f", 1 << 40).err(),
            "f: must be a multiple of 64 KiB from 64 KiB to 1 GiB, not 1099511627776",
        ),
        (
            chunk_size("f", 65_537).err(),
            "f: must be a multiple of 64 KiB from 64 KiB to 1 GiB, not 65537",
        ),
        (file_kind("f", 0).err(), "f: 0 is not a valid value"),
        (node_state("f", 99).err(), "f: 99 is not a valid value"),
        (mode("f", 0o10_0644).err(), "f: must be permission bits (07777), not 0o100644"),
        (
            file_time("f", v1::FileTime { seconds: 0, nanos: 1_000_000_000 }).err(),
            "f: nanos must be below 1,000,000,000",
        ),
        (
            slot("f", Some(v1::Slot { client_id: client_id.clone(), slot: 64, sequence: 1 })).err(),
            "f: must be below 64, not 64",
        ),
        (
            slot("f", Some(v1::Slot { client_id, slot: 0, sequence: 0 })).err(),
            "f: sequence numbers start at 1",
        ),
        (
            receipt("f", v1::Receipt { seal: Bytes::new(), ..good }).err(),
            "f: must have 32 bytes, not 0",
        ),
        (part("f", 256).err(), "f: must be 0 to 255, not 256"),
        (frame("f", frame_without_sha).err(), "f: must have 32 bytes, not 0"),
    ];
    for (error, text) in cases {
        let error = error.expect(text);
        assert_eq!(error.to_string(), text);
        assert_eq!(error.code(), ErrorCode::InvalidArgument, "{text}");
    }
    for (error, text) in [
        (path("f", &deep).err(), "f: a path may have at most 4096 bytes, not 4098"),
        (path("f", &deep[..300]).err(), "f: a name may have at most 255 bytes, not 299"),
        (name("f", &long).err(), "f: a name may have at most 255 bytes, not 4097"),
        (symlink_target("f", &long).err(), "f: at most 4095 bytes are allowed, not 4097"),
    ] {
        let error = error.expect(text);
        assert_eq!((error.to_string(), error.code()), (text.to_owned(), ErrorCode::NameTooLong));
    }
}

proptest! {
    /// Anything is parsed or refused; what is accepted stays the same when sent again.
    #[test]
    fn parsers_never_panic(
        offset: u64,
        data in proptest::collection::vec(any::<u8>(), 0..40),
        numbers in proptest::collection::vec(any::<u32>(), 0..3),
        is_final: bool,
        id_bytes in proptest::collection::vec(any::<u8>(), 14..18),
        noise in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let sha = [&id_bytes[..], &id_bytes[..]].concat();
        let chunk = v1::ChunkFrame {
            offset,
            data: data.into(),
            block_crc32c: numbers,
            is_final,
            total_length: offset,
            total_crc32c: 0,
            total_sha256: sha.clone().into(),
            origin: None,
        };
        if let Ok(parsed) = frame("f", chunk.clone()) {
            let _ = parsed.verify();
            if is_final {
                prop_assert_eq!(v1::ChunkFrame::from(parsed), chunk);
            }
        }
        let sent = v1::Receipt {
            chunk_id: id_bytes.clone().into(),
            node_id: id_bytes.clone().into(),
            disk_id: id_bytes.into(),
            seal: sha.into(),
            ..v1::Receipt::default()
        };
        if let Ok(parsed) = receipt("r", sent.clone()) {
            prop_assert_eq!(v1::Receipt::from(parsed), sent);
        }
        if let Ok(message) = v1::Slot::decode(&noise[..]) {
            let _ = slot("s", Some(message));
        }
        if let Ok(message) = v1::Attributes::decode(&noise[..]) {
            let _ = attributes("a", Some(message), FileTime::default());
        }
        let status = tonic::Status::with_details(tonic::Code::Aborted, "x", noise.into());
        prop_assert_eq!(crate::Failure::from_status(&status).code, ErrorCode::Conflict);
    }
}

#[test]
fn target_is_given_in_exactly_one_way() {
    let name = Name::new(&b"n"[..]).unwrap();
    let each = [
        Target::from(DfsPath::new("/a").unwrap()),
        Target::from(InodeId(7)),
        Target::child(InodeId(7), &name),
    ];
    for given in &each {
        assert_eq!(target("t", Some(given.clone().into())), Ok(given.clone()));
        let is_inode = matches!(given, Target::Inode(_));
        assert_eq!(named_target("t", Some(given.clone().into())).is_err(), is_inode);
    }
    let [path, inode, child] = each.map(v1::Target::from);
    let wrong = [
        None,
        Some(v1::Target::default()),
        Some(v1::Target { inode: 7, ..path.clone() }),
        Some(v1::Target { inode: 7, ..child.clone() }),
        Some(v1::Target { child: child.child.clone(), ..path }),
        Some(v1::Target { child: child.child, ..inode }),
        Some(v1::Target { child: Some(v1::Child::default()), ..v1::Target::default() }),
    ];
    for given in wrong {
        let refused = target("t", given.clone()).unwrap_err();
        assert_eq!((refused.field, refused.code()), ("t", ErrorCode::InvalidArgument), "{given:?}");
    }
}

#[test]
fn precondition_is_absent_or_inode() {
    let change = Change { incarnation: Incarnation(2), revision: Revision(3) };
    for given in [
        Precondition::Absent,
        Precondition::Inode { inode: InodeId(7), change: None },
        Precondition::Inode { inode: InodeId(7), change: Some(change) },
    ] {
        assert_eq!(precondition("p", Some(given.into())), Ok(Some(given)));
    }
    assert_eq!(precondition("p", None), Ok(None));
    let change = Some(v1::Change::from(change));
    for (absent, inode, change) in
        [(false, 0, None), (true, 7, None), (true, 0, change), (false, 0, change)]
    {
        let given = v1::Precondition { absent, inode, change };
        assert_eq!(precondition("p", Some(given)).unwrap_err().field, "p", "{given:?}");
    }
}
