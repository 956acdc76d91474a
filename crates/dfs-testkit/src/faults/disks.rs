//! Damage to the disks of one datanode, the same in a whole run: the others keep two replicas of
//! everything, so that nothing may be lost.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use dfs_types::Random;

use super::system::System;

/// Number of bits that are flipped at once, each in any file.
const FLIPS: u64 = 8;
/// One of so many files is lost.
const LOST_ONE_IN: u64 = 3;

/// A kind of damage.
#[derive(Debug, Clone, Copy)]
pub(super) enum Damage {
    /// The mount point of a disk is empty at one start.
    Absent,
    /// A disk is replaced by an earlier copy of itself.
    SetBack,
    BitsFlipped,
    FilesLost,
}

impl Damage {
    /// Damages a disk while its datanode is stopped, and starts the datanode again. `hold` is the
    /// time between two steps of the damage.
    pub(super) fn inflict(
        self,
        system: &mut System,
        random: &dyn Random,
        hold: impl Fn(),
    ) -> io::Result<()> {
        let node = system.damaged;
        let disks = system.disks_of(node);
        let disk = &disks[random.below(disks.len() as u64) as usize];
        let aside = disk.with_extension("aside");
        let cluster = &mut system.cluster;
        cluster.datanodes[node].kill();
        match self {
            Self::Absent => {
                fs::rename(disk, &aside)?;
                fs::create_dir(disk)?;
                cluster.start_datanode(node);
                hold();
                cluster.datanodes[node].kill();
                fs::remove_dir_all(disk)?;
                fs::rename(&aside, disk)?;
            }
            Self::SetBack => {
                copy_tree(disk, &aside)?;
                cluster.start_datanode(node);
                hold();
                cluster.datanodes[node].kill();
                fs::remove_dir_all(disk)?;
                fs::rename(&aside, disk)?;
            }
            Self::BitsFlipped => {
                let files = chunk_files(disk)?;
                for _ in 0..FLIPS.min(files.len() as u64) {
                    flip_bit(&files[random.below(files.len() as u64) as usize], random)?;
                }
            }
            Self::FilesLost => {
                for file in chunk_files(disk)? {
                    if random.below(LOST_ONE_IN) == 0 {
                        fs::remove_file(file)?;
                    }
                }
            }
        }
        cluster.start_datanode(node);
        Ok(())
    }
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Returns the files with chunks of a disk, in order.
fn chunk_files(disk: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut pending = vec![disk.join("chunks"), disk.join("segments")];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

fn flip_bit(path: &Path, random: &dyn Random) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let bits = file.metadata()?.len() * 8;
    if bits > 0 {
        let bit = random.below(bits);
        let mut byte = [0];
        file.read_exact_at(&mut byte, bit / 8)?;
        file.write_all_at(&[byte[0] ^ (1 << (bit % 8))], bit / 8)?;
    }
    Ok(())
}
