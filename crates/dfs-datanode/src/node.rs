//! What all parts of a running datanode share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dfs_chunkstore::{Blocks, DiskUsage, Pool, SealedChunk, StoreError};
use dfs_proto::wire;
use dfs_runtime::Readiness;
use dfs_transport::Channels;
use dfs_types::{
    BLOCK_SIZE, ChunkId, ClusterId, Crc32c, Incarnation, LeaseEpoch, Level, NodeId, NodeState,
    Part, Random, Receipt, RegistrationNumber, ReplicaRef, Seal, SealKey,
};
use dfs_workers::Throttle;
use tokio::sync::{Semaphore, watch};

use crate::bad_replicas::BadReplicas;
use crate::calls::CallLimits;
use crate::grpc;
use crate::metrics::Counts;
use crate::orders::Clocks;
use crate::sessions::Sessions;
use crate::verifications::Verifications;
use crate::{Error, Settings, Store};

/// Replicas looked at in one step of a walk through the store.
pub(crate) const LISTING_STEP: usize = 1_000;

/// The place of the node in its cluster, as of its last registration.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    pub(crate) cluster: ClusterId,
    pub(crate) registration: RegistrationNumber,
    /// Of the cluster's metadata when the node registered.
    pub(crate) incarnation: Incarnation,
    /// The node key: seals the receipts of this registration, and opens heartbeat streams.
    pub(crate) key: SealKey,
    /// Opens the orders to this registration.
    pub(crate) order_key: SealKey,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) state: NodeState,
}

/// What all parts of a running datanode share.
pub(crate) struct Node {
    pub(crate) settings: Settings,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) pool: Pool,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) channels: Channels,
    pub(crate) counts: Arc<Counts>,
    pub(crate) readiness: Readiness,
    pub(crate) bad_replicas: BadReplicas,
    pub(crate) sessions: Sessions,
    pub(crate) reads: Arc<Semaphore>,
    pub(crate) waiting_reads: Semaphore,
    pub(crate) calls: CallLimits,
    pub(crate) builds: Arc<Semaphore>,
    /// Bounds the bytes that builds move in and out.
    pub(crate) movement: Throttle,
    pub(crate) id: NodeId,
    /// Tells this process from another one with equal disks.
    pub(crate) instance: u64,
    /// Heartbeat streams this process has opened.
    streams: AtomicU64,
    /// `host:port` under which others reach it.
    pub(crate) address: String,
    membership: watch::Sender<Option<Membership>>,
    /// Raised when the next heartbeat should not wait.
    news: watch::Sender<u64>,
    is_stopping: AtomicBool,
    lease_epoch: Mutex<LeaseEpoch>,
    /// The clocks of the coordinators, by which orders are judged.
    pub(crate) clocks: Clocks,
    verifications: Verifications,
}

