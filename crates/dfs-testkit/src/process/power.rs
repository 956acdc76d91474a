//! Disks whose power can be cut: XFS images on loop devices. As root.
//!
//! Shutting XFS down drops all data and names that were not synced; mounted again, the disk has the
//! content of one after a power cut.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Size of a disk in bytes. Its image is sparse.
const SIZE: u64 = 2 << 30;

/// A mounted disk, until it is dropped.
#[derive(Debug)]
pub struct PowerDisk {
    folder: tempfile::TempDir,
}

impl PowerDisk {
    /// Makes and mounts an empty disk.
    ///
    /// # Errors
    /// Says why that is impossible, as it is for users other than root.
    pub fn new() -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("dfs-disk-").tempdir();
        let disk = Self { folder: folder.map_err(|error| error.to_string())? };
        let image = std::fs::File::create(disk.image()).and_then(|image| image.set_len(SIZE));
        image.map_err(|error| error.to_string())?;
        run(Command::new("mkfs.xfs").arg("-q").arg(disk.image()))?;
        std::fs::create_dir(disk.root()).map_err(|error| error.to_string())?;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// Returns its mount point.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount")
            .args(["-t", "xfs", "-o", "loop"])
            .args([self.image(), self.root()]))
    }

    /// Drops everything that was not synced. From then on, the disk fails every operation.
    pub fn cut_power(&self) -> Result<(), String> {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(self.root()))
    }

    /// Mounts the disk again, after all its users have ended.
    pub fn restore_power(&self) -> Result<(), String> {
        run(Command::new("umount").arg(self.root()))?;
        self.mount()
    }
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        // Unmounting frees the loop device.
        let root = self.root();
        if run(Command::new("umount").arg(&root)).is_err() && is_mounted(&root) {
            drop(run(Command::new("umount").arg("--lazy").arg(&root)));
        }
    }
}

fn is_mounted(path: &Path) -> bool {
    run(Command::new("mountpoint").arg("-q").arg(path)).is_ok()
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", said.trim())) }
}
