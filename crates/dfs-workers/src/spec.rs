//! Which workers there are.

/// What is known of a worker before it runs.
#[derive(Debug, PartialEq, Eq)]
pub struct Spec {
    /// Name in commands, metrics and stored controls; never reused for another worker.
    pub name: &'static str,
    /// Where it runs.
    pub place: Place,
    /// How much it may do in a second unless an administrator sets another rate.
    pub budget: Budget,
}

/// Where a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the one coordinator that holds the worker lease.
    Lease,
    /// On every process of its role, for that process alone.
    Local,
}

/// A bound on what a worker does in a second, on average.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// What is counted.
    pub unit: Unit,
    /// How many of them a second; 0 for no bound.
    pub per_second: u64,
}

/// What the rate of a worker counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes read, moved or written.
    Bytes,
    /// Things: files, replicas, records.
    Items,
}

/// Builds the replicas that chunks lack.
pub const REPAIR: Spec = Spec {
    name: "repair",
    place: Place::Lease,
    budget: Budget { unit: Unit::Bytes, per_second: 200 << 20 },
};

/// Frees what was unlinked or never finished.
pub const REAPER: Spec = Spec {
    name: "reaper",
    place: Place::Lease,
    budget: Budget { unit: Unit::Items, per_second: 0 },
};

/// Deletes replicas that no record needs.
pub const DELETE: Spec = Spec {
    name: "delete",
    place: Place::Lease,
    budget: Budget { unit: Unit::Items, per_second: 0 },
};

/// Raises the write level of the cluster.
pub const UPGRADE: Spec = Spec {
    name: "upgrade",
    place: Place::Lease,
    budget: Budget { unit: Unit::Items, per_second: 0 },
};

/// All workers, in the order in which they are listed.
pub const fn all() -> &'static [Spec] {
    &[REPAIR, REAPER, DELETE, UPGRADE]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_fit_into_keys_and_metrics() {
        let names: BTreeSet<&str> = all().iter().map(|spec| spec.name).collect();
        assert_eq!(names.len(), all().len());
        for name in names {
            assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase()), "{name}");
        }
    }
}
