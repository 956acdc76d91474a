//! Report of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::history::Operation;
use super::injection::Fault;
use super::load::Failed;

/// Maximum pause of a call caused by killing or stopping a coordinator, beyond the longest one
/// without a fault.
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// A fault and its duration until everything was healthy again, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) fault: Fault,
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Window {
    fn overlaps(&self, called: u64, returned: u64) -> bool {
        called <= self.to && returned >= self.from
    }
}

/// Calls under one kind of fault, or none.
#[derive(Debug, Default, Clone)]
struct Under {
    times: u32,
    calls: u64,
    failed: u64,
    longest: Duration,
}

/// Report of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// `None` means no fault.
    by_fault: BTreeMap<Option<Fault>, Under>,
    failed: Vec<String>,
    pub(super) rounds: u32,
    pub(super) changes: u64,
    pub(super) epochs: usize,
    pub(super) refused: usize,
    has_cables: bool,
}

impl Report {
    pub(super) fn new(has_cables: bool) -> Self {
        Self { has_cables, ..Self::default() }
    }

    /// Returns true if there were partitions, which require root.
    pub fn has_partitions(&self) -> bool {
        self.has_cables
    }

    /// Adds the calls of a round.
    pub(super) fn add(&mut self, history: &[Operation], failed: &[Failed], windows: &[Window]) {
        for window in windows {
            self.by_fault.entry(Some(window.fault)).or_default().times += 1;
        }
        let faults = |called, returned| {
            let during = windows.iter().filter(move |window| window.overlaps(called, returned));
            let faults: Vec<_> = during.map(|window| Some(window.fault)).collect();
            if faults.is_empty() { vec![None] } else { faults }
        };
        for Operation { called, returned, .. } in history {
            for fault in faults(*called, *returned) {
                let calls = self.by_fault.entry(fault).or_default();
                calls.calls += 1;
                calls.longest = calls.longest.max(Duration::from_micros(returned - called));
            }
        }
        for Failed { called, returned, what } in failed {
            let faults = faults(*called, *returned);
            let during = faults.iter().flatten().map(ToString::to_string).collect::<Vec<_>>();
            let second = *called as f64 / 1e6;
            let took = (returned - called) as f64 / 1e6;
            let line = format!("at {second:.1} s, for {took:.1} s, {during:?}: {what}");
            self.failed.push(line);
            for fault in faults {
                self.by_fault.entry(fault).or_default().failed += 1;
            }
        }
        self.changes +=
            history.iter().filter(|operation| operation.call.is_change()).count() as u64;
    }

    /// Returns the longest call without a fault.
    fn normal(&self) -> Duration {
        self.by_fault.get(&None).map_or(Duration::ZERO, |calls| calls.longest)
    }

    /// Returns violations other than unexplained histories.
    pub(super) fn complaints(&self) -> Vec<String> {
        let mut complaints = self.failed.clone();
        if self.epochs == 0 {
            complaints.push("no coordinator has logged that it holds the worker lease".to_owned());
        }
        for fault in [Fault::CoordinatorKilled, Fault::CoordinatorStopped, Fault::HolderStopped] {
            let under = self.by_fault.get(&Some(fault));
            let normal = self.normal();
            if let Some(long) = under.filter(|under| under.longest > normal + PAUSE_MAX) {
                let longest = long.longest;
                complaints.push(format!(
                    "{fault}: a call took {longest:?}; without a fault at most {normal:?}"
                ));
            }
        }
        complaints
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} rounds, {} changes called; the worker lease was taken {} times; {} orders and \
             commits of an earlier holder were refused",
            self.rounds, self.changes, self.epochs, self.refused
        )?;
        if !self.has_cables {
            writeln!(f, "NOT TESTED: partitions, which require root")?;
        }
        writeln!(
            f,
            "{:<30} {:>5} {:>8} {:>7} {:>12}",
            "fault", "times", "calls", "failed", "longest"
        )?;
        for (fault, calls) in &self.by_fault {
            let fault = fault.map_or_else(|| "none".to_owned(), |fault| fault.to_string());
            let Under { times, calls, failed, longest } = calls;
            let longest = longest.as_secs_f64();
            writeln!(f, "{fault:<30} {times:>5} {calls:>8} {failed:>7} {longest:>10.3} s")?;
        }
        Ok(())
    }
}
