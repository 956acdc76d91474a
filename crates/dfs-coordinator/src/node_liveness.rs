//! This coordinator's view of the datanodes: soft state from their records and heartbeats, gone
//! with the process.
//!
//! Pure: `now` is passed in, nothing waits and nothing is sent. Silence counts only from the moment
//! the coordinator began to listen, so that a coordinator that has just started, or was frozen for
//! a while, does not consider the whole cluster dead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_metadata::chunk_health::{Cluster, Contact, DiskFault, NodeIntent, NodeLiveness};
use dfs_metadata::namespace::{Liveness, NodeDisk};
use dfs_types::{
    DiskId, DiskScrub, DiskState, FileSystemId, NodeId, NodeState, RegistrationNumber, fair_shares,
};
use tokio::time::Instant;

use crate::build_slots::BuildQuota;

/// Thresholds of silence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LivenessTimeouts {
    /// Silence until a node gets no new chunks.
    pub(crate) suspect_after: Duration,
    /// Silence until its replicas are re-replicated; the same for a missing or hung disk.
    pub(crate) lost_after: Duration,
}

/// A disk in the last report of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DiskReport {
    pub(crate) disk: DiskId,
    pub(crate) capacity: u64,
    pub(crate) free: u64,
    pub(crate) chunks: u64,
    /// Replicas being written to it.
    pub(crate) writers: u64,
    pub(crate) state: DiskState,
    /// Why it is not healthy; empty when it is.
    pub(crate) reason: String,
    /// File system, if known.
    pub(crate) file_system: Option<FileSystemId>,
    /// Free bytes of that file system, shared by all disks on it.
    pub(crate) file_system_free: u64,
    /// Its scrub, once that has started.
    pub(crate) scrub: Option<DiskScrub>,
    /// Percentage that has been read, while it is starting.
    pub(crate) read_percent: Option<u32>,
}

/// The part of a node's record that is needed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) address: String,
    pub(crate) zone: String,
    pub(crate) host: String,
    pub(crate) version: String,
    /// Desired state; never Suspect, Lost or Maintenance.
    pub(crate) admin_state: NodeState,
    /// End of its maintenance, if it is in one.
    pub(crate) maintenance_until: Option<Instant>,
    /// Set while its removal is being checked.
    pub(crate) is_leaving: bool,
    /// Set while an administrator does not expect it back.
    pub(crate) is_given_up: bool,
    /// The registration in use.
    pub(crate) registration: RegistrationNumber,
    /// Every disk it ever registered with.
    pub(crate) disks: Vec<NodeDisk>,
}

impl Member {
    /// Returns the free bytes, and all bytes, of the disks that take chunks. One that is to be emptied
    /// takes none even before its node knows.
    fn open_space(&self, reports: &[DiskReport]) -> (u64, u64) {
        let is_retiring = |id| self.disks.iter().any(|disk| disk.id == id && disk.is_retiring);
        let takes_chunks =
            |report: &&DiskReport| report.state.takes_chunks() && !is_retiring(report.disk);
        let add = |(free, capacity): (u64, u64), report: &DiskReport| {
            (free.saturating_add(report.free), capacity.saturating_add(report.capacity))
        };
        reports.iter().filter(takes_chunks).fold((0, 0), add)
    }
}

/// A process that asks to join as a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process<'a> {
    pub(crate) instance: u64,
    pub(crate) address: &'a str,
}

/// One heartbeat.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) disks: Vec<DiskReport>,
    pub(crate) is_full: bool,
    pub(crate) is_stopping: bool,
    pub(crate) sessions: u32,
    /// Weight of the replicas that it builds at a time, and of those that may be read there for builds
    /// elsewhere.
    pub(crate) build_weight: u32,
}

