//! One running coordinator.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_metadata::Committer;
use dfs_metadata::engine::Engine;
use dfs_metadata::namespace::{self, ClusterIdentity, Namespace, Replication};
use dfs_runtime::{Metrics, Readiness, Shutdown, StatusServer, Trigger};
use dfs_transport::{Channels, Listener, Network, Security};
use dfs_types::{Clock, ClusterId, Incarnation, Random};
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout};
use tonic::service::Routes;
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

use crate::core::Core;
use crate::metrics::Counts;
use crate::registry::{Patience, Registry};
use crate::workers::{Background, Delete, Reaper, Repair, Supervisor, Worker};
use crate::{Error, InitOptions, Settings, grpc, placement};

/// How long the plan of an upload is honoured.
pub(crate) const PLAN_LIFETIME: Duration = Duration::from_hours(1);
/// How long an upload that stages lives after it was last renewed.
const STAGING_LIFETIME: Duration = Duration::from_hours(1);
/// How often what is stored of the nodes is read again, which also shows whether the metadata can
/// be reached.
const REFRESH_EVERY: Duration = Duration::from_secs(5);

/// What a coordinator is built on; passed in, so that a simulation can decide all of it.
#[derive(Clone)]
pub struct Components {
    /// Where the metadata lies.
    pub engine: Arc<dyn Engine>,
    /// How others are reached.
    pub network: Arc<dyn Network>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Where ids, keys and choices come from.
    pub random: Arc<dyn Random>,
}

/// What others may know of a running coordinator. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Where the gRPC service listens.
    pub address: SocketAddr,
    /// Where /metrics, /healthz and /readyz listen, if anywhere.
    pub http_address: Option<SocketAddr>,
    /// Whether it can do its work.
    pub readiness: Readiness,
}

/// A coordinator that listens, and answers once it [runs](Self::run).
pub struct Service {
    handle: Handle,
    core: Arc<Core>,
    engine: Arc<dyn Engine>,
    listener: Box<dyn Listener>,
    routes: Routes,
    health: HealthReporter,
    status: Option<StatusServer>,
    metrics: Metrics,
    /// Tells everything that runs to end.
    stop: Trigger,
    commits: BoxFuture<'static, ()>,
    /// Tells the committer to end, which it does last.
    stop_commits: Trigger,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Service {
    /// Checks the settings, listens, and reads which cluster the store holds.
    /// [`Error::NotInitialised`] when it holds none: a cluster is made by [`init`] alone.
    pub async fn start(settings: Settings, components: Components) -> Result<Self, Error> {
        settings.validate()?;
        let Components { engine, network, clock, random } = components;
        let cannot_listen = |address: &str, source: io::Error| Error::Listen {
            address: address.to_owned(),
            source,
        };
        let listener = network.listen(&settings.listen).await;
        let listener = listener.map_err(|error| cannot_listen(&settings.listen, error))?;
        let address = listener.local_address();
        let status = match &settings.http_listen[..] {
            "" => None,
            http => {
                Some(StatusServer::bind(http).await.map_err(|error| cannot_listen(http, error))?)
            }
        };

        let (stop_commits, commits_end) = Shutdown::new();
        let (committer, commits) =
            Committer::new(engine.clone(), async move { commits_end.requested().await });
        let metrics = Metrics::new("coordinator");
        show_commits(&metrics, &committer);
        let components = namespace::Components {
            engine: engine.clone(),
            committer,
            clock: clock.clone(),
            random: random.clone(),
        };
        let options = namespace::Options {
            restorable: Duration::from_millis(settings.restorable_ms),
            plan_lifetime: PLAN_LIFETIME,
            staging_lifetime: STAGING_LIFETIME,
        };
        // Any incarnation: which is the newest, datanodes know better than a setting.
        let expected = settings
            .expected_cluster()
            .map(|cluster| ClusterIdentity { cluster, incarnation: Incarnation(0) });
        let namespace = match Namespace::open(components, options, expected).await {
            Err(dfs_metadata::Error::NotInitialised) => return Err(Error::NotInitialised),
            opened => opened.map_err(Error::metadata("opening the metadata"))?,
        };
        let state = namespace.cluster_state().await;
        let state = state.map_err(Error::metadata("reading the settings of the cluster"))?;
        if let Some(overruled) = settings.overruled_by(state.replication) {
            warn!("{overruled}: the cluster's value holds; Admin.SetReplication changes it");
        }

        let advertised = match &settings.advertise[..] {
            "" => address.to_string(),
            advertise => advertise.to_owned(),
        };
        let patience = Patience {
            suspect_after: Duration::from_millis(settings.suspect_after_ms),
            lost_after: Duration::from_millis(settings.lost_after_ms),
        };
        let (stop, stopping) = Shutdown::new();
        let core = Arc::new(Core {
            engine: engine.clone(),
            namespace,
            channels: Channels::new(network, Security::default()),
            clock,
            random,
            selector: placement::selector(settings.placement),
            counts: Arc::new(Counts::new(&metrics)),
            background: Background::new(advertised),
            stopping,
            registry: Mutex::new(Registry::new(patience, Instant::now())),
            settings,
        });
        core.refresh_members().await.map_err(Error::metadata("reading the datanodes"))?;
        let (routes, health) = grpc::routes(&core).await?;
        let handle = Handle {
            address,
            http_address: status.as_ref().map(StatusServer::address),
            readiness: Readiness::new("starting"),
        };
        Ok(Self {
            handle,
            core,
            engine,
            listener,
            routes,
            health,
            status,
            metrics,
            stop,
            commits: Box::pin(commits),
            stop_commits,
        })
    }

    #[cfg(test)]
    pub(crate) fn core(&self) -> Arc<Core> {
        self.core.clone()
    }

    /// What others may know of it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Answers until the order to stop, then lets calls under way end within the set time. When it
    /// returns nothing of it runs any more. Dropping the future is like a crash: nothing
    /// acknowledged is lost.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let Self {
            handle,
            core,
            engine,
            listener,
            routes,
            health,
            status,
            metrics,
            stop,
            commits,
            stop_commits,
        } = self;
        let cluster = core.namespace.identity().cluster;
        info!(%cluster, address = %handle.address, "the coordinator serves");
        let mut commits = tokio::spawn(commits);
        let drain = Duration::from_millis(core.settings.drain_ms);
        let stopping = core.stopping.clone();
        let (stop_status, status_ends) = Shutdown::new();

