//! Limits on builds: how much is built at a node at a time, and read there for builds elsewhere.
//!
//! All workers that build replicas share these limits, which are those that the nodes report, so
//! that they order no more than a node accepts. A node whose builds fail, or that reaches no source,
//! gets none for a while, and then one at a time until one succeeds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_types::NodeId;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::unreached_sources::UnreachedSources;

/// Pause of a node after a failed build, and the longest one: doubled with each further failure.
const REST: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// Failures in a row after which builds go elsewhere, if necessary to a worse place.
const FAILURES_MAX: u32 = 3;
/// Longest wait for a build to end, after which the caller checks again.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A node in one of its two parts in builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BuildEnd {
    pub(crate) node: NodeId,
    is_source: bool,
}

impl BuildEnd {
    /// A node that builds replicas.
    pub(crate) const fn target(node: NodeId) -> Self {
        Self { node, is_source: false }
    }

    /// A node whose replicas are read for builds.
    pub(crate) const fn source(node: NodeId) -> Self {
        Self { node, is_source: true }
    }
}

/// How much a node can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BuildQuota(u32);

impl BuildQuota {
    /// Returns the quota of a node that reported this weight.
    pub(crate) const fn of(weight: u32) -> Self {
        Self(weight)
    }

    /// Returns the part of it for work that can wait, so that repair finds the rest free.
    pub(crate) fn half(self) -> Self {
        Self(self.0.div_ceil(2))
    }
}

/// Why builds at a node fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum FailureCause {
    /// It cannot build, or does not reply.
    #[default]
    Own,
    /// It reaches none of the sources.
    Unreached,
}

/// A node that gets no builds now because the last ones failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failing {
    /// Time until the next attempt.
    pub(crate) left: Duration,
    pub(crate) cause: FailureCause,
}

#[derive(Debug, Default)]
struct Load {
    /// Weight of the builds in flight.
    weight: u32,
    /// Failures since the last success.
    failures: u32,
    /// Cause of the last one.
    cause: FailureCause,
    rests_until: Option<Instant>,
    /// A build that began after a failure is in flight.
    is_probed: bool,
    /// Notified when a build ends.
    ended: Arc<Notify>,
}

impl Load {
    fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    /// Returns whether builds go elsewhere, if necessary to a worse place.
    fn is_failing(&self, now: Instant) -> bool {
        self.failures >= FAILURES_MAX && (self.rests(now) || self.is_probed)
    }

    fn room(&self, BuildQuota(quota): BuildQuota, now: Instant) -> u32 {
        if self.rests(now) || self.is_probed {
            return 0;
        }
        // A build may begin while anything is free, so that small ones do not delay a large one.
        let room = quota.saturating_sub(self.weight);
        if self.failures > 0 { room.min(1) } else { room }
    }
}

type Loads = BTreeMap<BuildEnd, Load>;

/// The builds in flight at one moment.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// Nodes that take no more builds for now.
    pub(crate) full: BTreeSet<NodeId>,
    /// Nodes whose builds have failed so often that others are to be chosen.
    pub(crate) failing: BTreeSet<NodeId>,
    /// Weight of the builds that read from each node.
    pub(crate) read_weights: BTreeMap<NodeId, u32>,
}

/// The builds in flight, by node. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct BuildSlots {
    loads: Arc<Mutex<Loads>>,
    unreached: Arc<Mutex<UnreachedSources>>,
    ended: Arc<Notify>,
}

/// A build or read in flight, until this is dropped.
#[derive(Debug)]
pub(crate) struct BuildSlot {
    slots: BuildSlots,
    ends: Vec<BuildEnd>,
    weight: u32,
    /// Began after a failure of the target.
    is_probe: bool,
}

impl BuildSlots {
    /// Begins a build of this weight, if both nodes have room. Otherwise returns the one that has
    /// none.
    pub(crate) fn take(
        &self,
        target: (NodeId, BuildQuota),
        source: Option<(NodeId, BuildQuota)>,
        weight: u32,
        now: Instant,
    ) -> Result<BuildSlot, BuildEnd> {
        let target = (BuildEnd::target(target.0), target.1);
        let source = source.map(|(node, quota)| (BuildEnd::source(node), quota));
        self.begin(source.into_iter().chain([target]).collect(), weight, now)
    }

