//! The segments of a disk: append-only files of many small chunks.
//!
//! The name of a segment contains its number and a random salt that its records are bound to, so
//! that only its records are valid, and there is no header whose damage could lose the segment.
//! Each start of the store creates a new one. A segment that is not the last one is known to be
//! durable: the next one is created after its last commit. Nothing is appended to a closed segment,
//! so its records are listed in an index file, see [`segment_index`](super::segment_index).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfs_types::Random;

use crate::{File, Fs, Opening};

#[derive(Clone)]
pub(super) struct Active {
    pub(super) number: u32,
    pub(super) salt: u64,
    pub(super) file: Arc<dyn File>,
    /// Offset of the next record; everything before is durable.
    pub(super) end: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) salt: u64,
    /// Replicas in it that are not deleted, and damaged records.
    pub(super) replicas: u32,
    /// False only if it certainly has no index file.
    pub(super) may_have_index: bool,
    /// True unless its index file matches its heads.
    pub(super) needs_index: bool,
    /// True if it gets no index file until the next start: records in it are damaged, or its heads
    /// may differ from what is in memory.
    pub(super) is_excluded: bool,
}

struct State {
    segments: BTreeMap<u32, Segment>,
    active: Option<Active>,
    /// Segments that became full, and got no index yet.
    full: Vec<u32>,
    next: u32,
}

pub(super) struct Segments {
    /// Size after which the next one is created.
    bytes: u64,
    random: Arc<dyn Random>,
    state: Mutex<State>,
}

