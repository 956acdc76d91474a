//! Silence, maintenance and their effects, with a manual clock.

use dfs_metadata::chunk_health::DiskHealth;
use dfs_types::{DiskNumber, DiskState};

use super::*;

const TIMEOUTS: LivenessTimeouts =
    LivenessTimeouts { suspect_after: Duration::from_secs(10), lost_after: Duration::from_mins(1) };

const SOURCE: HeartbeatSource =
    HeartbeatSource { registration: RegistrationNumber(1), instance: 1 };

fn member(admin_state: NodeState) -> Member {
    Member {
        address: "a:1".to_owned(),
        zone: String::new(),
        host: String::new(),
        version: String::new(),
        admin_state,
        maintenance_until: None,
        is_leaving: false,
        is_given_up: false,
        registration: RegistrationNumber(1),
        disks: Vec::new(),
    }
}

fn disk(number: u32, id: u128) -> NodeDisk {
    NodeDisk::new(DiskNumber(number), DiskId(id))
}

fn report(free: u64) -> Report {
    let disk = DiskId(1);
    Report {
        disks: vec![DiskReport {
            disk,
            capacity: 1_000,
            free,
            chunks: 0,
            writers: 0,
            state: DiskState::Healthy,
            reason: String::new(),
            file_system: None,
            file_system_free: free,
            scrub: None,
            read_percent: None,
        }],
        ..Report::default()
    }
}

/// A registry, its start, and a clock that ticks every second up to each moment.
struct World {
    registry: Registry,
    start: Instant,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let start = Instant::now();
        Self { registry: Registry::new(TIMEOUTS, start), start, now: start }
    }

    fn node(&mut self, id: u128, state: NodeState) -> NodeId {
        let disks = vec![disk(id as u32, 1)];
        self.registry.set_member(NodeId(id), Member { disks, ..member(state) }, self.now);
        NodeId(id)
    }

    fn at(&mut self, seconds: u64) -> &mut Self {
        while self.now < self.start + Duration::from_secs(seconds) {
            self.now += Duration::from_secs(1);
            self.registry.tick(self.now);
        }
        self
    }

    fn hear(&mut self, node: NodeId) -> u64 {
        let stream = self.registry.open_stream(node, SOURCE, 1).unwrap();
        self.registry.record_heartbeat(node, stream, report(500), self.now).unwrap();
        stream
    }

    fn state(&self, node: NodeId) -> NodeState {
        self.registry.state(node, self.now).unwrap()
    }
}

#[test]
fn disks_of_an_unreadable_node_are_lost_after_the_grace_period() {
    let mut world = World::new();
    let (unknown, now) = (DiskNumber(9), world.now);
    let disk = |world: &World| world.registry.cluster(world.now).disk(unknown);
    world.registry.set_unreadable(true);
    assert_eq!(world.registry.cluster(now).disk(unknown), DiskHealth::Suspect);
    world.at(59);
    assert_eq!(disk(&world), DiskHealth::Suspect);
    world.at(60);
    assert_eq!(disk(&world), DiskHealth::Lost);
    world.registry.set_unreadable(false);
    assert_eq!(disk(&world), DiskHealth::Suspect);
}

#[test]
fn silence_makes_suspect_then_lost_until_heard_again() {
    let mut world = World::new();
    let node = world.node(1, NodeState::Active);
    let stream = world.hear(node);
    for (seconds, state, lost_in) in [
        (9, NodeState::Active, Some(51)),
        (10, NodeState::Suspect, Some(50)),
        (59, NodeState::Suspect, Some(1)),
        (60, NodeState::Lost, None),
        (1_000, NodeState::Lost, None),
    ] {
        assert_eq!(world.at(seconds).state(node), state, "after {seconds} s");
        let view = world.registry.view(node, world.now).unwrap();
        assert_eq!(view.lost_in, lost_in.map(Duration::from_secs), "after {seconds} s");
    }
    let now = world.now;
    let state = world.registry.record_heartbeat(node, stream, report(1), now);
    assert_eq!(state, Some(NodeState::Active));
    assert_eq!(world.at(1_009).state(node), NodeState::Active);
}

#[test]
fn new_coordinator_judges_no_node() {
    let mut world = World::new();
    let node = world.node(1, NodeState::Active);
    assert_eq!(world.state(node), NodeState::Suspect);
    assert!(world.registry.is_gathering(world.now));
    assert_eq!(world.at(59).state(node), NodeState::Suspect);
    assert!(!world.registry.is_gathering(world.now));
    assert_eq!(world.at(60).state(node), NodeState::Lost);
}