/// A node at one moment.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) node: NodeId,
    pub(crate) member: Member,
    pub(crate) state: NodeState,
    pub(crate) disks: Vec<DiskReport>,
    /// Free bytes of its disks that take chunks.
    pub(crate) free: u64,
    /// Bytes planned on it recently, which `free` may not reflect yet.
    pub(crate) planned: u64,
    /// Bytes of its disks that take chunks.
    pub(crate) capacity: u64,
    /// File systems of its disks on which other nodes have disks, too, and that have less free space
    /// than all of these may use: the nodes get full together.
    pub(crate) contended: BTreeSet<FileSystemId>,
    pub(crate) is_full: bool,
    pub(crate) is_stopping: bool,
    /// Open upload sessions.
    pub(crate) sessions: u32,
    /// What it builds, and may be read for builds elsewhere, at a time.
    pub(crate) builds: BuildQuota,
    /// Time since its last heartbeat; `None` if this coordinator never got one.
    pub(crate) last_heard: Option<Duration>,
    /// Time until it is lost if it stays silent; `None` if it is lost, or its silence is irrelevant.
    pub(crate) lost_in: Option<Duration>,
    /// Rest of its maintenance, if it is in one.
    pub(crate) maintenance_left: Option<Duration>,
}

impl View {
    /// Returns whether it may be chosen for chunks, regardless of space. Broken disks do not make a
    /// node full: nothing could be freed on them.
    pub(crate) fn takes_chunks(&self) -> bool {
        let may_stay = !self.is_stopping && !self.member.is_leaving;
        self.state.takes_chunks() && may_stay && self.capacity > 0
    }

    /// Changes it to what it will be once a disk retires.
    pub(crate) fn retire(&mut self, disk: DiskId) {
        for known in self.member.disks.iter_mut().filter(|known| known.id == disk) {
            known.is_retiring = true;
        }
        (self.free, self.capacity) = self.member.open_space(&self.disks);
    }

    /// Returns whether it currently takes no chunks, whatever its state.
    pub(crate) fn refuses_chunks(&self) -> bool {
        self.is_full || self.is_stopping || self.capacity == 0
    }
}

/// Numbers of nodes by condition, for error messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NodeCounts {
    /// Members of the cluster.
    pub(crate) known: usize,
    /// Responsive, and allowed to take chunks.
    pub(crate) active: usize,
    /// Active, but full or refusing.
    pub(crate) full: usize,
    /// Not heard from yet, while the coordinator waits for first heartbeats.
    pub(crate) awaited: usize,
}

/// The process that sends a node's heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeartbeatSource {
    pub(crate) registration: RegistrationNumber,
    /// Random number chosen by the process at its start; 0 if it has none.
    pub(crate) instance: u64,
}

struct Entry {
    member: Member,
    last_heard: Option<Instant>,
    report: Report,
    /// Disks that are starting, hung or missing, or that the node does not report.
    unavailable: BTreeMap<DiskId, Unavailable>,
    /// Number of the current heartbeat stream; 0 when there is none.
    stream: u64,
    /// Process behind the current stream.
    source: Option<HeartbeatSource>,
    /// Number of the stream within that process.
    opened: u64,
    /// Set until the next stream: the process must register again, which makes every copy of its
    /// disks an old one.
    must_register: bool,
    planned: Planned,
}

/// Since when a disk is unavailable: since it was noticed, or since more of it was read than ever
/// before. So a long start costs nothing, but a node that stops again and again while it starts does.
#[derive(Debug, Clone, Copy)]
struct Unavailable {
    since: Instant,
    read_percent: u32,
}

impl Entry {
    /// Returns its disks in service, as last reported.
    fn working(&self) -> impl Iterator<Item = &DiskReport> {
        self.report.disks.iter().filter(|disk| disk.state.is_in_service())
    }

    fn reported(&self, id: DiskId) -> Option<&DiskReport> {
        self.report.disks.iter().find(|disk| disk.disk == id)
    }

    /// Returns the state of a disk, as last reported.
    fn disk_state(&self, id: DiskId) -> DiskState {
        self.reported(id).map_or(DiskState::Missing, |disk| disk.state)
    }

