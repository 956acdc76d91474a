//! Properties of all selectors, and of each one. The statistical tests are tested, too: a selector
//! of another kind must fail them.

use std::collections::{BTreeMap, BTreeSet};

use dfs_types::SeededRandom;
use proptest::prelude::*;

use super::*;

/// Bytes a chunk takes in these tests.
const CHUNK: u64 = 64 << 20;
const GIB: u64 = 1 << 30;

/// Always chooses the first nodes: neither random nor fair.
struct Constant;

impl NodeSelector for Constant {
    fn select(
        &self,
        candidates: &[Candidate],
        request: &PlacementRequest<'_>,
        _: &dyn Random,
    ) -> Vec<NodeId> {
        let eligible = eligible(candidates, request).into_iter();
        eligible.map(|candidate| candidate.node).take(request.count).collect()
    }
}

fn candidate(node: u128, zone: &str, host: &str, free: u64) -> Candidate {
    Candidate { node: NodeId(node), zone: zone.to_owned(), host: host.to_owned(), free }
}

/// Returns a node without zone and machine.
fn bare(node: u128, free: u64) -> Candidate {
    candidate(node, "", "", free)
}

#[derive(Debug)]
struct Case {
    candidates: Vec<Candidate>,
    avoid: Vec<NodeId>,
    count: usize,
    host: String,
    zone: String,
    seed: u64,
}

impl Case {
    fn request(&self) -> PlacementRequest<'_> {
        let (avoid, host, zone) = (&self.avoid, &self.host, &self.zone);
        PlacementRequest { count: self.count, bytes: CHUNK, avoid, host, zone }
    }

    fn chosen(&self, selector: &dyn NodeSelector) -> Vec<&Candidate> {
        let nodes =
            selector.select(&self.candidates, &self.request(), &SeededRandom::new(self.seed));
        let find = |node: NodeId| self.candidates.iter().find(|found| found.node == node).unwrap();
        nodes.into_iter().map(find).collect()
    }

    fn eligible(&self) -> Vec<&Candidate> {
        eligible(&self.candidates, &self.request())
    }
}

fn zones(nodes: &[&Candidate]) -> usize {
    let zones = nodes.iter().map(|c| (&c.zone, c.zone.is_empty().then_some(c.node)));
    zones.collect::<BTreeSet<_>>().len()
}

fn hosts(nodes: &[&Candidate]) -> usize {
    let hosts = nodes.iter().map(|c| (&c.host, c.host.is_empty().then_some(c.node)));
    hosts.collect::<BTreeSet<_>>().len()
}

/// Generates named nodes; `place` generates their zones and machines.
fn cases(
    place: impl Strategy<Value = (String, String)> + Clone + 'static,
) -> impl Strategy<Value = Case> {
    let free = prop_oneof![Just(0), Just(CHUNK), Just(CHUNK + 1), 2 * CHUNK..1 << 45];
    let node = (place.clone(), free);
    let node_id = (0_u128..14).prop_map(NodeId);
    (
        proptest::collection::vec(node, 0..14),
        proptest::collection::vec(node_id, 0..5),
        0_usize..7,
        place,
        any::<u64>(),
    )
        .prop_map(|(nodes, avoid, count, (zone, host), seed)| {
            let nodes = nodes.into_iter().enumerate();
            let candidates =
                nodes.map(|(id, ((zone, host), free))| candidate(id as u128, &zone, &host, free));
            Case { candidates: candidates.collect(), avoid, count, host, zone, seed }
        })
}

/// Zones and machines as operators may name them, or not.
fn anywhere() -> impl Strategy<Value = (String, String)> + Clone {
    (prop_oneof!["", "[a-d]"], prop_oneof!["", "[h-l]"])
}

/// All named, with each machine in one zone.
fn in_order() -> impl Strategy<Value = (String, String)> + Clone {
    ("[a-d]", "[h-k]").prop_map(|(zone, host)| (zone.clone(), zone + &host))
}