impl Segments {
    pub(super) fn new(bytes: u64, random: Arc<dyn Random>) -> Self {
        let state = State { segments: BTreeMap::new(), active: None, full: Vec::new(), next: 1 };
        Self { bytes, random, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a segment found on the disk.
    pub(super) fn add(&self, number: u32, segment: Segment) {
        let mut state = self.lock();
        state.next = state.next.max(number.saturating_add(1));
        if segment.replicas > 0 {
            state.segments.insert(number, segment);
        }
    }

    /// Returns a segment that nothing is appended to any more.
    pub(super) fn closed(&self, number: u32) -> Option<Segment> {
        let state = self.lock();
        let is_active = state.active.as_ref().is_some_and(|active| active.number == number);
        state.segments.get(&number).filter(|_| !is_active).copied()
    }

    /// Returns the closed segments whose index file does not match their heads.
    pub(super) fn without_index(&self) -> Vec<u32> {
        let state = self.lock();
        let active = state.active.as_ref().map(|active| active.number);
        let is_due =
            |number: u32, it: &Segment| it.needs_index && !it.is_excluded && Some(number) != active;
        let due = state.segments.iter().filter(|(number, it)| is_due(**number, it));
        due.map(|(number, _)| *number).collect()
    }

    /// Returns the segments that became full since the last call.
    pub(super) fn take_full(&self) -> Vec<u32> {
        std::mem::take(&mut self.lock().full)
    }

    /// Records the state of the index file of a segment.
    pub(super) fn set_index(&self, number: u32, may_have_index: bool, needs_index: bool) {
        if let Some(segment) = self.lock().segments.get_mut(&number) {
            segment.may_have_index = may_have_index;
            segment.needs_index = needs_index;
        }
    }

    /// Excludes segments from getting an index file until the next start.
    pub(super) fn exclude(&self, numbers: &[u32]) {
        let mut state = self.lock();
        for number in numbers {
            if let Some(segment) = state.segments.get_mut(number) {
                segment.is_excluded = true;
            }
        }
    }

    /// Closes the active segment, so that the next record starts another one.
    pub(super) fn close_active(&self) {
        self.lock().active = None;
    }

    pub(super) fn salt(&self, number: u32) -> Option<u64> {
        self.lock().segments.get(&number).map(|segment| segment.salt)
    }

    pub(super) fn name(&self, number: u32) -> Option<String> {
        self.salt(number).map(|salt| name_of(number, salt))
    }

    /// Returns the segment to write to; creates a new one if there is none, or it is full. Called
    /// only by the single committer of the disk.
    pub(super) fn active(&self, fs: &dyn Fs, folder: &Path) -> io::Result<Active> {
        let (number, ended) = {
            let mut state = self.lock();
            match &state.active {
                Some(active) if active.end < self.bytes => return Ok(active.clone()),
                _ => {}
            }
            let ended = state.active.take().map(|active| active.number);
            let number = state.next;
            state.next += 1;
            (number, ended)
        };
        if let Some(ended) = ended
            && !self.remove_if_empty(fs, folder, ended)
        {
            self.lock().full.push(ended);
        }
        let salt = self.random.below(u64::MAX);
        let path = folder.join(name_of(number, salt));
        let file = fs.open(&path, Opening::Create)?;
        if let Err(error) = fs.sync_dir(folder) {
            let _ = fs.remove(&path);
            return Err(error);
        }
        let active = Active { number, salt, file, end: 0 };
        let mut state = self.lock();
        let (may_have_index, needs_index, is_excluded) = (false, true, false);
        let segment = Segment { salt, replicas: 0, may_have_index, needs_index, is_excluded };
        state.segments.insert(number, segment);
        state.active = Some(active.clone());
        Ok(active)
    }

    /// Records that everything up to `end` of the active segment is durable.
    pub(super) fn advance(&self, end: u64, replicas: u32) {
        let mut state = self.lock();
        if let Some(active) = &mut state.active {
            active.end = end;
            let number = active.number;
            if let Some(segment) = state.segments.get_mut(&number) {
                segment.replicas += replicas;
            }
        }
    }

    /// Forgets a segment whose file is gone. Nothing more is written to it.
    pub(super) fn lose(&self, number: u32) {
        let mut state = self.lock();
        state.segments.remove(&number);
        if state.active.as_ref().is_some_and(|active| active.number == number) {
            state.active = None;
        }
    }

    /// Records the deletion of a replica; the last one removes the file.
    pub(super) fn forget_replica(&self, fs: &dyn Fs, folder: &Path, number: u32) -> bool {
        if let Some(segment) = self.lock().segments.get_mut(&number) {
            segment.replicas = segment.replicas.saturating_sub(1);
        }
        self.remove_if_empty(fs, folder, number)
    }

    /// Removes an inactive segment that is empty. Not synced: if it reappears after a crash, it is
    /// still empty.
    fn remove_if_empty(&self, fs: &dyn Fs, folder: &Path, number: u32) -> bool {
        let mut state = self.lock();
        let is_active = state.active.as_ref().is_some_and(|active| active.number == number);
        let Some(segment) = state.segments.get(&number).filter(|s| s.replicas == 0) else {
            return false;
        };
        if is_active {
            return false;
        }
        let path = folder.join(name_of(number, segment.salt));
        state.segments.remove(&number);
        drop(state);
        if let Err(error) = fs.remove(&path) {
            tracing::warn!(segment = %path.display(), "cannot remove an empty segment: {error}");
        }
        true
    }
}

/// Returns the name of a segment.
pub(super) fn name_of(number: u32, salt: u64) -> String {
    format!("{number:08x}-{salt:016x}.v1")
}

/// Returns the name of the index file of a segment.
pub(super) fn index_name_of(number: u32, salt: u64) -> String {
    format!("{number:08x}-{salt:016x}.idx")
}

/// A name in the directory of segments, with the number and the salt of the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Segment(u32, u64),
    Index(u32, u64),
}

/// Parses a name in the directory of segments; `None` for other names.
pub(super) fn parse_name(name: &str) -> Option<Name> {
    let (stem, suffix) = name.rsplit_once('.')?;
    let (number, salt) = stem.split_once('-')?;
    let number = u32::from_str_radix(number, 16).ok()?;
    let salt = u64::from_str_radix(salt, 16).ok()?;
    let (parsed, canonical) = match suffix {
        "v1" => (Name::Segment(number, salt), name_of(number, salt)),
        "idx" => (Name::Index(number, salt), index_name_of(number, salt)),
        _ => return None,
    };
    (canonical == name).then_some(parsed)
}
