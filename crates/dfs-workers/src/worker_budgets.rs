//! The list of workers and their default budgets.

/// Static properties of a worker.
#[derive(Debug, PartialEq, Eq)]
pub struct Spec {
    /// Name in commands, metrics and stored settings; never reused for another worker.
    pub name: &'static str,
    /// Where it runs.
    pub place: Place,
    /// Default rate, unless an administrator sets another.
    pub budget: Budget,
}

/// Where a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the one coordinator that holds the worker lease.
    Lease,
    /// On every process of its role, each for itself.
    Local,
}

/// A limit on the average rate of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Unit of the rate.
    pub unit: Unit,
    /// Units per second; 0 for unlimited.
    pub per_second: u64,
}

/// Unit of a worker's rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes read, moved or written.
    Bytes,
    /// Items: files, replicas, records.
    Items,
}

/// Builds missing replicas of chunks.
pub const REPAIR: Spec = Spec {
    name: "repair",
    place: Place::Lease,
    budget: Budget { unit: Unit::Bytes, per_second: 200 << 20 },
};

/// Moves replicas away from draining nodes and retiring disks.
pub const DRAIN: Spec = Spec {
    name: "drain",
    place: Place::Lease,
    budget: Budget { unit: Unit::Bytes, per_second: 200 << 20 },
};

/// Applies changed replication to existing files.
pub const POLICY: Spec = Spec {
    name: "policy",
    place: Place::Lease,
    budget: Budget { unit: Unit::Items, per_second: 10_000 },
};

/// Dooms replicas of chunks that have more than they should.
pub const TRIM: Spec = Spec {
    name: "trim",
    place: Place::Lease,
    budget: Budget { unit: Unit::Bytes, per_second: 200 << 20 },
};

/// Moves replicas between nodes until all are about equally full, and to zones without a replica of
/// their chunk.
pub const REBALANCE: Spec = Spec {
    name: "rebalance",
    place: Place::Lease,
    budget: Budget { unit: Unit::Bytes, per_second: 100 << 20 },
};

/// Reaps unlinked inodes and expired uploads.
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

/// Compares what the disks hold with the records, and deletes what no record names.
pub const RECONCILE: Spec = Spec {
    name: "reconcile",
    place: Place::Lease,
    budget: Budget { unit: Unit::Items, per_second: 50_000 },
};

/// Reads every replica on the disks of a datanode, to find damage before a reader does.
pub const SCRUB: Spec = Spec {
    name: "scrub",
    place: Place::Local,
    budget: Budget { unit: Unit::Bytes, per_second: 200 << 20 },
};

/// All workers, in the order in which they are listed.
pub const fn all() -> &'static [Spec] {
    &[REPAIR, DRAIN, POLICY, TRIM, REBALANCE, REAPER, DELETE, RECONCILE, UPGRADE, SCRUB]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_valid_in_keys_and_metrics() {
        let names: BTreeSet<&str> = all().iter().map(|spec| spec.name).collect();
        assert_eq!(names.len(), all().len());
        for name in names {
            assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase()), "{name}");
        }
    }
}