#[test]
fn frozen_coordinator_starts_listening_again() {
    let mut world = World::new();
    let node = world.node(1, NodeState::Active);
    world.hear(node);
    world.now += Duration::from_hours(1);
    world.registry.tick(world.now);
    assert_eq!(world.state(node), NodeState::Active);
    assert!(world.registry.is_gathering(world.now));
    world.at(3_610);
    assert_eq!(world.state(node), NodeState::Suspect);
    world.at(3_660);
    assert_eq!(world.state(node), NodeState::Lost);
}

#[test]
fn desired_state_overrides_silence() {
    let mut world = World::new();
    let states = [
        (NodeState::Joining, NodeState::Joining),
        (NodeState::Removed, NodeState::Removed),
        (NodeState::Draining, NodeState::Lost),
        (NodeState::Drained, NodeState::Lost),
    ];
    for (id, (wanted, _)) in states.iter().enumerate() {
        let node = world.node(id as u128, *wanted);
        world.hear(node);
        assert_eq!(world.state(node), *wanted);
    }
    world.at(100);
    for (id, (wanted, silent)) in states.iter().enumerate() {
        assert_eq!(world.state(NodeId(id as u128)), *silent, "{wanted}");
    }
    assert_eq!(world.registry.views(world.now).len(), 3, "a removed node is not shown");
    let lost = world.registry.cluster(world.now).lost();
    assert_eq!(lost.known, BTreeSet::from([1, 2, 3].map(DiskNumber)));
}

#[test]
fn maintenance_overrides_silence_until_it_ends() {
    let mut world = World::new();
    let (end, second) = (world.start + Duration::from_mins(5), Duration::from_secs(1));
    let (node, other) = (NodeId(1), NodeId(2));
    let disks = vec![disk(1, 1)];
    let down = Member { maintenance_until: Some(end), disks, ..member(NodeState::Active) };
    for id in [node, other] {
        world.registry.set_member(id, down.clone(), world.now);
        world.hear(id);
    }
    let stream = world.hear(other);
    assert_eq!(world.at(1).state(node), NodeState::Maintenance, "at once, though it is responsive");
    assert_eq!(world.registry.responsive(world.now).len(), 2);
    assert_eq!(world.at(299).state(node), NodeState::Maintenance);
    let view = world.registry.view(node, world.now).unwrap();
    assert_eq!(view.maintenance_left, Some(second));
    assert!(!view.takes_chunks());
    assert!(world.registry.cluster(world.now).lost().is_empty());
    // One returns; its heartbeats are recorded but do not end the maintenance.
    let state = world.registry.record_heartbeat(other, stream, report(1), world.now);
    assert_eq!(state, Some(NodeState::Maintenance));
    assert_eq!(world.registry.responsive(world.now), BTreeSet::from([other]));
    assert_eq!(world.at(300).state(node), NodeState::Lost, "its grace period is over");
    assert_eq!(world.state(other), NodeState::Active);
    assert_eq!(world.registry.view(other, world.now).unwrap().maintenance_left, None);
    let removed = Member { admin_state: NodeState::Removed, ..down };
    world.registry.set_member(node, removed, world.start);
    assert_eq!(world.state(node), NodeState::Removed);
}

#[test]
fn silent_and_stopping_nodes_are_not_responsive_and_leaving_ones_take_no_chunks() {
    let mut world = World::new();
    let unheard = world.node(1, NodeState::Active);
    let node = world.node(2, NodeState::Joining);
    let stream = world.hear(node);
    let responsive = |world: &World| world.registry.responsive(world.now);
    world.at(9);
    assert_eq!(responsive(&world), BTreeSet::from([node]), "not {unheard}");
    world.at(10);
    assert!(responsive(&world).is_empty());
    let stops = Report { is_stopping: true, ..report(1) };
    world.registry.record_heartbeat(node, stream, stops, world.now).unwrap();
    assert!(responsive(&world).is_empty());
    for is_leaving in [false, true] {
        let member = Member { is_leaving, ..member(NodeState::Active) };
        world.registry.set_member(node, member, world.now);
        world.hear(node);
        let view = world.registry.view(node, world.now).unwrap();
        assert_eq!(view.takes_chunks(), !is_leaving);
    }
}

