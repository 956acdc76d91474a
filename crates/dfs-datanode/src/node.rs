//! State shared by all parts of a running datanode.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dfs_chunkstore::{DiskUsage, Pool, SealedChunk};
use dfs_proto::wire;
use dfs_runtime::Readiness;
use dfs_transport::Channels;
use dfs_types::{
    ClusterId, DiskId, Generation, Incarnation, LeaseEpoch, Level, NodeId, NodeState, Part, Random,
    ReadProof, Receipt, RegistrationNumber, ReplicaRef, Seal, SealKey,
};
use dfs_workers::{Handles, Place, Throttle};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, watch};

use crate::call_limits::{BuildLimit, CallLimits};
use crate::clocks::Clocks;
use crate::metrics::Counts;
use crate::scrub_board::ScrubBoard;
use crate::sessions::Sessions;
use crate::unreadable::Unreadable;
use crate::verdicts::Verdicts;
use crate::verification_limits::Verifications;
use crate::{Error, Settings, Store};

/// Maximum number of waiting reads.
const WAITING_READS_MAX: usize = 1_024;

/// Membership of the node in its cluster, as of its last registration.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    pub(crate) cluster: ClusterId,
    pub(crate) registration: RegistrationNumber,
    /// Incarnation of the cluster's metadata at the registration.
    pub(crate) incarnation: Incarnation,
    /// The node key: seals the receipts of this registration, and proves heartbeat streams.
    pub(crate) key: SealKey,
    /// Verifies the orders to this registration.
    pub(crate) order_key: SealKey,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) state: NodeState,
    /// Disks in service at the registration. Receipts of others do not count.
    pub(crate) disks: BTreeSet<DiskId>,
}

/// State shared by all parts of a running datanode.
pub(crate) struct Node {
    pub(crate) settings: Settings,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) pool: Pool,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) channels: Channels,
    pub(crate) counts: Arc<Counts>,
    pub(crate) readiness: Readiness,
    pub(crate) verdicts: Verdicts,
    /// Held while a replica is set aside or reinstated together with its verdict.
    pub(crate) marking: AsyncMutex<()>,
    pub(crate) sessions: Sessions,
    pub(crate) reads: Arc<Semaphore>,
    pub(crate) waiting_reads: Semaphore,
    pub(crate) calls: CallLimits,
    pub(crate) builds: BuildLimit,
    /// Weights of replicas that may be read for builds elsewhere, apart from the reads of users.
    pub(crate) build_reads: Arc<Semaphore>,
    /// Limits the bytes that builds move in and out.
    pub(crate) movement: Throttle,
    pub(crate) id: NodeId,
    /// Distinguishes this process from another one with identical disks.
    pub(crate) instance: u64,
    /// Number of verdicts on what was found when the store was opened: smaller than the stamp of
    /// every replica written since.
    pub(crate) opened_at: u64,
    /// Heartbeat streams opened by this process.
    streams: AtomicU64,
    /// `host:port` under which others reach it.
    pub(crate) address: String,
    membership: watch::Sender<Option<Membership>>,
    /// Incremented when the next heartbeat should not wait.
    news: watch::Sender<u64>,
    is_stopping: AtomicBool,
    lease_epoch: Mutex<LeaseEpoch>,
    /// The clocks of the coordinators, by which the age of orders is measured.
    pub(crate) clocks: Clocks,
    pub(crate) verifications: Verifications,
    pub(crate) unreadable: Unreadable,
    /// The workers of this process.
    pub(crate) workers: Handles,
    /// How far the scrub is.
    pub(crate) scrub: ScrubBoard,
}

/// Components of a [`Node`].
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) pool: Pool,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) channels: Channels,
    pub(crate) counts: Arc<Counts>,
    pub(crate) readiness: Readiness,
    pub(crate) address: String,
}

