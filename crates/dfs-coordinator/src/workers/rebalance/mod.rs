//! Moves replicas from fuller nodes to emptier ones, and to zones without a replica of their chunk.
//!
//! Nodes are compared by the share of their capacity that is in use. The worker walks the list of
//! the fullest node, looks up the records, and moves replicas of chunks that need nothing else. It
//! keeps no state but its position: fill is computed again before each batch, from heartbeats and
//! the moves that they do not reflect yet.
//!
//! Repair and drain go first: while they are at work, no move begins. A node at which builds fail
//! gets none for a while.

mod balance;
mod describe;
mod respread;
mod run;
mod takers;
mod unreported;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_metadata::chunk_health::Cluster;
use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::{Disks, Namespace, ReplicaId};
use dfs_types::{ChunkId, NodeId, ReplicaRef, Scope};
use dfs_workers::{Handle, Next, REBALANCE, Spec, Worker};
use tokio::time::Instant;
use tracing::{debug, info};

use self::balance::{Balance, Fill};
use self::respread::Respread;
use self::run::{Moves, has_precedence};
use self::takers::Takers;
use self::unreported::{Move, Reports, Unreported};
use self::walk::{Rest, Walk};
use crate::Error;
use crate::build_slots::Failing;
use crate::core::Core;
use crate::metrics::MoveReason;
use crate::node_liveness::View;
use crate::workers::build::describe_failing;
use crate::workers::spread::{Places, holders, settled};
use crate::workers::{DELETION_HELD, orders};

/// Replicas considered per step.
const CONSIDERED: usize = 256;
/// Pause after failed moves.
const REST: Duration = Duration::from_secs(5);
/// Pause after a step that found nothing to move, as a multiple of its duration.
const REST_FACTOR: u32 = 4;
/// Heartbeats after which reports include what happened before.
const HEARTBEATS: u32 = 2;
/// Heartbeats for which a node none of whose replicas can be moved rests, at least.
const HEARTBEATS_STUCK: u32 = 10;
/// Heartbeats before the first step: reports may not include the last moves of an earlier holder of
/// the lease.
const HEARTBEATS_FIRST: u32 = 10;

/// The worker.
pub(crate) struct Rebalance {
    core: Arc<Core>,
    lease: LeaseGrant,
    handle: Arc<Handle>,
    began: Instant,
    /// Moves have begun, and continue until the difference is small.
    is_running: bool,
    /// What is left to read of the deletions that earlier holders of the lease have queued.
    queued: Option<Queued>,
    unreported: Unreported,
    walks: BTreeMap<NodeId, Walk>,
    /// Nodes with room that gave none at the last step.
    takers: Takers,
    respread: Respread,
}

/// Position in the queue of deletions.
#[derive(Debug)]
struct Queued {
    after: Option<ChunkId>,
}

/// Nodes at one moment.
struct Nodes {
    at: Instant,
    /// Those that take part.
    views: Vec<View>,
    reports: Reports,
    cluster: Cluster,
    places: Places,
    /// Nodes that get no builds now because the last ones failed.
    failing: BTreeMap<NodeId, Failing>,
    /// These, and those where no build has succeeded since.
    unproven: BTreeSet<NodeId>,
}

impl Nodes {
    /// Returns those that take part.
    fn ids(&self) -> BTreeSet<NodeId> {
        self.views.iter().map(|view| view.node).collect()
    }
}

impl Rebalance {
    pub(crate) fn new(core: Arc<Core>, lease: LeaseGrant, handle: Arc<Handle>) -> Self {
        let began = Instant::now();
        Self {
            core,
            lease,
            handle,
            began,
            is_running: false,
            queued: Some(Queued { after: None }),
            unreported: Unreported::default(),
            walks: BTreeMap::new(),
            takers: Takers::default(),
            respread: Respread::default(),
        }
    }

    /// Returns the nodes that take part: those that take chunks. Others are left to drain, repair,
    /// or those who bring them back.
    fn nodes(&self) -> Nodes {
        let at = Instant::now();
        let (mut views, cluster) = {
            let registry = self.core.registry();
            (registry.views(at), registry.cluster(at))
        };
        let (places, reports) = (Places::new(&views), Reports::of(&views, at));
        views.retain(View::takes_chunks);
        let builds = &self.core.background.builds;
        let (failing, unproven) = (builds.failing(at), builds.unproven());
        Nodes { at, views, reports, cluster, places, failing, unproven }
    }

    /// Returns why no move may begin now.
    async fn obstacle(&self, now: Instant) -> Result<Option<String>, Error> {
        let background = &self.core.background;
        if let Some(why) = background.held() {
            return Ok(Some(why));
        }
        let may_delete = self.core.namespace.may_delete().await;
        if !may_delete.map_err(Error::metadata("reading whether anything may be deleted"))? {
            return Ok(Some(DELETION_HELD.to_owned()));
        }
        if let Some(why) = has_precedence(background, now) {
            return Ok(Some(why.to_owned()));
        }
        let first = self.core.settings.heartbeat_interval() * HEARTBEATS_FIRST;
        let waits = now < self.began + first;
        Ok(waits.then(|| "waiting for reports of the datanodes".to_owned()))
    }

