//! Finds the replicas on a disk when it is opened.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use dfs_types::ChunkId;

use super::CHUNKS;
use super::failure::is_disk_failure;
use super::index::{Entry, Place};
use super::record::{Binding, HEAD, Head, Layout, State};
use super::replicas::Replicas;
use super::scan::{UNREADABLE_MAX, scan};
use super::segment_index::SegmentId;
use super::segments::{Name, Segment, index_name_of, parse_name};
use super::volume::Disk;
use crate::fs::PAGE;
use crate::{DamagedHead, File, Opening};

/// What was found on a disk.
pub(super) struct Recovered {
    pub(super) replicas: Replicas,
    /// Older replicas of the same chunks, left by a crash between a replica and the end of the one
    /// that it replaced.
    pub(super) replaced: Vec<(ChunkId, Entry)>,
    /// Number and bytes of both.
    pub(super) count: u64,
    pub(super) bytes: u64,
}

impl Recovered {
    fn new(disk: u16) -> Self {
        Self { replicas: Replicas::new(disk), replaced: Vec::new(), count: 0, bytes: 0 }
    }

    fn add(&mut self, chunk: ChunkId, entry: Entry) {
        self.count += 1;
        self.bytes += entry.size();
        self.replaced.extend(self.replicas.adopt(chunk, entry).map(|old| (chunk, old)));
    }

    fn add_all(&mut self, found: Vec<(ChunkId, Entry)>) {
        for (chunk, entry) in found {
            self.add(chunk, entry);
        }
    }
}

/// Finds the sealed replicas on a disk, and removes everything else. An unreadable disk is failed.
pub(super) fn recover(disk: &Disk) -> Recovered {
    let mut recovered = Recovered::new(disk.number);
    disk.clear_damaged();
    let found = recover_all(disk, &mut recovered);
    if let Err(error) = found {
        if !disk.is_closed() {
            disk.fail(&error);
        }
        recovered = Recovered::new(disk.number);
    }
    disk.refresh_space();
    recovered
}

fn recover_all(disk: &Disk, recovered: &mut Recovered) -> io::Result<()> {
    let shards = disk.fs.list(&disk.folder.join(CHUNKS))?;
    let segments = disk.fs.list(&disk.segments_path())?;
    let is_segment = |name: &&String| matches!(parse_name(name), Some(Name::Segment(..)));
    disk.progress.set_total(shards.len() + segments.iter().filter(is_segment).count());
    recover_files(disk, &shards, recovered)?;
    recover_segments(disk, segments, recovered)
}

fn recover_files(disk: &Disk, shards: &[String], recovered: &mut Recovered) -> io::Result<()> {
    let chunks = disk.folder.join(CHUNKS);
    let mut unreadable = 0;
    for shard in shards {
        let shard = chunks.join(shard);
        for name in disk.fs.list(&shard)? {
            let path = shard.join(&name);
            if name.strip_suffix(".part").is_some() {
                disk.fs.remove(&path)?;
                continue;
            }
            let chunk = name.strip_suffix(".v1").and_then(|id| id.parse::<ChunkId>().ok());
            let Some(chunk) = chunk.filter(|chunk| disk.chunk_path(*chunk) == path) else {
                tracing::warn!(file = %path.display(), "ignoring a file that is not a chunk of a known format");
                continue;
            };
            match read_file_head(disk, &path) {
                Ok(Some(head)) if head.chunk == chunk => {
                    recovered.add(chunk, Entry::new(disk.number, Place::File, &head));
                }
                Err(error) if !is_disk_failure(&error) || unreadable == UNREADABLE_MAX => {
                    return Err(error);
                }
                damaged => {
                    let is_unread = damaged.is_err();
                    unreadable += usize::from(is_unread);
                    let why = damaged.err().map(|error| format!(": {error}")).unwrap_or_default();
                    let file = path.display();
                    tracing::error!(%chunk, %file, "the head is damaged{why}: the replica is kept, and not served");
                    let (disk_id, chunk, offset) = (disk.id, Some(chunk), None);
                    disk.add_damaged(DamagedHead { disk: disk_id, chunk, path, offset, is_unread });
                }
            }
        }
        disk.advance_reading()?;
    }
    Ok(())
}

pub(super) fn read_file_head(disk: &Disk, path: &Path) -> io::Result<Option<Head>> {
    let file = disk.fs.open(path, Opening::Existing)?;
    let length = file.length()?;
    let Some(at) = length.checked_sub(PAGE as u64) else { return Ok(None) };
    let head = Head::decode(&file.read_at(at, HEAD)?, Binding::default());
    let fits = |head: &Head| Layout::of_file(head.path_length, head.seal.length).end == length;
    Ok(head.filter(fits))
}

