//! The replicas on one disk: a sorted map in few, full blocks.
//!
//! There may be millions of replicas, so memory for each counts more than the time of a change. A
//! block is a sorted array; a change moves half of one on average. Chunk ids begin with the time of
//! their chunks, so that most new replicas go to the end of the last block, and blocks are full.

use dfs_types::{ChunkId, Crc32c, Stamp};

use super::index::{Entry, Place};

/// Maximum number of replicas in a block.
const BLOCK_MAX: usize = 256;

const LENGTH_BITS: u32 = 41;
const PATH_LENGTH_BITS: u32 = 13;
const SET_ASIDE: u64 = 1 << (LENGTH_BITS + PATH_LENGTH_BITS);
const IN_FILE: u64 = SET_ASIDE << 1;

/// A chunk with its [`Entry`], without padding.
#[derive(Debug, Clone, Copy)]
#[repr(Rust, packed(4))]
struct Packed {
    chunk: u128,
    stamp: u64,
    /// Zero in a file.
    segment: u32,
    page: u32,
    /// Length of the chunk and of its path, whether it is set aside and whether it is in a file.
    sizes: u64,
    crc32c: u32,
}

impl Packed {
    fn new(chunk: ChunkId, entry: &Entry) -> Self {
        let (segment, page, in_file) = match entry.place {
            Place::File => (0, 0, IN_FILE),
            Place::Record { segment, page } => (segment, page, 0),
        };
        let path_length = u64::from(entry.path_length) << LENGTH_BITS;
        let set_aside = if entry.is_set_aside { SET_ASIDE } else { 0 };
        Self {
            chunk: chunk.0,
            stamp: entry.stamp.0,
            segment,
            page,
            sizes: entry.length | path_length | set_aside | in_file,
            crc32c: entry.crc32c.0,
        }
    }

    fn chunk(&self) -> ChunkId {
        ChunkId(self.chunk)
    }

    fn entry(&self, disk: u16) -> Entry {
        let Self { stamp, segment, page, sizes, crc32c, .. } = *self;
        let path_length = (sizes >> LENGTH_BITS) & ((1 << PATH_LENGTH_BITS) - 1);
        let is_in_file = sizes & IN_FILE != 0;
        Entry {
            length: sizes & ((1 << LENGTH_BITS) - 1),
            crc32c: Crc32c(crc32c),
            stamp: Stamp(stamp),
            place: if is_in_file { Place::File } else { Place::Record { segment, page } },
            disk,
            path_length: path_length as u16,
            is_set_aside: sizes & SET_ASIDE != 0,
        }
    }
}

/// The replicas on a disk, at most one for each chunk.
#[derive(Debug)]
pub(super) struct Replicas {
    disk: u16,
    /// None is empty.
    blocks: Vec<Vec<Packed>>,
}

impl Replicas {
    pub(super) fn new(disk: u16) -> Self {
        Self { disk, blocks: Vec::new() }
    }

    /// Returns the block that has a chunk, or should have it; `Err` in the block with the position
    /// that it should have there.
    fn locate(&self, chunk: ChunkId) -> (usize, Result<usize, usize>) {
        let after = self.blocks.partition_point(|block| block[0].chunk() <= chunk);
        let block = after.saturating_sub(1);
        let found = self.blocks.get(block);
        (block, found.map_or(Err(0), |block| block.binary_search_by_key(&chunk, Packed::chunk)))
    }

    pub(super) fn disk(&self) -> u16 {
        self.disk
    }

    pub(super) fn get(&self, chunk: ChunkId) -> Option<Entry> {
        let (block, Ok(at)) = self.locate(chunk) else { return None };
        Some(self.blocks[block][at].entry(self.disk))
    }

    /// Returns the replica that it replaces, if any.
    pub(super) fn insert(&mut self, chunk: ChunkId, entry: &Entry) -> Option<Entry> {
        let packed = Packed::new(chunk, entry);
        let (mut block, mut at) = match self.locate(chunk) {
            (block, Ok(at)) => {
                let old = std::mem::replace(&mut self.blocks[block][at], packed);
                return Some(old.entry(self.disk));
            }
            (block, Err(at)) => (block, at),
        };
        if self.blocks.is_empty() {
            self.blocks.push(Vec::new());
        }
        if self.blocks[block].len() == BLOCK_MAX {
            let is_last = block + 1 == self.blocks.len();
            // What comes at about the end is followed by more of the kind.
            let cut = if is_last { at.max(BLOCK_MAX / 2) } else { BLOCK_MAX / 2 };
            let mut rest = self.blocks[block].split_off(cut);
            self.blocks[block].shrink_to_fit();
            if is_last {
                rest.reserve_exact(BLOCK_MAX - rest.len());
            }
            if at > cut || rest.is_empty() {
                (block, at) = (block + 1, at - cut);
                self.blocks.insert(block, rest);
            } else {
                self.blocks.insert(block + 1, rest);
            }
        }
        let records = &mut self.blocks[block];
        let length = records.len();
        if length == records.capacity() {
            records.reserve_exact((2 * length).clamp(4, BLOCK_MAX) - length);
        }
        records.insert(at, packed);
        None
    }

