//! Faults and their schedule.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dfs_types::{Random, SeededRandom};
use turmoil::Sim;

use super::fault_counts::FaultCounts;
use super::host::{CLIENT, COORDINATOR, DATANODES, Machine};
use super::trace::Trace;

/// Faults start after the cluster has formed.
pub(super) const FIRST: u64 = 2_000;
/// The last fault starts before this time.
pub(super) const LAST: u64 = 25_000;
/// Latency between two hosts, in milliseconds. It changes with time rather than with each message,
/// so that one message more or less does not change how long all later ones take.
pub(super) const LATENCY: std::ops::RangeInclusive<u64> = 1..=20;

#[derive(Debug, Clone, Copy)]
enum Event {
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
    fn count(&mut self, event: Event) {
        let kind = match event {
            Event::Stop { .. } => &mut self.stops,
            Event::Crash { is_torn: false, .. } => &mut self.crashes,
            Event::Crash { is_torn: true, .. } => &mut self.torn_crashes,
            Event::Kill { .. } => &mut self.kills,
            Event::Fill { .. } => &mut self.full_disks,
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

/// Faults by their start in simulated milliseconds.
pub(super) struct Faults {
    machines: Vec<Arc<Machine>>,
    events: BTreeMap<u64, Vec<Event>>,
    /// Determines what is kept of torn writes.
    random: SeededRandom,
    /// Determines the latency of links.
    jitter: SeededRandom,
    /// Links slowed down by a fault.
    slow: BTreeSet<(&'static str, &'static str)>,
    trace: Trace,
    /// Number of faults started.
    pub(super) begun: FaultCounts,
}

impl Faults {
    /// Plans the faults.
    pub(super) fn plan(seed: u64, machines: Vec<Arc<Machine>>, trace: Trace) -> Self {
        let random = SeededRandom::new(seed);
        let mut events: BTreeMap<u64, Vec<Event>> = BTreeMap::new();
        let mut add = |at, event| events.entry(at).or_default().push(event);
        let mut free_at: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for _ in 0..2 + random.below(10) {
            let begin = FIRST + random.below(LAST - FIRST);
            let end = begin + 200 + random.below(8_000);
            let kind = random.below(14);
            let (a, b) = pair(&random);
            let host = random.below(machines.len() as u64) as usize;
            // One fault at a time per machine or link, in either direction.
            let place = match kind {
                0..=6 => (machines[host].name, ""),
                7..=10 => (a.min(b), a.max(b)),
                11 => ("", ""),
                _ => (machines[0].name, "move"),
            };
            let free = free_at.entry(place).or_default();
            if begin < *free {
                continue;
            }
            *free = end;
            match kind {
                0..=3 => {
                    let crash = match kind {
                        0 | 1 => begin,
                        _ => {
                            add(begin, Event::Stop { host, after: random.below(40) });
                            begin + random.below(2_000)
                        }
                    };
                    add(crash, Event::Crash { host, is_torn: random.below(2) == 0 });
                    add(crash.max(end), Event::Restart { host });
                    *free = crash.max(end);
                }
                4 | 5 => {
                    add(begin, Event::Kill { host });
                    add(begin + random.below(1_000), Event::Restart { host });
                }
                6 => {
                    let host = host.max(1);
                    add(begin, Event::Fill { host, left: random.below(2 << 20) });
                    add(end, Event::Empty { host });
                }
                7 | 8 => {
                    add(begin, Event::Cut { a, b, is_one_way: kind == 8 });
                    add(end, Event::Reconnect { a, b });
                }
                9 => {
                    add(begin, Event::Hold { a, b });
                    add(end, Event::Release { a, b });
                }
                10 => {
                    add(begin, Event::Slow { a, b, latency: 50 + random.below(800) });
                    add(end, Event::Slow { a, b, latency: *LATENCY.end() });
                }
                12.. => {
                    let is_after = random.below(2) == 0;
                    add(begin, Event::CrashMove { commits: 1 + random.below(3), is_after });
                }
                _ => {
                    let ahead = Duration::from_secs(1 + random.below(3 * 3_600));
                    add(begin, Event::Jump { ahead });
                    add(begin + 100 + random.below(1_800), Event::Jump { ahead: Duration::ZERO });
                }
            }
        }
        let jitter = SeededRandom::new(seed ^ 0x0011_77e4);
        let (slow, begun) = (BTreeSet::new(), FaultCounts::default());
        Self { machines, events, random, jitter, slow, trace, begun }
    }

    /// Starts and ends due faults.
    pub(super) fn tick(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        while let Some(entry) = self.events.first_entry()
            && Duration::from_millis(*entry.key()) <= now
        {
            for event in entry.remove() {
                self.begun.count(event);
                self.trace.note_at(now, format_args!("{}", Shown(event, &self.machines)));
                self.apply(sim, event);
            }
        }
        if self.machines[0].observed.crash.take_struck() {
            self.begun.move_crashes += 1;
            self.trace.note_at(now, "the disks of coordinator fail at a commit of a move");
            let at = now.as_millis() as u64 + self.random.below(300);
            self.add(at, Event::Crash { host: 0, is_torn: false });
            self.add(at + 100 + self.random.below(2_000), Event::Restart { host: 0 });
        }
        let (a, b) = pair(&self.jitter);
        let latency = LATENCY.start() + self.jitter.below(LATENCY.end() - LATENCY.start());
        if !self.slow.contains(&(a.min(b), a.max(b))) {
            sim.set_link_latency(a, b, Duration::from_millis(latency));
        }
    }

    fn add(&mut self, at: u64, event: Event) {
        self.events.entry(at).or_default().push(event);
    }

    /// Ends all remaining faults: links are restored, machines run.
    pub(super) fn heal(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        let mut stopped = BTreeSet::new();
        let crash = &self.machines[0].observed.crash;
        crash.arm(0, false);
        if crash.take_struck() {
            stopped.insert(0);
        }
        for event in std::mem::take(&mut self.events).into_values().flatten() {
            match event {
                // The crash that follows a disk failure.
                Event::Crash { host, .. } => {
                    stopped.insert(host);
                }
                Event::Reconnect { .. }
                | Event::Release { .. }
                | Event::Empty { .. }
                | Event::Jump { ahead: Duration::ZERO } => {
                    self.apply(sim, event);
                }
                Event::Slow { latency, .. } if latency == *LATENCY.end() => self.apply(sim, event),
                _ => {}
            }
        }
        for host in 0..self.machines.len() {
            let name = self.machines[host].name;
            if stopped.contains(&host) && sim.is_host_running(name) {
                self.apply(sim, Event::Crash { host, is_torn: false });
            }
            if !sim.is_host_running(name) {
                self.apply(sim, Event::Restart { host });
            }
        }
        self.trace.note_at(now, "everything is healed");
    }

    fn apply(&mut self, sim: &mut Sim<'_>, event: Event) {
        match event {
            Event::Stop { host, after } => {
                let disks = &self.machines[host].disks;
                disks.stop_at(disks.operations() + after);
            }
            Event::Crash { host, is_torn } => {
                self.machines[host].crash(sim, is_torn.then_some(&self.random));
            }
            Event::CrashMove { commits, is_after } => {
                self.machines[0].observed.crash.arm(commits, is_after);
            }
            Event::Kill { host } => self.machines[host].kill(sim),
            Event::Restart { host } => self.machines[host].start(sim),
            Event::Fill { host, left } => self.machines[host].fill(Some(left)),
            Event::Empty { host } => self.machines[host].fill(None),
            Event::Cut { a, b, is_one_way: false } => sim.partition(a, b),
            Event::Cut { a, b, is_one_way: true } => sim.partition_oneway(a, b),
            Event::Reconnect { a, b } => sim.repair(a, b),
            Event::Hold { a, b } => sim.hold(a, b),
            Event::Release { a, b } => sim.release(a, b),
            Event::Slow { a, b, latency } => {
                let link = (a.min(b), a.max(b));
                if event.slows_down() {
                    self.slow.insert(link);
                } else {
                    self.slow.remove(&link);
                }
                sim.set_link_latency(a, b, Duration::from_millis(latency));
            }
            Event::Jump { ahead } => self.machines[0].clock.set_ahead(ahead),
        }
    }
}

impl Event {
    /// Returns true if it makes a link slower than all others.
    fn slows_down(self) -> bool {
        matches!(self, Self::Slow { latency, .. } if latency != *LATENCY.end())
    }
}

struct Shown<'a>(Event, &'a [Arc<Machine>]);

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

fn pair(random: &SeededRandom) -> (&'static str, &'static str) {
    const HOSTS: [&str; 6] =
        [COORDINATOR, CLIENT, DATANODES[0], DATANODES[1], DATANODES[2], DATANODES[3]];
    let first = random.below(HOSTS.len() as u64) as usize;
    let second = (first + 1 + random.below(HOSTS.len() as u64 - 1) as usize) % HOSTS.len();
    (HOSTS[first], HOSTS[second])
}
