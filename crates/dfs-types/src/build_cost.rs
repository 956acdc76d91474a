//! The cost of building a replica: for the nodes that take part, and for the rates of those who
//! order it.

use crate::CHUNK_SIZE_DEFAULT;

/// Weight of the build of a large replica. A node that allows one such build at a time allows as
/// many small ones, whose time is mostly spent waiting for a sync or another node.
pub const BUILD_WEIGHT_MAX: u32 = 16;
/// Length of the replicas that are built several at a time, at most.
pub const SMALL_BUILD_MAX: u64 = 64 << 10;
/// Replicas in one order to build small ones, at most.
pub const SMALL_BUILDS_MAX: usize = 64;
/// Bytes that a rate counts for a replica, at least: a small one costs a disk a seek and a sync
/// rather than its bytes.
const COST_MIN: u64 = 256 << 10;

/// Returns the weight of the build of a replica of this many bytes: 1 to [`BUILD_WEIGHT_MAX`].
pub fn build_weight(length: u64) -> u32 {
    let part = CHUNK_SIZE_DEFAULT / u64::from(BUILD_WEIGHT_MAX);
    length.div_ceil(part).clamp(1, BUILD_WEIGHT_MAX.into()) as u32
}

/// Returns the bytes that a rate counts for a replica of this many bytes.
pub fn move_cost(length: u64) -> u64 {
    length.max(COST_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_replicas_weigh_little_but_never_nothing() {
        for (length, weight) in
            [(0, 1), (1, 1), (4 << 20, 1), ((4 << 20) + 1, 2), (64 << 20, 16), (1 << 30, 16)]
        {
            assert_eq!(build_weight(length), weight, "{length}");
        }
        assert_eq!((move_cost(1), move_cost(64 << 20)), (256 << 10, 64 << 20));
    }
}
