//! Members of etcd on loopback, for tests: real processes that can be killed, stopped and
//! restarted. Panics on failures, as a test should.

mod process;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Endpoint;

use self::process::Process;
use crate::etcdserverpb::auth_client::AuthClient;
use crate::etcdserverpb::{AuthEnableRequest, AuthUserAddRequest, AuthUserGrantRoleRequest};

/// Time limit of a member's start.
const READY_WITHIN: Duration = Duration::from_mins(1);
/// Polling interval.
const POLL: Duration = Duration::from_millis(20);
/// Interval of the leader's heartbeats: half of etcd's default, as even a lone member begins with an
/// election, for which it waits.
const HEARTBEAT: Duration = Duration::from_millis(50);
/// Number of heartbeats without which a member stands for election, as by default.
const HEARTBEATS_MISSED: u32 = 10;
/// Time limit of one health check.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of attempts to start a cluster, as another process may take a port first.
const STARTS_MAX: u32 = 5;

/// Files of a member with TLS.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// Authority of the members' certificates, and of the clients', which are then required.
    pub authority: PathBuf,
    /// The certificate of each member, for `127.0.0.1`.
    pub certificate: PathBuf,
    /// Key.
    pub key: PathBuf,
}

/// Options of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Number of members; 0 for one.
    pub members: usize,
    /// Quota of its store in bytes; etcd's default when not set.
    pub quota_bytes: Option<u64>,
    /// TLS for clients.
    pub tls: Option<Certificates>,
    /// The network of each member; loopback beyond the end of the list.
    pub places: Vec<Place>,
}

/// A network namespace of the kernel for a member.
#[derive(Debug, Clone)]
pub struct Place {
    /// Name, as in `ip netns`.
    pub namespace: String,
    /// Address of the member in it.
    pub address: String,
}

/// A cluster of etcd. Its processes end with it, and with the test.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    _folder: TempDir,
}

#[derive(Debug)]
struct Member {
    host: String,
    ports: Ports,
    arguments: Vec<String>,
    namespace: Option<String>,
    log: PathBuf,
    process: Option<Process>,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    client: u16,
    peer: u16,
    health: u16,
}

impl Cluster {
    /// Starts `members` members and waits until they respond.
    pub async fn start(members: usize) -> Self {
        Self::with(Options { members, ..Options::default() }).await
    }

    /// Starts a cluster and waits until its members respond.
    pub async fn with(options: Options) -> Self {
        for _ in 1..STARTS_MAX {
            if let Some(cluster) = Self::try_start(&options).await {
                return cluster;
            }
        }
        let cluster = Self::try_start(&options).await;
        cluster.expect("etcd ended at once, each time: see its log above")
    }

    /// Returns `None` when a member exits at once, as it does when its port is taken.
    async fn try_start(options: &Options) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let ports: Vec<Ports> = (0..options.members.max(1)).map(|_| Ports::free()).collect();
        let member = |(i, own): (usize, &Ports)| Member {
            host: host(i, options).to_owned(),
            namespace: options.places.get(i).map(|place| place.namespace.clone()),
            ports: *own,
            arguments: arguments(i, &ports, options, folder.path()),
            log: folder.path().join(format!("{i}.log")),
            process: None,
        };
        let members: Vec<Member> = ports.iter().enumerate().map(member).collect();
        let mut cluster = Self { members, _folder: folder };
        cluster.members.iter_mut().for_each(Member::start);
        for member in &mut cluster.members {
            if !member.is_ready().await {
                return None;
            }
        }
        Some(cluster)
    }

    /// Returns the `host:port` of each member, for clients.
    pub fn addresses(&self) -> Vec<String> {
        let address = |member: &Member| format!("{}:{}", member.host, member.ports.client);
        self.members.iter().map(address).collect()
    }

    /// Returns the addresses of all members in the form of a URL.
    pub fn authority(&self) -> String {
        self.addresses().join(",")
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self, member: usize) {
        self.members[member].process = None;
    }

    /// Sends SIGSTOP: the member freezes with its connections open.
    pub fn stop(&self, member: usize) {
        self.members[member].process().stop();
    }

    /// Sends SIGCONT, after [`Self::stop`].
    pub fn cont(&self, member: usize) {
        self.members[member].process().cont();
    }

    /// Restarts a killed member on its data and ports. Does not wait for it, as it may need the
    /// others to respond.
    pub fn restart(&mut self, member: usize) {
        self.members[member].start();
    }

    /// Returns whether a member responds, which it does only with a quorum.
    pub async fn is_healthy(&self, member: usize) -> bool {
        let Member { host, ports, .. } = &self.members[member];
        matches!(timeout(HEALTH_TIMEOUT, health(host, ports.health)).await, Ok(Ok(true)))
    }

    /// Waits until a member responds, which it does only with a quorum.
    pub async fn ready(&mut self, member: usize) {
        assert!(self.members[member].is_ready().await, "the member has exited");
    }

    /// Adds the user `root` with a password, and enables authentication.
    pub async fn enable_users(&self, password: &str) {
        let url = format!("http://{}", self.addresses()[0]);
        let channel = Endpoint::from_shared(url).expect("an address").connect_lazy();
        let mut service = AuthClient::new(channel);
        let name = || "root".to_owned();
        let user = AuthUserAddRequest { name: name(), password: password.to_owned() };
        service.user_add(user).await.expect("a user is added");
        let grant = AuthUserGrantRoleRequest { user: name(), role: name() };
        service.user_grant_role(grant).await.expect("the role is granted");
        service.auth_enable(AuthEnableRequest {}).await.expect("authentication is enabled");
    }

    /// Returns a metric of a member; `None` if there is none of that name.
    pub async fn metric(&self, member: usize, name: &str) -> Option<f64> {
        let page = get(&self.members[member].host, self.members[member].ports.health, "/metrics")
            .await
            .ok()?;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line?.trim().parse().ok()
    }

    /// Returns the log of a member.
    pub fn log(&self, member: usize) -> String {
        std::fs::read_to_string(&self.members[member].log).unwrap_or_default()
    }
}

