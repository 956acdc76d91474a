//! Faults and their schedule.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dfs_chunkstore::sim::Operation;
use dfs_types::{Random, SeededRandom};
use turmoil::Sim;

use super::damage::DISKS;
use super::fault_counts::FaultCounts;
use super::fault_event::{Event, Shown};
use super::host::{CLIENT, COORDINATOR, DATANODES, Machine};
use super::trace::Trace;

/// Faults start after the cluster has formed.
pub(super) const FIRST: u64 = 2_000;
/// The last fault starts before this time.
pub(super) const LAST: u64 = 25_000;
/// The number of an I/O error.
const EIO: i32 = 5;
/// Latency between two hosts, in milliseconds. It changes with time rather than with each message,
/// so that one message more or less does not change how long all later ones take.
pub(super) const LATENCY: std::ops::RangeInclusive<u64> = 1..=20;

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
    /// Machines whose disks failed or hung, and which may not use them before they are restarted.
    suffered: BTreeSet<usize>,
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
        for _ in 0..2 + random.below(14) {
            let begin = FIRST + random.below(LAST - FIRST);
            let end = begin + 200 + random.below(8_000);
            let kind = random.below(20);
            let (a, b) = pair(&random);
            let host = random.below(machines.len() as u64) as usize;
            // One fault at a time per machine or link, in either direction.
            let place = match kind {
                0..=6 | 14..=17 => (machines[host].name, ""),
                7..=10 => (a.min(b), a.max(b)),
                11 => ("", ""),
                12 | 13 => (machines[0].name, "move"),
                _ => (machines[0].name, "lease"),
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
                12 | 13 => {
                    let is_after = random.below(2) == 0;
                    add(begin, Event::CrashMove { commits: 1 + random.below(3), is_after });
                }
                14 | 15 => {
                    let disk = if host == 0 { "/" } else { DISKS[random.below(2) as usize] };
                    let operations = [Operation::Read, Operation::Write, Operation::Sync];
                    let operation = operations[random.below(3) as usize];
                    add(begin, Event::Errors { host, disk, operation });
                    add(end, Event::NoErrors { host });
                    if random.below(2) == 0 {
                        add(end, Event::Kill { host });
                        add(end + random.below(1_000), Event::Restart { host });
                    }
                }
                16 | 17 => {
                    let (host, disk) = (host.max(1), random.below(2) as usize);
                    add(begin, Event::Hang { host, disk });
                    add(end, Event::Resume { host, disk });
                }
                18.. => {
                    let left = Duration::from_millis(3_000 + random.below(6_000));
                    add(begin, Event::StaleLease { left });
                }
                _ => {
                    let ahead = Duration::from_secs(1 + random.below(3 * 3_600));
                    add(begin, Event::Jump { ahead });
                    add(begin + 100 + random.below(1_800), Event::Jump { ahead: Duration::ZERO });
                }
            }
        }
        let jitter = SeededRandom::new(seed ^ 0x0011_77e4);
        let (slow, suffered) = (BTreeSet::new(), BTreeSet::new());
        let begun = FaultCounts::default();
        Self { machines, events, random, jitter, slow, suffered, trace, begun }
    }

    /// Starts and ends due faults. Returns whether the coordinator is about to crash at a commit of a
    /// move.
    pub(super) fn tick(&mut self, sim: &mut Sim<'_>) -> bool {
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
        let has_struck = self.machines[0].observed.crash.take_struck();
        if has_struck {
            self.begun.move_crashes += 1;
            self.trace.note_at(now, "the disks of coordinator fail at a commit of a move");
            let at = now.as_millis() as u64 + self.random.below(300);
            self.add(at, Event::Crash { host: 0, is_torn: false });
            self.add(at + 100 + self.random.below(2_000), Event::Restart { host: 0 });
        }
        self.begun.lease_holders += self.machines[0].lease.take_takeovers();
        let (a, b) = pair(&self.jitter);
        let latency = LATENCY.start() + self.jitter.below(LATENCY.end() - LATENCY.start());
        if !self.slow.contains(&(a.min(b), a.max(b))) {
            sim.set_link_latency(a, b, Duration::from_millis(latency));
        }
        has_struck
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
        self.machines[0].lease.settle();
        stopped.append(&mut self.suffered);
        for event in std::mem::take(&mut self.events).into_values().flatten() {
            match event {
                // The crash that follows a disk failure.
                Event::Crash { host, .. } => {
                    stopped.insert(host);
                }
                Event::Reconnect { .. }
                | Event::Release { .. }
                | Event::Empty { .. }
                | Event::NoErrors { .. }
                | Event::Resume { .. }
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

    /// A server that could not start because of its disks is started again after them, as a supervisor
    /// does.
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
            Event::Empty { host } => {
                self.machines[host].fill(None);
                self.machines[host].start(sim);
            }
            Event::Errors { host, disk, operation } => {
                self.suffered.insert(host);
                self.machines[host].disks.fail(Path::new(disk), operation, EIO);
            }
            Event::NoErrors { host } => {
                self.machines[host].disks.heal();
                self.machines[host].start(sim);
            }
            Event::Hang { host, disk } => {
                self.suffered.insert(host);
                self.machines[host].stalls.stall(disk);
            }
            Event::Resume { host, disk } => self.machines[host].stalls.resume(disk),
            Event::StaleLease { left } => {
                self.machines[0].lease.make_stale(sim.elapsed() + left);
            }
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

fn pair(random: &SeededRandom) -> (&'static str, &'static str) {
    const HOSTS: [&str; 6] =
        [COORDINATOR, CLIENT, DATANODES[0], DATANODES[1], DATANODES[2], DATANODES[3]];
    let first = random.below(HOSTS.len() as u64) as usize;
    let second = (first + 1 + random.below(HOSTS.len() as u64 - 1) as usize) % HOSTS.len();
    (HOSTS[first], HOSTS[second])
}
