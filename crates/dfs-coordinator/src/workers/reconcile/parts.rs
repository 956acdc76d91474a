//! A range that is compared in parts, so that the list of each fits into memory. Pure.

use dfs_types::ChunkId;

use super::calls::Range;

/// The parts of a range, from the first one on.
#[derive(Debug)]
pub(super) struct Parts {
    part: Range,
    /// End of the whole range, exclusive.
    end: Option<ChunkId>,
}

impl Parts {
    pub(super) fn new(range: Range) -> Self {
        Self { part: range, end: range.to }
    }

    /// Returns the part to list.
    pub(super) fn part(&self) -> Range {
        self.part
    }

    /// Cuts the part off before a chunk within it, as its list was too long up to there.
    pub(super) fn cut(&mut self, before: ChunkId) {
        self.part.to = Some(before);
    }

    /// Continues after the part. Returns whether there is another one.
    pub(super) fn advance(&mut self) -> bool {
        match self.part.to {
            Some(to) if self.part.to != self.end => {
                self.part = Range { from: to, to: self.end };
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the chunks of each part if the disk holds these and at most `max` fit into a list.
    fn listed(chunks: &[u128], end: Option<u128>, max: usize) -> Vec<Vec<u128>> {
        let mut parts = Parts::new(Range { from: ChunkId::MIN, to: end.map(ChunkId) });
        let (mut found, mut lists) = (Vec::new(), 0);
        loop {
            lists += 1;
            assert!(lists <= 2 * chunks.len() + 2, "no progress");
            let Range { from, to } = parts.part();
            let is_within = |it: &&u128| **it >= from.0 && to.is_none_or(|to| **it < to.0);
            let part: Vec<_> = chunks.iter().filter(is_within).copied().collect();
            if let Some(last) = part.get(max) {
                parts.cut(ChunkId(*last));
                continue;
            }
            found.push(part);
            if !parts.advance() {
                return found;
            }
        }
    }

    #[test]
    fn range_of_any_number_of_replicas_is_compared_in_parts() {
        let chunks: Vec<u128> = (1..=10).collect();
        assert_eq!(listed(&chunks, None, 100), std::slice::from_ref(&chunks));
        assert_eq!(listed(&chunks, Some(100), 3).concat(), chunks);
        for max in 1..=10 {
            let parts = listed(&chunks, None, max);
            assert!(parts.iter().all(|part| part.len() <= max), "{parts:?}");
            assert_eq!(parts.concat(), chunks);
        }
        assert_eq!(listed(&[], None, 1), [[0_u128; 0]]);
    }
}
