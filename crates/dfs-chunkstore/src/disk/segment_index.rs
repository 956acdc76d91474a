//! Index files of closed segments, which a start reads instead of all heads.
//!
//! ```text
//! magic, version, number and salt of the segment, its length, number of entries
//! entries by page: chunk, stamp, page, length, crc32c, length of the path, state
//! crc32c of all that
//! ```
//!
//! An index file is only a copy of what the heads say, and never the only one: without a valid one,
//! a start reads the heads and writes the file again. A file that is valid must match the heads, so
//! that no deleted replica returns and no new state is lost:
//!
//! - It is written only while no head can change, after everything that was acknowledged is durable,
//!   and only if it lists every replica that the segment counts. A segment with damaged records
//!   counts them, so it gets none: each start finds and reports the damage.
//! - If a change of heads fails, they may differ from what is in memory: the segment gets no file
//!   until the next start has read them.
//! - Before a head in the segment changes, its file is removed, durably. Later changes cost nothing,
//!   until the file is written again: some minutes later, or when the store is closed.
//!
//! Nothing waits until a file is durable: one that a crash has torn does not match its checksum.
//! A head that is damaged after the file was written is found by the next read of its replica, of
//! the scrub at the latest.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use dfs_types::{ChunkId, Crc32c, Stamp};
use tokio::time::Instant;

use super::index::{Entry, Place};
use super::record::{LENGTH_MAX, PATH_MAX};
use super::segments::index_name_of;
use super::volume::Disk;
use crate::fs::PAGE;
use crate::{Opening, StoreError};

const MAGIC: [u8; 8] = *b"dfsindex";
const VERSION: u16 = 1;
const HEADER: usize = MAGIC.len() + 2 + 4 + 8 + 8 + 4;
const ENTRY: usize = 16 + 8 + 4 + 8 + 4 + 2 + 1;
const CRC: usize = 4;
/// Segments whose entries one walk over all replicas collects. Changes of heads wait until the files
/// of all of them are written.
const SEGMENTS_OF_WALK_MAX: usize = 256;
/// Entries that one walk collects, unless a single segment has more.
const ENTRIES_OF_WALK_MAX: u32 = 200_000;
/// Walks in one round that writes outdated files.
const WALKS_OF_ROUND_MAX: usize = 4;
/// Time between two rounds that write the files that changed heads have outdated.
const WRITE_AGAIN_AFTER: Duration = Duration::from_mins(5);

/// The segment that an index file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentId {
    pub(super) number: u32,
    pub(super) salt: u64,
    /// Length of its file.
    pub(super) length: u64,
}

/// Encodes the replicas in a segment, in any order.
fn encode(segment: SegmentId, entries: &[(ChunkId, Entry)]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEADER + entries.len() * ENTRY + CRC);
    bytes.put_slice(&MAGIC);
    bytes.put_u16(VERSION);
    bytes.put_u32(segment.number);
    bytes.put_u64(segment.salt);
    bytes.put_u64(segment.length);
    bytes.put_u32(entries.len() as u32);
    let page_of = |entry: &Entry| match entry.place {
        Place::Record { page, .. } => page,
        Place::File => 0,
    };
    let mut sorted: Vec<_> =
        entries.iter().map(|(chunk, entry)| (page_of(entry), chunk, entry)).collect();
    sorted.sort_unstable_by_key(|(page, ..)| *page);
    for (page, chunk, entry) in sorted {
        bytes.put_u128(chunk.0);
        bytes.put_u64(entry.stamp.0);
        bytes.put_u32(page);
        bytes.put_u64(entry.length);
        bytes.put_u32(entry.crc32c.0);
        bytes.put_u16(entry.path_length);
        bytes.put_u8(u8::from(entry.is_set_aside));
    }
    let crc = Crc32c::of(&bytes);
    bytes.put_u32(crc.0);
    bytes.freeze()
}

/// Decodes the replicas in a segment; `None` if these bytes are not its index.
fn decode(bytes: &[u8], segment: SegmentId, disk: u16) -> Option<Vec<(ChunkId, Entry)>> {
    let (mut fields, mut crc) = bytes.split_at_checked(bytes.len().checked_sub(CRC)?)?;
    if fields.len() < HEADER || Crc32c::of(fields).0 != crc.get_u32() {
        return None;
    }
    if !fields.starts_with(&MAGIC) {
        return None;
    }
    fields.advance(MAGIC.len());
    if fields.get_u16() != VERSION {
        return None;
    }
    let (number, salt) = (fields.get_u32(), fields.get_u64());
    if (SegmentId { number, salt, length: fields.get_u64() }) != segment {
        return None;
    }
    let count = fields.get_u32() as usize;
    if count == 0 || fields.len() != count.checked_mul(ENTRY)? {
        return None;
    }
    let (mut entries, mut next) = (Vec::with_capacity(count), 0);
    while fields.has_remaining() {
        let chunk = ChunkId(fields.get_u128());
        let stamp = Stamp(fields.get_u64());
        let place = Place::Record { segment: number, page: fields.get_u32() };
        let (length, crc32c) = (fields.get_u64(), Crc32c(fields.get_u32()));
        let (path_length, state) = (fields.get_u16(), fields.get_u8());
        let is_set_aside = state == 1;
        let entry = Entry { length, crc32c, stamp, place, disk, path_length, is_set_aside };
        if length > LENGTH_MAX || usize::from(path_length) > PATH_MAX || state > 1 {
            return None;
        }
        let layout = entry.layout();
        if layout.head < next || layout.end > segment.length {
            return None;
        }
        next = layout.end;
        entries.push((chunk, entry));
    }
    Some(entries)
}