    /// Begins to read a replica of this weight to verify it, which takes the room of a source.
    pub(crate) fn read(
        &self,
        (node, quota): (NodeId, BuildQuota),
        weight: u32,
        now: Instant,
    ) -> Result<BuildSlot, BuildEnd> {
        self.begin(vec![(BuildEnd::source(node), quota)], weight, now)
    }

    fn begin(
        &self,
        ends: Vec<(BuildEnd, BuildQuota)>,
        weight: u32,
        now: Instant,
    ) -> Result<BuildSlot, BuildEnd> {
        let mut loads = crate::lock(&self.loads);
        let room = |(end, quota): &(BuildEnd, BuildQuota)| {
            loads.get(end).map_or(quota.0, |load| load.room(*quota, now))
        };
        if let Some((full, _)) = ends.iter().find(|end| room(end) == 0) {
            return Err(*full);
        }
        let ends: Vec<BuildEnd> = ends.into_iter().map(|(end, _)| end).collect();
        let mut is_probe = false;
        for end in &ends {
            let load = loads.entry(*end).or_default();
            load.weight += weight;
            load.is_probed = load.failures > 0;
            is_probe |= load.is_probed;
        }
        Ok(BuildSlot { slots: self.clone(), ends, weight, is_probe })
    }

    /// Returns how many small builds may begin.
    pub(crate) fn room(&self, end: BuildEnd, quota: BuildQuota, now: Instant) -> u32 {
        crate::lock(&self.loads).get(&end).map_or(quota.0, |load| load.room(quota, now))
    }

    /// Returns how many of those that wait for a node may go on: all, where it is not to be waited for.
    pub(crate) fn room_for_waiting(
        &self,
        end: BuildEnd,
        quota: Option<BuildQuota>,
        now: Instant,
    ) -> usize {
        let loads = crate::lock(&self.loads);
        let load = loads.get(&end);
        if load.is_some_and(|load| load.is_failing(now)) {
            return usize::MAX;
        }
        let room = |quota: BuildQuota| load.map_or(quota.0, |load| load.room(quota, now));
        quota.map_or(usize::MAX, |quota| room(quota) as usize)
    }

    /// Returns what is in flight, judged by these quotas; a node without one is full.
    pub(crate) fn in_flight(
        &self,
        quota: impl Fn(NodeId) -> Option<BuildQuota>,
        now: Instant,
    ) -> InFlight {
        let mut found = InFlight::default();
        for (BuildEnd { node, is_source }, load) in &*crate::lock(&self.loads) {
            if *is_source {
                found.read_weights.insert(*node, load.weight);
            } else if load.is_failing(now) {
                found.failing.insert(*node);
            } else if quota(*node).is_none_or(|quota| load.room(quota, now) == 0) {
                found.full.insert(*node);
            }
        }
        found
    }

    /// Returns the nodes that get no builds now because the last ones failed.
    pub(crate) fn failing(&self, now: Instant) -> BTreeMap<NodeId, Failing> {
        let loads = crate::lock(&self.loads);
        let targets = loads.iter().filter(|(end, load)| !end.is_source && load.failures > 0);
        let failing = targets.map(|(end, load)| {
            let until = load.rests_until.unwrap_or(now);
            let left = until.saturating_duration_since(now);
            (end.node, Failing { left, cause: load.cause })
        });
        failing.filter(|(_, failing)| !failing.left.is_zero()).collect()
    }

    /// Returns the nodes where no build has succeeded since one failed, whether or not they rest.
    pub(crate) fn unproven(&self) -> BTreeSet<NodeId> {
        let loads = crate::lock(&self.loads);
        let targets = loads.iter().filter(|(end, load)| !end.is_source && load.failures > 0);
        targets.map(|(end, _)| end.node).collect()
    }

