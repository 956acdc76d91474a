//! Registrations: which disks are those of a node, and which are old images or clones.

use dfs_types::{ErrorCode, NodeState, Replication, Scope};

use super::*;

const NEW: NodeId = NodeId(50);

#[tokio::test]
async fn node_registers_confirms_and_returns() {
    let fixture = Fixture::new().await;
    let namespace = &fixture.namespace;
    let first = namespace.register(Scope::internal(), &registration(NEW, 0), false).await.unwrap();
    assert_eq!((first.number.0, first.state), (1, NodeState::Joining));
    assert_eq!(first.key, namespace.keys().receipt(NEW, first.number));
    // It stopped before it wrote the number.
    let second = namespace.register(Scope::internal(), &registration(NEW, 0), false).await.unwrap();
    let early = namespace.confirm_registration(Scope::internal(), NEW, first.number).await;
    assert!(matches!(early, Err(Error::NotRegistered { .. })));
    namespace.confirm_registration(Scope::internal(), NEW, second.number).await.unwrap();
    let node = namespace.confirm_registration(Scope::internal(), NEW, second.number).await.unwrap();
    assert_eq!(node.confirmed, second.number);
    // It wrote the third number, but stopped before its first heartbeat.
    let third = namespace
        .register(Scope::internal(), &registration(NEW, second.number.0), true)
        .await
        .unwrap();
    assert_eq!(third.state, NodeState::Active);
    let fourth = namespace
        .register(Scope::internal(), &registration(NEW, third.number.0), true)
        .await
        .unwrap();
    namespace.confirm_registration(Scope::internal(), NEW, fourth.number).await.unwrap();
    assert_eq!(
        namespace.node(Scope::internal(), NEW).await.unwrap().unwrap().confirmed,
        fourth.number
    );
}

/// K8: the node uses the number as the high part of its stamps and verdict numbers.
#[tokio::test]
async fn k08_registration_is_greater_than_the_start_of_its_node() {
    let namespace = Fixture::new().await.namespace;
    let register = async |start, number| {
        let request = Registration { start, ..registration(NEW, number) };
        let registered = namespace.register(Scope::internal(), &request, true).await.unwrap();
        let confirmed = namespace.confirm_registration(Scope::internal(), NEW, registered.number);
        confirmed.await.unwrap().confirmed.0
    };
    assert_eq!(register(70, 0).await, 71);
    assert_eq!(register(5, 71).await, 72, "an older image of the disks");
}

#[tokio::test]
async fn old_images_and_cloned_disks_are_refused() {
    let fixture = Fixture::new().await;
    let namespace = &fixture.namespace;
    let one = namespace.register(Scope::internal(), &registration(NEW, 0), true).await.unwrap();
    namespace.confirm_registration(Scope::internal(), NEW, one.number).await.unwrap();
    // Two clones register at the same time: at most one of them is confirmed.
    let a = namespace
        .register(Scope::internal(), &registration(NEW, one.number.0), true)
        .await
        .unwrap();
    let b = namespace
        .register(Scope::internal(), &registration(NEW, one.number.0), true)
        .await
        .unwrap();
    assert!(namespace.confirm_registration(Scope::internal(), NEW, a.number).await.is_err());
    namespace.confirm_registration(Scope::internal(), NEW, b.number).await.unwrap();
    for old in [0, one.number.0, a.number.0] {
        let refused = namespace.register(Scope::internal(), &registration(NEW, old), true).await;
        assert!(matches!(refused, Err(Error::OldImage { .. })), "{old}: {refused:?}");
    }
}

/// F3: two registrations in flight; the reply to the second is lost.
#[tokio::test]
async fn f03_lost_registration_reply_does_not_lock_the_node_out() {
    let fixture = Fixture::new().await;
    let (namespace, scope) = (&fixture.namespace, Scope::internal());
    let one = namespace.register(scope, &registration(NEW, 0), true).await.unwrap();
    namespace.confirm_registration(scope, NEW, one.number).await.unwrap();
    let first = namespace.register(scope, &registration(NEW, one.number.0), true).await.unwrap();
    let second = namespace.register(scope, &registration(NEW, one.number.0), true).await.unwrap();
    // By now the disks have the first number, and the cluster expects the second.
    let early = namespace.confirm_registration(scope, NEW, first.number).await;
    assert!(matches!(early, Err(Error::NotRegistered { .. })));
    let third = namespace.register(scope, &registration(NEW, first.number.0), true).await.unwrap();
    assert!(third.number > second.number, "no number is handed out twice");
    namespace.confirm_registration(scope, NEW, third.number).await.unwrap();
    for old in [one.number, first.number, second.number] {
        let refused = namespace.register(scope, &registration(NEW, old.0), true).await;
        assert!(matches!(refused, Err(Error::OldImage { .. })), "{old}: {refused:?}");
    }
    // The metadata was restored: the disks know a greater number than `n/`.
    let after = namespace.register(scope, &registration(NEW, 100), true).await.unwrap();
    assert_eq!(after.number.0, 101);
}

