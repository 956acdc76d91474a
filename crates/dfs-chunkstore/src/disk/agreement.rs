//! Which disks belong together, and which of them may serve.
//!
//! A registration is written to all disks but the first, and then, marked as settled, to all. A disk
//! with a number below the settled one of another disk missed a registration that every disk in
//! service had: it is returning. A crash between two disks leaves none that looks like it. If all
//! disks are returning, the settled registration is that of the node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dfs_types::{DiskId, Level, NodeId, NodeSecret};

use super::identity_file::{DiskIdentity, KNOWN_MAX, KnownDisk};
use crate::identity::number_of;
use crate::{OpenError, Registration};

/// Agreement of the disks of a node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Agreement {
    /// The node and its secret; `None` if all disks are empty.
    pub(super) node: Option<(NodeId, NodeSecret)>,
    /// The newest registration on any disk.
    pub(super) registration: Option<Registration>,
    /// The newest settled registration on any disk.
    pub(super) settled: Option<Registration>,
    pub(super) level: Level,
    pub(super) starts: u64,
    /// The disks of the node: those found, and those that the newest identities name.
    pub(super) known: Vec<KnownDisk>,
}

impl Agreement {
    /// Refuses disks that do not belong together; empty ones belong anywhere.
    pub(super) fn of(disks: &[(PathBuf, Option<DiskIdentity>)]) -> Result<Self, OpenError> {
        let known: Vec<_> = disks.iter().filter_map(|(p, d)| Some((p, d.as_ref()?))).collect();
        for window in known.windows(2) {
            let [(first, a), (second, b)] = window else { continue };
            let mixed = |what| OpenError::MixedDisks {
                first: (*first).clone(),
                second: (*second).clone(),
                what,
            };
            if a.node != b.node {
                return Err(mixed("nodes"));
            }
            if a.secret != b.secret {
                return Err(mixed("secrets"));
            }
        }
        let mut folders = BTreeMap::new();
        for (folder, disk) in &known {
            if let Some(first) = folders.insert(disk.disk, *folder) {
                let (first, second) = (first.clone(), (*folder).clone());
                return Err(OpenError::MixedDisks { first, second, what: "copies of one disk" });
            }
        }
        let mut newest: Option<(&PathBuf, Registration)> = None;
        for (path, disk) in &known {
            let Some(registration) = disk.registration else { continue };
            match newest {
                Some((first, other)) if other.cluster != registration.cluster => {
                    let (first, second) = (first.clone(), (*path).clone());
                    return Err(OpenError::MixedDisks { first, second, what: "clusters" });
                }
                Some((_, other)) if other.number >= registration.number => {}
                _ => newest = Some((path, registration)),
            }
        }
        let newest = newest.map(|(_, registration)| registration);
        let settled = known.iter().map(|(_, disk)| disk.settled);
        let settled = settled.max_by_key(|settled| number_of(*settled)).flatten();
        let starts = known.iter().map(|(_, disk)| disk.starts).max().unwrap_or(0);
        Ok(Self {
            node: known.first().map(|(_, disk)| (disk.node, disk.secret)),
            registration: if number_of(settled) > number_of(newest) { settled } else { newest },
            settled,
            level: known.iter().map(|(_, disk)| disk.level).max().unwrap_or(Level::FIRST),
            starts,
            known: known_disks(&known, starts),
        })
    }

    /// Returns the disk that was last found in a folder.
    pub(super) fn recorded_in(&self, folder: &Path) -> Option<DiskId> {
        self.known.iter().find(|known| known.folder == folder).map(|known| known.disk)
    }

    /// Returns true if a disk took part in every registration that all disks in service had.
    pub(super) fn includes(&self, disk: &DiskIdentity) -> bool {
        number_of(disk.registration) >= number_of(self.settled)
    }
}

/// Returns the disks that were found, and those that the identities of the last start name in other
/// directories.
fn known_disks(found: &[(&PathBuf, &DiskIdentity)], starts: u64) -> Vec<KnownDisk> {
    let here = found.iter().map(|(folder, disk)| (disk.disk, *folder));
    let mut known: Vec<_> =
        here.map(|(disk, folder)| KnownDisk { disk, folder: folder.clone() }).collect();
    let newest = found.iter().filter(|(_, disk)| disk.starts == starts);
    for named in newest.flat_map(|(_, disk)| &disk.known) {
        if known.iter().all(|it| it.disk != named.disk && it.folder != named.folder) {
            known.push(named.clone());
        }
    }
    known.truncate(KNOWN_MAX);
    known
}

#[cfg(test)]
mod tests {
    use dfs_types::ClusterId;

    use super::super::identity_file::tests::{disk, registration};
    use super::*;

    #[test]
    fn old_image_is_not_included() {
        let included = |disks: [(PathBuf, Option<DiskIdentity>); 3]| {
            let agreed = Agreement::of(&disks).unwrap();
            assert_eq!(agreed.registration, Some(registration(6)));
            disks.map(|(_, disk)| agreed.includes(&disk.unwrap()))
        };
        assert_eq!(included([disk(1, 6, 6), disk(2, 6, 5), disk(3, 5, 5)]), [true, true, false]);
        // Interrupted between two disks, or by a full one.
        assert_eq!(included([disk(1, 6, 4), disk(2, 5, 4), disk(3, 4, 4)]), [true; 3]);
    }

    #[test]
    fn settled_registration_counts_while_all_disks_are_returning() {
        for second in [disk(2, 5, 9), disk(2, 5, 5)] {
            let disks = [disk(1, 5, 9), second];
            let agreed = Agreement::of(&disks).unwrap();
            assert_eq!(agreed.registration, Some(registration(9)));
            assert_eq!(disks.map(|(_, disk)| agreed.includes(&disk.unwrap())), [false; 2]);
        }
    }

    #[test]
    fn disks_that_do_not_belong_together_are_refused() {
        let mut foreign = disk(2, 5, 5);
        foreign.1.as_mut().unwrap().node = NodeId(9);
        let mut other_secret = disk(2, 5, 5);
        other_secret.1.as_mut().unwrap().secret = NodeSecret::from_slice(&[1; 32]).unwrap();
        let mut other_cluster = disk(2, 5, 5);
        let registration = other_cluster.1.as_mut().unwrap().registration.as_mut().unwrap();
        registration.cluster = ClusterId(9);
        for (second, what) in [
            (foreign, "nodes"),
            (other_secret, "secrets"),
            (other_cluster, "clusters"),
            (disk(1, 5, 5), "copies of one disk"),
        ] {
            for disks in
                [vec![disk(1, 5, 5), second.clone()], vec![disk(1, 5, 5), disk(3, 5, 5), second]]
            {
                let error = Agreement::of(&disks).unwrap_err();
                assert!(error.to_string().contains(what), "{error}");
            }
        }
    }
}
