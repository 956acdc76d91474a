//! What all disks of a node say of it, and how that changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfs_types::{Level, RegistrationNumber};
use tokio::sync::OwnedMutexGuard;

use super::identity::DiskIdentity;
use super::volume::Disk;
use crate::{Identity, Registration, StoreError};

/// The identities on the disks of a node.
///
/// No disk in service ever has a registration below the settled one of another disk, so that a
/// crash at any point leaves none that looks like an old image. Two rules keep this true: the
/// registration that is written never goes back, not even after one that was cut off, and the first
/// write that calls it settled goes to the only disk that may not have it yet.
pub(super) struct Identities {
    starts: u64,
    disks: Vec<Arc<Disk>>,
    current: Mutex<Identity>,
    /// A registration that every disk in service has; held while identities are written.
    settled: Arc<tokio::sync::Mutex<RegistrationNumber>>,
}

impl Identities {
    pub(super) fn new(
        identity: Identity,
        settled: RegistrationNumber,
        starts: u64,
        disks: Vec<Arc<Disk>>,
    ) -> Self {
        let settled = Arc::new(tokio::sync::Mutex::new(settled));
        Self { starts, disks, current: Mutex::new(identity), settled }
    }

    /// The newest registration that may be on any disk, and the level that is on all of them.
    pub(super) fn current(&self) -> Identity {
        *self.get()
    }

    fn get(&self) -> MutexGuard<'_, Identity> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn to write. It belongs to the job that writes, not to the caller, who may
    /// be gone before the job has ended.
    pub(super) async fn lock(&self) -> OwnedMutexGuard<RegistrationNumber> {
        Arc::clone(&self.settled).lock_owned().await
    }

    /// Writes a registration on all disks in service, and that all of them have it.
    pub(super) fn register(
        &self,
        registration: Registration,
        settled: &mut RegistrationNumber,
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
        let identity = Identity { registration: Some(registration), ..before };
        // Even if this fails, a disk may have it.
        *self.get() = identity;
        self.write(1, identity, *settled)?;
        self.write(0, identity, registration.number)?;
        *settled = registration.number;
        Ok(())
    }

    /// Writes a level on all disks in service, unless they have it.
    pub(super) fn raise_level(
        &self,
        level: Level,
        settled: RegistrationNumber,
    ) -> Result<(), StoreError> {
        let before = self.current();
        if level > before.level {
            let identity = Identity { level, ..before };
            self.write(0, identity, settled)?;
            *self.get() = identity;
        }
        Ok(())
    }

    /// Writes the identity on all disks in service but the first `skipped`. A disk that fails is
    /// left out; fails when a disk is full, or none is left.
    fn write(
        &self,
        skipped: usize,
        identity: Identity,
        settled: RegistrationNumber,
    ) -> Result<(), StoreError> {
        let Identity { node, secret, registration, level } = identity;
        let starts = self.starts;
        for disk in self.disks.iter().filter(|disk| !disk.is_failed()).skip(skipped) {
            let id = disk.id;
            let identity =
                DiskIdentity { node, secret, disk: id, starts, level, registration, settled };
            let written = identity.write(&*disk.fs, &disk.folder);
            match written.map_err(|error| disk.sync_fault("writing the identity", error)) {
                Ok(()) => {}
                // A full disk goes on serving, and so must not be left behind.
                Err(error @ StoreError::NoSpace(_)) => return Err(error),
                Err(error) => tracing::warn!("a disk is left out: {error}"),
            }
        }
        if self.disks.iter().all(|disk| disk.is_failed()) {
            return Err(self.disks[0].out_of_service());
        }
        Ok(())
    }
}
