//! A bounded number of files kept open for reads.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use dfs_types::{ChunkId, Stamp};

use crate::File;

/// Files kept open for each disk.
const OPEN_MAX: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FileKey {
    Segment(u32),
    /// The stamp tells a replica from a later one of the same name.
    Chunk(ChunkId, Stamp),
}

#[derive(Default)]
pub(super) struct OpenFiles {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<FileKey, (Arc<dyn File>, u64)>,
    uses: u64,
}

impl OpenFiles {
    pub(super) fn get<F>(&self, key: FileKey, open: F) -> io::Result<Arc<dyn File>>
    where
        F: FnOnce() -> io::Result<Arc<dyn File>>,
    {
        if let Some(file) = self.find(key) {
            return Ok(file);
        }
        let file = open()?;
        self.insert(key, Arc::clone(&file));
        Ok(file)
    }

    fn find(&self, key: FileKey) -> Option<Arc<dyn File>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.uses += 1;
        let uses = state.uses;
        let (file, used) = state.files.get_mut(&key)?;
        *used = uses;
        Some(Arc::clone(file))
    }

    pub(super) fn insert(&self, key: FileKey, file: Arc<dyn File>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.files.len() >= OPEN_MAX {
            let oldest = state.files.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                state.files.remove(&oldest);
            }
        }
        state.uses += 1;
        let uses = state.uses;
        state.files.insert(key, (file, uses));
    }

    pub(super) fn remove(&self, key: FileKey) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).files.remove(&key);
    }
}
