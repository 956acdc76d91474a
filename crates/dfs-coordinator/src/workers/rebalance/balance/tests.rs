use std::collections::{BTreeMap, BTreeSet};

use dfs_types::{FileSystemId, NodeId, Random, SeededRandom};

use super::*;

/// Returns nodes 1, 2, … with these bytes used of their capacity.
fn fills(nodes: &[(u64, u64)]) -> BTreeMap<NodeId, Fill> {
    let fill = |(used, capacity)| Fill {
        least: used,
        most: used,
        capacity,
        may_take: true,
        contended: BTreeSet::new(),
    };
    let nodes = nodes.iter().enumerate();
    nodes.map(|(index, of)| (NodeId(index as u128 + 1), fill(*of))).collect()
}

fn givers(nodes: &[(u64, u64)], has_begun: bool) -> Vec<u128> {
    let givers = Balance::new(fills(nodes), has_begun).givers();
    givers.into_iter().map(|node| node.0).collect()
}

fn takers(balance: &Balance, giver: u128, bytes: u64) -> Vec<u128> {
    balance.takers(NodeId(giver), bytes).into_iter().map(|node| node.0).collect()
}

#[test]
fn moves_begin_beyond_five_points_and_end_within_three() {
    for (nodes, begins, continues) in [
        (&[(50, 100), (50, 100)][..], &[][..], &[][..]),
        (&[(55, 100), (45, 100)], &[], &[1]),
        (&[(56, 100), (44, 100)], &[1], &[1]),
        (&[(53, 100), (47, 100)], &[], &[]),
        // The mean is one of bytes, not of nodes.
        (&[(60, 100), (500, 1_000)], &[1], &[1]),
        (&[(50, 100), (560, 1_000)], &[2], &[2]),
        // One empty node is enough, although no other is much above the mean.
        (
            &[(50, 100), (50, 100), (50, 100), (50, 100), (50, 100), (0, 10)],
            &[1, 2, 3, 4, 5],
            &[1, 2, 3, 4, 5],
        ),
        (&[(70, 100), (90, 100), (10, 100)], &[2, 1], &[2, 1]),
        (&[(90, 100)], &[], &[]),
        (&[], &[], &[]),
        (&[(0, 100), (0, 100)], &[], &[]),
        (&[(0, 0), (10, 100)], &[], &[]),
    ] {
        assert_eq!(givers(nodes, false), begins, "{nodes:?}");
        assert_eq!(givers(nodes, true), continues, "{nodes:?}");
    }
}

#[test]
fn replica_that_would_take_a_node_past_the_mean_is_not_moved() {
    let balance = Balance::new(fills(&[(90, 100), (30, 100), (40, 100), (80, 100)]), false);
    assert!((balance.mean() - 60.0).abs() < 1e-9);
    assert_eq!(takers(&balance, 1, 10), [2, 3], "the emptiest first");
    assert_eq!(takers(&balance, 1, 25), [2]);
    assert_eq!(takers(&balance, 1, 31), []);
    assert_eq!(takers(&balance, 4, 20), [2, 3]);
    assert_eq!(takers(&balance, 4, 21), [], "the giver would be below the mean");
    assert_eq!(takers(&balance, 2, 1), [], "it gives nothing");
    assert_eq!(balance.left(), 27 + 17);
}

#[test]
fn moves_that_a_report_may_include_are_counted_either_way() {
    let mut nodes = fills(&[(75, 100), (30, 100), (40, 100), (75, 100)]);
    nodes.get_mut(&NodeId(1)).unwrap().least = 55;
    nodes.get_mut(&NodeId(2)).unwrap().most = 55;
    let balance = Balance::new(nodes, true);
    // The mean is between 50 % and 61.25 %.
    assert_eq!(balance.givers(), [NodeId(4)], "the first one may have given enough");
    assert_eq!(takers(&balance, 4, 1), [3], "the second one may have taken enough");
    assert_eq!(takers(&balance, 4, 10), [3]);
    assert_eq!(takers(&balance, 4, 11), []);
}

