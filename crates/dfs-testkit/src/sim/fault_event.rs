//! Faults as they begin and end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dfs_chunkstore::sim::Operation;

use super::damage::DISKS;
use super::fault_counts::FaultCounts;
use super::faults::LATENCY;
use super::host::{COORDINATOR, Machine};

#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    /// The disks of a machine fail after this many operations, until it crashes.
    Stop {
        host: usize,
        after: u64,
    },
    /// A machine loses power: unsynced data is lost, completely or partially.
    Crash {
        host: usize,
        is_torn: bool,
    },
    /// The disks of the coordinator fail before or after the commit of a move, and it crashes.
    CrashMove {
        commits: u64,
        is_after: bool,
    },
    /// A server is killed: unsynced data stays in the memory of its machine.
    Kill {
        host: usize,
    },
    Restart {
        host: usize,
    },
    /// The disks of a machine have only this many bytes left.
    Fill {
        host: usize,
        left: u64,
    },
    Empty {
        host: usize,
    },
    /// Operations of a kind fail on a disk of a machine.
    Errors {
        host: usize,
        disk: &'static str,
        operation: Operation,
    },
    /// No operation of the disks of a machine fails any more.
    NoErrors {
        host: usize,
    },
    /// Operations of a disk of a datanode do not return.
    Hang {
        host: usize,
        disk: usize,
    },
    /// They return.
    Resume {
        host: usize,
        disk: usize,
    },
    /// The coordinator with the worker lease does not notice that it loses it.
    StaleLease {
        left: Duration,
    },
    /// Messages between two machines are lost, in one or both directions.
    Cut {
        a: &'static str,
        b: &'static str,
        is_one_way: bool,
    },
    Reconnect {
        a: &'static str,
        b: &'static str,
    },
    /// Messages between two machines are delayed, and delivered all at once.
    Hold {
        a: &'static str,
        b: &'static str,
    },
    Release {
        a: &'static str,
        b: &'static str,
    },
    /// Messages between two machines take this many milliseconds.
    Slow {
        a: &'static str,
        b: &'static str,
        latency: u64,
    },
    /// The clock of the coordinator jumps ahead, for less than it takes to be confirmed.
    Jump {
        ahead: Duration,
    },
}

impl FaultCounts {
    pub(super) fn count(&mut self, event: Event) {
        let kind = match event {
            Event::Stop { .. } => &mut self.stops,
            Event::Crash { is_torn: false, .. } => &mut self.crashes,
            Event::Crash { is_torn: true, .. } => &mut self.torn_crashes,
            Event::Kill { .. } => &mut self.kills,
            Event::Fill { .. } => &mut self.full_disks,
            Event::Errors { .. } => &mut self.disk_errors,
            Event::Hang { .. } => &mut self.hung_disks,
            Event::Cut { is_one_way: false, .. } => &mut self.cuts,
            Event::Cut { is_one_way: true, .. } => &mut self.one_way_cuts,
            Event::Hold { .. } => &mut self.holds,
            Event::Slow { .. } if event.slows_down() => &mut self.slow_links,
            Event::Jump { ahead } if ahead > Duration::ZERO => &mut self.clock_jumps,
            _ => return,
        };
        *kind += 1;
    }
}

impl Event {
    /// Returns true if it makes a link slower than all others.
    pub(super) fn slows_down(self) -> bool {
        matches!(self, Self::Slow { latency, .. } if latency != *LATENCY.end())
    }
}

/// An event, as it is noted.
pub(super) struct Shown<'a>(pub(super) Event, pub(super) &'a [Arc<Machine>]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(event, machines) = self;
        match *event {
            Event::Stop { host, after } => {
                write!(f, "the disks of {} fail after {after} operations", machines[host].name)
            }
            Event::Crash { host, is_torn } => {
                let how = if is_torn { " in the middle of writes" } else { "" };
                write!(f, "{} crashes{how}", machines[host].name)
            }
            Event::CrashMove { commits, is_after } => {
                let when = if is_after { "after" } else { "before" };
                write!(f, "{COORDINATOR} is to crash {when} commit {commits} of a move")
            }
            Event::Kill { host } => write!(f, "{} is killed", machines[host].name),
            Event::Restart { host } => write!(f, "{} is started", machines[host].name),
            Event::Fill { host, left } => {
                write!(f, "the disks of {} have {left} bytes left", machines[host].name)
            }
            Event::Empty { host } => write!(f, "{} has room again", machines[host].name),
            Event::Errors { host, disk, operation } => {
                write!(f, "every {operation:?} of {disk} of {} fails", machines[host].name)
            }
            Event::NoErrors { host } => write!(f, "the disks of {} work", machines[host].name),
            Event::Hang { host, disk } => {
                write!(f, "{} of {} hangs", DISKS[disk], machines[host].name)
            }
            Event::Resume { host, disk } => {
                write!(f, "{} of {} answers again", DISKS[disk], machines[host].name)
            }
            Event::StaleLease { left } => {
                write!(f, "the holder of the worker lease keeps it for {left:?}, whatever happens")
            }
            Event::Cut { a, b, is_one_way: true } => write!(f, "{a} does not reach {b}"),
            Event::Cut { a, b, is_one_way: false } => write!(f, "{a} and {b} are cut off"),
            Event::Reconnect { a, b } => write!(f, "{a} and {b} reach each other"),
            Event::Hold { a, b } => write!(f, "messages of {a} and {b} are held"),
            Event::Release { a, b } => write!(f, "messages of {a} and {b} are released"),
            Event::Slow { a, b, latency } => {
                write!(f, "messages of {a} and {b} take {latency} ms")
            }
            Event::Jump { ahead } => write!(f, "the clock of {COORDINATOR} is {ahead:?} ahead"),
        }
    }
}
