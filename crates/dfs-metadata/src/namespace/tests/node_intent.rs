//! Desired states of nodes, safe-to-stop, and removal.

use std::collections::BTreeSet;

use dfs_types::{
    ChunkId, ErrorCode, NodeState, Part, ReplicaCondition, ReplicaRef, ReplicaVerdict, Replication,
    Scope,
};

use super::*;
use crate::chunk_health::{Contact, NodeLiveness};

const MINUTE: Duration = Duration::from_mins(1);

/// Returns heartbeats of all nodes, with these in the given state.
fn except(nodes: &[u128], contact: Contact) -> Liveness {
    let node = |node| {
        let contact = if nodes.contains(&node) { contact } else { Contact::Responsive };
        (NodeId(node), NodeLiveness { contact, ..NodeLiveness::default() })
    };
    (1..=50).map(node).collect()
}

fn all_heard() -> Liveness {
    except(&[], Contact::Responsive)
}

/// Returns the result of a scan, the slow model of the check.
pub(super) async fn scanned(
    namespace: &Namespace,
    nodes: &BTreeSet<NodeId>,
    liveness: &Liveness,
) -> Safety {
    let mut scan = namespace.begin_safety_scan(Scope::internal(), nodes, liveness).await.unwrap();
    loop {
        if let Some(safety) = namespace.continue_safety_scan(&mut scan).await.unwrap() {
            return safety;
        }
    }
}

/// Returns the result of a whole scan.
pub(super) async fn scan_holdings(
    namespace: &Namespace,
    node: NodeId,
    liveness: &Liveness,
) -> Holdings {
    let scan = namespace.begin_holdings_scan(Scope::internal(), node, liveness).await;
    let mut scan = scan.unwrap();
    while !namespace.continue_holdings_scan(&mut scan).await.unwrap() {}
    namespace.end_holdings_scan(scan, liveness).await.unwrap().expect("no disk was lost")
}

/// Returns a chunk that would be lost.
fn example(holdings: &Holdings) -> Option<ChunkId> {
    holdings.listed.first().map(|needed| needed.chunk)
}

impl Fixture {
    async fn mark_bad(&self, chunk: ChunkId, node: u128) {
        let replica = ReplicaRef { chunk, part: Part::WHOLE, disk: DiskId(node), stamp: Stamp(1) };
        let bad = ReplicaVerdict { replica, number: 1, condition: ReplicaCondition::Bad, block: 0 };
        let (scope, evidence) = (Scope::internal(), Evidence::ReadAgain);
        let marked = self.namespace.mark_replica(scope, NodeId(node), bad, evidence, None).await;
        assert!(matches!(marked, Ok(Marked::Recorded { .. })), "{marked:?}");
    }

    async fn safety(&self, nodes: &[u128]) -> Safety {
        let nodes: BTreeSet<NodeId> = nodes.iter().copied().map(NodeId).collect();
        scanned(&self.namespace, &nodes, &all_heard()).await
    }

    /// Returns how many chunks would be below their required replicas, and how many unreadable.
    async fn counted(&self, nodes: &[u128]) -> (u64, u64) {
        let safety = self.safety(nodes).await;
        assert_eq!(safety.is_safe(), safety.chunks_below == 0);
        assert_eq!(safety.example.is_some(), safety.chunks_below > 0);
        (safety.chunks_below, safety.chunks_unreadable)
    }

    /// Announces maintenance, or ends it with a `ttl` of zero, without checking that it is safe.
    async fn maintain(&self, node: u128, ttl: Duration) {
        let made = self
            .namespace
            .set_maintenance(Scope::internal(), NodeId(node), ttl, Grant::Always)
            .await;
        made.unwrap().expect("unconditional");
    }

