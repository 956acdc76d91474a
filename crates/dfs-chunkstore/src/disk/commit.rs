//! Group commit of one disk: small chunks that are sealed, deleted or set aside concurrently share
//! one write and one sync.
//!
//! Requests queue up while a commit runs; the first request queued while none runs makes the pool
//! run commits until the queue is empty, in a pool slot reserved for each disk. The queue is
//! bounded by the bytes admitted to the disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dfs_types::{ChunkId, Crc32c, PlantedBug, Stamp};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::failure::{copy_error, is_no_space};
use super::index::{Claim, Entry, Place};
use super::recent::FileKey;
use super::record::{Binding, HEAD, Head, Layout, State, encode_meta, padding};
use super::segments::Active;
use super::space::Reservation;
use super::volume::Disk;
use crate::fs::PAGE;
use crate::thread_pool::JobPlace;
use crate::{ChunkHeader, ChunkSeal, File, JobPanicked, SealedChunk, StoreError};

/// Maximum bytes of data in one commit.
const COMMIT_BYTES_MAX: u64 = 4 << 20;

/// Segments that a commit tries to write to.
const SEGMENTS_TRIED: u32 = 3;

/// A small chunk to be sealed.
pub(super) struct NewRecord {
    pub(super) header: ChunkHeader,
    pub(super) seal: ChunkSeal,
    pub(super) crcs: Vec<Crc32c>,
    pub(super) data: Vec<Bytes>,
    pub(super) reservation: Reservation,
    pub(super) claim: Claim,
}

struct Seal {
    record: NewRecord,
    done: oneshot::Sender<Result<SealedChunk, StoreError>>,
    _permit: OwnedSemaphorePermit,
}

struct Mark {
    chunk: ChunkId,
    stamp: Stamp,
    state: State,
    done: oneshot::Sender<Result<bool, StoreError>>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Default)]
pub(super) struct Commits(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    seals: VecDeque<Seal>,
    marks: VecDeque<Mark>,
    /// Slot of the pool for commits; `None` while they run.
    place: Option<JobPlace>,
}

impl Commits {
    /// Enables commits.
    pub(super) fn open(&self, place: JobPlace) {
        self.lock().place = Some(place);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks commits as no longer running if one panics, so that the next request starts them again.
struct Turn<'a> {
    commits: &'a Commits,
    place: Option<JobPlace>,
}

impl Turn<'_> {
    /// Ends regularly, under the lock that found the queue empty.
    fn end(mut self, queue: &mut Queue) {
        queue.place = self.place.take();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.commits.open(place);
        }
    }
}

impl Disk {
    /// Seals a small chunk.
    pub(super) async fn seal_record(
        self: &Arc<Self>,
        record: NewRecord,
    ) -> Result<SealedChunk, StoreError> {
        let permit = self.admit(record.seal.length).await?;
        let (done, result) = oneshot::channel();
        let seal = Seal { record, done, _permit: permit };
        self.enqueue(|queue| queue.seals.push_back(seal));
        self.unless_hung(result).await?.map_err(|_| JobPanicked)?
    }

    /// Overwrites the head of a small chunk with a new state. Returns false if there is no such
    /// replica.
    pub(super) async fn mark_record(
        self: &Arc<Self>,
        chunk: ChunkId,
        stamp: Stamp,
        state: State,
    ) -> Result<bool, StoreError> {
        let permit = self.admit(0).await?;
        let (done, result) = oneshot::channel();
        let mark = Mark { chunk, stamp, state, done, _permit: permit };
        self.enqueue(|queue| queue.marks.push_back(mark));
        self.unless_hung(result).await?.map_err(|_| JobPanicked)?
    }

    fn enqueue(self: &Arc<Self>, push: impl FnOnce(&mut Queue)) {
        let place = {
            let mut queue = self.commits.lock();
            push(&mut queue);
            queue.place.take()
        };
        if let Some(place) = place {
            let disk = Arc::clone(self);
            self.pool.detach(place, move |place| disk.run_commits(place));
        }
    }

    fn run_commits(&self, place: JobPlace) {
        let turn = Turn { commits: &self.commits, place: Some(place) };
        loop {
            let (seals, marks) = {
                let mut queue = self.commits.lock();
                if queue.seals.is_empty() && queue.marks.is_empty() {
                    return turn.end(&mut queue);
                }
                let mut bytes = 0;
                let count = queue.seals.iter().take_while(|seal| {
                    let fits = bytes < COMMIT_BYTES_MAX;
                    bytes += seal.record.seal.length;
                    fits
                });
                let count = count.count();
                let seals: Vec<_> = queue.seals.drain(..count).collect();
                let marks: Vec<_> = queue.marks.drain(..).collect();
                (seals, marks)
            };
            self.commit_seals(seals);
            self.commit_marks(marks);
            self.write_segment_indexes(&self.segments.take_full());
            self.refresh_space();
        }
    }

