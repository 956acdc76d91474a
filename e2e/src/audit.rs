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
    /// Name as the API server knows it; empty for who could not say.
    #[serde(default)]
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
        let Some(whole) = Self::whole(env).await? else { return Ok(None) };
        let skip = whole.read().await?.len();
        Ok(Some(Self { skip, ..whole }))
    }

    /// All there is of it. `None` where the Kubernetes shows no audit log.
    pub async fn whole(env: &Environment) -> Result<Option<Self>> {
        if !env.has_nodes() {
            return Ok(None);
        }
        let ended = env.cluster_program()?.args(&["logs", "audit"]).end().await?;
        Ok(ended.is_success.then(|| Self { env: env.clone(), skip: 0 }))
    }

    async fn read(&self) -> Result<String> {
        self.env.cluster_program()?.args(&["logs", "audit"]).run().await
    }

    /// What a user has asked since, but for the lease, which a leader renews all the time.
    pub async fn requests(&self, user: &str) -> Result<Vec<Request>> {
        let mut requests = self.requests_of(&|name| name == user).await?;
        requests.retain(|request| request.resource() != "leases");
        Ok(requests)
    }

    /// What users have asked since.
    pub async fn requests_of(&self, is_wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Request>> {
        let log = self.read().await?;
        let mut requests = Vec::new();
        for line in log.get(self.skip..).unwrap_or_default().lines() {
            let request: Request = serde_json::from_str(line)?;
            if is_wanted(&request.user.username) && request.stage == "ResponseComplete" {
                requests.push(request);
            }
        }
        Ok(requests)
    }
}