    /// Writes a file of one chunk with replicas on exactly these nodes, as many as it wants.
    async fn put_on(&mut self, at: &str, nodes: &[u128]) -> ChunkId {
        let all = self.candidates.clone();
        self.candidates.retain(|candidate| nodes.contains(&candidate.node.0));
        let replication = Replication { factor: nodes.len() as u8, min_write: None };
        self.namespace.set_replication(Scope::internal(), replication).await.unwrap();
        let plan = self.plan(at, CHUNK).await.unwrap();
        self.namespace.confirm(Scope::internal(), &self.confirm_of(&plan), None).await.unwrap();
        self.candidates = all;
        plan.chunks[0].chunk
    }

    async fn leave(&self, node: u128) -> Holdings {
        self.namespace.set_leaving(Scope::internal(), NodeId(node), true).await.unwrap();
        scan_holdings(&self.namespace, NodeId(node), &all_heard()).await
    }
}

#[tokio::test]
async fn admit_changes_only_joining_nodes() {
    let fixture = Fixture::new().await;
    let (namespace, new) = (&fixture.namespace, NodeId(50));
    namespace.register(Scope::internal(), &registration(new, 0), false).await.unwrap();
    for _ in 0..2 {
        assert_eq!(namespace.admit(Scope::internal(), new).await.unwrap().state, NodeState::Active);
    }
    namespace.set_node_state(Scope::internal(), new, NodeState::Draining).await.unwrap();
    assert_eq!(namespace.admit(Scope::internal(), new).await.unwrap().state, NodeState::Draining);
    namespace.set_node_state(Scope::internal(), new, NodeState::Removed).await.unwrap();
    assert!(matches!(namespace.admit(Scope::internal(), new).await, Err(Error::NodeRemoved(_))));
    assert_eq!(code(namespace.admit(Scope::internal(), NodeId(51)).await), ErrorCode::NotFound);
    let refused =
        namespace.set_node_state(Scope::internal(), NodeId(1), NodeState::Maintenance).await;
    assert_eq!(code(refused), ErrorCode::InvalidArgument, "maintenance has an end");
}