impl Node {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { settings, store, pool, random, channels, counts, readiness, address } = parts;
        let id = store.identity().node;
        // 0 means no instance.
        let instance = 1 + random.below(u64::MAX);
        let opened_at = store.verdict_number();
        Self {
            sessions: Sessions::new(&settings),
            reads: Arc::new(Semaphore::new(settings.reads)),
            waiting_reads: Semaphore::new(WAITING_READS_MAX),
            calls: CallLimits::default(),
            builds: BuildLimit::new(settings.build_weight()),
            build_reads: Arc::new(Semaphore::new(settings.build_weight() as usize)),
            movement: Throttle::new(settings.move_bytes_per_second),
            settings,
            store,
            pool,
            random,
            channels,
            counts,
            readiness,
            verdicts: Verdicts::default(),
            marking: AsyncMutex::default(),
            id,
            instance,
            opened_at,
            streams: AtomicU64::new(0),
            address,
            membership: watch::Sender::new(None),
            news: watch::Sender::new(0),
            is_stopping: AtomicBool::new(false),
            lease_epoch: Mutex::default(),
            clocks: Clocks::default(),
            verifications: Verifications::default(),
            unreadable: Unreadable::default(),
            workers: Handles::new(Place::Local),
            scrub: ScrubBoard::default(),
        }
    }

    /// Returns the number of the next heartbeat stream, starting at 1.
    pub(crate) fn next_stream(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns the membership of the node, if it has one.
    pub(crate) fn membership(&self) -> Option<Membership> {
        self.membership.borrow().clone()
    }

    /// Watches the membership of the node.
    pub(crate) fn watch_membership(&self) -> watch::Receiver<Option<Membership>> {
        self.membership.subscribe()
    }

    /// Starts to use a new registration.
    pub(crate) fn take_membership(&self, membership: Membership) {
        self.membership.send_replace(Some(membership));
    }

    /// Returns whether a disk came into service after the registration.
    pub(crate) fn has_unregistered_disk(&self, membership: &Membership) -> bool {
        self.disks_in_service().iter().any(|disk| !membership.disks.contains(disk))
    }

    /// Returns the disks in service.
    pub(crate) fn disks_in_service(&self) -> BTreeSet<DiskId> {
        let disks = self.store.usage().into_iter().filter(|disk| disk.state.is_in_service());
        disks.map(|disk| disk.disk).collect()
    }

    /// Returns the disks whose replicas are all found: those in service without unread heads.
    pub(crate) fn known_disks(&self) -> BTreeSet<DiskId> {
        let is_known = |disk: &DiskUsage| disk.state.is_in_service() && !disk.has_unread_heads;
        let disks = self.store.usage().into_iter().filter(is_known);
        disks.map(|disk| disk.disk).collect()
    }

    /// Ends the membership after a refusal: the node no longer accepts or seals anything.
    pub(crate) fn end_membership(&self, reason: &str) {
        self.membership.send_replace(None);
        self.readiness.not_ready(reason);
    }

    /// Adopts the write level of the cluster. The disks record it, so that an older program refuses
    /// them; if that fails, the next heartbeat retries.
    pub(crate) async fn learn_level(&self, level: Level) {
        if level > self.settings.level {
            return self.end_membership(&self.too_old(level));
        }
        if level <= self.store.identity().level {
            return;
        }
        match self.store.raise_level(level).await {
            Ok(()) => {
                tracing::info!(node = %self.id, %level, "recorded the new write level on the disks");
            }
            Err(error) => {
                tracing::warn!(node = %self.id, %level, %error, "recording the write level on the disks failed");
            }
        }
    }

    /// Returns why this program cannot be part of a cluster that writes `level`.
    pub(crate) fn too_old(&self, level: Level) -> String {
        let own = self.settings.level;
        format!(
            "the cluster has write level {level}, but this release reads levels up to {own}: \
             run the release that the cluster was upgraded to"
        )
    }

    /// Records the state in a coordinator's reply.
    pub(crate) fn record_state(&self, registration: RegistrationNumber, state: NodeState) {
        self.membership.send_if_modified(|membership| match membership {
            Some(membership)
                if membership.registration == registration && membership.state != state =>
            {
                tracing::info!(node = %self.id, %state, "new state in the cluster");
                membership.state = state;
                true
            }
            _ => false,
        });
        if state == NodeState::Removed {
            self.readiness.not_ready(REMOVED);
        } else if !self.is_stopping() {
            self.readiness.ready();
        }
    }

    /// Returns the membership of the node, which must be in `cluster` if the caller names one.
    pub(crate) fn check_cluster(&self, cluster: Option<ClusterId>) -> Result<Membership, Error> {
        let membership = self.membership().ok_or(Error::NotRegistered)?;
        match cluster {
            Some(theirs) if theirs != membership.cluster => {
                Err(Error::WrongCluster { ours: membership.cluster, theirs })
            }
            _ => Ok(membership),
        }
    }

    /// Refuses calls for another node that had this address, or should have it.
    pub(crate) fn check_meant(&self, node: NodeId) -> Result<(), Error> {
        if node == self.id {
            return Ok(());
        }
        Err(Error::OtherNode { ours: self.id, theirs: node })
    }

    /// Like [`Node::check_meant`], for calls that may omit the node.
    pub(crate) fn check_meant_if_named(&self, node_id: &[u8]) -> Result<(), Error> {
        match wire::optional_id::<NodeId>("node_id", node_id)? {
            Some(node) => self.check_meant(node),
            None => Ok(()),
        }
    }

    /// Returns the number of chunks being written.
    pub(crate) fn open_sessions(&self) -> u32 {
        let (of_clients, of_datanodes) = self.sessions.taken();
        of_clients + of_datanodes
    }

    /// Refuses orders of an outdated lease epoch. Remembers the highest seen.
    pub(crate) fn check_epoch(&self, order: LeaseEpoch) -> Result<(), Error> {
        let mut seen = self.lease_epoch.lock().unwrap_or_else(PoisonError::into_inner);
        if order < *seen {
            return Err(Error::OldEpoch { order, seen: *seen });
        }
        *seen = order;
        Ok(())
    }

    /// Refuses new sessions from now on, and reports that to the coordinators.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.readiness.not_ready("stopping");
        self.tell();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Returns true if no disk has room for new chunks.
    pub(crate) fn is_full(&self) -> bool {
        self.store.usage().iter().all(|disk| !disk.state.takes_chunks() || disk.is_full)
    }

    /// Sends the next heartbeat at once.
    pub(crate) fn tell(&self) {
        self.news.send_modify(|number| *number += 1);
    }

    /// Watches for events that should not wait for the next heartbeat.
    pub(crate) fn watch_news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Returns a receipt: proof that the node holds `replica`.
    pub(crate) fn receipt(&self, replica: &SealedChunk) -> Result<Receipt, Error> {
        let membership = self.membership().ok_or(Error::NotRegistered)?;
        let receipt = Receipt {
            chunk: replica.chunk,
            part: Part::WHOLE,
            length: replica.length,
            crc32c: replica.crc32c,
            node: self.id,
            disk: replica.disk,
            stamp: replica.stamp,
            registration: membership.registration,
            seal: Seal([0; 32]),
        };
        Ok(receipt.sealed(&membership.key))
    }

    /// Returns the proof that `replica` was read end to end since an order that named `generation`.
    pub(crate) fn read_proof(
        &self,
        replica: ReplicaRef,
        generation: Generation,
    ) -> Result<ReadProof, Error> {
        let Membership { registration, key, .. } = self.membership().ok_or(Error::NotRegistered)?;
        let seal = Seal([0; 32]);
        let proof = ReadProof { replica, generation, node: self.id, registration, seal };
        Ok(proof.sealed(&key))
    }
}

/// Error text of a node that was removed from its cluster.
pub(crate) const REMOVED: &str =
    "this node was removed from the cluster: empty its disks to let it join as a new one";
