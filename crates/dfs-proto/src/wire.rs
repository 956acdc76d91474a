//! Parsing of wire messages. Each function takes the name of its field, so that the caller of the
//! service learns which one is invalid.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use dfs_types::{
    Attributes, CHUNK_SIZE_MAX, CHUNK_SIZE_MIN, Change, ChunkId, ChunkSeal, ClientId, ClusterId,
    Crc32c, DfsPath, DiskId, DiskScrub, DiskState, ErrorCode, FileKind, FileSystemId, FileTime,
    Frame, Generation, Incarnation, InodeId, Name, NodeId, NodeSecret, NodeState, Part, PathError,
    Precondition, ReadProof, Receipt, Redundancy, RegistrationNumber, ReplicaCondition,
    ReplicaHealth, ReplicaRef, ReplicaVerdict, RequestId, Revision, Seal, SealKey, SessionId,
    Sha256, Slot, Stamp, Target, Timestamp, WholePass, XattrError, XattrName,
};

use crate::v1;

/// Maximum length of a symlink target in bytes.
pub const SYMLINK_TARGET_LEN_MAX: usize = 4_095;

/// An invalid field of a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub struct FieldError {
    /// The field, as named in the contract.
    pub field: &'static str,
    /// Description of the defect.
    pub what: String,
    code: ErrorCode,
}

impl FieldError {
    /// Creates an error for an invalid field.
    pub fn new(field: &'static str, what: impl fmt::Display) -> Self {
        Self { field, what: what.to_string(), code: ErrorCode::InvalidArgument }
    }

    /// Returns its error code: `INVALID_ARGUMENT`, or `NAME_TOO_LONG` for a path or name.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    fn path(field: &'static str, error: PathError) -> Self {
        let code =
            if error.is_too_long() { ErrorCode::NameTooLong } else { ErrorCode::InvalidArgument };
        Self { field, what: error.to_string(), code }
    }
}

/// An id that is sent as 16 bytes.
pub trait WireId: Copy {
    /// Parses the 16 bytes.
    fn from_wire(bytes: &[u8]) -> Option<Self>;

    /// Returns the 16 bytes.
    fn to_wire(self) -> Bytes;
}

macro_rules! wire_ids {
    ($($id:ident),*) => {
        $(impl WireId for $id {
            fn from_wire(bytes: &[u8]) -> Option<Self> {
                Self::from_slice(bytes)
            }

            fn to_wire(self) -> Bytes {
                Bytes::copy_from_slice(&self.to_bytes())
            }
        })*
    };
}

wire_ids!(ChunkId, ClusterId, NodeId, DiskId, FileSystemId, SessionId, ClientId, RequestId);

/// Parses a field that must be set.
pub fn required<T>(field: &'static str, value: Option<T>) -> Result<T, FieldError> {
    value.ok_or_else(|| FieldError::new(field, "not set"))
}

/// Checks the length of a list.
pub fn at_most<T>(field: &'static str, list: Vec<T>, max: usize) -> Result<Vec<T>, FieldError> {
    if list.len() > max {
        let what = format_args!("at most {max} entries are allowed, not {}", list.len());
        return Err(FieldError::new(field, what));
    }
    Ok(list)
}

/// Parses an id that must be set.
pub fn id<T: WireId>(field: &'static str, bytes: &[u8]) -> Result<T, FieldError> {
    T::from_wire(bytes).ok_or_else(|| {
        FieldError::new(field, format_args!("an id has 16 bytes, not {}", bytes.len()))
    })
}

/// Parses an optional id.
pub fn optional_id<T: WireId>(field: &'static str, bytes: &[u8]) -> Result<Option<T>, FieldError> {
    if bytes.is_empty() { Ok(None) } else { id(field, bytes).map(Some) }
}

/// Parses the number of an inode, which must be set.
pub fn inode(field: &'static str, number: u64) -> Result<InodeId, FieldError> {
    if number == 0 { Err(FieldError::new(field, "not set")) } else { Ok(InodeId(number)) }
}

/// Parses a path. Copied, so that it does not keep its buffer alive.
pub fn path(field: &'static str, bytes: &[u8]) -> Result<DfsPath, FieldError> {
    if bytes.len() > DfsPath::MAX_LEN {
        return Err(FieldError::path(field, PathError::TooLong(bytes.len())));
    }
    DfsPath::new(Bytes::copy_from_slice(bytes)).map_err(|error| FieldError::path(field, error))
}