    fn commit_seals(&self, seals: Vec<Seal>) {
        if seals.is_empty() {
            return;
        }
        match self.append(&seals) {
            Ok(entries) => {
                for (seal, entry) in seals.into_iter().zip(entries) {
                    let NewRecord { header, reservation, claim, .. } = seal.record;
                    reservation.seal(entry.size());
                    let sealed = self.publish(header.chunk, entry);
                    drop(claim);
                    // The caller may be gone.
                    let _ = seal.done.send(sealed);
                }
            }
            // One that is too large must not fail the others.
            Err(StoreError::NoSpace(_)) if seals.len() > 1 => {
                for seal in seals {
                    self.commit_seals(vec![seal]);
                }
            }
            Err(error) => {
                for Seal { record, done, .. } in seals {
                    drop(record);
                    let _ = done.send(Err(copy_error(&error)));
                }
            }
        }
    }

    /// Appends records to the active segment, durably, or leaves no trace of them. If someone has
    /// removed that segment, they go to another one.
    fn append(&self, seals: &[Seal]) -> Result<Vec<Entry>, StoreError> {
        for _ in 0..SEGMENTS_TRIED {
            if let Some(entries) = self.append_to_active(seals)? {
                return Ok(entries);
            }
        }
        let disk = self.folder.display().to_string();
        let source = io::Error::other("its segments are being removed");
        Err(StoreError::Io { action: "writing small chunks", disk, source })
    }

    /// Like [`Self::append`]; `None` if the active segment was removed.
    fn append_to_active(&self, seals: &[Seal]) -> Result<Option<Vec<Entry>>, StoreError> {
        if self.is_out_of_service() {
            return Err(self.out_of_service());
        }
        let active = self.segments.active(&*self.fs, &self.segments_path());
        let active = active.map_err(|error| self.fault("creating a segment", error))?;
        let (pieces, entries, end) = self.encode(seals, &active);
        if let Err(error) = active.file.write_at(active.end, &pieces) {
            return Err(self.cut_back(&active, error));
        }
        if !PlantedBug::AckBeforeFsync.is_planted()
            && let Err(error) = active.file.sync()
        {
            return Err(self.cut_back(&active, error));
        }
        let has_name = active.file.has_name();
        if !has_name.map_err(|error| self.fault("checking a segment", error))? {
            let (number, disk) = (active.number, self.folder.display());
            tracing::error!(number, %disk, "the segment of the latest small chunks was removed");
            self.segments.lose(number);
            self.files.remove(FileKey::Segment(number));
            return Ok(None);
        }
        self.segments.advance(end, entries.len() as u32);
        Ok(Some(entries))
    }

    fn encode(&self, seals: &[Seal], active: &Active) -> (Vec<Bytes>, Vec<Entry>, u64) {
        let mut pieces = Vec::with_capacity(4 * seals.len());
        let mut entries = Vec::with_capacity(seals.len());
        let mut at = active.end;
        for Seal { record: NewRecord { header, seal, crcs, data, .. }, .. } in seals {
            let meta = encode_meta(&header.path, crcs);
            let mut head = Head::new(header, *seal, self.stamps.next(), &meta);
            head.durable_to = active.end;
            let layout = Layout::of_record(at, head.path_length, seal.length);
            pieces.push(head.encode(Binding { salt: active.salt, offset: at }));
            pieces.push(meta.freeze());
            pieces.extend(data.iter().cloned());
            pieces.push(padding(layout.data + seal.length));
            let place = Place::Record { segment: active.number, page: (at / PAGE as u64) as u32 };
            entries.push(Entry::new(self.number, place, &head));
            at = layout.end;
        }
        (pieces, entries, at)
    }

    /// Reverts a write that did not become durable, so that no crash can reveal it. Only a full
    /// disk gets another chance.
    fn cut_back(&self, active: &Active, error: io::Error) -> StoreError {
        if !is_no_space(&error) {
            return self.sync_fault("writing small chunks", error);
        }
        match active.file.set_len(active.end).and_then(|()| active.file.sync()) {
            Ok(()) => self.fault("writing small chunks", error),
            Err(error) => {
                self.fail(&error);
                self.fault("reverting a write to a full disk", error)
            }
        }
    }