#[tokio::test]
async fn foreign_disks_and_removed_nodes_are_refused() {
    let fixture = Fixture::new().await;
    let namespace = &fixture.namespace;
    let ours = namespace.identity();
    let other = ClusterIdentity { cluster: dfs_types::ClusterId(1), ..ours };
    let newer = ClusterIdentity { incarnation: ours.incarnation.next(), ..ours };
    for cluster in [other, newer] {
        let request = Registration { cluster: Some(cluster), ..registration(NEW, 0) };
        assert_eq!(
            code(namespace.register(Scope::internal(), &request, true).await),
            ErrorCode::WrongCluster
        );
    }
    namespace.set_node_state(Scope::internal(), NodeId(1), NodeState::Removed).await.unwrap();
    let refused = namespace.register(Scope::internal(), &registration(NodeId(1), 1), true).await;
    assert!(matches!(refused, Err(Error::NodeRemoved(_))));
    let refused = namespace.set_node_state(Scope::internal(), NodeId(2), NodeState::Lost).await;
    assert_eq!(code(refused), ErrorCode::InvalidArgument);
    let states: Vec<NodeState> = namespace
        .nodes(Scope::internal())
        .await
        .unwrap()
        .nodes
        .iter()
        .map(|(_, node)| node.state)
        .collect();
    assert_eq!(states[..2], [NodeState::Removed, NodeState::Active]);
}

#[tokio::test]
async fn replication_factor_is_bounded() {
    let fixture = Fixture::new().await;
    for (factor, min_write) in [(0, None), (17, None), (3, Some(4)), (3, Some(0))] {
        let set = fixture
            .namespace
            .set_replication(Scope::internal(), Replication { factor, min_write })
            .await;
        assert_eq!(code(set), ErrorCode::InvalidArgument);
    }
    let wanted = Replication { factor: 2, min_write: Some(1) };
    let revision = fixture.namespace.set_replication(Scope::internal(), wanted).await.unwrap();
    let state = fixture.namespace.cluster_state(Scope::internal()).await.unwrap();
    assert_eq!((state.replication, state.nodes.nodes.len()), (wanted, 4));
    assert!(state.revision >= revision);
    let plan = fixture.plan("/f", 1).await.unwrap();
    assert_eq!((plan.replication_factor, plan.min_write_replicas), (2, 1));
}

#[tokio::test]
async fn node_secret_is_fixed_by_the_first_registration() {
    let fixture = Fixture::new().await;
    let namespace = &fixture.namespace;
    let own = registration(NEW, 0);
    let first = namespace.register(Scope::internal(), &own, true).await.unwrap();
    let secret = dfs_types::NodeSecret::from_slice(&[9; 32]).unwrap();
    // Both before and after the first heartbeat.
    let foreign = Registration { secret, ..own.clone() };
    let refused = namespace.register(Scope::internal(), &foreign, true).await.unwrap_err();
    assert!(matches!(refused, Error::WrongNodeSecret(NEW)), "{refused}");
    namespace.confirm_registration(Scope::internal(), NEW, first.number).await.unwrap();
    let foreign = Registration { registration: first.number, ..foreign };
    let refused = namespace.register(Scope::internal(), &foreign, true).await.unwrap_err();
    assert!(matches!(refused, Error::WrongNodeSecret(NEW)), "{refused}");
    let own = Registration { registration: first.number, ..own };
    namespace.register(Scope::internal(), &own, true).await.unwrap();
}

/// Returns a registration with disks of this cluster.
fn returning(fixture: &Fixture, node: NodeId, number: u64) -> Registration {
    Registration { cluster: Some(fixture.namespace.identity()), ..registration(node, number) }
}

/// Returns the evidence for which deletion is on hold.
async fn hold(fixture: &Fixture) -> Option<super::super::Hold> {
    fixture.namespace.gc_status(Scope::internal()).await.unwrap().hold
}