    /// Waits until a build ends at a node that had no room, or for a second.
    pub(crate) async fn wait(&self, end: BuildEnd) {
        let ended = crate::lock(&self.loads).get(&end).map(|load| load.ended.clone());
        // Without a load, the last one has ended meanwhile.
        if let Some(ended) = ended {
            let _ = timeout(WAIT_MAX, ended.notified()).await;
        }
    }

    /// Waits until any build ends that was not waited for yet. For one caller.
    pub(crate) async fn any_ended(&self) {
        self.ended.notified().await;
    }
}

impl BuildSlot {
    /// Records that the target could not build, for whatever reason of its own.
    pub(crate) fn target_failed(&self, now: Instant) {
        self.failed(FailureCause::Own, now);
    }

    /// Records that the target reached none of these sources, which counts as its failure only if the
    /// sources are not at fault.
    pub(crate) fn target_reached_none(&self, sources: &[NodeId], now: Instant) {
        let Some(target) = self.target() else { return };
        if crate::lock(&self.slots.unreached).reached_none(target.node, sources) {
            self.failed(FailureCause::Unreached, now);
        }
    }

    /// Records that the target has built from this source.
    pub(crate) fn target_built_from(&self, source: NodeId) {
        if let Some(target) = self.target() {
            crate::lock(&self.slots.unreached).built(target.node, source);
        }
    }

    fn failed(&self, cause: FailureCause, now: Instant) {
        self.with_target(|load| {
            // Others that were in flight at the time of the first failure fail for the same reason.
            if load.rests(now) {
                return;
            }
            let (first, longest) = REST;
            let rest = first.saturating_mul(1 << load.failures.min(16)).min(longest);
            load.failures = load.failures.saturating_add(1);
            load.cause = cause;
            load.rests_until = Some(now + rest);
        });
    }

    /// Records that the target builds replicas.
    pub(crate) fn target_works(&self) {
        self.with_target(|load| {
            (load.failures, load.rests_until, load.is_probed) = (0, None, false);
        });
    }

    fn target(&self) -> Option<BuildEnd> {
        self.ends.iter().copied().find(|end| !end.is_source)
    }

    fn with_target(&self, change: impl FnOnce(&mut Load)) {
        let target = self.target();
        let mut loads = crate::lock(&self.slots.loads);
        // It has a load as long as the slot exists.
        if let Some(load) = target.and_then(|target| loads.get_mut(&target)) {
            change(load);
        }
    }
}