    /// Reads some of the deletions that were queued before, by moves or anything else: reports include
    /// these bytes, but not for long. Returns whether all were read.
    async fn read_queued(&mut self, nodes: &Nodes) -> Result<bool, Error> {
        let Some(Queued { after }) = self.queued else { return Ok(true) };
        let limit = Namespace::PAGE_LEN_MAX;
        let page = self.core.namespace.chunks_to_delete(Scope::internal(), after, limit).await;
        let page = page.map_err(Error::metadata("reading replicas to delete"))?;
        for (chunk, record) in &page.chunks {
            let is_over = record.is_tombstone();
            for replica in record.replicas.iter().filter(|it| is_over || it.is_doomed()) {
                let node = nodes.cluster.node(replica.disk);
                if let Some(node) = node.filter(|node| !self.unreported.is_full(*node)) {
                    let doomed = (*chunk, ReplicaId::of(replica));
                    self.unreported.add_doomed(node, doomed, record.seal.length);
                }
            }
        }
        self.queued = page.next.map(|next| Queued { after: Some(next) });
        Ok(self.queued.is_none())
    }

    /// Forgets moves that reports include by now.
    async fn settle(&mut self, nodes: &Nodes) -> Result<(), Error> {
        let chunks = self.unreported.undeleted();
        if !chunks.is_empty() {
            let records = self.core.namespace.readable_chunks(Scope::internal(), &chunks).await;
            let records = records.map_err(Error::metadata("reading the records of chunks"))?;
            let known = chunks.into_iter().zip(records);
            let known = known.filter_map(|(chunk, record)| Some((chunk, record.ok()?))).collect();
            self.unreported.note_records(&known, Instant::now());
        }
        let delay = self.core.settings.heartbeat_interval() * HEARTBEATS;
        self.unreported.settle(&nodes.reports, &nodes.cluster, delay);
        Ok(())
    }

    /// Returns the fill of nodes. None of those that `may_take` excludes takes a replica.
    fn fills(&self, nodes: &Nodes, may_take: impl Fn(&View) -> bool) -> BTreeMap<NodeId, Fill> {
        let fill = |view: &View| {
            let reported = view.capacity.saturating_sub(view.free);
            let (least, most) = self.unreported.used(view.node, reported);
            let (capacity, may_take) = (view.capacity, !view.is_full && may_take(view));
            Fill { least, most, capacity, may_take, contended: view.contended.clone() }
        };
        nodes.views.iter().map(|view| (view.node, fill(view))).collect()
    }

    /// Returns how full the nodes are, and which take replicas now.
    fn balance_of(&self, nodes: &Nodes) -> Balance {
        let may_take = |view: &View| !nodes.failing.contains_key(&view.node);
        Balance::new(self.fills(nodes, may_take), self.is_running)
    }

    /// Moves some replicas from the fullest node to emptier ones.
    async fn balance(&mut self, nodes: &Nodes) -> Result<Next, Error> {
        let interval = self.core.settings.heartbeat_interval();
        self.settle(nodes).await?;
        let mut balance = self.balance_of(nodes);
        let givers = balance.givers();
        let unreported = self.unreported.describe(&nodes.ids());
        if givers.is_empty() {
            let regardless = Balance::new(self.fills(nodes, |_| true), self.is_running);
            if regardless.givers().is_empty() {
                if let Some(waits) = unreported.filter(|_| self.is_running) {
                    self.show(waits, nodes);
                    return Ok(Next::After(interval));
                }
                if std::mem::take(&mut self.is_running) {
                    info!(mean = balance.mean().round(), "the datanodes are about equally full");
                }
                self.walks.clear();
                self.show(describe::even(&balance, nodes.views.len()), nodes);
            } else {
                self.show("the nodes with room take none".to_owned(), nodes);
            }
            return Ok(Next::After(interval));
        }
        self.is_running = true;
        self.wake(nodes, &givers);
        let rest = |giver: &NodeId| self.walks.get(giver).and_then(|walk| walk.rest(nodes.at));
        let may_give = |giver: &NodeId| rest(giver).is_none() && !self.unreported.is_full(*giver);
        let Some(giver) = givers.iter().copied().find(may_give) else {
            let detail = match rest(&givers[0]) {
                // Others may give more than is certain now.
                _ if unreported.is_some() => unreported.unwrap_or_default(),
                Some(Rest::Unlisted(_)) => format!("node {} cannot be listed", givers[0]),
                _ => describe::stuck(&balance, givers[0]),
            };
            self.show(detail, nodes);
            return Ok(Next::After(interval));
        };
        self.show(describe::moving(&balance, giver), nodes);
        let moves = self.find(giver, nodes, &mut balance).await?;
        if moves.is_empty() {
            return Ok(Next::After(nodes.at.elapsed() * REST_FACTOR));
        }
        let ran = self.run(moves, MoveReason::Rebalance, nodes.at).await?;
        Ok(if ran.moved > 0 { Next::Again } else { Next::After(REST) })
    }

