//! Damping: fluctuating numbers are published only after a change of one percent.

use dfs_crd::{Capacity, ClusterStatus, DatanodeStatus};

/// Returns `after` with those numbers of `before` that have hardly changed.
pub(super) fn keep(before: &ClusterStatus, mut after: ClusterStatus) -> ClusterStatus {
    if let (Some(before), Some(after)) = (&before.capacity, &mut after.capacity) {
        capacity(before, after);
    }
    for line in &mut after.datanodes {
        if let Some(before) = before.datanodes.iter().find(|before| before.name == line.name) {
            datanode(before, line);
        }
    }
    if let (Some(before), Some(after)) = (&before.replication, &mut after.replication) {
        for (before, after) in [
            (before.under_replicated_chunks, &mut after.under_replicated_chunks),
            (before.corrupt_chunks, &mut after.corrupt_chunks),
        ] {
            number(before, after, before);
        }
    }
    after
}

fn capacity(before: &Capacity, after: &mut Capacity) {
    number(before.total_bytes, &mut after.total_bytes, before.total_bytes);
    number(before.used_bytes, &mut after.used_bytes, before.total_bytes);
    if before.used_bytes == after.used_bytes && before.total_bytes == after.total_bytes {
        after.used_percent = before.used_percent;
    }
}

fn datanode(before: &DatanodeStatus, after: &mut DatanodeStatus) {
    number(before.capacity_bytes, &mut after.capacity_bytes, before.capacity_bytes);
    number(before.used_bytes, &mut after.used_bytes, before.capacity_bytes);
}

/// Keeps `before` unless it changed from or to zero, or by a hundredth of `whole`.
fn number(before: i64, after: &mut i64, whole: i64) {
    let moved = before.abs_diff(*after);
    let is_flip = (before == 0) != (*after == 0);
    if !is_flip && u128::from(moved) * 100 < u128::from(whole.unsigned_abs()) {
        *after = before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_published_when_they_changed() {
        for (before, after, whole, published) in [
            (500, 505, 1_000, 500),
            (500, 510, 1_000, 510),
            (500, 490, 1_000, 490),
            (0, 1, 1_000, 1),
            (1, 0, 1_000, 0),
            (7, 7, 0, 7),
            (7, 8, 0, 8),
        ] {
            let mut number_after = after;
            number(before, &mut number_after, whole);
            assert_eq!(number_after, published, "{before} -> {after} of {whole}");
        }
    }
}
