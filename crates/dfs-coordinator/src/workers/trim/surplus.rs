//! Which replicas of a chunk to drop. Pure.

use std::collections::{BTreeMap, BTreeSet};

use dfs_metadata::chunk_health::{Cluster, judge};
use dfs_metadata::namespace::{Chunk, Replica, ReplicaId};
use dfs_types::{DiskNumber, NodeId, Part, Random as _, Redundancy, ReplicaHealth, SeededRandom};

use crate::node_liveness::View;
use crate::workers::spread::Places;

/// Difference in fullness that does not count, in thousandths: reports lag behind what trimming frees.
const FULLNESS_STEP: u64 = 30;

/// Spread of nodes, and used thousandths of disks.
#[derive(Debug, Default)]
pub(super) struct Situation {
    places: Places,
    fullness: BTreeMap<DiskNumber, u64>,
}

/// Replicas that a chunk can do without.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Surplus {
    /// Empty while the only ones to spare are needed until others are known to be good.
    pub(super) doomed: Vec<ReplicaId>,
    /// The good ones that are kept, one of which is read before.
    pub(super) kept: Vec<ReplicaId>,
    /// Nodes of replicas that are needed until others are known to be good.
    pub(super) waits_for: BTreeSet<NodeId>,
}

/// A replica and its node.
type Held<'a> = (NodeId, &'a Replica);

impl Situation {
    pub(super) fn of(views: &[View]) -> Self {
        let mut fullness = BTreeMap::new();
        for view in views {
            for disk in &view.member.disks {
                if let Some(report) = view.disks.iter().find(|report| report.disk == disk.id) {
                    let used = report.capacity.saturating_sub(report.free);
                    let used = used.saturating_mul(1_000) / report.capacity.max(1);
                    fullness.insert(disk.number, used);
                }
            }
        }
        Self { places: Places::new(views), fullness }
    }
}

/// Returns the replicas that a chunk can do without. `None` if all are needed.
///
/// As many as wanted, on distinct nodes, are good without them: a good one goes only if more than
/// wanted are good. What counts least goes first:
///
/// 1. replicas that are about to leave, as they do not stay in any case;
/// 2. replicas that are perhaps unreachable. They stay while the good ones alone could not be spread
///    over as many zones and machines: once such a replica is known to be good, a good one of the
///    crowded zone goes in its place;
/// 3. good ones: a second one of a node, else one without which the rest is spread best, on a slow
///    disk if there is one, and else on the fullest; among about equally full ones, a different one for
///    each chunk.
pub(super) fn surplus(record: &Chunk, cluster: &Cluster, situation: &Situation) -> Option<Surplus> {
    let Redundancy::Replicated { copies } = record.redundancy else { return None };
    if record.is_tombstone() {
        return None;
    }
    let wanted = usize::from(copies.max(1));
    let judged = judge(record, cluster).replicas;
    let of = |health: ReplicaHealth| -> Vec<&Replica> {
        let replicas = record.replicas.iter().zip(&judged);
        let replicas = replicas.filter(|(it, found)| it.part == Part::WHOLE && **found == health);
        replicas.map(|(replica, _)| replica).collect()
    };
    let on_nodes = |replicas: &[&'_ Replica]| -> Vec<Held<'_>> {
        let held = record.replicas.iter().filter(|it| replicas.contains(it));
        held.filter_map(|replica| Some((cluster.node(replica.disk)?, replica))).collect()
    };
    let good = on_nodes(&of(ReplicaHealth::Good));
    if nodes(&good).len() < wanted {
        return None;
    }
    let suspect = of(ReplicaHealth::Suspect);
    let chooser = Chooser { cluster, situation, suspect: &suspect, wanted };
    let needed = chooser.needed(&good, &on_nodes(&suspect));
    let mut doomed: Vec<ReplicaId> =
        of(ReplicaHealth::Leaving).into_iter().map(ReplicaId::of).collect();
    let is_needed = |replica: &&Replica| needed.iter().any(|(_, needed)| needed == replica);
    doomed.extend(suspect.iter().filter(|it| !is_needed(it)).map(|it| ReplicaId::of(it)));
    let (mut kept, dropped) = chooser.choose(good, &nodes(&needed));
    doomed.extend(dropped.into_iter().map(|(_, replica)| ReplicaId::of(replica)));
    if doomed.is_empty() && needed.is_empty() {
        return None;
    }
    // A slow disk is read last.
    kept.sort_by_key(|(_, replica)| cluster.is_slow(replica.disk));
    let kept = kept.into_iter().map(|(_, it)| ReplicaId::of(it)).collect();
    Some(Surplus { doomed, kept, waits_for: nodes(&needed) })
}

/// Chooses which replicas to keep.
struct Chooser<'a> {
    cluster: &'a Cluster,
    situation: &'a Situation,
    suspect: &'a [&'a Replica],
    wanted: usize,
}