    /// Records since when disks are unavailable.
    fn note_unavailable(&mut self, now: Instant) {
        for disk in &self.member.disks {
            let is_unavailable = matches!(
                self.disk_state(disk.id),
                DiskState::Starting | DiskState::Hung | DiskState::Missing
            );
            if !is_unavailable {
                self.unavailable.remove(&disk.id);
                continue;
            }
            let read_percent = self.reported(disk.id).and_then(|disk| disk.read_percent);
            let read_percent = read_percent.unwrap_or(0);
            let noticed = Unavailable { since: now, read_percent };
            let known = self.unavailable.entry(disk.id).or_insert(noticed);
            if read_percent > known.read_percent {
                *known = noticed;
            }
        }
    }

    /// Returns the known faults of its disks.
    fn disk_faults(&self, grace: Duration, now: Instant) -> BTreeMap<DiskId, DiskFault> {
        if self.last_heard.is_none() {
            return BTreeMap::new();
        }
        let fault = |disk: &NodeDisk| {
            let since = self.unavailable.get(&disk.id);
            let is_overdue =
                since.is_some_and(|it| now.saturating_duration_since(it.since) >= grace);
            DiskFault::of(self.disk_state(disk.id), is_overdue)
        };
        let faults = self.member.disks.iter().map(|disk| Some((disk.id, fault(disk)?)));
        faults.flatten().collect()
    }

    fn build_quota(&self) -> BuildQuota {
        // One replica until it has reported.
        BuildQuota::of(self.report.build_weight.max(1))
    }

    fn maintenance_left(&self, now: Instant) -> Option<Duration> {
        let left = self.member.maintenance_until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }
}

/// Bytes planned on a node that its heartbeats may not reflect yet. Halves over time, as plans turn
/// into used space, or into nothing.
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

/// The registry of nodes.
pub(crate) struct Registry {
    timeouts: LivenessTimeouts,
    /// Since when this coordinator could have received heartbeats.
    listening_since: Instant,
    last_tick: Instant,
    streams: u64,
    nodes: BTreeMap<NodeId, Entry>,
    /// Whether the last read found node records that cannot be decoded.
    has_unreadable: bool,
    /// The nodes on each file system, as last reported.
    file_systems: BTreeMap<FileSystemId, BTreeSet<NodeId>>,
}

impl Registry {
    pub(crate) fn new(timeouts: LivenessTimeouts, now: Instant) -> Self {
        Self {
            timeouts,
            listening_since: now,
            last_tick: now,
            streams: 0,
            nodes: BTreeMap::new(),
            has_unreadable: false,
            file_systems: BTreeMap::new(),
        }
    }

    /// Must be called several times per `suspect_after`. A long gap between two calls means that
    /// this process was not running and could not receive heartbeats: listening starts over.
    pub(crate) fn tick(&mut self, now: Instant) {
        if now.saturating_duration_since(self.last_tick) >= self.timeouts.suspect_after {
            self.listening_since = now;
        }
        self.last_tick = now;
    }

    /// Updates the stored state of a node.
    pub(crate) fn set_member(&mut self, node: NodeId, member: Member, now: Instant) {
        match self.nodes.get_mut(&node) {
            Some(entry) => {
                // Another registration is in use: what the process says no longer counts.
                let is_older = |source: HeartbeatSource| source.registration < member.registration;
                if entry.source.is_some_and(is_older) {
                    (entry.stream, entry.source) = (0, None);
                }
                entry.member = member;
            }
            None => {
                self.nodes.insert(
                    node,
                    Entry {
                        member,
                        last_heard: None,
                        report: Report::default(),
                        unavailable: BTreeMap::new(),
                        stream: 0,
                        source: None,
                        opened: 0,
                        must_register: false,
                        planned: Planned { bytes: 0, at: now },
                    },
                );
            }
        }
    }

    /// Begins a heartbeat stream of a known node. Earlier streams end; the returned number
    /// distinguishes them. A stream older than the current one of the same process is refused: it
    /// was delayed, and nobody waits for its replies.
    pub(crate) fn open_stream(
        &mut self,
        node: NodeId,
        source: HeartbeatSource,
        opened: u64,
    ) -> Option<u64> {
        let is_same_process = self.has_stream_of(node, source);
        let entry = self.nodes.get_mut(&node)?;
        self.streams += 1;
        if !(is_same_process && opened < entry.opened) {
            entry.stream = self.streams;
            entry.source = Some(source);
            entry.opened = opened;
            entry.must_register = false;
        }
        Some(self.streams)
    }