impl Drop for BuildSlot {
    fn drop(&mut self) {
        let mut loads = crate::lock(&self.slots.loads);
        for end in &self.ends {
            let Some(load) = loads.get_mut(end) else { continue };
            load.weight = load.weight.saturating_sub(self.weight);
            load.is_probed &= !self.is_probe;
            for _ in 0..self.weight {
                load.ended.notify_one();
            }
            // Others may hold it to wait.
            if load.weight == 0 && load.failures == 0 && Arc::strong_count(&load.ended) == 1 {
                loads.remove(end);
            }
        }
        drop(loads);
        self.slots.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: BuildQuota = BuildQuota(16);

    fn take(slots: &BuildSlots, ends: (u128, u128), weight: u32) -> Result<BuildSlot, BuildEnd> {
        let (target, source) = (NodeId(ends.0), NodeId(ends.1));
        slots.take((target, ONE), Some((source, ONE)), weight, Instant::now())
    }

    #[test]
    fn node_builds_no_more_than_it_reported() {
        let slots = BuildSlots::default();
        let large = take(&slots, (1, 2), 16).unwrap();
        assert_eq!(take(&slots, (1, 3), 1).unwrap_err(), BuildEnd::target(NodeId(1)));
        assert_eq!(take(&slots, (3, 2), 1).unwrap_err(), BuildEnd::source(NodeId(2)));
        // The other direction, and other nodes, are not affected.
        let reverse = take(&slots, (2, 1), 16).unwrap();
        drop(large);
        let small: Vec<_> = (0..16).map(|_| take(&slots, (1, 2), 1).unwrap()).collect();
        assert!(take(&slots, (1, 2), 1).is_err());
        drop((small, reverse));
        assert!(crate::lock(&slots.loads).is_empty(), "nothing is remembered");
    }

    #[test]
    fn small_builds_do_not_keep_a_large_one_waiting_and_leave_half_to_repair() {
        let slots = BuildSlots::default();
        let _small: Vec<_> = (0..8).map(|_| take(&slots, (1, 2), 1).unwrap()).collect();
        let half = slots.take((NodeId(1), ONE.half()), None, 1, Instant::now());
        assert_eq!(half.unwrap_err(), BuildEnd::target(NodeId(1)));
        let _large = take(&slots, (1, 2), 16).unwrap();
        assert!(take(&slots, (1, 2), 16).is_err());
        // A node with one build takes other work, too.
        assert!(
            BuildSlots::default().take((NodeId(1), ONE.half()), None, 16, Instant::now()).is_ok()
        );
    }

    #[test]
    fn failing_node_rests_longer_each_time_and_is_then_tried_with_one_build() {
        let slots = BuildSlots::default();
        let mut now = Instant::now();
        let target = (NodeId(1), ONE);
        let end = BuildEnd::target(NodeId(1));
        for (index, rest) in [250, 500, 1_000, 2_000].into_iter().enumerate() {
            let slot = slots.take(target, None, 1, now).unwrap();
            assert_eq!(slots.take(target, None, 1, now).is_ok(), index == 0, "one at a time");
            // Those in flight together are one failure.
            slot.target_failed(now);
            slot.target_failed(now);
            let rest = Duration::from_millis(rest);
            assert_eq!(slots.room(end, ONE, now + rest), u32::from(index == 0), "{index}");
            drop(slot);
            assert_eq!(slots.room(end, ONE, now + rest - Duration::from_millis(1)), 0);
            let failing = slots.in_flight(|_| Some(ONE), now).failing;
            assert_eq!(failing.contains(&NodeId(1)), index >= 2);
            now += rest;
            assert_eq!(slots.room(end, ONE, now), 1);
        }
        assert!(slots.in_flight(|_| Some(ONE), now).failing.is_empty(), "it is tried again");
        let slot = slots.take(target, None, 1, now).unwrap();
        let failing = slots.in_flight(|_| Some(ONE), now).failing;
        assert!(failing.contains(&NodeId(1)), "nothing waits for the outcome");
        slot.target_works();
        drop(slot);
        assert_eq!(slots.room(end, ONE, now), 16);
    }

    #[test]
    fn chunks_wait_for_a_full_source_although_it_fails_as_a_target() {
        let (slots, now) = (BuildSlots::default(), Instant::now());
        let _reads = take(&slots, (2, 1), 16).unwrap();
        let mut at = now;
        for _ in 0..FAILURES_MAX {
            slots.take((NodeId(1), ONE), None, 1, at).unwrap().target_failed(at);
            at += REST.1;
        }
        let failed = at - REST.1;
        let room = |end| slots.room_for_waiting(end, Some(ONE), failed);
        assert_eq!(room(BuildEnd::source(NodeId(1))), 0);
        assert_eq!(room(BuildEnd::target(NodeId(1))), usize::MAX, "others are chosen");
        assert_eq!(room(BuildEnd::target(NodeId(2))), 0);
        assert_eq!(room(BuildEnd::source(NodeId(2))), 16);
        assert_eq!(slots.room_for_waiting(BuildEnd::source(NodeId(1)), None, at), usize::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn end_of_a_build_wakes_one_who_waits_for_its_node() {
        let slots = BuildSlots::default();
        let slot = take(&slots, (1, 2), 16).unwrap();
        let started = Instant::now();
        let end = take(&slots, (1, 2), 16).unwrap_err();
        let (other, ended) = (slots.clone(), async { drop(slot) });
        tokio::join!(other.wait(end), ended);
        assert_eq!(started.elapsed(), Duration::ZERO);
        slots.wait(end).await;
        assert_eq!(started.elapsed(), Duration::ZERO, "nothing is in flight");
        let _slot = take(&slots, (1, 2), 16).unwrap();
        slots.wait(end).await;
        assert_eq!(started.elapsed(), WAIT_MAX);
        slots.any_ended().await;
    }
}
