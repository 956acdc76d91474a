//! Faults: injection, duration, healing.

use std::fmt;
use std::time::{Duration, Instant};

use dfs_types::Random;
use rustix::process::Signal;

use super::disks::Damage;
use super::network::Switch;
use super::system::{EACH, LOST_AFTER, System, WORKER_LEASE};
use crate::process::wait_until;

/// Time after which the reaper is in the middle of deleted files.
const REAPS_AFTER: Duration = Duration::from_millis(400);
/// Time limit for another coordinator to take over the background work.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(20);
/// Time limit for a former lease holder to notice the loss after it resumes.
const FOUND_OUT_WITHIN: Duration = Duration::from_secs(5);
/// Duration of a loss of quorum. The SDK waits longer.
const WITHOUT_QUORUM: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(8));

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    CoordinatorKilled,
    CoordinatorStopped,
    HolderStopped,
    MemberKilled,
    MemberStopped,
    QuorumLost,
    DatanodeKilled,
    DatanodeStopped,
    DiskAbsent,
    DiskSetBack,
    BitsFlipped,
    ChunkFilesLost,
    CoordinatorWithoutMetadata,
    CoordinatorWithoutClients,
    CoordinatorCutOff,
    MemberCutOff,
}

impl Fault {
    const ALL: &[Self] = &[
        Self::CoordinatorKilled,
        Self::HolderStopped,
        Self::CoordinatorWithoutMetadata,
        Self::MemberKilled,
        Self::CoordinatorStopped,
        Self::MemberCutOff,
        Self::CoordinatorWithoutClients,
        Self::DatanodeKilled,
        Self::CoordinatorCutOff,
        Self::DatanodeStopped,
        Self::DiskAbsent,
        Self::DiskSetBack,
        Self::BitsFlipped,
        Self::ChunkFilesLost,
        Self::MemberStopped,
        Self::QuorumLost,
    ];

    fn needs_cables(self) -> bool {
        matches!(
            self,
            Self::CoordinatorWithoutMetadata
                | Self::CoordinatorWithoutClients
                | Self::CoordinatorCutOff
                | Self::MemberCutOff
        )
    }

    /// Returns each possible fault once, in random order; only those that contain `named`, if
    /// given.
    pub(super) fn deck(random: &dyn Random, has_cables: bool, named: &str) -> Vec<Self> {
        let can_be_had = |fault: &&Self| {
            (has_cables || !fault.needs_cables()) && fault.to_string().contains(named)
        };
        let mut deck: Vec<_> = Self::ALL.iter().filter(can_be_had).copied().collect();
        for last in (1..deck.len()).rev() {
            deck.swap(last, random.below(last as u64 + 1) as usize);
        }
        deck
    }

    /// Injects the fault into some process for some time, and heals it.
    pub(super) fn inject(self, system: &mut System, random: &dyn Random) -> Result<(), String> {
        let victim = random.below(EACH as u64) as usize;
        let some_time = |from: Duration, to: Duration| {
            let more = to.saturating_sub(from).as_millis() as u64;
            hold(from + Duration::from_millis(random.below(more)));
        };
        let seconds = Duration::from_secs_f64;
        // Half of them last longer than the lease of the background work.
        let long = if random.below(2) == 0 { WORKER_LEASE * 2 } else { seconds(1.5) };
        match self {
            Self::CoordinatorKilled => {
                system.cluster.coordinator_at(victim).kill();
                some_time(seconds(0.0), seconds(2.5));
                system.cluster.start_coordinator_at(victim);
            }
            Self::CoordinatorStopped => {
                system.cluster.coordinator_at(victim).signal(Signal::STOP);
                some_time(long / 2, long);
                system.cluster.coordinator_at(victim).signal(Signal::CONT);
            }
            Self::HolderStopped => return stop_holder(system, random),
            Self::MemberKilled => {
                system.etcd.kill(victim);
                some_time(seconds(0.2), seconds(4.0));
                system.etcd.restart(victim);
            }
            Self::MemberStopped => {
                system.etcd.stop(victim);
                some_time(seconds(0.5), seconds(6.0));
                system.etcd.cont(victim);
            }
            Self::QuorumLost => {
                let other = (victim + 1) % EACH;
                if random.below(2) == 0 {
                    system.etcd.stop(victim);
                    system.etcd.stop(other);
                    some_time(WITHOUT_QUORUM.0, WITHOUT_QUORUM.1);
                    system.etcd.cont(victim);
                    system.etcd.cont(other);
                } else {
                    system.etcd.kill(victim);
                    system.etcd.kill(other);
                    some_time(WITHOUT_QUORUM.0, WITHOUT_QUORUM.1);
                    system.etcd.restart(victim);
                    system.etcd.restart(other);
                }
            }
            Self::DatanodeKilled => {
                system.cluster.datanodes[victim].kill();
                some_time(seconds(0.2), seconds(4.0));
                system.cluster.start_datanode(victim);
            }
            Self::DatanodeStopped => {
                system.cluster.datanodes[victim].signal(Signal::STOP);
                some_time(LOST_AFTER + seconds(1.0), LOST_AFTER + seconds(4.0));
                system.cluster.datanodes[victim].signal(Signal::CONT);
            }
            Self::DiskAbsent | Self::DiskSetBack | Self::BitsFlipped | Self::ChunkFilesLost => {
                let damage = match self {
                    Self::DiskAbsent => Damage::Absent,
                    Self::DiskSetBack => Damage::SetBack,
                    Self::BitsFlipped => Damage::BitsFlipped,
                    _ => Damage::FilesLost,
                };
                let hold = || some_time(seconds(1.0), LOST_AFTER + seconds(3.0));
                let damaged = damage.inflict(system, random, hold);
                damaged.map_err(|error| format!("{self}: {error}"))?;
            }
            Self::CoordinatorWithoutMetadata => {
                cut_coordinator(system, victim, &[Switch::Back], || some_time(long / 2, long));
            }
            Self::CoordinatorWithoutClients => {
                cut_coordinator(system, victim, &[Switch::Front], || some_time(long / 2, long));
            }
            Self::CoordinatorCutOff => {
                let both = [Switch::Front, Switch::Back];
                cut_coordinator(system, victim, &both, || some_time(long / 2, long));
            }
            Self::MemberCutOff => {
                system.cut_member(victim, true);
                some_time(seconds(1.0), seconds(6.0));
                system.cut_member(victim, false);
            }
        }
        Ok(())
    }
}

