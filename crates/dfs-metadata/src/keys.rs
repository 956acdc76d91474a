//! Keys of stored records. Numbers are big-endian and of fixed width, so that key order is numeric
//! order and no owner's prefix is a prefix of another's.

use bytes::Bytes;
use dfs_types::{
    ChunkId, ClientId, DiskNumber, InodeId, Name, NodeId, Part, Slot, Stamp, Timestamp, XattrName,
};

/// Cluster id and incarnation.
pub(crate) const CLUSTER: Bytes = Bytes::from_static(b"s/cluster");
/// The write level.
pub(crate) const FORMAT: Bytes = Bytes::from_static(b"s/format");
/// The requested write level; absent until the first request.
pub(crate) const UPGRADE: Bytes = Bytes::from_static(b"s/upgrade");
/// The running coordinators.
pub(crate) const COORDINATORS: Bytes = Bytes::from_static(b"s/coordinators");
/// The keys of the cluster.
pub(crate) const KEYS: Bytes = Bytes::from_static(b"s/keys");
/// Replicas of new files.
pub(crate) const REPLICATION: Bytes = Bytes::from_static(b"s/replication");
/// Lowest chunk id that a commit may register.
pub(crate) const FLOOR: Bytes = Bytes::from_static(b"s/floor");
/// For which incarnation deletion was acknowledged; written by every batch of orphans to be deleted.
pub(crate) const GC: Bytes = Bytes::from_static(b"s/gc");
/// Lowest client id whose calls are accepted; absent until it is raised.
pub(crate) const CLIENT_FLOOR: Bytes = Bytes::from_static(b"s/client-floor");
/// Lowest disk number not assigned yet.
pub(crate) const DISKS: Bytes = Bytes::from_static(b"s/disks");
/// Lowest inode number not reserved by a coordinator.
pub(crate) const INODES: Bytes = Bytes::from_static(b"s/inodes");
/// Read and written by every move of a directory to another parent.
pub(crate) const MOVES: Bytes = Bytes::from_static(b"s/moves");
/// Written without a condition whenever a directory or symlink loses a name.
pub(crate) const NAMES: Bytes = Bytes::from_static(b"s/names");

/// Written by every change of a node's desired state, including maintenance; absent before the
/// first one. A decision based on all nodes' desired states is conditioned on it.
pub(crate) const NODE_INTENT: Bytes = Bytes::from_static(b"s/node-intent");

/// The changes of policies; absent before the first one.
pub(crate) const POLICY_CHANGES: Bytes = Bytes::from_static(b"s/policies");
/// Position of the pass that applies another default to existing chunks; absent when it is done.
pub(crate) const POLICY_SWEEP: Bytes = Bytes::from_static(b"s/policy-sweep");

/// Present while the store is an unfinished copy of another.
pub(crate) const MIGRATION: Bytes = Bytes::from_static(b"s/migration");
/// Settings of background workers.
pub(crate) const WORKERS: &[u8] = b"s/worker/";
/// Epochs and renewals of leases.
pub(crate) const LEASES: &[u8] = b"s/lease/";
/// Suffix of the key of a renewal, and only of a renewal.
pub(crate) const RENEWAL: &[u8] = b"/renewal";
/// Suffix of the key of an epoch.
pub(crate) const EPOCH: &[u8] = b"/epoch";

/// Prefix of all chunks.
pub(crate) const CHUNKS: &[u8] = b"k/";
/// Prefix of all replicas that were proven once to be needed by no record, in chunk order.
pub(crate) const UNNEEDED: &[u8] = b"g/";
/// Prefix of all policies.
pub(crate) const POLICIES: &[u8] = b"p/";
/// Prefix of all nodes.
pub(crate) const NODES: &[u8] = b"n/";
/// Prefix of all unlinked inodes, ordered by the time they are due.
pub(crate) const UNLINKED: &[u8] = b"o/";
/// Prefix of all kept replies.
pub(crate) const ANSWERS: &[u8] = b"r/";
/// Prefix of all staged uploads.
pub(crate) const UPLOADS: &[u8] = b"u/";