        let order = async {
            tokio::select! {
                biased;
                () = shutdown.requested() => {}
                () = stopping.requested() => {}
            }
            handle.readiness.not_ready("stopping");
            grpc::stop_serving(&health).await;
            stop.stop();
        };
        let serving = async {
            let until = stopping.clone();
            let until = async move { until.requested().await };
            let served =
                dfs_transport::serve(listener, routes, core.counts.clone(), until, drain).await;
            // It may have broken without an order.
            stop.stop();
            stop_status.stop();
            served.map_err(Error::Serve)
        };
        let background = async {
            tokio::select! {
                biased;
                () = stopping.requested() => {}
                () = watch(&core, &handle.readiness) => {}
                () = supervisor(&core, engine).run() => {}
            }
        };
        let status = async {
            if let Some(status) = status {
                status.run(metrics, handle.readiness.clone(), status_ends).await;
            }
        };
        let (served, (), (), ()) =
            tokio::join!(Box::pin(serving), order, Box::pin(background), Box::pin(status));

        // Last, as the calls that were under way needed it.
        stop_commits.stop();
        if timeout(drain, &mut commits).await.is_err() {
            warn!("the metadata does not answer; commits under way are given up");
            commits.abort();
        }
        info!("the coordinator has stopped");
        served
    }
}

/// Keeps what is known of the nodes, the readiness and the gauges fresh; runs until dropped.
async fn watch(core: &Core, readiness: &Readiness) {
    let mut refresh_at = Instant::now();
    loop {
        let now = Instant::now();
        core.registry().tick(now);
        if refresh_at <= now {
            refresh_at = now + REFRESH_EVERY;
            match core.refresh_members().await {
                Ok(()) => readiness.ready(),
                Err(error) => {
                    let error = crate::chain(&error);
                    warn!(error, "the metadata cannot be read");
                    readiness.not_ready(format!("the metadata cannot be read: {error}"));
                }
            }
        }
        let (views, lost) = {
            let registry = core.registry();
            (registry.views(now), registry.lost(now))
        };
        core.counts.show_nodes(&views);
        let least = core.namespace.chunks_changed_at();
        core.counts.show_chunks(core.background.tally(&lost, least).map(|(tally, _)| tally));
        for progress in core.background.workers() {
            core.counts.show_worker(progress);
        }
        sleep(core.settings.heartbeat_interval()).await;
    }
}

fn supervisor(
    core: &Arc<Core>,
    engine: Arc<dyn Engine>,
) -> Supervisor<impl Fn() -> Vec<Box<dyn Worker>>> {
    let workers = core.clone();
    Supervisor {
        engine,
        holder: core.background.holder().to_owned(),
        ttl: Duration::from_millis(core.settings.worker_lease_ms),
        state: core.background.lease.clone(),
        make: move || {
            vec![
                Box::new(Repair::new(workers.clone())) as Box<dyn Worker>,
                Box::new(Reaper::new(workers.clone())),
                Box::new(Delete::new(workers.clone())),
            ]
        },
    }
}

fn show_commits(metrics: &Metrics, committer: &Committer) {
    let (commits, batches) = (committer.clone(), committer.clone());
    metrics.gauge_fn(
        "dfs_coordinator_commits",
        "Commits handed to the metadata engine since the start.",
        move || commits.commits() as i64,
    );
    metrics.gauge_fn(
        "dfs_coordinator_engine_commits",
        "Durable commits of the metadata engine that they took.",
        move || batches.engine_commits() as i64,
    );
}

/// Makes a cluster in an empty metadata store, on purpose and once: a store that holds one already
/// is refused and stays as it is.
pub async fn init(
    engine: Arc<dyn Engine>,
    clock: &dyn Clock,
    random: &dyn Random,
    options: InitOptions,
) -> Result<ClusterId, Error> {
    let InitOptions { replication_factor, min_write_replicas } = options;
    let replication = Replication { factor: replication_factor, min_write: min_write_replicas };
    let options = namespace::InitOptions { replication };
    match namespace::init(&*engine, &options, clock, random).await {
        Ok(identity) => Ok(identity.cluster),
        Err(dfs_metadata::Error::AlreadyInitialised(cluster)) => {
            Err(Error::AlreadyInitialised(cluster))
        }
        Err(error) => Err(Error::metadata("making a cluster")(error)),
    }
}