    fn commit_marks(&self, marks: Vec<Mark>) {
        if marks.is_empty() {
            return;
        }
        let _turn = self.head_turn();
        let written = self.write_marks(&marks);
        for Mark { chunk, stamp, state, done, .. } in marks {
            let result = match &written {
                Err(error) => Err(copy_error(error)),
                Ok(()) if state == State::Dead => Ok(self.forget_record(chunk, stamp)),
                Ok(()) => Ok(self.index.mark(chunk, self.number, stamp, state)),
            };
            let _ = done.send(result);
        }
    }

    fn write_marks(&self, marks: &[Mark]) -> Result<(), StoreError> {
        let entries =
            marks.iter().filter_map(|it| self.index.find(it.chunk, self.number, it.stamp));
        let segments: BTreeSet<_> = entries.filter_map(|entry| entry.segment()).collect();
        self.change_heads(segments, || self.write_heads(marks))
    }

    fn write_heads(&self, marks: &[Mark]) -> Result<(), StoreError> {
        let mut touched = BTreeMap::new();
        for Mark { chunk, stamp, state, .. } in marks {
            let Some(entry) = self.index.find(*chunk, self.number, *stamp) else { continue };
            let Place::Record { segment, .. } = entry.place else { continue };
            let file = match self.open_segment(segment) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(self.fault("opening a segment", error)),
            };
            self.write_mark(&*file, *chunk, &entry, *state)?;
            touched.insert(segment, file);
        }
        for file in touched.values() {
            file.sync().map_err(|error| self.sync_fault("marking small chunks", error))?;
        }
        Ok(())
    }

    /// Overwrites the head of a replica with a new state; to be called within a
    /// [`head_turn`](Self::head_turn), and by [`change_heads`](Self::change_heads) in a segment. The
    /// rest of the head is kept if it is intact, otherwise rebuilt from the index.
    pub(super) fn write_mark(
        &self,
        file: &dyn File,
        chunk: ChunkId,
        entry: &Entry,
        state: State,
    ) -> Result<(), StoreError> {
        let (at, binding) = (entry.layout().head, self.binding(entry));
        let head = match file.read_at(at, HEAD) {
            Ok(bytes) => Head::decode(&bytes, binding),
            Err(error) => return self.mark_unreadable(file, chunk, entry, state, error),
        };
        let mut head = head.unwrap_or_else(|| Head::of_entry(chunk, entry));
        head.state = state;
        let written = file.write_at(at, &[head.encode(binding)]);
        written.map_err(|error| self.fault("marking a chunk", error))
    }

    /// Gives a replica whose head is unreadable a new state, as far as possible without writing to
    /// that page: the kernel would read it first, and the failed write would fail the disk.
    fn mark_unreadable(
        &self,
        file: &dyn File,
        chunk: ChunkId,
        entry: &Entry,
        state: State,
        error: io::Error,
    ) -> Result<(), StoreError> {
        let failed = |source| {
            let disk = self.path().display().to_string();
            StoreError::Io { action: "marking a chunk", disk, source }
        };
        match state {
            State::Live => Err(failed(error)),
            // Without a readable head, the next start does not find it either.
            State::SetAside => {
                let disk = self.path().display();
                tracing::warn!(%chunk, %disk, "set aside until the next start: its head is unreadable: {error}");
                Ok(())
            }
            // Whole pages are freed without being read.
            State::Dead => file.punch(entry.layout().head, entry.size()).map_err(failed),
        }
    }

    /// Removes a small chunk that is durably dead from the index.
    fn forget_record(&self, chunk: ChunkId, stamp: Stamp) -> bool {
        let Some(entry) = self.index.remove(chunk, self.number, stamp) else { return false };
        self.space.subtract(entry.size());
        self.give_back(&entry);
        true
    }

    /// Frees the space of a dead record. The next start that reads its head repeats what fails here.
    pub(super) fn give_back(&self, entry: &Entry) {
        let Place::Record { segment, .. } = entry.place else { return };
        if self.segments.forget_replica(&*self.fs, &self.segments_path(), segment) {
            self.files.remove(super::recent::FileKey::Segment(segment));
            return;
        }
        let punched = self
            .open_segment(segment)
            .and_then(|file| file.punch(entry.layout().head, entry.size()));
        if let Err(error) = punched {
            tracing::warn!(disk = %self.path().display(), "cannot free space: {error}");
        }
    }
}
