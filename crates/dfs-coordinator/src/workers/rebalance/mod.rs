//! Moves replicas from fuller nodes to emptier ones, and to zones without a replica of their chunk.
//!
//! Nodes are compared by the share of their capacity that is in use. The worker walks the list of
//! the fullest node, looks up the records, and moves replicas of chunks that need nothing else. It
//! keeps no state but its position: fill is computed again before each batch, from heartbeats and
//! the moves that they do not reflect yet.
//!
//! Repair and drain go first: while they are at work, no move begins.

mod balance;
mod respread;
mod unreported;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_metadata::chunk_health::Cluster;
use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::{Disks, ReplicaId};
use dfs_types::{BUILD_WEIGHT_MAX, ByteSize, NodeId, ReplicaRef, Scope, build_weight};
use dfs_workers::{DRAIN, Handle, Next, REBALANCE, Spec, Worker};
use futures_util::{StreamExt, stream};
use tokio::time::Instant;
use tracing::{debug, info};

use self::balance::{Balance, Fill};
use self::respread::Respread;
use self::unreported::{Move, Unreported};
use self::walk::{Rest, Walk};
use crate::Error;
use crate::core::Core;
use crate::metrics::MoveReason;
use crate::node_liveness::View;
use crate::workers::moves::{Moved, Mover};
use crate::workers::spread::{Places, holders, settled};
use crate::workers::{DELETION_HELD, orders};

/// Replicas considered per step.
const CONSIDERED: usize = 256;
/// Weight of the replicas moved per step: that of 16 large ones, or of many small ones.
const BATCH: u32 = 16 * BUILD_WEIGHT_MAX;
/// Weight of those of them to one node.
const BATCH_PER_NODE: u32 = 4 * BUILD_WEIGHT_MAX;
/// Pause after failed moves, and after the last one of a drain.
const REST: Duration = Duration::from_secs(5);
/// Pause after a step that found nothing to move, as a multiple of its duration.
const REST_FACTOR: u32 = 4;
/// Heartbeats after which reports include what happened before.
const HEARTBEATS: u32 = 2;
/// Heartbeats for which a node none of whose replicas can be moved rests, at least.
const HEARTBEATS_STUCK: u32 = 10;
/// Heartbeats before the first step: deletions of an earlier holder of the lease are under way.
const HEARTBEATS_FIRST: u32 = 10;

/// The worker.
pub(crate) struct Rebalance {
    core: Arc<Core>,
    lease: LeaseGrant,
    handle: Arc<Handle>,
    began: Instant,
    /// Moves have begun, and continue until the difference is small.
    is_running: bool,
    unreported: Unreported,
    walks: BTreeMap<NodeId, Walk>,
    /// Nodes with room that gave none at the last step.
    takers: BTreeSet<NodeId>,
    respread: Respread,
    /// Replicas that drain had moved, and when that number was last seen to change.
    drained: (u64, Option<Instant>),
}

/// Nodes at one moment.
struct Nodes {
    at: Instant,
    /// Those that take part.
    views: Vec<View>,
    cluster: Cluster,
    places: Places,
}

