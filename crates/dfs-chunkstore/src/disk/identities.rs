//! The identity of a node on all its disks, and its changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfs_types::{DiskId, Level};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};

use super::failure::Condition;
use super::identity_file::{DiskIdentity, KnownDisk};
use super::open::missed;
use super::reopen::HANGS;
use super::volume::Disk;
use crate::identity::number_of;
use crate::{Identity, Registration, StoreError};

/// Why the disks of a node are returning whose replicas the cluster has to compare first.
const REJOINED: &str = "the cluster has no current records of this node; what it holds is served, \
    and the coordinator compares it with its records";

/// The identities on the disks of a node.
///
/// A disk that cannot take a registration, because it is full or hangs, is returning from then on.
/// No other disk in service ever has a registration below the settled one of another disk, so that
/// after a crash at any point none looks like one that missed a registration. Two rules ensure this:
/// the registration written never decreases, not even after an interrupted one, and the first write
/// that marks it as settled goes to the only disk that may not have it yet.
///
/// A returning disk keeps its own registration, but learns which one is settled: if all disks are
/// returning, that is the registration of the node.
pub(super) struct Identities {
    disks: Vec<Arc<Disk>>,
    current: Mutex<Identity>,
    /// Held while identities are changed.
    changing: AsyncMutex<Changing>,
}

/// State that only changes of identities use.
pub(super) struct Changing {
    /// A registration on every disk in service that is not returning.
    settled: Option<Registration>,
    known: Vec<KnownDisk>,
}

impl Changing {
    /// Returns whether the disk is one of the node's.
    pub(super) fn names(&self, disk: DiskId) -> bool {
        self.known.iter().any(|known| known.disk == disk)
    }

    fn add(&mut self, disk: &Disk) {
        if !self.names(disk.id) {
            self.known.push(KnownDisk { disk: disk.id, folder: disk.folder.clone() });
        }
    }
}

impl Identities {
    pub(super) fn new(
        identity: Identity,
        settled: Option<Registration>,
        known: Vec<KnownDisk>,
        disks: Vec<Arc<Disk>>,
    ) -> Self {
        let changing = AsyncMutex::new(Changing { settled, known });
        Self { disks, current: Mutex::new(identity), changing }
    }

    /// Returns the newest registration that may be on any disk, and the level that is on all of
    /// them.
    pub(super) fn current(&self) -> Identity {
        *self.get()
    }