#[test]
fn newer_stream_ends_the_older() {
    let mut world = World::new();
    let node = world.node(1, NodeState::Active);
    let old = world.hear(node);
    let new = world.hear(node);
    let now = world.now;
    assert_eq!(world.registry.record_heartbeat(node, old, report(1), now), None);
    assert!(world.registry.record_heartbeat(node, new, report(1), now).is_some());
    assert!(world.registry.has_stream_of(node, SOURCE));
    let nameless = HeartbeatSource { instance: 0, ..SOURCE };
    for other in [
        HeartbeatSource { instance: 2, ..SOURCE },
        HeartbeatSource { registration: RegistrationNumber(2), ..SOURCE },
        nameless,
    ] {
        assert!(!world.registry.has_stream_of(node, other), "{other:?}");
    }
    world.registry.open_stream(node, nameless, 1).unwrap();
    assert!(!world.registry.has_stream_of(node, nameless), "they are indistinguishable");
    assert_eq!(
        world.registry.open_stream(NodeId(9), SOURCE, 1),
        None,
        "an unknown node has no stream"
    );
}

#[test]
fn delayed_stream_does_not_end_a_newer_one() {
    let mut world = World::new();
    let node = world.node(1, NodeState::Active);
    let newer = world.registry.open_stream(node, SOURCE, 3).unwrap();
    let late = world.registry.open_stream(node, SOURCE, 2).unwrap();
    let now = world.now;
    assert_eq!(world.registry.record_heartbeat(node, late, report(1), now), None);
    assert!(world.registry.record_heartbeat(node, newer, report(1), now).is_some());
    assert!(world.registry.has_stream_of(node, SOURCE));
    // Another process counts from the start, and a later stream ends the one before.
    let restarted = HeartbeatSource { instance: 2, ..SOURCE };
    let first = world.registry.open_stream(node, restarted, 1).unwrap();
    assert!(world.registry.record_heartbeat(node, first, report(1), now).is_some());
    let second = world.registry.open_stream(node, restarted, 2).unwrap();
    assert_eq!(world.registry.record_heartbeat(node, first, report(1), now), None);
    assert!(world.registry.record_heartbeat(node, second, report(1), now).is_some());
}

#[test]
fn planned_bytes_count_for_a_while() {
    let mut world = World::new();
    let node = world.node(1, NodeState::Active);
    world.hear(node);
    let planned = |world: &World| world.registry.view(node, world.now).unwrap().planned;
    assert_eq!(planned(&world), 0);
    world.registry.plan(node, 200, world.now);
    world.registry.plan(node, 200, world.now);
    assert_eq!(planned(&world), 400);
    world.at(10);
    assert_eq!(planned(&world), 100);
    world.registry.plan(node, u64::MAX, world.now);
    assert_eq!(planned(&world), u64::MAX);
    world.at(10 + 5 * 64);
    assert_eq!(planned(&world), 0);
}

#[test]
fn node_counts_distinguish_full_silent_and_awaited() {
    let mut world = World::new();
    for id in 1..=4 {
        world.node(id, NodeState::Active);
    }
    world.node(5, NodeState::Removed);
    world.hear(NodeId(1));
    let stream = world.registry.open_stream(NodeId(2), SOURCE, 1).unwrap();
    let refusing = Report { is_full: true, ..report(500) };
    world.registry.record_heartbeat(NodeId(2), stream, refusing, world.now);
    world.at(9);
    let node_counts = |world: &World, bytes| world.registry.node_counts(bytes, world.now);
    assert_eq!(node_counts(&world, 100), NodeCounts { known: 4, active: 2, full: 1, awaited: 2 });
    assert_eq!(node_counts(&world, 500).full, 2);
}

#[test]
fn failed_disk_does_not_count() {
    let mut world = World::new();
    let node = world.node(1, NodeState::Active);
    let stream = world.registry.open_stream(node, SOURCE, 1).unwrap();
    let mut two = report(500);
    let (state, disk) = (DiskState::Failed, DiskId(2));
    two.disks.push(DiskReport { disk, state, ..two.disks[0].clone() });
    world.registry.record_heartbeat(node, stream, two, world.now);
    let view = world.registry.view(node, world.now).unwrap();
    assert_eq!((view.free, view.capacity, view.disks.len()), (500, 1_000, 2));
}