fn cut_coordinator(system: &System, victim: usize, switches: &[Switch], meanwhile: impl FnOnce()) {
    system.cut_coordinator(victim, switches, true);
    meanwhile();
    system.cut_coordinator(victim, switches, false);
}

/// Suspends the holder of the worker lease until another has taken over, then resumes it with
/// background work half done. It must notice, and the other must continue.
fn stop_holder(system: &mut System, random: &dyn Random) -> Result<(), String> {
    let mut found = None;
    wait_until(TAKEN_OVER_WITHIN, || {
        found = system.holder(None);
        found.is_some()
    });
    let old = found.ok_or("no holder of the worker lease")?;
    system.doom_files()?;
    hold(REAPS_AFTER.mul_f64(0.5 + random.below(1_000) as f64 / 1_000.0));
    system.cluster.coordinator_at(old).signal(Signal::STOP);
    let mut found = None;
    wait_until(TAKEN_OVER_WITHIN, || {
        found = system.holder(Some(old));
        found.is_some()
    });
    let epochs = system.epochs();
    system.cluster.coordinator_at(old).signal(Signal::CONT);
    let new = found.ok_or_else(|| {
        format!(
            "no coordinator took over the work of coordinator {old} within {TAKEN_OVER_WITHIN:?}"
        )
    })?;
    if !wait_until(FOUND_OUT_WITHIN, || !system.is_holder(old)) {
        return Err(format!("coordinator {old} keeps working with a lease held by {new}"));
    }
    let has_moved = !system.is_holder(new) || system.epochs() != epochs;
    if has_moved {
        return Err(format!("coordinator {old} took the lease from {new} when it resumed"));
    }
    Ok(())
}

/// Lets a fault last for some time.
pub(super) fn hold(time: Duration) {
    let until = Instant::now() + time;
    wait_until(time, || Instant::now() >= until);
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::CoordinatorKilled => "coordinator killed",
            Self::CoordinatorStopped => "coordinator stopped",
            Self::HolderStopped => "lease holder stopped",
            Self::MemberKilled => "etcd member killed",
            Self::MemberStopped => "etcd member stopped",
            Self::QuorumLost => "etcd quorum lost",
            Self::DatanodeKilled => "datanode killed",
            Self::DatanodeStopped => "datanode stopped until lost",
            Self::DiskAbsent => "disk absent at one start",
            Self::DiskSetBack => "disk set back to an old copy",
            Self::BitsFlipped => "bits flipped on a disk",
            Self::ChunkFilesLost => "chunk files lost",
            Self::CoordinatorWithoutMetadata => "coordinator cut from etcd",
            Self::CoordinatorWithoutClients => "coordinator cut from clients",
            Self::CoordinatorCutOff => "coordinator cut off",
            Self::MemberCutOff => "etcd member cut off",
        })
    }
}
