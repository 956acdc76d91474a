//! The cluster itself: init, open, settings.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dfs_types::{
    Access, Attributes, ChunkId, Clock, ClusterId, ClusterKeys, DiskNumber, Incarnation, InodeId,
    Level, Random, Replication, Revision, Scope,
};

use super::confirmed_clock::ConfirmedClock;
use super::format::{CurrentFormat, read_cluster, require_level};
use super::inodes::Inodes;
use super::transaction::Transaction;
use super::{Components, Inner, Namespace, Nodes, Options};
use crate::codec::Record as _;
use crate::engine::{Commit, Condition, Engine, Outcome, Snapshot, Write};
use crate::records::format::StoreFormat;
use crate::records::inode::{Content, Directory, Inode, Link, Times};
use crate::records::setting::{Cluster, Floor, Gc, Mark, MigrationMark, NextDisk, NextInode};
use crate::{Error, keys};

/// Incarnation of a new cluster.
const FIRST: Incarnation = Incarnation(1);

/// Settings of a new cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitOptions {
    /// Id of the cluster; must be unique.
    pub cluster: ClusterId,
    /// Replicas of new files.
    pub replication: Replication,
}

/// Identity of a cluster and of a state of its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// Raised when the metadata is restored.
    pub incarnation: Incarnation,
}

/// The cluster at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterState {
    /// Revision of the snapshot.
    pub revision: Revision,
    /// Replicas of new files.
    pub replication: Replication,
    /// Whether a change of replication is not applied to all existing files yet.
    pub has_pending_policies: bool,
    /// All nodes.
    pub nodes: Nodes,
}