#[test]
fn full_nodes_give_but_do_not_take() {
    let mut nodes = fills(&[(90, 100), (10, 100), (20, 100)]);
    nodes.get_mut(&NodeId(2)).unwrap().may_take = false;
    let balance = Balance::new(nodes.clone(), false);
    assert_eq!(takers(&balance, 1, 1), [3]);
    nodes.get_mut(&NodeId(3)).unwrap().may_take = false;
    assert_eq!(Balance::new(nodes, false).givers(), []);
}

#[test]
fn nodes_that_share_space_are_one() {
    let mut nodes = fills(&[(90, 100), (10, 100), (30, 100), (70, 100), (5, 100)]);
    let share = |nodes: &mut BTreeMap<NodeId, Fill>, node: u128, systems: &[u128]| {
        let fill = nodes.get_mut(&NodeId(node)).unwrap();
        fill.contended = systems.iter().copied().map(FileSystemId).collect();
    };
    share(&mut nodes, 1, &[7]);
    share(&mut nodes, 2, &[7]);
    let pair = Balance::new(nodes.clone(), false);
    assert!((pair.fill(NodeId(1)) - 50.0).abs() < 1e-9);
    assert_eq!(pair.givers(), [NodeId(4), NodeId(1), NodeId(2)]);
    assert_eq!(takers(&pair, 1, 1), [5, 3], "nothing within the file system");
    // All connected: there is nobody to move to.
    share(&mut nodes, 3, &[8]);
    share(&mut nodes, 4, &[8]);
    share(&mut nodes, 5, &[7, 8]);
    assert_eq!(Balance::new(nodes, false).givers(), []);
}

/// Nodes and chunks as they are, for the property below.
#[derive(Debug)]
struct Model {
    capacities: Vec<u64>,
    may_take: Vec<bool>,
    used: Vec<u64>,
    /// Length and nodes of each chunk.
    chunks: Vec<(u64, BTreeSet<usize>)>,
    /// Moved bytes, each at one node, that its report or the worker does not know of yet.
    changes: Vec<Change>,
}

#[derive(Debug, Clone, Copy)]
struct Change {
    node: usize,
    length: u64,
    has_left: bool,
    is_reported: bool,
}

impl Model {
    fn random(random: &SeededRandom) -> Self {
        let nodes = 1 + random.below(8) as usize;
        let capacities: Vec<u64> = (0..nodes).map(|_| 200 * (1 + random.below(20))).collect();
        let may_take = (0..nodes).map(|_| random.below(10) > 0).collect();
        let old = 1 + random.below(nodes as u64) as usize;
        let copies = 1 + random.below(old.min(3) as u64) as usize;
        // Small ones, or a few that hardly fit.
        let longest = [5, 20, 600][random.below(3) as usize];
        let used = vec![0; nodes];
        let (chunks, changes) = (Vec::new(), Vec::new());
        let mut model = Self { capacities, may_take, used, chunks, changes };
        let fullest = 10 + random.below(85);
        for _ in 0..1_500 {
            let length = 1 + random.below(longest);
            let mut on = BTreeSet::new();
            while on.len() < copies {
                on.insert(random.below(old as u64) as usize);
            }
            let fits = |node: &usize| {
                (model.used[*node] + length) * 100 <= model.capacities[*node] * fullest
            };
            if !on.iter().all(fits) {
                break;
            }
            for node in &on {
                model.used[*node] += length;
            }
            model.chunks.push((length, on));
        }
        model
    }

    fn move_one(&mut self, chunk: usize, from: usize, to: usize) {
        let (length, on) = &mut self.chunks[chunk];
        assert!(on.remove(&from) && on.insert(to));
        let length = *length;
        self.used[from] -= length;
        self.used[to] += length;
        for (node, has_left) in [(from, true), (to, false)] {
            self.changes.push(Change { node, length, has_left, is_reported: false });
        }
    }

    /// Lets some changes be reported, and the worker learn of some that were.
    fn report(&mut self, random: &SeededRandom) {
        self.changes.retain(|change| !(change.is_reported && random.below(2) == 0));
        for change in &mut self.changes {
            change.is_reported |= random.below(2) == 0;
        }
    }

