//! Numbers of faults.

use std::fmt;

/// Number of faults of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultCounts {
    /// The disks of a machine failed, before it crashed.
    pub stops: u64,
    /// A machine lost everything unsynced.
    pub crashes: u64,
    /// A machine lost some unsynced data.
    pub torn_crashes: u64,
    /// The coordinator crashed at a commit of a move.
    pub move_crashes: u64,
    /// A server was killed.
    pub kills: u64,
    /// The disks of a machine were full.
    pub full_disks: u64,
    /// Operations of a kind failed on a disk.
    pub disk_errors: u64,
    /// The operations of a disk did not return.
    pub hung_disks: u64,
    /// A coordinator took the worker lease over from one that did not notice.
    pub lease_holders: u64,
    /// Two machines were cut off from each other.
    pub cuts: u64,
    /// A machine could not reach another one, which could reach it.
    pub one_way_cuts: u64,
    /// Messages between two machines were held.
    pub holds: u64,
    /// Messages between two machines were slow.
    pub slow_links: u64,
    /// The clock of the coordinator jumped.
    pub clock_jumps: u64,
}

impl FaultCounts {
    /// Returns the number of each kind.
    pub fn all(self) -> [u64; 14] {
        let Self { stops, crashes, torn_crashes, move_crashes, kills, full_disks, .. } = self;
        let Self { cuts, one_way_cuts, holds, slow_links, clock_jumps, .. } = self;
        let Self { disk_errors, hung_disks, lease_holders, .. } = self;
        [
            stops,
            crashes,
            torn_crashes,
            move_crashes,
            kills,
            full_disks,
            disk_errors,
            hung_disks,
            lease_holders,
            cuts,
            one_way_cuts,
            holds,
            slow_links,
            clock_jumps,
        ]
    }
}

impl std::ops::AddAssign for FaultCounts {
    fn add_assign(&mut self, other: Self) {
        self.stops += other.stops;
        self.crashes += other.crashes;
        self.torn_crashes += other.torn_crashes;
        self.move_crashes += other.move_crashes;
        self.kills += other.kills;
        self.full_disks += other.full_disks;
        self.disk_errors += other.disk_errors;
        self.hung_disks += other.hung_disks;
        self.lease_holders += other.lease_holders;
        self.cuts += other.cuts;
        self.one_way_cuts += other.one_way_cuts;
        self.holds += other.holds;
        self.slow_links += other.slow_links;
        self.clock_jumps += other.clock_jumps;
    }
}

impl fmt::Display for FaultCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stops, crashes, torn_crashes, kills, full_disks, .. } = self;
        let Self { cuts, one_way_cuts, holds, slow_links, clock_jumps, move_crashes, .. } = self;
        let Self { disk_errors, hung_disks, lease_holders, .. } = self;
        write!(
            f,
            "{stops} failing disks, {crashes} crashes and {torn_crashes} torn ones, {kills} kills, \
             {full_disks} full disks, {disk_errors} with errors, {hung_disks} hung ones, {cuts} cuts and {one_way_cuts} one-way ones, {holds} holds, \
             {slow_links} slow links, {clock_jumps} clock jumps, {move_crashes} crashes at moves, \
             {lease_holders} second lease holders"
        )
    }
}
