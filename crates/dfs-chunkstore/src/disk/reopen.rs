//! Brings disks into service that were not available when the store was opened: their directory was
//! empty or locked, or an operation on them did not return.
//!
//! Until everything on a disk has been read, it is not in service: it proves no absence, and its
//! identity is that of an earlier start.

use std::sync::Arc;

use dfs_types::{ChunkId, Level, with_causes};

use super::failure::Condition;
use super::identities::Identities;
use super::index::Entry;
use super::open::{Folder, Found};
use super::reading::if_done;
use super::recover::Recovered;
use super::volume::Disk;
use crate::thread_pool::Running;
use crate::{OpenError, Registration};

/// What has begun on a disk that is not in service yet.
pub(super) enum Attempt {
    /// Its directory is being locked, and its identity read.
    Opening(Running<Result<Found, OpenError>>),
    /// Its replicas are being read, as the store was opened with it.
    Reading(Running<Recovered>),
    /// Its replicas are being read, after it was missing. It has this registration.
    Scanning(Option<Registration>, Running<Recovered>),
}

/// Why a disk is missing while an operation on it does not return.
pub(super) const HANGS: &str = "an operation has not returned since the node started: check the \
    disk and its driver; the disk is used as soon as it answers";
/// Why a disk is missing whose directory is empty.
pub(super) const EMPTY: &str = "the directory is empty, but a disk of this node was in it: mount \
    the disk; if it is gone for good, give its replacement another directory";

impl Disk {
    /// Tries to bring the disk into service if it is missing, or puts it in service once it has been
    /// read. Returns true if it succeeded. What has not ended is continued by the next call.
    pub(super) async fn reopen(self: &Arc<Self>, identities: &Identities, newest: Level) -> bool {
        let mut attempt = self.attempt.lock().await;
        if !self.is_missing() {
            return self.continue_reading(&mut attempt).await;
        }
        match self.advance(&mut attempt, identities, newest).await {
            Ok(()) => {
                tracing::info!(disk = %self.path().display(), "a missing disk is back in service");
                true
            }
            Err(why) => {
                self.stay_missing(why);
                false
            }
        }
    }

    /// Continues an attempt to its end. An error says why the disk stays missing.
    async fn advance(
        self: &Arc<Self>,
        attempt: &mut Option<Attempt>,
        identities: &Identities,
        newest: Level,
    ) -> Result<(), String> {
        if attempt.is_none() {
            let (fs, path) = (Arc::clone(&self.fs), self.folder.clone());
            let opening = self.pool.start(move || Folder::take(&*fs, &path, newest)).await;
            *attempt = Some(Attempt::Opening(opening));
        }
        if let Some(Attempt::Opening(opening)) = attempt {
            let opened = self.unless_hung(opening).await.map_err(|_| HANGS.to_owned())?;
            *attempt = None;
            let found = opened.unwrap_or_else(|panic| Err(panic.into()));
            let found = found.map_err(|error| with_causes(&error))?;
            let registration = self.accept(found, identities).await?;
            let scan = self.start_reading().await;
            *attempt = Some(Attempt::Scanning(registration, scan));
        }
        if let Some(Attempt::Scanning(registration, scan)) = attempt {
            let registration = *registration;
            let recovered = if_done(scan).await.ok_or_else(|| HANGS.to_owned())?;
            *attempt = None;
            let joined = match recovered {
                Ok(recovered) => self.join(registration, recovered, identities).await,
                Err(panic) => Err(panic.to_string()),
            };
            self.progress.end();
            return joined.inspect_err(|_| {
                // The next attempt takes it again.
                self.release();
            });
        }
        Ok(())
    }

    /// Checks that what was found is this disk, and keeps its lock.
    async fn accept(
        &self,
        found: Found,
        identities: &Identities,
    ) -> Result<Option<Registration>, String> {
        let Found { lock, identity, .. } = found;
        let Some(old) = identity else {
            let is_known = identities.lock().await.names(self.id);
            let why = if is_known { EMPTY } else { "restart the node to use it as a new disk" };
            return Err(why.to_owned());
        };
        let ours = identities.current();
        let cluster = |registration: Option<Registration>| registration.map(|own| own.cluster);
        let is_other_cluster = cluster(old.registration)
            .is_some_and(|theirs| cluster(ours.registration).is_some_and(|ours| ours != theirs));
        if old.node != ours.node || old.secret != ours.secret || is_other_cluster {
            return Err("it belongs to another node: give each node its own disks".to_owned());
        }
        if old.disk != self.id || old.starts >= ours.start {
            return Err("restart the node to use the disk".to_owned());
        }
        self.keep(lock);
        Ok(old.registration)
    }

    /// Writes the identity of this start, and puts the disk with its replicas in service.
    async fn join(
        self: &Arc<Self>,
        registration: Option<Registration>,
        recovered: Recovered,
        identities: &Identities,
    ) -> Result<(), String> {
        let mut changing = identities.lock().await;
        if !self.is_missing() {
            return Err("reading it failed".to_owned());
        }
        let admitted = identities.admit(self, registration, &mut changing).await;
        let condition = admitted.map_err(|error| with_causes(&error))?;
        self.add_recovered(recovered).await;
        self.return_from_absence(condition);
        Ok(())
    }

    /// Adds what was found on the disk to the index.
    pub(super) async fn add_recovered(self: &Arc<Self>, recovered: Recovered) {
        let Recovered { replicas, replaced, count, bytes } = recovered;
        self.space.add(count, bytes);
        self.index.set_disk(replicas);
        if matches!(*self.condition(), Condition::Failed(_)) {
            self.index.drop_disk(self.number);
        }
        self.free_all_replaced(replaced).await;
    }

    /// Adds replicas that were found later.
    pub(super) async fn add_replicas(self: &Arc<Self>, replicas: Vec<(ChunkId, Entry)>) {
        let mut replaced = Vec::new();
        for (chunk, entry) in replicas {
            self.space.add(1, entry.size());
            replaced.extend(self.index.adopt(chunk, entry).map(|old| (chunk, old)));
        }
        self.free_all_replaced(replaced).await;
    }

    async fn free_all_replaced(self: &Arc<Self>, replaced: Vec<(ChunkId, Entry)>) {
        for (chunk, old) in replaced {
            let on = Arc::clone(self);
            if let Err(error) = self.run(move || on.free_replaced(chunk, &old)).await {
                tracing::warn!(%chunk, %error, "cannot free a replica that was replaced");
            }
        }
    }
}