/// Parses the target of a call, which must be given in exactly one way.
pub fn target(field: &'static str, target: Option<v1::Target>) -> Result<Target, FieldError> {
    let v1::Target { path: bytes, inode: number, child } = required(field, target)?;
    match (&bytes[..], number, child) {
        ([], 0, None) => Err(FieldError::new(field, "path, inode or child must be set")),
        (_, 0, None) => path(field, &bytes).map(Target::Path),
        ([], _, None) => Ok(Target::Inode(InodeId(number))),
        ([], 0, Some(v1::Child { parent, name: bytes })) => {
            Ok(Target::Child { parent: inode(field, parent)?, name: name(field, &bytes)? })
        }
        _ => Err(FieldError::new(field, "only one of path, inode and child may be set")),
    }
}

/// Parses a target that must be a name: a path or a child, not an inode.
pub fn named_target(field: &'static str, given: Option<v1::Target>) -> Result<Target, FieldError> {
    match target(field, given)? {
        Target::Inode(_) => {
            Err(FieldError::new(field, "this call needs a name; give a path or a child"))
        }
        named => Ok(named),
    }
}

/// Parses the precondition on a name, if any.
pub fn precondition(
    field: &'static str,
    precondition: Option<v1::Precondition>,
) -> Result<Option<Precondition>, FieldError> {
    let Some(v1::Precondition { absent, inode, change }) = precondition else { return Ok(None) };
    match (absent, inode, change) {
        (true, 0, None) => Ok(Some(Precondition::Absent)),
        (false, inode, change) if inode != 0 => {
            let change = change.map(self::change);
            Ok(Some(Precondition::Inode { inode: InodeId(inode), change }))
        }
        _ => Err(FieldError::new(
            field,
            "must be either absent, or inode with or without its change",
        )),
    }
}

/// Parses a state of an inode.
pub fn change(change: v1::Change) -> Change {
    let v1::Change { incarnation, revision } = change;
    Change { incarnation: Incarnation(incarnation), revision: Revision(revision) }
}

/// Parses a name. Copied, so that it does not keep its buffer alive.
pub fn name(field: &'static str, bytes: &[u8]) -> Result<Name, FieldError> {
    if bytes.len() > Name::MAX_LEN {
        return Err(FieldError::path(field, PathError::NameTooLong(bytes.len())));
    }
    Name::new(Bytes::copy_from_slice(bytes)).map_err(|error| FieldError::path(field, error))
}

/// Parses the name of an extended attribute. Copied, so that it does not keep its buffer alive.
pub fn xattr_name(field: &'static str, bytes: &[u8]) -> Result<XattrName, FieldError> {
    let long = XattrError::NameTooLong(bytes.len());
    let name = if bytes.len() > XattrName::MAX_LEN {
        Err(long)
    } else {
        XattrName::new(Bytes::copy_from_slice(bytes))
    };
    name.map_err(|error| FieldError::new(field, error))
}

/// Parses the value of an extended attribute.
pub fn xattr_value(field: &'static str, value: Bytes) -> Result<Bytes, FieldError> {
    XattrName::check_value(&value).map_err(|error| FieldError::new(field, error))?;
    Ok(value)
}

/// Parses all extended attributes of an inode, within their bounds.
pub fn xattrs(
    field: &'static str,
    list: Vec<v1::Xattr>,
) -> Result<BTreeMap<XattrName, Bytes>, FieldError> {
    let mut xattrs = BTreeMap::new();
    for v1::Xattr { name, value } in at_most(field, list, XattrName::PER_INODE)? {
        let name = xattr_name(field, &name)?;
        if xattrs.contains_key(&name) {
            return Err(FieldError::new(field, format_args!("{name} is given twice")));
        }
        xattrs.insert(name, value);
    }
    XattrName::check_all(&xattrs)
        .map_err(|(name, error)| FieldError::new(field, format_args!("{name}: {error}")))?;
    Ok(xattrs)
}

/// Parses the target of a symlink: 1 to [`SYMLINK_TARGET_LEN_MAX`] bytes without NUL.
pub fn symlink_target(field: &'static str, bytes: &[u8]) -> Result<Bytes, FieldError> {
    if bytes.len() > SYMLINK_TARGET_LEN_MAX {
        let what =
            format!("at most {SYMLINK_TARGET_LEN_MAX} bytes are allowed, not {}", bytes.len());
        return Err(FieldError { field, what, code: ErrorCode::NameTooLong });
    }
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(FieldError::new(field, "a target must have at least one byte, and no NUL"));
    }
    Ok(Bytes::copy_from_slice(bytes))
}

