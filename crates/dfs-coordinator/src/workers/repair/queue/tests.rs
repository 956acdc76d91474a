use std::time::Duration;

use dfs_types::NodeId;

use super::*;

/// Returns the need of a chunk with so many good and bad replicas of three.
pub(in crate::workers::repair) fn need(good: u8, bad: u8) -> RepairNeed {
    RepairNeed {
        is_scattered: false,
        urgency: (i16::from(good) - 1, i16::from(good) - 3),
        lacks: 3_u8.saturating_sub(good),
        bad,
        length: 5,
    }
}

#[test]
fn most_urgent_chunk_comes_first() {
    let now = Instant::now();
    let mut queue = RepairQueue::new(10);
    for (id, good) in [(1, 2), (2, 0), (3, 1), (4, 3), (5, 2)] {
        queue.set(ChunkId(id), Some(need(good, 0)));
    }
    let mut order = Vec::new();
    while let Some((chunk, _)) = queue.take(now, false) {
        order.push(chunk.0);
    }
    assert_eq!(order, [3, 1, 5], "one without a good replica is never taken");
    assert_eq!((queue.len(), queue.busy()), (3, 3));
}

#[test]
fn chunk_with_bad_replicas_only_is_repaired_after_all_others() {
    let now = Instant::now();
    let mut queue = RepairQueue::new(10);
    queue.set(ChunkId(1), Some(RepairNeed { is_scattered: true, ..need(0, 3) }));
    queue.set(ChunkId(2), Some(need(2, 1)));
    assert_eq!(queue.counts().missing, 1);
    assert_eq!(queue.take(now, false).map(|(chunk, _)| chunk), Some(ChunkId(2)));
    assert_eq!(queue.take(now, false).map(|(chunk, _)| chunk), Some(ChunkId(1)));
}

#[test]
fn counts_follow_each_chunk() {
    let mut queue = RepairQueue::new(10);
    queue.count(3);
    let counts = |queue: &RepairQueue| {
        let ReplicationCounts { chunks, under_replicated, missing, bad_replicas, .. } =
            queue.counts();
        (chunks, under_replicated, missing, bad_replicas)
    };
    queue.set(ChunkId(1), Some(need(2, 1)));
    queue.set(ChunkId(2), Some(need(0, 2)));
    queue.set(ChunkId(3), Some(need(3, 0)));
    assert_eq!(counts(&queue), (3, 1, 1, 3));
    queue.set(ChunkId(2), Some(need(1, 0)));
    assert_eq!(counts(&queue), (3, 2, 0, 1));
    queue.set(ChunkId(1), Some(need(3, 0)));
    queue.set(ChunkId(2), None);
    queue.count(-1);
    assert_eq!(counts(&queue), (2, 0, 0, 0));
    assert_eq!(queue.len(), 0);
}

#[test]
fn chunk_in_repair_is_not_taken_twice_and_pauses_after_failure() {
    let now = Instant::now();
    let later = now + Duration::from_secs(5);
    let mut queue = RepairQueue::new(10);
    queue.set(ChunkId(1), Some(need(2, 0)));
    assert!(queue.take(now, false).is_some());
    queue.set(ChunkId(1), Some(need(1, 0)));
    assert_eq!(queue.take(now, false), None);
    queue.finish(ChunkId(1), Some(need(1, 0)), later);
    queue.set(ChunkId(1), Some(need(1, 1)));
    assert_eq!(queue.take(now, false), None);
    assert_eq!(queue.take(later, false).unwrap().1, need(1, 1));
    queue.finish(ChunkId(1), Some(need(3, 0)), later);
    assert_eq!(queue.take(later, false), None);
}

#[test]
fn changes_end_pauses_and_a_new_count_keeps_chunks_in_repair() {
    let now = Instant::now();
    let later = now + Duration::from_secs(5);
    let mut queue = RepairQueue::new(10);
    queue.set(ChunkId(1), Some(need(2, 0)));
    queue.take(now, false).unwrap();
    queue.finish(ChunkId(1), Some(need(2, 0)), later);
    assert_eq!(queue.take(now, false), None);
    queue.wake();
    assert!(queue.take(now, false).is_some());
    queue.set(ChunkId(2), Some(need(0, 0)));
    queue.restart();
    assert_eq!(queue.counts().missing, 0, "it may have been deleted meanwhile");
    queue.set(ChunkId(1), Some(need(2, 0)));
    assert_eq!((queue.take(now, false), queue.busy(), queue.len()), (None, 1, 1));
}