/// What a [`Node`] is made of.
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
        // None is 0, which stands for no instance.
        let instance = 1 + random.below(u64::MAX);
        Self {
            sessions: Sessions::new(&settings),
            reads: Arc::new(Semaphore::new(settings.reads)),
            waiting_reads: grpc::waiting_reads(),
            calls: CallLimits::default(),
            builds: Arc::new(Semaphore::new(settings.builds)),
            movement: Throttle::new(settings.move_bytes_per_second),
            settings,
            store,
            pool,
            random,
            channels,
            counts,
            readiness,
            bad_replicas: BadReplicas::default(),
            id,
            instance,
            streams: AtomicU64::new(0),
            address,
            membership: watch::Sender::new(None),
            news: watch::Sender::new(0),
            is_stopping: AtomicBool::new(false),
            lease_epoch: Mutex::default(),
            clocks: Clocks::default(),
            verifications: Verifications::default(),
        }
    }

    /// The number of the next heartbeat stream, from 1 on.
    pub(crate) fn next_stream(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The place of the node in its cluster, if it has one.
    pub(crate) fn membership(&self) -> Option<Membership> {
        self.membership.borrow().clone()
    }

    /// Follows the place of the node in its cluster.
    pub(crate) fn watch_membership(&self) -> watch::Receiver<Option<Membership>> {
        self.membership.subscribe()
    }

    /// Takes a new registration into use.
    pub(crate) fn take_membership(&self, membership: Membership) {
        self.membership.send_replace(Some(membership));
    }

    /// The cluster refuses the node: it takes nothing and seals nothing any more.
    pub(crate) fn lose_standing(&self, reason: &str) {
        self.membership.send_replace(None);
        self.readiness.not_ready(reason);
    }

    /// The cluster writes this level. The disks say so from now on, so that an older program
    /// refuses them; when that fails, the next order tries again.
    pub(crate) async fn learn_level(&self, level: Level) {
        if level > self.settings.level {
            return self.lose_standing(&self.too_old(level));
        }
        if level <= self.store.identity().level {
            return;
        }
        match self.store.raise_level(level).await {
            Ok(()) => tracing::info!(node = %self.id, %level, "the disks have a new write level"),
            Err(error) => {
                tracing::warn!(node = %self.id, %level, %error, "the write level is not on the disks");
            }
        }
    }

    /// Why a program ends its part in a cluster that writes `level`.
    pub(crate) fn too_old(&self, level: Level) -> String {
        let own = self.settings.level;
        format!(
            "the cluster has write level {level}, this release reads levels up to {own}: start \
             the release that the cluster was upgraded to"
        )
    }

    /// A coordinator has answered a heartbeat.
    pub(crate) fn record_state(&self, registration: RegistrationNumber, state: NodeState) {
        self.membership.send_if_modified(|membership| match membership {
            Some(membership)
                if membership.registration == registration && membership.state != state =>
            {
                tracing::info!(node = %self.id, %state, "the cluster takes this node for");
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

    /// The place of the node, which must be in `cluster`, if the caller says which it means.
    pub(crate) fn check_cluster(&self, cluster: Option<ClusterId>) -> Result<Membership, Error> {
        let membership = self.membership().ok_or(Error::NotRegistered)?;
        match cluster {
            Some(theirs) if theirs != membership.cluster => {
                Err(Error::WrongCluster { ours: membership.cluster, theirs })
            }
            _ => Ok(membership),
        }
    }

    /// Refuses what is meant for another node that had this address, or should have it.
    pub(crate) fn check_meant(&self, node: NodeId) -> Result<(), Error> {
        if node == self.id {
            return Ok(());
        }
        Err(Error::OtherNode { ours: self.id, theirs: node })
    }

    /// The same for calls that may leave open which node they mean.
    pub(crate) fn check_meant_if_named(&self, node_id: &[u8]) -> Result<(), Error> {
        match wire::optional_id::<NodeId>("node_id", node_id)? {
            Some(node) => self.check_meant(node),
            None => Ok(()),
        }
    }

    /// Chunks that are being written.
    pub(crate) fn open_sessions(&self) -> u32 {
        let (of_clients, of_datanodes) = self.sessions.taken();
        of_clients + of_datanodes
    }

    /// Whether an order of this lease epoch is still to be followed. Remembers the highest seen.
    pub(crate) fn check_epoch(&self, order: LeaseEpoch) -> Result<(), Error> {
        let mut seen = self.lease_epoch.lock().unwrap_or_else(PoisonError::into_inner);
        if order < *seen {
            return Err(Error::OldEpoch { order, seen: *seen });
        }
        *seen = order;
        Ok(())
    }

    /// Refuses new sessions from now on, and tells the coordinators.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.readiness.not_ready("stopping");
        self.tell();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Whether no disk has room for new chunks.
    pub(crate) fn is_full(&self) -> bool {
        self.store.usage().iter().all(|disk| disk.is_failed || disk.is_full)
    }

    /// Sends the next heartbeat at once.
    pub(crate) fn tell(&self) {
        self.news.send_modify(|number| *number += 1);
    }

    /// Follows what should not wait for the next heartbeat.
    pub(crate) fn watch_news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// The node's word that it holds `replica`.
    pub(crate) fn receipt(&self, replica: &SealedChunk) -> Result<Receipt, Error> {
        let membership = self.membership().ok_or(Error::NotRegistered)?;
        let receipt = Receipt {
            chunk: replica.chunk,
            part: Part::WHOLE,
            length: replica.seal.length,
            crc32c: replica.seal.crc32c,
            node: self.id,
            disk: replica.disk,
            stamp: replica.stamp,
            registration: membership.registration,
            seal: Seal([0; 32]),
        };
        Ok(receipt.sealed(&membership.key))
    }

    /// Finds the replica of exactly this name. `NotFound` only if the disk that it names is in
    /// service and does not hold it; see [`Self::absence`].
    pub(crate) async fn find(&self, replica: ReplicaRef) -> Result<SealedChunk, Error> {
        let found = self.store.stat(replica.chunk).await?;
        found.filter(|found| found.replica() == replica).ok_or_else(|| self.absence(replica))
    }

    /// The error for a replica that the store did not find. A disk that is out of service still has
    /// what was written to it, so nothing is known of its replicas, and they are not reported as
    /// absent.
    ///
    /// To be called after the store was asked: a failing disk is marked as failed before its
    /// replicas leave the index.
    pub(crate) fn absence(&self, replica: ReplicaRef) -> Error {
        let ReplicaRef { chunk, disk, .. } = replica;
        let is_in_service = |usage: &DiskUsage| usage.disk == disk && !usage.is_failed;
        if self.store.usage().iter().any(is_in_service) {
            StoreError::NotFound(chunk).into()
        } else {
            Error::DiskOutOfService { chunk, disk }
        }
    }

    /// The error of a replica that was found, and then could not be used.
    pub(crate) fn failure(&self, replica: ReplicaRef, error: StoreError) -> Error {
        match error {
            StoreError::NotFound(_) => self.absence(replica),
            error => error.into(),
        }
    }

    /// Verifies `block` of a replica, and then all of it unless [`Verifications`] has had enough.
    /// Sets it aside if it is bad. Returns whether it is set aside, now or earlier.
    pub(crate) async fn examine(&self, name: ReplicaRef, block: u64) -> Result<bool, Error> {
        let replica = self.find(name).await?;
        let chunk = replica.chunk;
        if replica.is_set_aside {
            return Ok(true);
        }
        if !self.is_block_sound(chunk, block).await? {
            self.condemn(replica, block).await?;
            return Ok(true);
        }
        let Some(_permit) = self.verifications.begin(name) else { return Ok(false) };
        match self.store.verify(chunk).await {
            Ok(None) => Ok(false),
            Ok(Some(bad)) => self.condemn(replica, bad).await.map(|()| true),
            Err(StoreError::Damaged { .. }) => self.condemn(replica, block).await.map(|()| true),
            Err(error) => {
                self.verifications.forget(name);
                Err(error.into())
            }
        }
    }

    async fn is_block_sound(&self, chunk: ChunkId, block: u64) -> Result<bool, Error> {
        let offset = block.saturating_mul(BLOCK_SIZE as u64);
        match self.store.read(chunk, offset, 1).await {
            Ok(blocks) => Ok(Crc32c::of_blocks(&blocks.data) == blocks.crcs),
            Err(StoreError::Damaged { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a replica. One that cannot be read is condemned, as if a reader had reported it.
    pub(crate) async fn read(
        &self,
        replica: SealedChunk,
        offset: u64,
        length: u64,
    ) -> Result<Blocks, Error> {
        let read = self.store.read(replica.chunk, offset, length).await;
        if let Err(error @ StoreError::Damaged { .. }) = &read {
            let block = offset / BLOCK_SIZE as u64;
            if let Err(second) = self.condemn(replica, block).await {
                let chunk = replica.chunk;
                tracing::error!(%chunk, %error, %second, "an unreadable replica is not set aside");
            }
        }
        read.map_err(|error| self.failure(replica.replica(), error))
    }

    /// Sets a bad replica aside, and sees to it that coordinators learn of it.
    pub(crate) async fn condemn(&self, replica: SealedChunk, block: u64) -> Result<(), Error> {
        let ReplicaRef { chunk, stamp, disk, .. } = replica.replica();
        self.counts.checksum_errors.increment();
        self.store.set_aside(chunk, stamp).await?;
        self.counts.set_aside.increment();
        tracing::error!(
            %chunk, node = %self.id, %disk, block,
            "a replica is damaged on disk; it was set aside, the cluster makes another"
        );
        if self.bad_replicas.add(replica.replica(), block) {
            self.tell();
        }
        Ok(())
    }

    /// Finds the replicas that were set aside, also by an earlier process.
    pub(crate) async fn find_set_aside(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.list(after, LISTING_STEP).await?;
            for replica in page.iter().filter(|replica| replica.is_set_aside) {
                self.bad_replicas.add(replica.replica(), 0);
            }
            match page.last() {
                Some(last) => after = Some(last.chunk),
                None => return Ok(()),
            }
        }
    }
}

/// What a node says of itself that was removed from its cluster.
pub(crate) const REMOVED: &str =
    "this node was removed from the cluster: empty its disks to let it join as a new one";