proptest! {
    #[test]
    fn selects_enough_distinct_nodes_with_room(case in cases(anywhere())) {
        let selectors: [&dyn NodeSelector; 3] =
            [&CapacityWeighted::default(), &RandomNodes::default(), &RoundRobin::default()];
        for selector in selectors {
            let chosen = case.chosen(selector);
            let ids: BTreeSet<_> = chosen.iter().map(|candidate| candidate.node).collect();
            prop_assert_eq!(ids.len(), chosen.len());
            prop_assert_eq!(chosen.len(), case.count.min(case.eligible().len()));
            for candidate in chosen {
                prop_assert!(candidate.free > CHUNK);
                prop_assert!(!case.avoid.contains(&candidate.node));
            }
        }
    }

    #[test]
    fn replicas_spread_over_as_many_zones_as_possible(mut case in cases(anywhere())) {
        // Preferring a node near the client never costs a zone.
        prop_assume!(case.count > 0);
        let most = case.count.min(zones(&case.eligible()));
        prop_assert_eq!(zones(&case.chosen(&CapacityWeighted::default())), most);
        case.host.clear();
        prop_assert_eq!(zones(&case.chosen(&CapacityWeighted::default())), most);
    }

    #[test]
    fn machine_gets_a_second_replica_only_when_all_have_one(case in cases(in_order())) {
        let most = case.count.min(hosts(&case.eligible()));
        prop_assert_eq!(hosts(&case.chosen(&CapacityWeighted::default())), most);
    }

    #[test]
    fn primary_is_near_the_client(case in cases(anywhere())) {
        prop_assume!(case.count > 0);
        let chosen = case.chosen(&CapacityWeighted::default());
        let Some(primary) = chosen.first() else { return Ok(()) };
        if !case.host.is_empty() && case.eligible().iter().any(|c| c.host == case.host) {
            prop_assert_eq!(&primary.host, &case.host);
        } else if !case.zone.is_empty() && chosen.iter().any(|c| c.zone == case.zone) {
            prop_assert_eq!(&primary.zone, &case.zone);
        }
    }

    #[test]
    fn duplicate_candidates_count_once(case in cases(anywhere())) {
        let mut twice = case;
        twice.candidates.extend_from_within(..);
        for selector in [&CapacityWeighted::default() as &dyn NodeSelector, &RandomNodes::default()] {
            let chosen = twice.chosen(selector);
            let ids: BTreeSet<_> = chosen.iter().map(|candidate| candidate.node).collect();
            prop_assert_eq!(ids.len(), chosen.len());
        }
    }
}

/// Counts how often each choice was made.
fn tally(
    selector: &dyn NodeSelector,
    candidates: &[Candidate],
    count: usize,
) -> BTreeMap<Vec<NodeId>, u32> {
    let random = SeededRandom::new(11);
    let request = PlacementRequest { count, bytes: CHUNK, ..PlacementRequest::default() };
    let mut tally = BTreeMap::new();
    for _ in 0..DRAWS {
        *tally.entry(selector.select(candidates, &request, &random)).or_insert(0) += 1;
    }
    tally
}

const DRAWS: u32 = 20_000;

/// Returns whether a tally fits the given probabilities, which must add up to 1: Pearson's
/// chi-squared, with the quantile that a correct selector exceeds for one seed in a thousand.
fn follows(tally: &BTreeMap<Vec<NodeId>, u32>, chances: &[(Vec<NodeId>, f64)]) -> bool {
    // By degrees of freedom, from 1.
    const QUANTILES: [f64; 5] = [10.83, 13.82, 16.27, 18.47, 20.52];
    let deviation: f64 = chances
        .iter()
        .map(|(choice, chance)| {
            let expected = chance * f64::from(DRAWS);
            let seen = f64::from(tally.get(choice).copied().unwrap_or(0));
            (seen - expected).powi(2) / expected
        })
        .sum();
    let expected: BTreeSet<_> = chances.iter().map(|(choice, _)| choice).collect();
    tally.keys().all(|choice| expected.contains(choice)) && deviation < QUANTILES[chances.len() - 2]
}

/// Returns whether the first node is chosen by its free bytes, and the second by those of the
/// others.
fn is_weighted_by_free_bytes(selector: &dyn NodeSelector) -> bool {
    let nodes = [bare(1, GIB), bare(2, 2 * GIB), bare(3, 5 * GIB)];
    let free: f64 = nodes.iter().map(|node| node.free as f64).sum();
    let mut chances = Vec::new();
    for first in &nodes {
        for second in nodes.iter().filter(|second| second.node != first.node) {
            let by_turns = first.free as f64 / free * second.free as f64;
            let chance = by_turns / (free - first.free as f64);
            chances.push((vec![first.node, second.node], chance));
        }
    }
    follows(&tally(selector, &nodes, 2), &chances)
}

