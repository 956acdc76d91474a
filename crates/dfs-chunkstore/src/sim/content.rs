//! Content of one simulated file: the current one, and the durable one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use dfs_types::Random;

use crate::fs::PAGE;

type Page = Arc<[u8]>;

/// Pages of a file; those never written, or punched, are absent.
#[derive(Debug, Clone, Default)]
struct Pages {
    pages: BTreeMap<u64, Page>,
    length: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    seen: Pages,
    durable: Pages,
    /// Pages in which the two differ.
    dirty: BTreeSet<u64>,
    is_length_dirty: bool,
}

impl Content {
    pub(super) fn length(&self) -> u64 {
        self.seen.length
    }

    /// Returns what a crash now would leave.
    pub(super) fn at_rest(&self) -> Self {
        let (seen, durable) = (self.durable.clone(), self.durable.clone());
        Self { seen, durable, dirty: BTreeSet::new(), is_length_dirty: false }
    }

    /// Returns the bytes that the file occupies.
    pub(super) fn taken(&self) -> u64 {
        (self.seen.pages.len() * PAGE) as u64
    }

    pub(super) fn read(&self, offset: u64, length: usize) -> Bytes {
        let end = self.seen.length.min(offset.saturating_add(length as u64));
        let mut bytes = Vec::with_capacity(end.saturating_sub(offset) as usize);
        let mut at = offset;
        while at < end {
            let (page, from) = split(at);
            let count = (PAGE - from).min((end - at) as usize);
            match self.seen.pages.get(&page) {
                Some(page) => bytes.extend_from_slice(&page[from..from + count]),
                None => bytes.resize(bytes.len() + count, 0),
            }
            at += count as u64;
        }
        Bytes::from(bytes)
    }

    /// Returns the number of pages that a write of these bytes would newly allocate.
    pub(super) fn new_pages(&self, offset: u64, length: usize) -> u64 {
        if length == 0 {
            return 0;
        }
        let last = split(offset + length as u64 - 1).0;
        (split(offset).0..=last).filter(|page| !self.seen.pages.contains_key(page)).count() as u64
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut at = offset;
        let mut left = bytes;
        while !left.is_empty() {
            let (number, from) = split(at);
            let count = (PAGE - from).min(left.len());
            let mut page: Vec<u8> = match self.seen.pages.get(&number) {
                Some(page) => page.to_vec(),
                None => vec![0; PAGE],
            };
            page[from..from + count].copy_from_slice(&left[..count]);
            self.seen.pages.insert(number, Arc::from(page));
            self.dirty.insert(number);
            at += count as u64;
            left = &left[count..];
        }
        if at > self.seen.length {
            self.seen.length = at;
            self.is_length_dirty = true;
        }
    }

    pub(super) fn set_len(&mut self, length: u64) {
        if length < self.seen.length {
            let first_gone = length.div_ceil(PAGE as u64);
            for number in self.seen.pages.split_off(&first_gone).into_keys() {
                self.dirty.insert(number);
            }
            let (number, from) = split(length);
            if from > 0 && self.seen.pages.contains_key(&number) {
                self.write(length, &vec![0; PAGE - from]);
            }
        }
        self.seen.length = length;
        self.is_length_dirty = true;
    }

    pub(super) fn punch(&mut self, offset: u64, length: u64) {
        let end = offset.saturating_add(length).min(self.seen.length);
        let mut at = offset;
        while at < end {
            let (number, from) = split(at);
            let count = (PAGE - from).min((end - at) as usize);
            if count == PAGE {
                self.seen.pages.remove(&number);
                self.dirty.insert(number);
            } else if self.seen.pages.contains_key(&number) {
                self.write(at, &vec![0; count]);
            }
            at += count as u64;
        }
    }

    pub(super) fn next_data(&self, offset: u64) -> Option<u64> {
        let (number, _) = split(offset);
        let (page, _) = self.seen.pages.range(number..).next()?;
        Some((page * PAGE as u64).max(offset)).filter(|at| *at < self.seen.length)
    }

    pub(super) fn flip_bit(&mut self, offset: u64, bit: u8) {
        let (number, from) = split(offset);
        for side in [&mut self.seen, &mut self.durable] {
            if let Some(page) = side.pages.get_mut(&number) {
                let mut bytes = page.to_vec();
                bytes[from] ^= 1 << (bit % 8);
                *page = Arc::from(bytes);
            }
        }
    }

    pub(super) fn sync(&mut self) {
        for number in std::mem::take(&mut self.dirty) {
            copy_page(number, &self.seen, &mut self.durable);
        }
        self.durable.length = self.seen.length;
        self.is_length_dirty = false;
    }

    /// Applies a failed sync: the pages count as clean from now on, as in Linux, and no later sync
    /// makes them durable.
    pub(super) fn fail_sync(&mut self) {
        self.dirty.clear();
        self.is_length_dirty = false;
    }

    /// Drops clean pages from the cache, so that reads return what is on the disk. It differs from what
    /// was written after a failed sync.
    pub(super) fn drop_cached(&mut self, offset: u64, length: u64) {
        let end = offset.saturating_add(length).min(self.seen.length);
        if offset >= end {
            return;
        }
        for number in split(offset).0..=split(end - 1).0 {
            if !self.dirty.contains(&number) {
                copy_page(number, &self.durable, &mut self.seen);
            }
        }
    }

    /// Reverts to the durable content; with `random`, to something between that and the current
    /// one.
    pub(super) fn crash(&mut self, random: Option<&dyn Random>) {
        if let Some(random) = random {
            for number in &self.dirty {
                if random.below(2) == 0 {
                    copy_page(*number, &self.seen, &mut self.durable);
                }
            }
            if self.is_length_dirty && random.below(2) == 0 {
                self.durable.length = self.seen.length;
            }
            self.durable.pages.split_off(&self.durable.length.div_ceil(PAGE as u64));
        }
        self.seen = self.durable.clone();
        self.dirty.clear();
        self.is_length_dirty = false;
    }
}

fn split(offset: u64) -> (u64, usize) {
    (offset / PAGE as u64, (offset % PAGE as u64) as usize)
}

fn copy_page(number: u64, from: &Pages, to: &mut Pages) {
    match from.pages.get(&number) {
        Some(page) => to.pages.insert(number, Arc::clone(page)),
        None => to.pages.remove(&number),
    };
}
