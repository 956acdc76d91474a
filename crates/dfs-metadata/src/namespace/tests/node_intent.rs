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
        self.namespace.safe_to_stop(Scope::internal(), &nodes, &all_heard()).await.unwrap()
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
        self.namespace.holdings(Scope::internal(), NodeId(node), &all_heard()).await.unwrap()
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
    let safety = fixture.namespace.safe_to_stop(Scope::internal(), &nodes, &silent).await.unwrap();
    assert_eq!(
        (safety.chunks_below, safety.chunks_unreadable),
        (2, 1),
        "node 2 is not readable now"
    );
    // Chunks without a replica there are not affected.
    let nodes = BTreeSet::from([NodeId(4)]);
    let silent = except(&[1, 2, 3], Contact::Silent);
    let safety = fixture.namespace.safe_to_stop(Scope::internal(), &nodes, &silent).await.unwrap();
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
    let before = fixture.namespace.holdings(Scope::internal(), node, &all_heard()).await.unwrap();
    assert!(
        !fixture.namespace.remove_node(Scope::internal(), &before).await.unwrap(),
        "the node was not leaving"
    );
    // Planned earlier, written by now.
    let plan = fixture.plan("/late", CHUNK).await.unwrap();
    let holdings = fixture.leave(1).await;
    assert_eq!((holdings.chunks, holdings.sole), (0, 0));
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
    assert_eq!((holdings.chunks, holdings.sole, holdings.example), (1, 1, Some(chunk)));
    fixture.namespace.register(Scope::internal(), &registration(node, 1), true).await.unwrap();
    assert!(!fixture.namespace.remove_node(Scope::internal(), &holdings).await.unwrap());
    fixture.namespace.set_leaving(Scope::internal(), node, true).await.unwrap();
    fixture.namespace.set_leaving(Scope::internal(), node, false).await.unwrap();
    let holdings = fixture.namespace.holdings(Scope::internal(), node, &all_heard()).await.unwrap();
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
    let found = |holdings: Holdings| (holdings.chunks, holdings.sole, holdings.example);
    let holdings =
        fixture.namespace.holdings(Scope::internal(), NodeId(1), &all_heard()).await.unwrap();
    assert_eq!(found(holdings), (3, 1, Some(sole)));
    let lost = except(&[2], Contact::Lost);
    let holdings = fixture.namespace.holdings(Scope::internal(), NodeId(1), &lost).await.unwrap();
    assert_eq!(found(holdings), (3, 2, Some(sole.min(shared))), "node 2 is lost");
    fixture.mark_bad(shared, 2).await;
    let holdings =
        fixture.namespace.holdings(Scope::internal(), NodeId(1), &all_heard()).await.unwrap();
    assert_eq!(found(holdings), (3, 2, Some(sole.min(shared))));
    for file in ["/sole", "/shared", "/bad there"] {
        fixture.delete(file, false, true).await.unwrap();
    }
    fixture.reap(true).await;
    let holdings =
        fixture.namespace.holdings(Scope::internal(), NodeId(1), &all_heard()).await.unwrap();
    assert_eq!(found(holdings), (0, 0, None), "all are waiting for deletion");
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
    let first = namespace.holdings(scope, NodeId(1), &seen_by(1)).await.unwrap();
    let second = namespace.holdings(scope, NodeId(2), &seen_by(2)).await.unwrap();
    assert_eq!((first.sole, second.sole), (0, 0), "each counts on the other node");
    assert!(namespace.remove_node(scope, &first).await.unwrap());
    assert!(!namespace.remove_node(scope, &second).await.unwrap(), "the last replica is on it");
    let again = namespace.holdings(scope, NodeId(2), &seen_by(2)).await.unwrap();
    assert_eq!((again.sole, again.example), (1, Some(chunk)));
}
