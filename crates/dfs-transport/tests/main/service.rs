//! A service controlled by its test.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_proto::v1::{self, admin_client::AdminClient, admin_server};
use dfs_transport::{
    Channels, ClientChannel, ConnectionLimits, Gate, MemoryNetwork, Network as _, Observer,
    Refusal, Security, Server, serve,
};
use dfs_types::RequestId;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};

const GATE: Gate = Gate::new(Server::Coordinator, Security::Plaintext);

/// Replies to `SetReplication` at once, and to `ClusterStatus` once allowed.
#[derive(Clone)]
pub(crate) struct Service {
    /// Number of `ClusterStatus` calls started.
    pub(crate) begun: watch::Sender<usize>,
    /// True once they may end.
    pub(crate) may_end: watch::Sender<bool>,
    /// Request ids of the calls.
    pub(crate) ids: Arc<Mutex<Vec<Option<RequestId>>>>,
    /// Server that `SetReplication` is forwarded to.
    pub(crate) next: Option<AdminClient<ClientChannel>>,
    /// Bytes in the replies of `ClusterStatus`.
    pub(crate) answer: usize,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            begun: watch::Sender::new(0),
            may_end: watch::Sender::new(false),
            ids: Arc::default(),
            next: None,
            answer: 0,
        }
    }
}