#[test]
fn overflow_is_counted_and_requests_a_turn() {
    let now = Instant::now();
    let mut queue = RepairQueue::new(4);
    for id in 0..10 {
        queue.set(ChunkId(id), Some(need(2, 0)));
    }
    assert_eq!((queue.len(), queue.counts().under_replicated), (4, 10));
    assert!(!queue.wants_turn());
    for _ in 0..3 {
        let (chunk, _) = queue.take(now, false).unwrap();
        queue.finish(chunk, Some(need(3, 0)), now);
    }
    assert!(queue.wants_turn());
    // The turn finds them again: they are not counted twice.
    queue.start_turn();
    for id in 4..10 {
        queue.set(ChunkId(id), Some(need(2, 0)));
    }
    queue.start_turn();
    assert_eq!((queue.len(), queue.counts().under_replicated), (4, 7));
    queue.start_turn();
    assert_eq!(queue.counts().under_replicated, 4);
}

#[test]
fn urgent_chunk_takes_the_place_of_another_one_in_a_full_queue() {
    let now = Instant::now();
    let mut queue = RepairQueue::new(2);
    for (id, good) in [(1, 2), (2, 2), (3, 1)] {
        queue.set(ChunkId(id), Some(need(good, 0)));
    }
    assert_eq!((queue.len(), queue.counts().under_replicated), (2, 3));
    assert_eq!(queue.take(now, true).map(|(chunk, _)| chunk), Some(ChunkId(3)));
    assert_eq!(queue.take(now, true), None, "the others have a spare replica");
    assert!(queue.take(now, false).is_some());
}

#[test]
fn missing_chunks_do_not_hold_up_others() {
    let now = Instant::now();
    let mut queue = RepairQueue::new(4);
    for id in 0..10 {
        queue.set(ChunkId(id), Some(need(0, 0)));
    }
    queue.set(ChunkId(10), Some(need(1, 0)));
    assert_eq!((queue.counts().missing, queue.counts().under_replicated), (10, 1));
    assert_eq!(queue.take(now, false).map(|(chunk, _)| chunk), Some(ChunkId(10)));
    // One comes back.
    queue.set(ChunkId(1), Some(need(2, 0)));
    assert_eq!(queue.take(now, false).map(|(chunk, _)| chunk), Some(ChunkId(1)));
    assert_eq!((queue.counts().missing, queue.wants_turn()), (9, false));
}

#[test]
fn failing_chunk_rests_longer_each_time_until_it_succeeds() {
    let mut now = Instant::now();
    let mut queue = RepairQueue::new(10);
    let degraded = Some(need(2, 0));
    queue.set(ChunkId(1), degraded);
    for rest in [2, 4, 8, 16, 32, 64, 64] {
        queue.take(now, false).unwrap();
        queue.fail(ChunkId(1), degraded, now);
        let rest = Duration::from_secs(rest);
        assert_eq!(queue.take(now + rest - Duration::from_millis(1), false), None, "{rest:?}");
        now += rest;
    }
    queue.take(now, false).unwrap();
    queue.finish(ChunkId(1), degraded, now);
    queue.take(now, false).unwrap();
    queue.fail(ChunkId(1), degraded, now);
    assert!(queue.take(now + Duration::from_secs(2), false).is_some(), "a success resets it");
}

const END: BuildEnd = BuildEnd::target(NodeId(1));

#[test]
fn chunks_that_wait_for_a_node_delay_no_other_and_follow_by_urgency() {
    let now = Instant::now();
    let mut queue = RepairQueue::new(10);
    for (id, good) in [(1, 2), (2, 1), (3, 2)] {
        queue.set(ChunkId(id), Some(need(good, 0)));
    }
    for _ in 0..3 {
        let (chunk, need) = queue.take(now, false).unwrap();
        queue.park(chunk, Some(need), END);
    }
    queue.set(ChunkId(4), Some(need(2, 0)));
    assert_eq!(queue.take(now, false).map(|(chunk, _)| chunk), Some(ChunkId(4)));
    assert_eq!((queue.take(now, false), queue.len(), queue.waited_for()), (None, 4, vec![END]));
    queue.unpark(END, 2);
    let mut next = || queue.take(now, false).map(|(chunk, _)| chunk.0);
    assert_eq!([next(), next(), next()], [Some(2), Some(1), None]);
    // Its need has changed, and with it perhaps the nodes that can take it.
    queue.set(ChunkId(3), Some(need(1, 0)));
    assert_eq!(queue.take(now, false).map(|(chunk, _)| chunk), Some(ChunkId(3)));
    assert_eq!(queue.waited_for(), []);
}