/// F14.
#[test]
fn f14_nodes_on_one_file_system_count_its_space_once() {
    let mut world = World::new();
    let on = |file_system: u128| {
        let mut report = report(900);
        report.disks[0].file_system = Some(FileSystemId(file_system));
        report
    };
    for (id, file_system) in [(1, 7), (2, 7), (3, 7), (4, 8)] {
        let node = world.node(id, NodeState::Active);
        let stream = world.registry.open_stream(node, SOURCE, 1).unwrap();
        world.registry.record_heartbeat(node, stream, on(file_system), world.now);
    }
    let free = |world: &World| {
        let views = world.registry.views(world.now);
        views.iter().map(|view| (view.capacity, view.free)).collect::<Vec<_>>()
    };
    assert_eq!(free(&world), [(400, 300), (400, 300), (400, 300), (1_000, 900)]);
    // A node that moves to another file system leaves its share to the others.
    let node = NodeId(3);
    let stream = world.registry.open_stream(node, SOURCE, 2).unwrap();
    world.registry.record_heartbeat(node, stream, on(8), world.now);
    assert_eq!(free(&world), [(550, 450), (550, 450), (550, 450), (550, 450)]);
}

#[test]
fn file_system_is_contended_if_its_nodes_may_use_more_than_it_has() {
    let mut world = World::new();
    let mut contended = |nodes: &[(u128, u64)], total| {
        for (id, free) in nodes {
            let node = world.node(*id, NodeState::Active);
            let stream = world.registry.open_stream(node, SOURCE, 1).unwrap();
            let mut report = report(*free);
            report.disks[0].file_system = Some(FileSystemId(7));
            report.disks[0].file_system_free = total;
            world.registry.record_heartbeat(node, stream, report, world.now);
        }
        let views = world.registry.views(world.now).into_iter();
        views.map(|view| view.contended.len()).collect::<Vec<_>>()
    };
    assert_eq!(contended(&[(1, 900)], 500), [0], "a node alone on it");
    // Limited to less than their shares, they do not get in each other's way.
    assert_eq!(contended(&[(1, 400), (2, 400)], 800), [0, 0]);
    assert_eq!(contended(&[(1, 400), (2, 400)], 799), [1, 1]);
}

#[test]
fn stopping_or_diskless_node_is_away_not_full() {
    let mut world = World::new();
    let (broken, stopping) = (world.node(1, NodeState::Active), world.node(2, NodeState::Active));
    let stream = world.registry.open_stream(broken, SOURCE, 1).unwrap();
    let mut failed = Report { is_full: true, ..report(500) };
    failed.disks[0].state = DiskState::Failed;
    world.registry.record_heartbeat(broken, stream, failed, world.now);
    let stream = world.registry.open_stream(stopping, SOURCE, 1).unwrap();
    let stops = Report { is_stopping: true, ..report(500) };
    world.registry.record_heartbeat(stopping, stream, stops, world.now);
    let node_counts = world.registry.node_counts(100, world.now);
    assert_eq!(node_counts, NodeCounts { known: 2, active: 0, full: 0, awaited: 0 });
    for node in [broken, stopping] {
        let view = world.registry.view(node, world.now).unwrap();
        assert!(view.refuses_chunks() && !view.takes_chunks());
    }
}

/// Disks 1 to 4 of node 1, with a heartbeat stream.
fn world_of_four_disks() -> (World, u64) {
    let mut world = World::new();
    let disks = [1, 2, 3, 4].map(|number| disk(number, u128::from(number))).to_vec();
    world.registry.set_member(NodeId(1), Member { disks, ..member(NodeState::Active) }, world.now);
    let stream = world.registry.open_stream(NodeId(1), SOURCE, 1).unwrap();
    (world, stream)
}

fn hear_disks(world: &mut World, stream: u64, disks: &[(u128, DiskState)]) {
    let disks = disks.iter().map(|(id, state)| DiskReport {
        disk: DiskId(*id),
        state: *state,
        ..report(500).disks[0].clone()
    });
    let report = Report { disks: disks.collect(), ..Report::default() };
    world.registry.record_heartbeat(NodeId(1), stream, report, world.now).unwrap();
}

fn disk_healths(world: &World) -> [DiskHealth; 4] {
    let cluster = world.registry.cluster(world.now);
    [1, 2, 3, 4].map(|number| cluster.disk(DiskNumber(number)))
}