/// Chunks whose records are not at rest.
pub(crate) const REPAIRS: &[u8] = b"w/r/";
/// Chunks with replicas waiting for deletion, and tombstones.
pub(crate) const DELETIONS: &[u8] = b"w/d/";
/// Directories and files to which a change of a policy was not applied throughout.
pub(crate) const PENDING_POLICIES: &[u8] = b"w/p/";

fn key(kind: &[u8], parts: &[&[u8]]) -> Bytes {
    let mut bytes = Vec::with_capacity(kind.len() + parts.iter().map(|p| p.len()).sum::<usize>());
    bytes.extend_from_slice(kind);
    for part in parts {
        bytes.extend_from_slice(part);
    }
    Bytes::from(bytes)
}

fn number(inode: InodeId) -> [u8; 8] {
    inode.0.to_be_bytes()
}

/// Returns the key of a background worker's settings.
pub(crate) fn worker(name: &str) -> Bytes {
    key(WORKERS, &[name.as_bytes()])
}

/// Returns the prefix of a directory's entries.
pub(crate) fn entries(directory: InodeId) -> Bytes {
    key(b"d/", &[&number(directory), b"/"])
}

/// Returns the key of a directory entry.
pub(crate) fn entry(directory: InodeId, name: &Name) -> Bytes {
    key(b"d/", &[&number(directory), b"/", name.as_bytes()])
}

/// Returns the directory and name of an entry's key.
pub(crate) fn entry_parts(key: &Bytes) -> Option<(InodeId, Name)> {
    let (directory, rest) = key.strip_prefix(b"d/")?.split_first_chunk()?;
    rest.strip_prefix(b"/")?;
    Some((InodeId(u64::from_be_bytes(*directory)), entry_name(key)?))
}

/// Returns the name at the end of an entry's key.
pub(crate) fn entry_name(key: &Bytes) -> Option<Name> {
    const NAME_AT: usize = 2 + 8 + 1;
    (key.len() > NAME_AT).then(|| Name::new(key.slice(NAME_AT..)).ok())?
}

/// Returns the key of an inode.
pub(crate) fn inode(inode: InodeId) -> Bytes {
    key(b"i/", &[&number(inode)])
}

/// Returns the inode of an inode record's key.
pub(crate) fn record_inode(key: &[u8]) -> Option<InodeId> {
    whole_number(key.strip_prefix(b"i/")?)
}

/// Returns the directory of a times record's key.
pub(crate) fn times_inode(key: &[u8]) -> Option<InodeId> {
    whole_number(key.strip_prefix(b"t/")?)
}

fn whole_number(bytes: &[u8]) -> Option<InodeId> {
    Some(InodeId(u64::from_be_bytes(bytes.try_into().ok()?)))
}

/// Returns the key of a directory's times.
pub(crate) fn times(directory: InodeId) -> Bytes {
    key(b"t/", &[&number(directory)])
}

/// Returns the prefix of the extents of a file that has more than one.
pub(crate) fn extents(inode: InodeId) -> Bytes {
    key(b"x/", &[&number(inode), b"/"])
}

/// Returns the key of the extent that starts at an offset.
pub(crate) fn extent(inode: InodeId, offset: u64) -> Bytes {
    key(b"x/", &[&number(inode), b"/", &offset.to_be_bytes()])
}

