//! What this coordinator believes of the datanodes: soft state, made of what is stored about them
//! and of their heartbeats, and gone with the process.
//!
//! Pure: `now` is passed in, nothing waits and nothing is sent. Silence counts from the moment the
//! coordinator began to listen at the earliest, so that one that has just started, or that was
//! itself frozen for a while, does not take the whole cluster for dead.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_types::{DiskId, NodeId, NodeState, RegistrationNumber};
use tokio::time::Instant;

use crate::lost::Lost;

/// How long a silence means what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Until a silent node gets no new chunks.
    pub(crate) suspect_after: Duration,
    /// Until its copies are made again elsewhere.
    pub(crate) lost_after: Duration,
}

/// A disk as its node described it last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskReport {
    pub(crate) disk: DiskId,
    pub(crate) capacity: u64,
    pub(crate) free: u64,
    pub(crate) chunks: u64,
    pub(crate) is_failed: bool,
}

/// What is stored of a node, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) address: String,
    pub(crate) zone: String,
    pub(crate) host: String,
    pub(crate) version: String,
    /// What an administrator wants it to be; never Suspect or Lost.
    pub(crate) admin_state: NodeState,
    /// The registration in use.
    pub(crate) registration: RegistrationNumber,
}

/// One heartbeat.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) disks: Vec<DiskReport>,
    pub(crate) is_full: bool,
    pub(crate) is_stopping: bool,
    pub(crate) sessions: u32,
}

/// A node as it is taken for at one moment.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) node: NodeId,
    pub(crate) member: Member,
    pub(crate) state: NodeState,
    pub(crate) disks: Vec<DiskReport>,
    /// Free bytes of its working disks.
    pub(crate) free: u64,
    /// Bytes planned onto it lately, which `free` may not show yet.
    pub(crate) planned: u64,
    /// Bytes of its working disks.
    pub(crate) capacity: u64,
    pub(crate) is_full: bool,
    pub(crate) is_stopping: bool,
    /// Open upload sessions.
    pub(crate) sessions: u32,
    /// How long ago it was heard; `None` if never by this coordinator.
    pub(crate) last_heard: Option<Duration>,
}

impl View {
    /// Whether it may be chosen for chunks, room aside. Broken disks are not full ones: there is
    /// no room to be made on them.
    pub(crate) fn takes_chunks(&self) -> bool {
        self.state.takes_chunks() && !self.is_stopping && self.capacity > 0
    }

    /// Whether it takes no chunks for the moment, whatever its state.
    pub(crate) fn refuses_chunks(&self) -> bool {
        self.is_full || self.is_stopping || self.capacity == 0
    }
}

/// How the nodes are, in numbers, for the text of a refusal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Census {
    /// Part of the cluster.
    pub(crate) known: usize,
    /// Heard, and allowed to take chunks.
    pub(crate) active: usize,
    /// Active, but full or refusing.
    pub(crate) full: usize,
    /// Not heard yet by a coordinator that still listens for the first heartbeats.
    pub(crate) awaited: usize,
}

/// The process of a node that sends heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Speaker {
    pub(crate) registration: RegistrationNumber,
    /// What the process made up when it started; 0 when it has nothing of the kind.
    pub(crate) instance: u64,
}

struct Entry {
    member: Member,
    last_heard: Option<Instant>,
    report: Report,
    /// Number of the heartbeat stream in charge; 0 when there is none.
    stream: u64,
    /// Whose it is.
    speaker: Option<Speaker>,
    /// Which of that process's.
    opened: u64,
    planned: Planned,
}

impl Entry {
    /// Its disks in working order, as it said last.
    fn working(&self) -> impl Iterator<Item = &DiskReport> {
        self.report.disks.iter().filter(|disk| !disk.is_failed)
    }
}

/// Bytes planned onto a node that its heartbeats may not show yet. Halves with time, as plans
/// turn into used space, or into nothing.
#[derive(Debug, Clone, Copy)]
struct Planned {
    bytes: u64,
    at: Instant,
}

impl Planned {
    const HALF_LIFE: Duration = Duration::from_secs(5);

    fn at(self, now: Instant) -> u64 {
        let halvings =
            now.saturating_duration_since(self.at).as_millis() / Self::HALF_LIFE.as_millis();
        self.bytes.checked_shr(halvings.min(64) as u32).unwrap_or(0)
    }
}

/// The nodes.
pub(crate) struct Registry {
    patience: Patience,
    /// Since when this coordinator would have heard a heartbeat.
    listening_since: Instant,
    last_tick: Instant,
    streams: u64,
    nodes: BTreeMap<NodeId, Entry>,
}

