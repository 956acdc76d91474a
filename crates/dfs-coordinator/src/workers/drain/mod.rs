//! Empties draining nodes and retiring disks.
//!
//! The worker walks the node's own list of replicas, looks up their records, and moves each replica
//! that a record names. A node is Drained, and a disk clear, when a whole pass over the list found
//! nothing, a later heartbeat reports no replica and no writer there, and the record of the node is
//! still the one that was read before the pass. From then on no receipt counts that names it.

mod pass;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::{Emptied, NodeDisk, NodeDiskState, Replica, ReplicaId};
use dfs_types::{DiskId, DiskState, NodeId, NodeState, ReplicaRef, Scope, counted, with_causes};
use dfs_workers::{DRAIN, Handle, Next, Spec, Worker};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tracing::{info, warn};

use self::pass::Pass;
use crate::Error;
use crate::core::Core;
use crate::metrics::MoveReason;
use crate::node_liveness::View;
use crate::workers::build::describe_failing;
use crate::workers::moves::{Moved, Mover};
use crate::workers::{WORKER_LEASE, orders};

/// Sources that the description of the worker names.
const NAMED_MAX: usize = 3;
/// Heartbeats after which a node has learned that it takes no more chunks.
const HEARTBEATS: u32 = 3;
/// Pause after a pass that left replicas behind.
const REST: Duration = Duration::from_secs(5);

/// What is to be emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source {
    node: NodeId,
    /// Only this disk of it.
    disk: Option<DiskId>,
}

/// The worker.
pub(crate) struct Drain {
    core: Arc<Core>,
    lease: LeaseGrant,
    handle: Arc<Handle>,
    passes: BTreeMap<Source, Pass>,
}

impl Source {
    fn reason(self) -> MoveReason {
        if self.disk.is_some() { MoveReason::Retire } else { MoveReason::Drain }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.disk {
            Some(disk) => write!(f, "disk {disk} of node {}", self.node),
            None => write!(f, "node {}", self.node),
        }
    }
}

/// Returns what is to be emptied: draining nodes, and retiring disks of all others.
fn sources(views: &[View]) -> Vec<Source> {
    views.iter().flat_map(sources_of).collect()
}

fn sources_of(view: &View) -> Vec<Source> {
    let node = view.node;
    match view.member.admin_state {
        NodeState::Draining => vec![Source { node, disk: None }],
        NodeState::Active => {
            let is_to_be_emptied =
                |disk: &&NodeDisk| disk.is_retiring && disk.state == NodeDiskState::Present;
            let disks = view.member.disks.iter().filter(is_to_be_emptied);
            disks.map(|disk| Source { node, disk: Some(disk.id) }).collect()
        }
        _ => Vec::new(),
    }
}

/// Returns why the last report of a node does not show that a source is empty; `None` when it does.
fn obstacle(source: Source, view: &View) -> Option<String> {
    let is_meant = |id: DiskId| source.disk.is_none_or(|disk| disk == id);
    if source.disk.is_none() && view.sessions > 0 {
        return Some(format!("waiting for the end of {}", counted(view.sessions.into(), "upload")));
    }
    let disks = view.member.disks.iter().filter(|disk| is_meant(disk.id));
    for disk in disks.filter(|disk| disk.state != NodeDiskState::Clear) {
        let id = disk.id;
        let report = view.disks.iter().find(|report| report.disk == id);
        let Some(report) = report.filter(|report| report.state.proves_absence()) else {
            return Some(format!("disk {id} is not in service, and may still be needed"));
        };
        if report.writers > 0 {
            let writers = counted(report.writers, "replica");
            return Some(format!("waiting until {writers} on disk {id} are written"));
        }
        if report.chunks > 0 {
            let replicas = counted(report.chunks, "replica");
            return Some(format!("disk {id} holds {replicas}"));
        }
        if source.disk.is_some() && report.state != DiskState::Retiring {
            return Some("waiting until the node knows that the disk retires".to_owned());
        }
    }
    None
}