    /// Inserts a replica, unless there is a newer one. Returns the older one of two.
    pub(super) fn adopt(&mut self, chunk: ChunkId, entry: Entry) -> Option<Entry> {
        match self.get(chunk) {
            Some(known) if known.stamp >= entry.stamp => Some(entry),
            _ => self.insert(chunk, &entry),
        }
    }

    pub(super) fn remove(&mut self, chunk: ChunkId) -> Option<Entry> {
        let (block, Ok(at)) = self.locate(chunk) else { return None };
        let removed = self.blocks[block].remove(at);
        let length = self.blocks[block].len();
        if length == 0 {
            self.blocks.remove(block);
        } else if length < BLOCK_MAX / 4 {
            let next = self.blocks.get(block + 1).map_or(BLOCK_MAX, Vec::len);
            if length + next <= BLOCK_MAX / 2 {
                let next = self.blocks.remove(block + 1);
                self.blocks[block].extend(next);
            } else {
                self.blocks[block].shrink_to(2 * length);
            }
        }
        Some(removed.entry(self.disk))
    }

    /// Returns the replicas of chunks after this one, in chunk order.
    pub(super) fn after(
        &self,
        after: Option<ChunkId>,
    ) -> impl Iterator<Item = (ChunkId, Entry)> + use<'_> {
        let (block, at) = match after.map(|after| self.locate(after)) {
            None => (0, 0),
            Some((block, Ok(at))) => (block, at + 1),
            Some((block, Err(at))) => (block, at),
        };
        let records = self.blocks.iter().skip(block).flatten().skip(at);
        records.map(|packed| (packed.chunk(), packed.entry(self.disk)))
    }

    /// Returns the bytes that it occupies.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let blocks = self.blocks.iter().map(|block| block.capacity() * size_of::<Packed>());
        self.blocks.capacity() * size_of::<Vec<Packed>>() + blocks.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dfs_types::{Random as _, SeededRandom};

    use super::super::record::{LENGTH_MAX, PATH_MAX};
    use super::*;

    const DISK: u16 = 3;

    fn entry(stamp: u64) -> Entry {
        Entry {
            length: stamp % (LENGTH_MAX + 1),
            crc32c: Crc32c(stamp as u32),
            stamp: Stamp(stamp),
            place: match stamp % 3 {
                0 => Place::File,
                _ => Place::Record { segment: stamp as u32, page: stamp as u32 ^ 5 },
            },
            disk: DISK,
            path_length: (stamp % (PATH_MAX as u64 + 1)) as u16,
            is_set_aside: stamp.is_multiple_of(5),
        }
    }

    #[test]
    fn packed_entry_keeps_the_extremes() {
        for stamp in [0, 1, PATH_MAX as u64, LENGTH_MAX, u64::MAX] {
            let mut entry = entry(stamp);
            (entry.length, entry.path_length) = (LENGTH_MAX, PATH_MAX as u16);
            let chunk = ChunkId(u128::MAX - u128::from(stamp));
            let packed = Packed::new(chunk, &entry);
            assert_eq!((packed.chunk(), packed.entry(DISK)), (chunk, entry));
        }
    }

    /// Compares with a plain map: growth in order, at random, and removal of most of it.
    #[test]
    fn replicas_are_equal_to_a_plain_map() {
        for seed in 0..8 {
            let random = SeededRandom::new(seed);
            let (mut replicas, mut model) = (Replicas::new(DISK), BTreeMap::new());
            for step in 0..6_000 {
                let in_order = seed % 2 == 0;
                let id = if in_order && step < 3_000 { step } else { random.below(4_000) };
                let chunk = ChunkId(u128::from(id));
                if step < 3_500 || random.below(4) == 0 {
                    let new = entry(random.below(u64::MAX));
                    assert_eq!(replicas.insert(chunk, &new), model.insert(chunk, new));
                } else {
                    assert_eq!(replicas.remove(chunk), model.remove(&chunk));
                }
                let other = ChunkId(u128::from(random.below(4_000)));
                assert_eq!(replicas.get(other), model.get(&other).copied());
                if step % 100 == 0 {
                    let all: Vec<_> = model.iter().map(|(chunk, entry)| (*chunk, *entry)).collect();
                    assert!(replicas.after(None).eq(all.iter().copied()));
                    let rest = all.iter().filter(|(chunk, _)| *chunk > other).copied();
                    assert!(replicas.after(Some(other)).eq(rest));
                }
            }
            for chunk in model.into_keys() {
                replicas.remove(chunk);
            }
            assert!(replicas.blocks.is_empty());
        }
    }

    #[test]
    fn replicas_need_little_more_memory_than_their_entries() {
        let mut replicas = Replicas::new(DISK);
        for number in 0..100_000 {
            // About in order, as concurrent writers seal them.
            let number = number ^ (number >> 3) & 15;
            replicas.insert(ChunkId(number), &entry(1));
        }
        let each = replicas.bytes() as f64 / 100_000.0;
        assert!(each < 48.0, "{each} bytes for each");
    }
}
