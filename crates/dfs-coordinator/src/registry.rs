//! What this coordinator believes of the datanodes: soft state, made of what is stored about them
//! and of their heartbeats, and gone with the process.
//!
//! Pure: `now` is passed in, nothing waits and nothing is sent. Silence counts from the moment the
//! coordinator began to listen at the earliest, so that one that has just started, or that was
//! itself frozen for a while, does not take the whole cluster for dead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_metadata::health::{Cluster, Contact, DiskFault, NodeIntent, NodeLiveness};
use dfs_metadata::namespace::{Liveness, NodeDisk};
use dfs_types::{DiskId, FileSystemId, NodeId, NodeState, RegistrationNumber, fair_shares};
use tokio::time::Instant;

/// How long a silence means what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LivenessTimeouts {
    /// Until a silent node gets no new chunks.
    pub(crate) suspect_after: Duration,
    /// Until its replicas are re-replicated; the same for a disk that its node lacks.
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
    /// The file system that it lies on, if that is known.
    pub(crate) file_system: Option<FileSystemId>,
    /// Bytes that all disks on it together can take.
    pub(crate) file_system_free: u64,
}

/// What is stored of a node, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) address: String,
    pub(crate) zone: String,
    pub(crate) host: String,
    pub(crate) version: String,
    /// What an administrator wants it to be; never Suspect, Lost or Maintenance.
    pub(crate) admin_state: NodeState,
    /// When its maintenance ends, if it is in one.
    pub(crate) maintenance_until: Option<Instant>,
    /// It is being looked at whether it can go.
    pub(crate) is_leaving: bool,
    /// The registration in use.
    pub(crate) registration: RegistrationNumber,
    /// Every disk it ever registered with.
    pub(crate) disks: Vec<NodeDisk>,
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
    /// How much of its maintenance is left, if it is in one.
    pub(crate) maintenance_left: Option<Duration>,
}

impl View {
    /// Whether it may be chosen for chunks, room aside. Broken disks are not full ones: there is
    /// no room to be made on them.
    pub(crate) fn takes_chunks(&self) -> bool {
        let may_stay = !self.is_stopping && !self.member.is_leaving;
        self.state.takes_chunks() && may_stay && self.capacity > 0
    }

    /// Whether it takes no chunks for the moment, whatever its state.
    pub(crate) fn refuses_chunks(&self) -> bool {
        self.is_full || self.is_stopping || self.capacity == 0
    }
}

/// How the nodes are, in numbers, for the text of a refusal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NodeCounts {
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
pub(crate) struct HeartbeatSource {
    pub(crate) registration: RegistrationNumber,
    /// What the process made up when it started; 0 when it has nothing of the kind.
    pub(crate) instance: u64,
}

struct Entry {
    member: Member,
    last_heard: Option<Instant>,
    report: Report,
    /// Disks of the node that it does not report, each with when that was noticed.
    missing: BTreeMap<DiskId, Instant>,
    /// Number of the heartbeat stream in charge; 0 when there is none.
    stream: u64,
    /// Whose it is.
    source: Option<HeartbeatSource>,
    /// Which of that process's.
    opened: u64,
    planned: Planned,
}

impl Entry {
    /// Its disks in working order, as it said last.
    fn working(&self) -> impl Iterator<Item = &DiskReport> {
        self.report.disks.iter().filter(|disk| !disk.is_failed)
    }

    /// Notes since when the node lacks disks.
    fn note_missing(&mut self, now: Instant) {
        let reported = |id: DiskId| self.report.disks.iter().any(|disk| disk.disk == id);
        self.missing.retain(|id, _| !reported(*id));
        for disk in self.member.disks.iter().filter(|disk| !reported(disk.id)) {
            self.missing.entry(disk.id).or_insert(now);
        }
    }

    /// What is wrong with its disks, as far as it was heard.
    fn disk_faults(&self, grace: Duration, now: Instant) -> BTreeMap<DiskId, DiskFault> {
        if self.last_heard.is_none() {
            return BTreeMap::new();
        }
        let fault = |disk: &NodeDisk| match self
            .report
            .disks
            .iter()
            .find(|reported| reported.disk == disk.id)
        {
            Some(reported) => reported.is_failed.then_some(DiskFault::Lost),
            None => match self.missing.get(&disk.id) {
                Some(since) if now.saturating_duration_since(*since) >= grace => {
                    Some(DiskFault::Lost)
                }
                _ => Some(DiskFault::Missing),
            },
        };
        let faults = self.member.disks.iter().map(|disk| Some((disk.id, fault(disk)?)));
        faults.flatten().collect()
    }