/// Returns the offset at the end of an extent's key.
pub(crate) fn extent_offset(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Returns inode and offset of an extent's key.
pub(crate) fn extent_parts(key: &[u8]) -> Option<(InodeId, u64)> {
    let (inode, rest) = key.strip_prefix(b"x/")?.split_first_chunk()?;
    let offset = rest.strip_prefix(b"/")?.try_into().ok()?;
    Some((InodeId(u64::from_be_bytes(*inode)), u64::from_be_bytes(offset)))
}

/// Returns the key of a large extended attribute.
pub(crate) fn xattr(inode: InodeId, name: &XattrName) -> Bytes {
    key(b"y/", &[&number(inode), b"/", name.as_bytes()])
}

/// Returns inode and name of a large extended attribute's key.
pub(crate) fn xattr_parts(key: &Bytes) -> Option<(InodeId, XattrName)> {
    const NAME_AT: usize = 2 + 8 + 1;
    let (inode, rest) = key.strip_prefix(b"y/")?.split_first_chunk()?;
    rest.strip_prefix(b"/")?;
    Some((InodeId(u64::from_be_bytes(*inode)), XattrName::new(key.slice(NAME_AT..)).ok()?))
}

/// Returns the chunk of a chunk record's key.
pub(crate) fn chunk_id(key: &[u8]) -> Option<ChunkId> {
    ChunkId::from_slice(key.strip_prefix(CHUNKS)?)
}

/// Returns the chunk of a key under [`REPAIRS`].
pub(crate) fn repair_chunk(key: &[u8]) -> Option<ChunkId> {
    ChunkId::from_slice(key.strip_prefix(REPAIRS)?)
}

/// Returns the chunk of a key under [`DELETIONS`].
pub(crate) fn deletion_chunk(key: &[u8]) -> Option<ChunkId> {
    ChunkId::from_slice(key.strip_prefix(DELETIONS)?)
}

/// Returns the key of a replica that no record needs.
pub(crate) fn unneeded(chunk: ChunkId, disk: DiskNumber, part: Part, stamp: Stamp) -> Bytes {
    let parts = [&chunk.to_bytes()[..], &disk.0.to_be_bytes(), &[part.0], &stamp.0.to_be_bytes()];
    key(UNNEEDED, &parts)
}

/// Returns chunk, disk, part and stamp of the key of a replica that no record needs.
pub(crate) fn unneeded_parts(key: &[u8]) -> Option<(ChunkId, DiskNumber, Part, Stamp)> {
    let (chunk, rest) = key.strip_prefix(UNNEEDED)?.split_first_chunk::<16>()?;
    let (disk, rest) = rest.split_first_chunk()?;
    let ([part], stamp) = rest.split_first_chunk()?;
    let stamp = Stamp(u64::from_be_bytes(stamp.try_into().ok()?));
    let disk = DiskNumber(u32::from_be_bytes(*disk));
    Some((ChunkId::from_slice(chunk)?, disk, Part(*part), stamp))
}

/// Returns the key of a policy.
pub(crate) fn policy(number: u32) -> Bytes {
    key(POLICIES, &[&number.to_be_bytes()])
}

/// Returns the number of a policy's key.
pub(crate) fn policy_number(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.strip_prefix(POLICIES)?.try_into().ok()?))
}

/// Returns the key under [`PENDING_POLICIES`] of an inode.
pub(crate) fn pending_policy(inode: InodeId) -> Bytes {
    key(PENDING_POLICIES, &[&number(inode)])
}

/// Returns the inode of a key under [`PENDING_POLICIES`].
pub(crate) fn pending_policy_inode(key: &[u8]) -> Option<InodeId> {
    whole_number(key.strip_prefix(PENDING_POLICIES)?)
}

/// Returns the key of a staged upload.
pub(crate) fn upload(inode: InodeId) -> Bytes {
    key(UPLOADS, &[&number(inode)])
}

/// Returns the inode of a staged upload's key.
pub(crate) fn upload_inode(key: &[u8]) -> Option<InodeId> {
    whole_number(key.strip_prefix(UPLOADS)?)
}

/// Returns the key of an unlinked inode. Other names of the inode that were deleted in the same
/// millisecond have a number after the inode; the first has none.
pub(crate) fn unlinked(not_before: Timestamp, inode: InodeId) -> Bytes {
    key(UNLINKED, &[&not_before.millis().to_be_bytes(), b"/", &number(inode)])
}

/// Returns a key after all unlinked inodes due at `now`, and before the others.
pub(crate) fn unlinked_after(now: Timestamp) -> Bytes {
    key(UNLINKED, &[&now.millis().to_be_bytes(), b"0"])
}

/// Returns time and inode of an unlinked inode's key.
pub(crate) fn unlinked_parts(key: &[u8]) -> Option<(Timestamp, InodeId)> {
    let (not_before, rest) = key.strip_prefix(UNLINKED)?.split_first_chunk()?;
    let (inode, rest) = rest.strip_prefix(b"/")?.split_first_chunk()?;
    let is_whole = rest.is_empty() || rest.strip_prefix(b"/").is_some_and(|n| n.len() == 4);
    let not_before = Timestamp::from_millis(u64::from_be_bytes(*not_before));
    is_whole.then_some((not_before, InodeId(u64::from_be_bytes(*inode))))
}

