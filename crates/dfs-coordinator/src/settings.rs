//! What can be set of a coordinator.

use std::fmt;
use std::time::Duration;

use dfs_metadata::namespace::Replication;
use dfs_types::{ClusterId, Level};
use serde::{Deserialize, Serialize};

use crate::Error;

/// The settings of a coordinator. Every field has a default but for the join secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the gRPC service listens, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Where /metrics, /healthz and /readyz listen, `host:port`; empty for nowhere.
    pub http_listen: String,
    /// `host:port` under which other coordinators reach this one; where it listens when empty. Of
    /// coordinators that listen on all addresses of their machines, each needs one.
    pub advertise: String,
    /// What a datanode must know to join. Needed.
    pub join_secret: JoinSecret,
    /// Whether a datanode that joins takes part at once. Without it a node stays Joining until it
    /// is admitted.
    pub auto_admit: bool,
    /// Replicas that files get in a cluster that is made with these settings, 1 to 16; 3 when not
    /// set. Of a cluster that is there `SetReplication` changes it.
    pub replication_factor: Option<u8>,
    /// Durable replicas without which no write is acknowledged, in a cluster that is made with these
    /// settings. A majority of the replication factor when not set.
    pub min_write_replicas: Option<u8>,
    /// Id of the cluster that the metadata store must hold, 32 hexadecimal digits; any when empty.
    /// One that is made with these settings gets it.
    pub cluster_id: String,
    /// Over a store that holds no cluster: wait until `Admin.Init` has made one, instead of ending.
    pub await_init: bool,
    /// How nodes are chosen for chunks.
    pub placement: Placement,
    /// Milliseconds between the heartbeats of a datanode.
    pub heartbeat_interval_ms: u64,
    /// Milliseconds of silence after which a datanode gets no new chunks.
    pub suspect_after_ms: u64,
    /// Milliseconds of silence after which the replicas of a datanode are re-replicated.
    /// Longer than a node takes to restart: what comes back in time is not copied.
    pub lost_after_ms: u64,
    /// Milliseconds for which what was deleted or replaced can be restored and is still read by
    /// those who have it open.
    pub restorable_ms: u64,
    /// Per cent of the cluster's bytes in use from which on what was deleted is not kept for
    /// that time, but given back at once.
    pub pressure_percent: u8,
    /// Milliseconds without renewal after which another coordinator takes over the background
    /// work.
    pub worker_lease_ms: u64,
    /// Replicas that repair makes at the same time.
    pub repair_concurrency: usize,
    /// Streams of chunk bytes that are passed on to datanodes at the same time, for clients that
    /// cannot connect to them; a stream may hold about 6 MiB. None are when 0.
    pub relay_streams: usize,
    /// Milliseconds that a request under way may still take after the order to stop.
    pub drain_ms: u64,
    /// Whether the write level of the cluster follows the release at once. Without it a level is
    /// raised when an administrator says so, and until then an older release can be started again.
    pub finalize_upgrades: bool,
    /// The newest write level that is read. Below that of the release only where one build plays
    /// two releases.
    #[serde(skip)]
    pub level: Level,
}

/// What a cluster is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitOptions {
    /// The id it gets; made up when not set.
    pub cluster: Option<ClusterId>,
    /// Replicas that files get, 1 to 16.
    pub replication_factor: u8,
    /// Durable replicas without which no write is acknowledged, at most the replication factor; a
    /// majority of each file's replicas when not set.
    pub min_write_replicas: Option<u8>,
}

/// How nodes are chosen for chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// By free space, spread over zones.
    #[default]
    CapacityWeighted,
    /// By chance alone.
    Random,
    /// One after the other.
    RoundRobin,
}

/// A secret that is never printed.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JoinSecret(String);

impl JoinSecret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `offered` is the secret. Takes the same time wherever the two differ.
    pub fn matches(&self, offered: &str) -> bool {
        let (own, offered) = (self.0.as_bytes(), offered.as_bytes());
        // The length is no secret; the loop does not stop at the first difference.
        let difference = own.iter().zip(offered).fold(0, |all, (a, b)| all | (a ^ b));
        own.len() == offered.len() && !own.is_empty() && std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "JoinSecret(not set)" } else { "JoinSecret(..)" })
    }
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
            pressure_percent: 90,
            worker_lease_ms: 10_000,
            repair_concurrency: 4,
            relay_streams: 32,
            drain_ms: 10_000,
            finalize_upgrades: false,
            level: Level::NEWEST,
        }
    }
}

/// Replicas that files get unless something else is said.
const REPLICATION_DEFAULT: u8 = 3;
/// Streams that may be passed on at the same time.
const RELAY_STREAMS_MAX: usize = 1_024;
/// Replicas a file may have at most.
pub(crate) const REPLICATION_MAX: u8 = 16;

impl Settings {
    /// Says which setting makes no sense, if one does not.
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
        if !(1..=64).contains(&self.repair_concurrency) {
            return wrong("repair_concurrency", "is not between 1 and 64");
        }
        if self.relay_streams > RELAY_STREAMS_MAX {
            return wrong("relay_streams", "is more than 1024");
        }
        Ok(())
    }

    /// What [`init`](crate::init) makes a cluster with under these settings.
    pub fn init_options(&self) -> Result<InitOptions, Error> {
        let wrong = |setting, what| Err(Error::Setting { setting, what });
        let replication_factor = self.replication_factor.unwrap_or(REPLICATION_DEFAULT);
        let min_write_replicas = self.min_write_replicas;
        if !(1..=REPLICATION_MAX).contains(&replication_factor) {
            return wrong("replication_factor", "is not between 1 and 16");
        }
        if min_write_replicas.is_some_and(|min| !(1..=replication_factor).contains(&min)) {
            return wrong("min_write_replicas", "is not between 1 and replication_factor");
        }
        let cluster = self.expected_cluster();
        if cluster.is_none() && !self.cluster_id.is_empty() {
            return wrong("cluster_id", "is no id: 32 hexadecimal digits are wanted");
        }
        Ok(InitOptions { cluster, replication_factor, min_write_replicas })
    }

    /// The cluster that the store must hold, if one is named.
    pub(crate) fn expected_cluster(&self) -> Option<ClusterId> {
        self.cluster_id.parse().ok()
    }

    /// What these settings name otherwise than the cluster has it, which holds.
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

    pub(crate) fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis(self.heartbeat_interval_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_can_be_overruled() {
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
