//! Services of a coordinator whose store holds no cluster: they reply that it waits for
//! `Admin.Init` to create one.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dfs_metadata::namespace;
use dfs_proto::v1::admin_server::{Admin, AdminServer};
use dfs_proto::v1::coordinator_server::CoordinatorServer;
use dfs_proto::v1::membership_server::MembershipServer;
use dfs_proto::{Detail, Failure, v1, wire};
use dfs_transport::split;
use dfs_types::{ClusterId, ErrorCode, Replication};
use tokio::sync::Notify;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tracing::info;

use super::{coordinator, membership, upload};
use crate::components::Components;
use crate::failure;

/// Retry hint for early callers.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Creates the cluster on request.
pub(crate) struct Initialiser {
    pub(crate) components: Components,
    /// The only id that it may get, if configured.
    pub(crate) expected: Option<ClusterId>,
    /// Notified when one was created.
    pub(crate) made: Notify,
}

/// Returns the services while there is no cluster.
pub(crate) async fn waiting_routes(initialiser: Arc<Initialiser>) -> Routes {
    let (reporter, health) = tonic_health::server::health_reporter();
    super::stop_serving(&reporter).await;
    reporter.set_service_status("", ServingStatus::NotServing).await;
    Routes::new(AdminServer::new(Handler(initialiser)))
        .add_service(NotYet::<CoordinatorServer<coordinator::Handler>>(PhantomData))
        .add_service(NotYet::<MembershipServer<membership::Handler>>(PhantomData))
        .add_service(health)
}

/// Parses what a caller wants to create.
pub(super) fn parse(request: &v1::InitRequest) -> Result<(ClusterId, Replication), Failure> {
    let cluster = wire::id("cluster_id", &request.cluster_id)?;
    let replication = upload::replication(request.replication_factor, request.min_write_replicas)?;
    Ok((cluster, replication))
}

/// Replies to a request when there already is a cluster: the requested one, or another.
pub(super) fn already(asked: ClusterId, found: ClusterId) -> Result<v1::InitResponse, Failure> {
    if asked != found {
        let error = dfs_metadata::Error::WrongCluster { expected: asked, found };
        return Err(failure::of(&error));
    }
    Ok(v1::InitResponse { is_new: false })
}

impl Initialiser {
    async fn init(&self, request: &v1::InitRequest) -> Result<v1::InitResponse, Failure> {
        let (cluster, replication) = parse(request)?;
        if let Some(expected) = self.expected {
            already(cluster, expected)?;
        }
        let Components { engine, clock, random, .. } = &self.components;
        let options = namespace::InitOptions { cluster, replication };
        match namespace::init(&**engine, &options, &**clock, &**random).await {
            Ok(_) => {
                info!(%cluster, "created the cluster");
                self.made.notify_one();
                Ok(v1::InitResponse { is_new: true })
            }
            Err(dfs_metadata::Error::AlreadyInitialised(found)) => {
                self.made.notify_one();
                already(cluster, found)
            }
            Err(error) => Err(failure::of(&error)),
        }
    }
}

fn not_yet() -> Status {
    let message = "the coordinator waits for init: its metadata store holds no cluster yet; the \
                   call Admin.Init creates one, which is the operator's first step";
    Failure::new(ErrorCode::Unavailable, message)
        .retry_after(RETRY_AFTER)
        .detail(Detail::Uninitialised)
        .into()
}

struct Handler(Arc<Initialiser>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Admin for Handler {
    async fn init(&self, request: Request<v1::InitRequest>) -> Answer<v1::InitResponse> {
        let (_, request) = split(request)?;
        Ok(Response::new(self.0.init(&request).await?))
    }

    async fn cluster_status(
        &self,
        _: Request<v1::ClusterStatusRequest>,
    ) -> Answer<v1::ClusterStatusResponse> {
        Err(not_yet())
    }

    async fn set_replication(
        &self,
        _: Request<v1::SetReplicationRequest>,
    ) -> Answer<v1::SetReplicationResponse> {
        Err(not_yet())
    }

    async fn admit(&self, _: Request<v1::AdmitRequest>) -> Answer<v1::AdmitResponse> {
        Err(not_yet())
    }

    async fn safe_to_stop(
        &self,
        _: Request<v1::SafeToStopRequest>,
    ) -> Answer<v1::SafeToStopResponse> {
        Err(not_yet())
    }

    async fn maintenance(
        &self,
        _: Request<v1::MaintenanceRequest>,
    ) -> Answer<v1::MaintenanceResponse> {
        Err(not_yet())
    }

    async fn drain(&self, _: Request<v1::DrainRequest>) -> Answer<v1::DrainResponse> {
        Err(not_yet())
    }

    async fn undrain(&self, _: Request<v1::UndrainRequest>) -> Answer<v1::UndrainResponse> {
        Err(not_yet())
    }

    async fn retire_disk(
        &self,
        _: Request<v1::RetireDiskRequest>,
    ) -> Answer<v1::RetireDiskResponse> {
        Err(not_yet())
    }

    async fn give_up(&self, _: Request<v1::GiveUpRequest>) -> Answer<v1::GiveUpResponse> {
        Err(not_yet())
    }

    async fn readmit(&self, _: Request<v1::ReadmitRequest>) -> Answer<v1::ReadmitResponse> {
        Err(not_yet())
    }

    async fn deregister(
        &self,
        _: Request<v1::DeregisterRequest>,
    ) -> Answer<v1::DeregisterResponse> {
        Err(not_yet())
    }

    async fn forget(&self, _: Request<v1::ForgetRequest>) -> Answer<v1::ForgetResponse> {
        Err(not_yet())
    }

    async fn workers(&self, _: Request<v1::WorkersRequest>) -> Answer<v1::WorkersResponse> {
        Err(not_yet())
    }

    async fn set_worker(&self, _: Request<v1::SetWorkerRequest>) -> Answer<v1::SetWorkerResponse> {
        Err(not_yet())
    }

    async fn check_replicas(
        &self,
        _: Request<v1::CheckReplicasRequest>,
    ) -> Answer<v1::CheckReplicasResponse> {
        Err(not_yet())
    }

    async fn gc_status(&self, _: Request<v1::GcStatusRequest>) -> Answer<v1::GcStatusResponse> {
        Err(not_yet())
    }

    async fn acknowledge_gc(
        &self,
        _: Request<v1::AcknowledgeGcRequest>,
    ) -> Answer<v1::AcknowledgeGcResponse> {
        Err(not_yet())
    }

    async fn upgrade_status(
        &self,
        _: Request<v1::UpgradeStatusRequest>,
    ) -> Answer<v1::UpgradeStatusResponse> {
        Err(not_yet())
    }

    async fn finalize_upgrade(
        &self,
        _: Request<v1::FinalizeUpgradeRequest>,
    ) -> Answer<v1::UpgradeStatusResponse> {
        Err(not_yet())
    }
}

/// Refuses each call of the service `S` as too early.
struct NotYet<S>(PhantomData<fn() -> S>);

impl<S> Clone for NotYet<S> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<S: NamedService> NamedService for NotYet<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for NotYet<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        ready(Ok(not_yet().into_http()))
    }
}