/// Parses a chunk size: a multiple of 64 KiB within the bounds.
pub fn chunk_size(field: &'static str, bytes: u64) -> Result<u64, FieldError> {
    let is_within = (CHUNK_SIZE_MIN..=CHUNK_SIZE_MAX).contains(&bytes);
    if !is_within || !bytes.is_multiple_of(CHUNK_SIZE_MIN) {
        let what = format_args!("must be a multiple of 64 KiB from 64 KiB to 1 GiB, not {bytes}");
        return Err(FieldError::new(field, what));
    }
    Ok(bytes)
}

/// Parses a sha256.
pub fn sha256(field: &'static str, bytes: &[u8]) -> Result<Sha256, FieldError> {
    Sha256::from_slice(bytes).ok_or_else(|| wrong_len(field, 32, bytes))
}

/// Parses the seal of a chunk; `field` is that of the sha256.
pub fn seal(
    field: &'static str,
    (length, crc32c, sha256): (u64, u32, &[u8]),
) -> Result<ChunkSeal, FieldError> {
    let sha256 = self::sha256(field, sha256)?;
    Ok(ChunkSeal { length, crc32c: Crc32c(crc32c), sha256 })
}

/// Parses a key.
pub fn key(field: &'static str, bytes: &[u8]) -> Result<SealKey, FieldError> {
    SealKey::from_slice(bytes).ok_or_else(|| wrong_len(field, SealKey::LEN, bytes))
}

/// Parses the secret of a node.
pub fn node_secret(field: &'static str, bytes: &[u8]) -> Result<NodeSecret, FieldError> {
    NodeSecret::from_slice(bytes).ok_or_else(|| wrong_len(field, NodeSecret::LEN, bytes))
}

/// Parses the kind of an inode.
pub fn file_kind(field: &'static str, kind: i32) -> Result<FileKind, FieldError> {
    match v1::FileKind::try_from(kind) {
        Ok(v1::FileKind::File) => Ok(FileKind::File),
        Ok(v1::FileKind::Directory) => Ok(FileKind::Directory),
        Ok(v1::FileKind::Symlink) => Ok(FileKind::Symlink),
        Ok(v1::FileKind::Fifo) => Ok(FileKind::Fifo),
        Ok(v1::FileKind::Socket) => Ok(FileKind::Socket),
        Ok(v1::FileKind::CharacterDevice) => Ok(FileKind::CharacterDevice),
        Ok(v1::FileKind::BlockDevice) => Ok(FileKind::BlockDevice),
        Ok(v1::FileKind::Unspecified) | Err(_) => Err(unknown(field, kind)),
    }
}

/// Parses the state of a node.
pub fn node_state(field: &'static str, state: i32) -> Result<NodeState, FieldError> {
    match v1::NodeState::try_from(state) {
        Ok(v1::NodeState::Joining) => Ok(NodeState::Joining),
        Ok(v1::NodeState::Active) => Ok(NodeState::Active),
        Ok(v1::NodeState::Suspect) => Ok(NodeState::Suspect),
        Ok(v1::NodeState::Lost) => Ok(NodeState::Lost),
        Ok(v1::NodeState::Draining) => Ok(NodeState::Draining),
        Ok(v1::NodeState::Drained) => Ok(NodeState::Drained),
        Ok(v1::NodeState::Maintenance) => Ok(NodeState::Maintenance),
        Ok(v1::NodeState::Removed) => Ok(NodeState::Removed),
        Ok(v1::NodeState::Unspecified) | Err(_) => Err(unknown(field, state)),
    }
}

/// Converts the scrub of a disk.
pub fn disk_scrub(scrub: v1::DiskScrub) -> DiskScrub {
    let v1::DiskScrub { last_end_ms, last_bytes, last_errors, .. } = scrub;
    let v1::DiskScrub { replicas, errors, left_replicas, left_bytes, every_ms, .. } = scrub;
    let last = last_end_ms.map(|end| WholePass {
        end: Timestamp::from_millis(end),
        bytes: last_bytes,
        errors: last_errors,
    });
    let every = (every_ms > 0).then(|| Duration::from_millis(every_ms));
    DiskScrub { last, replicas, errors, left_replicas, left_bytes, every }
}