impl Registry {
    pub(crate) fn new(patience: Patience, now: Instant) -> Self {
        Self { patience, listening_since: now, last_tick: now, streams: 0, nodes: BTreeMap::new() }
    }

    /// To be called several times in each `suspect_after`. A long gap between two calls means that
    /// this process did not run, and could hear nobody: listening starts anew.
    pub(crate) fn tick(&mut self, now: Instant) {
        if now.saturating_duration_since(self.last_tick) >= self.patience.suspect_after {
            self.listening_since = now;
        }
        self.last_tick = now;
    }

    /// Takes over what is stored of a node.
    pub(crate) fn set_member(&mut self, node: NodeId, member: Member, now: Instant) {
        match self.nodes.get_mut(&node) {
            Some(entry) => entry.member = member,
            None => {
                self.nodes.insert(
                    node,
                    Entry {
                        member,
                        last_heard: None,
                        report: Report::default(),
                        stream: 0,
                        speaker: None,
                        opened: 0,
                        planned: Planned { bytes: 0, at: now },
                    },
                );
            }
        }
    }

    /// A heartbeat stream of a known node begins. It is in charge from now on; the number tells
    /// it from those before, which thereby end. Not so the `opened`th stream of a process of which
    /// a later one is in charge: it was long on its way, and nobody waits for its answers.
    pub(crate) fn open_stream(
        &mut self,
        node: NodeId,
        speaker: Speaker,
        opened: u64,
    ) -> Option<u64> {
        let is_same_process = self.is_heard_from(node, speaker);
        let entry = self.nodes.get_mut(&node)?;
        self.streams += 1;
        if !(is_same_process && opened < entry.opened) {
            entry.stream = self.streams;
            entry.speaker = Some(speaker);
            entry.opened = opened;
        }
        Some(self.streams)
    }

    /// Whether the stream in charge is one of this very process.
    pub(crate) fn is_heard_from(&self, node: NodeId, speaker: Speaker) -> bool {
        speaker.instance != 0
            && self.nodes.get(&node).is_some_and(|entry| entry.speaker == Some(speaker))
    }

    /// Takes a heartbeat over. `None` when the stream is not the one in charge any more.
    pub(crate) fn heard(
        &mut self,
        node: NodeId,
        stream: u64,
        report: Report,
        now: Instant,
    ) -> Option<NodeState> {
        let entry = self.nodes.get_mut(&node).filter(|entry| entry.stream == stream)?;
        entry.last_heard = Some(now);
        entry.report = report;
        Some(self.state_of(self.nodes.get(&node)?, now))
    }

