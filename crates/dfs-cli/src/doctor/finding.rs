//! One finding, and its place among others.

use serde_json::{Value, json};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Data is lost, at risk or out of reach, or nothing can be written.
    Critical,
    /// Less redundancy, room or safety than wanted.
    Warning,
    /// Worth knowing; nothing is wrong.
    Notice,
}

impl Severity {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }
}

macro_rules! codes {
    ($($code:ident = $name:literal,)*) => {
        /// What was found, from the most urgent to the least urgent at equal severity. The names are
        /// stable; the table "States and their way out" in docs/faults.md has a row for each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Code { $($code,)* }

        impl Code {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$code,)*];

            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$code => $name,)* }
            }
        }
    };
}

codes! {
    CoordinatorUnreachable = "coordinator-unreachable",
    CoordinatorUninitialised = "coordinator-uninitialised",
    MetadataFailed = "metadata-failed",
    ClustersDiffer = "clusters-differ",
    StoreInUse = "store-in-use",
    StoreMissing = "store-missing",
    StoreDamaged = "store-damaged",
    StoreNewer = "store-newer",
    StoreUnavailable = "store-unavailable",
    StoreOfOther = "store-of-other-cluster",
    ChunksMissing = "chunks-missing",
    RecordsUnreadable = "records-unreadable",
    WritesImpossible = "writes-impossible",
    NoLeaseHolder = "no-lease-holder",
    RepairHeld = "repair-held",
    RepairPaused = "repair-paused",
    RepairNoTarget = "repair-no-target",
    RepairBehind = "repair-behind",
    UnderReplicated = "under-replicated",
    Unchecked = "unchecked",
    NodeRefused = "node-refused",
    NodeNotAdmitted = "node-not-admitted",
    MaintenanceEnding = "maintenance-ending",
    NodeLost = "node-lost",
    NodeSuspect = "node-suspect",
    DiskFailed = "disk-failed",
    DiskMissing = "disk-missing",
    DiskHung = "disk-hung",
    DiskSlow = "disk-slow",
    DrainStuck = "drain-stuck",
    BuildsFail = "builds-fail",
    DeletionHeld = "deletion-held",
    SpaceLow = "space-low",
    NodeFull = "node-full",
    TooFewNodes = "too-few-nodes",
    ClockDiffers = "clock-differs",
    UpgradeBlocked = "upgrade-blocked",
    WorkerFailing = "worker-failing",
    WorkerStopped = "worker-stopped",
    ComparisonOld = "comparison-old",
    ScrubBehind = "scrub-behind",
    ScrubOff = "scrub-off",
    ChunksNotCounted = "chunks-not-counted",
    BadReplicas = "bad-replicas",
    NodeNotHeard = "node-not-heard",
    NodeInMaintenance = "node-in-maintenance",
    Draining = "draining",
    NodeDrained = "node-drained",
    DiskReturning = "disk-returning",
    DiskStarting = "disk-starting",
    DiskRemovable = "disk-removable",
    DiskHeadsUnread = "disk-heads-unread",
    ComparisonUnknown = "comparison-unknown",
    Orphans = "orphans",
    TooFewZones = "too-few-zones",
    WorkerPaused = "worker-paused",
    UpgradeUnfinished = "upgrade-unfinished",
    UpgradeAvailable = "upgrade-available",
    ReleasesDiffer = "releases-differ",
    ReplicationChanging = "replication-changing",
}

/// Something that is wrong, or worth knowing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) code: Code,
    pub(crate) severity: Severity,
    pub(crate) what: String,
    /// Empty if `what` says it.
    pub(crate) why: String,
    /// What the cluster does about it; empty for nothing.
    pub(crate) doing: String,
    /// What the user can do; empty for nothing.
    pub(crate) todo: String,
    /// It does not get well without a person.
    pub(crate) needs_person: bool,
}

impl Finding {
    /// Creates a finding that needs no person.
    pub(crate) fn new(code: Code, severity: Severity, what: impl Into<String>) -> Self {
        let (why, doing, todo) = (String::new(), String::new(), String::new());
        Self { code, severity, what: what.into(), why, doing, todo, needs_person: false }
    }

    pub(crate) fn critical(code: Code, what: impl Into<String>) -> Self {
        Self::new(code, Severity::Critical, what)
    }

    pub(crate) fn warning(code: Code, what: impl Into<String>) -> Self {
        Self::new(code, Severity::Warning, what)
    }

    pub(crate) fn notice(code: Code, what: impl Into<String>) -> Self {
        Self::new(code, Severity::Notice, what)
    }

    pub(crate) fn why(self, why: impl Into<String>) -> Self {
        Self { why: why.into(), ..self }
    }

    pub(crate) fn doing(self, doing: impl Into<String>) -> Self {
        Self { doing: doing.into(), ..self }
    }

    pub(crate) fn todo(self, todo: impl Into<String>) -> Self {
        Self { todo: todo.into(), ..self }
    }

    /// Marks it as one that does not get well without a person.
    pub(crate) fn needs_person(self) -> Self {
        self.needs_person_if(true)
    }

    pub(crate) fn needs_person_if(self, needs_person: bool) -> Self {
        Self { needs_person, ..self }
    }

    /// Returns its place: by severity, those that need a person first.
    fn urgency(&self) -> (Severity, bool, Code) {
        (self.severity, !self.needs_person, self.code)
    }

    /// Returns its lines for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let person = if self.needs_person { ", needs a person" } else { "" };
        let (severity, code) = (self.severity.name(), self.code.name());
        let mut lines = vec![format!("{severity} {code}{person}: {}", self.what)];
        for (name, text) in [("why", &self.why), ("done", &self.doing), ("to do", &self.todo)] {
            if !text.is_empty() {
                lines.push(format!("  {name:<5}  {text}"));
            }
        }
        lines
    }

    /// Returns its document.
    pub(crate) fn document(&self) -> Value {
        json!({
            "code": self.code.name(),
            "severity": self.severity.name(),
            "what": self.what,
            "why": self.why,
            "doing": self.doing,
            "todo": self.todo,
            "needs_person": self.needs_person,
        })
    }
}

/// Sorts findings by urgency; equal ones keep their order.
pub(crate) fn sort(findings: &mut [Finding]) {
    findings.sort_by_key(Finding::urgency);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worse_findings_come_first_then_those_that_need_a_person() {
        let mut found = vec![
            Finding::notice(Code::Orphans, "5"),
            Finding::warning(Code::NodeLost, "4"),
            Finding::warning(Code::ScrubOff, "3").needs_person(),
            Finding::critical(Code::UnderReplicated, "2"),
            Finding::critical(Code::ChunksMissing, "1").needs_person(),
        ];
        sort(&mut found);
        let order: Vec<&str> = found.iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(order, ["1", "2", "3", "4", "5"]);
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = Code::ALL.iter().map(|it| it.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn page_of_faults_has_a_row_for_each_code_and_no_other() {
        let page = include_str!("../../../../docs/faults.md");
        let (_, section) = page.split_once("\n## States and their way out\n").unwrap();
        let section = section.split("\n## ").next().unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let rows: Vec<&str> = rows.map(|(code, _)| code).collect();
        let codes: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(rows, codes);
    }
}
