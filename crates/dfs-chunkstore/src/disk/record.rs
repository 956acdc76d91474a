//! Metadata stored next to the bytes of a chunk, the same in both layouts.
//!
//! A *head* of fixed size has everything about a replica except its path and block checksums, which
//! form the *meta* part: path, then the crc32c of each block. A large chunk is a separate file:
//! data, meta, head, each page-aligned, so that it is written once and sequentially. A small chunk
//! is a record in a segment: head, meta, data without gaps, padded to a page.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use dfs_types::{ChunkId, ClusterId, Crc32c, InodeId, Sha256, Stamp, block_count};

use super::index::Entry;
use crate::fs::PAGE;
use crate::{ChunkHeader, ChunkSeal};

/// Bytes of a head. Less than a disk sector, so that it is written atomically.
pub(super) const HEAD: usize = 256;
const CRC_AT: usize = HEAD - 4;
const MAGIC: [u8; 8] = *b"dfschunk";
const VERSION: u16 = 1;
/// A head with larger sizes is invalid.
pub(super) const PATH_MAX: usize = 4096;
pub(super) const LENGTH_MAX: u64 = 1 << 40;

/// Binds a head to its location, so that a copy of it elsewhere, such as in the bytes of a chunk,
/// is invalid. A separate file has offset 0: its name binds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Binding {
    /// Random salt of the segment.
    pub(super) salt: u64,
    /// Offset in the segment.
    pub(super) offset: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Live = 1,
    SetAside = 2,
    /// Deleted; its space may not be freed yet.
    Dead = 3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) state: State,
    pub(super) cluster: ClusterId,
    pub(super) chunk: ChunkId,
    pub(super) inode: InodeId,
    pub(super) file_offset: u64,
    pub(super) max_length: u64,
    pub(super) seal: ChunkSeal,
    pub(super) stamp: Stamp,
    pub(super) path_length: u16,
    pub(super) meta_crc: Crc32c,
    /// In a segment: everything before this offset was durable when the record was written.
    pub(super) durable_to: u64,
}

impl Head {
    pub(super) fn new(header: &ChunkHeader, seal: ChunkSeal, stamp: Stamp, meta: &[u8]) -> Self {
        Self {
            state: State::Live,
            cluster: header.cluster,
            chunk: header.chunk,
            inode: header.inode,
            file_offset: header.file_offset,
            max_length: header.max_length,
            seal,
            stamp,
            path_length: header.path.len() as u16,
            meta_crc: Crc32c::of(meta),
            durable_to: 0,
        }
    }

    /// Returns the head of a replica whose own head is damaged, as far as the index knows it. Its
    /// header and its sha256 stay unreadable, as no meta part matches it.
    pub(super) fn of_entry(chunk: ChunkId, entry: &Entry) -> Self {
        Self {
            state: State::Live,
            cluster: ClusterId::default(),
            chunk,
            inode: InodeId::default(),
            file_offset: 0,
            max_length: entry.length,
            seal: ChunkSeal { length: entry.length, crc32c: entry.crc32c, sha256: Sha256([0; 32]) },
            stamp: entry.stamp,
            path_length: entry.path_length,
            meta_crc: Crc32c::default(),
            durable_to: 0,
        }
    }

    pub(super) fn encode(&self, binding: Binding) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEAD);
        bytes.put_slice(&MAGIC);
        bytes.put_u16(VERSION);
        bytes.put_u8(self.state as u8);
        bytes.put_u128(self.cluster.0);
        bytes.put_u128(self.chunk.0);
        bytes.put_u64(self.inode.0);
        bytes.put_u64(self.file_offset);
        bytes.put_u64(self.max_length);
        bytes.put_u64(self.seal.length);
        bytes.put_u32(self.seal.crc32c.0);
        bytes.put_slice(&self.seal.sha256.0);
        bytes.put_u64(self.stamp.0);
        bytes.put_u16(self.path_length);
        bytes.put_u32(self.meta_crc.0);
        bytes.put_u64(self.durable_to);
        bytes.put_bytes(0, CRC_AT - bytes.len());
        let crc = binding.crc(&bytes);
        bytes.put_u32(crc.0);
        bytes.freeze()
    }

    /// Decodes a head; `None` if these bytes contain none, or a damaged one.
    pub(super) fn decode(bytes: &[u8], binding: Binding) -> Option<Self> {
        let bytes = bytes.get(..HEAD)?;
        let (mut fields, mut crc) = bytes.split_at(CRC_AT);
        if !fields.starts_with(&MAGIC) || binding.crc(fields).0 != crc.get_u32() {
            return None;
        }
        fields.advance(MAGIC.len());
        if fields.get_u16() != VERSION {
            return None;
        }
        let state = match fields.get_u8() {
            1 => State::Live,
            2 => State::SetAside,
            3 => State::Dead,
            _ => return None,
        };
        let cluster = ClusterId(fields.get_u128());
        let chunk = ChunkId(fields.get_u128());
        let inode = InodeId(fields.get_u64());
        let file_offset = fields.get_u64();
        let max_length = fields.get_u64();
        let length = fields.get_u64();
        let crc32c = Crc32c(fields.get_u32());
        let mut sha256 = [0; 32];
        fields.copy_to_slice(&mut sha256);
        let head = Self {
            state,
            cluster,
            chunk,
            inode,
            file_offset,
            max_length,
            seal: ChunkSeal { length, crc32c, sha256: Sha256(sha256) },
            stamp: Stamp(fields.get_u64()),
            path_length: fields.get_u16(),
            meta_crc: Crc32c(fields.get_u32()),
            durable_to: fields.get_u64(),
        };
        let is_sane = length <= LENGTH_MAX && usize::from(head.path_length) <= PATH_MAX;
        is_sane.then_some(head)
    }

    /// Returns the chunk's header, with its path from the meta part.
    pub(super) fn header(&self, meta: &Bytes) -> ChunkHeader {
        ChunkHeader {
            cluster: self.cluster,
            chunk: self.chunk,
            inode: self.inode,
            path: meta.slice(..usize::from(self.path_length).min(meta.len())),
            file_offset: self.file_offset,
            max_length: self.max_length,
        }
    }
}