    /// Ends a heartbeat stream whose connection was closed.
    pub(crate) fn close_stream(&mut self, node: NodeId, stream: u64) {
        if let Some(entry) = self.nodes.get_mut(&node).filter(|entry| entry.stream == stream) {
            entry.stream = 0;
        }
    }

    /// Returns the address of a node if another process than the applicant is alive as this node. With
    /// disks that are current, the applicant may be a copy of it: then it must register again.
    ///
    /// A process that was killed leaves no word. Another one at its address replaces it at once;
    /// elsewhere, only once the node is silent.
    pub(crate) fn other_process(
        &mut self,
        node: NodeId,
        applicant: Process<'_>,
        is_current: bool,
        now: Instant,
    ) -> Option<String> {
        let is_silent = self.is_silent(node, now);
        let entry = self.nodes.get_mut(&node)?;
        let is_other = entry.source.is_some_and(|source| source.instance != applicant.instance);
        let has_ended = entry.stream == 0
            && (entry.report.is_stopping
                || (entry.member.address == applicant.address && !entry.must_register));
        if !is_other || is_silent || has_ended {
            return None;
        }
        entry.must_register |= is_current;
        Some(entry.member.address.clone())
    }

    /// Returns the address of a node if another process than `instance` has a heartbeat stream.
    pub(crate) fn other_stream(&self, node: NodeId, instance: u64) -> Option<&str> {
        let entry = self.nodes.get(&node).filter(|entry| entry.stream != 0)?;
        let is_other = entry.source.is_some_and(|source| source.instance != instance);
        is_other.then_some(entry.member.address.as_str())
    }

