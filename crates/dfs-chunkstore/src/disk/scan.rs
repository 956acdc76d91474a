//! Finds the records of a segment.
//!
//! Only heads are read. The last commit before a crash may have reached the disk partially,
//! including heads without their data; so in the segment written last, everything that no later
//! record declares durable is read and verified too.
//!
//! Damage must not be mistaken for such a remainder, which is removed. A segment is new space: what
//! was never written is a hole, or zeros. Whatever else does not decode was written once, and may be
//! the head of a replica whose bytes are intact: it is kept and reported.

use std::io;

use bytes::Bytes;
use dfs_types::Crc32c;

use super::failure::is_disk_failure;
use super::record::{
    Binding, HEAD, Head, Layout, State, decode_crcs, meta_length, starts_like_head,
};
use crate::File;
use crate::fs::PAGE;

/// Bytes read at once when searching for heads.
const WINDOW: usize = 128 << 10;
/// Unreadable heads of a segment, or of all files, with which a disk stays in service.
pub(super) const UNREADABLE_MAX: usize = 16;
/// Bytes that a disk writes atomically.
const SECTOR: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Sealed replicas, live or set aside.
    pub(super) replicas: Vec<(u64, Head)>,
    /// Deleted ones whose space has not been freed yet.
    pub(super) dead: Vec<(u64, Head)>,
    /// Records of an incomplete commit.
    pub(super) torn: Vec<(u64, Head)>,
    /// Pages of an incomplete commit whose heads are missing.
    pub(super) left_over: Vec<u64>,
    /// Places where a record may start whose head does not decode, or is unreadable. Nothing from
    /// there to the next record is known, so nothing there is removed.
    pub(super) damaged: Vec<u64>,
    /// Everything before this offset was durable before the last commit.
    pub(super) durable_to: u64,
    /// Pages that could not be read, each of which may be a head.
    pub(super) unreadable: Vec<u64>,
}

/// Scans a segment; `is_last` if commits to it may be incomplete.
pub(super) fn scan(file: &dyn File, salt: u64, is_last: bool) -> io::Result<Scan> {
    let mut scan = Scan::default();
    let length = file.length()?;
    let mut window = Window { file, start: 0, bytes: Bytes::new() };
    // Where the next record starts, and whether the pages before `at` belong to one of unknown end.
    let (mut at, mut expected, mut in_damage) = (0, 0, false);
    while let Some(data) = file.next_data(at)? {
        at = data - data % PAGE as u64;
        let bytes = window.read(at, &mut scan.unreadable)?;
        let head = Head::decode(&bytes, Binding { salt, offset: at });
        let Some(head) = head else {
            // The head of an incomplete commit is missing entirely. One that is there was written.
            let is_written = at == expected || bytes.is_empty() || starts_like_head(&bytes);
            if is_written && !in_damage {
                scan.damaged.push(at);
                in_damage = true;
            }
            if !in_damage {
                scan.left_over.push(at);
            }
            at += PAGE as u64;
            continue;
        };
        let end = Layout::of_record(at, head.path_length, head.seal.length).end;
        scan.durable_to = scan.durable_to.max(head.durable_to);
        match head.state {
            State::Dead => scan.dead.push((at, head)),
            State::Live | State::SetAside if end <= length => scan.replicas.push((at, head)),
            State::Live | State::SetAside => scan.torn.push((at, head)),
        }
        (at, expected, in_damage) = (end, end, false);
    }
    // Only the last commit can be incomplete.
    let durable_to = if is_last { scan.durable_to } else { u64::MAX };
    let durable = scan.left_over.partition_point(|at| *at < durable_to);
    let mut previous = None;
    for at in scan.left_over.drain(..durable) {
        if previous.is_none_or(|previous| previous + PAGE as u64 != at) {
            scan.damaged.push(at);
        }
        previous = Some(at);
    }
    if is_last {
        let unsure = scan.replicas.partition_point(|(at, _)| *at < scan.durable_to);
        for (at, mut head) in scan.replicas.split_off(unsure) {
            // Only durable replicas are ever set aside, and then because they are damaged.
            match record_state(file, at, &head)? {
                _ if head.state == State::SetAside => scan.replicas.push((at, head)),
                RecordState::Whole => scan.replicas.push((at, head)),
                RecordState::Torn => scan.torn.push((at, head)),
                RecordState::Damaged => {
                    head.state = State::SetAside;
                    scan.replicas.push((at, head));
                }
            }
        }
    }
    Ok(scan)
}

struct Window<'a> {
    file: &'a dyn File,
    start: u64,
    bytes: Bytes,
}

impl Window<'_> {
    /// Returns the bytes of a head at `offset`; fewer at the end of the file, none if they are
    /// unreadable, which is counted.
    fn read(&mut self, offset: u64, unreadable: &mut Vec<u64>) -> io::Result<Bytes> {
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + HEAD as u64 > end {
            // A long record is likely followed by more long ones, of which a window is mostly
            // useless.
            let size = if offset < end + WINDOW as u64 { WINDOW } else { PAGE };
            let read = self.file.read_at(offset, size);
            // The window may be unreadable only beyond the head.
            let read = read.or_else(|_| self.file.read_at(offset, PAGE));
            self.bytes = match read {
                Err(error) if is_disk_failure(&error) && unreadable.len() < UNREADABLE_MAX => {
                    unreadable.push(offset);
                    Bytes::new()
                }
                read => read?,
            };
            self.start = offset;
        }
        let from = ((offset - self.start) as usize).min(self.bytes.len());
        Ok(self.bytes.slice(from..(from + HEAD).min(self.bytes.len())))
    }
}