#[tonic::async_trait]
impl admin_server::Admin for Service {
    async fn cluster_status(
        &self,
        _request: Request<v1::ClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatusResponse>, Status> {
        self.begun.send_modify(|begun| *begun += 1);
        self.may_end.subscribe().wait_for(|may| *may).await.unwrap();
        let version = "x".repeat(self.answer);
        Ok(Response::new(v1::ClusterStatusResponse { version, ..Default::default() }))
    }

    async fn set_replication(
        &self,
        request: Request<v1::SetReplicationRequest>,
    ) -> Result<Response<v1::SetReplicationResponse>, Status> {
        let id = dfs_transport::current_request_id();
        self.ids.lock().unwrap().push(id);
        if request.get_ref().replication_factor == 0 {
            return Err(Status::invalid_argument("zero"));
        }
        if let Some(next) = &self.next {
            next.clone().set_replication(request.into_inner()).await?;
        }
        Ok(Response::new(v1::SetReplicationResponse::default()))
    }

    async fn init(
        &self,
        _request: Request<v1::InitRequest>,
    ) -> Result<Response<v1::InitResponse>, Status> {
        Err(Status::unimplemented("Init"))
    }

    async fn admit(
        &self,
        _request: Request<v1::AdmitRequest>,
    ) -> Result<Response<v1::AdmitResponse>, Status> {
        Err(Status::unimplemented("Admit"))
    }

    async fn safe_to_stop(
        &self,
        _request: Request<v1::SafeToStopRequest>,
    ) -> Result<Response<v1::SafeToStopResponse>, Status> {
        Err(Status::unimplemented("SafeToStop"))
    }

    async fn maintenance(
        &self,
        _request: Request<v1::MaintenanceRequest>,
    ) -> Result<Response<v1::MaintenanceResponse>, Status> {
        Err(Status::unimplemented("Maintenance"))
    }

    async fn drain(
        &self,
        _request: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainResponse>, Status> {
        Err(Status::unimplemented("Drain"))
    }

    async fn undrain(
        &self,
        _request: Request<v1::UndrainRequest>,
    ) -> Result<Response<v1::UndrainResponse>, Status> {
        Err(Status::unimplemented("Undrain"))
    }

    async fn retire_disk(
        &self,
        _request: Request<v1::RetireDiskRequest>,
    ) -> Result<Response<v1::RetireDiskResponse>, Status> {
        Err(Status::unimplemented("RetireDisk"))
    }

    async fn give_up(
        &self,
        _request: Request<v1::GiveUpRequest>,
    ) -> Result<Response<v1::GiveUpResponse>, Status> {
        Err(Status::unimplemented("GiveUp"))
    }

    async fn readmit(
        &self,
        _request: Request<v1::ReadmitRequest>,
    ) -> Result<Response<v1::ReadmitResponse>, Status> {
        Err(Status::unimplemented("Readmit"))
    }

    async fn deregister(
        &self,
        _request: Request<v1::DeregisterRequest>,
    ) -> Result<Response<v1::DeregisterResponse>, Status> {
        Err(Status::unimplemented("Deregister"))
    }

    async fn forget(
        &self,
        _request: Request<v1::ForgetRequest>,
    ) -> Result<Response<v1::ForgetResponse>, Status> {
        Err(Status::unimplemented("Forget"))
    }

    async fn workers(
        &self,
        _request: Request<v1::WorkersRequest>,
    ) -> Result<Response<v1::WorkersResponse>, Status> {
        Err(Status::unimplemented("Workers"))
    }

    async fn set_worker(
        &self,
        _request: Request<v1::SetWorkerRequest>,
    ) -> Result<Response<v1::SetWorkerResponse>, Status> {
        Err(Status::unimplemented("SetWorker"))
    }

    async fn check_replicas(
        &self,
        _request: Request<v1::CheckReplicasRequest>,
    ) -> Result<Response<v1::CheckReplicasResponse>, Status> {
        Err(Status::unimplemented("CheckReplicas"))
    }

    async fn gc_status(
        &self,
        _request: Request<v1::GcStatusRequest>,
    ) -> Result<Response<v1::GcStatusResponse>, Status> {
        Err(Status::unimplemented("GcStatus"))
    }

    async fn acknowledge_gc(
        &self,
        _request: Request<v1::AcknowledgeGcRequest>,
    ) -> Result<Response<v1::AcknowledgeGcResponse>, Status> {
        Err(Status::unimplemented("AcknowledgeGc"))
    }

    async fn upgrade_status(
        &self,
        _request: Request<v1::UpgradeStatusRequest>,
    ) -> Result<Response<v1::UpgradeStatusResponse>, Status> {
        Err(Status::unimplemented("UpgradeStatus"))
    }

    async fn finalize_upgrade(
        &self,
        _request: Request<v1::FinalizeUpgradeRequest>,
    ) -> Result<Response<v1::UpgradeStatusResponse>, Status> {
        Err(Status::unimplemented("FinalizeUpgrade"))
    }
}

/// Records the calls that completed and the connections that were refused.
#[derive(Default)]
pub(crate) struct Log(pub(crate) Mutex<Vec<(String, Code)>>, pub(crate) Mutex<Vec<Refusal>>);

impl Observer for Log {
    fn answered(&self, method: &str, code: Code, _elapsed: Duration) {
        self.0.lock().unwrap().push((method.to_owned(), code));
    }

    fn refused(&self, refusal: Refusal) {
        self.1.lock().unwrap().push(refusal);
    }
}

/// A running server; stops when dropped.
pub(crate) struct Running {
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) ended: JoinHandle<()>,
    pub(crate) log: Arc<Log>,
}

impl Running {
    pub(crate) async fn start(
        network: &MemoryNetwork,
        address: &str,
        service: admin_server::AdminServer<Service>,
        drain: Duration,
    ) -> Self {
        Self::start_with(network, address, service, drain, ConnectionLimits::default()).await
    }

    pub(crate) async fn start_with(
        network: &MemoryNetwork,
        address: &str,
        service: admin_server::AdminServer<Service>,
        drain: Duration,
        limits: ConnectionLimits,
    ) -> Self {
        let listener = network.listen(address).await.unwrap();
        let (stop, log) = (watch::Sender::new(false), Arc::new(Log::default()));
        let mut stopped = stop.subscribe();
        let shutdown = async move { drop(stopped.wait_for(|stop| *stop).await) };
        let routes = Routes::new(service);
        let ended =
            tokio::spawn(serve(listener, limits, routes, GATE, log.clone(), shutdown, drain));
        Self { stop, ended, log }
    }
}

pub(crate) fn channels(network: &MemoryNetwork) -> Channels {
    Channels::new(Arc::new(network.clone()), Security::Plaintext)
}

pub(crate) fn client(network: &MemoryNetwork, address: &str) -> AdminClient<ClientChannel> {
    AdminClient::new(channels(network).control(address).unwrap())
}

pub(crate) fn replication(replication_factor: u32) -> v1::SetReplicationRequest {
    v1::SetReplicationRequest { replication_factor, ..Default::default() }
}
