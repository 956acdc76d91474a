//! The segments of a disk: append-only files of many small chunks.
//!
//! The name of a segment contains its number and a random salt that its records are bound to, so
//! that only its records are valid, and there is no header whose damage could lose the segment.
//! Each start of the store creates a new one. A segment that is not the last one is known to be
//! durable: the next one is created after its last commit.

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
struct Segment {
    salt: u64,
    /// Replicas in it that are not deleted.
    replicas: u32,
}

struct State {
    segments: BTreeMap<u32, Segment>,
    active: Option<Active>,
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
        let state = State { segments: BTreeMap::new(), active: None, next: 1 };
        Self { bytes, random, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a segment found on the disk.
    pub(super) fn add(&self, number: u32, salt: u64, replicas: u32) {
        let mut state = self.lock();
        state.next = state.next.max(number.saturating_add(1));
        if replicas > 0 {
            state.segments.insert(number, Segment { salt, replicas });
        }
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
        if let Some(ended) = ended {
            self.remove_if_empty(fs, folder, ended);
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
        state.segments.insert(number, Segment { salt, replicas: 0 });
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

pub(super) fn name_of(number: u32, salt: u64) -> String {
    format!("{number:08x}-{salt:016x}.v1")
}

/// Parses the name of a segment into number and salt; `None` for other names.
pub(super) fn parse_name(name: &str) -> Option<(u32, u64)> {
    let (number, salt) = name.strip_suffix(".v1")?.split_once('-')?;
    let number = u32::from_str_radix(number, 16).ok()?;
    let salt = u64::from_str_radix(salt, 16).ok()?;
    (name_of(number, salt) == name).then_some((number, salt))
}