/// Returns whether bytes start like a head, valid or not.
pub(super) fn starts_like_head(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

impl Binding {
    fn crc(self, fields: &[u8]) -> Crc32c {
        Crc32c::of(fields).append(&self.salt.to_be_bytes()).append(&self.offset.to_be_bytes())
    }
}

/// Encodes the meta part of a chunk.
pub(super) fn encode_meta(path: &[u8], crcs: &[Crc32c]) -> BytesMut {
    let mut meta = BytesMut::with_capacity(path.len() + 4 * crcs.len());
    meta.put_slice(path);
    for crc in crcs {
        meta.put_u32(crc.0);
    }
    meta
}

/// Decodes the block checksums of a meta part.
pub(super) fn decode_crcs(mut table: &[u8]) -> Vec<Crc32c> {
    let mut crcs = Vec::with_capacity(table.len() / 4);
    while table.len() >= 4 {
        crcs.push(Crc32c(table.get_u32()));
    }
    crcs
}

/// Offsets of the parts of a replica in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) head: u64,
    pub(super) meta: u64,
    /// Start of the block checksums, after the path.
    pub(super) table: u64,
    pub(super) data: u64,
    /// Offset of the first page after the replica.
    pub(super) end: u64,
}

impl Layout {
    /// Returns the layout of a chunk in a separate file.
    pub(super) fn of_file(path_length: u16, length: u64) -> Self {
        let meta = round_up(length);
        let head = meta + round_up(meta_length(path_length, length));
        let table = meta + u64::from(path_length);
        Self { head, meta, table, data: 0, end: head + PAGE as u64 }
    }

    /// Returns the layout of a record at `offset` of a segment.
    pub(super) fn of_record(offset: u64, path_length: u16, length: u64) -> Self {
        let meta = offset + HEAD as u64;
        let table = meta + u64::from(path_length);
        let data = meta + meta_length(path_length, length);
        Self { head: offset, meta, table, data, end: round_up(data + length) }
    }
}

/// Returns the length of the meta part.
pub(super) fn meta_length(path_length: u16, length: u64) -> u64 {
    u64::from(path_length) + 4 * block_count(length)
}

/// Rounds up to a multiple of the page size.
pub(super) fn round_up(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE as u64)
}

/// Returns zeros up to the next page.
pub(super) fn padding(bytes: u64) -> Bytes {
    static ZEROS: [u8; PAGE] = [0; PAGE];
    Bytes::from_static(&ZEROS).slice(..(round_up(bytes) - bytes) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            state: State::SetAside,
            cluster: ClusterId(1),
            chunk: ChunkId(2),
            inode: InodeId(3),
            file_offset: 4,
            max_length: 5,
            seal: ChunkSeal { length: 6, crc32c: Crc32c(7), sha256: Sha256([8; 32]) },
            stamp: Stamp(9),
            path_length: 10,
            meta_crc: Crc32c(11),
            durable_to: 12,
        }
    }

    #[test]
    fn head_round_trips_and_is_bound_to_its_location() {
        let binding = Binding { salt: 1, offset: 4096 };
        let bytes = head().encode(binding);
        assert_eq!(bytes.len(), HEAD);
        assert_eq!(Head::decode(&bytes, binding), Some(head()));
        assert_eq!(Head::decode(&bytes, Binding { salt: 2, ..binding }), None);
        assert_eq!(Head::decode(&bytes, Binding { offset: 0, ..binding }), None);
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let bytes = head().encode(Binding::default());
        for bit in 0..HEAD * 8 {
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::decode(&bad, Binding::default()), None, "bit {bit}");
        }
        assert_eq!(Head::decode(&bytes[..HEAD - 1], Binding::default()), None);
    }

    #[test]
    fn parts_do_not_overlap() {
        for length in [0, 1, 4096, 65_536, 65_537, 1 << 20, (64 << 20) + 1] {
            let file = Layout::of_file(100, length);
            assert!(file.data + length <= file.meta && file.table < file.head);
            assert!(file.meta + meta_length(100, length) <= file.head);
            let record = Layout::of_record(8192, 100, length);
            assert_eq!(record.table + 4 * block_count(length), record.data);
            assert!(record.data + length <= record.end && record.end - 8192 - length < 9000);
        }
    }
}
