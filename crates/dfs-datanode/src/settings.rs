//! Settings of a datanode.

use std::path::PathBuf;
use std::time::Duration;

use dfs_runtime::JoinSecret;
use dfs_transport::Channels;
use dfs_types::{BUILD_WEIGHT_MAX, Frame, Level, Replication};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Settings of a datanode. All have defaults except the disks and the join secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address of the gRPC service, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Address of /metrics, /healthz and /readyz, `host:port`; not served when empty.
    pub http_listen: String,
    /// `host:port` under which others reach this node; the listen address when empty.
    pub advertise: String,
    /// The coordinators, `host:port` or `http://host:port` each.
    pub coordinators: Vec<String>,
    /// Secret that a datanode must present to join. Required.
    pub join_secret: JoinSecret,
    /// Failure domain; empty when unknown.
    pub zone: String,
    /// Name of the machine (the Kubernetes node); empty when unknown.
    pub host: String,
    /// The disks. Required, unless a store is passed in.
    pub disks: Vec<Disk>,
    /// Percentage of each file system that is left free for other uses.
    pub headroom_percent: u8,
    /// Minimum bytes of each file system that are left free.
    pub headroom_bytes_min: u64,
    /// Fill level of a disk, in percent of its usable bytes, at which new chunks are refused.
    pub high_watermark_percent: u8,
    /// Threads for blocking work: disk calls and checksums.
    pub disk_threads: usize,
    /// Maximum number of chunks that clients may be writing through this node.
    pub sessions: usize,
    /// Maximum number of chunks that other datanodes may be writing to this node. Separate from
    /// `sessions`, so that nodes cannot deadlock.
    pub replica_sessions: usize,
    /// Maximum number of open streams to downstream nodes.
    pub replication_streams: usize,
    /// Durable replicas that this node requires of each chunk from a client. The cluster's minimum
    /// applies if it is greater.
    pub min_durable_replicas: u32,
    /// Milliseconds without a frame after which a session ends.
    pub session_idle_ms: u64,
    /// Milliseconds without progress after which a downstream node is dropped from a session.
    pub replica_stall_ms: u64,
    /// Maximum bytes that all sessions together hold in memory.
    pub window_bytes: u64,
    /// Reads served concurrently; some more may wait.
    pub reads: usize,
    /// Replicas of 64 MiB and more built here concurrently, on orders of coordinators, and read
    /// here concurrently for builds elsewhere. A replica of 4 MiB or less counts as a sixteenth.
    /// Fewer while `move_bytes_per_second` is too low for so many: one for each 16 MiB.
    pub builds: usize,
    /// Bytes per second that builds here, and builds of other nodes from here, may move together; 0
    /// for no limit, otherwise 1 MiB or more. Each replica counts as 256 KiB at least.
    pub move_bytes_per_second: u64,
    /// Milliseconds within which the scrub reads every replica on a disk once; 0 for only when it is
    /// requested.
    pub scrub_every_ms: u64,
    /// Milliseconds that sessions and calls in progress may take after the request to stop.
    pub drain_ms: u64,
    /// The newest write level that is read. Lower than that of the release only when one build acts
    /// as two releases.
    #[serde(skip)]
    pub level: Level,
}

/// A disk of a datanode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Directory on it; created if missing.
    pub folder: PathBuf,
    /// Bytes that may be used on it; all of them when not set.
    #[serde(default)]
    pub capacity: Option<u64>,
}

impl Disk {
    /// Returns a disk with the whole capacity of the file system of `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), capacity: None }
    }
}

impl Default for Settings {
    fn default() -> Self {
        let store = dfs_chunkstore::Config::new([]);
        Self {
            listen: "127.0.0.1:7080".to_owned(),
            http_listen: "127.0.0.1:7081".to_owned(),
            advertise: String::new(),
            coordinators: vec!["http://127.0.0.1:7070".to_owned()],
            join_secret: JoinSecret::default(),
            zone: String::new(),
            host: String::new(),
            disks: Vec::new(),
            headroom_percent: store.headroom_percent,
            headroom_bytes_min: store.headroom_bytes_min,
            high_watermark_percent: store.high_watermark_percent,
            disk_threads: 8,
            sessions: 256,
            replica_sessions: 512,
            replication_streams: 512,
            min_durable_replicas: 1,
            session_idle_ms: 30_000,
            replica_stall_ms: 5_000,
            window_bytes: 96 << 20,
            reads: 64,
            builds: 2,
            move_bytes_per_second: 64 << 20,
            scrub_every_ms: 14 * 24 * 3_600 * 1_000,
            drain_ms: 10_000,
            level: Level::NEWEST,
        }
    }
}

/// Maximum number of configured coordinators.
pub(crate) const COORDINATORS_MAX: usize = 16;
/// Maximum number of replicas of a chunk, including the local one.
pub(crate) const REPLICAS_MAX: u32 = Replication::FACTOR_MAX as u32;