impl Member {
    fn start(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let namespace = self.namespace.as_deref();
        self.process = Some(Process::start(namespace, &self.arguments, &self.log));
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    /// Waits until it responds; `false` when it has exited.
    async fn is_ready(&mut self) -> bool {
        let until = Instant::now() + READY_WITHIN;
        loop {
            let health = timeout(HEALTH_TIMEOUT, health(&self.host, self.ports.health)).await;
            if matches!(health, Ok(Ok(true))) {
                return true;
            }
            let process = self.process.as_mut().expect("it runs");
            if process.has_ended() || Instant::now() > until {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                println!("etcd is not ready; its log:\n{log}");
                assert!(process.has_ended(), "etcd was not ready within {READY_WITHIN:?}");
                return false;
            }
            sleep(POLL).await;
        }
    }
}

impl Ports {
    /// Returns ports that were free a moment ago.
    fn free() -> Self {
        let listeners = [(); 3].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
        let [client, peer, health] =
            listeners.each_ref().map(|port| port.local_addr().expect("it is bound").port());
        Self { client, peer, health }
    }
}

/// Returns the address of a member.
fn host(member: usize, options: &Options) -> &str {
    options.places.get(member).map_or("127.0.0.1", |place| &place.address)
}

fn arguments(own: usize, all: &[Ports], options: &Options, folder: &Path) -> Vec<String> {
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let Ports { client, peer, health } = all[own];
    let host = |i| host(i, options);
    let member = |(i, ports): (usize, &Ports)| format!("m{i}=http://{}:{}", host(i), ports.peer);
    let cluster: Vec<String> = all.iter().enumerate().map(member).collect();
    let address = host(own);
    let mut pairs = vec![
        ("name", format!("m{own}")),
        ("data-dir", folder.join(format!("{own}")).display().to_string()),
        ("listen-client-urls", format!("{scheme}://{address}:{client}")),
        ("advertise-client-urls", format!("{scheme}://{address}:{client}")),
        ("listen-peer-urls", format!("http://{address}:{peer}")),
        ("initial-advertise-peer-urls", format!("http://{address}:{peer}")),
        ("listen-metrics-urls", format!("http://{address}:{health}")),
        ("initial-cluster", cluster.join(",")),
        ("initial-cluster-token", folder.display().to_string()),
        ("heartbeat-interval", HEARTBEAT.as_millis().to_string()),
        ("election-timeout", (HEARTBEAT * HEARTBEATS_MISSED).as_millis().to_string()),
        ("logger", "zap".to_owned()),
        ("log-level", "warn".to_owned()),
    ];
    if let Some(bytes) = options.quota_bytes {
        pairs.push(("quota-backend-bytes", bytes.to_string()));
    }
    if let Some(Certificates { authority, certificate, key }) = &options.tls {
        pairs.extend([
            ("trusted-ca-file", authority.display().to_string()),
            ("cert-file", certificate.display().to_string()),
            ("key-file", key.display().to_string()),
            ("client-cert-auth", "true".to_owned()),
        ]);
    }
    pairs.into_iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

/// Checks whether a member can respond, for which it needs a quorum.
async fn health(host: &str, port: u16) -> std::io::Result<bool> {
    Ok(get(host, port, "/health").await?.starts_with("HTTP/1.0 200"))
}

async fn get(host: &str, port: u16, path: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect((host, port)).await?;
    connection
        .write_all(
            format!(
                "GET {path} HTTP/1.0

"
            )
            .as_bytes(),
        )
        .await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}
