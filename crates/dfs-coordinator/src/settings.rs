//! Settings of a coordinator.

use std::time::Duration;

use dfs_runtime::JoinSecret;
use dfs_types::{ClusterId, Level, Replication};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Settings of a coordinator. Every field but the join secret has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address of the gRPC service, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Address of /metrics, /healthz and /readyz, `host:port`; empty for none.
    pub http_listen: String,
    /// Address for other coordinators, `host:port`; the listen address when empty. Needed when
    /// several coordinators listen on all addresses of their machines.
    pub advertise: String,
    /// Secret that a datanode needs to join. Required.
    pub join_secret: JoinSecret,
    /// Admits joining datanodes at once. Otherwise a node stays Joining until it is admitted.
    pub auto_admit: bool,
    /// Replicas of files in a cluster created with these settings, 1 to 16; 3 when not set.
    /// `SetReplication` changes it in an existing cluster.
    pub replication_factor: Option<u8>,
    /// Durable replicas that a write needs, in a cluster created with these settings. A majority of
    /// the replication factor when not set.
    pub min_write_replicas: Option<u8>,
    /// Id of the cluster that the metadata store must hold, 32 hexadecimal digits; any when empty.
    /// A cluster created with these settings gets it.
    pub cluster_id: String,
    /// Waits for `Admin.Init` on a store without a cluster, instead of exiting.
    pub await_init: bool,
    /// Strategy of choosing nodes for chunks.
    pub placement: Placement,
    /// Milliseconds between the heartbeats of a datanode.
    pub heartbeat_interval_ms: u64,
    /// Milliseconds of silence after which a datanode gets no new chunks.
    pub suspect_after_ms: u64,
    /// Milliseconds of silence after which the replicas of a datanode are re-replicated. Should
    /// exceed the time a node takes to restart.
    pub lost_after_ms: u64,
    /// Milliseconds for which deleted or replaced files can be restored, and read by those who have
    /// them open.
    pub restorable_ms: u64,
    /// Milliseconds for which the clock must have shown a time before files, uploads and plans that
    /// expire at it are given up, so that a clock that jumps ahead for less does no harm.
    pub confirm_clock_ms: u64,
    /// Percentage of the cluster's bytes in use at which deleted files are reaped at once.
    pub pressure_percent: u8,
    /// Milliseconds between two comparisons of all disks with the records.
    pub reconcile_interval_ms: u64,
    /// Milliseconds without a registration of a datanode after which the disks are compared with the
    /// records, as nodes that start may have lost replicas or missed deletions.
    pub reconcile_settle_ms: u64,
    /// Milliseconds for which replicas without a record are kept before they are deleted.
    pub orphan_age_ms: u64,
    /// Milliseconds without renewal after which another coordinator takes over the background work.
    pub worker_lease_ms: u64,
    /// Chunks that repair, drain, rebalance and trim each work on concurrently. What they build at
    /// a datanode is limited by its own setting.
    pub repair_concurrency: usize,
    /// Streams of chunk bytes relayed concurrently to datanodes, for clients that cannot connect to
    /// them; a stream may take about 6 MiB. 0 disables the relay.
    pub relay_streams: usize,
    /// Milliseconds that calls in flight may take after the order to stop.
    pub drain_ms: u64,
    /// Raises the write level of the cluster with the release. Otherwise an administrator raises
    /// it, and until then an older release can be started again.
    pub finalize_upgrades: bool,
    /// The newest write level that is read. Lower than that of the release only where one build
    /// acts as two releases.
    #[serde(skip)]
    pub level: Level,
}

/// Settings of a new cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitOptions {
    /// Id of the cluster; generated when not set.
    pub cluster: Option<ClusterId>,
    /// Replicas of files, 1 to 16.
    pub replication_factor: u8,
    /// Durable replicas that a write needs, at most the replication factor; a majority of each
    /// file's replicas when not set.
    pub min_write_replicas: Option<u8>,
}

/// Strategy of choosing nodes for chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// By free space, spread over zones.
    #[default]
    CapacityWeighted,
    /// At random.
    Random,
    /// In turn.
    RoundRobin,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7070".to_owned(),
            http_listen: "127.0.0.1:7071".to_owned(),
            advertise: String::new(),
            join_secret: JoinSecret::default(),
            auto_admit: true,
            replication_factor: None,
            min_write_replicas: None,
            cluster_id: String::new(),
            await_init: false,
            placement: Placement::default(),
            heartbeat_interval_ms: 1_000,
            suspect_after_ms: 5_000,
            lost_after_ms: 30_000,
            restorable_ms: 3_600_000,
            confirm_clock_ms: 60_000,
            pressure_percent: 90,
            reconcile_interval_ms: 24 * 3_600_000,
            reconcile_settle_ms: 5_000,
            orphan_age_ms: 24 * 3_600_000,
            worker_lease_ms: 10_000,
            repair_concurrency: 64,
            relay_streams: 32,
            drain_ms: 10_000,
            finalize_upgrades: false,
            level: Level::NEWEST,
        }
    }
}