/// Divides segments, each with its number of replicas, among walks.
fn walks(segments: impl IntoIterator<Item = (u32, u32)>) -> Vec<Vec<u32>> {
    let (mut walks, mut room) = (Vec::<Vec<u32>>::new(), 0);
    for (number, replicas) in segments {
        let fits = |walk: &&mut Vec<u32>| replicas <= room && walk.len() < SEGMENTS_OF_WALK_MAX;
        if let Some(walk) = walks.last_mut().filter(fits) {
            walk.push(number);
            room -= replicas;
        } else {
            walks.push(vec![number]);
            room = ENTRIES_OF_WALK_MAX.saturating_sub(replicas);
        }
    }
    walks
}

impl Disk {
    /// Returns the replicas in a segment according to its index file; `None` if there is no valid
    /// one, so that the heads must be read.
    pub(super) fn read_segment_index(&self, segment: SegmentId) -> Option<Vec<(ChunkId, Entry)>> {
        let path = self.segments_path().join(index_name_of(segment.number, segment.salt));
        let longest = HEADER as u64 + segment.length / PAGE as u64 * ENTRY as u64 + CRC as u64;
        let read = || {
            let file = self.fs.open(&path, Opening::Existing)?;
            let length = file.length()?;
            if length > longest { Ok(Bytes::new()) } else { file.read_at(0, length as usize) }
        };
        let bytes: io::Result<_> = read();
        let found = match &bytes {
            Ok(bytes) => decode(bytes, segment, self.number),
            Err(_) => None,
        };
        if found.is_none() {
            let why = bytes.err().map(|error| format!(": {error}")).unwrap_or_default();
            tracing::warn!(index = %path.display(), "the index of a segment is not valid{why}; reading the heads of its records");
        }
        found
    }

    /// Writes the index file of a closed segment, if these are all the replicas in it. No head in
    /// it may change meanwhile. Best effort: without the file, the next start reads the heads.
    pub(super) fn write_segment_index(&self, number: u32, entries: &[(ChunkId, Entry)]) {
        let Some(segment) = self.segments.closed(number) else { return };
        let is_complete = !entries.is_empty() && entries.len() == segment.replicas as usize;
        if segment.is_excluded || !is_complete {
            return;
        }
        let path = self.segments_path().join(index_name_of(number, segment.salt));
        let write = || -> io::Result<()> {
            let length = self.open_segment(number)?.length()?;
            let id = SegmentId { number, salt: segment.salt, length };
            // From here on there may be a valid file.
            self.segments.set_index(number, true, true);
            self.fs.open(&path, Opening::Create)?.write_at(0, &[encode(id, entries)])
        };
        match write() {
            Ok(()) => self.segments.set_index(number, true, false),
            Err(error) => {
                tracing::warn!(index = %path.display(), "cannot write the index of a segment: {error}");
            }
        }
    }

    /// Writes the index files of these segments, as far as they are closed.
    pub(super) fn write_segment_indexes(&self, segments: &[u32]) {
        self.write_some_indexes(segments, usize::MAX);
    }

    /// Like [`Self::write_segment_indexes`], with at most this many walks over all replicas.
    fn write_some_indexes(&self, segments: &[u32], walks_max: usize) {
        let sized =
            segments.iter().filter_map(|it| Some((*it, self.segments.closed(*it)?.replicas)));
        for walk in walks(sized).into_iter().take(walks_max) {
            if self.is_out_of_service() {
                return;
            }
            let _turn = self.head_turn();
            let mut found: BTreeMap<_, _> = walk.into_iter().map(|it| (it, Vec::new())).collect();
            self.index.for_each_on(self.number, |chunk, entry| {
                if let Place::Record { segment, .. } = entry.place
                    && let Some(entries) = found.get_mut(&segment)
                {
                    entries.push((chunk, *entry));
                }
            });
            for (number, entries) in found {
                if !self.is_locked() {
                    // Another process may have changed its heads.
                    return;
                }
                self.write_segment_index(number, &entries);
            }
        }
    }