/// Creates a cluster in an empty store. [`Error::AlreadyInitialised`] when the store holds one.
pub async fn init(
    engine: &dyn Engine,
    options: &InitOptions,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<ClusterIdentity, Error> {
    let Replication { factor, min_write } = options.replication;
    check_replication(options.replication)?;
    let identity = ClusterIdentity { cluster: options.cluster, incarnation: FIRST };
    let cluster = Cluster { id: identity.cluster, incarnation: identity.incarnation };
    let now = clock.now();
    let attributes = Attributes { mode: 0o755, mtime: now.into(), ..Attributes::default() };
    let place = Directory { parent: InodeId::ROOT, link: Link::Linked };
    let root = Inode::new(attributes, now, Content::Directory(place));
    let put = |key: Bytes, value: Vec<u8>| Write::Put(key, value.into());
    let commit = Commit {
        conditions: vec![
            Condition::Absent(keys::CLUSTER),
            Condition::Absent(keys::MIGRATION),
            Condition::Absent(keys::inode(InodeId::ROOT)),
        ],
        writes: vec![
            put(
                keys::FORMAT,
                StoreFormat { written: Level::FIRST, least: Level::FIRST }.encode(Level::FIRST),
            ),
            put(keys::CLUSTER, cluster.encode(Level::FIRST)),
            put(keys::KEYS, ClusterKeys::random(random).encode(Level::FIRST)),
            put(keys::REPLICATION, Replication { factor, min_write }.encode(Level::FIRST)),
            put(keys::DISKS, NextDisk(DiskNumber::FIRST).encode(Level::FIRST)),
            put(keys::INODES, NextInode(InodeId::ROOT.next()).encode(Level::FIRST)),
            put(keys::FLOOR, Floor(ChunkId::MIN).encode(Level::FIRST)),
            put(keys::GC, Gc { acknowledged: FIRST, ..Gc::default() }.encode(Level::FIRST)),
            put(keys::MOVES, Mark.encode(Level::FIRST)),
            put(keys::NAMES, Mark.encode(Level::FIRST)),
            put(keys::inode(InodeId::ROOT), root.encode(Level::FIRST)),
            put(keys::times(InodeId::ROOT), Times::now(clock.now()).encode(Level::FIRST)),
        ],
    };
    if let [Outcome::Committed(_)] = engine.commit_batch(vec![commit]).await?[..] {
        return Ok(identity);
    }
    let snapshot = engine.snapshot().await?;
    refuse_unfinished(&*snapshot).await?;
    let (found, ..) =
        read_cluster(&*snapshot, Level::NEWEST).await?.ok_or_else(|| missing(&keys::CLUSTER))?;
    Err(Error::AlreadyInitialised(found.id))
}

/// Returns the cluster that a store holds, if any.
pub async fn find(engine: &dyn Engine) -> Result<Option<ClusterId>, Error> {
    let snapshot = engine.snapshot().await?;
    refuse_unfinished(&*snapshot).await?;
    Ok(read_cluster(&*snapshot, Level::NEWEST).await?.map(|(cluster, ..)| cluster.id))
}

/// Refuses the target of an unfinished migration.
pub(crate) async fn refuse_unfinished(snapshot: &dyn Snapshot) -> Result<(), Error> {
    match snapshot.get(&keys::MIGRATION).await? {
        None => Ok(()),
        Some(found) => {
            let mark = MigrationMark::decode(&keys::MIGRATION, &found.value, Level::NEWEST)?;
            Err(Error::UnfinishedMigration(mark.cluster))
        }
    }
}

/// Refuses a replication that cannot be.
pub(super) fn check_replication(replication: Replication) -> Result<(), Error> {
    let Replication { factor, min_write } = replication;
    let max = Replication::FACTOR_MAX;
    if !(1..=max).contains(&factor) {
        return Err(Error::Invalid {
            what: format!("a replication factor must be 1 to {max}, not {factor}"),
        });
    }
    if let Some(min) = min_write.filter(|min| !(1..=factor).contains(min)) {
        return Err(Error::Invalid {
            what: format!("the minimum of replicas for a write must be 1 to {factor}, not {min}"),
        });
    }
    Ok(())
}

fn missing(key: &Bytes) -> Error {
    Error::Damaged { key: keys::show(key), what: "nothing" }
}

impl Namespace {
    /// Opens the cluster of a store. `expected` is the identity seen before, if any.
    ///
    /// Refuses a store that holds no cluster, another cluster, an older incarnation, an unfinished
    /// migration, or a write level that needs a newer release.
    pub async fn open(
        components: Components,
        options: Options,
        expected: Option<ClusterIdentity>,
    ) -> Result<Self, Error> {
        let snapshot = components.engine.snapshot().await?;
        refuse_unfinished(&*snapshot).await?;
        let level = options.level;
        let found = read_cluster(&*snapshot, level).await?.ok_or(Error::NotInitialised)?;
        let (cluster, format, version) = found;
        let format = CurrentFormat { format, version };
        require_level(level, format.format.least)?;
        let identity = ClusterIdentity { cluster: cluster.id, incarnation: cluster.incarnation };
        if let Some(expected) = expected {
            if expected.cluster != identity.cluster {
                let (expected, found) = (expected.cluster, identity.cluster);
                return Err(Error::WrongCluster { expected, found });
            }
            if identity.incarnation < expected.incarnation {
                let (expected, found) = (expected.incarnation, identity.incarnation);
                return Err(Error::OlderIncarnation { expected, found });
            }
        }
        let found = snapshot.get(&keys::KEYS).await?;
        let no_keys = || Error::Damaged { key: keys::show(&keys::KEYS), what: "missing" };
        let keys = ClusterKeys::decode(&keys::KEYS, &found.ok_or_else(no_keys)?.value, level)?;
        let inner = Inner {
            components,
            options,
            identity,
            keys,
            format: Mutex::new(format),
            inodes: Inodes::default(),
            chunks_changed_at: AtomicU64::default(),
            disks: Mutex::default(),
            floor_ms: AtomicU64::default(),
            confirmed_clock: Mutex::new(ConfirmedClock::new(options.confirm_clock)),
        };
        let namespace = Self { inner: Arc::new(inner) };
        namespace.gc_floor(Scope::internal()).await?;
        Ok(namespace)
    }

    /// Returns the identity of the cluster.
    pub fn identity(&self) -> ClusterIdentity {
        self.inner.identity
    }

    /// Returns the keys behind all seals of the cluster.
    pub fn keys(&self) -> &ClusterKeys {
        &self.inner.keys
    }

    /// Returns settings and nodes at one revision.
    pub async fn cluster_state(&self, scope: &Scope) -> Result<ClusterState, Error> {
        scope.require(Access::Read)?;
        let tx = self.begin().await?;
        let replication = replication(&tx).await?;
        let nodes = super::nodes::all(&tx).await?;
        let has_pending_policies = tx.has_pending_policies().await?;
        Ok(ClusterState { revision: tx.revision(), replication, has_pending_policies, nodes })
    }
}

/// Returns how many replicas files get by default.
pub(super) async fn replication(tx: &Transaction) -> Result<Replication, Error> {
    tx.peek(&keys::REPLICATION).await?.ok_or_else(no_replication)
}

/// Returns the error of a store without a replication factor.
pub(super) fn no_replication() -> Error {
    missing(&keys::REPLICATION)
}
