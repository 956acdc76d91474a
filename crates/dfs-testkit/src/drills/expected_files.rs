//! What a user may find in their files, as far as calls were acknowledged.

use std::collections::{BTreeMap, BTreeSet};

/// Content of a file by number; `None` if there is no such file.
pub(super) type Content = Option<u64>;

/// The files of one user, who waits for each call. A call of unknown outcome leaves several contents
/// possible.
#[derive(Debug, Default)]
pub(super) struct ExpectedFiles(BTreeMap<usize, BTreeSet<Content>>);

impl ExpectedFiles {
    /// Returns what a file may contain.
    pub(super) fn possible(&self, file: usize) -> BTreeSet<Content> {
        self.0.get(&file).cloned().unwrap_or_else(|| [None].into())
    }

    /// Notes a change of a file to this content.
    pub(super) fn set(&mut self, file: usize, content: Content, is_acknowledged: bool) {
        let before = if is_acknowledged { BTreeSet::new() } else { self.possible(file) };
        self.0.insert(file, before.into_iter().chain([content]).collect());
    }

    /// Notes a rename.
    pub(super) fn rename(&mut self, from: usize, to: usize, is_acknowledged: bool) {
        let (old, moved) = (self.possible(to), self.possible(from));
        if is_acknowledged {
            // It succeeds only if there is a file.
            self.0.insert(to, moved.into_iter().flatten().map(Some).collect());
            self.0.insert(from, [None].into());
        } else {
            self.0.insert(to, old.union(&moved).copied().collect());
            self.0.insert(from, moved.into_iter().chain([None]).collect());
        }
    }

    /// Returns the files with what they may contain.
    pub(super) fn files(&self) -> impl Iterator<Item = (usize, &BTreeSet<Content>)> {
        self.0.iter().map(|(file, possible)| (*file, possible))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(expected: &ExpectedFiles, file: usize, content: Content) -> bool {
        expected.possible(file).contains(&content)
    }

    #[test]
    fn acknowledged_change_leaves_one_content_and_an_unknown_one_both() {
        let mut expected = ExpectedFiles::default();
        assert!(allows(&expected, 1, None) && !allows(&expected, 1, Some(7)));
        expected.set(1, Some(7), false);
        assert!(allows(&expected, 1, None) && allows(&expected, 1, Some(7)));
        expected.set(1, Some(8), true);
        assert!(
            allows(&expected, 1, Some(8))
                && !allows(&expected, 1, Some(7))
                && !allows(&expected, 1, None)
        );
        expected.set(1, None, false);
        assert!(allows(&expected, 1, Some(8)) && allows(&expected, 1, None));
    }

    #[test]
    fn rename_moves_what_is_possible() {
        let mut expected = ExpectedFiles::default();
        expected.set(1, Some(7), true);
        expected.set(2, Some(8), true);
        expected.rename(1, 2, false);
        assert!(allows(&expected, 1, Some(7)) && allows(&expected, 1, None));
        assert!(
            allows(&expected, 2, Some(7))
                && allows(&expected, 2, Some(8))
                && !allows(&expected, 2, None)
        );
        expected.rename(1, 3, true);
        assert!(allows(&expected, 3, Some(7)) && !allows(&expected, 3, None));
        assert!(allows(&expected, 1, None) && !allows(&expected, 1, Some(7)));
        assert_eq!(expected.files().count(), 3);
    }
}
