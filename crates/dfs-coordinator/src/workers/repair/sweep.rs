//! The circular sweep over all chunks. Pure.
//!
//! A reason to see every chunk joins where the sweep is, and is done one turn later. A change of the
//! lost disks therefore restarts nothing, and any number of changes at once costs one turn.

use std::collections::BTreeMap;

use dfs_metadata::namespace::ScanCursor;
use dfs_types::DiskNumber;

/// A reason to see every chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Joined {
    /// The chunks are to be counted.
    Count,
    /// More chunks needed repair than were queued.
    Overflow,
    /// A disk was lost, or returned.
    Disk(DiskNumber),
    /// The disks of no known node were lost, or returned.
    UnknownDisks,
}

/// Position in the circle.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    turn: u64,
    /// The end of the last page; `None` at the start of a turn.
    at: Option<ScanCursor>,
}

/// The sweep: a position, and who joined where.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    position: Position,
    joined: BTreeMap<Joined, Position>,
    /// Where the first disk joined of those that were looked for without a break.
    first_disk: Option<Position>,
}

impl Joined {
    fn is_disk(self) -> bool {
        matches!(self, Self::Disk(_) | Self::UnknownDisks)
    }
}

impl Position {
    /// Returns the position one turn later.
    fn after_a_turn(&self) -> Self {
        Self { turn: self.turn + 1, at: self.at.clone() }
    }
}

impl Sweep {
    /// Joins at the present position; again, if it had joined before.
    pub(super) fn join(&mut self, who: Joined) {
        if who.is_disk() {
            self.first_disk.get_or_insert_with(|| self.position.clone());
        }
        self.joined.insert(who, self.position.clone());
    }

    /// Lets lost disks join.
    pub(super) fn join_disks(&mut self, disks: Vec<DiskNumber>) {
        for disk in disks {
            self.join(Joined::Disk(disk));
        }
    }

    /// Starts a new turn for all that have joined.
    pub(super) fn rewind(&mut self) {
        self.position = Position { turn: self.position.turn + 1, at: None };
        for joined in self.joined.values_mut().chain(&mut self.first_disk) {
            *joined = self.position.clone();
        }
    }

    /// Returns whether a page is to be read.
    pub(super) fn is_needed(&self) -> bool {
        !self.joined.is_empty()
    }

    /// Returns whether one has not seen every chunk yet.
    pub(super) fn has(&self, who: Joined) -> bool {
        self.joined.contains_key(&who)
    }

    /// Returns whether disks have not been looked for in every chunk yet.
    pub(super) fn has_disks(&self) -> bool {
        self.joined.keys().any(|who| who.is_disk())
    }

    /// Returns whether more urgent chunks may still be found: during the first turn that looks for
    /// disks. Disks that join later do not prolong it, so that less urgent chunks wait for one turn
    /// at most, however often disks come and go.
    pub(super) fn is_first_turn(&self) -> bool {
        self.first_disk.as_ref().is_some_and(|first| self.position < first.after_a_turn())
    }

    /// Returns where the next page begins.
    pub(super) fn next(&self) -> Option<&ScanCursor> {
        self.position.at.as_ref()
    }

    /// Moves past a page; `next` is `None` after the last one. Returns those that are done.
    pub(super) fn advance(&mut self, next: Option<ScanCursor>) -> Vec<Joined> {
        match next {
            Some(next) => self.position.at = Some(next),
            None => self.position = Position { turn: self.position.turn + 1, at: None },
        }
        let position = &self.position;
        let (done, rest) = std::mem::take(&mut self.joined)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, joined)| *position >= joined.after_a_turn());
        self.joined = rest;
        if !self.has_disks() {
            self.first_disk = None;
        }
        done.into_keys().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dfs_types::{ChunkId, Random as _, SeededRandom};

    use super::*;

    const PAGES: usize = 100;

    fn disk(number: usize) -> Joined {
        Joined::Disk(DiskNumber(number as u32))
    }

    /// Reads pages until none is needed; `at` is called before each. Returns how many were
    /// read, and which ones each of those that are done has seen.
    fn run(
        sweep: &mut Sweep,
        mut at: impl FnMut(usize, &mut Sweep),
    ) -> (usize, BTreeMap<Joined, BTreeSet<usize>>) {
        let mut seen: BTreeMap<Joined, BTreeSet<usize>> = BTreeMap::new();
        let mut read = 0;
        loop {
            at(read, sweep);
            if !sweep.is_needed() {
                return (read, seen);
            }
            let page = read % PAGES;
            for who in sweep.joined.keys() {
                seen.entry(*who).or_default().insert(page);
            }
            read += 1;
            let next = (page + 1 < PAGES).then(|| ScanCursor::after(ChunkId(page as u128 + 1)));
            sweep.advance(next);
        }
    }

    #[test]
    fn ten_changes_of_the_lost_disks_cost_a_turn_each_at_most() {
        let mut sweep = Sweep::default();
        // All within one turn: nearly two turns in all, however many there are.
        let (read, seen) = run(&mut sweep, |read, sweep| {
            if read % 10 == 0 && read < PAGES {
                sweep.join(disk(read / 10));
            }
        });
        assert_eq!(read, 2 * PAGES - 10);
        assert_eq!(seen.len(), 10);
        assert!(seen.values().all(|pages| pages.len() == PAGES));
    }

    #[test]
    fn disk_that_joins_anywhere_has_seen_every_page_when_done() {
        for seed in 0..200 {
            let random = SeededRandom::new(seed);
            let joins: Vec<u64> = (0..5).map(|_| random.below(3 * PAGES as u64)).collect();
            let mut sweep = Sweep::default();
            sweep.join(Joined::Count);
            let (read, seen) = run(&mut sweep, |read, sweep| {
                for (number, at) in joins.iter().enumerate() {
                    if *at == read as u64 {
                        sweep.join(disk(number));
                    }
                }
            });
            assert!(seen.values().all(|pages| pages.len() == PAGES), "{seed}");
            let last = joins.iter().max().copied().unwrap_or_default() as usize;
            assert!(read <= last.max(PAGES) + PAGES, "{seed}: {read}");
        }
    }

    #[test]
    fn disks_that_keep_changing_delay_less_urgent_chunks_by_one_turn_only() {
        let mut sweep = Sweep::default();
        let mut first_turn = 0;
        let (read, _) = run(&mut sweep, |read, sweep| {
            if read % 50 == 0 && read < 5 * PAGES {
                sweep.join(disk(1));
            }
            first_turn += usize::from(sweep.is_first_turn());
        });
        assert_eq!((read, first_turn), (5 * PAGES + 50, PAGES));
        assert!(!sweep.is_first_turn());
        sweep.join(disk(1));
        assert!(sweep.is_first_turn());
    }

    #[test]
    fn disk_that_changes_again_joins_again() {
        let mut sweep = Sweep::default();
        let (read, _) = run(&mut sweep, |read, sweep| {
            if read == 0 || read == 50 {
                sweep.join(disk(1));
            }
        });
        assert_eq!(read, PAGES + 50);
        sweep.join(disk(1));
        sweep.rewind();
        assert_eq!(sweep.next(), None);
    }
}