    /// Writes index files that changed heads have outdated, when that is due. Later rounds write what
    /// is beyond the limit of one.
    pub(super) fn write_outdated_indexes(&self, now: Instant) {
        {
            let mut due = self.indexes_due();
            if now < *due.get_or_insert(now + WRITE_AGAIN_AFTER) {
                return;
            }
            *due = Some(now + WRITE_AGAIN_AFTER);
        }
        self.write_some_indexes(&self.segments.without_index(), WALKS_OF_ROUND_MAX);
    }

    /// Closes the active segment, and writes all index files that are missing.
    pub(super) fn close_segments(&self) {
        self.segments.close_active();
        self.write_segment_indexes(&self.segments.without_index());
    }

    /// Changes heads in these segments, after removing their index files, durably; to be called
    /// within the [`head_turn`](Self::head_turn) of the change. If the change fails, the segments get
    /// no index until the next start.
    pub(super) fn change_heads(
        &self,
        segments: impl IntoIterator<Item = u32>,
        change: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let segments: Vec<_> = segments.into_iter().collect();
        self.remove_segment_indexes(&segments)?;
        change().inspect_err(|_| self.segments.exclude(&segments))
    }

    fn remove_segment_indexes(&self, segments: &[u32]) -> Result<(), StoreError> {
        let mut removed = Vec::new();
        for &number in segments {
            let Some(segment) = self.segments.closed(number).filter(|it| it.may_have_index) else {
                continue;
            };
            let path = self.segments_path().join(index_name_of(number, segment.salt));
            match self.fs.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(self.fault("removing the index of a segment", error));
                }
                _ => removed.push(number),
            }
        }
        if removed.is_empty() {
            return Ok(());
        }
        let synced = self.fs.sync_dir(&self.segments_path());
        synced.map_err(|error| self.sync_fault("removing the index of a segment", error))?;
        for number in removed {
            self.segments.set_index(number, false, true);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: SegmentId = SegmentId { number: 3, salt: 7, length: 5 * PAGE as u64 };

    fn entry(page: u32, length: u64, is_set_aside: bool) -> Entry {
        Entry {
            length,
            crc32c: Crc32c(page),
            stamp: Stamp(u64::from(page) + 9),
            place: Place::Record { segment: SEGMENT.number, page },
            disk: 2,
            path_length: 5,
            is_set_aside,
        }
    }

    fn entries() -> Vec<(ChunkId, Entry)> {
        vec![(ChunkId(8), entry(0, 5_000, false)), (ChunkId(4), entry(3, 9, true))]
    }

    #[test]
    fn segment_index_round_trips_in_the_order_of_the_segment() {
        let mut reversed = entries();
        reversed.reverse();
        for entries in [entries(), reversed] {
            assert_eq!(decode(&encode(SEGMENT, &entries), SEGMENT, 2), Some(self::entries()));
        }
    }

    #[test]
    fn damaged_or_foreign_segment_index_is_refused() {
        let bytes = encode(SEGMENT, &entries());
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad, SEGMENT, 2), None, "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end], SEGMENT, 2), None, "cut at {end}");
        }
        for other in [
            SegmentId { number: 4, ..SEGMENT },
            SegmentId { salt: 8, ..SEGMENT },
            SegmentId { length: 4 * PAGE as u64, ..SEGMENT },
        ] {
            assert_eq!(decode(&bytes, other, 2), None, "{other:?}");
        }
    }

    #[test]
    fn walk_is_shared_by_segments_up_to_its_limits() {
        let sizes = |segments: &[u32]| -> Vec<_> {
            walks((0..).zip(segments.iter().copied())).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(&[]), []);
        assert_eq!(sizes(&[10; 2 * SEGMENTS_OF_WALK_MAX + 1]), [256, 256, 1]);
        assert_eq!(sizes(&[ENTRIES_OF_WALK_MAX / 2; 5]), [2, 2, 1]);
        let too_large = ENTRIES_OF_WALK_MAX + 1;
        assert_eq!(sizes(&[1, too_large, 1, 1]), [1, 1, 2]);
        assert_eq!(walks([(7, 1), (5, 1), (9, too_large)]), [vec![7, 5], vec![9]]);
    }

    #[test]
    fn segment_index_with_impossible_records_is_refused() {
        let overlapping = [(ChunkId(8), entry(0, 5_000, false)), (ChunkId(4), entry(1, 9, true))];
        let too_long = [(ChunkId(8), entry(0, 5 * PAGE as u64, false))];
        for entries in [&overlapping[..], &too_long, &[]] {
            assert_eq!(decode(&encode(SEGMENT, entries), SEGMENT, 2), None);
        }
    }
}
