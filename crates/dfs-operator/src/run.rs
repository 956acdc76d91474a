//! The process: logs, HTTP server, lease, and the controller while the lease is held.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use dfs_runtime::{Metrics, Readiness, Shutdown, StatusServer, init_logging, within};
use kube::Client;

use crate::args::{Args, Command};
use crate::controller::{Operator, Pod};
use crate::coordinator::GrpcCoordinator;
use crate::hooks;
use crate::lease::Election;

/// Time that running reconciliations have to end at shutdown.
const DRAIN: Duration = Duration::from_secs(6);
/// Worker threads; they mostly wait.
const THREADS: usize = 2;

impl Args {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        match &self.command {
            Some(Command::Crd) => match dfs_crd::crd_yaml() {
                Ok(yaml) => {
                    print!("{yaml}");
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    eprintln!("dfs-operator: cannot print the definition: {error}");
                    ExitCode::FAILURE
                }
            },
            Some(Command::Apply { file }) => once(hooks::apply(file)),
            Some(Command::CheckUninstall) => once(hooks::check_uninstall(&self.namespaces())),
            None => main(self),
        }
    }
}

/// Runs the operator until it is signalled to stop or has lost the lease.
pub fn main(args: Args) -> ExitCode {
    if let Err(error) = init_logging(&args.log_level, args.log_format) {
        eprintln!("dfs-operator: {error}");
        return ExitCode::from(2);
    }
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a bug in the operator")));
    // The only error is that one is already installed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(args)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the operator failed");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command to its end, and prints its error.
pub(crate) fn once(work: impl Future<Output = Result<()>>) -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dfs-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
    let namespaces = args.namespaces();
    let pod = Pod {
        name: args.pod_name.unwrap_or_default(),
        namespace: args.pod_namespace.unwrap_or_default(),
        is_in_cluster: kube::Config::incluster().is_ok(),
    };
    let client = Client::try_default().await.context("cannot find the Kubernetes cluster")?;
    let metrics = Metrics::new("operator");
    let operator =
        Operator::new(client.clone(), Arc::new(GrpcCoordinator::new()), &metrics, namespaces, &pod);
    let (health, readiness) =
        (Readiness::new(""), Readiness::new("the lease has not been read yet"));
    health.ready();
    let listen = &args.http_listen;
    let server = StatusServer::bind(listen).await;
    let server = server.with_context(|| format!("cannot listen on {listen}"))?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = %server.address(),
        "the operator is starting"
    );
    let served =
        server.with_health(health.clone()).run(metrics, readiness.clone(), shutdown.clone());

    let election = Election::new(client, &pod.namespace, &args.lease_name, &pod.name);
    let led = lead(&operator, election, &readiness, &shutdown);
    tokio::select! {
        result = led => result,
        () = operator.watch_health(&health) => Ok(()),
        // The HTTP server closes on shutdown; work in progress continues.
        () = async { served.await; std::future::pending().await } => Ok(()),
    }
}

/// Waits for the lease, and acts while it is held.
async fn lead(
    operator: &Operator,
    mut election: Election,
    readiness: &Readiness,
    shutdown: &Shutdown,
) -> Result<()> {
    tokio::select! {
        biased;
        () = shutdown.requested() => return Ok(()),
        () = election.acquire(readiness) => {}
    }
    tracing::info!("the lease is held; managing clusters");
    operator.show_leader(true);
    readiness.not_ready("not all clusters are known yet");
    let lost = tokio::select! {
        biased;
        lost = election.hold() => Some(lost),
        done = within(shutdown, DRAIN, operator.run(readiness, shutdown)) => {
            if done.is_none() {
                tracing::warn!("reconciles were cut off; the next ones continue");
            }
            None
        }
    };
    operator.show_leader(false);
    match lost {
        // Another operator is active: do nothing more.
        Some(lost) => Err(anyhow!(lost)),
        None if !shutdown.is_requested() => {
            election.release().await;
            Err(anyhow!("the controller ended unexpectedly"))
        }
        None => {
            election.release().await;
            Ok(())
        }
    }
}