/// Parses the state of a disk.
pub fn disk_state(field: &'static str, state: i32) -> Result<DiskState, FieldError> {
    match v1::DiskState::try_from(state) {
        Ok(v1::DiskState::Healthy) => Ok(DiskState::Healthy),
        Ok(v1::DiskState::Slow) => Ok(DiskState::Slow),
        Ok(v1::DiskState::Hung) => Ok(DiskState::Hung),
        Ok(v1::DiskState::Failed) => Ok(DiskState::Failed),
        Ok(v1::DiskState::Returning) => Ok(DiskState::Returning),
        Ok(v1::DiskState::Retiring) => Ok(DiskState::Retiring),
        Ok(v1::DiskState::Missing) => Ok(DiskState::Missing),
        Ok(v1::DiskState::Starting) => Ok(DiskState::Starting),
        Ok(v1::DiskState::Unspecified) | Err(_) => Err(unknown(field, state)),
    }
}

/// Parses the health of a replica.
pub fn replica_health(field: &'static str, health: i32) -> Result<ReplicaHealth, FieldError> {
    match v1::ReplicaHealth::try_from(health) {
        Ok(v1::ReplicaHealth::Good) => Ok(ReplicaHealth::Good),
        Ok(v1::ReplicaHealth::Leaving) => Ok(ReplicaHealth::Leaving),
        Ok(v1::ReplicaHealth::Suspect) => Ok(ReplicaHealth::Suspect),
        Ok(v1::ReplicaHealth::Bad) => Ok(ReplicaHealth::Bad),
        Ok(v1::ReplicaHealth::Lost) => Ok(ReplicaHealth::Lost),
        Ok(v1::ReplicaHealth::Gone) => Ok(ReplicaHealth::Gone),
        Ok(v1::ReplicaHealth::Doomed) => Ok(ReplicaHealth::Doomed),
        Ok(v1::ReplicaHealth::Unspecified) | Err(_) => Err(unknown(field, health)),
    }
}

/// Parses a file time.
pub fn file_time(field: &'static str, time: v1::FileTime) -> Result<FileTime, FieldError> {
    FileTime::new(time.seconds, time.nanos)
        .ok_or_else(|| FieldError::new(field, "nanos must be below 1,000,000,000"))
}

/// Parses permission bits.
pub fn mode(field: &'static str, mode: u32) -> Result<u32, FieldError> {
    if mode & !Attributes::MODE_MASK != 0 {
        let what = format_args!("must be permission bits (07777), not {mode:#o}");
        return Err(FieldError::new(field, what));
    }
    Ok(mode)
}

/// Parses attributes, which must be set. A missing mtime becomes `mtime_default`.
pub fn attributes(
    field: &'static str,
    attributes: Option<v1::Attributes>,
    mtime_default: FileTime,
) -> Result<Attributes, FieldError> {
    let v1::Attributes { mode: bits, uid, gid, mtime } = required(field, attributes)?;
    let mtime = mtime.map_or(Ok(mtime_default), |time| file_time(field, time))?;
    Ok(Attributes { mode: mode(field, bits)?, uid, gid, mtime })
}

/// Parses a slot, which must be set.
pub fn slot(field: &'static str, slot: Option<v1::Slot>) -> Result<Slot, FieldError> {
    let v1::Slot { client_id, slot, sequence } = required(field, slot)?;
    if slot >= Slot::PER_CLIENT {
        let what = format_args!("must be below {}, not {slot}", Slot::PER_CLIENT);
        return Err(FieldError::new(field, what));
    }
    if sequence == 0 {
        return Err(FieldError::new(field, "sequence numbers start at 1"));
    }
    Ok(Slot { client: id(field, &client_id)?, slot, sequence })
}

/// Parses a part of a chunk.
pub fn part(field: &'static str, part: u32) -> Result<Part, FieldError> {
    let part = u8::try_from(part).map_err(|_| {
        FieldError::new(field, format_args!("must be 0 to {}, not {part}", u8::MAX))
    })?;
    Ok(Part(part))
}

/// Parses the redundancy of a chunk, which must be set.
pub fn redundancy(
    field: &'static str,
    redundancy: Option<v1::Redundancy>,
) -> Result<Redundancy, FieldError> {
    use v1::redundancy::Kind;
    let small = |number: u32| {
        u8::try_from(number).map_err(|_| {
            FieldError::new(field, format_args!("counts up to {}, not {number}", u8::MAX))
        })
    };
    match required(field, required(field, redundancy)?.kind)? {
        Kind::Replicated(v1::Replicated { copies }) => {
            Ok(Redundancy::Replicated { copies: small(copies)? })
        }
        Kind::Erasure(v1::Erasure { codec, k, m, blocks, crcs }) => {
            let (codec, k, m) = (small(codec)?, small(k)?, small(m)?);
            let fragments = usize::from(k) + usize::from(m);
            if crcs.len() != fragments {
                let what = format_args!("has {} checksums, not {fragments}", crcs.len());
                return Err(FieldError::new(field, what));
            }
            let crcs = crcs.into_iter().map(Crc32c).collect();
            Ok(Redundancy::Erasure { codec, k, m, blocks, crcs })
        }
    }
}

