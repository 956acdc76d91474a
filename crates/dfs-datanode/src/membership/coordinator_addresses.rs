//! Discovery of coordinators: the current addresses of the configured names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dfs_transport::Channels;
use tokio::sync::{Mutex, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::{Coordinator, Shared};
use crate::node::Node;

/// Interval of name lookups, so that new coordinators soon get heartbeats.
const LOOK_UP_EVERY: Duration = Duration::from_secs(5);
/// Delay of a lookup after heartbeats ended: a restarted coordinator may have a new address.
const LOOK_UP_AFTER: Duration = Duration::from_secs(1);
/// Maximum number of coordinators that get heartbeats.
const COORDINATORS_MAX: usize = 256;

/// A coordinator that gets heartbeats.
struct Attended {
    /// The name it was found under.
    name: String,
    is_in_touch: Arc<AtomicBool>,
    task: AbortHandle,
}

/// Registers with all coordinators and sends heartbeats, forever. Dropping the future stops it.
pub(crate) async fn run(node: Arc<Node>) {
    let shared =
        Arc::new(Shared { node, registering: Mutex::default(), ended: watch::Sender::new(0) });
    let plain = |name: &String| Channels::parse_address(name).unwrap_or_else(|_| name.clone());
    let names: BTreeSet<String> = shared.node.settings.coordinators.iter().map(plain).collect();
    // A literal address needs no lookup.
    let is_fixed = names.iter().all(|name| name.parse::<SocketAddr>().is_ok());
    let mut coordinators = Coordinators {
        shared: Arc::clone(&shared),
        attended: BTreeMap::new(),
        tasks: JoinSet::new(),
    };
    let mut ended = shared.ended.subscribe();
    let mut said = String::new();
    loop {
        ended.mark_unchanged();
        let mut found = BTreeMap::new();
        let mut failures = String::new();
        for name in &names {
            match shared.node.channels.resolve(name).await {
                Ok(addresses) => drop(found.insert(name.clone(), addresses)),
                Err(error) => failures = format!("coordinator {name}: lookup failed: {error}"),
            }
        }
        coordinators.take(&found);
        if failures != said {
            if !failures.is_empty() {
                tracing::warn!(node = %shared.node.id, "{failures}");
            }
            said.clone_from(&failures);
        }
        if coordinators.attended.is_empty() && shared.node.membership().is_none() {
            shared.node.readiness.not_ready(failures);
        }
        if is_fixed {
            // All are known, and their tasks never end.
            std::future::pending::<()>().await;
        }
        if timeout(LOOK_UP_EVERY, ended.changed()).await.is_ok() {
            sleep(LOOK_UP_AFTER).await;
        }
    }
}

struct Coordinators {
    shared: Arc<Shared>,
    /// Coordinators by address.
    attended: BTreeMap<String, Attended>,
    tasks: JoinSet<()>,
}

impl Coordinators {
    /// Starts a task for each new coordinator, and stops those no longer named that do not reply.
    fn take(&mut self, found: &BTreeMap<String, Vec<String>>) {
        let named: BTreeSet<&String> = found.values().flatten().collect();
        self.attended.retain(|address, attended| {
            let is_wanted = named.contains(address)
                // The addresses of a name whose lookup failed are unknown.
                || !found.contains_key(&attended.name)
                || attended.is_in_touch.load(Ordering::Relaxed);
            if !is_wanted {
                let node = self.shared.node.id;
                tracing::info!(coordinator = address, %node, "a coordinator is gone");
                attended.task.abort();
            }
            is_wanted
        });
        for (name, addresses) in found {
            for address in addresses {
                if self.attended.contains_key(address) || self.attended.len() >= COORDINATORS_MAX {
                    continue;
                }
                let coordinator = Coordinator::new(&self.shared, address.clone());
                let is_in_touch = Arc::clone(&coordinator.is_in_touch);
                let task = self.tasks.spawn(coordinator.attend());
                let attended = Attended { name: name.clone(), is_in_touch, task };
                self.attended.insert(address.clone(), attended);
            }
        }
        // Reap the stopped tasks.
        while self.tasks.try_join_next().is_some() {}
    }
}
