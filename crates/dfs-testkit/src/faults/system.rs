//! The processes of a run, and queries of their state.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use dfs_client::{
    Client, ClusterStatus, DeleteOptions, MakeDirectoryOptions, PutOptions, PutSource,
};
use dfs_etcd::test_server;
use dfs_types::{DfsPath, NodeState};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::network::{Host, Networks, Switch};
use crate::process::{Cluster, Metadata, Place, Settings, wait_until};

/// Number of coordinators, of members of etcd, and of datanodes.
pub(super) const EACH: usize = 3;
/// Time after which another coordinator takes over the background work.
pub(super) const WORKER_LEASE: Duration = Duration::from_secs(3);
/// Time after which a silent datanode counts as lost.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(6);
/// Number of disks of a datanode.
const DISKS: usize = 2;
/// Time limit for the system to be healthy again after a fault.
const WHOLE_WITHIN: Duration = Duration::from_secs(45);
/// Time limit of repair at the end.
const FULL_WITHIN: Duration = Duration::from_mins(2);
/// Time limit of a status call.
const PROBE_WITHIN: Duration = Duration::from_secs(2);
/// Files deleted to give the reaper work.
const DOOMED: u32 = 400;
/// Number of them put concurrently.
const DOOMED_AT_ONCE: usize = 16;
/// Numbers of the first coordinator, member and datanode.
const FIRST: [u8; 3] = [1, 11, 21];

/// The processes, in the order in which they stop.
pub(super) struct System {
    pub(super) cluster: Cluster,
    pub(super) etcd: test_server::Cluster,
    pub(super) networks: Option<Networks>,
    /// Clients of single coordinators.
    probes: Vec<Client>,
    pub(super) runtime: Runtime,
    /// The datanode whose disks are damaged.
    pub(super) damaged: usize,
    disks: TempDir,
}