#[test]
fn disk_is_lost_at_once_when_failed_and_after_the_grace_period_when_hung_or_missing() {
    use DiskHealth::{Good, Lost, Suspect};
    use DiskState::{Failed, Healthy, Hung};
    let (mut world, stream) = world_of_four_disks();
    assert_eq!(disk_healths(&world), [Suspect; 4], "not heard yet");
    // Disk 3 is not reported.
    let reported = [(1, Healthy), (2, Failed), (4, Hung)];
    hear_disks(&mut world, stream, &reported);
    assert_eq!(disk_healths(&world), [Good, Lost, Suspect, Suspect]);
    for seconds in 1..=59 {
        world.at(seconds);
        hear_disks(&mut world, stream, &reported);
    }
    assert_eq!(disk_healths(&world), [Good, Lost, Suspect, Suspect], "within the grace period");
    world.at(60);
    assert_eq!(disk_healths(&world), [Good, Lost, Lost, Lost]);
    hear_disks(&mut world, stream, &[(1, Healthy), (2, Healthy), (3, Healthy), (4, Healthy)]);
    assert_eq!(disk_healths(&world), [Good; 4]);
    world.at(75);
    assert_eq!(disk_healths(&world), [Suspect; 4], "the node is silent");
    world.at(120);
    assert_eq!(disk_healths(&world), [Lost; 4]);
}

/// Lets a second pass with each report of a starting disk, and returns the health of the disk.
fn start_disk(world: &mut World, stream: u64, percents: &[u32]) -> DiskHealth {
    for percent in percents {
        world.at(world.now.duration_since(world.start).as_secs() + 1);
        let mut disk = report(0).disks[0].clone();
        (disk.state, disk.read_percent) = (DiskState::Starting, Some(*percent));
        let report = Report { disks: vec![disk], ..Report::default() };
        world.registry.record_heartbeat(NodeId(1), stream, report, world.now).unwrap();
    }
    disk_healths(world)[0]
}

#[test]
fn starting_disk_is_lost_only_if_it_gets_no_further_for_the_grace_period() {
    use DiskHealth::{Lost, Suspect};
    let (mut world, stream) = world_of_four_disks();
    let slowly: Vec<u32> = (0..200).map(|second| second / 50).collect();
    assert_eq!(start_disk(&mut world, stream, &slowly), Suspect, "after three grace periods");
    // A node that stops again and again while it starts.
    let again: Vec<u32> = (0..55).map(|second| second % 4).collect();
    assert_eq!(start_disk(&mut world, stream, &again[..5]), Suspect);
    assert_eq!(start_disk(&mut world, stream, &again), Lost);
    assert_eq!(start_disk(&mut world, stream, &[4]), Suspect, "it got further");
}

#[test]
fn disk_health_follows_the_reported_state() {
    use DiskHealth::{Good, Leaving, Suspect};
    use DiskState::{Healthy, Missing, Retiring, Returning, Slow};
    let (mut world, stream) = world_of_four_disks();
    hear_disks(&mut world, stream, &[(1, Slow), (2, Retiring), (3, Returning), (4, Missing)]);
    assert_eq!(disk_healths(&world), [Good, Leaving, Suspect, Suspect]);
    let cluster = world.registry.cluster(world.now);
    let is_slow = [1, 2, 3, 4].map(|number| cluster.is_slow(DiskNumber(number)));
    assert_eq!(is_slow, [true, false, false, false]);
    let view = world.registry.view(NodeId(1), world.now).unwrap();
    assert_eq!((view.free, view.capacity), (500, 1_000), "only a slow disk takes chunks");
    hear_disks(&mut world, stream, &[(1, Healthy), (2, Retiring), (3, Returning), (4, Missing)]);
    assert!(!world.registry.cluster(world.now).is_slow(DiskNumber(1)));
}

#[test]
fn disk_to_be_emptied_takes_no_chunks_before_its_node_knows() {
    let (mut world, stream) = world_of_four_disks();
    let disks = [(1, DiskState::Healthy), (2, DiskState::Healthy)];
    hear_disks(&mut world, stream, &disks);
    let view = |world: &World| world.registry.view(NodeId(1), world.now).unwrap();
    assert_eq!((view(&world).free, view(&world).capacity), (1_000, 2_000));
    let mut member = view(&world).member;
    member.disks[1].is_retiring = true;
    world.registry.set_member(NodeId(1), member.clone(), world.now);
    assert_eq!((view(&world).free, view(&world).capacity), (500, 1_000));
    member.disks[0].is_retiring = true;
    world.registry.set_member(NodeId(1), member, world.now);
    assert!(view(&world).refuses_chunks() && !view(&world).takes_chunks());
}