#[test]
fn waiting_chunks_make_room_for_an_urgent_one_and_are_woken_by_changes() {
    let now = Instant::now();
    let mut queue = RepairQueue::new(2);
    for id in 1..=2 {
        queue.set(ChunkId(id), Some(need(2, 0)));
        let (chunk, need) = queue.take(now, false).unwrap();
        queue.park(chunk, Some(need), END);
    }
    queue.set(ChunkId(3), Some(need(1, 0)));
    assert_eq!((queue.len(), queue.counts().under_replicated), (2, 3));
    assert_eq!(queue.take(now, false).map(|(chunk, _)| chunk), Some(ChunkId(3)));
    assert_eq!(queue.take(now, false), None);
    queue.wake();
    assert_eq!(queue.take(now, false).map(|(chunk, _)| chunk), Some(ChunkId(1)));
}

#[test]
fn chunk_that_becomes_urgent_does_not_rest() {
    let now = Instant::now();
    let mut queue = RepairQueue::new(10);
    queue.set(ChunkId(1), Some(need(2, 0)));
    for _ in 0..5 {
        queue.take(now + Duration::from_hours(1), false);
        queue.fail(ChunkId(1), Some(need(2, 0)), now);
    }
    assert_eq!(queue.take(now, false), None);
    queue.set(ChunkId(1), Some(need(1, 0)));
    assert_eq!(queue.take(now, false).map(|(chunk, _)| chunk), Some(ChunkId(1)));
    queue.fail(ChunkId(1), Some(need(1, 0)), now);
    assert!(queue.take(now + REST.0, false).is_some(), "a first failure");
}

#[test]
fn resting_chunk_makes_room_for_an_urgent_one() {
    let now = Instant::now();
    let mut queue = RepairQueue::new(2);
    for id in [1, 2] {
        queue.set(ChunkId(id), Some(need(2, 0)));
        queue.take(now, false);
        queue.finish(ChunkId(id), Some(need(2, 0)), now + Duration::from_mins(1));
    }
    queue.set(ChunkId(3), Some(need(2, 0)));
    assert_eq!(queue.take(now, false), None, "no more urgent than the others");
    queue.set(ChunkId(4), Some(need(1, 0)));
    assert_eq!(queue.take(now, false).map(|(chunk, _)| chunk), Some(ChunkId(4)));
    assert_eq!((queue.len(), queue.counts().under_replicated), (2, 4), "none is forgotten");
    let later = now + Duration::from_mins(1);
    assert!(queue.take(later, false).is_some());
    assert_eq!(queue.take(later, false), None);
}

#[test]
fn what_is_set_during_a_repair_is_not_replaced_by_what_the_repair_found() {
    let (mut queue, now, chunk) = (RepairQueue::new(10), Instant::now(), ChunkId(1));
    queue.set(chunk, Some(need(2, 0)));
    queue.take(now, false).unwrap();
    queue.set(chunk, Some(need(1, 1)));
    queue.finish(chunk, None, now);
    assert_eq!(queue.take(now, false), Some((chunk, need(1, 1))));
    queue.set(chunk, Some(need(2, 0)));
    queue.park(chunk, Some(need(1, 1)), BuildEnd::target(NodeId(1)));
    assert_eq!(queue.take(now, false), None);
    queue.unpark(BuildEnd::target(NodeId(1)), 1);
    assert_eq!(queue.take(now, false), Some((chunk, need(2, 0))));
    queue.set(chunk, None);
    queue.finish(chunk, Some(need(2, 0)), now);
    assert_eq!((queue.len(), queue.busy()), (0, 0));
}

#[test]
fn chunks_without_a_spare_and_without_a_target_are_counted_until_that_changes() {
    let (mut queue, now) = (RepairQueue::new(10), Instant::now());
    let seen = |queue: &RepairQueue| (queue.counts().without_spare, queue.without_target());
    for (id, good) in [(1, 1), (2, 2), (3, 3)] {
        queue.set(ChunkId(id), Some(need(good, 0)));
    }
    assert_eq!(seen(&queue), (1, 0));
    for id in [1, 2] {
        queue.take(now, false).unwrap();
        queue.found_no_target(ChunkId(id), Some(need(id as u8, 0)), now);
    }
    assert_eq!(seen(&queue), (1, 2));
    queue.take(now, false).unwrap();
    assert_eq!(seen(&queue), (1, 2), "another attempt may find none either");
    queue.fail(ChunkId(1), Some(need(2, 0)), now);
    assert_eq!(seen(&queue), (0, 1));
    queue.set(ChunkId(2), Some(need(0, 0)));
    assert_eq!(seen(&queue), (0, 0), "it is missing");
}
