//! Possible contents of files, as far as callers of the file system can know.
//!
//! Each path belongs to one worker, which changes it with one call at a time; everyone reads it. A
//! call of unknown outcome may take effect at any later time, so its paths are not changed again,
//! and both outcomes stay possible forever.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// A version of a file, never written twice; `None` if there is no file.
pub(super) type State = Option<u64>;

/// Possible contents of one path.
#[derive(Debug, Clone, Default)]
struct Register {
    possible: BTreeSet<State>,
    /// Everything that ever became possible, in order.
    history: Vec<State>,
    is_clouded: bool,
}

impl Register {
    fn absent() -> Self {
        Self { possible: BTreeSet::from([None]), ..Self::default() }
    }

    fn allow(&mut self, state: State) {
        self.possible.insert(state);
        self.history.push(state);
    }

    fn certain(&self) -> Option<State> {
        let first = self.possible.first().copied();
        first.filter(|_| self.possible.len() == 1)
    }
}

/// All paths.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    paths: BTreeMap<String, Register>,
    versions: u64,
}

/// A read in progress.
#[derive(Debug)]
pub(super) struct Reading {
    path: String,
    possible: BTreeSet<State>,
    since: usize,
}

impl Model {
    pub(super) fn next_version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    fn register(&mut self, path: &str) -> &mut Register {
        self.paths.entry(path.to_owned()).or_insert_with(Register::absent)
    }

    /// Returns all paths ever used.
    pub(super) fn paths(&self) -> Vec<String> {
        self.paths.keys().cloned().collect()
    }

    /// Returns the state of a path, if known.
    pub(super) fn certain(&self, path: &str) -> Option<State> {
        self.paths.get(path).map_or(Some(None), Register::certain)
    }

    /// Returns the versions that some path certainly has.
    pub(super) fn live(&self) -> Vec<u64> {
        self.paths.values().filter_map(|register| register.certain().flatten()).collect()
    }

    /// Returns true if a call of unknown outcome may still change the path.
    pub(super) fn is_clouded(&self, path: &str) -> bool {
        self.paths.get(path).is_some_and(|register| register.is_clouded)
    }

    /// Records the start of a call that may change these paths to these states.
    pub(super) fn begin(&mut self, changes: &[(&str, State)]) {
        for (path, state) in changes {
            self.register(path).allow(*state);
        }
    }

    /// Records that the call took effect.
    pub(super) fn done(&mut self, changes: &[(&str, State)]) {
        for (path, state) in changes {
            self.register(path).possible = BTreeSet::from([*state]);
        }
    }

    /// Records that the call had no effect, and will have none.
    pub(super) fn refused(&mut self, before: &[(&str, State)]) {
        self.done(before);
    }

    /// Records that the outcome of the call is unknown.
    pub(super) fn unknown(&mut self, changes: &[(&str, State)]) {
        for (path, _) in changes {
            self.register(path).is_clouded = true;
        }
    }

    /// Sets everything back to an earlier state, while no call is in progress. A call of unknown outcome
    /// may still take effect.
    pub(super) fn set_back(&mut self, earlier: &Self) {
        for (path, register) in &mut self.paths {
            let before = earlier.paths.get(path);
            let mut possible =
                before.map_or_else(|| BTreeSet::from([None]), |before| before.possible.clone());
            if register.is_clouded {
                possible.append(&mut register.possible);
            }
            register.possible = possible;
        }
    }

    /// Starts a read.
    pub(super) fn begin_read(&self, path: &str) -> Reading {
        let register = self.paths.get(path);
        let possible = register.map_or_else(|| BTreeSet::from([None]), |r| r.possible.clone());
        let since = register.map_or(0, |r| r.history.len());
        Reading { path: path.to_owned(), possible, since }
    }

    /// Returns the states that a read ending now may have seen.
    pub(super) fn end_read(&self, reading: Reading) -> BTreeSet<State> {
        let Reading { path, mut possible, since } = reading;
        if let Some(register) = self.paths.get(&path) {
            possible.extend(&register.history[since..]);
        }
        possible
    }
}

/// Returns the length of a version: mostly small, sometimes at a block boundary, or longer than a
/// segment.
pub(super) fn length_of(version: u64) -> usize {
    const BLOCK: usize = 64 << 10;
    let random = mix(version) as usize;
    match random % 16 {
        0 => 0,
        1 => 1,
        2 => BLOCK - 1,
        3 => BLOCK,
        4 => BLOCK + 1,
        5 | 6 => BLOCK + random / 16 % (4 * BLOCK),
        7 => (1 << 20) + 1 + random / 16 % BLOCK,
        _ => random / 16 % 8_192,
    }
}

/// Returns the bytes of a version.
pub(super) fn content_of(version: u64) -> Bytes {
    let length = length_of(version);
    let mut bytes = Vec::with_capacity(length + 8);
    let mut state = version;
    while bytes.len() < length {
        state = mix(state);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    Bytes::from(bytes)
}

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_may_see_any_state_possible_while_it_ran() {
        let mut model = Model::default();
        model.begin(&[("/a", Some(1))]);
        model.done(&[("/a", Some(1))]);
        let early = model.begin_read("/a");
        model.begin(&[("/a", Some(2))]);
        model.done(&[("/a", Some(2))]);
        let late = model.begin_read("/a");
        assert_eq!(model.end_read(early), BTreeSet::from([Some(1), Some(2)]));
        assert_eq!(model.end_read(late), BTreeSet::from([Some(2)]));
    }

    #[test]
    fn state_that_is_set_back_forgets_what_was_done_since() {
        let mut model = Model::default();
        model.begin(&[("/a", Some(1))]);
        model.done(&[("/a", Some(1))]);
        let earlier = model.clone();
        model.begin(&[("/a", Some(2)), ("/b", Some(3)), ("/c", Some(4))]);
        model.done(&[("/a", Some(2)), ("/b", Some(3))]);
        model.unknown(&[("/c", Some(4))]);
        model.set_back(&earlier);
        assert_eq!(model.certain("/a"), Some(Some(1)));
        assert_eq!(model.certain("/b"), Some(None));
        assert_eq!(model.certain("/c"), None);
    }

    #[test]
    fn unknown_outcome_leaves_both_states_possible() {
        let mut model = Model::default();
        model.begin(&[("/a", Some(1))]);
        model.unknown(&[("/a", Some(1))]);
        assert!(model.is_clouded("/a"));
        assert_eq!(model.certain("/a"), None);
        let reading = model.begin_read("/a");
        assert_eq!(model.end_read(reading), BTreeSet::from([None, Some(1)]));
    }
}