#[tokio::test]
async fn registration_never_issued_holds_deletion_until_it_is_acknowledged() {
    let fixture = Fixture::new().await;
    let (namespace, scope) = (&fixture.namespace, Scope::internal());
    // Another process, which was permitted to delete before.
    let other = open(&fixture.engine, &fixture.clock, &fixture.random(), None).await.unwrap();
    assert!(other.may_delete().await.unwrap());
    let one = namespace.register(scope, &returning(&fixture, NEW, 0), true).await.unwrap();
    namespace.confirm_registration(scope, NEW, one.number).await.unwrap();
    // A lost reply and an interrupted write to the disks are no evidence.
    for number in [1, 2, 2, 4] {
        namespace.register(scope, &returning(&fixture, NEW, number), true).await.unwrap();
        assert_eq!(hold(&fixture).await, None, "{number}");
    }
    let next = namespace.register(scope, &returning(&fixture, NEW, 9), true).await.unwrap();
    assert_eq!(next.number.0, 10, "the node itself is welcome");
    let found = hold(&fixture).await.unwrap();
    assert!(found.reason.contains("registration 9, but only 5"), "{}", found.reason);
    assert!(!other.may_delete().await.unwrap(), "no process relies on what it knew");
    let held = other.authorise_deletion(scope, None).await;
    assert!(matches!(held, Err(Error::DeletionHeld(_))), "{held:?}");
    let incarnation = namespace.identity().incarnation;
    let blind = other.acknowledge_gc(scope, incarnation, found.number - 1).await;
    assert_eq!(code(blind), ErrorCode::InvalidArgument);
    other.acknowledge_gc(scope, incarnation, found.number).await.unwrap();
    assert_eq!((hold(&fixture).await, namespace.may_delete().await.unwrap()), (None, true));
    // The next evidence is another one.
    namespace.register(scope, &returning(&fixture, NEW, 99), true).await.unwrap();
    assert_eq!(hold(&fixture).await.unwrap().number, found.number + 1);
}

#[tokio::test]
async fn node_that_was_away_while_a_restore_was_acknowledged_holds_deletion_again() {
    let fixture = Fixture::new().await;
    let (namespace, scope) = (&fixture.namespace, Scope::internal());
    let old = ClusterIdentity { incarnation: dfs_types::Incarnation(0), ..namespace.identity() };
    let issued = namespace.node(scope, NodeId(1)).await.unwrap().unwrap().pending;
    let same = Registration { cluster: Some(old), ..registration(NodeId(1), issued.0) };
    assert!(!namespace.register(scope, &same, true).await.unwrap().are_disks_returning);
    assert_eq!(hold(&fixture).await, None, "as after a migration between engines");
    let newer = Registration { cluster: Some(old), ..registration(NodeId(1), 99) };
    for _ in 0..2 {
        assert!(namespace.register(scope, &newer, true).await.unwrap().are_disks_returning);
        assert!(hold(&fixture).await.unwrap().reason.contains("registration 99"));
    }
}

#[tokio::test]
async fn secret_of_a_node_that_the_metadata_lost_counts_from_its_first_heartbeat() {
    let fixture = Fixture::new().await;
    let (namespace, scope) = (&fixture.namespace, Scope::internal());
    let of = |secret: u8| {
        let secret = dfs_types::NodeSecret::from_slice(&[secret; 32]).unwrap();
        Registration { secret, ..returning(&fixture, NodeId(60), 5) }
    };
    namespace.register(scope, &of(1), true).await.unwrap();
    let own = namespace.register(scope, &of(2), true).await.unwrap();
    namespace.confirm_registration(scope, NodeId(60), own.number).await.unwrap();
    let late = namespace.register(scope, &of(1), true).await;
    assert!(matches!(late, Err(Error::WrongNodeSecret(_))), "{late:?}");
}