impl Chooser<'_> {
    /// Returns those of the suspect replicas without which the chunk could be spread less well.
    fn needed<'a>(&self, good: &[Held<'a>], suspect: &[Held<'a>]) -> Vec<Held<'a>> {
        let places = &self.situation.places;
        let (of_good, _) = self.choose(good.to_vec(), &BTreeSet::new());
        let (of_all, _) = self.choose([good, suspect].concat(), &BTreeSet::new());
        if places.spread(&nodes(&of_all)) <= places.spread(&nodes(&of_good)) {
            return Vec::new();
        }
        of_all.into_iter().filter(|(_, replica)| self.suspect.contains(replica)).collect()
    }

    /// Divides replicas into those to keep, on as many nodes as wanted, and the rest, beside others
    /// on the nodes `beside`.
    fn choose<'a>(
        &self,
        mut replicas: Vec<Held<'a>>,
        beside: &BTreeSet<NodeId>,
    ) -> (Vec<Held<'a>>, Vec<Held<'a>>) {
        let mut dropped = Vec::new();
        loop {
            let without = |index: usize| {
                let mut others = replicas.clone();
                others.remove(index);
                nodes(&others)
            };
            let droppable =
                (0..replicas.len()).filter(|index| without(*index).len() >= self.wanted);
            let least_useful = droppable.max_by_key(|index| {
                let (node, replica) = replicas[*index];
                let disk = replica.disk;
                let rest = without(*index);
                let is_second = rest.contains(&node);
                let spread = self.situation.places.spread(&rest.union(beside).copied().collect());
                let is_suspect = self.suspect.contains(&replica);
                let fullness = self.situation.fullness.get(&disk).copied().unwrap_or_default();
                let fullness = (fullness / FULLNESS_STEP, tie_breaker(replica));
                (is_second, spread, is_suspect, self.cluster.is_slow(disk), fullness, disk)
            });
            let Some(index) = least_useful else { return (replicas, dropped) };
            dropped.push(replicas.remove(index));
        }
    }
}

/// Returns a number that is the same each time a replica is judged, and differs from chunk to chunk.
fn tie_breaker(replica: &Replica) -> u64 {
    SeededRandom::new(replica.stamp.0 ^ u64::from(replica.disk.0).rotate_left(32)).below(u64::MAX)
}

