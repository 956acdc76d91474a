//! Builder of a client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dfs_streamer::{Hashing, SenderConfig};
use dfs_transport::{Channels, Network, Security, TcpNetwork};
use dfs_types::{Clock, ErrorCode, OsRandom, Random, SystemClock};

use crate::coordinators::Coordinators;
use crate::in_progress::InProgress;
use crate::memory_budget::{BUDGET_DEFAULT, BUDGET_MIN, Budget};
use crate::replica_order::Penalties;
use crate::routes::NodeRoutes;
use crate::slots::Slots;
use crate::stats::Counters;
use crate::{Error, Stats};

/// Default coordinator address.
const COORDINATOR_DEFAULT: &str = "http://127.0.0.1:7070";
/// Maximum number of coordinator addresses.
const COORDINATORS_MAX: usize = 64;

/// Environment of a client; replaced in a simulation.
#[derive(Clone)]
pub struct Components {
    /// Network to the servers.
    pub network: Arc<dyn Network>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Random numbers for ids, jitter and the choice between equal replicas.
    pub random: Arc<dyn Random>,
    /// Threads that read and hash chunks.
    pub hashing: Hashing,
}

impl Default for Components {
    fn default() -> Self {
        Self {
            network: Arc::new(TcpNetwork),
            clock: Arc::new(SystemClock),
            random: Arc::new(OsRandom),
            hashing: Hashing::Threads,
        }
    }
}

/// Settings of a client to be built.
#[derive(Clone)]
pub struct ClientBuilder {
    coordinators: Vec<String>,
    deadline: Duration,
    memory_budget: usize,
    host: String,
    zone: String,
    components: Components,
}

impl ClientBuilder {
    /// Adds a coordinator, `http://host:port` or `host:port`. The client starts with a random one
    /// of several, and fails over to another. A name may resolve to several addresses, each of
    /// which is a coordinator.
    pub fn coordinator(self, address: impl Into<String>) -> Self {
        self.coordinators([address.into()])
    }

    /// Adds several coordinators.
    pub fn coordinators(mut self, addresses: impl IntoIterator<Item = String>) -> Self {
        self.coordinators.extend(addresses);
        self
    }

    /// Sets how long a call is tried before it fails, 60 s by default. A put or get as a whole may
    /// take longer; it fails when one of its calls does.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the maximum number of bytes of file content that the client and all its clones hold in
    /// memory: 64 MiB by default, at least 16 MiB.
    pub fn memory_budget(mut self, bytes: usize) -> Self {
        self.memory_budget = bytes.max(BUDGET_MIN);
        self
    }

    /// Sets where the client runs: host name and zone. Nearby nodes are preferred.
    pub fn location(mut self, host: impl Into<String>, zone: impl Into<String>) -> Self {
        (self.host, self.zone) = (host.into(), zone.into());
        self
    }

    /// Replaces the environment of the client.
    pub fn components(mut self, components: Components) -> Self {
        self.components = components;
        self
    }

    /// Builds the client. Connects on the first call. Fails when an address is malformed.
    pub fn connect_lazy(mut self) -> Result<Client, Error> {
        if self.coordinators.is_empty() {
            self.coordinators.push(COORDINATOR_DEFAULT.to_owned());
        }
        let wrong = |message| Error::new(ErrorCode::InvalidArgument, "coordinator", message);
        if self.coordinators.len() > COORDINATORS_MAX {
            return Err(wrong(format!("more than {COORDINATORS_MAX} are named")));
        }
        let coordinators = self.coordinators.iter().map(|address| {
            Channels::parse_address(address).map_err(|error| wrong(error.to_string()))
        });
        let coordinators = coordinators.collect::<Result<_, _>>()?;
        let Components { network, clock, random, hashing } = self.components;
        let channels = Channels::new(network, Security::Plaintext);
        Ok(Client {
            inner: Arc::new(Inner {
                coordinators: Coordinators::new(coordinators, channels.clone(), random.clone()),
                deadline: self.deadline,
                channels,
                slots: Slots::new(clock, random.clone()),
                budget: Budget::new(self.memory_budget),
                sender: SenderConfig::default(),
                host: self.host,
                zone: self.zone,
                random,
                hashing,
                counters: Counters::default(),
                penalties: Penalties::default(),
                routes: NodeRoutes::default(),
                in_progress: InProgress::default(),
            }),
        })
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("coordinators", &self.coordinators)
            .finish_non_exhaustive()
    }
}

/// A client of one cluster. Clones share all state.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) coordinators: Coordinators,
    pub(crate) deadline: Duration,
    pub(crate) channels: Channels,
    pub(crate) slots: Slots,
    pub(crate) budget: Budget,
    pub(crate) sender: SenderConfig,
    pub(crate) host: String,
    pub(crate) zone: String,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) hashing: Hashing,
    pub(crate) counters: Counters,
    pub(crate) penalties: Penalties,
    pub(crate) routes: NodeRoutes,
    pub(crate) in_progress: InProgress,
}

impl Client {
    /// Returns a builder with default settings.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            coordinators: Vec::new(),
            deadline: Duration::from_mins(1),
            memory_budget: BUDGET_DEFAULT,
            host: String::new(),
            zone: String::new(),
            components: Components::default(),
        }
    }

    /// Waits until no upload and no temporary file of this client or its clones is left. A program
    /// that drops some of them, for example when interrupted, calls this before it exits, with its
    /// own timeout: aborting an upload takes a few seconds, but one that is still held never ends.
    pub async fn settled(&self) {
        self.inner.in_progress.none().await;
    }

    /// Returns the counters of the client.
    pub fn stats(&self) -> Stats {
        self.inner.counters.read()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("coordinators", &self.inner.coordinators.names())
            .finish_non_exhaustive()
    }
}