impl Drain {
    pub(crate) fn new(core: Arc<Core>, lease: LeaseGrant, handle: Arc<Handle>) -> Self {
        Self { core, lease, handle, passes: BTreeMap::new() }
    }

    /// Takes the next step of a pass.
    async fn advance(&self, source: Source, pass: &mut Pass) -> Result<(), Error> {
        let now = Instant::now();
        let view = {
            let registry = self.core.registry();
            let is_responsive = registry.responsive(now).contains(&source.node);
            registry.view(source.node, now).filter(|_| is_responsive)
        };
        let Some(view) = view else {
            pass.wait(Some("waiting until the node responds".to_owned()), now + REST);
            return Ok(());
        };
        if pass.is_empty() {
            return self.confirm(source, &view, now, pass).await;
        }
        if pass.version.is_none() {
            let found = self.core.namespace.node_versioned(Scope::internal(), source.node).await;
            let found = found.map_err(Error::metadata("reading the record of a node"))?;
            let Some((_, version)) = found else { return Ok(()) };
            pass.begin(version);
        }
        let Source { node, disk } = source;
        let listed = orders::list_page(&self.core, &self.lease, node, disk, pass.after).await;
        let (listed, is_last) = match listed {
            Ok(listed) => listed,
            Err(failure) => {
                self.handle.add_failed(1);
                pass.wait(Some(format!("its replicas cannot be listed: {failure}")), now + REST);
                return Ok(());
            }
        };
        if listed.is_empty() && !is_last {
            pass.wait(Some("its replicas are not listed completely".to_owned()), now + REST);
            return Ok(());
        }
        pass.after = listed.last().map(|replica| replica.chunk);
        self.move_all(source, &listed, pass).await?;
        if is_last {
            let now = Instant::now();
            pass.end(now, now + self.core.settings.heartbeat_interval() * 2, now + REST);
        }
        Ok(())
    }

    /// Commits that a source is empty once heartbeats confirm that the list was. `view` is as of `now`.
    async fn confirm(
        &self,
        source: Source,
        view: &View,
        now: Instant,
        pass: &mut Pass,
    ) -> Result<(), Error> {
        let interval = self.core.settings.heartbeat_interval();
        let heard = view.last_heard.and_then(|ago| now.checked_sub(ago)).unwrap_or(pass.since);
        let has_learned = now.duration_since(pass.since) >= interval * HEARTBEATS;
        if !pass.is_confirmed(heard) || !has_learned {
            pass.resume_at = now + interval / 2;
            return Ok(());
        }
        let obstacle = obstacle(source, view);
        if obstacle.is_none() {
            self.finish(source, pass).await?;
        }
        pass.wait(obstacle, now + interval * 2);
        Ok(())
    }

    /// Moves the replicas of a page that are named by records.
    async fn move_all(
        &self,
        source: Source,
        held: &[ReplicaRef],
        pass: &mut Pass,
    ) -> Result<(), Error> {
        let ids: Vec<_> = held.iter().map(|replica| replica.chunk).collect();
        let namespace = &self.core.namespace;
        let records = namespace.chunks(Scope::internal(), &ids).await;
        let records = records.map_err(Error::metadata("reading the records of chunks"))?;
        let disks = namespace.disks_of(records.iter().flatten()).await;
        let disks = disks.map_err(Error::metadata("reading the directory of disks"))?;
        let mover = Mover {
            core: self.core.clone(),
            lease: self.lease,
            handle: self.handle.clone(),
            reason: source.reason(),
        };
        let mut named = Vec::new();
        for (name, record) in held.iter().zip(records) {
            let Some(record) = record else {
                pass.note_unnamed();
                continue;
            };
            let is_it = |replica: &&Replica| {
                (replica.part, replica.stamp) == (name.part, name.stamp)
                    && disks
                        .get(replica.disk)
                        .is_some_and(|at| (at.node, at.disk) == (source.node, name.disk))
            };
            match record.replicas.iter().find(is_it).map(ReplicaId::of) {
                Some(from) => named.push((name.chunk, record, from)),
                None => pass.note_unnamed(),
            }
        }
        let is_wanted = || {
            let view = self.core.registry().view(source.node, Instant::now());
            view.is_some_and(|view| sources_of(&view).contains(&source))
        };
        let (mover, is_wanted) = (&mover, &is_wanted);
        let moves = stream::iter(named).map(|(chunk, record, from)| async move {
            let elsewhere = || mover.elsewhere(&record, (source.node, from));
            let target = || if is_wanted() { elsewhere() } else { None };
            let draining = mover.core.background.drain_move();
            let moved = mover.run(chunk, &record, from, target).await;
            if let Ok(Moved::Done) = moved {
                draining.done();
            }
            moved
        });
        let moves = moves.buffer_unordered(self.core.settings.repair_concurrency);
        let note = |moved| {
            pass.note(moved);
            std::future::ready(Ok(()))
        };
        moves.try_for_each(note).await
    }