impl Settings {
    /// Returns an error that names the first invalid setting.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong = |setting, what| Err(Error::Setting { setting, what });
        if self.listen.is_empty() {
            return wrong("listen", "is empty; set host:port");
        }
        if !self.advertise.is_empty() && Channels::parse_address(&self.advertise).is_err() {
            return wrong("advertise", "is not an address; set host:port");
        }
        if !(1..=COORDINATORS_MAX).contains(&self.coordinators.len()) {
            return wrong("coordinators", "has none, or more than 16; set the host:port of each");
        }
        if self.coordinators.iter().any(|address| Channels::parse_address(address).is_err()) {
            return wrong("coordinators", "has one that is not an address; set host:port");
        }
        if self.join_secret.is_empty() {
            return wrong("join_secret", "is not set; use the secret of the coordinator");
        }
        if self.headroom_percent > 99 {
            return wrong("headroom_percent", "is not between 0 and 99");
        }
        if !(1..=100).contains(&self.high_watermark_percent) {
            return wrong("high_watermark_percent", "is not between 1 and 100");
        }
        for (setting, value, max) in [
            ("disk_threads", self.disk_threads, 1_024),
            ("sessions", self.sessions, 65_536),
            ("replica_sessions", self.replica_sessions, 65_536),
            ("replication_streams", self.replication_streams, 65_536),
            ("reads", self.reads, 4_096),
            ("builds", self.builds, 256),
        ] {
            if !(1..=max).contains(&value) {
                return wrong(setting, "is 0, or too large");
            }
        }
        if !(1..=REPLICAS_MAX).contains(&self.min_durable_replicas) {
            return wrong("min_durable_replicas", "is not between 1 and 16");
        }
        if self.session_idle_ms < 100 {
            return wrong("session_idle_ms", "is less than 100");
        }
        if !(10..self.session_idle_ms).contains(&self.replica_stall_ms) {
            return wrong("replica_stall_ms", "is less than 10, or not less than session_idle_ms");
        }
        if (1..SCRUB_EVERY_MS_MIN).contains(&self.scrub_every_ms) {
            return wrong("scrub_every_ms", "is less than 1000, but not 0");
        }
        if (1..MOVE_RATE_MIN).contains(&self.move_bytes_per_second) {
            return wrong("move_bytes_per_second", "is less than 1 MiB, but not 0");
        }
        if self.window_bytes < WINDOW_BYTES_MIN {
            return wrong("window_bytes", "is less than 8 MiB");
        }
        Ok(())
    }

    /// Returns the weight of the replicas that may be built here concurrently, and of those that may
    /// be read here for builds elsewhere. Each of them gets its turn to move a frame within seconds,
    /// so that nobody takes a node with a low rate for one that hangs.
    pub(crate) fn build_weight(&self) -> u32 {
        let most = BUILD_WEIGHT_MAX.saturating_mul(self.builds as u32);
        match self.move_bytes_per_second / MOVE_RATE_MIN {
            // Unlimited.
            0 => most,
            turns => most.min(u32::try_from(turns).unwrap_or(u32::MAX)),
        }
    }

    pub(crate) fn session_idle(&self) -> Duration {
        Duration::from_millis(self.session_idle_ms)
    }

    pub(crate) fn replica_stall(&self) -> Duration {
        Duration::from_millis(self.replica_stall_ms)
    }

    /// `None` if the scrub only reads on request.
    pub(crate) fn scrub_every(&self) -> Option<Duration> {
        (self.scrub_every_ms > 0).then(|| Duration::from_millis(self.scrub_every_ms))
    }

    pub(crate) fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }
}

/// A shorter pass would do little but list replicas.
const SCRUB_EVERY_MS_MIN: u64 = 1_000;
/// At a lower rate, a single frame of maximum size takes as long as a source that hangs.
const MOVE_RATE_MIN: u64 = Frame::DATA_MAX as u64;
/// Room for several frames of maximum size.
const WINDOW_BYTES_MIN: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Settings {
        Settings { join_secret: JoinSecret::new("s"), ..Settings::default() }
    }

    #[test]
    fn defaults_lack_only_the_secret() {
        assert!(matches!(
            Settings::default().validate(),
            Err(Error::Setting { setting: "join_secret", .. })
        ));
        assert!(sound().validate().is_ok());
    }

    #[test]
    fn invalid_settings_are_named() {
        let refused = |change: fn(&mut Settings)| {
            let mut settings = sound();
            change(&mut settings);
            match settings.validate() {
                Err(Error::Setting { setting, .. }) => setting,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(refused(|s| s.listen.clear()), "listen");
        assert_eq!(refused(|s| s.advertise = "a".to_owned()), "advertise");
        assert_eq!(refused(|s| s.coordinators.clear()), "coordinators");
        assert_eq!(refused(|s| s.coordinators.push("x".to_owned())), "coordinators");
        assert_eq!(refused(|s| s.high_watermark_percent = 0), "high_watermark_percent");
        assert_eq!(refused(|s| s.sessions = 0), "sessions");
        assert_eq!(refused(|s| s.min_durable_replicas = 0), "min_durable_replicas");
        assert_eq!(refused(|s| s.replica_stall_ms = s.session_idle_ms), "replica_stall_ms");
        assert_eq!(refused(|s| s.window_bytes = 1), "window_bytes");
        assert_eq!(refused(|s| s.scrub_every_ms = 1), "scrub_every_ms");
        assert_eq!(refused(|s| s.move_bytes_per_second = 1), "move_bytes_per_second");
    }

    #[test]
    fn node_with_a_low_rate_builds_less_at_a_time() {
        for (builds, mib_per_second, weight) in
            [(2, 0, 32), (2, 64, 32), (4, 64, 64), (8, 64, 64), (2, 20, 20), (2, 1, 1), (256, 1, 1)]
        {
            let settings =
                Settings { builds, move_bytes_per_second: mib_per_second << 20, ..sound() };
            assert!(settings.validate().is_ok());
            assert_eq!(settings.build_weight(), weight, "{builds} at {mib_per_second} MiB/s");
        }
    }

    #[test]
    fn secret_is_never_printed() {
        assert!(!format!("{:?}", sound()).contains("\"s\""));
    }
}