impl System {
    /// Starts everything, in separate networks if `networks` are given. `seed` chooses the datanode
    /// whose disks are damaged.
    pub(super) fn start(binary: PathBuf, mut networks: Option<Networks>, seed: u64) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let mut places = |first: u8, switches: &[Switch]| -> Vec<Place> {
            let Some(networks) = &mut networks else { return Vec::new() };
            let place = |number| networks.add(Host(number), switches);
            let places = (first..).take(EACH).map(place).collect::<Result<_, _>>();
            places.expect("the network works")
        };
        let [coordinators, members, datanodes] = FIRST;
        let coordinator_places = places(coordinators, &[Switch::Front, Switch::Back]);
        let member_places = places(members, &[Switch::Back]);
        let datanode_places = places(datanodes, &[Switch::Front]);
        let place = |Place { namespace, address }| test_server::Place { namespace, address };
        let options = test_server::Options {
            members: EACH,
            places: member_places.into_iter().map(place).collect(),
            ..test_server::Options::default()
        };
        let etcd = runtime.block_on(test_server::Cluster::with(options));
        // Deleted files are reaped soon, so that there is always background work.
        let coordinator = format!(
            "heartbeat_interval_ms: 200\nsuspect_after_ms: 2000\nlost_after_ms: {}\n\
             restorable_ms: 3000\nconfirm_clock_ms: 500\nworker_lease_ms: {}\n",
            LOST_AFTER.as_millis(),
            WORKER_LEASE.as_millis()
        );
        let disks = tempfile::Builder::new().prefix("dfs-disks-").tempdir();
        let disks = disks.expect("a temporary directory");
        let further = |node| {
            let further = disks_of(disks.path(), node).skip(1);
            let flag = |disk: PathBuf| ["--data-dir".to_owned(), disk.display().to_string()];
            further.flat_map(flag).collect()
        };
        let settings = Settings {
            disks: (0..EACH).filter_map(|node| disks_of(disks.path(), node).next()).collect(),
            datanode_flags: (0..EACH).map(further).collect(),
            coordinators: EACH,
            datanodes: EACH,
            metadata: Metadata::Url(format!("etcd://{}/faults", etcd.authority())),
            coordinator,
            coordinator_places,
            datanode_places,
            ..Settings::default()
        };
        let cluster = Cluster::start(binary, settings);
        let probe = |url| Client::builder().coordinator(url).deadline(PROBE_WITHIN).connect_lazy();
        let probes = cluster.coordinator_urls().into_iter().map(probe);
        let probes = probes.collect::<Result<_, _>>().expect("valid addresses");
        let damaged = seed as usize % EACH;
        Self { cluster, etcd, networks, probes, runtime, damaged, disks }
    }

    /// Returns the directories of the disks of a datanode.
    pub(super) fn disks_of(&self, node: usize) -> Vec<PathBuf> {
        disks_of(self.disks.path(), node).collect()
    }

    /// Returns a client of all coordinators, starting with a different one than its neighbours.
    pub(super) fn client(&self, number: usize) -> Client {
        let mut coordinators = self.cluster.coordinator_urls();
        let count = coordinators.len();
        coordinators.rotate_left(number % count);
        let builder = Client::builder().coordinators(coordinators);
        let _guard = self.runtime.enter();
        builder.connect_lazy().expect("valid addresses")
    }

    /// Returns the status reported by one coordinator.
    fn status(&self, coordinator: usize) -> Option<ClusterStatus> {
        let probe = &self.probes[coordinator];
        self.runtime.block_on(probe.admin().status()).ok()
    }

    /// Returns the coordinator that considers itself the holder of the worker lease. A suspended
    /// one is not asked.
    pub(super) fn holder(&self, but: Option<usize>) -> Option<usize> {
        (0..EACH).filter(|index| Some(*index) != but).find(|index| self.is_holder(*index))
    }

    /// Returns true if this coordinator considers itself the holder. Others name the holder too.
    pub(super) fn is_holder(&self, index: usize) -> bool {
        let Some(own) = self.cluster.coordinators().nth(index) else { return false };
        self.status(index).is_some_and(|status| status.worker_lease_holder == own.address())
    }

    /// Deletes many files, so that the reaper has work for a while.
    pub(super) fn doom_files(&self) -> Result<(), String> {
        let client = self.client(0);
        let path = |text: String| DfsPath::new(text).expect("a valid path");
        let doomed = async {
            let folder = path("/doomed".to_owned());
            client.make_directory(&folder, MakeDirectoryOptions::default().parents(true)).await?;
            let put = async |number| {
                let at = path(format!("/doomed/{number}"));
                client.put(&at, PutSource::bytes(Bytes::new()), PutOptions::default()).await
            };
            let mut puts = stream::iter(0..DOOMED).map(put).buffer_unordered(DOOMED_AT_ONCE);
            while puts.try_next().await?.is_some() {}
            client.delete(&folder, DeleteOptions::default().recursive(true).now(true)).await
        };
        let doomed: Result<(), dfs_client::Error> = self.runtime.block_on(doomed);
        doomed.map_err(|error| format!("files for the reaper: {error}"))
    }

    /// Waits until all are active members of the cluster again.
    pub(super) fn wait_until_whole(&self) -> Result<(), String> {
        let mut why = String::new();
        let is_whole = wait_until(WHOLE_WITHIN, || {
            why = self.what_is_missing().unwrap_or_default();
            why.is_empty()
        });
        let late = || format!("not healthy within {WHOLE_WITHIN:?} after a fault: {why}");
        is_whole.then_some(()).ok_or_else(late)
    }

    /// Waits until every chunk has all its replicas. Only the lease holder knows.
    pub(super) fn wait_until_full(&self) -> Result<(), String> {
        let mut seen = None;
        let is_full = wait_until(FULL_WITHIN, || {
            seen = (0..EACH)
                .filter_map(|index| self.status(index))
                .find_map(|status| status.replication);
            seen.as_ref().is_some_and(|replication| {
                replication.under_replicated + replication.missing + replication.bad_replicas == 0
            })
        });
        let late = || format!("not all replicas were restored within {FULL_WITHIN:?}: {seen:?}");
        is_full.then_some(()).ok_or_else(late)
    }

    fn what_is_missing(&self) -> Option<String> {
        for member in 0..EACH {
            if !self.runtime.block_on(self.etcd.is_healthy(member)) {
                return Some(format!("member {member} of etcd is not healthy"));
            }
        }
        for index in 0..EACH {
            let Some(status) = self.status(index) else {
                return Some(format!("coordinator {index} does not reply"));
            };
            let active = status.nodes.iter().filter(|node| node.state == NodeState::Active);
            if active.count() < EACH {
                return Some(format!("coordinator {index} lacks a node: {:?}", status.nodes));
            }
        }
        None
    }

    /// Unplugs or plugs cables of a coordinator.
    pub(super) fn cut_coordinator(&self, index: usize, switches: &[Switch], is_cut: bool) {
        self.cut(FIRST[0], index, switches, is_cut);
    }

    /// Unplugs or plugs the cable of a member of etcd.
    pub(super) fn cut_member(&self, index: usize, is_cut: bool) {
        self.cut(FIRST[1], index, &[Switch::Back], is_cut);
    }

    fn cut(&self, first: u8, index: usize, switches: &[Switch], is_cut: bool) {
        let networks = self.networks.as_ref().expect("cuts require networks");
        for switch in switches {
            let host = Host(first + index as u8);
            let done =
                if is_cut { networks.pull(host, *switch) } else { networks.plug(host, *switch) };
            done.expect("the network can be changed");
        }
    }

    /// Returns the epochs of the worker lease that coordinators have logged, with their
    /// coordinator.
    pub(super) fn epochs(&self) -> Vec<(u64, usize)> {
        let mut epochs = Vec::new();
        for (index, coordinator) in self.cluster.coordinators().enumerate() {
            let log = coordinator.log();
            let lines = log.lines().filter(|line| line.contains("holds the worker lease"));
            let epoch = |line: &str| {
                let digits = line.split_once("epoch=")?.1;
                let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
                digits[..end].parse::<u64>().ok()
            };
            epochs.extend(lines.filter_map(epoch).map(|epoch| (epoch, index)));
        }
        epochs.sort_unstable();
        epochs
    }

    /// Returns the number of log lines of all servers that contain `text`.
    pub(super) fn logged(&self, text: &str) -> usize {
        let servers = self.cluster.coordinators().chain(&self.cluster.datanodes);
        servers.map(|server| server.log().matches(text).count()).sum()
    }

    /// Copies all logs to a directory.
    pub(super) fn keep_logs(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        for (index, server) in self.cluster.coordinators().enumerate() {
            std::fs::write(folder.join(format!("coordinator-{index}.log")), server.log())?;
        }
        for (index, server) in self.cluster.datanodes.iter().enumerate() {
            std::fs::write(folder.join(format!("datanode-{index}.log")), server.log())?;
        }
        for index in 0..EACH {
            std::fs::write(folder.join(format!("etcd-{index}.log")), self.etcd.log(index))?;
        }
        Ok(())
    }
}

fn disks_of(folder: &Path, node: usize) -> impl Iterator<Item = PathBuf> {
    (0..DISKS).map(move |disk| folder.join(format!("node-{node}-disk-{disk}")))
}