fn nodes(replicas: &[Held<'_>]) -> BTreeSet<NodeId> {
    replicas.iter().map(|(node, _)| *node).collect()
}

#[cfg(test)]
mod tests {
    use dfs_metadata::chunk_health::{Contact, DiskFault, NodeIntent, NodeLiveness};
    use dfs_metadata::namespace::{NodeDisk, ReplicaMark};
    use dfs_types::{ChunkSeal, Crc32c, DiskId, Generation, InodeId, NodeState, Sha256, Stamp};

    use super::*;
    use crate::workers::repair::view;

    /// State of a disk, which is named by its number.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum On {
        Good,
        Slow,
        Silent,
        Draining,
        Lost,
    }

    /// Returns a cluster of disks, each of a node: (disk, node, state).
    fn cluster(disks: &[(u32, u128, On)]) -> Cluster {
        let mut cluster = Cluster::default();
        for (number, node, on) in disks {
            let disk = NodeDisk::new(DiskNumber(*number), DiskId((*number).into()));
            let mut liveness =
                NodeLiveness { contact: Contact::Responsive, ..NodeLiveness::default() };
            let mut state = NodeState::Active;
            match on {
                On::Good => {}
                On::Slow => drop(liveness.disks.insert(disk.id, DiskFault::Slow)),
                On::Silent => liveness.contact = Contact::Silent,
                On::Draining => state = NodeState::Draining,
                On::Lost => liveness.contact = Contact::Lost,
            }
            let intent = NodeIntent { state, is_leaving: false, in_maintenance: false };
            cluster.add_node(NodeId(*node), intent, &[disk], &liveness);
        }
        cluster
    }

    fn record(copies: u8, disks: &[u32]) -> Chunk {
        Chunk {
            seal: ChunkSeal { length: 5, crc32c: Crc32c(1), sha256: Sha256([0; 32]) },
            redundancy: Redundancy::Replicated { copies },
            policy: 0,
            replicas: disks
                .iter()
                .map(|disk| Replica::new(DiskNumber(*disk), Part::WHOLE, Stamp(7)))
                .collect(),
            generation: Generation(1),
            references: 1,
            inode: InodeId::ROOT,
        }
    }

    fn dropped(record: &Chunk, cluster: &Cluster, places: &Situation) -> Vec<u32> {
        let found = surplus(record, cluster, places);
        found.map_or(Vec::new(), |found| found.doomed.iter().map(|it| it.disk.0).collect())
    }

    /// Returns disks (number, zone, fullness), each of the node of its number.
    fn places(of: &[(u32, &str, u64)]) -> Situation {
        let node =
            |(disk, zone, _): &(u32, &str, u64)| view(u128::from(*disk), zone, NodeState::Active);
        let views: Vec<View> = of.iter().map(node).collect();
        let fullness = of.iter().map(|(disk, _, fullness)| (DiskNumber(*disk), *fullness));
        Situation { places: Places::new(&views), fullness: fullness.collect() }
    }

    const THREE: [(u32, u128, On); 3] = [(1, 1, On::Good), (2, 2, On::Good), (3, 3, On::Good)];

    #[test]
    fn nothing_is_dropped_while_no_more_than_wanted_are_good() {
        let all = places(&[]);
        assert_eq!(dropped(&record(3, &[1, 2, 3]), &cluster(&THREE), &all), Vec::<u32>::new());
        for on in [On::Silent, On::Draining, On::Lost] {
            let cluster = cluster(&[(1, 1, On::Good), (2, 2, on), (3, 3, on)]);
            assert_eq!(
                dropped(&record(2, &[1, 2, 3]), &cluster, &all),
                Vec::<u32>::new(),
                "{on:?}"
            );
        }
        let mut bad = record(2, &[1, 2, 3]);
        bad.replicas[0].mark = ReplicaMark::Bad;
        assert_eq!(dropped(&bad, &cluster(&THREE), &all), Vec::<u32>::new());
        let mut tombstone = record(1, &[1, 2, 3]);
        tombstone.references = 0;
        assert_eq!(dropped(&tombstone, &cluster(&THREE), &all), Vec::<u32>::new());
    }

    #[test]
    fn replicas_that_may_not_be_readable_or_are_leaving_go_first() {
        for on in [On::Silent, On::Draining] {
            let cluster = cluster(&[(1, 1, On::Good), (2, 2, on), (3, 3, On::Good)]);
            let fullest = places(&[(1, "", 900)]);
            assert_eq!(dropped(&record(2, &[1, 2, 3]), &cluster, &fullest), [2], "{on:?}");
        }
        let slow = cluster(&[(1, 1, On::Slow), (2, 2, On::Good), (3, 3, On::Good)]);
        let found = surplus(&record(2, &[1, 2, 3]), &slow, &places(&[(3, "", 900)])).unwrap();
        assert_eq!(found.doomed[0].disk, DiskNumber(1));
        assert_eq!(found.kept.len(), 2);
    }

    #[test]
    fn zones_stay_spread_and_the_fullest_disk_of_a_zone_loses_its_replica() {
        let zones = places(&[(1, "a", 100), (2, "b", 900), (3, "a", 200)]);
        assert_eq!(dropped(&record(2, &[1, 2, 3]), &cluster(&THREE), &zones), [3]);
        assert_eq!(dropped(&record(1, &[1, 2, 3]), &cluster(&THREE), &zones), [3, 2]);
    }

    #[test]
    fn suspect_replica_stays_while_the_good_ones_are_spread_less_well() {
        let zones = places(&[(1, "a", 100), (2, "a", 900), (3, "b", 200)]);
        let silent = cluster(&[(1, 1, On::Good), (2, 2, On::Good), (3, 3, On::Silent)]);
        let waiting = surplus(&record(2, &[1, 2, 3]), &silent, &zones).unwrap();
        assert_eq!((waiting.doomed.len(), waiting.kept.len()), (0, 2));
        assert_eq!(waiting.waits_for, BTreeSet::from([NodeId(3)]));
        assert_eq!(dropped(&record(2, &[1, 2, 3]), &cluster(&THREE), &zones), [2], "it is back");
        let lost = cluster(&[(1, 1, On::Good), (2, 2, On::Good), (3, 3, On::Lost)]);
        assert_eq!(surplus(&record(2, &[1, 2, 3]), &lost, &zones), None);
        assert_eq!(dropped(&record(1, &[1, 2, 3]), &silent, &zones), [3, 2], "of one zone anyway");
        let leaving = cluster(&[(1, 1, On::Good), (2, 2, On::Good), (3, 3, On::Draining)]);
        assert_eq!(dropped(&record(2, &[1, 2, 3]), &leaving, &zones), [3]);
    }

    #[test]
    fn second_replica_of_a_node_goes_first() {
        let cluster = cluster(&[(1, 1, On::Good), (2, 1, On::Good), (3, 3, On::Good)]);
        let fullest = places(&[(2, "", 100), (3, "", 900)]);
        assert_eq!(dropped(&record(2, &[1, 2, 3]), &cluster, &fullest), [2]);
    }

    #[test]
    fn disks_that_are_about_equally_full_lose_about_as_many_replicas() {
        let disks = places(&[(1, "", 505), (2, "", 500), (3, "", 490)]);
        let mut lost = BTreeMap::<u32, u32>::new();
        for chunk in 0..3_000 {
            let mut record = record(2, &[1, 2, 3]);
            for (nth, replica) in (0..).zip(&mut record.replicas) {
                replica.stamp = Stamp((nth << 40) + chunk);
            }
            let dropped = dropped(&record, &cluster(&THREE), &disks);
            assert_eq!(dropped.len(), 1);
            *lost.entry(dropped[0]).or_default() += 1;
        }
        assert!(
            lost.len() == 3 && lost.values().all(|lost| (800..1_200).contains(lost)),
            "{lost:?}"
        );
    }

    /// Every chunk of up to four replicas, each in one of four states and three zones, against all
    /// ways to keep some of them.
    #[test]
    fn good_replicas_are_kept_as_wanted_and_as_well_spread_as_possible() {
        const STATES: [On; 4] = [On::Good, On::Silent, On::Draining, On::Lost];
        const ZONES: [&str; 3] = ["a", "b", "c"];
        let kinds = STATES.len() * ZONES.len();
        for code in 0..kinds.pow(4) * 4 {
            let count = code % 4 + 1;
            let kinds: Vec<usize> =
                (0..count).map(|nth| code / 4 / kinds.pow(nth as u32) % kinds).collect();
            // The order makes no difference.
            if !kinds.is_sorted() || code / 4 >= 12_usize.pow(count as u32) {
                continue;
            }
            let at: Vec<(u32, On, &str)> = (1..)
                .zip(&kinds)
                .map(|(disk, kind)| (disk, STATES[kind % 4], ZONES[kind / 4]))
                .collect();
            for wanted in 1..=3 {
                check_choice(&at, wanted);
            }
        }
    }

    fn check_choice(at: &[(u32, On, &str)], wanted: usize) {
        let disks: Vec<u32> = at.iter().map(|(disk, ..)| *disk).collect();
        let of: Vec<_> = at.iter().map(|(disk, on, _)| (*disk, u128::from(*disk), *on)).collect();
        let zones: Vec<_> = at.iter().map(|(disk, _, zone)| (*disk, *zone, 0)).collect();
        let found = surplus(&record(wanted as u8, &disks), &cluster(&of), &places(&zones));
        let doomed: Vec<u32> = found.iter().flat_map(|it| &it.doomed).map(|it| it.disk.0).collect();
        let with = |states: &[On]| -> Vec<(u32, &str)> {
            let with = at.iter().filter(|(_, on, _)| states.contains(on));
            with.map(|(disk, _, zone)| (*disk, *zone)).collect()
        };
        let is_kept = |it: &(u32, &str)| !doomed.contains(&it.0);
        let kept = |states| -> Vec<_> { with(states).into_iter().filter(is_kept).collect() };
        let (good, silent) = (with(&[On::Good]), with(&[On::Silent]));
        let case = format!("{at:?}, {wanted} wanted: {found:?}");
        if good.len() < wanted {
            assert_eq!(found, None, "{case}");
            return;
        }
        assert_eq!(kept(&[On::Good]).len(), wanted, "{case}");
        assert_eq!(kept(&[On::Draining]), [], "{case}");
        assert_eq!(kept(&[On::Lost]), with(&[On::Lost]), "{case}");
        let kept_silent = kept(&[On::Silent]);
        let best = best_zones(&[&good[..], &silent].concat(), wanted, &[]);
        if best == best_zones(&good, wanted, &[]) {
            assert_eq!(kept_silent, [], "{case}");
        } else {
            let staying = kept(&[On::Good, On::Silent]);
            assert_eq!(best_zones(&staying, wanted, &[]), best, "once they are good: {case}");
        }
        let by_choice = best_zones(&good, wanted, &kept_silent);
        assert_eq!(best_zones(&kept(&[On::Good]), wanted, &kept_silent), by_choice, "{case}");
        let is_done = doomed.is_empty() && kept_silent.is_empty();
        assert_eq!(found.is_none(), is_done, "{case}");
    }

    /// Returns the most zones that so many of these replicas have, with the others.
    fn best_zones(of: &[(u32, &str)], count: usize, others: &[(u32, &str)]) -> usize {
        let subsets = (0_u32..1 << of.len()).filter(|set| set.count_ones() as usize == count);
        let zones = |set: u32| {
            let chosen = of.iter().enumerate().filter(|(nth, _)| set & (1 << nth) != 0);
            let chosen = chosen.map(|(_, it)| it).chain(others);
            chosen.map(|(_, zone)| *zone).collect::<BTreeSet<_>>().len()
        };
        subsets.map(zones).max().unwrap_or_default()
    }

    /// As many as wanted stay good, on distinct nodes, and every other replica that counts is
    /// dropped.
    #[test]
    fn exactly_the_wanted_number_of_good_replicas_is_kept() {
        let random = SeededRandom::new(1);
        let states = [On::Good, On::Good, On::Good, On::Slow, On::Silent, On::Draining, On::Lost];
        for _ in 0..5_000 {
            let count = 1 + random.below(6) as u32;
            let nodes = 1 + random.below(6);
            let disks: Vec<_> = (1..=count)
                .map(|disk| {
                    let on = states[random.below(states.len() as u64) as usize];
                    (disk, u128::from(random.below(nodes)), on)
                })
                .collect();
            let copies = 1 + random.below(4) as u8;
            let record = record(copies, &(1..=count).collect::<Vec<_>>());
            let cluster = cluster(&disks);
            let before = judge(&record, &cluster);
            let Some(found) = surplus(&record, &cluster, &places(&[])) else { continue };
            let mut after = record.clone();
            after.replicas.retain(|it| !found.doomed.contains(&ReplicaId::of(it)));
            let judged = judge(&after, &cluster);
            assert_eq!(judged.stays.wholes, copies, "{disks:?}");
            assert_eq!(judged.durable, judged.stays, "{disks:?}");
            assert!(before.stays.wholes >= copies && found.kept.len() == usize::from(copies));
        }
    }
}
