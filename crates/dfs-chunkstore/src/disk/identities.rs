//! The identity of a node on all its disks, and its changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfs_types::{Level, RegistrationNumber};
use tokio::sync::OwnedMutexGuard;

use super::identity_file::DiskIdentity;
use super::volume::Disk;
use crate::{Identity, Registration, StoreError};

/// The identities on the disks of a node.
///
/// No disk in service ever has a registration below the settled one of another disk, so that after
/// a crash at any point no disk looks like an old image. Two rules ensure this: the registration
/// that is written never decreases, not even after an interrupted write, and the first write that
/// marks it as settled goes to the only disk that may not have it yet.
pub(super) struct Identities {
    starts: u64,
    disks: Vec<Arc<Disk>>,
    current: Mutex<Identity>,
    /// A registration on every disk in service; held while identities are written.
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

    /// Returns the newest registration that may be on any disk, and the level that is on all of
    /// them.
    pub(super) fn current(&self) -> Identity {
        *self.get()
    }

    fn get(&self) -> MutexGuard<'_, Identity> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for exclusive access. It belongs to the job that writes, not to the caller, which may
    /// be gone before the job ends.
    pub(super) async fn lock(&self) -> OwnedMutexGuard<RegistrationNumber> {
        Arc::clone(&self.settled).lock_owned().await
    }

    /// Writes a registration to all disks in service, then marks it as settled on all of them.
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

    /// Writes a level to all disks in service, unless they have it.
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

    /// Writes the identity to all disks in service except the first `skipped`. A failing disk is
    /// taken out of service. Fails if a disk is full, or if no disk is left in service.
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
                // A full disk stays in service, so its identity must not fall behind.
                Err(error @ StoreError::NoSpace(_)) => return Err(error),
                Err(error) => tracing::warn!("taking a disk out of service: {error}"),
            }
        }
        if self.disks.iter().all(|disk| disk.is_failed()) {
            return Err(self.disks[0].out_of_service());
        }
        Ok(())
    }
}