    /// Notes bytes that a plan puts onto a node.
    pub(crate) fn plan(&mut self, node: NodeId, bytes: u64, now: Instant) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            let bytes = entry.planned.at(now).saturating_add(bytes);
            entry.planned = Planned { bytes, at: now };
        }
    }

    /// What the node is taken for.
    pub(crate) fn state(&self, node: NodeId, now: Instant) -> Option<NodeState> {
        self.nodes.get(&node).map(|entry| self.state_of(entry, now))
    }

    /// One node.
    pub(crate) fn view(&self, node: NodeId, now: Instant) -> Option<View> {
        self.nodes.get(&node).map(|entry| self.view_of(node, entry, now))
    }

    /// All nodes that are part of the cluster, in id order.
    pub(crate) fn views(&self, now: Instant) -> Vec<View> {
        self.nodes
            .iter()
            .filter(|(_, entry)| entry.member.admin_state != NodeState::Removed)
            .map(|(node, entry)| self.view_of(*node, entry, now))
            .collect()
    }

    /// How many nodes can take `bytes` more, and why the others cannot.
    pub(crate) fn census(&self, bytes: u64, now: Instant) -> Census {
        let mut census = Census::default();
        for view in self.views(now) {
            census.known += 1;
            if view.takes_chunks() {
                census.active += 1;
                census.full += usize::from(view.is_full || view.free <= bytes);
            } else if view.last_heard.is_none() && view.state == NodeState::Suspect {
                census.awaited += 1;
            }
        }
        census
    }

    /// Whose copies count for nothing.
    pub(crate) fn lost(&self, now: Instant) -> Lost {
        let mut lost = Lost::default();
        for (node, entry) in &self.nodes {
            if matches!(self.state_of(entry, now), NodeState::Lost | NodeState::Removed) {
                lost.add_node(*node);
            } else if entry.last_heard.is_some() {
                lost.add_working(*node, entry.working().map(|disk| disk.disk));
            }
        }
        lost
    }

    /// How long this coordinator would have heard a heartbeat.
    pub(crate) fn listened(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.listening_since)
    }

    /// Whether it is too early to say that a node which was not heard is not there: the first
    /// heartbeats may still be on their way.
    pub(crate) fn is_gathering(&self, now: Instant) -> bool {
        self.listened(now) < self.patience.suspect_after
    }

    fn state_of(&self, entry: &Entry, now: Instant) -> NodeState {
        let wanted = entry.member.admin_state;
        match wanted {
            NodeState::Active | NodeState::Draining | NodeState::Drained => {}
            // Silence means nothing on a node that holds nothing, or is down on purpose.
            _ => return wanted,
        }
        let heard_from = entry.last_heard.unwrap_or(self.listening_since).max(self.listening_since);
        let silence = now.saturating_duration_since(heard_from);
        if silence >= self.patience.lost_after {
            NodeState::Lost
        } else if silence >= self.patience.suspect_after || entry.last_heard.is_none() {
            NodeState::Suspect
        } else {
            wanted
        }
    }

    fn view_of(&self, node: NodeId, entry: &Entry, now: Instant) -> View {
        let free = entry.working().map(|disk| disk.free).fold(0, u64::saturating_add);
        View {
            node,
            member: entry.member.clone(),
            state: self.state_of(entry, now),
            disks: entry.report.disks.clone(),
            free,
            planned: entry.planned.at(now),
            capacity: entry.working().map(|disk| disk.capacity).fold(0, u64::saturating_add),
            is_full: entry.report.is_full,
            is_stopping: entry.report.is_stopping,
            sessions: entry.report.sessions,
            last_heard: entry.last_heard.map(|at| now.saturating_duration_since(at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { suspect_after: Duration::from_secs(10), lost_after: Duration::from_mins(1) };

    const SPEAKER: Speaker = Speaker { registration: RegistrationNumber(1), instance: 1 };

    fn member(admin_state: NodeState) -> Member {
        Member {
            address: "a:1".to_owned(),
            zone: String::new(),
            host: String::new(),
            version: String::new(),
            admin_state,
            registration: RegistrationNumber(1),
        }
    }

    fn report(free: u64) -> Report {
        let disk = DiskId(1);
        Report {
            disks: vec![DiskReport { disk, capacity: 1_000, free, chunks: 0, is_failed: false }],
            ..Report::default()
        }
    }

    /// A registry, its start, and a clock that ticks once a second on the way to each moment.
    struct World {
        registry: Registry,
        start: Instant,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            let start = Instant::now();
            Self { registry: Registry::new(PATIENCE, start), start, now: start }
        }

        fn node(&mut self, id: u128, state: NodeState) -> NodeId {
            self.registry.set_member(NodeId(id), member(state), self.now);
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
            let stream = self.registry.open_stream(node, SPEAKER, 1).unwrap();
            self.registry.heard(node, stream, report(500), self.now).unwrap();
            stream
        }

        fn state(&self, node: NodeId) -> NodeState {
            self.registry.state(node, self.now).unwrap()
        }
    }

    #[test]
    fn silence_makes_suspect_then_lost_and_a_word_brings_back() {
        let mut world = World::new();
        let node = world.node(1, NodeState::Active);
        let stream = world.hear(node);
        for (seconds, state) in [
            (9, NodeState::Active),
            (10, NodeState::Suspect),
            (59, NodeState::Suspect),
            (60, NodeState::Lost),
            (1_000, NodeState::Lost),
        ] {
            assert_eq!(world.at(seconds).state(node), state, "after {seconds} s");
        }
        let now = world.now;
        let state = world.registry.heard(node, stream, report(1), now);
        assert_eq!(state, Some(NodeState::Active));
        assert_eq!(world.at(1_009).state(node), NodeState::Active);
    }

    #[test]
    fn a_coordinator_that_just_started_judges_nobody() {
        let mut world = World::new();
        let node = world.node(1, NodeState::Active);
        assert_eq!(world.state(node), NodeState::Suspect);
        assert!(world.registry.is_gathering(world.now));
        assert_eq!(world.at(59).state(node), NodeState::Suspect);
        assert!(!world.registry.is_gathering(world.now));
        assert_eq!(world.at(60).state(node), NodeState::Lost);
    }

    #[test]
    fn a_coordinator_that_was_frozen_listens_anew() {
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
    fn what_an_administrator_wants_stands_above_silence() {
        let mut world = World::new();
        let states = [
            (NodeState::Joining, NodeState::Joining),
            (NodeState::Maintenance, NodeState::Maintenance),
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
        assert_eq!(world.registry.views(world.now).len(), 4, "a removed node is not shown");
        let lost = world.registry.lost(world.now);
        let lost: Vec<u128> = lost.nodes().iter().map(|node| node.0).collect();
        assert_eq!(lost, [2, 3, 4]);
    }

    #[test]
    fn a_newer_stream_ends_the_older() {
        let mut world = World::new();
        let node = world.node(1, NodeState::Active);
        let old = world.hear(node);
        let new = world.hear(node);
        let now = world.now;
        assert_eq!(world.registry.heard(node, old, report(1), now), None);
        assert!(world.registry.heard(node, new, report(1), now).is_some());
        assert!(world.registry.is_heard_from(node, SPEAKER));
        let nameless = Speaker { instance: 0, ..SPEAKER };
        for other in [
            Speaker { instance: 2, ..SPEAKER },
            Speaker { registration: RegistrationNumber(2), ..SPEAKER },
            nameless,
        ] {
            assert!(!world.registry.is_heard_from(node, other), "{other:?}");
        }
        world.registry.open_stream(node, nameless, 1).unwrap();
        assert!(!world.registry.is_heard_from(node, nameless), "they cannot be told apart");
        assert_eq!(
            world.registry.open_stream(NodeId(9), SPEAKER, 1),
            None,
            "an unknown node has no stream"
        );
    }

    #[test]
    fn a_stream_that_was_long_on_its_way_ends_no_newer_one() {
        let mut world = World::new();
        let node = world.node(1, NodeState::Active);
        let newer = world.registry.open_stream(node, SPEAKER, 3).unwrap();
        let late = world.registry.open_stream(node, SPEAKER, 2).unwrap();
        let now = world.now;
        assert_eq!(world.registry.heard(node, late, report(1), now), None);
        assert!(world.registry.heard(node, newer, report(1), now).is_some());
        assert!(world.registry.is_heard_from(node, SPEAKER));
        // Another process counts from the start, and a later stream ends the one before.
        let restarted = Speaker { instance: 2, ..SPEAKER };
        let first = world.registry.open_stream(node, restarted, 1).unwrap();
        assert!(world.registry.heard(node, first, report(1), now).is_some());
        let second = world.registry.open_stream(node, restarted, 2).unwrap();
        assert_eq!(world.registry.heard(node, first, report(1), now), None);
        assert!(world.registry.heard(node, second, report(1), now).is_some());
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
    fn the_census_tells_full_from_silent_from_awaited() {
        let mut world = World::new();
        for id in 1..=4 {
            world.node(id, NodeState::Active);
        }
        world.node(5, NodeState::Removed);
        world.hear(NodeId(1));
        let stream = world.registry.open_stream(NodeId(2), SPEAKER, 1).unwrap();
        let refusing = Report { is_full: true, ..report(500) };
        world.registry.heard(NodeId(2), stream, refusing, world.now);
        world.at(9);
        let census = |world: &World, bytes| world.registry.census(bytes, world.now);
        assert_eq!(census(&world, 100), Census { known: 4, active: 2, full: 1, awaited: 2 });
        assert_eq!(census(&world, 500).full, 2);
    }

    #[test]
    fn a_failed_disk_counts_for_nothing() {
        let mut world = World::new();
        let node = world.node(1, NodeState::Active);
        let stream = world.registry.open_stream(node, SPEAKER, 1).unwrap();
        let mut two = report(500);
        two.disks.push(DiskReport { is_failed: true, disk: DiskId(2), ..two.disks[0] });
        world.registry.heard(node, stream, two, world.now);
        let view = world.registry.view(node, world.now).unwrap();
        assert_eq!((view.free, view.capacity, view.disks.len()), (500, 1_000, 2));
    }

    #[test]
    fn a_node_that_stops_or_has_no_working_disk_is_not_full_but_away() {
        let mut world = World::new();
        let (broken, stopping) =
            (world.node(1, NodeState::Active), world.node(2, NodeState::Active));
        let stream = world.registry.open_stream(broken, SPEAKER, 1).unwrap();
        let mut failed = Report { is_full: true, ..report(500) };
        failed.disks[0].is_failed = true;
        world.registry.heard(broken, stream, failed, world.now);
        let stream = world.registry.open_stream(stopping, SPEAKER, 1).unwrap();
        let stops = Report { is_stopping: true, ..report(500) };
        world.registry.heard(stopping, stream, stops, world.now);
        let census = world.registry.census(100, world.now);
        assert_eq!(census, Census { known: 2, active: 0, full: 0, awaited: 0 });
        for node in [broken, stopping] {
            let view = world.registry.view(node, world.now).unwrap();
            assert!(view.refuses_chunks() && !view.takes_chunks());
        }
    }
}