/// Returns the key of the reply kept for a slot.
pub(crate) fn answer(slot: &Slot) -> Bytes {
    let client: ClientId = slot.client;
    key(ANSWERS, &[&client.to_bytes(), b"/", &slot.slot.to_be_bytes()])
}

/// Returns the client of a kept reply's key.
pub(crate) fn answer_client(key: &[u8]) -> Option<ClientId> {
    let (client, rest) = key.strip_prefix(ANSWERS)?.split_first_chunk::<{ ClientId::LEN }>()?;
    let slot = rest.strip_prefix(b"/")?;
    (slot.len() == 4).then_some(ClientId::from_slice(client))?
}

/// Returns the key of a node.
pub(crate) fn node(node: NodeId) -> Bytes {
    key(NODES, &[&node.to_bytes()])
}

/// Returns the node of a node record's key.
pub(crate) fn node_id(key: &[u8]) -> Option<NodeId> {
    NodeId::from_slice(key.strip_prefix(NODES)?)
}

/// Formats a key for messages: printable bytes unchanged, others as hexadecimal digits.
pub(crate) fn show(key: &[u8]) -> String {
    let printable = |b: &u8| b.is_ascii_graphic();
    key.iter()
        .map(|b| if printable(b) { char::from(*b).to_string() } else { format!("\\x{b:02x}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip() {
        let (inode, time) = (InodeId(0x2f2f), Timestamp::from_millis(0x2f00));
        assert_eq!(unlinked_parts(&unlinked(time, inode)), Some((time, inode)));
        let further = [&unlinked(time, inode)[..], b"/\0\0\0\x01"].concat();
        assert_eq!(unlinked_parts(&further), Some((time, inode)));
        assert_eq!(unlinked_parts(&further[..further.len() - 1]), None);
        let xattr_name = XattrName::new("user.a").unwrap();
        assert_eq!(xattr_parts(&xattr(inode, &xattr_name)), Some((inode, xattr_name)));
        assert_eq!(upload_inode(&upload(inode)), Some(inode));
        assert_eq!(node_id(&node(NodeId(7))), Some(NodeId(7)));
        assert_eq!(extent_offset(&extent(inode, 1 << 40)), Some(1 << 40));
        let name = Name::new(&b"\xff"[..]).unwrap();
        assert_eq!(entry_name(&entry(inode, &name)), Some(name.clone()));
        assert_eq!(entry_parts(&entry(inode, &name)), Some((inode, name)));
        assert_eq!(record_inode(&super::inode(inode)), Some(inode));
        assert_eq!(times_inode(&times(inode)), Some(inode));
        assert_eq!(extent_parts(&extent(inode, 1 << 40)), Some((inode, 1 << 40)));
        assert_eq!(policy_number(&policy(0x2f2f)), Some(0x2f2f));
        assert_eq!(pending_policy_inode(&pending_policy(inode)), Some(inode));
        let replica = (ChunkId(0x2f2f), DiskNumber(0x2f), Part(0x2f), Stamp(0x2f2f));
        let key = unneeded(replica.0, replica.1, replica.2, replica.3);
        assert_eq!(unneeded_parts(&key), Some(replica));
        assert_eq!(unneeded_parts(&key[..key.len() - 1]), None);
        let slot = Slot { client: ClientId(7), slot: 0x2f2f, sequence: 1 };
        assert_eq!(answer_client(&answer(&slot)), Some(ClientId(7)));
        assert_eq!(answer_client(&answer(&slot)[..22]), None);
    }

    #[test]
    fn unlinked_keys_sort_by_time() {
        let (now, inode) = (Timestamp::from_millis(1_000), InodeId(u64::MAX));
        assert!(unlinked(now, inode) < unlinked_after(now));
        assert!([&unlinked(now, inode)[..], b"/\xff\xff\xff\xff"].concat() < unlinked_after(now));
        assert!(unlinked_after(now) < unlinked(Timestamp::from_millis(1_001), InodeId(0)));
    }

    #[test]
    fn keys_fit_the_engine_limit() {
        let name = Name::new(vec![b'n'; Name::MAX_LEN]).unwrap();
        assert!(entry(InodeId(u64::MAX), &name).len() <= crate::engine::KEY_LEN_MAX);
    }
}