/// Commits were lost, among them the one that added the node.
#[tokio::test]
async fn unknown_node_of_the_cluster_joins_and_holds_deletion() {
    let fixture = Fixture::new().await;
    let (namespace, scope) = (&fixture.namespace, Scope::internal());
    let known = namespace.nodes(scope).await.unwrap().nodes;
    let known = known.iter().flat_map(|(_, node)| &node.disks).map(|disk| disk.number).max();
    let identity = namespace.identity();
    let earlier = ClusterIdentity { incarnation: dfs_types::Incarnation(0), ..identity };
    for (node, theirs) in [(NodeId(51), identity), (NodeId(52), earlier)] {
        let unknown = Registration { cluster: Some(theirs), start: 7, ..registration(node, 5) };
        // The reply to the first request is lost.
        let first = namespace.register(scope, &unknown, true).await.unwrap();
        let second = namespace.register(scope, &unknown, true).await.unwrap();
        assert!(first.are_disks_returning && second.are_disks_returning);
        assert_eq!((first.number.0, second.number.0), (8, 9), "above all that its disks know");
        let found = hold(&fixture).await.unwrap();
        assert!(found.reason.contains(&node.to_string()), "{}", found.reason);
        assert!(!namespace.may_delete().await.unwrap());
        let stored = namespace.confirm_registration(scope, node, second.number).await.unwrap();
        assert_eq!((stored.state, stored.rejoins_with), (NodeState::Active, None));
        assert!(Some(stored.disks[0].number) > known, "a number that no record names");
        // What its disks hold is acknowledged once.
        namespace.acknowledge_gc(scope, identity.incarnation, found.number).await.unwrap();
        let again = Registration { cluster: Some(identity), ..registration(node, 9) };
        assert!(!namespace.register(scope, &again, true).await.unwrap().are_disks_returning);
        assert_eq!(hold(&fixture).await, None);
    }
}

/// Returns a node whose disks have the newest registration, and the number of an older one.
async fn with_old_image(fixture: &Fixture) -> (u64, u64) {
    let (namespace, scope) = (&fixture.namespace, Scope::internal());
    let mut numbers = vec![0];
    for _ in 0..2 {
        let last = numbers[numbers.len() - 1];
        let next = namespace.register(scope, &returning(fixture, NEW, last), true).await.unwrap();
        namespace.confirm_registration(scope, NEW, next.number).await.unwrap();
        numbers.push(next.number.0);
    }
    (numbers[1], numbers[2])
}

#[tokio::test]
async fn readmitted_old_image_joins_with_its_disks_returning() {
    let fixture = Fixture::new().await;
    let (namespace, scope) = (&fixture.namespace, Scope::internal());
    let (old, newest) = with_old_image(&fixture).await;
    let needless = namespace.readmit(scope, NEW, RegistrationNumber(newest)).await;
    assert_eq!(code(needless), ErrorCode::InvalidArgument);
    let refused = namespace.register(scope, &returning(&fixture, NEW, old), true).await;
    let message = refused.unwrap_err().to_string();
    assert!(message.contains(&format!("dfs node readmit {NEW}")), "{message}");
    namespace.readmit(scope, NEW, RegistrationNumber(old)).await.unwrap();
    let other = namespace.register(scope, &returning(&fixture, NEW, old - 1), true).await;
    assert!(matches!(other, Err(Error::OldImage { .. })), "{other:?}");
    let joined = namespace.register(scope, &returning(&fixture, NEW, old), true).await.unwrap();
    assert!(joined.are_disks_returning && joined.number.0 > newest);
    let joined = namespace.confirm_registration(scope, NEW, joined.number).await.unwrap();
    for (registration, counts) in [(old, false), (newest, false), (joined.confirmed.0, true)] {
        let registration = RegistrationNumber(registration);
        assert_eq!(joined.counts_under(registration), counts, "{registration}");
    }
    for late in [old, newest] {
        let refused = namespace.register(scope, &returning(&fixture, NEW, late), true).await;
        assert!(matches!(refused, Err(Error::OldImage { .. })), "{late}: {refused:?}");
    }
    assert_eq!(hold(&fixture).await, None, "no commit was lost");
}

#[tokio::test]
async fn return_of_the_newest_disks_ends_a_readmission() {
    let fixture = Fixture::new().await;
    let (namespace, scope) = (&fixture.namespace, Scope::internal());
    let (old, newest) = with_old_image(&fixture).await;
    namespace.readmit(scope, NEW, RegistrationNumber(old)).await.unwrap();
    // Its stream was only interrupted: it opens another one with the registration in use.
    let node = namespace.confirm_registration(scope, NEW, RegistrationNumber(newest)).await;
    assert_eq!(node.unwrap().rejoins_with, None);
    let refused = namespace.register(scope, &returning(&fixture, NEW, old), true).await;
    assert!(matches!(refused, Err(Error::OldImage { .. })), "{refused:?}");
    // It registers, and the old image does so too before its first heartbeat.
    namespace.readmit(scope, NEW, RegistrationNumber(old)).await.unwrap();
    let own = namespace.register(scope, &returning(&fixture, NEW, newest), true).await.unwrap();
    assert!(!own.are_disks_returning);
    namespace.confirm_registration(scope, NEW, own.number).await.unwrap();
    let refused = namespace.register(scope, &returning(&fixture, NEW, old), true).await;
    assert!(matches!(refused, Err(Error::OldImage { .. })), "{refused:?}");
}