    /// Describes the work for equal fill, beside what else there is to know.
    fn show(&self, work: String, nodes: &Nodes) {
        let spreading = self.respread.describe();
        let failing = describe_failing("moves to", &nodes.failing);
        let parts: Vec<String> = spreading.into_iter().chain([work]).chain(failing).collect();
        self.handle.set_detail(parts.join("; "));
    }

    /// Ends the rest of nodes that give, as soon as another node has become able to take. Their
    /// positions are kept: a node at its watermark is full and not full in turn.
    fn wake(&mut self, nodes: &Nodes, givers: &[NodeId]) {
        self.walks.retain(|giver, _| nodes.views.iter().any(|view| view.node == *giver));
        let takes = |view: &&View| !view.is_full && !givers.contains(&view.node);
        let takers = nodes.views.iter().filter(takes).map(|view| view.node).collect();
        let rests = |node| nodes.failing.contains_key(&node);
        if self.takers.update(&takers, &nodes.unproven, rests, nodes.at) {
            self.walks.values_mut().for_each(Walk::wake);
        }
    }

    /// Returns replicas of a node to move, and where to, from the next ones in its list.
    async fn find(
        &mut self,
        giver: NodeId,
        nodes: &Nodes,
        balance: &mut Balance,
    ) -> Result<Vec<Move>, Error> {
        let Self { core, lease, handle, walks, .. } = self;
        let walk = walks.entry(giver).or_insert_with(|| Walk::new(nodes.at));
        if walk.needs_page() {
            match orders::list_page(core, lease, giver, None, walk.after()).await {
                Ok((page, is_last)) if is_last || !page.is_empty() => {
                    walk.add_page(page, is_last, nodes.at);
                }
                listed => {
                    debug!(%giver, ?listed, "a datanode that gives replicas could not be listed");
                    handle.add_failed(1);
                    walk.postpone(Instant::now() + REST);
                    return Ok(Vec::new());
                }
            }
        }
        let considered = walk.take(CONSIDERED);
        let ids: Vec<_> = considered.iter().map(|replica| replica.chunk).collect();
        let records = core.namespace.readable_chunks(Scope::internal(), &ids).await;
        let records = records.map_err(Error::metadata("reading the records of chunks"))?;
        let disks = core.namespace.disks_of(records.iter().flatten().flatten()).await;
        let disks = disks.map_err(Error::metadata("reading the directory of disks"))?;
        let mut moves = Moves::default();
        let mut count = 0;
        for (name, record) in considered.iter().zip(records) {
            if moves.is_full() {
                break;
            }
            count += 1;
            let Ok(Some(record)) = record else { continue };
            let Some(held) = settled(&record, &nodes.cluster) else { continue };
            let is_it =
                |(node, id): &&(NodeId, ReplicaId)| *node == giver && is_named(*id, name, &disks);
            let Some((_, replica)) = held.iter().find(is_it).copied() else { continue };
            let bytes = record.seal.length;
            let holders = holders(&record, &nodes.cluster);
            let fits =
                |to: &NodeId| !holders.contains(to) && !nodes.places.is_worse(&held, giver, *to);
            let mut takers = balance.takers(giver, bytes).into_iter().filter(fits).peekable();
            if takers.peek().is_none() {
                continue;
            }
            let Some(to) = takers.find(|to| moves.has_room(*to)) else {
                // The next step considers it.
                count -= 1;
                break;
            };
            balance.note(giver, to, bytes);
            moves.add(Move { chunk: name.chunk, record, replica, from: giver, to });
        }
        let moves = moves.0;
        let least = core.settings.heartbeat_interval() * HEARTBEATS_STUCK;
        walk.note(&considered[count..], (Instant::now(), least));
        Ok(moves)
    }
}

/// Returns whether a node's list and a record mean the same replica.
fn is_named(id: ReplicaId, listed: &ReplicaRef, disks: &Disks) -> bool {
    (id.part, id.stamp) == (listed.part, listed.stamp)
        && disks.get(id.disk).is_some_and(|at| at.disk == listed.disk)
}

#[async_trait]
impl Worker for Rebalance {
    const SPEC: Spec = REBALANCE;

    type Error = Error;

    /// Both kinds of moves have their part of each step, so that neither keeps the other waiting.
    async fn step(&mut self) -> Result<Next, Error> {
        let nodes = self.nodes();
        if let Some(why) = self.obstacle(nodes.at).await? {
            self.handle.set_detail(why);
            return Ok(Next::After(self.core.settings.heartbeat_interval()));
        }
        if !self.read_queued(&nodes).await? {
            self.handle.set_detail("reading which replicas wait for deletion");
            return Ok(Next::Again);
        }
        let Some(spread) = self.respread(&nodes).await? else {
            return self.balance(&nodes).await;
        };
        let nodes = self.nodes();
        let balanced = self.balance(&nodes).await?;
        Ok(if let Next::Again = balanced { balanced } else { spread })
    }
}
