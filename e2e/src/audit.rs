//! What the API server was asked, from its audit log.

use anyhow::Result;
use serde::Deserialize;

use crate::environment::Environment;

/// The log from a moment on.
pub struct Audit {
    env: Environment,
    /// Bytes of it that were there before.
    skip: usize,
}

/// A request.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// What was to be done: get, list, watch, create, patch …
    pub verb: String,
    /// When it came, as RFC 3339.
    pub request_received_timestamp: String,
    /// Who asked.
    pub user: User,
    /// For what.
    pub object_ref: Option<ObjectRef>,
    /// The answer, once there is one.
    pub response_status: Option<ResponseStatus>,
    stage: String,
}

/// Who asked.
#[derive(Debug, Clone, Deserialize)]
pub struct User {
    /// Name as the API server knows it.
    pub username: String,
    /// More about it: the name of the pod, for one that has a token of its own.
    #[serde(default)]
    pub extra: std::collections::BTreeMap<String, Vec<String>>,
}

/// What a request is about.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    /// Group of the API; empty for the core.
    pub api_group: String,
    /// Plural of the kind.
    pub resource: String,
    /// Part of it, such as `status`.
    pub subresource: String,
    /// Its name; empty for a list.
    pub name: String,
}

/// How a request was answered.
#[derive(Debug, Clone, Deserialize)]
pub struct ResponseStatus {
    /// Code of HTTP.
    pub code: u16,
}

impl Request {
    /// Whether it may have changed something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// Kind and part: `dfsclusters/status`.
    pub fn resource(&self) -> String {
        let Some(object) = &self.object_ref else { return String::new() };
        match object.subresource.as_str() {
            "" => object.resource.clone(),
            part => format!("{}/{part}", object.resource),
        }
    }
}

impl Audit {
    /// From now on. `None` where the Kubernetes shows no audit log.
    pub async fn begin(env: &Environment) -> Result<Option<Self>> {
        if !env.has_nodes() {
            return Ok(None);
        }
        let ended = env.cluster_program()?.args(&["logs", "audit"]).end().await?;
        let skip = ended.stdout.len();
        Ok(ended.is_success.then(|| Self { env: env.clone(), skip }))
    }

    /// What a user has asked since, but for the lease, which a leader renews all the time.
    pub async fn requests(&self, user: &str) -> Result<Vec<Request>> {
        let log = self.env.cluster_program()?.args(&["logs", "audit"]).run().await?;
        let new = log.get(self.skip..).unwrap_or_default();
        let requests = new.lines().filter(|line| line.contains(user));
        let requests = requests.map(serde_json::from_str::<Request>);
        let requests: Vec<Request> = requests.collect::<Result<_, _>>()?;
        let is_wanted = |request: &Request| {
            request.user.username == user
                && request.stage == "ResponseComplete"
                && request.resource() != "leases"
        };
        Ok(requests.into_iter().filter(is_wanted).collect())
    }
}