    fn maintenance_left(&self, now: Instant) -> Option<Duration> {
        let left = self.member.maintenance_until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
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
    timeouts: LivenessTimeouts,
    /// Since when this coordinator would have heard a heartbeat.
    listening_since: Instant,
    last_tick: Instant,
    streams: u64,
    nodes: BTreeMap<NodeId, Entry>,
    /// The nodes whose last reports name a file system.
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
            file_systems: BTreeMap::new(),
        }
    }

    /// To be called several times in each `suspect_after`. A long gap between two calls means that
    /// this process did not run, and could hear nobody: listening starts anew.
    pub(crate) fn tick(&mut self, now: Instant) {
        if now.saturating_duration_since(self.last_tick) >= self.timeouts.suspect_after {
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
                        missing: BTreeMap::new(),
                        stream: 0,
                        source: None,
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
        source: HeartbeatSource,
        opened: u64,
    ) -> Option<u64> {
        let is_same_process = self.is_heard_from(node, source);
        let entry = self.nodes.get_mut(&node)?;
        self.streams += 1;
        if !(is_same_process && opened < entry.opened) {
            entry.stream = self.streams;
            entry.source = Some(source);
            entry.opened = opened;
        }
        Some(self.streams)
    }

    /// Whether the stream in charge is one of this very process.
    pub(crate) fn is_heard_from(&self, node: NodeId, source: HeartbeatSource) -> bool {
        source.instance != 0
            && self.nodes.get(&node).is_some_and(|entry| entry.source == Some(source))
    }

    /// Takes a heartbeat over. `None` when the stream is not the one in charge any more.
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
        entry.note_missing(now);
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

    /// Every disk that chunk records may name, with its health.
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
        cluster
    }

    /// What the heartbeats of all nodes say.
    pub(crate) fn liveness(&self, now: Instant) -> Liveness {
        self.nodes.iter().map(|(node, entry)| (*node, self.liveness_of(entry, now))).collect()
    }

    fn liveness_of(&self, entry: &Entry, now: Instant) -> NodeLiveness {
        let is_lately = |at| now.saturating_duration_since(at) < self.timeouts.suspect_after;
        let contact = if self.silence(entry, now) >= self.timeouts.lost_after {
            Contact::Lost
        } else if entry.last_heard.is_some_and(is_lately) && !entry.report.is_stopping {
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

    /// Whether the node should have been heard lately, and was not.
    pub(crate) fn is_silent(&self, node: NodeId, now: Instant) -> bool {
        let lately = |at| now.saturating_duration_since(at) < self.timeouts.suspect_after;
        let heard = self.nodes.get(&node).and_then(|entry| entry.last_heard);
        !self.is_gathering(now) && !heard.is_some_and(lately)
    }

    /// The nodes that were heard lately and go on, whatever they shall be.
    pub(crate) fn responsive(&self, now: Instant) -> BTreeSet<NodeId> {
        let is_lately = |at| now.saturating_duration_since(at) < self.timeouts.suspect_after;
        let answers =
            |entry: &Entry| entry.last_heard.is_some_and(is_lately) && !entry.report.is_stopping;
        self.nodes.iter().filter(|(_, entry)| answers(entry)).map(|(node, _)| *node).collect()
    }

    /// How long this coordinator would have heard a heartbeat.
    pub(crate) fn listened(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.listening_since)
    }

    /// Whether it is too early to say that a node which was not heard is not there: the first
    /// heartbeats may still be on their way.
    pub(crate) fn is_gathering(&self, now: Instant) -> bool {
        self.listened(now) < self.timeouts.suspect_after
    }

    fn state_of(&self, entry: &Entry, now: Instant) -> NodeState {
        let wanted = entry.member.admin_state;
        match wanted {
            NodeState::Active | NodeState::Draining | NodeState::Drained => {}
            // Silence means nothing on a node that holds nothing.
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

    /// The disks of a node. What disks of several nodes on one file system can take is counted
    /// once: each has its share.
    fn disks_of(&self, node: NodeId, entry: &Entry, now: Instant) -> Vec<DiskReport> {
        let mut disks = entry.report.disks.clone();
        for disk in disks.iter_mut().filter(|disk| !disk.is_failed) {
            let Some(id) = disk.file_system else { continue };
            let nodes = self.file_systems.get(&id).into_iter().flatten();
            let entries = nodes.filter_map(|other| Some((*other, self.nodes.get(other)?)));
            let sharing = entries.filter(|(other, entry)| {
                let is_gone =
                    matches!(self.state_of(entry, now), NodeState::Lost | NodeState::Removed);
                *other == node || !is_gone
            });
            let together: Vec<(NodeId, DiskReport)> = sharing
                .flat_map(|(other, entry)| entry.working().map(move |disk| (other, *disk)))
                .filter(|(_, other)| other.file_system == Some(id))
                .collect();
            let total = together.iter().map(|(_, disk)| disk.file_system_free).max().unwrap_or(0);
            let wants: Vec<u64> = together.iter().map(|(_, disk)| disk.free).collect();
            let shares = fair_shares(total, &wants);
            let own =
                together.iter().position(|(other, at)| *other == node && at.disk == disk.disk);
            if let Some(share) = own.and_then(|index| shares.get(index).copied()) {
                disk.capacity = disk.capacity.saturating_sub(disk.free).saturating_add(share);
                disk.free = share;
            }
        }
        disks
    }

    fn view_of(&self, node: NodeId, entry: &Entry, now: Instant) -> View {
        let disks = self.disks_of(node, entry, now);
        let sum = |of: fn(&DiskReport) -> u64| {
            disks.iter().filter(|disk| !disk.is_failed).map(of).fold(0, u64::saturating_add)
        };
        let (free, capacity) = (sum(|disk| disk.free), sum(|disk| disk.capacity));
        View {
            node,
            member: entry.member.clone(),
            state: self.state_of(entry, now),
            disks,
            free,
            planned: entry.planned.at(now),
            capacity,
            is_full: entry.report.is_full,
            is_stopping: entry.report.is_stopping,
            sessions: entry.report.sessions,
            last_heard: entry.last_heard.map(|at| now.saturating_duration_since(at)),
            maintenance_left: entry.maintenance_left(now),
        }
    }
}

#[cfg(test)]
mod tests;