    /// Commits that a source is empty.
    async fn finish(&self, source: Source, pass: &Pass) -> Result<(), Error> {
        let Some(version) = pass.version else { return Ok(()) };
        let fence = self.lease.fence(WORKER_LEASE);
        let disks;
        let emptied = match source.disk {
            None => Emptied::Node,
            Some(disk) => {
                disks = [disk];
                Emptied::Disks(&disks)
            }
        };
        let (namespace, scope) = (&self.core.namespace, Scope::internal());
        let set = namespace.set_emptied(scope, source.node, version, emptied, Some(&fence)).await;
        let set = set.map_err(Error::metadata("recording that a node or disk is empty"))?;
        if let Some(stored) = set {
            info!(%source, "is empty");
            self.core.take_members(&[(source.node, stored)]);
        } else {
            // Another pass decides.
            info!(%source, "was changed while its emptiness was checked");
        }
        Ok(())
    }

    /// Describes the work in progress.
    fn describe(&self) -> String {
        if self.passes.is_empty() {
            return "nothing to drain".to_owned();
        }
        let mut named: Vec<_> = self
            .passes
            .iter()
            .take(NAMED_MAX)
            .map(|(source, pass)| format!("{source}: {}", pass.describe()))
            .collect();
        if self.passes.len() > NAMED_MAX {
            named.push(format!("{} more", self.passes.len() - NAMED_MAX));
        }
        let failing = self.core.background.builds.failing(Instant::now());
        named.extend(describe_failing("moves to", &failing));
        named.join("; ")
    }
}

#[async_trait]
impl Worker for Drain {
    const SPEC: Spec = DRAIN;

    type Error = Error;

    async fn step(&mut self) -> Result<Next, Error> {
        if let Some(why) = self.core.background.held() {
            self.handle.set_detail(why);
            return Ok(Next::After(REST));
        }
        let now = Instant::now();
        let sources = sources(&self.core.registry().views(now));
        self.passes.retain(|source, _| sources.contains(source));
        let mut has_advanced = false;
        for source in sources {
            let mut pass = self.passes.remove(&source).unwrap_or_else(|| Pass::new(now));
            let mut result = Ok(());
            if pass.resume_at <= now {
                has_advanced = true;
                result = self.advance(source, &mut pass).await;
            }
            if let Err(error) = &result {
                warn!(%source, error = with_causes(error), "cannot be emptied");
            }
            self.passes.insert(source, pass);
            self.handle.set_queued(self.passes.values().map(Pass::waiting).sum());
            self.handle.set_detail(self.describe());
            result?;
        }
        self.handle.set_detail(self.describe());
        if has_advanced {
            return Ok(Next::Again);
        }
        let next = self.passes.values().map(|pass| pass.resume_at).min();
        let interval = self.core.settings.heartbeat_interval();
        Ok(Next::After(next.map_or(interval, |at| at.duration_since(now).min(interval))))
    }
}