    fn fills(&self) -> BTreeMap<NodeId, Fill> {
        let fill = |node: usize| {
            let changes = || self.changes.iter().filter(move |change| change.node == node);
            let sum = |changes: &mut dyn Iterator<Item = &Change>| -> u64 {
                changes.map(|change| change.length).sum()
            };
            let reported = self.used[node]
                + sum(&mut changes().filter(|it| it.has_left && !it.is_reported))
                - sum(&mut changes().filter(|it| !it.has_left && !it.is_reported));
            Fill {
                least: reported.saturating_sub(sum(&mut changes().filter(|it| it.has_left))),
                most: reported + sum(&mut changes().filter(|it| !it.has_left)),
                capacity: self.capacities[node],
                may_take: self.may_take[node],
                contended: BTreeSet::new(),
            }
        };
        (0..self.capacities.len()).map(|node| (NodeId(node as u128), fill(node))).collect()
    }

    fn mean(&self) -> f64 {
        self.used.iter().sum::<u64>() as f64 / self.capacities.iter().sum::<u64>() as f64
    }

    /// Returns the bytes of a node above the mean.
    fn surplus(&self, node: usize) -> f64 {
        self.used[node] as f64 - self.mean() * self.capacities[node] as f64
    }

    /// Returns the points of a node above the mean.
    fn offset(&self, node: usize) -> f64 {
        100.0 * self.surplus(node) / self.capacities[node] as f64
    }

    /// Finds the next move as the worker does.
    fn next(&self, balance: &Balance) -> Option<(usize, usize, usize)> {
        balance.givers().into_iter().find_map(|giver| {
            let from = giver.0 as usize;
            let held = self.chunks.iter().enumerate().filter(|(_, (_, on))| on.contains(&from));
            let mut found = held.filter_map(|(chunk, (length, on))| {
                let takers = balance.takers(giver, *length).into_iter();
                let to = takers.map(|node| node.0 as usize).find(|node| !on.contains(node))?;
                Some((chunk, from, to))
            });
            found.next()
        })
    }

    /// Returns whether any replica could be moved, from or to a node off the mean by more than
    /// `limit` points, so that none crosses the mean.
    fn has_a_move(&self, limit: f64) -> bool {
        let nodes = || 0..self.capacities.len();
        self.chunks.iter().any(|(length, on)| {
            on.iter().any(|from| {
                let length = *length as f64;
                nodes().any(|to| {
                    let is_off = self.offset(*from) > limit || self.offset(to) < -limit;
                    let (high, low) = (self.surplus(*from), self.surplus(to));
                    let fits = high >= length && low <= -length;
                    is_off && fits && self.may_take[to] && !on.contains(&to)
                })
            })
        })
    }
}

#[test]
fn moves_even_out_any_cluster_never_overshoot_and_end() {
    let (mut even, mut stuck) = (0, 0);
    for seed in 0..300 {
        let random = SeededRandom::new(seed);
        let mut model = Model::random(&random);
        let (mut begun, mut left) = (false, BTreeSet::new());
        let bound = model.chunks.len() * model.capacities.len();
        loop {
            // A few moves are decided on the same reports.
            let mut balance = Balance::new(model.fills(), begun);
            let before = left.len();
            for _ in 0..=random.below(5) {
                let Some((chunk, from, to)) = model.next(&balance) else { break };
                let length = model.chunks[chunk].0;
                balance.note(NodeId(from as u128), NodeId(to as u128), length);
                model.move_one(chunk, from, to);
                left.insert((chunk, from));
                assert!(!left.contains(&(chunk, to)), "seed {seed}: a replica was moved back");
                assert!(left.len() <= bound, "seed {seed}: too many moves");
                let slack = 1e-6;
                assert!(model.surplus(from) >= -slack, "seed {seed}: gave too much");
                assert!(model.surplus(to) <= slack, "seed {seed}: took too much");
            }
            if left.len() == before && model.changes.is_empty() {
                break;
            }
            begun = true;
            model.report(&random);
        }
        let nodes = 0..model.capacities.len();
        let worst = nodes.map(|node| model.offset(node).abs()).fold(0.0, f64::max);
        let limit = if begun { 3.0 } else { 5.0 };
        if worst <= limit {
            even += 1;
        } else {
            stuck += 1;
            assert!(!model.has_a_move(limit), "seed {seed}: {worst} points are left");
        }
    }
    assert!(even > 100 && stuck > 20, "the property tests both: {even} {stuck}");
}
