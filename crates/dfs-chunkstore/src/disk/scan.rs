//! Finds the records of a segment.
//!
//! Only heads are read. The last commit before a crash may have reached the disk partially,
//! including heads without their data; so in the segment written last, everything that no later
//! record declares durable is read and verified too.

use std::io;

use bytes::Bytes;
use dfs_types::Crc32c;

use super::record::{Binding, HEAD, Head, Layout, State, decode_crcs, meta_length};
use crate::File;
use crate::fs::PAGE;

/// Bytes read at once when searching for heads.
const WINDOW: usize = 128 << 10;

#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Sealed replicas, live or set aside.
    pub(super) replicas: Vec<(u64, Head)>,
    /// Deleted ones whose space has not been freed yet.
    pub(super) dead: Vec<(u64, Head)>,
    /// Records of an incomplete commit.
    pub(super) torn: Vec<(u64, Head)>,
    /// Pages that belong to no record.
    pub(super) strays: Vec<u64>,
    /// Everything before this offset was durable before the last commit.
    pub(super) durable_to: u64,
}

/// Scans a segment; `is_last` if commits to it may be incomplete.
pub(super) fn scan(file: &dyn File, salt: u64, is_last: bool) -> io::Result<Scan> {
    let mut scan = Scan::default();
    let length = file.length()?;
    let mut window = Window { file, start: 0, bytes: Bytes::new() };
    let mut at = 0;
    while let Some(data) = file.next_data(at)? {
        at = data - data % PAGE as u64;
        let Some(head) = Head::decode(&window.read(at)?, Binding { salt, offset: at }) else {
            scan.strays.push(at);
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
        at = end;
    }
    if is_last {
        let unsure = scan.replicas.partition_point(|(at, _)| *at < scan.durable_to);
        for (at, head) in scan.replicas.split_off(unsure) {
            // Only durable replicas are ever set aside, and then because they are damaged.
            if head.state == State::SetAside || is_whole(file, at, &head)? {
                scan.replicas.push((at, head));
            } else {
                scan.torn.push((at, head));
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
    /// Returns the bytes of a head at `offset`; fewer at the end of the file.
    fn read(&mut self, offset: u64) -> io::Result<Bytes> {
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + HEAD as u64 > end {
            // A long record is likely followed by more long ones, of which a window is mostly
            // useless.
            let size = if offset < end + WINDOW as u64 { WINDOW } else { PAGE };
            self.bytes = self.file.read_at(offset, size)?;
            self.start = offset;
        }
        let from = ((offset - self.start) as usize).min(self.bytes.len());
        Ok(self.bytes.slice(from..(from + HEAD).min(self.bytes.len())))
    }
}

/// Returns true if everything after a head matches it.
fn is_whole(file: &dyn File, at: u64, head: &Head) -> io::Result<bool> {
    let layout = Layout::of_record(at, head.path_length, head.seal.length);
    let size = meta_length(head.path_length, head.seal.length) as usize;
    let meta = file.read_at(layout.meta, size)?;
    if meta.len() < size || Crc32c::of(&meta) != head.meta_crc {
        return Ok(false);
    }
    let data = file.read_at(layout.data, head.seal.length as usize)?;
    let crcs = decode_crcs(&meta[usize::from(head.path_length)..]);
    Ok(data.len() as u64 == head.seal.length && Crc32c::of_blocks(&data) == crcs)
}