impl Rebalance {
    pub(crate) fn new(core: Arc<Core>, lease: LeaseGrant, handle: Arc<Handle>) -> Self {
        let began = Instant::now();
        let drained = core.background.workers.of(&DRAIN).done();
        Self {
            core,
            lease,
            handle,
            began,
            is_running: false,
            unreported: Unreported::default(),
            walks: BTreeMap::new(),
            takers: BTreeSet::new(),
            respread: Respread::default(),
            drained: (drained, None),
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
        let places = Places::new(&views);
        views.retain(View::takes_chunks);
        Nodes { at, views, cluster, places }
    }

    /// Returns why no move may begin now.
    async fn obstacle(&mut self, now: Instant) -> Result<Option<String>, Error> {
        let background = &self.core.background;
        if let Some(why) = background.held() {
            return Ok(Some(why));
        }
        let may_delete = self.core.namespace.may_delete().await;
        if !may_delete.map_err(Error::metadata("reading whether anything may be deleted"))? {
            return Ok(Some(DELETION_HELD.to_owned()));
        }
        if background.is_repairing() {
            return Ok(Some("waiting until repair is done".to_owned()));
        }
        let drained = background.workers.of(&DRAIN).done();
        if drained != self.drained.0 {
            self.drained = (drained, Some(now));
        }
        if self.drained.1.is_some_and(|at| now < at + REST) {
            return Ok(Some("waiting until drain is done".to_owned()));
        }
        let first = self.core.settings.heartbeat_interval() * HEARTBEATS_FIRST;
        let waits = now < self.began + first;
        Ok(waits.then(|| "waiting for reports of the datanodes".to_owned()))
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
        let heard = |view: &View| Some((view.node, nodes.at.checked_sub(view.last_heard?)?));
        let heard = nodes.views.iter().filter_map(heard).collect();
        let delay = self.core.settings.heartbeat_interval() * HEARTBEATS;
        self.unreported.settle(&heard, &nodes.cluster, delay);
        Ok(())
    }

    fn fills(&self, nodes: &Nodes) -> BTreeMap<NodeId, Fill> {
        let fill = |view: &View| {
            let reported = view.capacity.saturating_sub(view.free);
            let (least, most) = self.unreported.used(view.node, reported);
            let (capacity, may_take) = (view.capacity, !view.is_full);
            Fill { least, most, capacity, may_take, contended: view.contended.clone() }
        };
        nodes.views.iter().map(|view| (view.node, fill(view))).collect()
    }

    /// Moves some replicas from the fullest node to emptier ones.
    async fn balance(&mut self, nodes: &Nodes) -> Result<Next, Error> {
        let interval = self.core.settings.heartbeat_interval();
        self.settle(nodes).await?;
        self.handle.set_queued(0);
        let mut balance = Balance::new(self.fills(nodes), self.is_running);
        let givers = balance.givers();
        if givers.is_empty() {
            if self.is_running && !self.unreported.is_empty() {
                self.handle.set_detail(self.unreported.describe());
                return Ok(Next::After(interval));
            }
            if std::mem::take(&mut self.is_running) {
                info!(mean = balance.mean().round(), "the datanodes are about equally full");
            }
            self.walks.clear();
            self.handle.set_detail(even(&balance, nodes.views.len()));
            return Ok(Next::After(interval));
        }
        self.is_running = true;
        if self.unreported.is_full() {
            self.handle.set_detail(self.unreported.describe());
            return Ok(Next::After(interval));
        }
        self.wake(nodes, &givers);
        let rest = |giver: &NodeId| self.walks.get(giver).and_then(|walk| walk.rest(nodes.at));
        let Some(giver) = givers.iter().copied().find(|giver| rest(giver).is_none()) else {
            let detail = match rest(&givers[0]) {
                // Others may give more than is certain now.
                _ if !self.unreported.is_empty() => self.unreported.describe(),
                Some(Rest::Unlisted(_)) => format!("node {} cannot be listed", givers[0]),
                _ => stuck(&balance, givers[0]),
            };
            self.handle.set_detail(detail);
            return Ok(Next::After(interval));
        };
        self.handle.set_detail(moving(&balance, giver));
        let moves = self.find(giver, nodes, &mut balance).await?;
        if moves.is_empty() {
            return Ok(Next::After(nodes.at.elapsed() * REST_FACTOR));
        }
        self.run(moves, MoveReason::Rebalance).await
    }

    /// Ends the rest of nodes that give, as soon as another node has become able to take. Their
    /// positions are kept: a node at its watermark is full and not full in turn.
    fn wake(&mut self, nodes: &Nodes, givers: &[NodeId]) {
        self.walks.retain(|giver, _| nodes.views.iter().any(|view| view.node == *giver));
        let takes = |view: &&View| !view.is_full && !givers.contains(&view.node);
        let takers: BTreeSet<NodeId> =
            nodes.views.iter().filter(takes).map(|view| view.node).collect();
        if !takers.is_subset(&self.takers) {
            self.walks.values_mut().for_each(Walk::wake);
        }
        self.takers = takers;
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
        walk.note(!moves.is_empty(), &considered[count..], (Instant::now(), least));
        Ok(moves)
    }

    /// Runs moves.
    async fn run(&mut self, moves: Vec<Move>, reason: MoveReason) -> Result<Next, Error> {
        let (core, lease, handle) = (&self.core, self.lease, &self.handle);
        let mover = Mover { core: core.clone(), lease, handle: handle.clone(), reason };
        let (mover, concurrency) = (&mover, core.settings.repair_concurrency);
        let runs = stream::iter(moves).map(|one| async move {
            let target = || mover.is_open(one.to, &one.record).then_some(one.to);
            let moved = mover.run(one.chunk, &one.record, one.replica, target).await;
            (one, moved)
        });
        let mut runs = runs.buffer_unordered(concurrency);
        let (mut has_moved, mut result) = (false, Ok(()));
        while let Some((one, moved)) = runs.next().await {
            match moved {
                Ok(Moved::Done) => {
                    has_moved = true;
                    self.unreported.add(&one, Instant::now());
                }
                Ok(Moved::Failed) => self.handle.add_failed(1),
                Ok(Moved::NotNamed | Moved::NoTarget) => {}
                Err(error) => result = Err(error),
            }
        }
        result?;
        Ok(if has_moved { Next::Again } else { Next::After(REST) })
    }
}

/// Moves of one step.
#[derive(Default)]
struct Moves(Vec<Move>);

impl Moves {
    fn is_full(&self) -> bool {
        self.weight(|_| true) >= BATCH
    }