/// Parses the identification of a replica, which must be set.
pub fn replica(
    field: &'static str,
    replica: Option<v1::ReplicaRef>,
) -> Result<ReplicaRef, FieldError> {
    let v1::ReplicaRef { chunk_id, part, disk_id, stamp } = required(field, replica)?;
    Ok(ReplicaRef {
        chunk: id(field, &chunk_id)?,
        part: self::part(field, part)?,
        disk: id(field, &disk_id)?,
        stamp: Stamp(stamp),
    })
}

/// Parses a verdict on a replica.
pub fn verdict(
    field: &'static str,
    verdict: v1::ReplicaVerdict,
) -> Result<ReplicaVerdict, FieldError> {
    let v1::ReplicaVerdict { replica, number, condition, block } = verdict;
    let condition = replica_condition(field, condition)?;
    Ok(ReplicaVerdict { replica: self::replica(field, replica)?, number, condition, block })
}

/// Parses the condition of a replica.
pub fn replica_condition(
    field: &'static str,
    condition: i32,
) -> Result<ReplicaCondition, FieldError> {
    match v1::ReplicaCondition::try_from(condition) {
        Ok(v1::ReplicaCondition::Sound) => Ok(ReplicaCondition::Sound),
        Ok(v1::ReplicaCondition::Bad) => Ok(ReplicaCondition::Bad),
        Ok(v1::ReplicaCondition::Gone) => Ok(ReplicaCondition::Gone),
        Ok(v1::ReplicaCondition::Unspecified) | Err(_) => Err(unknown(field, condition)),
    }
}

/// Parses a proof that a replica was read, without verifying its seal.
pub fn read_proof(field: &'static str, proof: v1::ReadProof) -> Result<ReadProof, FieldError> {
    let v1::ReadProof { replica, generation, node_id, registration, seal } = proof;
    Ok(ReadProof {
        replica: self::replica(field, replica)?,
        generation: Generation(generation),
        node: id(field, &node_id)?,
        registration: RegistrationNumber(registration),
        seal: Seal(seal[..].try_into().map_err(|_| wrong_len(field, 32, &seal))?),
    })
}

/// Parses a receipt, without verifying its seal.
pub fn receipt(field: &'static str, receipt: v1::Receipt) -> Result<Receipt, FieldError> {
    let v1::Receipt { chunk_id, length, crc32c, node_id, disk_id, stamp, registration, seal, part } =
        receipt;
    Ok(Receipt {
        chunk: id(field, &chunk_id)?,
        part: self::part(field, part)?,
        length,
        crc32c: Crc32c(crc32c),
        node: id(field, &node_id)?,
        disk: id(field, &disk_id)?,
        stamp: Stamp(stamp),
        registration: RegistrationNumber(registration),
        seal: Seal(seal[..].try_into().map_err(|_| wrong_len(field, 32, &seal))?),
    })
}

/// Parses a frame, without verifying its bytes, see [`Frame::verify`]; `data` keeps its buffer
/// alive, without a copy.
pub fn frame(field: &'static str, frame: v1::ChunkFrame) -> Result<Frame, FieldError> {
    let v1::ChunkFrame {
        offset,
        data,
        block_crc32c,
        is_final,
        total_length,
        total_crc32c,
        total_sha256,
        // Not part of the frame; requesters take it out before.
        origin: _,
    } = frame;
    let seal = if is_final {
        Some(seal(field, (total_length, total_crc32c, &total_sha256))?)
    } else {
        None
    };
    Ok(Frame { offset, data, crcs: block_crc32c.into_iter().map(Crc32c).collect(), seal })
}

fn wrong_len(field: &'static str, wanted: usize, bytes: &[u8]) -> FieldError {
    FieldError::new(field, format_args!("must have {wanted} bytes, not {}", bytes.len()))
}

fn unknown(field: &'static str, value: i32) -> FieldError {
    FieldError::new(field, format_args!("{value} is not a valid value"))
}

#[cfg(test)]
mod tests;