/// Returns whether all pairs of nodes are equally likely, whatever their free space.
fn is_uniform(selector: &dyn NodeSelector) -> bool {
    let nodes = [bare(1, GIB), bare(2, 2 * GIB), bare(3, 5 * GIB)].map(|node| (node.node, node));
    let (ids, nodes): (Vec<_>, Vec<_>) = nodes.into_iter().unzip();
    let pairs = ids.iter().flat_map(|first| ids.iter().map(move |second| vec![*first, *second]));
    let chances: Vec<_> =
        pairs.filter(|pair| pair[0] != pair[1]).map(|pair| (pair, 1.0 / 6.0)).collect();
    follows(&tally(selector, &nodes, 2), &chances)
}

/// Returns whether each node comes first once and second once in each round, in the same order.
fn takes_turns(selector: &dyn NodeSelector) -> bool {
    let nodes: Vec<Candidate> = (1..=5).map(|id| bare(id, GIB * id as u64)).collect();
    let random = SeededRandom::new(5);
    let request = PlacementRequest { count: 2, bytes: CHUNK, ..PlacementRequest::default() };
    let round = || -> Vec<Vec<NodeId>> {
        nodes.iter().map(|_| selector.select(&nodes, &request, &random)).collect()
    };
    let (first, second) = (round(), round());
    let is_fair = |place: usize| {
        let of_place: BTreeSet<_> = first.iter().map(|chosen| chosen[place]).collect();
        of_place.len() == nodes.len()
    };
    first == second && is_fair(0) && is_fair(1)
}

#[test]
fn capacity_weighted_follows_the_free_bytes() {
    assert!(is_weighted_by_free_bytes(&CapacityWeighted::default()));
    for other in [&Constant as &dyn NodeSelector, &RandomNodes::default(), &RoundRobin::default()] {
        assert!(!is_weighted_by_free_bytes(other));
    }
}

#[test]
fn capacity_weighted_follows_the_free_bytes_within_a_zone() {
    let nodes = [
        candidate(1, "a", "", GIB),
        candidate(2, "a", "", 3 * GIB),
        candidate(3, "b", "", 4 * GIB),
    ];
    let selector = CapacityWeighted::default();
    let mut of_pair = BTreeMap::new();
    for (mut pair, count) in tally(&selector, &nodes, 2) {
        pair.sort_unstable();
        *of_pair.entry(pair).or_insert(0) += count;
    }
    let pair = |a, b| vec![NodeId(a), NodeId(b)];
    assert!(follows(&of_pair, &[(pair(1, 3), 0.25), (pair(2, 3), 0.75)]));
}

#[test]
fn random_nodes_are_chosen_equally_often() {
    assert!(is_uniform(&RandomNodes::default()));
    for other in [&Constant as &dyn NodeSelector, &CapacityWeighted::default()] {
        assert!(!is_uniform(other));
    }
    // Round-robin is not random either, though all nodes come equally often.
    assert!(!is_uniform(&RoundRobin::default()));
}

#[test]
fn round_robin_takes_turns() {
    assert!(takes_turns(&RoundRobin::default()));
    for other in [&Constant as &dyn NodeSelector, &RandomNodes::default()] {
        assert!(!takes_turns(other));
    }
}

#[test]
fn round_robin_takes_turns_across_threads() {
    let nodes: Vec<Candidate> = (0..4).map(|id| bare(id, GIB)).collect();
    let selector = RoundRobin::default();
    let request = PlacementRequest { count: 1, bytes: CHUNK, ..PlacementRequest::default() };
    let choose = || -> Vec<NodeId> {
        let random = SeededRandom::new(0);
        (0..100).flat_map(|_| selector.select(&nodes, &request, &random)).collect()
    };
    let chosen: Vec<NodeId> = std::thread::scope(|scope| {
        let threads = [scope.spawn(choose), scope.spawn(choose)];
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    for node in nodes {
        assert_eq!(chosen.iter().filter(|chosen| **chosen == node.node).count(), 50);
    }
}

#[test]
fn no_candidates_select_no_nodes() {
    let request = PlacementRequest { count: 3, ..PlacementRequest::default() };
    let random = SeededRandom::new(0);
    let selectors: [&dyn NodeSelector; 3] =
        [&CapacityWeighted::default(), &RandomNodes::default(), &RoundRobin::default()];
    for selector in selectors {
        assert_eq!(selector.select(&[], &request, &random), []);
    }
}