    /// Returns whether another one may go to a node.
    fn has_room(&self, to: NodeId) -> bool {
        self.weight(|one| one.to == to) < BATCH_PER_NODE
    }

    fn weight(&self, of: impl Fn(&&Move) -> bool) -> u32 {
        self.0.iter().filter(of).map(|one| build_weight(one.record.seal.length)).sum()
    }

    fn add(&mut self, one: Move) {
        self.0.push(one);
    }
}

/// Returns whether a node's list and a record mean the same replica.
fn is_named(id: ReplicaId, listed: &ReplicaRef, disks: &Disks) -> bool {
    (id.part, id.stamp) == (listed.part, listed.stamp)
        && disks.get(id.disk).is_some_and(|at| at.disk == listed.disk)
}

fn even(balance: &Balance, nodes: usize) -> String {
    match nodes {
        0 | 1 => "nothing to do with fewer than two datanodes that take chunks".to_owned(),
        _ => format!("all datanodes are about as full as the mean, {:.0} %", balance.mean()),
    }
}

fn moving(balance: &Balance, giver: NodeId) -> String {
    format!(
        "moving replicas from node {giver}, which is {:.0} % full, to nodes below the mean of \
         {:.0} %: {} left",
        balance.fill(giver),
        balance.mean(),
        ByteSize(balance.left())
    )
}

fn stuck(balance: &Balance, giver: NodeId) -> String {
    format!(
        "node {giver} is {:.0} % full and the mean is {:.0} %, but none of its replicas can be \
         moved: the emptier nodes or their zones already have one, or the replicas are too large",
        balance.fill(giver),
        balance.mean()
    )
}

#[async_trait]
impl Worker for Rebalance {
    const SPEC: Spec = REBALANCE;

    type Error = Error;

    async fn step(&mut self) -> Result<Next, Error> {
        let nodes = self.nodes();
        if let Some(why) = self.obstacle(nodes.at).await? {
            self.handle.set_detail(why);
            return Ok(Next::After(self.core.settings.heartbeat_interval()));
        }
        match self.respread(&nodes).await? {
            Some(next) => Ok(next),
            None => self.balance(&nodes).await,
        }
    }
}