/// State of a record of the last commit.
enum RecordState {
    Whole,
    /// Some of it was never written.
    Torn,
    /// All of it was written, and some has changed since.
    Damaged,
}

fn record_state(file: &dyn File, at: u64, head: &Head) -> io::Result<RecordState> {
    let layout = Layout::of_record(at, head.path_length, head.seal.length);
    let record = match file.read_at(at, (layout.end - at) as usize) {
        Err(error) if is_disk_failure(&error) => return Ok(RecordState::Damaged),
        record => record?,
    };
    let part = |from: u64, size: u64| {
        let from = ((from - at) as usize).min(record.len());
        record.slice(from..record.len().min(from + size as usize))
    };
    let meta_length = meta_length(head.path_length, head.seal.length);
    let (meta, data) = (part(layout.meta, meta_length), part(layout.data, head.seal.length));
    let is_complete = meta.len() as u64 == meta_length && data.len() as u64 == head.seal.length;
    if is_complete && Crc32c::of(&meta) == head.meta_crc {
        let crcs = decode_crcs(&meta[usize::from(head.path_length)..]);
        if Crc32c::of_blocks(&data) == crcs {
            return Ok(RecordState::Whole);
        }
    }
    // A sector that was never written reads as zeros.
    let is_missing = |sector: &[u8]| sector.iter().all(|byte| *byte == 0);
    let written = part(at, layout.data + head.seal.length - at);
    let is_torn = !is_complete || written.chunks(SECTOR).any(is_missing);
    Ok(if is_torn { RecordState::Torn } else { RecordState::Damaged })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use dfs_types::{ChunkId, Stamp};

    use super::super::record::{encode_meta, padding};
    use super::*;
    use crate::sim::SimFs;
    use crate::{Fs as _, FsCall, FsHook, HookedFs, Opening, conformance};

    const SALT: u64 = 7;

    /// A page that cannot be read; `None` while all can.
    #[derive(Default)]
    struct BadPage(Mutex<Option<u64>>);

    impl FsHook for BadPage {
        type Running<'a> = ();

        fn begin(&self, _: &Path, call: FsCall) -> io::Result<()> {
            let (Some(page), FsCall::Read { offset, length }) = (*self.0.lock().unwrap(), call)
            else {
                return Ok(());
            };
            if offset < page + PAGE as u64 && page < offset + length {
                return Err(io::Error::from_raw_os_error(5));
            }
            Ok(())
        }
    }

    /// Writes three records of two pages each, in one commit.
    fn segment() -> (Arc<dyn File>, Arc<BadPage>) {
        let bad_page = Arc::<BadPage>::default();
        let fs = HookedFs::new(Arc::new(SimFs::new()), bad_page.clone());
        let file = fs.open(Path::new("/a"), Opening::Create).unwrap();
        for number in 0..3 {
            let (chunk, at) = (ChunkId(number), number as u64 * 2 * PAGE as u64);
            let bytes = conformance::content(chunk, 5000);
            let meta = encode_meta(b"/p", &Crc32c::of_blocks(&bytes)).freeze();
            let header = crate::ChunkHeader {
                path: Bytes::from_static(b"/p"),
                ..conformance::header(chunk, 5000)
            };
            let head = Head::new(&header, conformance::seal_of(&bytes), Stamp(1), &meta);
            let end = (HEAD + meta.len() + bytes.len()) as u64;
            let head = head.encode(Binding { salt: SALT, offset: at });
            file.write_at(at, &[head, meta, bytes, padding(end)]).unwrap();
        }
        (file, bad_page)
    }

    #[test]
    fn unreadable_head_costs_one_replica() {
        for (page, damaged) in [(0, 0), (2, 2), (4, 4)] {
            let page = page * PAGE as u64;
            for is_last in [false, true] {
                let (file, bad_page) = segment();
                *bad_page.0.lock().unwrap() = Some(page);
                let found = scan(&*file, SALT, is_last).unwrap();
                let places: Vec<_> = found.replicas.iter().map(|(at, _)| *at).collect();
                let all = [0, 2, 4].map(|page| page * PAGE as u64);
                let expected: Vec<_> = all.into_iter().filter(|at| *at != page).collect();
                assert_eq!(places, expected);
                assert_eq!(found.damaged, [damaged * PAGE as u64]);
                assert_eq!(found.unreadable, [page]);
                assert!(found.left_over.is_empty() && found.torn.is_empty());
            }
        }
    }

    #[test]
    fn missing_head_of_the_last_commit_is_a_remainder() {
        let (file, _) = segment();
        file.punch(4 * PAGE as u64, PAGE as u64).unwrap();
        let found = scan(&*file, SALT, true).unwrap();
        assert_eq!((found.replicas.len(), found.left_over), (2, vec![5 * PAGE as u64]));
        assert!(found.damaged.is_empty());
        let found = scan(&*file, SALT, false).unwrap();
        assert_eq!((found.damaged, found.left_over), (vec![5 * PAGE as u64], vec![]));
    }
}