#[tokio::test]
async fn maintenance_expires_and_survives_registration() {
    let fixture = Fixture::new().await;
    let (namespace, node) = (&fixture.namespace, NodeId(1));
    let left = async || {
        namespace
            .node(Scope::internal(), node)
            .await
            .unwrap()
            .unwrap()
            .maintenance_left(fixture.clock.now())
    };
    fixture.maintain(1, MINUTE).await;
    assert_eq!(left().await, Some(MINUTE));
    let registered =
        namespace.register(Scope::internal(), &registration(node, 1), true).await.unwrap();
    namespace.confirm_registration(Scope::internal(), node, registered.number).await.unwrap();
    assert_eq!(registered.state, NodeState::Active, "the state after the maintenance");
    assert_eq!(left().await, Some(MINUTE), "registering does not end it");
    fixture.clock.advance(MINUTE / 2);
    assert_eq!(left().await, Some(MINUTE / 2));
    let renewed = namespace
        .set_maintenance(Scope::internal(), node, MINUTE * 2, Grant::Renewal)
        .await
        .unwrap();
    assert!(renewed.is_some());
    assert_eq!(left().await, Some(MINUTE * 2));
    fixture.clock.advance(MINUTE * 2);
    assert_eq!(left().await, None);
    assert!(
        namespace
            .set_maintenance(Scope::internal(), node, MINUTE, Grant::Renewal)
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(left().await, None, "there is no maintenance to renew");
    fixture.maintain(1, MINUTE).await;
    fixture.maintain(1, Duration::ZERO).await;
    assert_eq!(left().await, None);
    let day = Node::MAINTENANCE_MAX;
    fixture.maintain(1, day).await;
    let longer = namespace.set_maintenance(
        Scope::internal(),
        node,
        day + Duration::from_millis(1),
        Grant::Always,
    );
    assert_eq!(code(longer.await), ErrorCode::InvalidArgument);
}

#[tokio::test]
async fn nodes_may_stop_while_chunks_keep_min_write_replicas() {
    let mut fixture = Fixture::new().await;
    assert_eq!(fixture.counted(&[1, 2, 3, 4]).await, (0, 0), "no chunks");
    fixture.put_on("/one", &[4]).await;
    fixture.put_on("/two", &[1, 2]).await;
    let three = fixture.put_on("/three", &[1, 2, 3]).await;
    for (nodes, below, unreadable) in [
        (&[1][..], 0, 0),
        (&[2], 0, 0),
        (&[3], 0, 0),
        // One replica was wanted, and it is on a node that is away.
        (&[4], 0, 1),
        (&[1, 2], 2, 1),
        (&[1, 3], 1, 0),
        (&[1, 2, 3, 4], 2, 3),
    ] {
        assert_eq!(fixture.counted(nodes).await, (below, unreadable), "{nodes:?}");
    }
    let safety = fixture.safety(&[1, 3]).await;
    assert_eq!(safety.example, Some(Shortfall { chunk: three, left: 1, needed: 2 }));
    let nodes = BTreeSet::from([NodeId(1)]);
    let silent = except(&[2], Contact::Silent);
    let safety = scanned(&fixture.namespace, &nodes, &silent).await;
    assert_eq!(
        (safety.chunks_below, safety.chunks_unreadable),
        (2, 1),
        "node 2 is not readable now"
    );
    // Chunks without a replica there are not affected.
    let nodes = BTreeSet::from([NodeId(4)]);
    let silent = except(&[1, 2, 3], Contact::Silent);
    let safety = scanned(&fixture.namespace, &nodes, &silent).await;
    assert!(safety.is_safe(), "{safety:?}");
    // Only the deletion of replicas is left.
    for file in ["/one", "/two", "/three"] {
        fixture.delete(file, false, true).await.unwrap();
    }
    fixture.reap(true).await;
    assert_eq!(fixture.counted(&[1, 2, 3, 4]).await, (0, 0));
    let unknown = BTreeSet::from([NodeId(1), NodeId(51)]);
    let unknown = fixture.namespace.safe_to_stop(Scope::internal(), &unknown, &all_heard()).await;
    assert_eq!(code(unknown), ErrorCode::NotFound);
}

#[tokio::test]
async fn unreliable_replicas_do_not_count_as_safe() {
    let mut fixture = Fixture::new().await;
    let chunk = fixture.put_on("/f", &[1, 2, 3]).await;
    assert_eq!(fixture.counted(&[1]).await, (0, 0));
    fixture.maintain(2, MINUTE).await;
    assert_eq!(fixture.counted(&[1]).await, (1, 0));
    assert_eq!(fixture.counted(&[4]).await, (0, 0));
    fixture.clock.advance(MINUTE);
    assert_eq!(fixture.counted(&[1]).await, (0, 0), "the maintenance has ended");
    for (state, below) in
        [(NodeState::Draining, 0), (NodeState::Drained, 0), (NodeState::Removed, 1)]
    {
        fixture.namespace.set_node_state(Scope::internal(), NodeId(3), state).await.unwrap();
        assert_eq!(fixture.counted(&[1]).await, (below, 0), "{state}");
    }
    fixture.mark_bad(chunk, 2).await;
    assert_eq!(fixture.counted(&[1]).await, (1, 1));
    let removed = BTreeSet::from([NodeId(3)]);
    let removed = fixture.namespace.safe_to_stop(Scope::internal(), &removed, &all_heard()).await;
    assert!(matches!(removed, Err(Error::NodeRemoved(_))));
}

#[tokio::test]
async fn safe_to_stop_scans_many_pages() {
    let mut fixture = Fixture::new().await;
    fixture.put_on("/f", &[1, 2, 3]).await;
    let files = Namespace::PAGE_LEN_MAX + 20;
    for file in 0..files {
        fixture.put(&format!("/{file}"), 1).await.unwrap();
    }
    assert_eq!(fixture.counted(&[1, 2]).await, (files as u64 + 1, 0));
}

#[tokio::test]
async fn concurrent_safe_stop_requests_grant_only_one() {
    let mut fixture = Fixture::new().await;
    fixture.put_on("/f", &[1, 2, 3]).await;
    let namespace = &fixture.namespace;
    let (first, second) = (fixture.safety(&[1]).await, fixture.safety(&[2]).await);
    assert!(first.is_safe() && second.is_safe());
    let ask = |node, safety: &Safety| {
        namespace.set_maintenance(
            Scope::internal(),
            NodeId(node),
            MINUTE,
            Grant::Unchanged(safety.intent),
        )
    };
    assert!(ask(1, &first).await.unwrap().is_some());
    assert!(ask(2, &second).await.unwrap().is_none());
    assert!(
        namespace
            .node(Scope::internal(), NodeId(2))
            .await
            .unwrap()
            .unwrap()
            .maintenance_until
            .is_none()
    );
    assert!(!fixture.safety(&[2]).await.is_safe());
    // Any change of a desired state requires another check.
    type Step<'a> = std::pin::Pin<Box<dyn Future<Output = ()> + 'a>>;
    let steps: [(&str, Step<'_>); 4] = [
        ("the end", Box::pin(fixture.maintain(1, Duration::ZERO))),
        ("a renewal", Box::pin(fixture.maintain(1, MINUTE))),
        (
            "a state",
            Box::pin(async {
                namespace
                    .set_node_state(Scope::internal(), NodeId(4), NodeState::Drained)
                    .await
                    .unwrap();
            }),
        ),
        (
            "a removal",
            Box::pin(async {
                assert!(
                    namespace
                        .remove_node(Scope::internal(), &fixture.leave(4).await)
                        .await
                        .unwrap()
                );
            }),
        ),
    ];
    for (what, step) in steps {
        let before = fixture.safety(&[3]).await;
        step.await;
        assert!(ask(3, &before).await.unwrap().is_none(), "after {what}");
    }
    let now = fixture.safety(&[3]).await;
    assert!(ask(3, &now).await.unwrap().is_some(), "checking safety is up to the caller");
}

#[tokio::test]
async fn node_is_removed_only_if_nothing_reached_it_since_the_scan() {
    let mut fixture = Fixture::new().await;
    let node = NodeId(1);
    let before = scan_holdings(&fixture.namespace, node, &all_heard()).await;
    assert!(
        !fixture.namespace.remove_node(Scope::internal(), &before).await.unwrap(),
        "the node was not leaving"
    );
    // Planned earlier, written by now.
    let plan = fixture.plan("/late", CHUNK).await.unwrap();
    let holdings = fixture.leave(1).await;
    assert_eq!((holdings.chunks, holdings.loss.chunks), (0, 0));
    fixture.namespace.confirm(Scope::internal(), &fixture.confirm_of(&plan), None).await.unwrap();
    let replicas = fixture.open("/late").await.unwrap().extents.remove(0).chunk.replicas;
    assert!(
        replicas.iter().all(|replica| u128::from(replica.disk.0) != node.0),
        "its receipts do not count"
    );
    // It comes back in between, by registering or by a heartbeat.
    fixture
        .namespace
        .confirm_registration(Scope::internal(), node, RegistrationNumber(1))
        .await
        .unwrap();
    assert!(!fixture.namespace.remove_node(Scope::internal(), &holdings).await.unwrap());
    let chunk = fixture.put_on("/f", &[1]).await;
    let holdings = fixture.leave(1).await;
    assert_eq!((holdings.chunks, holdings.loss.chunks, example(&holdings)), (1, 1, Some(chunk)));
    fixture.namespace.register(Scope::internal(), &registration(node, 1), true).await.unwrap();
    assert!(!fixture.namespace.remove_node(Scope::internal(), &holdings).await.unwrap());
    fixture.namespace.set_leaving(Scope::internal(), node, true).await.unwrap();
    fixture.namespace.set_leaving(Scope::internal(), node, false).await.unwrap();
    let holdings = scan_holdings(&fixture.namespace, node, &all_heard()).await;
    assert!(
        !fixture.namespace.remove_node(Scope::internal(), &holdings).await.unwrap(),
        "the node stays"
    );
    let holdings = fixture.leave(1).await;
    assert!(fixture.namespace.remove_node(Scope::internal(), &holdings).await.unwrap());
    let gone = fixture.namespace.node(Scope::internal(), node).await.unwrap().unwrap();
    assert_eq!((gone.state, gone.is_leaving), (NodeState::Removed, false));
    let again = fixture.namespace.set_leaving(Scope::internal(), node, true).await;
    assert!(matches!(again, Err(Error::NodeRemoved(_))));
}

#[tokio::test]
async fn holdings_report_the_last_good_replica() {
    let mut fixture = Fixture::new().await;
    let sole = fixture.put_on("/sole", &[1]).await;
    let shared = fixture.put_on("/shared", &[1, 2]).await;
    fixture.put_on("/elsewhere", &[2, 3]).await;
    let bad_there = fixture.put_on("/bad there", &[1, 3]).await;
    fixture.mark_bad(bad_there, 1).await;
    let found = |holdings: Holdings| (holdings.chunks, holdings.loss.chunks, example(&holdings));
    let holdings = scan_holdings(&fixture.namespace, NodeId(1), &all_heard()).await;
    assert_eq!(found(holdings), (3, 1, Some(sole)));
    let lost = except(&[2], Contact::Lost);
    let holdings = scan_holdings(&fixture.namespace, NodeId(1), &lost).await;
    assert_eq!(found(holdings), (3, 2, Some(sole.min(shared))), "node 2 is lost");
    fixture.mark_bad(shared, 2).await;
    let holdings = scan_holdings(&fixture.namespace, NodeId(1), &all_heard()).await;
    assert_eq!(found(holdings), (3, 2, Some(sole.min(shared))));
    for file in ["/sole", "/shared", "/bad there"] {
        fixture.delete(file, false, true).await.unwrap();
    }
    fixture.reap(true).await;
    let holdings = scan_holdings(&fixture.namespace, NodeId(1), &all_heard()).await;
    assert_eq!(found(holdings), (0, 0, None), "all are waiting for deletion");
}

#[tokio::test]
async fn changes_during_a_scan_of_holdings_are_found_at_its_end() {
    let mut fixture = Fixture::new().await;
    let (scope, node) = (Scope::internal(), NodeId(1));
    let chunk = fixture.put_on("/f", &[1, 2]).await;
    let namespace = &fixture.namespace;
    let passed = async || {
        let scan = namespace.begin_holdings_scan(scope, node, &all_heard()).await;
        let mut scan = scan.unwrap();
        while !namespace.continue_holdings_scan(&mut scan).await.unwrap() {}
        scan
    };
    let quiet = namespace.end_holdings_scan(passed().await, &all_heard()).await.unwrap();
    assert_eq!(quiet.map(|holdings| (holdings.chunks, holdings.loss.chunks)), Some((1, 0)));
    // The other replica's node is lost.
    let lost = except(&[2], Contact::Lost);
    let decided = namespace.end_holdings_scan(passed().await, &lost).await.unwrap();
    assert_eq!(decided, None, "another scan has to decide");
    // The other replica is found bad.
    let scan = passed().await;
    fixture.mark_bad(chunk, 2).await;
    let decided = namespace.end_holdings_scan(scan, &all_heard()).await.unwrap();
    assert_eq!(decided, None, "another scan has to decide");
    let found = scan_holdings(namespace, node, &all_heard()).await;
    assert_eq!((found.chunks, found.loss.chunks, example(&found)), (1, 1, Some(chunk)));
    assert_eq!(found.loss.bytes, CHUNK);
}

/// What a loss that was accepted consists of.
#[tokio::test]
async fn loss_of_other_chunks_is_another_loss() {
    let mut fixture = Fixture::new().await;
    let first = fixture.put_on("/first", &[1]).await;
    let before = scan_holdings(&fixture.namespace, NodeId(1), &all_heard()).await;
    let again = scan_holdings(&fixture.namespace, NodeId(1), &all_heard()).await;
    assert_eq!((before.loss, example(&before)), (again.loss, Some(first)));
    fixture.delete("/first", false, true).await.unwrap();
    fixture.reap(true).await;
    fixture.put_on("/second", &[1]).await;
    let after = scan_holdings(&fixture.namespace, NodeId(1), &all_heard()).await;
    assert_eq!((after.loss.chunks, after.loss.bytes), (before.loss.chunks, before.loss.bytes));
    assert_ne!(after.loss, before.loss);
}

/// F4: two coordinators with different views, each counting on the node that the other removes.
#[tokio::test]
async fn f04_two_nodes_counting_on_each_other_are_not_both_removed() {
    let mut fixture = Fixture::new().await;
    let chunk = fixture.put_on("/f", &[1, 2]).await;
    let namespace = &fixture.namespace;
    let scope = Scope::internal();
    for node in [1, 2] {
        namespace.set_leaving(scope, NodeId(node), true).await.unwrap();
    }
    let seen_by = |lost| except(&[lost], Contact::Lost);
    let first = scan_holdings(namespace, NodeId(1), &seen_by(1)).await;
    let second = scan_holdings(namespace, NodeId(2), &seen_by(2)).await;
    assert_eq!((first.loss.chunks, second.loss.chunks), (0, 0), "each counts on the other node");
    assert!(namespace.remove_node(scope, &first).await.unwrap());
    assert!(!namespace.remove_node(scope, &second).await.unwrap(), "the last replica is on it");
    let again = scan_holdings(namespace, NodeId(2), &seen_by(2)).await;
    assert_eq!((again.loss.chunks, example(&again)), (1, Some(chunk)));
}

#[tokio::test]
async fn drain_goes_from_active_to_drained_and_back() {
    let fixture = Fixture::new().await;
    let (namespace, scope, node) = (&fixture.namespace, Scope::internal(), NodeId(1));
    for _ in 0..2 {
        assert_eq!(namespace.drain(scope, node).await.unwrap().state, NodeState::Draining);
    }
    let (_, version) = namespace.node_versioned(scope, node).await.unwrap().unwrap();
    assert_eq!(namespace.undrain(scope, node).await.unwrap().state, NodeState::Active);
    namespace.drain(scope, node).await.unwrap();
    let stale = namespace.set_emptied(scope, node, version, Emptied::Node, None).await;
    assert_eq!(stale.unwrap(), None, "the node was in use meanwhile");
    let (_, version) = namespace.node_versioned(scope, node).await.unwrap().unwrap();
    let drained = namespace.set_emptied(scope, node, version, Emptied::Node, None).await;
    assert_eq!(drained.unwrap().unwrap().state, NodeState::Drained);
    assert_eq!(namespace.drain(scope, node).await.unwrap().state, NodeState::Drained);
    assert_eq!(namespace.undrain(scope, node).await.unwrap().state, NodeState::Active);
    let new = NodeId(50);
    namespace.register(scope, &registration(new, 0), false).await.unwrap();
    assert_eq!(code(namespace.drain(scope, new).await), ErrorCode::InvalidArgument);
    assert_eq!(code(namespace.drain(scope, NodeId(51)).await), ErrorCode::NotFound);
}

#[tokio::test]
async fn receipts_of_drained_nodes_and_of_disks_given_up_do_not_count() {
    let mut fixture = Fixture::new().await;
    let scope = Scope::internal();
    let replication = Replication { factor: 3, min_write: Some(3) };
    fixture.namespace.set_replication(scope, replication).await.unwrap();
    fixture.candidates.retain(|candidate| candidate.node.0 <= 3);
    for (number, give_up) in [false, true].into_iter().enumerate() {
        let namespace = &fixture.namespace;
        let plan = fixture.plan(&format!("/{number}"), CHUNK).await.unwrap();
        let node = NodeId(3);
        if give_up {
            let lost =
                namespace.set_disks_lost(scope, node, &[DiskId(3)], true, None).await.unwrap();
            assert_eq!(lost.disks[0].state, NodeDiskState::Lost);
        } else {
            namespace.drain(scope, node).await.unwrap();
            let (_, version) = namespace.node_versioned(scope, node).await.unwrap().unwrap();
            namespace.set_emptied(scope, node, version, Emptied::Node, None).await.unwrap();
        }
        let refused = namespace.confirm(scope, &fixture.confirm_of(&plan), None).await;
        assert!(refused.is_err(), "{refused:?}");
        namespace.undrain(scope, node).await.unwrap();
    }
}

#[tokio::test]
async fn retiring_disk_can_be_used_again() {
    let fixture = Fixture::new().await;
    let (namespace, scope, node) = (&fixture.namespace, Scope::internal(), NodeId(1));
    let disk = DiskId(1);
    let retired = namespace.set_retiring(scope, node, disk, true).await.unwrap();
    assert!(retired.disks[0].is_retiring && retired.disks[0].is_present());
    let (_, version) = namespace.node_versioned(scope, node).await.unwrap().unwrap();
    let emptied = namespace.set_emptied(scope, node, version, Emptied::Disks(&[disk]), None).await;
    assert_eq!(emptied.unwrap().unwrap().disks[0].state, NodeDiskState::Clear);
    let used = namespace.set_retiring(scope, node, disk, false).await.unwrap();
    assert!(!used.disks[0].is_retiring && used.disks[0].is_present());
    let unknown = namespace.set_retiring(scope, node, DiskId(99), true).await;
    assert!(matches!(unknown, Err(Error::UnknownDisk { .. })));
}

/// Whatever the cluster is like, a check without a scan never says yes where a scan says no, and
/// decides whenever no other node is away.
#[tokio::test]
async fn safe_to_stop_without_a_scan_never_says_yes_where_a_scan_says_no() {
    let (mut decided, mut refused) = (0, 0);
    for seed in 0..60 {
        let random = dfs_types::SeededRandom::new(seed);
        let mut fixture = Fixture::new().await;
        for number in 0..8 {
            let mut nodes: Vec<u128> = (1..=4).collect();
            for _ in 0..random.below(3) {
                nodes.remove(random.below(nodes.len() as u64) as usize);
            }
            let chunk = fixture.put_on(&format!("/{number}"), &nodes).await;
            if random.below(4) == 0 {
                fixture.mark_bad(chunk, nodes[random.below(nodes.len() as u64) as usize]).await;
            }
        }
        let replication = Replication { factor: 3, min_write: None };
        fixture.namespace.set_replication(Scope::internal(), replication).await.unwrap();
        let contact = [Contact::Silent, Contact::Lost][random.below(2) as usize];
        let silent =
            if random.below(3) == 0 { vec![1 + u128::from(random.below(4))] } else { vec![] };
        let liveness = except(&silent, contact);
        if random.below(5) == 0 {
            fixture.namespace.drain(Scope::internal(), NodeId(2)).await.unwrap();
        }
        for node in 1..=4 {
            let nodes = BTreeSet::from([NodeId(node)]);
            let quick = fixture.namespace.safe_to_stop(Scope::internal(), &nodes, &liveness).await;
            let slow = scanned(&fixture.namespace, &nodes, &liveness).await;
            let is_alone = silent.iter().all(|silent| *silent == node);
            let Some(quick) = quick.unwrap() else {
                assert!(!is_alone, "seed {seed}: undecided");
                continue;
            };
            assert!(is_alone, "seed {seed}: another node is away");
            assert_eq!(quick.is_safe(), slow.is_safe(), "seed {seed} node {node}: {slow:?}");
            assert_eq!(quick.chunks_below, slow.chunks_below, "seed {seed} node {node}");
            (decided, refused) = (decided + 1, refused + u64::from(!quick.is_safe()));
        }
        let both = BTreeSet::from([NodeId(1), NodeId(2)]);
        let quick = fixture.namespace.safe_to_stop(Scope::internal(), &both, &liveness).await;
        assert_eq!(quick.unwrap(), None, "two nodes at once take a scan");
    }
    assert!(decided > 100 && refused > 10, "{decided} {refused}");
}