fn recover_segments(disk: &Disk, names: Vec<String>, recovered: &mut Recovered) -> io::Result<()> {
    let folder = disk.segments_path();
    let (mut segments, mut indexes) = (Vec::new(), BTreeSet::new());
    for name in names {
        match parse_name(&name) {
            Some(Name::Segment(number, salt)) => segments.push((number, salt, folder.join(name))),
            Some(Name::Index(number, salt)) => drop(indexes.insert((number, salt))),
            None => {
                tracing::warn!(segment = %name, "ignoring a file that is not a segment of a known format");
            }
        }
    }
    let last = segments.iter().map(|(number, ..)| *number).max();
    for (number, salt, path) in segments {
        let may_have_index = indexes.contains(&(number, salt));
        let (needs_index, is_excluded) = (true, false);
        let segment = Segment { salt, replicas: 0, may_have_index, needs_index, is_excluded };
        recovered.add_all(read_segment(disk, number, segment, &path, Some(number) == last)?);
        if disk.segments.closed(number).is_some() {
            indexes.remove(&(number, salt));
        }
        disk.advance_reading()?;
    }
    // Their segments are gone, and no other segment can match them.
    for (number, salt) in indexes {
        let path = folder.join(index_name_of(number, salt));
        if let Err(error) = disk.fs.remove(&path) {
            tracing::warn!(index = %path.display(), "cannot remove the index of a segment that is gone: {error}");
        }
    }
    Ok(())
}

/// Returns the replicas in a segment, from its index file if it has a valid one.
fn read_segment(
    disk: &Disk,
    number: u32,
    segment: Segment,
    path: &Path,
    is_last: bool,
) -> io::Result<Vec<(ChunkId, Entry)>> {
    let file = disk.fs.open(path, Opening::Existing)?;
    if segment.may_have_index {
        let id = SegmentId { number, salt: segment.salt, length: file.length()? };
        if let Some(listed) = disk.read_segment_index(id) {
            let replicas = listed.len() as u32;
            disk.segments.add(number, Segment { replicas, needs_index: false, ..segment });
            return Ok(listed);
        }
    }
    let (found, damaged) = recover_segment(disk, number, segment, path, &*file, is_last)?;
    // What is damaged keeps its segment.
    let replicas = (found.len() + damaged) as u32;
    disk.segments.add(number, Segment { replicas, is_excluded: damaged > 0, ..segment });
    let found = found.into_iter().map(|(at, head)| {
        let place = Place::Record { segment: number, page: (at / PAGE as u64) as u32 };
        (head.chunk, Entry::new(disk.number, place, &head))
    });
    let found: Vec<_> = found.collect();
    disk.write_segment_index(number, &found);
    Ok(found)
}

/// Returns the sealed replicas in a segment, and the number of places where another one may be.
/// Everything else in it is removed.
fn recover_segment(
    disk: &Disk,
    number: u32,
    segment: Segment,
    path: &Path,
    file: &dyn File,
    is_last: bool,
) -> io::Result<(Vec<(u64, Head)>, usize)> {
    let salt = segment.salt;
    let found = scan(file, salt, is_last)?;
    let is_intact = !found.replicas.is_empty()
        && [&found.damaged, &found.unreadable, &found.left_over].iter().all(|it| it.is_empty())
        && found.torn.is_empty();
    if segment.may_have_index && !is_intact {
        // The next start may be able to read it: it would hide the damage, or bring back what is
        // removed now.
        let folder = disk.segments_path();
        disk.fs.remove(&folder.join(index_name_of(number, salt)))?;
        disk.fs.sync_dir(&folder)?;
    }
    let places: BTreeSet<_> = found.damaged.iter().chain(&found.unreadable).collect();
    for at in places {
        tracing::error!(
            segment = %path.display(), at,
            "the head of a record is damaged: what follows is kept, and not served"
        );
        let (path, is_unread) = (path.to_owned(), found.unreadable.contains(at));
        let (chunk, offset) = (None, Some(*at));
        disk.add_damaged(DamagedHead { disk: disk.id, chunk, path, offset, is_unread });
    }
    if found.replicas.is_empty() && found.damaged.is_empty() {
        disk.fs.remove(path)?;
        return Ok((Vec::new(), 0));
    }
    // From now on the segment is no longer the last one, so its tail will not be checked again.
    for (at, head) in &found.torn {
        let head = Head { state: State::Dead, ..*head };
        file.write_at(*at, &[head.encode(Binding { salt, offset: *at })])?;
    }
    if !found.torn.is_empty() {
        file.sync()?;
    }
    for (at, head) in found.torn.iter().chain(&found.dead) {
        file.punch(*at, Layout::of_record(*at, head.path_length, head.seal.length).end - at)?;
    }
    for at in &found.left_over {
        file.punch(*at, PAGE as u64)?;
    }
    if !found.left_over.is_empty() {
        // In a segment that is not the last one, they would look like damage.
        file.sync()?;
    }
    Ok((found.replicas, found.damaged.len()))
}