/// Default replication factor.
const REPLICATION_DEFAULT: u8 = 3;
/// Upper bound of `relay_streams`.
const RELAY_STREAMS_MAX: usize = 1_024;

impl Settings {
    /// Fails with the first invalid setting.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong = |setting, what| Err(Error::Setting { setting, what });
        if self.listen.is_empty() {
            return wrong("listen", "is empty; give host:port");
        }
        if self.join_secret.is_empty() {
            return wrong("join_secret", "is not set; datanodes need one to join");
        }
        self.init_options()?;
        if self.heartbeat_interval_ms < 10 {
            return wrong("heartbeat_interval_ms", "is less than 10");
        }
        if self.suspect_after_ms < 2 * self.heartbeat_interval_ms {
            return wrong("suspect_after_ms", "is less than two heartbeat intervals");
        }
        if self.lost_after_ms < self.suspect_after_ms {
            return wrong("lost_after_ms", "is less than suspect_after_ms");
        }
        if !(1..=100).contains(&self.pressure_percent) {
            return wrong("pressure_percent", "is not between 1 and 100");
        }
        if self.worker_lease_ms < 300 {
            return wrong("worker_lease_ms", "is less than 300");
        }
        if !(1..=1_024).contains(&self.repair_concurrency) {
            return wrong("repair_concurrency", "is not between 1 and 1024");
        }
        if self.relay_streams > RELAY_STREAMS_MAX {
            return wrong("relay_streams", "is more than 1024");
        }
        Ok(())
    }

    /// Returns the settings of a cluster that [`init`](crate::init) creates under these settings.
    pub fn init_options(&self) -> Result<InitOptions, Error> {
        let wrong = |setting, what| Err(Error::Setting { setting, what });
        let replication_factor = self.replication_factor.unwrap_or(REPLICATION_DEFAULT);
        let min_write_replicas = self.min_write_replicas;
        if !(1..=Replication::FACTOR_MAX).contains(&replication_factor) {
            return wrong("replication_factor", "is not between 1 and 16");
        }
        if min_write_replicas.is_some_and(|min| !(1..=replication_factor).contains(&min)) {
            return wrong("min_write_replicas", "is not between 1 and replication_factor");
        }
        let cluster = self.expected_cluster();
        if cluster.is_none() && !self.cluster_id.is_empty() {
            return wrong("cluster_id", "is not an id of 32 hexadecimal digits");
        }
        Ok(InitOptions { cluster, replication_factor, min_write_replicas })
    }

    /// Returns the cluster that the store must hold, if configured.
    pub(crate) fn expected_cluster(&self) -> Option<ClusterId> {
        self.cluster_id.parse().ok()
    }

    /// Lists explicit settings that differ from those of the cluster, which take precedence.
    pub(crate) fn overruled_by(&self, stored: Replication) -> Option<String> {
        let min = stored.min_write_for(stored.factor);
        let overruled = [
            ("replication_factor", self.replication_factor, stored.factor),
            ("min_write_replicas", self.min_write_replicas, min),
        ];
        let overruled = overruled.into_iter().filter_map(|(setting, named, stored)| {
            let named = named.filter(|named| *named != stored)?;
            Some(format!("{setting} is {named} in the settings, {stored} in the cluster"))
        });
        let overruled: Vec<_> = overruled.collect();
        (!overruled.is_empty()).then(|| overruled.join("; "))
    }

    pub(crate) fn reconcile_interval(&self) -> Duration {
        Duration::from_millis(self.reconcile_interval_ms)
    }

    pub(crate) fn orphan_age(&self) -> Duration {
        Duration::from_millis(self.orphan_age_ms)
    }

    pub(crate) fn reconcile_settle(&self) -> Duration {
        Duration::from_millis(self.reconcile_settle_ms)
    }

    pub(crate) fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis(self.heartbeat_interval_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_explicit_settings_are_reported_as_overruled() {
        let overruled = |factor, min, stored: (u8, Option<u8>)| {
            let settings = Settings {
                replication_factor: factor,
                min_write_replicas: min,
                ..Settings::default()
            };
            settings.overruled_by(Replication { factor: stored.0, min_write: stored.1 })
        };
        assert_eq!(overruled(None, None, (2, Some(1))), None);
        assert_eq!(overruled(Some(3), None, (3, Some(3))), None);
        assert_eq!(overruled(Some(3), Some(2), (3, None)), None, "a majority of 3 is 2");
        let text = overruled(Some(3), Some(1), (2, None)).unwrap();
        assert_eq!(
            text,
            "replication_factor is 3 in the settings, 2 in the cluster; \
             min_write_replicas is 1 in the settings, 2 in the cluster"
        );
    }
}