    /// Returns whether the process of a node must register again.
    pub(crate) fn must_register(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|entry| entry.must_register)
    }

    /// Returns whether the current stream is one of this very process.
    pub(crate) fn has_stream_of(&self, node: NodeId, source: HeartbeatSource) -> bool {
        source.instance != 0
            && self.nodes.get(&node).is_some_and(|entry| entry.source == Some(source))
    }

    /// Records a heartbeat. `None` when the stream is no longer current.
    pub(crate) fn record_heartbeat(
        &mut self,
        node: NodeId,
        stream: u64,
        report: Report,
        now: Instant,
    ) -> Option<NodeState> {
        let entry = self.nodes.get_mut(&node).filter(|entry| entry.stream == stream)?;
        entry.last_heard = Some(now);
        let before = std::mem::replace(&mut entry.report, report);
        entry.note_unavailable(now);
        for id in before.disks.iter().filter_map(|disk| disk.file_system) {
            if let Some(nodes) = self.file_systems.get_mut(&id) {
                nodes.remove(&node);
                if nodes.is_empty() {
                    self.file_systems.remove(&id);
                }
            }
        }
        for id in entry.report.disks.iter().filter_map(|disk| disk.file_system) {
            self.file_systems.entry(id).or_default().insert(node);
        }
        Some(self.state_of(self.nodes.get(&node)?, now))
    }

    /// Returns the disks that a node ever registered with; none for an unknown node.
    pub(crate) fn member_disks(&self, node: NodeId) -> &[NodeDisk] {
        self.nodes.get(&node).map_or(&[], |entry| &entry.member.disks)
    }

    /// Adds bytes planned on a node.
    pub(crate) fn plan(&mut self, node: NodeId, bytes: u64, now: Instant) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            let bytes = entry.planned.at(now).saturating_add(bytes);
            entry.planned = Planned { bytes, at: now };
        }
    }

    /// Returns the observed state of a node.
    pub(crate) fn state(&self, node: NodeId, now: Instant) -> Option<NodeState> {
        self.nodes.get(&node).map(|entry| self.state_of(entry, now))
    }

    /// Returns the view of a node.
    pub(crate) fn view(&self, node: NodeId, now: Instant) -> Option<View> {
        self.nodes.get(&node).map(|entry| self.view_of(node, entry, now))
    }

    /// Returns what a node builds at a time; `None` for an unknown node.
    pub(crate) fn build_quota(&self, node: NodeId) -> Option<BuildQuota> {
        self.nodes.get(&node).map(Entry::build_quota)
    }

    /// Returns the views of all members, in id order.
    pub(crate) fn views(&self, now: Instant) -> Vec<View> {
        self.nodes
            .iter()
            .filter(|(_, entry)| entry.member.admin_state != NodeState::Removed)
            .map(|(node, entry)| self.view_of(*node, entry, now))
            .collect()
    }

    /// Counts the nodes that can take `bytes` more, and the others by reason.
    pub(crate) fn node_counts(&self, bytes: u64, now: Instant) -> NodeCounts {
        let mut node_counts = NodeCounts::default();
        for view in self.views(now) {
            node_counts.known += 1;
            if view.takes_chunks() {
                node_counts.active += 1;
                node_counts.full += usize::from(view.is_full || view.free <= bytes);
            } else if view.last_heard.is_none() && view.state == NodeState::Suspect {
                node_counts.awaited += 1;
            }
        }
        node_counts
    }

    /// Records whether there are node records that cannot be decoded.
    pub(crate) fn set_unreadable(&mut self, has_unreadable: bool) {
        self.has_unreadable = has_unreadable;
    }

    /// Returns the health of every disk that chunk records may name. A node whose record cannot be
    /// decoded cannot register: its disks, which are unknown here, are lost once it has been silent
    /// for long enough.
    pub(crate) fn cluster(&self, now: Instant) -> Cluster {
        let mut cluster = Cluster::default();
        for (node, entry) in &self.nodes {
            let member = &entry.member;
            let intent = NodeIntent {
                state: member.admin_state,
                is_leaving: member.is_leaving,
                in_maintenance: entry.maintenance_left(now).is_some(),
            };
            cluster.add_node(*node, intent, &member.disks, &self.liveness_of(entry, now));
        }
        let listening = now.saturating_duration_since(self.listening_since);
        if self.has_unreadable && listening >= self.timeouts.lost_after {
            return cluster.without_unknown();
        }
        cluster
    }

    /// Returns the liveness of all nodes.
    pub(crate) fn liveness(&self, now: Instant) -> Liveness {
        self.nodes.iter().map(|(node, entry)| (*node, self.liveness_of(entry, now))).collect()
    }

    fn liveness_of(&self, entry: &Entry, now: Instant) -> NodeLiveness {
        let is_recent = |at| now.saturating_duration_since(at) < self.timeouts.suspect_after;
        let contact = if self.silence(entry, now) >= self.timeouts.lost_after {
            Contact::Lost
        } else if entry.last_heard.is_some_and(is_recent) && !entry.report.is_stopping {
            Contact::Responsive
        } else {
            Contact::Silent
        };
        NodeLiveness { contact, disks: entry.disk_faults(self.timeouts.lost_after, now) }
    }

    fn silence(&self, entry: &Entry, now: Instant) -> Duration {
        let heard = entry.last_heard.unwrap_or(self.listening_since).max(self.listening_since);
        now.saturating_duration_since(heard)
    }

    /// Returns whether a heartbeat of the node is overdue.
    pub(crate) fn is_silent(&self, node: NodeId, now: Instant) -> bool {
        let lately = |at| now.saturating_duration_since(at) < self.timeouts.suspect_after;
        let heard = self.nodes.get(&node).and_then(|entry| entry.last_heard);
        !self.is_gathering(now) && !heard.is_some_and(lately)
    }

    /// Returns the nodes that are responsive and not stopping, whatever their desired state.
    pub(crate) fn responsive(&self, now: Instant) -> BTreeSet<NodeId> {
        let is_recent = |at| now.saturating_duration_since(at) < self.timeouts.suspect_after;
        let answers =
            |entry: &Entry| entry.last_heard.is_some_and(is_recent) && !entry.report.is_stopping;
        self.nodes.iter().filter(|(_, entry)| answers(entry)).map(|(node, _)| *node).collect()
    }

    /// Returns how long this coordinator could have received heartbeats.
    pub(crate) fn listened(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.listening_since)
    }

    /// Returns whether it is too early to call a silent node absent: first heartbeats may still be
    /// on their way.
    pub(crate) fn is_gathering(&self, now: Instant) -> bool {
        self.listened(now) < self.timeouts.suspect_after
    }

    fn state_of(&self, entry: &Entry, now: Instant) -> NodeState {
        let wanted = entry.member.admin_state;
        match wanted {
            NodeState::Active | NodeState::Draining | NodeState::Drained => {}
            // The silence of a node that holds nothing is irrelevant.
            _ => return wanted,
        }
        if entry.maintenance_left(now).is_some() {
            return NodeState::Maintenance;
        }
        let silence = self.silence(entry, now);
        if silence >= self.timeouts.lost_after {
            NodeState::Lost
        } else if silence >= self.timeouts.suspect_after || entry.last_heard.is_none() {
            NodeState::Suspect
        } else {
            wanted
        }
    }

    /// Returns the time until a node is lost if it stays silent; `None` if it is lost, or its silence
    /// is irrelevant.
    fn lost_in(&self, entry: &Entry, now: Instant) -> Option<Duration> {
        let state = self.state_of(entry, now);
        let is_awaited = matches!(
            state,
            NodeState::Active | NodeState::Draining | NodeState::Drained | NodeState::Suspect
        );
        is_awaited.then(|| self.timeouts.lost_after.saturating_sub(self.silence(entry, now)))
    }

    /// Returns the disks of a node, and the contended file systems among them. The space of a file
    /// system shared by disks of several nodes is counted once: each gets its share.
    fn disks_of(
        &self,
        node: NodeId,
        entry: &Entry,
        now: Instant,
    ) -> (Vec<DiskReport>, BTreeSet<FileSystemId>) {
        let mut disks = entry.report.disks.clone();
        let mut contended = BTreeSet::new();
        for disk in disks.iter_mut().filter(|disk| disk.state.is_in_service()) {
            let Some(id) = disk.file_system else { continue };
            let nodes = self.file_systems.get(&id).into_iter().flatten();
            let entries = nodes.filter_map(|other| Some((*other, self.nodes.get(other)?)));
            let sharing = entries.filter(|(other, entry)| {
                let is_gone =
                    matches!(self.state_of(entry, now), NodeState::Lost | NodeState::Removed);
                *other == node || !is_gone
            });
            let together: Vec<(NodeId, &DiskReport)> = sharing
                .flat_map(|(other, entry)| entry.working().map(move |disk| (other, disk)))
                .filter(|(_, other)| other.file_system == Some(id))
                .collect();
            let total = together.iter().map(|(_, disk)| disk.file_system_free).max().unwrap_or(0);
            let wants: Vec<u64> = together.iter().map(|(_, disk)| disk.free).collect();
            let is_shared = together.iter().any(|(other, _)| *other != node);
            if is_shared && wants.iter().copied().fold(0, u64::saturating_add) > total {
                contended.insert(id);
            }
            let shares = fair_shares(total, &wants);
            let own =
                together.iter().position(|(other, at)| *other == node && at.disk == disk.disk);
            if let Some(share) = own.and_then(|index| shares.get(index).copied()) {
                disk.capacity = disk.capacity.saturating_sub(disk.free).saturating_add(share);
                disk.free = share;
            }
        }
        (disks, contended)
    }

    fn view_of(&self, node: NodeId, entry: &Entry, now: Instant) -> View {
        let (disks, contended) = self.disks_of(node, entry, now);
        let (free, capacity) = entry.member.open_space(&disks);
        View {
            node,
            member: entry.member.clone(),
            state: self.state_of(entry, now),
            disks,
            free,
            planned: entry.planned.at(now),
            capacity,
            contended,
            is_full: entry.report.is_full,
            is_stopping: entry.report.is_stopping,
            sessions: entry.report.sessions,
            builds: entry.build_quota(),
            last_heard: entry.last_heard.map(|at| now.saturating_duration_since(at)),
            lost_in: self.lost_in(entry, now),
            maintenance_left: entry.maintenance_left(now),
        }
    }
}

#[cfg(test)]
mod tests;