    fn get(&self) -> MutexGuard<'_, Identity> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for exclusive access.
    pub(super) async fn lock(&self) -> AsyncMutexGuard<'_, Changing> {
        self.changing.lock().await
    }

    /// Returns the disks in service, and those that are being read.
    fn serving(&self) -> impl Iterator<Item = &Arc<Disk>> {
        self.disks.iter().filter(|disk| disk.has_identity_of_start())
    }

    /// Returns the disks in service, without those that are returning.
    fn current_disks(&self) -> Vec<Arc<Disk>> {
        self.disks.iter().filter(|disk| disk.is_current()).cloned().collect()
    }

    /// Writes the identity of this start to every disk in service, in parallel. A full disk is
    /// returning from then on, any other error takes the disk out of service; fails if no disk took
    /// it, or none has the newest registration any more. Returns the disks that hang, which are
    /// missing from then on, with their registrations.
    ///
    /// No disk names a new one before that has its identity, which a crash may prevent.
    pub(super) async fn start(
        &self,
        changing: &mut Changing,
    ) -> Result<Vec<(DiskId, Option<Registration>)>, StoreError> {
        let identity = self.current();
        let had_current = !self.current_disks().is_empty();
        let mut writes = Vec::new();
        for disk in self.serving() {
            let content = content(disk, identity, changing, changing.settled);
            writes.push((disk, disk.start_writing_identity(content, true).await));
        }
        let (mut first_error, mut is_any_written, mut hanging) = (None, false, Vec::new());
        for (disk, written) in writes {
            let written = match written {
                Ok(writing) => disk.written(writing).await,
                Err(error) => Err(error),
            };
            match written {
                Ok(()) => {
                    is_any_written = true;
                    changing.add(disk);
                }
                Err(error) => {
                    if matches!(error, StoreError::Hung { .. }) {
                        hanging.push((disk.id, disk.registration(identity.registration)));
                        disk.stay_missing(HANGS.to_owned());
                    } else if is_left_behind(&error) {
                        disk.return_later(identity.registration, &error);
                    }
                    first_error.get_or_insert(error);
                }
            }
        }
        match first_error {
            Some(error) if !is_any_written => Err(error),
            Some(error) if had_current && self.current_disks().is_empty() => Err(error),
            _ => Ok(hanging),
        }
    }

    /// Writes the identity of this start to a disk that was not available before and has this
    /// registration. Returns the condition that it is in then: returning if it missed a
    /// registration, or is full.
    pub(super) async fn admit(
        &self,
        disk: &Arc<Disk>,
        registration: Option<Registration>,
        changing: &mut Changing,
    ) -> Result<Condition, StoreError> {
        let identity = self.current();
        let settled = number_of(changing.settled);
        let is_current = number_of(registration) >= settled;
        let content = DiskIdentity {
            registration: if is_current { identity.registration } else { registration },
            ..content(disk, identity, changing, changing.settled)
        };
        match disk.write_identity(content).await {
            Err(error @ StoreError::NoSpace(_)) => {
                return Ok(Condition::Returning { registration, why: error.to_string() });
            }
            written => written?,
        }
        changing.add(disk);
        if is_current {
            return Ok(Condition::Current);
        }
        Ok(Condition::Returning { registration, why: missed(settled) })
    }

    /// Writes a registration to all current disks, then marks it as settled on all disks in service.
    /// With `is_rejoin`, all of them are returning from then on.
    pub(super) async fn register(
        &self,
        registration: Registration,
        is_rejoin: bool,
        changing: &mut Changing,
    ) -> Result<(), StoreError> {
        let before = self.current();
        if let Some(old) = before.registration {
            if old.cluster != registration.cluster {
                return Err(StoreError::WrongCluster(old.cluster));
            }
            if old.number > registration.number {
                let (found, given) = (old.number, registration.number);
                return Err(StoreError::OldRegistration { found, given });
            }
        }
        let start = before.start.max(registration.number.0);
        let identity = Identity { registration: Some(registration), start, ..before };
        // Even if this fails, a disk may have it.
        *self.get() = identity;
        if is_rejoin {
            self.serving().for_each(|disk| disk.return_later(before.registration, &REJOINED));
        }
        let all = self.current_disks();
        for disk in all.iter().skip(1) {
            let content = content(disk, identity, changing, changing.settled);
            if let Err(error) = disk.write_identity(content).await {
                self.leave_behind(disk, before.registration, error)?;
            }
        }
        for (number, disk) in all.iter().enumerate().filter(|(_, disk)| disk.is_current()) {
            let content = content(disk, identity, changing, Some(registration));
            match disk.write_identity(content).await {
                Ok(()) => {}
                // It has the registration, and others know that it is settled.
                Err(error) if number > 0 && is_left_behind(&error) => {
                    tracing::warn!(
                        "a disk does not record that its registration is settled: {error}"
                    );
                }
                Err(error) => self.leave_behind(disk, before.registration, error)?,
            }
        }
        self.settle_on_returning(identity, registration, changing).await?;
        changing.settled = Some(registration);
        if let Some(disk) = self.disks.first() {
            disk.stamps.raise(start);
        }
        Ok(())
    }

    /// Marks a registration as settled on the disks that are returning. Fails if no disk in service
    /// has it then.
    async fn settle_on_returning(
        &self,
        identity: Identity,
        registration: Registration,
        changing: &Changing,
    ) -> Result<(), StoreError> {
        let mut is_durable = !self.current_disks().is_empty();
        let mut first_error = None;
        for disk in self.serving().filter(|disk| !disk.is_current()) {
            let content = content(disk, identity, changing, Some(registration));
            match disk.write_identity(content).await {
                Ok(()) => is_durable = true,
                Err(error) => {
                    tracing::warn!("a returning disk does not record a registration: {error}");
                    first_error.get_or_insert(error);
                }
            }
        }
        if is_durable { Ok(()) } else { Err(first_error.unwrap_or(StoreError::NoneInService)) }
    }

    /// Writes a level to all disks in service, unless they have it. Fails if one of them cannot
    /// take it and stays in service.
    pub(super) async fn raise_level(
        &self,
        level: Level,
        changing: &Changing,
    ) -> Result<(), StoreError> {
        let before = self.current();
        if level > before.level {
            let identity = Identity { level, ..before };
            self.rewrite(identity, changing).await?;
            *self.get() = identity;
        }
        Ok(())
    }

    /// Ends the return of a disk: writes the newest registration to it. Idempotent.
    pub(super) async fn settle(&self, id: DiskId, changing: &Changing) -> Result<(), StoreError> {
        let disk = self.disks.iter().find(|disk| disk.id == id).ok_or(StoreError::NoDisk(id))?;
        if disk.is_current() {
            return Ok(());
        }
        if disk.is_out_of_service() {
            return Err(disk.out_of_service());
        }
        let identity = self.current();
        let content = DiskIdentity {
            registration: identity.registration,
            ..content(disk, identity, changing, changing.settled)
        };
        disk.write_identity(content).await?;
        disk.end_return();
        Ok(())
    }

    /// Removes disks that are not in service from the identities, so that the next start may use
    /// their directories for new disks.
    pub(super) async fn forget(
        &self,
        disks: &[DiskId],
        changing: &mut Changing,
    ) -> Result<(), StoreError> {
        let is_served = |id| self.disks.iter().any(|it| it.id == id && it.has_identity_of_start());
        let is_forgotten =
            |known: &KnownDisk| disks.contains(&known.disk) && !is_served(known.disk);
        let before = changing.known.clone();
        changing.known.retain(|known| !is_forgotten(known));
        if changing.known == before {
            return Ok(());
        }
        let written = self.rewrite(self.current(), changing).await;
        if written.is_err() {
            // The next call writes it again.
            changing.known = before;
        }
        written
    }

    /// Writes the identity to all disks in service.
    async fn rewrite(&self, identity: Identity, changing: &Changing) -> Result<(), StoreError> {
        for disk in self.serving() {
            let content = content(disk, identity, changing, changing.settled);
            match disk.write_identity(content).await {
                Err(error) if disk.has_identity_of_start() => return Err(error),
                _ => {}
            }
        }
        if !self.disks.iter().any(|disk| disk.has_identity_of_start()) {
            return Err(self.disks[0].out_of_service());
        }
        Ok(())
    }

    /// Records that a disk did not take a registration; fails if no other disk did.
    fn leave_behind(
        &self,
        disk: &Disk,
        registration: Option<Registration>,
        error: StoreError,
    ) -> Result<(), StoreError> {
        tracing::warn!("leaving out a disk: {error}");
        if self.current_disks().iter().all(|current| current.id == disk.id) {
            return Err(error);
        }
        if is_left_behind(&error) {
            disk.return_later(registration, &error);
        }
        Ok(())
    }
}

/// Returns the identity of a disk. A returning disk keeps its own registration.
fn content(
    disk: &Disk,
    identity: Identity,
    changing: &Changing,
    settled: Option<Registration>,
) -> DiskIdentity {
    let Identity { node, secret, registration, level, start } = identity;
    DiskIdentity {
        node,
        secret,
        disk: disk.id,
        starts: start,
        level,
        registration: disk.registration(registration),
        settled,
        known: changing.known.clone(),
    }
}

/// Returns whether a disk that could not take an identity stays in service.
fn is_left_behind(error: &StoreError) -> bool {
    matches!(error, StoreError::NoSpace(_) | StoreError::Hung { .. })
}
