//! Linearizability of a history, by the search of Wing and Gong.

use super::calls::Operation;
use super::model::Tree;

/// Returns whether the calls can be ordered, each at some moment between its beginning and its end,
/// so that the model gives the same replies.
pub(super) fn is_linearizable(history: &[Operation]) -> bool {
    assert!(history.len() <= 128, "a set of calls is kept as the bits of a number");
    Search { history, refuted: Vec::new() }.succeeds(0, &Tree::new())
}

struct Search<'a> {
    history: &'a [Operation],
    /// Sets of calls, with the states they lead to, that cannot be continued.
    refuted: Vec<(u128, Tree)>,
}

impl Search<'_> {
    /// Returns whether the calls that are not `done` can follow in some order.
    fn succeeds(&mut self, done: u128, tree: &Tree) -> bool {
        let history = self.history;
        let left = || history.iter().enumerate().filter(move |(i, _)| done & (1 << i) == 0);
        // A call that begins after another has ended cannot come before it.
        let Some(first_end) = left().map(|(_, operation)| operation.returned).min() else {
            return true;
        };
        if self.refuted.iter().any(|(calls, state)| *calls == done && state == tree) {
            return false;
        }
        for (index, operation) in left().filter(|(_, operation)| operation.called < first_end) {
            let mut next = tree.clone();
            let outcome = next.apply(&operation.call);
            if next.agrees(&outcome, &operation.answer) && self.succeeds(done | 1 << index, &next) {
                return true;
            }
        }
        self.refuted.push((done, tree.clone()));
        false
    }
}
