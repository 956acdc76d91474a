//! Which errors take a disk out of service, and which do not.

use std::io;

use rustix::io::Errno;

use super::identity_file::DiskIdentity;
use super::volume::Disk;
use crate::{Registration, StoreError};

/// Whether a disk is in service, apart from its pace.
#[derive(Debug, Clone)]
pub(super) enum Condition {
    /// In service, with the newest registration of the node.
    Current,
    /// In service, but it missed a registration.
    Returning {
        /// The registration that it has.
        registration: Option<Registration>,
        why: String,
    },
    /// Not available since the store was opened, for this reason.
    Missing(String),
    /// Not in its directory any more. Whatever is there from now on, it is used after a restart.
    Unmounted,
    /// Out of service for this reason.
    Failed(String),
}

/// Why a disk is missing that is not in its directory any more.
pub(super) const NOT_MOUNTED: &str =
    "the disk is not in its directory any more: mount it, and restart the node";

impl Disk {
    /// Takes the disk out of service: nothing on it is served or listed any more.
    pub(super) fn fail(&self, why: &dyn std::fmt::Display) {
        let mut condition = self.condition();
        if !matches!(*condition, Condition::Failed(_)) {
            tracing::error!(disk = %self.folder.display(), "taking the disk out of service: {why}");
            *condition = Condition::Failed(why.to_string());
        }
        drop(condition);
        self.index.drop_disk(self.number);
    }

    /// Takes the disk out of service because it is not in its directory any more. It may come back.
    pub(super) fn unmount(&self) {
        let mut condition = self.condition();
        if matches!(*condition, Condition::Current | Condition::Returning { .. }) {
            tracing::error!(disk = %self.folder.display(), "{NOT_MOUNTED}");
            *condition = Condition::Unmounted;
        }
        drop(condition);
        self.index.drop_disk(self.number);
        // The restarted node takes it.
        self.release();
    }

    /// Classifies an error of the operating system: no space, a failed disk, or neither.
    pub(super) fn fault(&self, action: &'static str, source: io::Error) -> StoreError {
        if is_no_space(&source) {
            return StoreError::NoSpace(format!("{} is full", self.folder.display()));
        }
        if is_disk_failure(&source) {
            self.fail(&source);
        }
        StoreError::Io { action, disk: self.folder.display().to_string(), source }
    }

    /// Like [`Self::fault`] for a failed sync: the data is lost, so any cause other than no space
    /// fails the disk.
    pub(super) fn sync_fault(&self, action: &'static str, source: io::Error) -> StoreError {
        if !is_no_space(&source) {
            self.fail(&source);
        }
        self.fault(action, source)
    }

    /// Returns whether nothing on it is served or written.
    pub(super) fn is_out_of_service(&self) -> bool {
        !self.has_identity_of_start() || self.progress.percent().is_some()
    }

    /// Returns whether it takes part in changes of the identity: it is in service, or being read.
    pub(super) fn has_identity_of_start(&self) -> bool {
        use Condition::{Failed, Missing, Unmounted};
        !matches!(*self.condition(), Missing(_) | Unmounted | Failed(_))
    }

    pub(super) fn is_missing(&self) -> bool {
        matches!(*self.condition(), Condition::Missing(_))
    }

    /// Records why the disk is not available, unless it has failed or was unmounted.
    pub(super) fn stay_missing(&self, why: String) {
        let mut condition = self.condition();
        if !matches!(*condition, Condition::Failed(_) | Condition::Unmounted) {
            *condition = Condition::Missing(why);
        }
    }

    /// Puts a missing disk in service, unless it has failed.
    pub(super) fn return_from_absence(&self, to: Condition) {
        let mut condition = self.condition();
        if matches!(*condition, Condition::Missing(_)) {
            *condition = to;
        }
    }

    /// Reads its identity. An error does not fail the disk.
    pub(super) fn probe(&self) -> Result<(), StoreError> {
        let disk = || self.folder.display().to_string();
        DiskIdentity::probe(&*self.fs, &self.folder).map_err(|source| StoreError::Io {
            action: "reading the identity",
            disk: disk(),
            source,
        })
    }

    pub(super) fn out_of_service(&self) -> StoreError {
        StoreError::Io {
            action: "writing",
            disk: self.folder.display().to_string(),
            source: io::Error::other("the disk is out of service"),
        }
    }
}

pub(super) fn is_no_space(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Returns true for errors that a disk does not recover from by itself.
pub(super) fn is_disk_failure(error: &io::Error) -> bool {
    const FATAL: [Errno; 6] =
        [Errno::IO, Errno::ROFS, Errno::NODEV, Errno::NXIO, Errno::UCLEAN, Errno::STALE];
    error.raw_os_error().is_some_and(|raw| FATAL.iter().any(|errno| errno.raw_os_error() == raw))
}

/// Returns the same error again, for another caller.
pub(super) fn copy_error(error: &StoreError) -> StoreError {
    match error {
        StoreError::NoSpace(what) => StoreError::NoSpace(what.clone()),
        StoreError::Io { action, disk, source } => {
            let source = match source.raw_os_error() {
                Some(raw) => io::Error::from_raw_os_error(raw),
                None => io::Error::new(source.kind(), source.to_string()),
            };
            StoreError::Io { action, disk: disk.clone(), source }
        }
        _ => StoreError::Closed,
    }
}
